//! The command `hash-password`: the bcrypt hash of a password that is typed at a terminal or piped in.
//!
//! Deliberately not here: how a hash is checked ([`BasicAuth`](super::auth::BasicAuth)).

use std::fmt;
use std::io::{self, BufRead, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd;

use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use rustix::termios::{tcgetattr, tcsetattr};

/// The most bytes that bcrypt uses of a password. It would ignore the rest.
const LONGEST: usize = 72;

/// The most bytes that are read: enough to say by how much a password is too long.
const MOST_READ: usize = 4096;

/// The bytes that end or change what is typed.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const CLEAR: u8 = 0x15;

/// Hashes a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordHasher {
    /// bcrypt's cost: each step doubles the time of a check.
    pub cost: u32,
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It has no bytes.
    #[error("the password is empty")]
    Empty,
    /// bcrypt would use a part of it.
    #[error(
        "the password has more than {LONGEST} bytes, and bcrypt would ignore the rest: take a shorter one"
    )]
    TooLong,
    /// It is no text.
    #[error("the password is not UTF-8")]
    NotUtf8,
    /// No client can send it (RFC 7617, section 2).
    #[error(
        "the password has a control character, such as NUL or a line break, which HTTP does not allow"
    )]
    ControlCharacter,
    /// It was typed in two ways.
    #[error("the passwords differ: nothing was hashed")]
    Differ,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// It cannot be read.
    #[error("cannot read the password: {0}")]
    Read(#[from] io::Error),
    /// It cannot be hashed.
    #[error("cannot hash the password: {0}")]
    Hash(#[from] bcrypt::BcryptError),
}

impl PasswordError {
    /// Whether another password would do.
    pub fn is_about_password(&self) -> bool {
        match self {
            Self::Empty | Self::TooLong | Self::NotUtf8 | Self::ControlCharacter | Self::Differ => {
                true
            }
            Self::Interrupted | Self::Read(_) | Self::Hash(_) => false,
        }
    }
}

impl PasswordHasher {
    /// Reads a password from stdin, twice and without an echo if that is a terminal, and hashes it.
    pub fn run(self) -> Result<String, PasswordError> {
        let stdin = io::stdin().lock();
        let password = if stdin.is_terminal() {
            typed(stdin)?
        } else {
            piped(stdin)?
        };
        Ok(self.hash(&password)?)
    }

    fn hash(self, password: &TypedPassword) -> Result<String, bcrypt::BcryptError> {
        bcrypt::hash(&password.0, self.cost)
    }
}

/// A password that can be hashed and sent.
#[derive(PartialEq, Eq)]
struct TypedPassword(String);

impl TypedPassword {
    fn parse(bytes: Vec<u8>) -> Result<TypedPassword, PasswordError> {
        if bytes.is_empty() {
            return Err(PasswordError::Empty);
        }
        if bytes.len() > LONGEST {
            return Err(PasswordError::TooLong);
        }
        let text = String::from_utf8(bytes).map_err(|_| PasswordError::NotUtf8)?;
        if text.contains(char::is_control) {
            return Err(PasswordError::ControlCharacter);
        }
        Ok(TypedPassword(text))
    }
}

// By hand: a derived one would show the password.
impl fmt::Debug for TypedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedPassword")
    }
}

/// All of the input, without the line ending that `echo` adds.
fn piped(input: impl io::Read) -> Result<TypedPassword, PasswordError> {
    let mut bytes = Vec::new();
    input.take(MOST_READ as u64).read_to_end(&mut bytes)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    TypedPassword::parse(bytes)
}

fn typed(mut terminal: impl BufRead + AsFd) -> Result<TypedPassword, PasswordError> {
    // Restores the echo on every way out.
    let silenced = SilentTerminal::new(io::stdin())?;
    let first = prompted("Password: ", &mut terminal)?;
    let first = TypedPassword::parse(first)?;
    let second = prompted("Once more: ", &mut terminal)?;
    drop(silenced);
    // What is wrong with the second alone is that it differs.
    if second != first.0.as_bytes() {
        return Err(PasswordError::Differ);
    }
    Ok(first)
}

