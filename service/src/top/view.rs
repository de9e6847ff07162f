//! The state as lines: what is wrong first, then figures, upstreams and tables.
//!
//! The lines are drawn into a buffer that is as high as they need, of which a screen shows a part.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::escaped::escaped;
use super::problems::Severity;
use super::state::TopState;
use super::table::{SortBy, TableRow};
use super::wrapped::wrapped;
use crate::quantity;

/// The most lines.
const MOST_LINES: u16 = 400;

/// The narrowest screen that is drawn for.
const NARROWEST: u16 = 40;

/// What is shown beside the state.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct TopView {
    /// What was asked for.
    pub(super) url: String,
    pub(super) state: TopState,
    /// Why the last scrape failed, and for how many seconds none has succeeded.
    pub(super) failure: Option<(String, f64)>,
    /// Whether anything has been read.
    pub(super) has_read: bool,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    pub(super) sort: SortBy,
    /// Whether styles have colours.
    pub(super) colours: bool,
    /// How many lines are scrolled by.
    pub(super) offset: u16,
}

/// What the keys do.
pub(super) const HELP: &[&str] = &[
    "q, Ctrl-C   quit",
    "s           sort the tables by rate, total or name",
    "p, space    pause, and go on",
    "up, down    scroll by a line; PgUp, PgDn by ten; Home",
    "?           this help, and back",
    "",
    "Rates and latencies are those of the last ten seconds; totals are since",
    "the start. A dash is what is not known, or did not happen meanwhile.",
];

/// Draws lines one below the other.
struct ScreenLines {
    buffer: Buffer,
    at: u16,
}

impl ScreenLines {
    fn new(width: u16) -> Self {
        let area = Rect::new(0, 0, width.max(NARROWEST), MOST_LINES);
        Self {
            buffer: Buffer::empty(area),
            at: 0,
        }
    }

    /// One line, of pieces that each begin at a column.
    fn line(&mut self, pieces: &[(u16, &str, Style)]) {
        let width = self.buffer.area.width;
        if self.at >= MOST_LINES {
            return;
        }
        for (at, (column, text, style)) in pieces.iter().enumerate() {
            // Up to the next piece, with a space between.
            let next = pieces
                .get(at + 1)
                .map_or(width, |next| next.0.saturating_sub(1));
            if *column < width {
                let room = usize::from(next.min(width).saturating_sub(*column));
                self.buffer
                    .set_stringn(*column, self.at, text, room, *style);
            }
        }
        self.at += 1;
    }

    /// A mark, and a text as long as it is: over several lines where it does not fit in one.
    fn marked(&mut self, mark: &str, text: &str, style: Style) {
        const COLUMN: u16 = 3;
        let room = usize::from(self.buffer.area.width - COLUMN);
        for (number, line) in wrapped(text, room).iter().enumerate() {
            let mark = if number == 0 { mark } else { "" };
            self.line(&[(0, mark, style), (COLUMN, line, style)]);
        }
    }
}

