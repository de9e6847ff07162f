//! From the configured fields to a [`Config`] that is valid as a whole.
//!
//! The fields' names are an API; `--print-config` prints them all. What the registry inside the
//! process needs is the registry's own configuration.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

pub(crate) use registry::config::PAGE;
use registry::config::page;
use registry::service::auth::{BasicAuth, BasicAuthFields};
use registry::service::config::{self, ByteSize, ConfigError, Origins};
use registry::service::health::{Probe, READY};
use registry::service::listen::{ListenAddr, ListenFields};
use registry::service::log::LogConfig;
use registry::service::tls::Tls;
use serde::{Deserialize, Serialize};

use crate::aggregate::fetch::{Location, LocationError};
use crate::aggregate::{Bounds, Source};
use crate::metrics::Rules;
use crate::upstream::{Target, TargetError};

mod listen;
mod repositories;

pub use self::repositories::{GroupFields, RepositoryFields};

/// The name under which the embedded registry is known, as an upstream and as a source.
const EMBEDDED: &str = "registry";

/// Where clients are served unless something else is said.
const DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// The configuration as a file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// Where clients are served: an address, or a list of them.
    #[serde(deserialize_with = "listen::one_or_many")]
    pub listen: Vec<ListenFields>,
    /// The registry in front of which the proxy stands; none: the embedded one.
    pub upstreams: Vec<UpstreamFields>,
    /// The embedded registry; there is none where there are upstreams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<registry::config::EmbeddedFields>,
    /// What is measured, and who may see it.
    pub metrics: MetricsFields,
    /// What one client may take.
    pub limits: LimitFields,
    /// What is logged.
    pub logging: LogConfig,
}

/// One upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFields {
    /// How metrics and logs name it.
    #[serde(default = "main_upstream")]
    pub name: String,
    /// Where it is: `http://HOST[:PORT]` or `unix:/PATH`.
    pub replicas: Vec<String>,
    /// Its metrics pages.
    #[serde(default)]
    pub metrics: Vec<SourceFields>,
}

/// One metrics page of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFields {
    /// The value of its samples' `source` label.
    pub source: String,
    /// `http://HOST[:PORT]/PATH` or `unix:/PATH`.
    pub url: String,
}

/// What is measured, and who may see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsFields {
    /// Whether anything is recorded at all.
    pub enabled: bool,
    /// The page's path.
    pub path: String,
    /// A listener for the metrics and probes alone.
    pub listen: Option<ListenFields>,
    /// Whether a main listener that others can reach serves the metrics too without asking who they
    /// are: they name private repositories.
    pub public: bool,
    /// Which repositories are shown by name.
    pub repositories: RepositoryFields,
    /// Who may read the page; none: whoever reaches it.
    pub basic_auth: Option<BasicAuthFields>,
    /// What every sample of ours carries beside its own labels; the embedded registry's, too.
    pub labels: BTreeMap<String, String>,
    /// What bounds the aggregation of other pages.
    pub aggregate: AggregateFields,
}

/// What bounds the aggregation of other pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregateFields {
    /// How long a source may take.
    pub timeout: config::Duration,
    /// How large its page may be.
    pub max_bytes: ByteSize,
    /// How many samples are taken from it.
    pub max_samples: usize,
}

/// What one client, or all of them, may take.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitFields {
    /// Connections served at a time; more are closed at once.
    pub connections: usize,
    /// How long a request's headers may take: from its first byte, or from the start of a
    /// connection.
    pub header_timeout: config::Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: config::Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: config::Duration,
    /// How long a shutdown waits for transfers under way.
    pub drain: config::Duration,
}

fn main_upstream() -> String {
    "main".to_owned()
}

impl Default for Fields {
    fn default() -> Fields {
        Fields {
            listen: vec![ListenAddr::Tcp(DEFAULT).into()],
            upstreams: Vec::new(),
            registry: Some(registry::config::EmbeddedFields::default()),
            metrics: MetricsFields::default(),
            limits: LimitFields::default(),
            logging: LogConfig::default(),
        }
    }
}

