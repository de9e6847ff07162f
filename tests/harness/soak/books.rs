//! The clients' books: what the counters of all processes together must show.
//!
//! Where a client knows what the proxy did, the books have a number. Where it cannot know (it left
//! before the response, or the upstream died in the middle), they have bounds: how many bytes the proxy
//! may have read, or a request that was counted once, but under which status nobody saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::observation::{Bounds, Known, Observation};

/// A family without `octoserve_`, and the labels that are known.
pub(crate) type SeriesKey = (&'static str, Vec<(&'static str, String)>);

/// What the exposition must contain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// By all labels of a series, as far as the family is compared by them.
    pub(crate) series: BTreeMap<SeriesKey, Bounds>,
    /// Events of a series with these labels, whose other labels are not known.
    pub(crate) loose: BTreeMap<SeriesKey, Bounds>,
    /// How many requests there were.
    pub(crate) requests: u64,
    /// Of them, how many ended without a response.
    pub(crate) unanswered: u64,
}

/// The books of all clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    pub(crate) fn record(&self, seen: &Observation) {
        self.with(|books| books.record(seen));
    }

    /// Counts an event that is no request.
    pub(crate) fn count(&self, family: &'static str, labels: &[(&'static str, &str)]) {
        self.with(|books| books.add(family, labels, Bounds::exactly(1)));
    }

    pub(crate) fn copy(&self) -> Books {
        self.with(|books| books.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The result of an operation by its status, as the label of that name has it.
fn result(status: u16) -> &'static str {
    match status {
        ..400 => "ok",
        404 => "not_found",
        401 | 403 => "denied",
        400..500 => "client_error",
        _ => "server_error",
    }
}

/// The result of an operation, if it is known. A pull succeeds with the last byte.
fn ended(seen: &Observation, is_pull: bool) -> Option<&'static str> {
    let result = result(seen.status?);
    match (result, seen.received_whole) {
        ("ok", Known::No) if is_pull => Some("aborted"),
        ("ok", Known::Unknown) if is_pull => None,
        _ => Some(result),
    }
}

impl Books {
    fn record(&mut self, seen: &Observation) {
        self.requests += 1;
        let endpoint = seen.endpoint();
        let method = seen.method.as_str();
        let pair = [("endpoint", endpoint), ("method", method)];
        let once = Bounds::exactly(1);
        if let Some(status) = seen.status {
            let status = status.to_string();
            let labels = [pair[0], pair[1], ("status", &status)];
            self.add("http_requests_total", &labels, once);
            self.add("http_response_ttfb_seconds_count", &pair, once);
        } else {
            self.unanswered += 1;
            self.add_loose("http_requests_total", &pair, once);
            let maybe = Known::Unknown.once();
            self.add("http_response_ttfb_seconds_count", &pair, maybe);
        }
        self.add("http_request_duration_seconds_count", &pair, once);
        self.add("http_request_body_bytes_total", &pair, seen.sent);
        self.add("http_response_body_bytes_total", &pair, seen.received);
        self.sizes(seen, pair[0]);
        let purpose = purpose(seen);
        let client = [("client", seen.client()), ("operation", purpose)];
        self.add("client_requests_total", &client, once);
        self.credentials(seen);
        self.operations(seen);
        self.repository(seen);
        self.session(seen);
        self.aborted(seen);
        self.speed(seen);
        self.error(seen);
    }