impl TopView {
    fn style(&self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// The first line.
    fn header(&self) -> String {
        let version = if self.state.version.is_empty() {
            "octoserve".to_owned()
        } else {
            format!("octoserve {}", self.state.version)
        };
        let uptime = self.state.uptime.map(quantity::time);
        let uptime = uptime.map_or(String::new(), |time| format!("  up {time}"));
        format!("{version}  {}{uptime}", escaped(&self.url))
    }

    /// The last line of a screen.
    fn footer(&self) -> String {
        let state = if self.is_paused {
            "PAUSED"
        } else {
            "each second"
        };
        format!(
            " q quit  ? help  s sort: {}  p pause  up/down scroll  {state}",
            self.sort.word()
        )
    }

    /// All lines but the footer, at this width. Returns how many there are.
    fn lines(&self, width: u16) -> (Buffer, u16) {
        let mut lines = ScreenLines::new(width);
        let plain = Style::new();
        lines.line(&[(0, &self.header(), bold())]);
        if let Some((failure, seconds)) = &self.failure {
            let red = self.style(Color::Red).add_modifier(Modifier::BOLD);
            let old = if self.has_read {
                format!(" What follows is {} old.", quantity::time(seconds.round()))
            } else {
                String::new()
            };
            lines.marked("!!", &format!("{}.{old}", escaped(failure)), red);
        }
        if self.shows_help {
            lines.line(&[]);
            for line in HELP {
                lines.line(&[(2, line, plain)]);
            }
        } else if self.has_read {
            self.body(&mut lines);
        } else if self.failure.is_none() {
            lines.line(&[(0, "waiting for the first page", plain)]);
        }
        (lines.buffer, lines.at)
    }

    fn body(&self, lines: &mut ScreenLines) {
        self.problems(lines);
        lines.line(&[]);
        self.traffic(lines);
        self.stores(lines);
        self.upstreams(lines);
        self.sources(lines);
        self.tables(lines);
    }

    fn problems(&self, lines: &mut ScreenLines) {
        if self.state.problems.is_empty() {
            lines.line(&[(0, "nothing is wrong", self.style(Color::Green))]);
        }
        for problem in &self.state.problems {
            let (mark, colour) = match problem.severity {
                Severity::Critical => ("!!", Color::Red),
                Severity::Warning => ("! ", Color::Yellow),
            };
            let style = self.style(colour);
            lines.marked(mark, &problem.text, style);
        }
    }

    fn traffic(&self, lines: &mut ScreenLines) {
        let state = &self.state;
        let plain = Style::new();
        let requests = format!(
            "{}  in flight {}  refused 4xx {}  failed 5xx {}",
            rate(state.requests),
            known(state.in_flight.map(quantity::count)),
            rate(state.refusals),
            rate(state.failures),
        );
        lines.line(&[(0, "requests", bold()), (12, &requests, plain)]);
        let times = format!(
            "{}   first byte {}",
            latency(state.latency),
            latency(state.first_byte)
        );
        lines.line(&[(0, "latency", bold()), (12, &times, plain)]);
        let bytes = |bytes: Option<f64>| known(bytes.map(|bytes| quantity::bytes(bytes) + "/s"));
        let moved = format!(
            "down {}  up {}  connections {}",
            bytes(state.down),
            bytes(state.up),
            known(state.connections.map(quantity::count))
        );
        lines.line(&[(0, "traffic", bold()), (12, &moved, plain)]);
        if let Some((open, age)) = state.uploads {
            let oldest = if open > 0.0 {
                format!(", the oldest for {}", quantity::time(age))
            } else {
                String::new()
            };
            let text = format!("{} in progress{oldest}", quantity::count(open));
            lines.line(&[(0, "uploads", bold()), (12, &text, plain)]);
        }
    }

    fn stores(&self, lines: &mut ScreenLines) {
        for store in &self.state.storages {
            let of = if store.source.is_empty() {
                String::new()
            } else {
                format!("{}: ", store.source)
            };
            let used = store.used.map(quantity::bytes);
            let used = used.map_or(String::new(), |used| format!("{used} used, "));
            let full = match store.full_in {
                Some(seconds) => format!("full in {}", quantity::time(seconds)),
                None => "not filling".to_owned(),
            };
            let (free, size) = (quantity::bytes(store.free), quantity::bytes(store.size));
            let text = format!("{of}{used}{free} of {size} free, {full}");
            lines.line(&[(0, "storage", bold()), (12, &text, Style::new())]);
        }
    }

    fn upstreams(&self, lines: &mut ScreenLines) {
        if self.state.upstreams.is_empty() {
            return;
        }
        let (title, plain) = (bold(), Style::new());
        lines.line(&[]);
        lines.line(&[
            (0, "UPSTREAM", title),
            (20, "HEALTHY", title),
            (30, "RATE", title),
            (40, "P50 / P90 / P99", title),
            (68, "ERRORS", title),
        ]);
        for upstream in &self.state.upstreams {
            let (healthy, style) = match upstream.replicas {
                None => ("-".to_owned(), plain),
                Some((healthy, all)) if healthy < all => {
                    (format!("{healthy} of {all}"), self.style(Color::Red))
                }
                Some((healthy, all)) => (format!("{healthy} of {all}"), plain),
            };
            lines.line(&[
                (0, &upstream.name, style),
                (20, &healthy, style),
                (30, &rate(upstream.rate), plain),
                (40, &latency(upstream.latency), plain),
                (68, &quantity::count(upstream.errors), plain),
            ]);
        }
    }

    fn sources(&self, lines: &mut ScreenLines) {
        if self.state.sources.is_empty() {
            return;
        }
        let (title, plain) = (bold(), Style::new());
        lines.line(&[]);
        lines.line(&[
            (0, "METRICS OF", title),
            (20, "STATE", title),
            (30, "SAMPLES", title),
        ]);
        for source in &self.state.sources {
            let (word, style) = if source.is_up {
                ("up", plain)
            } else {
                ("down", self.style(Color::Red))
            };
            let samples = quantity::count(source.samples);
            lines.line(&[
                (0, &source.name, style),
                (20, word, style),
                (30, &samples, plain),
            ]);
        }
    }

    /// Three tables side by side.
    fn tables(&self, lines: &mut ScreenLines) {
        let width = lines.buffer.area.width;
        // The names of repositories are the longest.
        let clients = width / 8 * 3;
        let codes = clients + (width - clients) / 2;
        let state = &self.state;
        let tables = [
            ("REPOSITORIES", &state.repositories, 0, clients),
            ("CLIENTS", &state.clients, clients, codes),
            ("ERROR CODES", &state.codes, codes, width),
        ];
        if tables.iter().all(|table| table.1.is_empty()) {
            return;
        }
        lines.line(&[]);
        let title = bold();
        let figures =
            |start: u16, end: u16| (end.saturating_sub(14).max(start), end.saturating_sub(6));
        let mut pieces = Vec::new();
        for (name, _, start, end) in tables {
            let (rates, totals) = figures(start, end);
            pieces.extend([
                (start, name, title),
                (rates, "RATE", title),
                (totals, "ALL", title),
            ]);
        }
        lines.line(&pieces);
        let rows = tables
            .iter()
            .map(|table| table.1.len())
            .max()
            .unwrap_or_default();
        for at in 0..rows {
            let mut texts = Vec::new();
            for (_, rows, start, end) in tables {
                if let Some(TableRow {
                    name,
                    rate: often,
                    total,
                }) = rows.get(at)
                {
                    let (rates, totals) = figures(start, end);
                    texts.push((start, name.clone()));
                    texts.push((rates, rate(*often)));
                    texts.push((totals, quantity::count(*total)));
                }
            }
            let pieces: Vec<_> = texts
                .iter()
                .map(|(at, text)| (*at, text.as_str(), Style::new()))
                .collect();
            lines.line(&pieces);
        }
    }

    /// Draws the part of the lines that fits, and the footer below.
    pub(super) fn draw(&self, area: Rect, screen: &mut Buffer) {
        let (lines, count) = self.lines(area.width);
        let height = area.height.saturating_sub(1);
        let offset = self.offset.min(count.saturating_sub(height));
        for y in 0..height.min(count) {
            // The header stays.
            let from = if y == 0 { 0 } else { y + offset };
            for x in 0..area.width.min(lines.area.width) {
                let target = screen.cell_mut((area.x + x, area.y + y));
                if let (Some(cell), Some(target)) = (lines.cell((x, from)), target) {
                    *target = cell.clone();
                }
            }
        }
        if area.height > 1 {
            let style = Style::new().add_modifier(Modifier::REVERSED);
            let footer = format!("{:<1$}", self.footer(), usize::from(area.width));
            let (x, y) = (area.x, area.y + area.height - 1);
            screen.set_stringn(x, y, footer, usize::from(area.width), style);
        }
    }

    /// How far one can scroll on a screen of this height.
    pub(super) fn last_offset(&self, width: u16, height: u16) -> u16 {
        let (_, count) = self.lines(width);
        count.saturating_sub(height.saturating_sub(1))
    }

    /// All lines as plain text.
    pub(super) fn text(&self, width: u16) -> String {
        let (lines, count) = self.lines(width);
        let line = |y: u16| {
            let cells = (0..lines.area.width).filter_map(|x| lines.cell((x, y)));
            let line: String = cells.map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned() + "\n"
        };
        (0..count).map(line).collect()
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn rate(rate: Option<f64>) -> String {
    known(rate.map(|rate| quantity::count(rate) + "/s"))
}

fn known(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn latency(quantiles: Option<[f64; 3]>) -> String {
    quantiles.map_or_else(|| "-".to_owned(), |all| all.map(quantity::time).join(" / "))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::tests::sample;
    use super::*;

    fn view() -> TopView {
        TopView {
            url: "http://127.0.0.1:5000/metrics".to_owned(),
            state: TopState::of(&sample(), SortBy::Rate),
            has_read: true,
            ..TopView::default()
        }
    }

    fn drawn(view: &TopView, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| view.draw(frame.area(), frame.buffer_mut()))
            .unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen_of_80_by_24_has_it_all() {
        insta::assert_snapshot!(drawn(&view(), 80, 24));
    }

    #[test]
    fn a_wide_screen_has_room_for_names() {
        insta::assert_snapshot!(view().text(132));
    }

    #[test]
    fn a_failure_is_said_above_the_old_figures_or_alone() {
        let mut failing = view();
        failing.failure = Some(("cannot connect\x1b[2J".to_owned(), 12.4));
        let text = failing.text(80);
        let said = "!! cannot connect\\u{1b}[2J. What follows is 12 s old.\n";
        assert!(text.contains(said), "{text}");
        assert!(text.contains("UPSTREAM"), "{text}");
        failing.has_read = false;
        assert_eq!(failing.text(80).lines().count(), 2);
        let long =
            "one of the words of an error that is longer than the screen is wide, to its end";
        failing.failure = Some((long.to_owned(), 0.0));
        let text = failing.text(60);
        assert!(
            text.contains("\n   ") && text.contains("to its end."),
            "{text}"
        );
        let waiting = TopView::default().text(80);
        assert!(waiting.contains("waiting for the first page"), "{waiting}");
    }

    #[test]
    fn no_size_makes_it_panic_and_hostile_names_stay_texts() {
        for (width, height) in [
            (1, 1),
            (10, 2),
            (40, 5),
            (79, 24),
            (300, 100),
            (80, 1),
            (5, 0),
        ] {
            for offset in [0, 3, u16::MAX] {
                let mut view = view();
                view.offset = offset;
                let screen = drawn(&view, width, height);
                assert!(!screen.contains('\u{1b}'), "{screen}");
                view.shows_help = true;
                drawn(&view, width, height);
            }
        }
        assert!(
            view().text(120).contains("e\\u{1b}[2J"),
            "{}",
            view().text(120)
        );
    }

    #[test]
    fn the_header_stays_while_the_rest_scrolls() {
        let mut view = view();
        let top = drawn(&view, 80, 8);
        view.offset = 4;
        let scrolled = drawn(&view, 80, 8);
        assert_ne!(top, scrolled);
        assert_eq!(top.lines().next(), scrolled.lines().next());
        assert_eq!(top.lines().last(), scrolled.lines().last());
        assert!(view.last_offset(80, 8) > 4);
        assert_eq!(view.last_offset(80, 300), 0);
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let coloured = |colours| {
            let mut view = view();
            view.colours = colours;
            let (lines, _) = view.lines(80);
            lines.content.iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(coloured(true));
        assert!(!coloured(false));
    }
}
