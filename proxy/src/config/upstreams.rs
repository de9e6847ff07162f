//! The upstreams: what their keys mean, and that none of them is this process itself.

use std::collections::HashSet;

use registry::config::{METRICS_PATH, StorageFields};
use service::config::{Checker, ConfigError, Origins};
use service::listen::ListenAddr;
use service::net::{GetRequest, HttpUrl, UrlError};

use super::credentials::ExposedListener;
use super::fields::{SourceFields, UpstreamFields};
use super::{matching, reach, replicas};
use crate::aggregate::{Origin, Source};
use crate::upstream::{CredentialsConfig, ReplicaRules, ReplicaSettings, RequestMatch, Target};

/// The longest name of an upstream or a source, in bytes.
const LONGEST_NAME: usize = 128;

/// The most upstreams.
const MOST_UPSTREAMS: usize = 64;

/// The most sources of all upstreams: each scrape fetches all of them at once, and holds all their
/// expositions in memory.
const MOST_SOURCES: usize = 64;

/// The upstreams.
#[derive(Clone, Debug)]
pub enum UpstreamsConfig {
    /// The registry in this process.
    Embedded(StorageFields),
    /// Any registries, anywhere; at least one.
    Remote(Vec<RemoteConfig>),
}

/// A registry somewhere.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// The name that metrics and logs give it.
    pub name: String,
    /// Which requests it is for.
    pub matching: RequestMatch,
    /// Where it is.
    pub replicas: Vec<ReplicaSettings>,
    /// What the replicas share.
    pub rules: ReplicaRules,
    /// What it is told of who asks, where clients do not say so.
    pub credentials: Option<CredentialsConfig>,
    /// Whether pushes and deletes are refused.
    pub read_only: bool,
}

/// The proxy's own listeners.
pub(super) struct OwnListeners<'l> {
    /// All of them, that for metrics included.
    pub(super) all: Vec<&'l ListenAddr>,
    /// Those of clients on other machines.
    pub(super) exposed: &'l [ExposedListener],
}

/// What the fields of the upstreams mean, and the sources of metrics among them.
pub(super) fn resolve(
    upstreams: Vec<UpstreamFields>,
    registry: Option<StorageFields>,
    own: &OwnListeners<'_>,
    origins: &Origins,
) -> Result<(UpstreamsConfig, Vec<Source>), ConfigError> {
    if upstreams.is_empty() {
        let registry = registry.unwrap_or_default();
        registry.check(&Checker::new(origins, "registry"))?;
        return Ok((UpstreamsConfig::Embedded(registry), Vec::new()));
    }
    // Only where the key was written: its defaults are always there, and contradict nothing.
    if origins.said("registry") {
        let message = "there are upstreams: the embedded registry is not started";
        return Err(origins.error("registry", message));
    }
    let checker = Checker::new(origins, "");
    checker.entries("upstreams", upstreams.len(), MOST_UPSTREAMS)?;
    let mut resolved: Vec<RemoteConfig> = Vec::with_capacity(upstreams.len());
    let mut sources = Vec::new();
    for (at, upstream) in upstreams.into_iter().enumerate() {
        let checker = Checker::new(origins, &format!("upstreams[{at}]"));
        let is_taken = resolved.iter().any(|other| other.name == upstream.name);
        // Metrics and logs know an upstream by its name alone.
        if is_taken {
            let message = "must be a name of its own: several upstreams are written in the file, each with \
                a `name` and a `match`";
            return Err(checker.error("name", message));
        }
        let upstream = resolve_one(upstream, &mut sources, own, &checker)?;
        let earlier = resolved.iter().map(|one| (&*one.name, &one.matching));
        matching::check_reached(&upstream.matching, earlier, &checker)?;
        resolved.push(upstream);
    }
    Ok((UpstreamsConfig::Remote(resolved), sources))
}