fn prompted(prompt: &str, terminal: &mut impl BufRead) -> Result<Vec<u8>, PasswordError> {
    // To stderr: stdout gets the hash alone. Who cannot see the prompt can type all the same.
    let _ = write!(io::stderr(), "{prompt}");
    let line = line(terminal.bytes());
    let _ = writeln!(io::stderr());
    line
}

/// One line as it is typed. The terminal edits nothing, since it sends each key at once.
fn line(keys: impl Iterator<Item = io::Result<u8>>) -> Result<Vec<u8>, PasswordError> {
    let mut line = Vec::new();
    for key in keys {
        match key? {
            b'\n' | b'\r' => break,
            INTERRUPT => return Err(PasswordError::Interrupted),
            END if line.is_empty() => return Err(PasswordError::Interrupted),
            END => break,
            CLEAR => line.clear(),
            key if BACKSPACE.contains(&key) => {
                // A letter may have several bytes: all but the first begin with these bits.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            key if line.len() < MOST_READ => line.push(key),
            _ => {}
        }
    }
    Ok(line)
}

/// A terminal that shows nothing of what is typed, and sends Ctrl-C as a byte: a signal would end the
/// process before the echo is restored.
struct SilentTerminal<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> SilentTerminal<T> {
    fn new(terminal: T) -> io::Result<SilentTerminal<T>> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes -=
            LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        silent.input_modes |= InputModes::ICRNL;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Discards what was typed before, which was shown.
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(SilentTerminal { terminal, before })
    }
}

impl<T: AsFd> Drop for SilentTerminal<T> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed_as(keys: &[u8]) -> Result<Vec<u8>, PasswordError> {
        line(keys.iter().map(|key| Ok(*key)))
    }

    fn refusal(password: &[u8]) -> Option<String> {
        piped(password).err().map(|error| error.to_string())
    }

    #[test]
    fn a_password_that_bcrypt_or_http_cannot_take_is_refused() {
        for (password, part) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (&[b'x'; 73], "more than 72 bytes"),
            (&[b'x'; 10_000], "more than 72 bytes"),
            (b"a\0b", "control character"),
            (b"a\nb\n", "control character"),
            (b"a\xff", "not UTF-8"),
        ] {
            let error = refusal(password).unwrap_or_default();
            assert!(error.contains(part), "{password:?}: {error}");
            assert!(piped(password).unwrap_err().is_about_password());
        }
        for password in [&b"x"[..], &[b'x'; 72], "pässwörter".as_bytes(), b" spaces "] {
            assert_eq!(refusal(password), None);
        }
    }

    #[test]
    fn one_line_ending_is_not_part_of_a_password() {
        for input in [&b"a"[..], b"a\n", b"a\r\n"] {
            assert_eq!(piped(input).unwrap().0, "a");
        }
    }

    #[test]
    fn the_hash_is_of_the_whole_password() {
        let hasher = PasswordHasher { cost: 4 };
        let mut longest = "x".repeat(LONGEST);
        let hash = hasher.hash(&TypedPassword(longest.clone())).unwrap();
        assert!(bcrypt::verify(&longest, &hash).unwrap());
        longest.replace_range(LONGEST - 1.., "y");
        assert!(!bcrypt::verify(&longest, &hash).unwrap());
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, kept) in [
            (&b"secret\nmore"[..], &b"secret"[..]),
            (b"secret\r", b"secret"),
            (b"secret\x04", b"secret"),
            (b"secrex\x7ft\n", b"secret"),
            (b"\x7f\x08a\n", b"a"),
            (b"wrong\x15secret\n", b"secret"),
            ("aö\x7fb\n".as_bytes(), b"ab"),
            (b"", b""),
        ] {
            assert_eq!(typed_as(keys).unwrap(), kept, "{keys:?}");
        }
        for keys in [&b"secr\x03et\n"[..], b"\x04"] {
            let error = typed_as(keys).unwrap_err();
            assert!(matches!(error, PasswordError::Interrupted), "{keys:?}");
        }
        assert_eq!(typed_as(&[b'x'; 10_000]).unwrap().len(), MOST_READ);
    }
}
