//! What two processes say to each other at a takeover: lines of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::listen::PassedSocket;
use super::super::notify::NotifySettings;

/// The version of the protocol. What is only added, and can be ignored, needs no other one.
pub(super) const PROTOCOL: u32 = 1;

/// The longest message, in bytes.
pub(super) const LONGEST: usize = 256 << 10;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TakeoverMessage {
    /// Who speaks. This one is the same in every version of the protocol.
    Hello(Hello),
    /// There will be no takeover.
    Refused(Refused),
    /// What the new process gets, with the sockets.
    Estate(PassedEstate),
    /// The new process could serve.
    Ready,
    /// It may.
    Go,
    /// It does.
    Serving,
    /// The old one ends.
    TakenOver,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) program: String,
    pub(super) version: String,
}

/// Why there will be no takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) reason: String,
}

/// What the new process gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PassedEstate {
    /// One for each descriptor, in their order.
    pub(super) sockets: Vec<PassedSocket>,
    /// What only the program understands.
    pub(super) state: BTreeMap<String, String>,
    /// Where the service manager listens.
    pub(super) notify: Option<NotifySettings>,
}

/// What is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It is no JSON of a known form.
    #[error("the other process does not speak the protocol of a takeover: {0}")]
    Malformed(#[source] serde_json::Error),
    /// It has no end.
    #[error("a message of the other process is longer than {LONGEST} bytes")]
    TooLong,
    /// There are more descriptors than anybody listens on.
    #[error("the other process passed more than {0} sockets")]
    TooManySockets(usize),
}

impl TakeoverMessage {
    /// Reads a line, without its end.
    pub(super) fn parse(line: &[u8]) -> Result<Self, MessageError> {
        serde_json::from_slice(line).map_err(|error| MessageError::Malformed(without_value(&error)))
    }

    /// The line, with its end.
    pub(super) fn to_line(&self) -> Result<Vec<u8>, MessageError> {
        // JSON has no line ends but as escapes.
        let mut line = serde_json::to_vec(self).map_err(MessageError::Malformed)?;
        line.push(b'\n');
        if line.len() > LONGEST {
            return Err(MessageError::TooLong);
        }
        Ok(line)
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Refused(Refused { reason })
    }

    /// Its name, for errors: the rest may hold a secret.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Refused(_) => "refused",
            Self::Estate(_) => "estate",
            Self::Ready => "ready",
            Self::Go => "go",
            Self::Serving => "serving",
            Self::TakenOver => "taken_over",
        }
    }
}

/// The same error without what it was about: that may be a secret.
fn without_value(error: &serde_json::Error) -> serde_json::Error {
    use serde::de::Error as _;
    let what = match error.classify() {
        serde_json::error::Category::Data => "a message of another form",
        serde_json::error::Category::Eof => "a message that ends early",
        _ => "no JSON",
    };
    serde_json::Error::custom(format!("{what}, at column {}", error.column()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
    }

    fn message() -> impl Strategy<Value = TakeoverMessage> {
        let hello = (any::<u32>(), text(), text()).prop_map(|(protocol, program, version)| {
            TakeoverMessage::Hello(Hello {
                protocol,
                program,
                version,
            })
        });
        let state = proptest::collection::btree_map(text(), text(), 0..4);
        let sockets = proptest::collection::vec((text(), any::<u16>(), any::<bool>()), 0..4);
        let estate = (sockets, state).prop_map(|(sockets, state)| {
            let sockets = sockets
                .into_iter()
                .map(|(key, port, removes_file)| PassedSocket {
                    key,
                    configured: format!("[::1]:{port}").parse().unwrap(),
                    file: None,
                    removes_file,
                });
            TakeoverMessage::Estate(PassedEstate {
                sockets: sockets.collect(),
                state,
                notify: None,
            })
        });
        prop_oneof![
            hello,
            estate,
            text().prop_map(TakeoverMessage::refused),
            Just(TakeoverMessage::Ready),
            Just(TakeoverMessage::Go),
            Just(TakeoverMessage::Serving),
            Just(TakeoverMessage::TakenOver),
        ]
    }

    proptest! {
        #[test]
        fn a_message_is_one_line_that_says_the_same_again(message in message()) {
            let line = message.to_line().unwrap();
            let (end, line) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(TakeoverMessage::parse(line).unwrap(), message);
        }

        #[test]
        fn garbage_is_an_error_and_nothing_worse(garbage: Vec<u8>) {
            // Whatever is a message by chance says the same again.
            if let Ok(message) = TakeoverMessage::parse(&garbage) {
                message.to_line().unwrap();
            }
        }

        #[test]
        fn a_damaged_message_is_an_error_or_another_message(
            message in message(),
            at: proptest::sample::Index,
            byte: u8,
        ) {
            let mut line = message.to_line().unwrap();
            line.pop();
            let at = at.index(line.len());
            line[at] = byte;
            if let Ok(message) = TakeoverMessage::parse(&line) {
                message.to_line().unwrap();
            }
        }
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let line = br#"{"hello":{"protocol":7,"program":"p","version":"9","more":[1]}}"#;
        let hello = Hello {
            protocol: 7,
            program: "p".to_owned(),
            version: "9".to_owned(),
        };
        assert_eq!(
            TakeoverMessage::parse(line).unwrap(),
            TakeoverMessage::Hello(hello)
        );
    }

    #[test]
    fn an_error_does_not_repeat_what_was_said() {
        for line in [
            r#"{"hello":"hunter2"}"#,
            "hunter2",
            r#"{"hunter2":1}"#,
            r#"{"estate":{"sockets":[],"state":{"k":["hunter2"]}}}"#,
        ] {
            let error = TakeoverMessage::parse(line.as_bytes()).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
