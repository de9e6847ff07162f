//! Basic authentication (RFC 7617) of scrapers.
//!
//! The password is configured as a bcrypt hash or in a file. bcrypt is slow on purpose. An accepted
//! password is remembered, so a scraper pays for bcrypt once, and the work that strangers can cause
//! is bounded (see [`BasicAuth::check`]).
//!
//! Deliberately not here: more than one user, and permissions.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::config::{ConfigError, Origins, Secret};
use super::small_file;

/// The most requests that wait for bcrypt, the one being verified included. Further ones get 429.
const WAITING: usize = 8;

/// After a wrong password, bcrypt pauses for this many times as long as it took.
const REST: u32 = 3;

/// The highest cost of a hash. Each step doubles the time, and this one takes seconds.
pub(crate) const MAX_COST: u32 = 15;

const DECODER: GeneralPurpose = STANDARD;

/// The keys of basic authentication: a user's name, and the password as a hash or in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuthFields {
    /// The user's name, without a colon.
    pub username: Option<String>,
    /// The bcrypt hash of the password, as `hash-password` prints it. Excludes `password_file`.
    pub password_hash: Option<Secret>,
    /// A file that holds the password itself, as Prometheus' own key of this name. The line ending is not
    /// part of it. Excludes `password_hash`.
    pub password_file: Option<PathBuf>,
}

/// The one user who may scrape. Clones share their state.
#[derive(Clone)]
pub struct BasicAuth(Arc<Credentials>);

struct Credentials {
    /// Random, so that a digest does not reveal its input.
    salt: [u8; 32],
    username: SaltedDigest,
    password: Password,
    /// The slots of requests that wait for bcrypt or use it.
    waiting: Arc<Semaphore>,
    /// Held while bcrypt runs and pauses: one password at a time.
    bcrypt: Arc<Semaphore>,
}

enum Password {
    Known(SaltedDigest),
    Hashed {
        hash: String,
        /// The password that bcrypt accepted.
        accepted: Mutex<Option<SaltedDigest>>,
    },
}

/// A salted digest. Comparing digests instead of texts takes the same time for any length.
type SaltedDigest = [u8; 32];

/// The result of checking a request's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are right.
    Accepted,
    /// They are wrong or missing.
    Refused,
    /// Too many are being verified.
    Busy,
}

impl BasicAuthFields {
    /// Checks the keys at `key`, and reads the password file. Fails if one of the two keys is
    /// missing.
    pub fn resolve(self, key: &str, origins: &Origins) -> Result<BasicAuth, ConfigError> {
        let error = |below: &str, message: &str| {
            let key = format!("{key}{below}");
            Err(origins.error(&key, message))
        };
        let Some(username) = self.username else {
            return error("", "the key username is missing");
        };
        // The first colon ends the name (RFC 7617, section 2), so a name cannot contain one.
        if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
            return error(".username", "must be a name without a colon");
        }
        match (self.password_hash, self.password_file) {
            (None, None) => error("", "the key password_hash or password_file is missing"),
            (Some(_), Some(_)) => error(
                "",
                "the keys password_hash and password_file exclude each other",
            ),
            (Some(hash), None) => match check_hash(hash.expose()) {
                Ok(()) => Ok(BasicAuth::of_hash(&username, hash.expose())),
                Err(message) => error(".password_hash", message),
            },
            (None, Some(path)) => match small_file::read_text(&path) {
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
                    &format!(
                        "cannot read {}: {why}{}",
                        path.display(),
                        small_file::mend(&why)
                    ),
                ),
            },
        }
    }
}

/// Checks a hash. No message contains the hash.
fn check_hash(hash: &str) -> Result<(), &'static str> {
    let parts = bcrypt::HashParts::from_str(hash);
    match parts.map(|parts| parts.get_cost()) {
        Ok(4..=MAX_COST) => Ok(()),
        Ok(_) => Err("the cost must be from 4 to 15: every scraper waits for it"),
        Err(_) => {
            Err("must be a bcrypt hash such as $2b$12$…; `octoserve hash-password` makes one")
        }
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
            bcrypt: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Checks a request's credentials, in a time that does not depend on how wrong they are.
    ///
    /// A password that was accepted before costs one digest. Any other costs one run of bcrypt on a
    /// blocking thread. One runs at a time, and after a wrong password bcrypt pauses for three
    /// times as long as it ran, so strangers get at most a quarter of one core. A few requests
    /// wait; the others get [`Busy`](Verdict::Busy).
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
                // Copied out, so that the lock is not held while bcrypt runs.
                let accepted = *accepted.lock();
                if accepted.is_some_and(|accepted| (is_user & given.ct_eq(&accepted)).into()) {
                    return Verdict::Accepted;
                }
                self.verify(is_user.into(), password, given).await
            }
        }
    }

    async fn verify(&self, is_user: bool, password: Vec<u8>, given: SaltedDigest) -> Verdict {
        // Not awaited: a queue without a bound would let strangers take memory.
        let Ok(slot) = Arc::clone(&self.0.waiting).try_acquire_owned() else {
            return Verdict::Busy;
        };
        let inner = Arc::clone(&self.0);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A task of its own: a client that disconnects must not cancel the pause, or strangers
        // could keep bcrypt busy all the time.
        tokio::spawn(async move {
            // Always a permit, as the semaphore is never closed. It is held through the pause.
            let _permit = inner.bcrypt.acquire().await;
            let started = Instant::now();
            let credentials = Arc::clone(&inner);
            let verified = tokio::task::spawn_blocking(move || {
                let Password::Hashed { hash, accepted } = &credentials.password else {
                    return false;
                };
                // Verified for an unknown user, too: the time must not reveal which names exist.
                let is_right = bcrypt::verify(password, hash).unwrap_or(false) && is_user;
                if is_right {
                    *accepted.lock() = Some(given);
                }
                is_right
            });
            let is_right = verified.await.unwrap_or(false);
            // Fails only if the client has disconnected.
            let _ = sender.send(Verdict::of(is_right));
            if !is_right {
                tokio::time::sleep(started.elapsed() * REST).await;
            }
            drop(slot);
        });
        receiver.await.unwrap_or(Verdict::Refused)
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
            Self::Accepted
        } else {
            Self::Refused
        }
    }

    /// The response to a request that is not accepted.
    pub fn refusal(self) -> Option<Response<Bytes>> {
        let (status, name, value, text) = match self {
            Self::Accepted => return None,
            Self::Refused => (
                StatusCode::UNAUTHORIZED,
                WWW_AUTHENTICATE,
                "Basic realm=\"metrics\", charset=\"UTF-8\"",
                "user name and password required\n",
            ),
            Self::Busy => (
                StatusCode::TOO_MANY_REQUESTS,
                RETRY_AFTER,
                "1",
                "too many passwords are being verified\n",
            ),
        };
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, plain);
        headers.insert(CONTENT_LENGTH, text.len().into());
        headers.insert(name, HeaderValue::from_static(value));
        // It is about one user, and the next try may be another one's.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}

/// The user name and the password of a request. `None` unless there is exactly one header, of this
/// scheme: with several, a proxy in front could have checked another one than we do.
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
