//! The proxy's own credentials for an upstream: for clients that need none.
//!
//! They are sent with reads of the registry's endpoints alone, where the client sends none of its own
//! ([`AccessScope::of`]), and to nobody but the upstream and a server of tokens that is the upstream
//! itself or configured. How the upstream wants them is learnt by a request without them.
//!
//! Deliberately not here: clients' own credentials, which pass as they are.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use service::config::Secret;
use service::log::{OutcomeChange, OutcomeChanges, causes};
use service::net::{ClientError, HttpUrl};
use service::tls::TlsClient;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::replica::Replica;

mod challenge;
mod scope;
mod token;

pub(crate) use self::challenge::{Challenge, ChallengeError, TokenServer};
pub(crate) use self::scope::AccessScope;
use self::token::{Token, TokenError};

/// How long the upstream may take to say how it wants to be asked.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long an upstream that wants no credentials is believed.
const OPEN: Duration = Duration::from_mins(1);

/// How long nothing is asked again after a failure, or after credentials that were refused: clients would
/// otherwise cause as many requests as they send.
const PAUSE: Duration = Duration::from_secs(1);

/// How many tokens are kept, about, and how many bytes of them.
const TOKENS: usize = 1024;
const TOKEN_BYTES: u64 = 8 << 20;

/// The most tokens that are being asked for at a time.
const FETCHES: usize = 32;

/// What is configured of the credentials.
#[derive(Clone, Debug)]
pub struct CredentialsConfig {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// The server of tokens that may have them, beside the upstream itself.
    pub realm: Option<HttpUrl>,
    /// Whether pushes are sent with them, too.
    pub allow_push: bool,
    /// TLS towards a server of tokens that is not the upstream.
    pub tls: Option<TlsClient>,
}

/// The proxy's own credentials for an upstream.
pub(crate) struct UpstreamCredentials {
    upstream: String,
    basic: HeaderValue,
    realm: Option<HttpUrl>,
    allow_push: bool,
    tls: Option<TlsClient>,
    challenge: ArcSwapOption<LearntChallenge>,
    /// Held while the challenge is being learnt.
    learning: Mutex<()>,
    tokens: Cache<String, KeptToken, TokenWeight>,
    fetches: Semaphore,
    outcomes: OutcomeChanges,
    is_failing: AtomicBool,
}

/// What is known of how the upstream wants to be asked.
struct LearntChallenge {
    /// `None`: it could not be learnt.
    challenge: Option<Challenge>,
    since: Instant,
}

/// A token, or that there was none.
#[derive(Clone)]
struct KeptToken {
    token: Option<Token>,
    since: Instant,
}

#[derive(Clone)]
struct TokenWeight;

/// Why a request goes without credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("the upstream cannot be asked for its challenge")]
    Client(#[from] ClientError),
    #[error("the upstream did not respond within {TIMEOUT:?}")]
    Timeout,
    #[error("{FETCHES} tokens are being asked for, and none came within {TIMEOUT:?}")]
    Busy,
    #[error("the upstream responds {0} to a request for its challenge")]
    Status(StatusCode),
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    #[error(
        "the upstream sends us for tokens to {}, which is neither the upstream nor configured; if it \
         is right, set credentials.realm to it", .0.without_query()
    )]
    Realm(HttpUrl),
    #[error(
        "the upstream sends us for tokens to {}, which has no TLS: it would show the password", .0.without_query()
    )]
    Insecure(HttpUrl),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the upstream refuses the user name or the password")]
    Refused,
}

