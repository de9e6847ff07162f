//! Sockets that systemd, or who speaks its protocol, has bound for this process: `LISTEN_FDS`
//! (`sd_listen_fds(3)`).

use std::num::ParseIntError;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use thiserror::Error;

use super::inherited::{InheritedSocket, InheritedSocketError};

/// The first of them.
const FIRST: RawFd = 3;
/// The most of them.
const MOST: RawFd = 128;

/// Why these sockets cannot be used.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// The variable is no number.
    #[error("LISTEN_FDS is `{0}`, which is no number of sockets")]
    Count(String, #[source] ParseIntError),
    /// There are too many.
    #[error("LISTEN_FDS says {0} sockets: at most {MOST} are taken")]
    TooMany(RawFd),
    /// One of them is not there.
    #[error("LISTEN_FDS says that descriptor {0} is a socket, and it is not open")]
    NotOpen(RawFd),
    /// One of them cannot be accepted from.
    #[error("the socket that systemd passed as descriptor {0} cannot be used: {1}")]
    Socket(RawFd, #[source] InheritedSocketError),
}

/// The sockets that systemd bound for this process. To be called once, before the process opens
/// anything: the numbers of the descriptors are the protocol's.
///
/// # Errors
/// If the variables or a socket are not what the protocol says.
pub fn inherited_from_systemd(
    listen_pid: Option<&str>,
    listen_fds: Option<&str>,
) -> Result<Vec<InheritedSocket>, ActivationError> {
    let (Some(pid), Some(count)) = (listen_pid, listen_fds) else {
        return Ok(Vec::new());
    };
    // The variables may be those of a parent that did not unset them.
    if pid.parse() != Ok(std::process::id()) {
        return Ok(Vec::new());
    }
    let count: u16 = count
        .parse()
        .map_err(|error| ActivationError::Count(count.to_owned(), error))?;
    let count = RawFd::from(count);
    if count > MOST {
        return Err(ActivationError::TooMany(count));
    }
    let mut sockets = Vec::new();
    for number in FIRST..FIRST + count {
        if !is_open(number) {
            return Err(ActivationError::NotOpen(number));
        }
        #[expect(
            unsafe_code,
            reason = "the protocol passes descriptors by their numbers"
        )]
        // SAFETY: it is open, and nobody in this process has it: it was there when the process began,
        // for this function alone, which is called once.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        let socket = InheritedSocket::new(descriptor);
        sockets.push(socket.map_err(|error| ActivationError::Socket(number, error))?);
    }
    Ok(sockets)
}

/// Whether a descriptor is open.
fn is_open(number: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_another_process_are_not_for_this_one() {
        let own = std::process::id().to_string();
        for (pid, count) in [
            (None, Some("1")),
            (Some("1"), Some("1")),
            (Some("x"), Some("1")),
            (Some(own.as_str()), None),
            (Some(own.as_str()), Some("0")),
        ] {
            let sockets = inherited_from_systemd(pid, count).unwrap();
            assert!(sockets.is_empty(), "{pid:?} {count:?}");
        }
    }

    #[test]
    fn a_count_that_is_none_is_refused() {
        let own = std::process::id().to_string();
        for (count, message) in [
            ("x", "LISTEN_FDS is `x`"),
            ("-1", "LISTEN_FDS is `-1`"),
            ("99999", "LISTEN_FDS is `99999`"),
            ("129", "at most 128"),
        ] {
            let error = inherited_from_systemd(Some(&own), Some(count)).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
