//! The upstream registry: its replicas, or the registry in this process.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use registry::server::in_process::InProcess;
use service::operate::ReplicaStatus;
use service::shutdown::Shutdown;

use crate::metrics::UpstreamMetrics;

mod address;
mod asked_as;
mod balance;
mod choice;
mod credentials;
mod health;
mod host;
mod in_flight;
mod matching;
mod pool;
mod replica;
mod replica_set;
mod requested;
mod route;
mod session_tag;
mod settings;
mod stream;
mod stripped;
mod target;
mod tls;
mod upstreams;

pub(crate) use self::address::UpstreamAddress;
pub use self::asked_as::AskedAs;
pub use self::balance::MAX_REPLICAS;
pub use self::choice::NoUpstream;
pub use self::credentials::CredentialsConfig;
pub(crate) use self::credentials::{AccessScope, Challenge, ChallengeError, UpstreamCredentials};
pub use self::host::{HostHeader, HostHeaderError};
pub use self::matching::{HostPattern, HostPatternError, RequestMatch};
pub use self::replica::Replica;
pub use self::replica_set::ReplicaSet;
pub use self::requested::Requested;
pub use self::route::{AdmittedRequest, QueuedRequest, ReplicaRoute};
pub use self::session_tag::{SHORTEST_KEY, SessionKey};
pub(crate) use self::session_tag::{SessionTags, split as split_session_tag};
pub use self::settings::{Balance, HealthRules, QueueRules, ReplicaRules, ReplicaSettings};
pub(crate) use self::stream::UpstreamStream;
pub use self::stripped::StrippedPrefix;
use self::target::LOCAL;
pub use self::target::{Target, TargetError};
pub use self::upstreams::Upstreams;

/// How long the upstream may be silent. A registry may hash gigabytes before it responds to the PUT
/// that ends an upload.
const RESPONSE: Duration = Duration::from_mins(10);

/// How long an upstream may make its clients wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of its response.
    pub response: Duration,
    /// Until it takes the next piece of a request's body, or sends the next piece of a response's.
    pub stall: Duration,
}

impl Timeouts {
    /// Those that go with the limit for bodies that stall, in either direction. A client whose body
    /// stalls is found out before the upstream that waits for the rest of it.
    pub fn with_stall(body_stall: Duration) -> Timeouts {
        Timeouts {
            response: RESPONSE + body_stall,
            stall: body_stall,
        }
    }
}

/// An upstream registry.
pub struct Upstream {
    name: String,
    matching: RequestMatch,
    place: Place,
    metrics: Option<UpstreamMetrics>,
    is_read_only: bool,
    timeouts: Timeouts,
    credentials: Option<Arc<UpstreamCredentials>>,
}

/// Where an upstream is.
enum Place {
    /// Other processes or machines, which serve the same repositories.
    Replicas(Box<ReplicaSet>),
    /// In this process.
    InProcess(InProcess),
}

impl Upstream {
    /// An upstream that is known under `name`, never under its addresses. Names are resolved by
    /// [`Upstream::maintain`]; no request can be served before that.
    pub fn new(
        name: String,
        replicas: Vec<ReplicaSettings>,
        rules: ReplicaRules,
        timeouts: Timeouts,
    ) -> Upstream {
        let replicas = ReplicaSet::new(&name, replicas, rules);
        Upstream::with(name, Place::Replicas(Box::new(replicas)), timeouts)
    }

    /// The registry in this process, which is called.
    pub fn embedded(name: String, registry: InProcess, timeouts: Timeouts) -> Upstream {
        Upstream::with(name, Place::InProcess(registry), timeouts)
    }

    fn with(name: String, place: Place, timeouts: Timeouts) -> Upstream {
        Upstream {
            name,
            matching: RequestMatch::default(),
            place,
            metrics: None,
            is_read_only: false,
            timeouts,
            credentials: None,
        }
    }

    /// The same upstream, to which no change is forwarded if it is to be read only.
    pub fn read_only(mut self, is_read_only: bool) -> Upstream {
        self.is_read_only = is_read_only;
        self
    }

    /// The same upstream, for these requests alone.
    pub fn for_requests(mut self, matching: RequestMatch) -> Upstream {
        self.matching = matching;
        self
    }

    /// Which requests it is for.
    pub(crate) fn matching(&self) -> &RequestMatch {
        &self.matching
    }

