//! What is wrong, in words.

use super::escaped::escaped;
use super::history::History;
use super::page::WAITS;
use super::reading::{Reading, label};
use crate::quantity;

/// How soon a certificate that ends is worth a word, in seconds.
const SOON: f64 = 14.0 * 86_400.0;

/// For so many seconds after its last success a source is slow, and not gone.
const SLOW_FOR: f64 = 20.0;

/// How soon a disk that fills is.
const FULL_SOON: f64 = 86_400.0;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// Whether clients notice.
    pub(super) severity: Severity,
    /// What is wrong.
    pub(super) text: String,
}

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Clients notice, or will in a day.
    Critical,
    /// Somebody should look at it.
    Warning,
}

/// All that is wrong, the worst first.
pub(super) fn problems(history: &History) -> Vec<Problem> {
    let Some(now) = history.latest() else {
        return Vec::new();
    };
    let mut found = Found(Vec::new());
    upstreams(now, &mut found);
    sources(now, &mut found);
    if now.sum("config_last_reload_successful") == Some(0.0) {
        found.warn("the last reload of the configuration was refused; the log says why".to_owned());
    }
    certificates(now, &mut found);
    disks(history, now, &mut found);
    errors(history, &mut found);
    if now.sum("panics_total").is_some_and(|panics| panics > 0.0) {
        found.warn("the program has panicked; the log says where".to_owned());
    }
    let overflows = history.rate("repository_label_overflow_total", |_| true);
    if overflows.is_some_and(|rate| rate > 0.0) {
        let text = "repositories are counted as _other; raise metrics.repositories.limit";
        found.warn(text.to_owned());
    }
    if now.is_cut {
        found.warn("the page has more series than are read here".to_owned());
    }
    found.0.sort();
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, severity: Severity, text: String) {
        self.0.push(Problem { severity, text });
    }

    fn critical(&mut self, text: String) {
        self.add(Severity::Critical, text);
    }

    fn warn(&mut self, text: String) {
        self.add(Severity::Warning, text);
    }
}

fn sources(now: &Reading, found: &mut Found) {
    let succeeded = now.by("aggregate_last_success_timestamp_seconds", "source");
    let took = now.by("aggregate_duration_seconds", "source");
    for (source, _) in now
        .by("aggregate_up", "source")
        .into_iter()
        .filter(|(_, up)| *up == 0.0)
    {
        let last = succeeded.get(&source).copied().unwrap_or_default();
        let took = took.get(&source).copied().unwrap_or_default();
        let source = escaped(&source);
        // It responds to those who wait longer.
        found.warn(if now.wall - last < SLOW_FOR && took > WAITS / 2.0 {
            let took = quantity::time(took);
            format!("source {source}: its metrics take {took}, longer than is waited for here")
        } else {
            format!("source {source}: its metrics cannot be read")
        });
    }
}

fn upstreams(now: &Reading, found: &mut Found) {
    let healthy = now.by("upstream_replicas_healthy", "upstream");
    for (name, all) in now.by("upstream_replicas", "upstream") {
        let healthy = healthy.get(&name).copied().unwrap_or_default();
        let name = escaped(&name);
        if healthy == 0.0 && all > 0.0 {
            let which = if all < 2.0 {
                "its replica"
            } else {
                "every replica"
            };
            found.critical(format!("upstream {name}: {which} is down"));
        } else if healthy < all {
            let down = all - healthy;
            let are = if down < 2.0 { "is" } else { "are" };
            found.warn(format!(
                "upstream {name}: {down} of {all} replicas {are} down"
            ));
        }
    }
    for (name, waiting) in now.by("upstream_queue_length", "upstream") {
        if waiting > 0.0 {
            let name = escaped(&name);
            found.warn(format!(
                "upstream {name}: {waiting} requests wait for a replica"
            ));
        }
    }
}

fn certificates(now: &Reading, found: &mut Found) {
    for (labels, at) in now.all("tls_certificate_expiry_timestamp_seconds") {
        let name = escaped(label(labels, "name").unwrap_or_default());
        let left = at - now.wall;
        if left <= 0.0 {
            found.critical(format!("certificate {name} has expired"));
        } else if left < SOON {
            found.warn(format!(
                "certificate {name} expires in {}",
                quantity::time(left)
            ));
        }
    }
}

fn disks(history: &History, now: &Reading, found: &mut Found) {
    let sizes = now.by("storage_filesystem_size_bytes", "source");
    for (source, left) in now.by("storage_filesystem_avail_bytes", "source") {
        let size = sizes.get(&source).copied().unwrap_or_default();
        let of = if source.is_empty() {
            String::new()
        } else {
            format!(" of {}", escaped(&source))
        };
        let free = quantity::bytes(left);
        if let Some(seconds) = history
            .full_in(&source)
            .filter(|seconds| *seconds < FULL_SOON)
        {
            let full = quantity::time(seconds);
            found.critical(format!(
                "the disk{of} is full in {full} at this rate; {free} are free"
            ));
        } else if left < size / 20.0 {
            found.critical(format!("the disk{of} is nearly full: {free} are free"));
        } else if left < size / 10.0 {
            found.warn(format!("the disk{of} fills: {free} are free"));
        }
    }
}

