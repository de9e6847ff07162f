//! The terminal while it is a screen, and the way back: on every end, a panic and a signal included.

use std::io::{self, IsTerminal as _, Write as _};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

/// How often the thread that waits for keys looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(100);

/// How many keys wait to be read.
const KEYS: usize = 64;

/// The terminal as a screen. Dropping it gives it back as it was.
pub(super) struct ScreenTerminal {
    pub(super) terminal: Terminal<CrosstermBackend<io::Stdout>>,
    is_over: Arc<AtomicBool>,
}

/// Gives back the terminal; what cannot be given back any more is left.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = io::stdout().flush();
}

impl ScreenTerminal {
    /// Takes the terminal, and returns the events of its keys.
    pub(super) fn take() -> io::Result<(Self, mpsc::Receiver<Event>)> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::other("this is no terminal: use --once"));
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // First: what is printed on the other screen is lost with it.
            restore();
            before(info);
        }));
        // From here on every way out drops it.
        let mut screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
            is_over: Arc::default(),
        };
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        screen.terminal.clear()?;
        let (sender, events) = mpsc::channel(KEYS);
        let is_over = Arc::clone(&screen.is_over);
        // A thread of its own, since reading a terminal blocks.
        thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    match event::poll(LOOK) {
                        Ok(false) => {}
                        Ok(true) => {
                            let Ok(event) = event::read() else { return };
                            if sender.blocking_send(event).is_err() {
                                return;
                            }
                        }
                        // The terminal is gone; the receiver sees the end.
                        Err(_) => return,
                    }
                }
            })?;
        Ok((screen, events))
    }
}

impl Drop for ScreenTerminal {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        restore();
    }
}