    /// Whether no change is forwarded to it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// The same upstream, which replaces one of the last configuration. It keeps what has not changed, with
    /// its state: replicas with their connections and their health, credentials with their tokens.
    pub fn succeeding(mut self, previous: &Upstream) -> Upstream {
        let is_there = match (&mut self.place, &previous.place) {
            (Place::Replicas(own), Place::Replicas(before)) => own.adopt(before),
            _ => false,
        };
        // No token goes to a replica that did not issue it.
        if is_there
            && let (Some(own), Some(before)) = (&mut self.credentials, &previous.credentials)
            && own.is_same(before)
        {
            *own = Arc::clone(before);
        }
        self
    }

    /// The same upstream, whose responses are recorded.
    pub fn with_metrics(mut self, metrics: UpstreamMetrics) -> Upstream {
        if let Place::Replicas(replicas) = &mut self.place {
            replicas.record(metrics.replicas());
        }
        self.metrics = Some(metrics);
        self
    }

    /// The registry in this process, if it is that.
    pub(crate) fn in_process(&self) -> Option<&InProcess> {
        match &self.place {
            Place::Replicas(_) => None,
            Place::InProcess(registry) => Some(registry),
        }
    }

    /// The replicas; `None` of a registry in this process.
    pub fn replicas(&self) -> Option<&ReplicaSet> {
        match &self.place {
            Place::Replicas(replicas) => Some(replicas),
            Place::InProcess(_) => None,
        }
    }

    /// The same upstream, which is told who asks where the client does not say so.
    pub fn with_credentials(mut self, config: Option<CredentialsConfig>) -> Upstream {
        let name = self.name.clone();
        self.credentials = config.map(|config| Arc::new(UpstreamCredentials::new(name, config)));
        self
    }

    /// The credentials for requests of clients that send none, if there are some.
    pub(crate) fn credentials(&self) -> Option<&UpstreamCredentials> {
        self.credentials.as_deref()
    }

