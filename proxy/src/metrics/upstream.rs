//! How the upstreams respond, as the proxy sees it.

use std::time::{Duration, Instant};

use registry::metrics::label::LATENCY;
use service::metrics::{Counter, Counters, Gauge, Histogram, Histograms, Label, families, labels};

labels! {
    /// How a request to an upstream ended.
    pub enum UpstreamOutcome: "outcome" {
        /// The upstream responded, with whatever status.
        Ok = "ok",
        /// The connection failed, or the response was not valid HTTP.
        Error = "error",
        /// The upstream took too long.
        Timeout = "timeout",
    }

    /// How an upstream failed.
    pub enum UpstreamError: "reason" {
        /// No connection could be made.
        Connect = "connect",
        /// The TLS handshake failed.
        Tls = "tls",
        /// It took too long to connect or to respond.
        Timeout = "timeout",
        /// The upstream closed or reset the connection.
        Reset = "reset",
        /// Its name could not be resolved.
        Dns = "dns",
        /// Its response is not valid HTTP.
        Protocol = "protocol",
    }
}

families! {
    /// The `upstream_*` families.
    pub struct UpstreamFamilies by "upstream" {
        /// Time from a request sent to the upstream to the headers of its response, whatever the
        /// status, or to the upstream's failure; observed then. Not observed if the client disconnects
        /// first.
        request: Histograms<UpstreamOutcome> = "upstream_request_duration_seconds" in LATENCY,
        /// Time to make a new connection to the upstream; observed when it is made, and not when a
        /// connection is reused.
        connect: Histogram = "upstream_connect_duration_seconds" in LATENCY,
        /// Failures of the upstream; counted when they happen, for each attempt where a request was
        /// retried.
        errors: Counters<UpstreamError> = "upstream_errors_total",
        /// Requests that went over a reused connection; counted when it is taken from the pool.
        reused: Counter = "upstream_connections_reused_total",
        /// Requests that the upstream still allows, as its last RateLimit-Remaining header said;
        /// absent until one arrives.
        ratelimit: Gauge = "upstream_ratelimit_remaining",
        /// Replicas in the configuration, those that drain included; set at the start and by a reload,
        /// absent for the embedded registry.
        replicas: Gauge = "upstream_replicas",
        /// Replicas that are healthy; set when the health of one changes, absent for the embedded
        /// registry.
        healthy: Gauge = "upstream_replicas_healthy",
        /// Requests that wait because their replica has max_connections in flight; set when one
        /// begins or stops to wait, absent for the embedded registry.
        queue: Gauge = "upstream_queue_length",
    }
}

/// The cells of one upstream's replicas.
#[derive(Clone)]
pub struct ReplicaMetrics {
    replicas: Gauge,
    healthy: Gauge,
    queue: Gauge,
}

/// The cells of one upstream.
pub struct UpstreamMetrics {
    request: Histograms<UpstreamOutcome>,
    connect: Histogram,
    errors: Counters<UpstreamError>,
    reused: Counter,
    ratelimit: Gauge,
    replicas: ReplicaMetrics,
}

/// A request that waits for the upstream's response, if there is one.
#[derive(Debug, Default)]
pub struct Awaited(Option<Instant>);

impl UpstreamFamilies {
    /// Removes what says how an upstream is now. What was counted of it stays.
    pub fn forget_gauges(&self, name: &str) {
        for gauge in [&self.ratelimit, &self.replicas, &self.healthy, &self.queue] {
            gauge.forget(name);
        }
    }

    /// The cells of an upstream by its configured name.
    pub fn of(&self, name: &str) -> UpstreamMetrics {
        let errors = self.errors.cells(name);
        for &error in UpstreamError::ALL {
            // At 0 from the start: a rate over a series that begins at 1 misses that failure.
            errors.touch(error);
        }
        let reused = self.reused.cells(name);
        reused.touch(());
        UpstreamMetrics {
            request: self.request.cells(name),
            connect: self.connect.cells(name),
            errors,
            reused,
            ratelimit: self.ratelimit.cells(name),
            replicas: ReplicaMetrics {
                replicas: self.replicas.cells(name),
                healthy: self.healthy.cells(name),
                queue: self.queue.cells(name),
            },
        }
    }
}

