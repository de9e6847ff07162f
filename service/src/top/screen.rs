//! The loop of a terminal: a scrape a second at most, keys at once, and the end of a signal.

use std::io;
use std::time::Instant;

use ratatui::crossterm::event::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::history::History;
use super::keys::{KeyAction, action};
use super::page::{self, PageError};
use super::reading::Reading;
use super::scrapes::{EVERY, Scrapes};
use super::state::TopState;
use super::target::TopTarget;
use super::terminal::ScreenTerminal;
use super::view::TopView;
use crate::log::causes;

/// The widths of a screen that is printed.
const WIDTHS: std::ops::RangeInclusive<u16> = 60..=250;

/// What to show.
#[derive(Debug)]
pub struct TopCall {
    /// What to scrape.
    pub target: TopTarget,
    /// Whether one screen is printed, and nothing else.
    pub once: bool,
    /// Whether there are colours.
    pub colours: bool,
    /// The width of the screen that is printed.
    pub width: u16,
}

/// Why nothing can be shown any more.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is no terminal, or it is gone.
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
}

/// What has been read, and what the user wants to see of it.
struct Session {
    history: History,
    view: TopView,
    /// When the last page was read.
    read: Option<Instant>,
}

impl TopCall {
    /// Shows it until the user has had enough.
    pub async fn run(self) -> Result<(), TopError> {
        let (mut screen, mut keys) = ScreenTerminal::take()?;
        let mut ends = Ends::new()?;
        let mut session = Session::new(&self);
        let began = Instant::now();
        let mut scrapes = Scrapes::new(|| {
            let request = self.target.request.clone();
            async move { page::read(&request, began).await }
        });
        loop {
            session.freshen();
            screen.terminal.draw(|frame| {
                session.view.draw(frame.area(), frame.buffer_mut());
            })?;
            tokio::select! {
                () = ends.recv() => return Ok(()),
                event = keys.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    let size = screen.terminal.size()?;
                    if session.obey(&event, (size.width, size.height), &mut screen, &mut keys)? {
                        return Ok(());
                    }
                }
                page = scrapes.next(session.view.is_paused) => {
                    // A panic is one of ours, and no reason to end.
                    session.add(page.unwrap_or(Err(PageError::Foreign)));
                }
            }
        }
    }

    /// What one screen says, after two scrapes, and whether the page could be read.
    pub async fn once(self) -> (String, bool) {
        let mut session = Session::new(&self);
        let began = Instant::now();
        session.add(page::read(&self.target.request, began).await);
        if session.view.failure.is_none() {
            // Rates need two of them.
            tokio::time::sleep(EVERY).await;
            session.add(page::read(&self.target.request, began).await);
        }
        session.freshen();
        let is_read = session.view.failure.is_none();
        let width = self.width.clamp(*WIDTHS.start(), *WIDTHS.end());
        (session.view.text(width), is_read)
    }
}

impl Session {
    fn new(call: &TopCall) -> Self {
        Self {
            history: History::default(),
            view: TopView {
                url: call.target.shown(),
                colours: call.colours,
                ..TopView::default()
            },
            read: None,
        }
    }

    fn add(&mut self, page: Result<Reading, PageError>) {
        match page {
            Ok(reading) => {
                self.history.push(reading);
                self.read = Some(Instant::now());
                self.view.failure = None;
                self.view.has_read = true;
                self.count();
            }
            Err(error) => self.view.failure = Some((causes(&error), 0.0)),
        }
    }

    fn count(&mut self) {
        self.view.state = TopState::of(&self.history, self.view.sort);
    }

    /// Says how old the figures are, where they are old.
    fn freshen(&mut self) {
        if let (Some((_, seconds)), Some(read)) = (&mut self.view.failure, self.read) {
            *seconds = read.elapsed().as_secs_f64();
        }
    }

    /// Does what a key asks for. Returns whether that is the end.
    fn obey(
        &mut self,
        event: &Event,
        (width, height): (u16, u16),
        screen: &mut ScreenTerminal,
        keys: &mut mpsc::Receiver<Event>,
    ) -> io::Result<bool> {
        let view = &mut self.view;
        match action(event) {
            Some(KeyAction::Quit) => {
                // What is typed after it is for the shell.
                keys.close();
                return Ok(true);
            }
            Some(KeyAction::Help) => view.shows_help = !view.shows_help,
            Some(KeyAction::Pause) => view.is_paused = !view.is_paused,
            Some(KeyAction::Sort) => {
                view.sort = view.sort.next();
                self.count();
            }
            Some(KeyAction::Home) => view.offset = 0,
            Some(KeyAction::Scroll(lines)) => {
                let last = i32::from(view.last_offset(width, height));
                let wanted = (i32::from(view.offset) + lines).clamp(0, last);
                view.offset = u16::try_from(wanted).unwrap_or_default();
            }
            Some(KeyAction::Redraw) => screen.terminal.clear()?,
            None => {}
        }
        Ok(false)
    }
}

/// The signals that end it.
struct Ends([Signal; 4]);

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn recv(&mut self) {
        let [one, two, three, four] = &mut self.0;
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
            _ = four.recv() => {}
        }
    }
}