    /// Where it is recorded how the upstream responds, if it is.
    pub fn metrics(&self) -> Option<&UpstreamMetrics> {
        self.metrics.as_ref()
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host that a registry in this process is asked for where the client names none.
    pub(crate) const fn local_authority() -> HeaderValue {
        LOCAL
    }

    /// How long it may make its clients wait.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// What follows the prefix in a path of this replica, if it has a prefix.
    pub(crate) fn below<'a>(&self, replica: usize, path: &'a str) -> Option<&'a str> {
        self.replicas()?.below(replica, path)
    }

    /// What follows the address and the prefix in an absolute URL of this replica, or of another one. An
    /// upstream below a path builds URLs of the `client`'s host that have the path, too.
    pub(crate) fn within<'a>(
        &self,
        replica: usize,
        url: &'a str,
        client: Option<&str>,
    ) -> Option<&'a str> {
        self.replicas()?.within(replica, url, client)
    }

    /// Whether the upstream can serve requests; `None` before that is known. The embedded registry does
    /// for as long as this process does.
    pub fn is_healthy(&self) -> Option<bool> {
        self.replicas().map_or(Some(true), ReplicaSet::is_healthy)
    }

    /// The state of each replica; none of a registry in this process.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.replicas().map(ReplicaSet::status).unwrap_or_default()
    }

    /// Has the replica of this name, or all of them, drain or take new requests again. Returns how many
    /// there are.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn set_draining(&self, replica: Option<&str>, is_draining: bool) -> Result<usize, String> {
        match self.replicas() {
            Some(replicas) => replicas.set_draining(replica, is_draining),
            None => Err(format!(
                "the upstream {} is the embedded registry, which cannot be drained alone",
                self.name
            )),
        }
    }

    /// Probes the replicas, and calls `changed` whenever the health of one has changed.
    pub async fn watch_health(&self, changed: impl Fn()) {
        let Some(replicas) = self.replicas() else {
            return;
        };
        let mut receiver = replicas.health_changes();
        let follow = async {
            while receiver.changed().await.is_ok() {
                changed();
            }
        };
        tokio::join!(replicas.keep_probed(), follow);
    }

    /// Resolves the names of replicas that are not resolved yet, so that no request finds them so.
    pub async fn resolve(&self) {
        if let Some(replicas) = self.replicas() {
            replicas.resolve().await;
        }
    }

    /// Keeps the replicas resolved and their idle connections fresh, until the shutdown.
    pub async fn maintain(self: Arc<Self>, shutdown: Shutdown) {
        let Some(replicas) = self.replicas() else {
            return;
        };
        tokio::select! {
            () = replicas.maintain() => {}
            () = shutdown.recv() => {}
        }
    }

    /// An upstream with one replica, whose name resolves to these addresses.
    #[cfg(test)]
    pub(crate) fn at(addresses: &[std::net::SocketAddr], timeouts: Timeouts) -> Upstream {
        let upstream = Upstream::new(
            "main".to_owned(),
            vec![tests::replica("http://registry")],
            ReplicaRules::default(),
            timeouts,
        );
        for replica in upstream.replicas().map_or(&[][..], ReplicaSet::all) {
            replica.replace(addresses);
        }
        upstream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn replica(url: &str) -> ReplicaSettings {
        ReplicaSettings {
            name: url.to_owned(),
            target: url.parse().unwrap(),
            is_draining: false,
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_until_the_shutdown() {
        let upstream = Arc::new(Upstream::new(
            "main".to_owned(),
            vec![replica("http://localhost:5000")],
            ReplicaRules::default(),
            Timeouts::with_stall(Duration::from_mins(1)),
        ));
        let is_resolved = || upstream.replicas().unwrap().all()[0].address().is_some();
        assert!(!is_resolved(), "it is not resolved yet");
        let (trigger, shutdown) = Shutdown::new();
        let maintaining = tokio::spawn(Arc::clone(&upstream).maintain(shutdown));
        while !is_resolved() {
            tokio::task::yield_now().await;
        }
        trigger.trigger();
        maintaining.await.unwrap();
    }

    fn remote(replicas: &[ReplicaSettings], password: &str) -> Upstream {
        let credentials = CredentialsConfig {
            username: "user".to_owned(),
            password: service::config::Secret::new(password),
            realm: None,
            allow_push: false,
            tls: None,
        };
        let timeouts = Timeouts::with_stall(Duration::from_mins(1));
        let (name, rules) = ("main".to_owned(), ReplicaRules::default());
        Upstream::new(name, replicas.to_vec(), rules, timeouts).with_credentials(Some(credentials))
    }

    #[test]
    fn a_successor_takes_on_the_replicas_and_the_credentials_that_have_not_changed() {
        let [a, b, c] = ["http://a", "http://b", "http://c"].map(replica);
        let before = remote(&[a.clone(), b.clone()], "one");
        let all = |upstream: &Upstream| upstream.replicas().unwrap().all().to_vec();
        let same = remote(&[b.clone(), a.clone()], "one").succeeding(&before);
        assert!(Arc::ptr_eq(&all(&same)[0], &all(&before)[1]));
        assert!(Arc::ptr_eq(&all(&same)[1], &all(&before)[0]));
        let credentials = |upstream: &Upstream| Arc::as_ptr(upstream.credentials.as_ref().unwrap());
        assert_eq!(credentials(&same), credentials(&before));
        let other = remote(&[a, c.clone()], "one").succeeding(&before);
        assert!(Arc::ptr_eq(&all(&other)[0], &all(&before)[0]));
        assert_eq!(all(&other)[1].name(), c.name);
        // A token of the others is none of the new replica's.
        assert_ne!(credentials(&other), credentials(&before));
        let changed = remote(&[b], "two").succeeding(&before);
        assert_ne!(credentials(&changed), credentials(&before));
    }

    #[test]
    fn what_an_operator_said_of_draining_lasts_until_the_configuration_says_something_else() {
        let settings = |is_draining| ReplicaSettings {
            is_draining,
            ..replica("http://a")
        };
        let is_draining = |upstream: &Upstream| upstream.replicas().unwrap().all()[0].is_draining();
        let first = remote(&[settings(false)], "");
        first.replicas().unwrap().all()[0].set_draining(true);
        let second = remote(&[settings(false)], "").succeeding(&first);
        assert!(is_draining(&second));
        let third = remote(&[settings(true)], "").succeeding(&second);
        assert!(is_draining(&third));
        let fourth = remote(&[settings(false)], "").succeeding(&third);
        assert!(!is_draining(&fourth));
    }

    #[test]
    fn a_client_that_stalls_is_found_out_before_its_upstream() {
        for body_stall in [1, 60, 3600].map(Duration::from_secs) {
            let timeouts = Timeouts::with_stall(body_stall);
            assert!(timeouts.response > body_stall);
            assert_eq!(timeouts.stall, body_stall);
        }
    }
}