impl ReplicaMetrics {
    /// There are so many replicas, and so many of them are healthy.
    pub fn configured(&self, replicas: usize, healthy: usize) {
        self.replicas.set((), replicas as f64);
        self.healthy(healthy);
        self.queue.touch(());
    }

    /// So many replicas are healthy.
    pub fn healthy(&self, replicas: usize) {
        self.healthy.set((), replicas as f64);
    }

    /// A request begins to wait.
    pub fn began_to_wait(&self) {
        self.queue.add((), 1.0);
    }

    /// A request waits no more.
    pub fn ended_to_wait(&self) {
        self.queue.sub((), 1.0);
    }
}

impl UpstreamMetrics {
    /// The cells of its replicas.
    pub fn replicas(&self) -> &ReplicaMetrics {
        &self.replicas
    }

    /// A request got a connection. `establishment` is the time to make it. For a reused connection
    /// that time is an old one, and is not observed.
    pub fn connected(&self, is_reused: bool, establishment: Option<Duration>) {
        if is_reused {
            self.reused.inc(());
        } else if let Some(establishment) = establishment {
            self.connect.observe((), establishment.as_secs_f64());
        }
    }

    /// The headers of a response arrived, other than a 1xx. `ratelimit` is its header of that name.
    pub fn responded(&self, awaited: &mut Awaited, ratelimit: Option<&[u8]>) {
        self.observe(awaited, UpstreamOutcome::Ok);
        if let Some(remaining) = ratelimit.and_then(remaining) {
            self.ratelimit.set((), remaining);
        }
    }

    /// The upstream failed.
    pub fn failed(&self, awaited: &mut Awaited, error: UpstreamError) {
        // Counted even where no request waits: a connection may fail before one is sent.
        self.errors.inc(error);
        let outcome = match error {
            UpstreamError::Timeout => UpstreamOutcome::Timeout,
            UpstreamError::Connect
            | UpstreamError::Tls
            | UpstreamError::Reset
            | UpstreamError::Dns
            | UpstreamError::Protocol => UpstreamOutcome::Error,
        };
        self.observe(awaited, outcome);
    }

    fn observe(&self, awaited: &mut Awaited, outcome: UpstreamOutcome) {
        // Taken: a body that breaks after the head must not give the request a second outcome.
        if let Some(sent) = awaited.0.take() {
            let waited = sent.elapsed();
            self.request.observe(outcome, waited.as_secs_f64());
        }
    }
}

impl Awaited {
    /// A request is sent.
    pub fn begin(&mut self) {
        // Set anew for a retry: the histogram shows the wait of one attempt.
        self.0 = Some(Instant::now());
    }
}

/// How many are left: `76`, or `76;w=21600` where the window is given, too.
fn remaining(header: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(header).ok()?;
    let number = text.split(';').next()?.trim();
    // An integer: as a float the header could say `NaN` or `inf`.
    let count: u64 = number.parse().ok()?;
    Some(count as f64)
}

#[cfg(test)]
mod tests {
    use service::metrics::MetricsRegistry;

    use super::*;

    fn exposition(registry: &MetricsRegistry) -> String {
        let mut text = String::new();
        registry.gather().write_text(&mut text);
        text
    }

    fn value(registry: &MetricsRegistry, series: &str) -> Option<f64> {
        let exposition = exposition(registry);
        let line = exposition
            .lines()
            .find_map(|line| line.strip_prefix(series));
        line.map(|value| value.trim().parse().unwrap())
    }

    #[test]
    fn a_reused_connection_repeats_no_handshake() {
        let registry = MetricsRegistry::new("");
        let metrics = UpstreamFamilies::declare(&registry, 1).of("main");
        let took = Some(Duration::from_millis(3));
        metrics.connected(false, took);
        metrics.connected(true, took);
        metrics.connected(true, took);
        metrics.connected(false, None);
        let connect = "upstream_connect_duration_seconds_count{upstream=\"main\"}";
        assert_eq!(value(&registry, connect), Some(1.0));
        let connect = "upstream_connect_duration_seconds_sum{upstream=\"main\"}";
        assert_eq!(value(&registry, connect), Some(0.003));
        let reused = "upstream_connections_reused_total{upstream=\"main\"}";
        assert_eq!(value(&registry, reused), Some(2.0));
    }

