//! A reader of one line, character by character, which copies nothing.

/// A metric's name at the start of a metadata line's rest, and what follows it.
pub(super) fn split_name(rest: &str) -> Option<(&str, &str)> {
    let mut at = Cursor { line: rest, at: 0 };
    let name = at.take_name(true)?;
    let rest = &rest[at.at..];
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some((name, rest))
}

/// A letter, a digit or an underscore.
const NAME: u8 = 1;
const COLON: u8 = 2;
/// What ends a quoted value, escapes in it, or must not be in it.
const QUOTED: u8 = 4;

// A table, because every byte of an exposition is classified.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => NAME,
            b':' => COLON,
            b'"' | b'\\' | b'\0' => QUOTED,
            _ => 0,
        };
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

pub(super) struct Cursor<'a> {
    pub(super) line: &'a str,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    pub(super) fn is_done(&self) -> bool {
        self.at >= self.line.len()
    }

    pub(super) fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// `[a-zA-Z_][a-zA-Z0-9_]*`, and colons in the names of metrics.
    pub(super) fn take_name(&mut self, colons: bool) -> Option<&'a str> {
        let start = self.at;
        let rest = &self.line.as_bytes()[start..];
        // A digit may be in a name, but not begin it.
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let allowed = if colons { NAME | COLON } else { NAME };
        let len = rest
            .iter()
            .position(|&byte| CLASSES[usize::from(byte)] & allowed == 0);
        self.at = start + len.unwrap_or(rest.len());
        (self.at > start).then(|| &self.line[start..self.at])
    }

    pub(super) fn take_token(&mut self) -> &'a str {
        let start = self.at;
        while !matches!(self.peek(), None | Some(b' ' | b'\t')) {
            self.at += 1;
        }
        &self.line[start..self.at]
    }

    /// A quoted value without its quotes, and whether its escapes are those we would write. It
    /// holds no NUL, at which Prometheus stops reading.
    pub(super) fn take_quoted(&mut self) -> Option<(&'a str, bool)> {
        if !self.take(b'"') {
            return None;
        }
        let start = self.at;
        let mut plain = true;
        loop {
            let rest = self.line.as_bytes().get(self.at..)?;
            let found = rest
                .iter()
                .position(|&byte| CLASSES[usize::from(byte)] & QUOTED != 0)?;
            self.at += found;
            if rest[found] == b'"' {
                break;
            }
            // Checked here: otherwise a NUL behind a backslash would be skipped together with it.
            let escaped = *rest.get(found + 1).filter(|&&escaped| escaped != 0)?;
            if rest[found] == 0 {
                return None;
            }
            plain &= matches!(escaped, b'\\' | b'"' | b'n');
            // An escaped character may have more bytes. The search passes over them: none is of its
            // class.
            self.at += 2;
        }
        let value = self.line.get(start..self.at)?;
        self.at += 1;
        Some((value, plain))
    }
}