fn errors(history: &History, found: &mut Found) {
    let is_error = |labels: &super::reading::SeriesLabels| {
        label(labels, "status").is_some_and(|status| status.starts_with('5'))
            && label(labels, "source").is_none()
    };
    for name in ["http_requests_total", "registry_http_requests_total"] {
        let all = history.rate(name, |labels| label(labels, "source").is_none());
        let failed = history.rate(name, is_error);
        if let (Some(all), Some(failed)) = (all, failed)
            && failed > 0.0
        {
            let share = quantity::count(100.0 * failed / all);
            let text = format!("{share}% of the requests fail with a 5xx status");
            if failed * 20.0 >= all {
                found.critical(text);
            } else {
                found.warn(text);
            }
        }
    }
    let rejected = history.rate("connections_rejected_total", |_| true);
    if rejected.is_some_and(|rate| rate > 0.0) {
        found.warn("connections of clients are rejected".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pages: &[&str]) -> Vec<String> {
        let mut history = History::default();
        for (at, page) in (0..).zip(pages) {
            history.push(Reading::parse(60 * at, page));
        }
        let found = problems(&history).into_iter();
        let word = |problem: Problem| format!("{:?}: {}", problem.severity, problem.text);
        found.map(word).collect()
    }

    #[test]
    fn nothing_is_wrong_where_all_is_well() {
        let page = "octoserve_upstream_replicas{upstream=\"main\"} 2\n\
                    octoserve_upstream_replicas_healthy{upstream=\"main\"} 2\n\
                    octoserve_upstream_queue_length{upstream=\"main\"} 0\n\
                    octoserve_aggregate_up{source=\"a\"} 1\n\
                    octoserve_config_last_reload_successful 1\n\
                    octoserve_panics_total 0\n\
                    octoserve_tls_certificate_expiry_timestamp_seconds{name=\"c\"} 9000000\n\
                    octoserve_storage_filesystem_avail_bytes 500\n\
                    octoserve_storage_filesystem_size_bytes 1000\n\
                    octoserve_http_requests_total{status=\"200\"} 5\n";
        assert_eq!(of(&[page, page]), [""; 0]);
        assert_eq!(of(&[]), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_said_and_the_worst_comes_first() {
        for (pages, said) in [
            (
                &["octoserve_upstream_replicas{upstream=\"a\"} 1\n\
                   octoserve_upstream_replicas_healthy{upstream=\"a\"} 0\n\
                   octoserve_upstream_replicas{upstream=\"b\\n\"} 3\n\
                   octoserve_upstream_replicas_healthy{upstream=\"b\\n\"} 1\n\
                   octoserve_upstream_queue_length{upstream=\"a\"} 4\n"][..],
                &[
                    "Critical: upstream a: its replica is down",
                    "Warning: upstream a: 4 requests wait for a replica",
                    "Warning: upstream b\\u{a}: 2 of 3 replicas are down",
                ][..],
            ),
            (
                &[
                    "octoserve_aggregate_up{source=\"a\"} 0\noctoserve_config_last_reload_successful 0\n\
                   octoserve_panics_total 1\n",
                ],
                &[
                    "Warning: source a: its metrics cannot be read",
                    "Warning: the last reload of the configuration was refused; the log says why",
                    "Warning: the program has panicked; the log says where",
                ],
            ),
            (
                &[
                    "octoserve_aggregate_up{source=\"a\"} 0\noctoserve_aggregate_duration_seconds{source=\"a\"} 4.5\n\
                   octoserve_aggregate_last_success_timestamp_seconds{source=\"a\"} 999995\n",
                ],
                &["Warning: source a: its metrics take 4.5 s, longer than is waited for here"],
            ),
            (
                &[
                    "octoserve_tls_certificate_expiry_timestamp_seconds{name=\"old\"} 999999\n\
                   octoserve_tls_certificate_expiry_timestamp_seconds{name=\"soon\"} 1259200\n",
                ],
                &[
                    "Critical: certificate old has expired",
                    "Warning: certificate soon expires in 3 days",
                ],
            ),
            (
                &[
                    "octoserve_storage_filesystem_avail_bytes{source=\"r\"} 1000\n\
                     octoserve_storage_filesystem_size_bytes{source=\"r\"} 1000\n",
                    "octoserve_storage_filesystem_avail_bytes{source=\"r\"} 900\n\
                     octoserve_storage_filesystem_size_bytes{source=\"r\"} 1000\n",
                ],
                &["Critical: the disk of r is full in 9 min at this rate; 900 B are free"],
            ),
            (
                &["octoserve_storage_filesystem_avail_bytes 49\n\
                   octoserve_storage_filesystem_size_bytes 1000\n"],
                &["Critical: the disk is nearly full: 49 B are free"],
            ),
            (
                &["octoserve_storage_filesystem_avail_bytes 99\n\
                   octoserve_storage_filesystem_size_bytes 1000\n"],
                &["Warning: the disk fills: 99 B are free"],
            ),
            (
                &[
                    "octoserve_http_requests_total{status=\"200\"} 0\n\
                     octoserve_connections_rejected_total 0\n\
                     octoserve_repository_label_overflow_total 0\n",
                    "octoserve_http_requests_total{status=\"200\"} 90\n\
                     octoserve_http_requests_total{status=\"502\"} 10\n\
                     octoserve_connections_rejected_total 1\n\
                     octoserve_repository_label_overflow_total 1\n",
                ],
                &[
                    "Critical: 10% of the requests fail with a 5xx status",
                    "Warning: connections of clients are rejected",
                    "Warning: repositories are counted as _other; raise metrics.repositories.limit",
                ],
            ),
        ] {
            assert_eq!(of(pages), said);
        }
    }
}