impl Default for MetricsFields {
    fn default() -> MetricsFields {
        MetricsFields {
            enabled: true,
            path: PAGE.to_owned(),
            listen: None,
            public: false,
            repositories: RepositoryFields::default(),
            basic_auth: None,
            labels: BTreeMap::new(),
            aggregate: AggregateFields::default(),
        }
    }
}

impl Default for AggregateFields {
    fn default() -> AggregateFields {
        AggregateFields {
            timeout: config::Duration::from_secs(5),
            max_bytes: ByteSize::mib(64),
            max_samples: 500_000,
        }
    }
}

impl Default for LimitFields {
    fn default() -> LimitFields {
        LimitFields {
            connections: 10_000,
            header_timeout: config::Duration::from_secs(15),
            idle_timeout: config::Duration::from_secs(75),
            body_stall: config::Duration::from_secs(60),
            drain: config::Duration::from_secs(30),
        }
    }
}

/// A configuration that is valid as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served; at least one address.
    pub listen: Vec<ListenAddr>,
    /// The registry behind the proxy.
    pub upstream: UpstreamConfig,
    /// `None` records nothing.
    pub metrics: Option<MetricsConfig>,
    /// What one client may take.
    pub limits: Limits,
    /// What is logged.
    pub logging: LogConfig,
}

/// The registry behind the proxy.
#[derive(Clone, Debug)]
pub enum UpstreamConfig {
    /// In this process, on Unix sockets.
    Embedded(registry::config::EmbeddedFields),
    /// Any registry, anywhere.
    Remote {
        /// How metrics and logs name it.
        name: String,
        /// Where it is.
        target: Target,
    },
}

/// Where the metrics are served, and what is on the page beside the proxy's own.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// The page's path.
    pub path: String,
    /// A listener for the metrics and probes alone.
    pub listen: Option<ListenAddr>,
    /// That listener's certificate, if it speaks TLS.
    pub tls: Option<Tls>,
    /// Who may read the page; none: whoever reaches it.
    pub auth: Option<BasicAuth>,
    /// Whether the main listeners serve the page too.
    pub on_main: bool,
    /// Which repositories are shown by name.
    pub repositories: Rules,
    /// What every sample of ours carries beside its own labels.
    pub labels: BTreeMap<String, String>,
    /// The pages of the remote upstream.
    pub sources: Vec<Source>,
    /// What bounds their aggregation.
    pub bounds: Bounds,
}

/// What one client, or all of them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at a time.
    pub connections: usize,
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: Duration,
    /// How long a shutdown waits for transfers under way.
    pub drain: Duration,
}

impl Fields {
    /// The configuration as it takes effect, as a file that can be loaded again.
    pub fn print(&self) -> String {
        let mut fields = self.clone();
        if !fields.upstreams.is_empty() {
            fields.registry = None;
        }
        config::print(&fields)
    }
}

impl Config {
    /// Checks what no single field can tell.
    pub fn resolve(fields: Fields, origins: &Origins) -> Result<Config, ConfigError> {
        if fields.listen.is_empty() {
            return Err(origins.error("listen", "at least one address is needed"));
        }
        if let Some(at) = fields.listen.iter().position(|listen| listen.tls.is_some()) {
            let message = "is not supported here: only metrics.listen speaks TLS";
            return Err(origins.error(&format!("listen[{at}].tls"), message));
        }
        let listen: Vec<_> = fields
            .listen
            .into_iter()
            .map(|listen| listen.address)
            .collect();
        let (upstream, sources) = resolve_upstream(fields.upstreams, fields.registry, origins)?;
        let metrics = if fields.metrics.enabled {
            Some(resolve_metrics(fields.metrics, &listen, sources, origins)?)
        } else {
            None
        };
        // pingora counts whole seconds, of which none would mean for ever.
        let short = Duration::from_secs(1);
        for (key, limit) in [
            ("limits.header_timeout", fields.limits.header_timeout),
            ("limits.idle_timeout", fields.limits.idle_timeout),
            ("limits.body_stall", fields.limits.body_stall),
        ] {
            if limit.get() < short {
                return Err(origins.error(key, "must be at least 1s"));
            }
        }
        if fields.limits.connections == 0 {
            return Err(origins.error("limits.connections", "must not be 0"));
        }
        Ok(Config {
            listen,
            upstream,
            metrics,
            limits: Limits {
                connections: fields.limits.connections,
                header_timeout: fields.limits.header_timeout.get(),
                idle_timeout: fields.limits.idle_timeout.get(),
                body_stall: fields.limits.body_stall.get(),
                drain: fields.limits.drain.get(),
            },
            logging: fields.logging,
        })
    }
}