fn resolve_one(
    upstream: UpstreamFields,
    sources: &mut Vec<Source>,
    own: &OwnListeners<'_>,
    checker: &Checker<'_>,
) -> Result<RemoteConfig, ConfigError> {
    checker.text("name", &upstream.name, LONGEST_NAME)?;
    // `ctl upstream NAME/REPLICA` could not tell where it ends.
    if upstream.name.contains('/') {
        return Err(checker.error("name", "must be a name without a slash"));
    }
    checker.entries(
        "metrics",
        sources.len() + upstream.metrics.len(),
        MOST_SOURCES,
    )?;
    let matching = upstream.matching.resolve(&checker.section("match"))?;
    let replicas = replicas::resolve_replicas(&upstream.replicas, checker)?;
    let mut rules = replicas::resolve_rules(&upstream, checker)?;
    let endpoints = resolve_endpoints(&upstream.metrics, sources, checker)?;
    let for_credentials = checker.section("credentials");
    let realm = match &upstream.credentials {
        Some(credentials) => credentials.realm(&for_credentials)?,
        None => None,
    };
    let targets: Vec<Target> = replicas.iter().map(|one| one.target.clone()).collect();
    let bases: Vec<_> = targets.iter().map(|target| target.url("")).collect();
    let urls = endpoints.iter().map(|(_, url)| url);
    let urls = urls.chain(&bases).chain(&realm);
    let tls = reach::tls(upstream.tls.as_ref(), urls, checker)?;
    let credentials = match upstream.credentials {
        None => None,
        Some(credentials) => {
            credentials.check_use(&targets, own.exposed, &for_credentials)?;
            Some(credentials.resolve(realm, tls.others, &for_credentials)?)
        }
    };
    check_loops(&replicas, &endpoints, own, checker)?;
    sources.extend(endpoints.into_iter().map(|(name, url)| Source {
        name,
        origin: Origin::Endpoint(Box::new(
            GetRequest::from(url).with_tls(tls.upstream.clone()),
        )),
    }));
    rules.asked.tls = tls.upstream;
    Ok(RemoteConfig {
        name: upstream.name,
        matching,
        replicas,
        rules,
        credentials,
        read_only: upstream.read_only,
    })
}

/// The names and URLs of an upstream's metrics endpoints. `taken` are the sources of other upstreams.
fn resolve_endpoints(
    endpoints: &[SourceFields],
    taken: &[Source],
    checker: &Checker<'_>,
) -> Result<Vec<(String, HttpUrl)>, ConfigError> {
    let mut names: HashSet<_> = taken.iter().map(|source| source.name.as_str()).collect();
    let mut resolved = Vec::with_capacity(endpoints.len());
    for (at, endpoint) in endpoints.iter().enumerate() {
        let checker = checker.section(&format!("metrics[{at}]"));
        checker.text("source", &endpoint.source, LONGEST_NAME)?;
        // The name becomes the `source` label, which alone keeps the samples of two sources apart.
        if !names.insert(&endpoint.source) {
            return Err(checker.error("source", "must be a name of its own"));
        }
        let url = source_url(&endpoint.url).map_err(|message| checker.error("url", &message))?;
        resolved.push((endpoint.source.clone(), url));
    }
    Ok(resolved)
}

/// The metrics endpoint that a text names; `/metrics` where it names no path.
fn source_url(text: &str) -> Result<HttpUrl, String> {
    let url: HttpUrl = text.parse().map_err(|error: UrlError| error.to_string())?;
    Ok(url.with_default_path(METRICS_PATH))
}

/// Refuses a replica or a source that is this process itself: it would send requests to itself without
/// an end.
fn check_loops(
    replicas: &[ReplicaSettings],
    endpoints: &[(String, HttpUrl)],
    own: &OwnListeners<'_>,
    checker: &Checker<'_>,
) -> Result<(), ConfigError> {
    let message = "is an address of this process itself";
    let is_own = |replica: &ReplicaSettings| {
        let address = replica.target.address();
        own.all.iter().any(|own| address.reaches(own))
    };
    if let Some(at) = replicas.iter().position(is_own) {
        return Err(checker.error(&format!("replicas[{at}]"), message));
    }
    let is_own = |(_, url): &(String, HttpUrl)| {
        let address = url.address();
        own.all.iter().any(|own| address.reaches(own))
    };
    match endpoints.iter().position(is_own) {
        Some(at) => Err(checker.error(&format!("metrics[{at}].url"), message)),
        None => Ok(()),
    }
}
