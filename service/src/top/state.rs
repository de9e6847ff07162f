//! What is shown, in plain figures.

use super::escaped::escaped;
use super::history::History;
use super::problems::{Problem, problems};
use super::reading::{Reading, SeriesLabels, label};
use super::table::{SortBy, TableRow, rows};

/// The quantiles of latencies.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// What is shown of a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TopState {
    /// What the program says that it is.
    pub(super) version: String,
    /// For how long it runs, in seconds.
    pub(super) uptime: Option<f64>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// Requests in a second.
    pub(super) requests: Option<f64>,
    /// Those that end with a status from 500 on.
    pub(super) failures: Option<f64>,
    /// Those that end with one from 400 to 499.
    pub(super) refusals: Option<f64>,
    /// Requests now.
    pub(super) in_flight: Option<f64>,
    /// Connections now.
    pub(super) connections: Option<f64>,
    /// Seconds to the end of a request, by quantile.
    pub(super) latency: Option<[f64; 3]>,
    /// Seconds to the beginning of a response.
    pub(super) first_byte: Option<[f64; 3]>,
    /// Bytes to clients in a second.
    pub(super) down: Option<f64>,
    /// Bytes from clients in a second.
    pub(super) up: Option<f64>,
    /// Uploads in progress, and the seconds since the oldest began.
    pub(super) uploads: Option<(f64, f64)>,
    pub(super) storages: Vec<StorageState>,
    pub(super) upstreams: Vec<UpstreamState>,
    pub(super) sources: Vec<SourceReading>,
    pub(super) repositories: Vec<TableRow>,
    pub(super) clients: Vec<TableRow>,
    pub(super) codes: Vec<TableRow>,
}

/// One registry's storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StorageState {
    pub(super) source: String,
    pub(super) used: Option<f64>,
    pub(super) free: f64,
    pub(super) size: f64,
    pub(super) full_in: Option<f64>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UpstreamState {
    pub(super) name: String,
    /// Healthy replicas, and all; `None` for a registry in the same process.
    pub(super) replicas: Option<(f64, f64)>,
    pub(super) rate: Option<f64>,
    pub(super) latency: Option<[f64; 3]>,
    pub(super) errors: f64,
}

/// One source of metrics.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SourceReading {
    pub(super) name: String,
    pub(super) is_up: bool,
    pub(super) samples: f64,
}

impl TopState {
    /// What the readings say.
    pub(super) fn of(history: &History, sort: SortBy) -> Self {
        let Some(now) = history.latest() else {
            return Self::default();
        };
        // The proxy's families; those of the registry where it runs alone.
        let requests = if now.sum("http_requests_total").is_some() {
            "http_requests_total"
        } else {
            "registry_http_requests_total"
        };
        let seconds = requests.replace("requests_total", "request_duration_seconds_bucket");
        let of_status = |first: char| {
            history.rate(requests, |labels| {
                is_own(labels) && label(labels, "status").is_some_and(|one| one.starts_with(first))
            })
        };
        let bytes = |name| history.rate(name, is_own);
        let table =
            |name: &str, by: &str| rows(now.by(name, by), &history.rates_by(name, by), sort);
        Self {
            version: version(now),
            uptime: now.process_start.map(|start| (now.wall - start).max(0.0)),
            problems: problems(history),
            requests: history.rate(requests, is_own),
            failures: of_status('5'),
            refusals: of_status('4'),
            in_flight: own(now, "http_requests_in_flight"),
            connections: own(now, "connections_active"),
            latency: history.quantiles(&seconds, is_own, QUANTILES),
            first_byte: history.quantiles("http_response_ttfb_seconds_bucket", is_own, QUANTILES),
            down: bytes("http_response_body_bytes_total"),
            up: bytes("http_request_body_bytes_total"),
            uploads: uploads(now),
            storages: storages(history, now),
            upstreams: upstreams(history, now),
            sources: sources(now),
            repositories: table("repository_operations_total", "repository"),
            clients: table("client_requests_total", "client"),
            codes: table("oci_errors_total", "code"),
        }
    }
}

/// Whether a series is the program's own, and not one of its sources.
fn is_own(labels: &SeriesLabels) -> bool {
    label(labels, "source").is_none()
}

fn own(now: &Reading, name: &str) -> Option<f64> {
    let mut own = now
        .all(name)
        .filter(|(labels, _)| is_own(labels))
        .peekable();
    own.peek()?;
    Some(own.map(|(_, value)| value).sum())
}

