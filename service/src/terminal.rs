//! Colours, at a terminal only.

use std::io::{self, IsTerminal as _};

/// Whether a terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalStyle {
    has_colours: bool,
}

impl TerminalStyle {
    /// That of stderr: plain where it is no terminal, or `NO_COLOR` asks for that.
    pub fn of_stderr() -> TerminalStyle {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        TerminalStyle {
            has_colours: io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
        }
    }

    /// With colours, or plain.
    pub fn with(has_colours: bool) -> TerminalStyle {
        TerminalStyle { has_colours }
    }

    /// Whether escape sequences are wanted.
    pub fn has_colours(self) -> bool {
        self.has_colours
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.within("1;32", text)
    }

    /// A mistake.
    pub fn error(self, text: &str) -> String {
        self.within("1;31", text)
    }

    /// What explains something else.
    pub fn faint(self, text: &str) -> String {
        self.within("2", text)
    }

    fn within(self, code: &str, text: &str) -> String {
        if self.has_colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