impl Config {
    /// What to ask to know whether a process with this configuration is ready.
    pub fn probe(&self) -> Probe {
        let page = self.metrics.as_ref().filter(|page| page.tls.is_none());
        let own = page.and_then(|page| page.listen.as_ref());
        let any = ListenAddr::Tcp(DEFAULT);
        Probe::new(own.or(self.listen.first()).unwrap_or(&any), READY)
    }
}

fn resolve_upstream(
    upstreams: Vec<UpstreamFields>,
    registry: Option<registry::config::EmbeddedFields>,
    origins: &Origins,
) -> Result<(UpstreamConfig, Vec<Source>), ConfigError> {
    let mut upstreams = upstreams.into_iter();
    let Some(upstream) = upstreams.next() else {
        let registry = registry.unwrap_or_default();
        registry.check(|key, message| origins.error(&format!("registry.{key}"), message))?;
        return Ok((UpstreamConfig::Embedded(registry), Vec::new()));
    };
    if origins.said("registry") {
        let message = "there are upstreams: the registry in this process is not started";
        return Err(origins.error("registry", message));
    }
    if upstreams.next().is_some() {
        return Err(origins.error("upstreams", "more than one upstream is not supported"));
    }
    if upstream.name.is_empty() {
        return Err(origins.error("upstreams[0].name", "must not be empty"));
    }
    let [replica] = upstream.replicas.as_slice() else {
        let message = "exactly one replica is needed";
        return Err(origins.error("upstreams[0].replicas", message));
    };
    let target: Target = replica.parse().map_err(|error: TargetError| {
        origins.error("upstreams[0].replicas[0]", &error.to_string())
    })?;
    let mut names = HashSet::new();
    let mut sources = Vec::with_capacity(upstream.metrics.len());
    for (index, source) in upstream.metrics.into_iter().enumerate() {
        let key = format!("upstreams[0].metrics[{index}]");
        if source.source.is_empty() || !names.insert(source.source.clone()) {
            let message = "must be a name of its own";
            return Err(origins.error(&format!("{key}.source"), message));
        }
        let location: Location = source.url.parse().map_err(|error: LocationError| {
            origins.error(&format!("{key}.url"), &error.to_string())
        })?;
        sources.push(Source {
            name: source.source,
            location,
        });
    }
    Ok((
        UpstreamConfig::Remote {
            name: upstream.name,
            target,
        },
        sources,
    ))
}

