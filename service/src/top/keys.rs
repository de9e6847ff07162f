//! What a key does.

use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};

/// What a user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    Quit,
    Help,
    Sort,
    Pause,
    /// By so many lines.
    Scroll(i32),
    /// To the first line.
    Home,
    /// The screen has another size, or must be drawn again.
    Redraw,
}

/// What an event of the terminal asks for, if anything.
pub(super) fn action(event: &Event) -> Option<KeyAction> {
    let key = match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        Event::Resize(..) => return Some(KeyAction::Redraw),
        _ => return None,
    };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c' | 'd') if is_control => KeyAction::Quit,
        KeyCode::Char('l') if is_control => KeyAction::Redraw,
        KeyCode::Char(_) if is_control => return None,
        KeyCode::Char('q') => KeyAction::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => KeyAction::Help,
        KeyCode::Char('s') => KeyAction::Sort,
        KeyCode::Char('p' | ' ') => KeyAction::Pause,
        KeyCode::Up | KeyCode::Char('k') => KeyAction::Scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => KeyAction::Scroll(1),
        KeyCode::PageUp => KeyAction::Scroll(-10),
        KeyCode::PageDown => KeyAction::Scroll(10),
        KeyCode::Home => KeyAction::Home,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_are_read_and_others_do_nothing() {
        let press = |code, modifiers| action(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |code| press(code, KeyModifiers::NONE);
        assert_eq!(plain(KeyCode::Char('q')), Some(KeyAction::Quit));
        assert_eq!(
            press(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(KeyAction::Quit)
        );
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
        assert_eq!(
            press(KeyCode::Char('?'), KeyModifiers::SHIFT),
            Some(KeyAction::Help)
        );
        assert_eq!(plain(KeyCode::PageDown), Some(KeyAction::Scroll(10)));
        assert_eq!(plain(KeyCode::Char('x')), None);
        assert_eq!(action(&Event::Resize(1, 1)), Some(KeyAction::Redraw));
        assert_eq!(action(&Event::FocusGained), None);
    }
}