fn version(now: &Reading) -> String {
    let mut infos = now.all("build_info").filter(|(labels, _)| is_own(labels));
    let version = infos.find_map(|(labels, _)| label(labels, "version"));
    escaped(version.unwrap_or_default())
}

fn uploads(now: &Reading) -> Option<(f64, f64)> {
    [
        (
            "upload_sessions_active",
            "upload_session_oldest_age_seconds",
        ),
        (
            "registry_upload_sessions",
            "registry_upload_oldest_age_seconds",
        ),
    ]
    .into_iter()
    .find_map(|(open, age)| Some((own(now, open)?, own(now, age).unwrap_or_default())))
}

fn storages(history: &History, now: &Reading) -> Vec<StorageState> {
    let sizes = now.by("storage_filesystem_size_bytes", "source");
    let used = now.by("storage_disk_usage_bytes", "source");
    let all = now
        .by("storage_filesystem_avail_bytes", "source")
        .into_iter();
    let state = |(source, free): (String, f64)| StorageState {
        used: used.get(&source).copied(),
        size: sizes.get(&source).copied().unwrap_or_default(),
        full_in: history.full_in(&source),
        free,
        source: escaped(&source),
    };
    all.map(state).collect()
}

fn upstreams(history: &History, now: &Reading) -> Vec<UpstreamState> {
    let name = "upstream_request_duration_seconds_bucket";
    let replicas = now.by("upstream_replicas", "upstream");
    let healthy = now.by("upstream_replicas_healthy", "upstream");
    let errors = now.by("upstream_errors_total", "upstream");
    let mut names: Vec<_> = now.by(name, "upstream").into_keys().collect();
    names.extend(replicas.keys().cloned());
    names.sort_unstable();
    names.dedup();
    let state = |upstream: String| {
        let is_of = |labels: &SeriesLabels| label(labels, "upstream") == Some(&upstream);
        let all = |labels: &SeriesLabels| {
            is_of(labels) && label(labels, "le").is_some_and(|le| le.ends_with("Inf"))
        };
        UpstreamState {
            replicas: replicas.get(&upstream).map(|all| {
                let healthy = healthy.get(&upstream).copied();
                (healthy.unwrap_or_default(), *all)
            }),
            rate: history.rate(name, all),
            latency: history.quantiles(name, is_of, QUANTILES),
            errors: errors.get(&upstream).copied().unwrap_or_default(),
            name: escaped(&upstream),
        }
    };
    names.into_iter().map(state).collect()
}