    fn sizes(&mut self, seen: &Observation, endpoint: (&'static str, &str)) {
        let any = |bytes: Bounds| match (bytes.low, bytes.high) {
            (1.., _) => Known::Yes,
            (0, 0) => Known::No,
            _ => Known::Unknown,
        };
        for (family, bytes, whole) in [
            ("http_request_size_bytes_count", seen.sent, seen.sent_whole),
            (
                "http_response_size_bytes_count",
                seen.received,
                seen.received_whole,
            ),
        ] {
            self.add(family, &[endpoint], any(bytes).and(whole).once());
        }
    }

    fn credentials(&mut self, seen: &Observation) {
        // No client sends credentials.
        let labels = [("scheme", "none"), ("result", "ok")];
        let upstream_responded = match seen.status {
            None | Some(401 | 403) => Known::Unknown,
            Some(500..) => Known::No,
            Some(_) => Known::Yes,
        };
        self.add("auth_total", &labels, upstream_responded.once());
    }

    fn operations(&mut self, seen: &Observation) {
        let once = Bounds::exactly(1);
        let maybe = Known::Unknown.once();
        let method = seen.method.as_str();
        match (seen.endpoint(), method) {
            ("blob", _) => {
                let operation = match method {
                    "GET" => "pull",
                    "HEAD" => "head",
                    _ => "delete",
                };
                let ended = ended(seen, method == "GET");
                self.blob(operation, ended, once);
            }
            ("manifest", _) => self.manifest(seen),
            ("upload_start", "POST") if seen.asks("mount") => match seen.status {
                Some(202) => {
                    self.mounted("fallback", once);
                    self.blob("mount", Some("not_found"), once);
                }
                Some(status) if status < 300 => {
                    self.mounted("mounted", once);
                    self.blob("mount", Some("ok"), once);
                }
                Some(status) => {
                    self.mounted("error", once);
                    self.blob("mount", Some(result(status)), once);
                }
                None => {
                    self.add_loose("blob_mounts_total", &[], once);
                    self.blob("mount", None, once);
                }
            },
            ("upload_start", "POST") | ("upload_session", "PUT") => {
                let completes = method == "PUT" || seen.asks("digest");
                match seen.status {
                    // The session is open, or open still: the push goes on.
                    Some(202) => {}
                    Some(status) if completes => {
                        self.blob("push", Some(result(status)), once);
                    }
                    Some(status) if status >= 400 => self.blob("push", Some(result(status)), once),
                    Some(_) => {}
                    None => self.blob("push", None, maybe),
                }
            }
            _ => {}
        }
    }

    fn manifest(&mut self, seen: &Observation) {
        let operation = match seen.method.as_str() {
            "GET" => "pull",
            "HEAD" => "resolve",
            "PUT" => "push",
            _ => "delete",
        };
        let once = Bounds::exactly(1);
        let labels = [("operation", operation), ("reference", seen.reference())];
        let ended = ended(seen, operation == "pull");
        let kind = seen.kind();
        match ended {
            Some(result) => {
                let kind = if result == "ok" { kind } else { "other" };
                let labels = [labels[0], labels[1], ("kind", kind), ("result", result)];
                self.add("manifest_operations_total", &labels, once);
            }
            None => self.add_loose("manifest_operations_total", &labels, once),
        }
    }

    fn blob(&mut self, operation: &str, result: Option<&str>, count: Bounds) {
        let operation = ("operation", operation);
        match result {
            Some(result) => {
                let labels = [operation, ("result", result)];
                self.add("blob_operations_total", &labels, count);
            }
            None => self.add_loose("blob_operations_total", &[operation], count),
        }
    }

    /// Over all repositories: which of them has a label of its own, each process learns for itself.
    fn repository(&mut self, seen: &Observation) {
        let (endpoint, method) = (seen.endpoint(), seen.method.as_str());
        if matches!(endpoint, "base" | "catalog" | "other") {
            return;
        }
        for (direction, bytes) in [("upload", seen.sent), ("download", seen.received)] {
            let labels = [("direction", direction)];
            self.add("repository_bytes_total", &labels, bytes);
        }
        let family = "repository_operations_total";
        let is_pull = method == "GET" && matches!(endpoint, "blob" | "manifest");
        let ended = ended(seen, is_pull);
        let completes = seen.status == Some(201);
        let name = match (endpoint, method) {
            ("manifest", "GET") if seen.from_start && seen.kind() == "index" => "index_pull",
            ("manifest", "GET") if seen.from_start => "pull",
            ("manifest", "PUT") if seen.kind() == "index" => "index_push",
            ("manifest", "PUT") => "push",
            ("manifest" | "blob", "DELETE") => "delete",
            ("blob", "GET") if seen.from_start => "blob_pull",
            ("upload_start", _) if completes && seen.asks("mount") => "mount",
            ("upload_start", _) | ("upload_session", "PUT") if completes => "blob_push",
            _ => "other",
        };
        let labels = [("operation", name)];
        match (ended, seen.status) {
            (Some("ok"), _) => self.add(family, &labels, Bounds::exactly(1)),
            (Some(_), _) => {}
            (None, Some(_)) => self.add(family, &labels, Known::Unknown.once()),
            (None, None) => self.add_loose(family, &[], Known::Unknown.once()),
        }
    }

    fn mounted(&mut self, result: &str, count: Bounds) {
        self.add("blob_mounts_total", &[("result", result)], count);
    }

    fn session(&mut self, seen: &Observation) {
        let maybe = Known::Unknown.once();
        let once = Bounds::exactly(1);
        let mut event = |event, count| {
            self.add("upload_sessions_total", &[("event", event)], count);
        };
        match (seen.endpoint(), seen.method.as_str(), seen.status) {
            ("upload_start", _, Some(202)) if seen.has_location => event("started", once),
            ("upload_start", _, None) => event("started", maybe),
            ("upload_session", method, status) => {
                // Another process may have opened it.
                if status.is_none_or(|status| status < 300) {
                    event("unknown", maybe);
                }
                match (method, status) {
                    ("PUT", Some(201)) => event("completed", once),
                    ("DELETE", Some(200..300)) => event("cancelled", once),
                    ("PUT", None) => {
                        event("completed", maybe);
                        event("failed", maybe);
                    }
                    ("DELETE", None) => {
                        event("cancelled", maybe);
                        event("failed", maybe);
                    }
                    // Failed, if the process knows it.
                    (_, None | Some(400..500)) => event("failed", maybe),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn aborted(&mut self, seen: &Observation) {
        let endpoint = ("endpoint", seen.endpoint());
        let of_proxy = matches!(seen.status, Some(502..=504));
        let cut = match seen.status {
            Some(_) if !of_proxy => match seen.received_whole {
                Known::Yes => Known::No,
                Known::No => Known::Yes,
                Known::Unknown => Known::Unknown,
            },
            _ if seen.sent.high > 0 => match seen.sent_whole {
                Known::Yes => Known::No,
                Known::No | Known::Unknown => Known::Unknown,
            },
            _ => Known::No,
        };
        let family = "transfers_aborted_total";
        match cut {
            Known::No => {}
            Known::Yes if !seen.left => {
                self.add(family, &[endpoint, ("side", "upstream")], cut.once());
            }
            Known::Yes | Known::Unknown => self.add_loose(family, &[endpoint], cut.once()),
        }
    }

    fn speed(&mut self, seen: &Observation) {
        /// Smaller blobs show the latency, and not the speed.
        const FROM: u64 = 1 << 20;
        let carries = match seen.endpoint() {
            "upload_session" => matches!(seen.method.as_str(), "PUT" | "PATCH"),
            "upload_start" => seen.asks("digest"),
            _ => false,
        };
        let is_pull = seen.endpoint() == "blob" && seen.method == "GET";
        let (direction, bytes, whole) = if is_pull {
            ("download", seen.received, seen.received_whole)
        } else if carries {
            ("upload", seen.sent, seen.sent_whole)
        } else {
            return;
        };
        let has_status = match seen.status {
            Some(200) => Known::Yes,
            Some(status) => Known::certainly(!is_pull && (200..300).contains(&status)),
            None => Known::Unknown,
        };
        let large = match (bytes.low > FROM, bytes.high > FROM) {
            (true, _) => Known::Yes,
            (false, false) => Known::No,
            (false, true) => Known::Unknown,
        };
        let count = has_status.and(large).and(whole).once();
        let labels = [("direction", direction)];
        self.add("transfer_speed_bytes_per_second_count", &labels, count);
    }

    fn error(&mut self, seen: &Observation) {
        match (seen.status, seen.received_whole, seen.error_code()) {
            (Some(_), Known::Yes, Some(code)) => {
                self.add("oci_errors_total", &[("code", &code)], Bounds::exactly(1));
            }
            (None, _, _) => self.add_loose("oci_errors_total", &[], Known::Unknown.once()),
            (Some(400..), Known::Unknown | Known::No, _) if seen.method != "HEAD" => {
                self.add_loose("oci_errors_total", &[], Known::Unknown.once());
            }
            _ => {}
        }
    }

    fn add(&mut self, family: &'static str, labels: &[(&'static str, &str)], count: Bounds) {
        add(&mut self.series, family, labels, count);
    }

    fn add_loose(&mut self, family: &'static str, labels: &[(&'static str, &str)], count: Bounds) {
        add(&mut self.loose, family, labels, count);
    }
}

fn add(
    to: &mut BTreeMap<SeriesKey, Bounds>,
    family: &'static str,
    labels: &[(&'static str, &str)],
    count: Bounds,
) {
    let labels = labels
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let mut labels: Vec<_> = labels.collect();
    labels.sort_unstable();
    to.entry((family, labels)).or_default().add(count);
}

fn purpose(seen: &Observation) -> &'static str {
    match (seen.endpoint(), seen.method.as_str()) {
        ("blob" | "manifest", "GET") => "pull",
        ("manifest", "PUT") | ("upload_start", "POST") | ("upload_session", "PUT" | "PATCH") => {
            "push"
        }
        _ => "other",
    }
}