impl UpstreamCredentials {
    /// For the upstream of this name.
    pub(crate) fn new(upstream: String, config: CredentialsConfig) -> UpstreamCredentials {
        let pair = format!("{}:{}", config.username, config.password.expose());
        // Base64 is made of characters that a header may have.
        let basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
        let mut basic = basic.unwrap_or(HeaderValue::from_static("Basic"));
        basic.set_sensitive(true);
        UpstreamCredentials {
            upstream,
            basic,
            realm: config.realm,
            allow_push: config.allow_push,
            tls: config.tls,
            challenge: ArcSwapOption::empty(),
            learning: Mutex::new(()),
            tokens: Cache::with_weighter(TOKENS, TOKEN_BYTES, TokenWeight),
            fetches: Semaphore::new(FETCHES),
            outcomes: OutcomeChanges::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Whether they are the same, and used in the same way.
    pub(super) fn is_same(&self, other: &UpstreamCredentials) -> bool {
        self.upstream == other.upstream
            && self.basic == other.basic
            && self.realm == other.realm
            && self.allow_push == other.allow_push
            && self.tls == other.tls
    }

    /// Whether pushes are sent with them.
    pub(crate) fn allow_push(&self) -> bool {
        self.allow_push
    }

    /// The value of `Authorization` for a request to this replica. `None` where it needs none, or where
    /// there is none: the upstream then says so to the client.
    pub(crate) async fn authorization(
        &self,
        replica: &Replica,
        scope: &AccessScope,
    ) -> Option<HeaderValue> {
        let learnt = self.learnt(replica).await;
        match learnt.challenge.as_ref()? {
            Challenge::Open => None,
            Challenge::Basic => Some(self.basic.clone()),
            Challenge::Bearer(server) => {
                let token = self.token(replica, server, scope).await?;
                Some(token.header)
            }
        }
    }

    /// Tries them at a replica, whatever is known of it. Returns how it wants to be asked.
    pub(crate) async fn try_out(&self, replica: &Replica) -> Result<Challenge, CredentialsError> {
        let challenge = self.learn(replica).await?;
        let authorization = match &challenge {
            Challenge::Open => return Ok(challenge),
            Challenge::Basic => self.basic.clone(),
            Challenge::Bearer(server) => {
                // For nothing but the user: no repository is named.
                let scope = AccessScope::default();
                self.fetch(replica, server, &scope).await?.header
            }
        };
        let request = replica
            .base_request()
            .with_header(AUTHORIZATION, authorization);
        match request.send().await?.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(CredentialsError::Refused),
            _ => Ok(challenge),
        }
    }

    /// The upstream has responded to a request that needed this access; 401, or not.
    pub(crate) fn responded(&self, scope: &AccessScope, is_unauthorized: bool, was_sent: bool) {
        if is_unauthorized {
            self.forget(scope, was_sent);
        } else if was_sent && self.is_failing.load(Ordering::Relaxed) {
            self.note(None);
        }
    }

    /// What is known may be out of date.
    fn forget(&self, scope: &AccessScope, was_sent: bool) {
        let is_old = |since: Instant| since.elapsed() >= PAUSE;
        let kept = self.tokens.get(scope.as_str());
        if kept.is_some_and(|kept| is_old(kept.since)) {
            self.tokens.remove(scope.as_str());
        }
        let learnt = self.challenge.load();
        let is_basic = |learnt: &Arc<LearntChallenge>| learnt.challenge == Some(Challenge::Basic);
        // A token may be right, and allow less than it was asked for.
        if was_sent && learnt.as_ref().is_some_and(is_basic) {
            self.note(Some(&CredentialsError::Refused));
        }
        if learnt.as_ref().is_some_and(|learnt| is_old(learnt.since)) {
            self.challenge.store(None);
        }
    }

    async fn learnt(&self, replica: &Replica) -> Arc<LearntChallenge> {
        if let Some(learnt) = self.known() {
            return learnt;
        }
        let _learning = self.learning.lock().await;
        // Another request may have learnt it meanwhile.
        if let Some(learnt) = self.known() {
            return learnt;
        }
        let challenge = timeout(TIMEOUT, self.learn(replica)).await;
        let challenge = challenge.unwrap_or(Err(CredentialsError::Timeout));
        if let Err(error) = &challenge {
            self.note(Some(error));
        }
        let learnt = Arc::new(LearntChallenge {
            challenge: challenge.ok(),
            since: Instant::now(),
        });
        self.challenge.store(Some(Arc::clone(&learnt)));
        learnt
    }

    fn known(&self) -> Option<Arc<LearntChallenge>> {
        let learnt = self.challenge.load_full()?;
        let kept = match learnt.challenge {
            Some(Challenge::Basic | Challenge::Bearer(_)) => return Some(learnt),
            Some(Challenge::Open) => OPEN,
            None => PAUSE,
        };
        (learnt.since.elapsed() < kept).then_some(learnt)
    }

    async fn learn(&self, replica: &Replica) -> Result<Challenge, CredentialsError> {
        let response = replica.base_request().send().await?;
        if response.status().is_success() {
            return Ok(Challenge::Open);
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            return Err(CredentialsError::Status(response.status()));
        }
        let values = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = Challenge::of(values.filter_map(|value| value.to_str().ok()))?;
        if let Challenge::Bearer(server) = &challenge {
            self.check_realm(replica, &server.realm)?;
        }
        Ok(challenge)
    }

    /// Whether the password may be sent there.
    fn check_realm(&self, replica: &Replica, realm: &HttpUrl) -> Result<(), CredentialsError> {
        if !realm.is_private() {
            return Err(CredentialsError::Insecure(realm.clone()));
        }
        let configured = self.realm.as_ref();
        if replica.is_at(realm) || configured.is_some_and(|configured| realm.is_below(configured)) {
            return Ok(());
        }
        Err(CredentialsError::Realm(realm.clone()))
    }

    /// The kept token for a scope, or a new one. Requests that need the same one wait for it together.
    async fn token(
        &self,
        replica: &Replica,
        server: &TokenServer,
        scope: &AccessScope,
    ) -> Option<Token> {
        let key = scope.as_str();
        let known = self.tokens.get(key);
        if known.is_some_and(|kept| !kept.is_usable()) {
            self.tokens.remove(key);
        }
        let fetch = async {
            let token = self.fetch(replica, server, scope).await;
            self.note(token.as_ref().err());
            let token = token.ok();
            // After the wait: a server that stalls is left alone for as long as one that fails at once.
            let since = Instant::now();
            Ok::<_, Infallible>(KeptToken { token, since })
        };
        let Ok(kept) = self.tokens.get_or_insert_async(key, fetch).await;
        kept.token
    }

    async fn fetch(
        &self,
        replica: &Replica,
        server: &TokenServer,
        scope: &AccessScope,
    ) -> Result<Token, CredentialsError> {
        // No longer than for the token itself: while the server stalls, those that ask for others would
        // wait one after another. The semaphore is never closed.
        let permit = timeout(TIMEOUT, self.fetches.acquire()).await;
        let _permit = permit.map_err(|_| CredentialsError::Busy)?;
        let tls = if replica.is_at(&server.realm) {
            replica.tls().cloned()
        } else {
            self.tls.clone()
        };
        Ok(token::fetch(server, scope, &self.basic, tls).await?)
    }

    /// Logs a failure once for as long as it stays the same, and its end.
    fn note(&self, failure: Option<&CredentialsError>) {
        self.is_failing.store(failure.is_some(), Ordering::Relaxed);
        let failure = failure.map(|error| causes(error));
        let upstream = &self.upstream;
        match (self.outcomes.note(failure.as_deref()), failure) {
            (OutcomeChange::Failed, Some(error)) => {
                tracing::warn!(upstream, error, "no credentials for the upstream");
            }
            (OutcomeChange::Recovered, _) => {
                tracing::info!(upstream, "credentials for the upstream again");
            }
            (OutcomeChange::Failed | OutcomeChange::None, _) => {}
        }
    }
}

impl KeptToken {
    fn is_usable(&self) -> bool {
        match &self.token {
            Some(token) => Instant::now() < token.until,
            None => self.since.elapsed() < PAUSE,
        }
    }
}

impl Weighter<String, KeptToken> for TokenWeight {
    fn weight(&self, scope: &String, kept: &KeptToken) -> u64 {
        let token = kept.token.as_ref().map_or(0, |token| token.header.len());
        (scope.len() + token + 256) as u64
    }
}

impl fmt::Debug for UpstreamCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCredentials")
    }
}

#[cfg(test)]
mod tests;