fn sources(now: &Reading) -> Vec<SourceReading> {
    let samples = now.by("aggregate_samples", "source");
    let all = now.by("aggregate_up", "source").into_iter();
    let reading = |(name, up): (String, f64)| SourceReading {
        samples: samples.get(&name).copied().unwrap_or_default(),
        is_up: up > 0.0,
        name: escaped(&name),
    };
    all.map(reading).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two pages, ten seconds apart, of a proxy with an upstream and a source.
    pub(in crate::top) fn sample() -> History {
        let mut history = History::default();
        for (at, requests, pulls) in [(0, 100, 10), (10, 200, 30)] {
            let text = format!(
                "octoserve_build_info{{version=\"0.1.0\"}} 1\n\
                 octoserve_build_info{{version=\"9.9.9\",source=\"a\"}} 1\n\
                 process_start_time_seconds 996410\n\
                 octoserve_http_requests_total{{status=\"200\"}} {requests}\n\
                 octoserve_http_requests_total{{status=\"404\"}} {pulls}\n\
                 octoserve_http_requests_total{{status=\"200\",source=\"a\"}} {at}\n\
                 octoserve_http_requests_in_flight{{endpoint=\"blob\"}} 2\n\
                 octoserve_http_requests_in_flight{{endpoint=\"base\"}} 1\n\
                 octoserve_connections_active 12\n\
                 octoserve_http_request_duration_seconds_bucket{{le=\"0.1\"}} {requests}\n\
                 octoserve_http_request_duration_seconds_bucket{{le=\"+Inf\"}} {requests}\n\
                 octoserve_http_response_ttfb_seconds_bucket{{le=\"0.01\"}} {requests}\n\
                 octoserve_http_response_ttfb_seconds_bucket{{le=\"+Inf\"}} {requests}\n\
                 octoserve_http_response_body_bytes_total {requests}000000\n\
                 octoserve_http_request_body_bytes_total {requests}000\n\
                 octoserve_upload_sessions_active 2\n\
                 octoserve_upload_session_oldest_age_seconds 90\n\
                 octoserve_upstream_replicas{{upstream=\"main\"}} 2\n\
                 octoserve_upstream_replicas_healthy{{upstream=\"main\"}} 1\n\
                 octoserve_upstream_errors_total{{upstream=\"main\",reason=\"connect\"}} 7\n\
                 octoserve_upstream_request_duration_seconds_bucket{{upstream=\"main\",le=\"0.1\"}} {requests}\n\
                 octoserve_upstream_request_duration_seconds_bucket{{upstream=\"main\",le=\"+Inf\"}} {requests}\n\
                 octoserve_aggregate_up{{source=\"a\"}} 1\n\
                 octoserve_aggregate_samples{{source=\"a\"}} 321\n\
                 octoserve_storage_filesystem_size_bytes{{source=\"a\"}} 107374182400\n\
                 octoserve_storage_filesystem_avail_bytes{{source=\"a\"}} 53687091200\n\
                 octoserve_storage_disk_usage_bytes{{source=\"a\"}} 1073741824\n\
                 octoserve_repository_operations_total{{repository=\"team/app\",operation=\"pull\"}} {pulls}\n\
                 octoserve_repository_operations_total{{repository=\"team/app\",operation=\"push\"}} 1\n\
                 octoserve_repository_operations_total{{repository=\"e\u{1b}[2J\",operation=\"pull\"}} 2\n\
                 octoserve_client_requests_total{{client=\"docker\",operation=\"pull\"}} {pulls}\n\
                 octoserve_oci_errors_total{{code=\"MANIFEST_UNKNOWN\"}} {pulls}\n\
                 octoserve_oci_errors_total{{code=\"DENIED\"}} 0\n"
            );
            history.push(Reading::parse(at, &text));
        }
        history
    }

    #[test]
    fn the_figures_are_those_of_the_pages() {
        let state = TopState::of(&sample(), SortBy::Rate);
        assert_eq!(state.version, "0.1.0");
        assert_eq!(state.uptime, Some(3600.0));
        assert_eq!(
            (state.requests, state.refusals, state.failures),
            (Some(12.0), Some(2.0), Some(0.0))
        );
        assert_eq!(
            (state.in_flight, state.connections),
            (Some(3.0), Some(12.0))
        );
        assert_eq!(state.latency.map(|all| all[0]), Some(0.05));
        assert_eq!((state.down, state.up), (Some(10_000_000.0), Some(10_000.0)));
        assert_eq!(state.uploads, Some((2.0, 90.0)));
        let upstream = &state.upstreams[0];
        assert_eq!(
            (upstream.replicas, upstream.rate, upstream.errors),
            (Some((1.0, 2.0)), Some(10.0), 7.0)
        );
        assert_eq!(Some(state.sources[0].samples), Some(321.0));
        let storage = &state.storages[0];
        assert_eq!(
            (storage.used, storage.full_in),
            (Some(1_073_741_824.0), None)
        );
        let first = &state.repositories[0];
        assert_eq!(
            (first.name.as_str(), first.rate, first.total),
            ("team/app", Some(2.0), 31.0)
        );
        assert_eq!(state.codes.len(), 1);
        assert_eq!(
            TopState::of(&History::default(), SortBy::Rate),
            TopState::default()
        );
    }

    #[test]
    fn a_registry_that_runs_alone_has_its_own_families() {
        let mut history = History::default();
        for (at, count) in [(0, 10), (2, 30)] {
            let text = format!(
                "octoserve_registry_http_requests_total{{status=\"500\"}} {count}\n\
                 octoserve_registry_http_request_duration_seconds_bucket{{le=\"0.1\"}} {count}\n\
                 octoserve_registry_http_request_duration_seconds_bucket{{le=\"+Inf\"}} {count}\n\
                 octoserve_registry_upload_sessions 1\n"
            );
            history.push(Reading::parse(at, &text));
        }
        let state = TopState::of(&history, SortBy::Rate);
        assert_eq!((state.requests, state.failures), (Some(10.0), Some(10.0)));
        assert_eq!(state.latency.map(|all| all[0]), Some(0.05));
        assert_eq!(state.uploads, Some((1.0, 0.0)));
    }
}
