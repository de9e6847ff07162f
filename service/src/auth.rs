//! Basic authentication (RFC 7617) of those who read an exposition.
//!
//! The password is given as a bcrypt hash, or in a file. bcrypt is slow on purpose: what it accepted
//! is remembered, so that a scraper pays for it once, and what strangers can make it do is bounded
//! (see [`BasicAuth::check`]).
//!
//! Deliberately not here: more than one user, and who may do what.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::config::{ConfigError, Origins, Secret};

/// How many may wait for bcrypt; more are told to come again.
const WAITING: usize = 8;

/// For each moment that bcrypt worked on a wrong password it rests so many.
const REST: u32 = 3;

/// The highest cost of a hash: each step more doubles the time, and this one takes seconds.
const MAX_COST: u32 = 15;

const DECODER: GeneralPurpose = STANDARD;

/// The keys of basic authentication: a user's name, and the password in one of two ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuthFields {
    /// The user's name.
    pub username: Option<String>,
    /// The bcrypt hash of the password, as `htpasswd -nB` prints it.
    pub password_hash: Option<Secret>,
    /// A file that holds the password itself, as Prometheus' own key of this name wants it. The
    /// line's end does not count.
    pub password_file: Option<PathBuf>,
}

/// Who may read the exposition. Clones are the same.
#[derive(Clone)]
pub struct BasicAuth(Arc<Credentials>);

struct Credentials {
    /// Random, so that a digest tells nothing.
    salt: [u8; 32],
    username: SaltedDigest,
    password: Password,
    /// The places of those who wait for bcrypt, the one at work included.
    waiting: Arc<Semaphore>,
    /// Who is at work.
    turn: Arc<Semaphore>,
}

enum Password {
    Known(SaltedDigest),
    Hashed {
        hash: String,
        /// The password that bcrypt accepted.
        accepted: Mutex<Option<SaltedDigest>>,
    },
}

/// A salted digest, to compare instead of what it is made of.
type SaltedDigest = [u8; 32];

/// What comes of a request's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are the right ones.
    Welcome,
    /// They are wrong, or there are none.
    Refused,
    /// Too many are being looked at.
    Busy,
}

impl BasicAuthFields {
    /// Checks what the keys at `key` say, and reads the password's file. Half of it is none of it.
    pub fn resolve(self, key: &str, origins: &Origins) -> Result<BasicAuth, ConfigError> {
        let error = |below: &str, message: &str| {
            let key = format!("{key}{below}");
            Err(origins.error(&key, message))
        };
        let Some(username) = self.username else {
            return error("", "the key username is missing");
        };
        if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
            return error(".username", "must be a name without a colon");
        }
        match (self.password_hash, self.password_file) {
            (None, None) => error("", "the key password_hash or password_file is missing"),
            (Some(_), Some(_)) => error(
                "",
                "the keys password_hash and password_file are there both",
            ),
            (Some(hash), None) => match check_hash(hash.expose()) {
                Ok(()) => Ok(BasicAuth::of_hash(&username, hash.expose())),
                Err(message) => error(".password_hash", message),
            },
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let password = text.strip_suffix('\n').unwrap_or(&text);
                    let password = password.strip_suffix('\r').unwrap_or(password);
                    if password.is_empty() {
                        return error(".password_file", "the file is empty");
                    }
                    Ok(BasicAuth::of_password(&username, password))
                }
                Err(why) => error(
                    ".password_file",
                    &format!("cannot read {}: {why}", path.display()),
                ),
            },
        }
    }
}

/// What is wrong with a hash; the hash itself is in no message.
fn check_hash(hash: &str) -> Result<(), &'static str> {
    let parts = bcrypt::HashParts::from_str(hash);
    match parts.map(|parts| parts.get_cost()) {
        Ok(4..=MAX_COST) => Ok(()),
        Ok(_) => Err("the cost must be from 4 to 15: each scraper would wait for it"),
        Err(_) => Err("must be a bcrypt hash such as $2y$10$…; `htpasswd -nB NAME` makes one"),
    }
}

impl BasicAuth {
    /// A user whose password is known.
    pub fn of_password(username: &str, password: &str) -> Self {
        Self::new(username, |salt| {
            Password::Known(digest(salt, password.as_bytes()))
        })
    }