    #[test]
    fn a_request_has_one_outcome_and_a_broken_body_is_but_an_error() {
        let registry = MetricsRegistry::new("");
        let metrics = UpstreamFamilies::declare(&registry, 1).of("main");
        let count = |outcome: &str| {
            let name = "upstream_request_duration_seconds_count";
            value(
                &registry,
                &format!("{name}{{outcome=\"{outcome}\",upstream=\"main\"}}"),
            )
        };
        let mut awaited = Awaited::default();
        awaited.begin();
        metrics.responded(&mut awaited, None);
        metrics.failed(&mut awaited, UpstreamError::Reset);
        assert_eq!((count("ok"), count("error")), (Some(1.0), None));
        awaited.begin();
        metrics.failed(&mut awaited, UpstreamError::Timeout);
        metrics.failed(&mut Awaited::default(), UpstreamError::Connect);
        assert_eq!((count("timeout"), count("error")), (Some(1.0), None));
        for (reason, times) in [
            ("connect", 1.0),
            ("tls", 0.0),
            ("timeout", 1.0),
            ("reset", 1.0),
            ("dns", 0.0),
            ("protocol", 0.0),
        ] {
            let series = format!("upstream_errors_total{{reason=\"{reason}\",upstream=\"main\"}}");
            assert_eq!(value(&registry, &series), Some(times), "{reason}");
        }
    }

    #[test]
    fn a_request_has_waited_since_it_was_sent_last() {
        let registry = MetricsRegistry::new("");
        let metrics = UpstreamFamilies::declare(&registry, 1).of("main");
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let mut awaited = Awaited(ago(30));
        awaited.begin();
        metrics.responded(&mut awaited, None);
        metrics.responded(&mut Awaited(ago(2)), None);
        let sum = "upstream_request_duration_seconds_sum{outcome=\"ok\",upstream=\"main\"}";
        let waited = value(&registry, sum).unwrap();
        assert!((2.0..20.0).contains(&waited), "{waited}");
    }

    #[test]
    fn the_rate_limit_is_what_the_last_good_header_said() {
        let registry = MetricsRegistry::new("");
        let metrics = UpstreamFamilies::declare(&registry, 1).of("main");
        let series = "upstream_ratelimit_remaining{upstream=\"main\"}";
        let remaining = |header: Option<&[u8]>| {
            metrics.responded(&mut Awaited::default(), header);
            value(&registry, series)
        };
        assert_eq!(remaining(None), None);
        assert_eq!(remaining(Some(b"many")), None);
        assert_eq!(remaining(Some(b"76;w=21600")), Some(76.0));
        assert_eq!(remaining(Some(b" 75 ")), Some(75.0));
        for bad in [&b""[..], b"-1", b"1e9", b"\xff", b";w=1"] {
            assert_eq!(remaining(Some(bad)), Some(75.0));
        }
        assert_eq!(remaining(Some(b"0")), Some(0.0));
    }

    #[test]
    fn an_upstream_has_no_more_series_than_the_bound_allows_for() {
        let registry = MetricsRegistry::new("");
        let families = UpstreamFamilies::declare(&registry, 2);
        assert!(registry.max_series() <= 2 * 90, "{}", registry.max_series());
        for name in ["a", "b"] {
            let metrics = families.of(name);
            metrics.connected(false, Some(Duration::ZERO));
            let mut awaited = Awaited::default();
            for error in [UpstreamError::Reset, UpstreamError::Timeout] {
                awaited.begin();
                metrics.failed(&mut awaited, error);
            }
            awaited.begin();
            metrics.responded(&mut awaited, Some(b"1"));
            metrics.replicas().configured(2, 0);
        }
        let exposition = exposition(&registry);
        let series = exposition
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count();
        assert_eq!(series, registry.max_series());
    }
}