fn resolve_metrics(
    fields: MetricsFields,
    listen: &[ListenAddr],
    sources: Vec<Source>,
    origins: &Origins,
) -> Result<MetricsConfig, ConfigError> {
    page::check_path(&fields.path, origins)?;
    page::check_labels(&fields.labels, origins)?;
    let tls = match &fields.listen {
        Some(listen) => listen.load_tls("metrics.listen", origins)?,
        None => None,
    };
    let auth = fields
        .basic_auth
        .map(|auth| auth.resolve("metrics.basic_auth", origins))
        .transpose()?;
    let private = listen.iter().all(|address| match address {
        ListenAddr::Tcp(address) => is_loopback(address.ip()),
        ListenAddr::Unix(_) => true,
    });
    Ok(MetricsConfig {
        path: fields.path,
        listen: fields.listen.map(|listen| listen.address),
        tls,
        on_main: private || fields.public || auth.is_some(),
        auth,
        repositories: fields.repositories.resolve(origins)?,
        labels: fields.labels,
        sources,
        bounds: Bounds {
            timeout: fields.aggregate.timeout.get(),
            max_bytes: usize::try_from(fields.aggregate.max_bytes.get()).unwrap_or(usize::MAX),
            max_samples: fields.aggregate.max_samples,
        },
    })
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The source of the embedded registry's page.
pub(crate) fn embedded_source(socket: std::path::PathBuf) -> Source {
    Source {
        name: EMBEDDED.to_owned(),
        location: Location::Unix(socket),
    }
}

/// The name under which the embedded registry is known.
pub(crate) fn embedded_name() -> String {
    EMBEDDED.to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use registry::service::config::{Flag, Sources, load_with_origins};
    use tempfile::NamedTempFile;

    use super::*;

    const UPSTREAM: &str = "upstreams: [{replicas: ['http://registry:5000']}]\n";

    pub(super) fn resolve(yaml: &str, flags: Vec<Flag>) -> Result<(Config, String), String> {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(yaml.as_bytes()).unwrap();
        let sources = Sources {
            file: Some(file.path().to_owned()),
            flags,
            ..Sources::default()
        };
        let path = file.path().display().to_string();
        let told = |error: ConfigError| error.to_string().replace(&path, "FILE");
        let loaded = load_with_origins::<Fields>(sources).map_err(told)?;
        let printed = loaded.fields.print();
        let config = Config::resolve(loaded.fields, &loaded.origins).map_err(told)?;
        Ok((config, printed))
    }

    #[test]
    fn a_registry_beside_an_upstream_is_refused_where_it_was_said() {
        let yaml = format!("{UPSTREAM}registry:\n  data: ./data\n");
        let error = resolve(&yaml, Vec::new()).unwrap_err();
        assert!(
            error.starts_with("FILE:2: registry: there are upstreams"),
            "{error}"
        );
        let flags = vec![Flag::new("--data", "registry.data", "./data")];
        let error = resolve(UPSTREAM, flags).unwrap_err();
        assert!(error.starts_with("--data: registry: "), "{error}");
    }

    #[test]
    fn what_is_printed_of_a_proxy_with_an_upstream_loads_again() {
        let (_, printed) = resolve(UPSTREAM, Vec::new()).unwrap();
        let (again, printed_again) = resolve(&printed, Vec::new()).unwrap();
        assert_eq!(printed_again, printed);
        assert!(matches!(again.upstream, UpstreamConfig::Remote { .. }));
        let (_, printed) = resolve("", Vec::new()).unwrap();
        let (again, _) = resolve(&printed, Vec::new()).unwrap();
        assert!(matches!(again.upstream, UpstreamConfig::Embedded(_)));
    }

    #[test]
    fn listeners_that_others_reach_have_the_metrics_only_if_these_are_public() {
        let on_main = |yaml: &str| {
            resolve(yaml, Vec::new())
                .unwrap()
                .0
                .metrics
                .unwrap()
                .on_main
        };
        for (addresses, is_private) in [
            ("'127.0.0.1:5000'", true),
            ("'127.1.2.3:5000', '[::1]:5000'", true),
            ("'unix:/run/octoserve.sock'", true),
            ("'[::ffff:127.0.0.1]:5000'", true),
            ("'0.0.0.0:5000'", false),
            ("'[::]:5000'", false),
            ("'192.0.2.7:5000'", false),
            // They share their pages: the least private of them decides.
            ("'127.0.0.1:5000', '192.0.2.7:5000'", false),
        ] {
            let listen = format!("listen: [{addresses}]\n");
            assert_eq!(on_main(&listen), is_private, "{addresses}");
            let own = format!("{listen}metrics: {{listen: '127.0.0.1:5001'}}\n");
            assert_eq!(on_main(&own), is_private, "{addresses}, with a listener");
            let public = format!("{listen}metrics: {{public: true}}\n");
            assert!(on_main(&public), "{addresses}, public");
            let off = format!("{listen}metrics: {{enabled: false, public: true}}\n");
            assert!(resolve(&off, Vec::new()).unwrap().0.metrics.is_none());
        }
    }

    #[test]
    fn a_limit_too_short_to_be_counted_is_refused() {
        for key in ["header_timeout", "idle_timeout", "body_stall"] {
            let error = resolve(&format!("limits: {{{key}: 999ms}}"), Vec::new()).unwrap_err();
            assert!(
                error.starts_with(&format!("FILE:1: limits.{key}: ")),
                "{error}"
            );
        }
    }

    fn serves_on_main(yaml: &str) -> bool {
        resolve(yaml, Vec::new())
            .unwrap()
            .0
            .metrics
            .unwrap()
            .on_main
    }

    #[test]
    fn a_listener_that_others_reach_serves_the_page_to_those_it_knows_or_to_everybody_if_told_so() {
        let auth = "basic_auth: {username: a, password_hash: \
            '$2y$05$abcdefghijklmnopqrstuuIAEipimVgSTxGS2VyWH9AhzRz3iJI3.'}";
        for (listen, metrics, serves) in [
            ("127.0.0.1:1", "", true),
            ("'[::1]:1'", "", true),
            ("'[::ffff:127.0.0.1]:1'", "", true),
            ("unix:/x", "", true),
            ("0.0.0.0:1", "", false),
            ("'[::]:1'", "", false),
            ("['127.0.0.1:1', '10.0.0.1:1']", "", false),
            ("0.0.0.0:1", "public: true", true),
            ("0.0.0.0:1", auth, true),
        ] {
            let yaml = format!("listen: {listen}\nmetrics: {{{metrics}}}\n");
            assert_eq!(serves_on_main(&yaml), serves, "{yaml}");
        }
    }

    /// `/metrics` forced onto a debug port with a profiler; half-set basic auth meaning none.
    #[test]
    fn half_set_basic_auth_is_a_mistake_told_with_its_place_and_never_means_none() {
        for (half, told) in [
            (
                "{username: a}",
                "the key password_hash or password_file is missing",
            ),
            ("{password_hash: '$2y$10$x'}", "the key username is missing"),
            ("{password_file: /x}", "the key username is missing"),
            ("{}", "the key username is missing"),
        ] {
            let yaml = format!("listen: 0.0.0.0:1\nmetrics:\n  basic_auth: {half}\n");
            let error = resolve(&yaml, Vec::new()).unwrap_err();
            assert_eq!(error, format!("FILE:3: metrics.basic_auth: {told}"));
        }
    }

    #[test]
    fn a_certificate_belongs_to_the_metrics_listener_and_must_be_there() {
        let tls = "{address: '127.0.0.1:1', tls: {certificate: /no/crt, key: /no/key}}";
        let error = resolve(&format!("metrics:\n  listen: {tls}\n"), Vec::new()).unwrap_err();
        assert!(
            error.starts_with("FILE:2: metrics.listen.tls.certificate: cannot read"),
            "{error}"
        );
        let error = resolve(&format!("listen: [{tls}]\n"), Vec::new()).unwrap_err();
        assert!(
            error.starts_with("FILE:1: listen[0].tls: is not"),
            "{error}"
        );
        let error = resolve(
            "metrics: {listen: {address: '127.0.0.1:1', tls: {key: x}}}",
            Vec::new(),
        );
        let error = error.unwrap_err();
        assert!(error.contains("the key certificate is missing"), "{error}");
    }

    #[test]
    fn who_moves_the_metrics_listener_leaves_its_certificate() {
        let tls = "tls: {certificate: /no/crt, key: /no/key}";
        for table in [
            format!("{{address: '127.0.0.1:1', {tls}}}"),
            format!("{{{tls}}}"),
        ] {
            for address in ["127.0.0.1:2", "[::1]:2", "unix:/m"] {
                let flag = Flag::new("--metrics-listen", "metrics.listen", address);
                let yaml = format!("metrics:\n  listen: {table}\n");
                let error = resolve(&yaml, vec![flag]).unwrap_err();
                let kept = "FILE:2: metrics.listen.tls.certificate: cannot read";
                assert!(error.starts_with(kept), "{address}, {table}: {error}");
            }
        }
        let nowhere = Flag::new("--metrics-listen", "metrics.listen", "nowhere");
        let yaml = format!("metrics: {{listen: {{address: '127.0.0.1:1', {tls}}}}}\n");
        let error = resolve(&yaml, vec![nowhere]).unwrap_err();
        let told = "--metrics-listen: metrics.listen.address: `nowhere` is not";
        assert!(error.starts_with(told), "{error}");
    }
}