    /// A user whose password has this bcrypt hash.
    fn of_hash(username: &str, hash: &str) -> Self {
        Self::new(username, |_| Password::Hashed {
            hash: hash.to_owned(),
            accepted: Mutex::default(),
        })
    }

    fn new(username: &str, password: impl FnOnce(&SaltedDigest) -> Password) -> Self {
        let salt = rand::random();
        Self(Arc::new(Credentials {
            username: digest(&salt, username.as_bytes()),
            password: password(&salt),
            salt,
            waiting: Arc::new(Semaphore::new(WAITING)),
            turn: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Looks at a request's credentials, in a time that tells nothing of how wrong they are.
    ///
    /// A password that was accepted costs a digest. Any other costs bcrypt, on a thread that serves
    /// nobody: for one at a time, and after a wrong one nothing for three times as long as it took,
    /// so that strangers get a quarter of one core at most. A few wait, the others are
    /// [`Busy`](Verdict::Busy).
    pub async fn check(&self, headers: &HeaderMap) -> Verdict {
        let Some((username, password)) = credentials(headers) else {
            return Verdict::Refused;
        };
        let inner = &self.0;
        let is_user = digest(&inner.salt, username.as_bytes()).ct_eq(&inner.username);
        let given = digest(&inner.salt, &password);
        match &inner.password {
            Password::Known(known) => Verdict::of((is_user & given.ct_eq(known)).into()),
            Password::Hashed { accepted, .. } => {
                let accepted = *accepted.lock();
                if accepted.is_some_and(|accepted| (is_user & given.ct_eq(&accepted)).into()) {
                    return Verdict::Welcome;
                }
                self.ask_bcrypt(is_user.into(), password, given).await
            }
        }
    }

    async fn ask_bcrypt(&self, is_user: bool, password: Vec<u8>, given: SaltedDigest) -> Verdict {
        let Ok(place) = Arc::clone(&self.0.waiting).try_acquire_owned() else {
            return Verdict::Busy;
        };
        let inner = Arc::clone(&self.0);
        let (tell, told) = tokio::sync::oneshot::channel();
        // Whoever hangs up meanwhile must not get out of the turn and the rest after it.
        tokio::spawn(async move {
            let _turn = inner.turn.acquire().await;
            let started = Instant::now();
            let asked = Arc::clone(&inner);
            let verified = tokio::task::spawn_blocking(move || {
                let Password::Hashed { hash, accepted } = &asked.password else {
                    return false;
                };
                let is_right = bcrypt::verify(password, hash).unwrap_or(false) && is_user;
                if is_right {
                    *accepted.lock() = Some(given);
                }
                is_right
            });
            let is_right = verified.await.unwrap_or(false);
            let _ = tell.send(Verdict::of(is_right));
            if !is_right {
                tokio::time::sleep(started.elapsed() * REST).await;
            }
            drop(place);
        });
        told.await.unwrap_or(Verdict::Refused)
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicAuth")
    }
}

impl Verdict {
    fn of(is_right: bool) -> Self {
        if is_right {
            Self::Welcome
        } else {
            Self::Refused
        }
    }

    /// The answer to somebody who is not welcome.
    pub fn refusal(self) -> Option<Response<Bytes>> {
        let (status, name, value, text) = match self {
            Self::Welcome => return None,
            Self::Refused => (
                StatusCode::UNAUTHORIZED,
                WWW_AUTHENTICATE,
                "Basic realm=\"metrics\", charset=\"UTF-8\"",
                "a user name and a password are needed\n",
            ),
            Self::Busy => (
                StatusCode::TOO_MANY_REQUESTS,
                RETRY_AFTER,
                "1",
                "too many passwords are being looked at\n",
            ),
        };
        let mut answer = Response::new(Bytes::from_static(text.as_bytes()));
        *answer.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, plain);
        headers.insert(CONTENT_LENGTH, text.len().into());
        headers.insert(name, HeaderValue::from_static(value));
        Some(answer)
    }
}

/// The name and the password that a request gives; none if there is not exactly one header of
/// this scheme.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = DECODER.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let username = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((username, decoded[colon + 1..].to_vec()))
}

fn digest(salt: &SaltedDigest, text: &[u8]) -> SaltedDigest {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(text);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests;
