//! Random sequences of operations, aborts and failures, many in flight at a time. A model that shares
//! no code with the recording must predict every counter of the exposition.

use std::collections::BTreeMap;

use proptest::prelude::*;
use service::exposition::MetricType;

use super::manifests::{IMAGE, SIGNATURE};
use super::*;

/// Everything that is counted, by its series.
type Counts = BTreeMap<String, u64>;

/// A request, and the labels that it gets.
#[derive(Clone, Copy, Debug)]
struct ScriptedRequest {
    method: &'static str,
    target: &'static str,
    endpoint: &'static str,
    method_label: &'static str,
    operation: &'static str,
    purpose: &'static str,
}

const fn asked(
    method: &'static str,
    target: &'static str,
    endpoint: &'static str,
    operation: &'static str,
    purpose: &'static str,
) -> ScriptedRequest {
    ScriptedRequest {
        method,
        target,
        endpoint,
        method_label: method,
        operation,
        purpose,
    }
}

const BLOB: &str =
    "/v2/a/b/blobs/sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9";
const BY_DIGEST: &str =
    "/v2/a/b/manifests/sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9";

const ASKED: [ScriptedRequest; 22] = [
    asked("GET", "/v2/", "base", "", "other"),
    asked("GET", "/v2/_catalog?n=1", "catalog", "", "other"),
    asked("GET", "/v2/a/b/tags/list", "tags", "", "other"),
    asked("GET", "/v2/a/b/manifests/1", "manifest", "pull tag", "pull"),
    asked(
        "HEAD",
        "/v2/a/b/manifests/1",
        "manifest",
        "resolve tag",
        "other",
    ),
    asked("PUT", "/v2/a/b/manifests/1", "manifest", "push tag", "push"),
    asked(
        "DELETE",
        "/v2/a/b/manifests/1",
        "manifest",
        "delete tag",
        "other",
    ),
    asked("GET", BY_DIGEST, "manifest", "pull digest", "pull"),
    asked("HEAD", BY_DIGEST, "manifest", "resolve digest", "other"),
    asked("PUT", BY_DIGEST, "manifest", "push digest", "push"),
    asked("GET", BLOB, "blob", "pull", "pull"),
    asked("HEAD", BLOB, "blob", "head", "other"),
    asked("DELETE", BLOB, "blob", "delete", "other"),
    asked(
        "POST",
        "/v2/a/b/blobs/uploads/",
        "upload_start",
        "start",
        "push",
    ),
    asked(
        "POST",
        "/v2/a/b/blobs/uploads/?digest=x",
        "upload_start",
        "monolithic",
        "push",
    ),
    asked(
        "POST",
        "/v2/a/b/blobs/uploads/?mount=x&from=c",
        "upload_start",
        "mount",
        "push",
    ),
    asked(
        "GET",
        "/v2/a/b/blobs/uploads/1/2",
        "upload_session",
        "",
        "other",
    ),
    asked(
        "PATCH",
        "/v2/a/b/blobs/uploads/1/2",
        "upload_session",
        "",
        "push",
    ),
    asked(
        "PUT",
        "/v2/a/b/blobs/uploads/1/2?digest=x",
        "upload_session",
        "commit",
        "push",
    ),
    asked(
        "DELETE",
        "/v2/a/b/blobs/uploads/1/2",
        "upload_session",
        "",
        "other",
    ),
    asked("PATCH", "/v2/a/b/manifests/1", "other", "", "other"),
    ScriptedRequest {
        method: "BREW",
        target: "/v2/a/b/tags/list",
        endpoint: "other",
        method_label: "OTHER",
        operation: "",
        purpose: "other",
    },
];

/// What happens in one exchange.
#[derive(Clone, Debug)]
struct Script {
    asked: ScriptedRequest,
    authorization: Option<(&'static str, &'static str)>,
    agent: Option<(&'static str, &'static str)>,
    /// The media type of the request's body.
    pushed: &'static str,
    /// The pieces of the request's body, and whether its end comes.
    request: Vec<usize>,
    request_ends: bool,
    response: ScriptedResponse,
    end: Ending,
}

#[derive(Clone, Debug)]
enum ScriptedResponse {
    None,
    Upstream {
        status: u16,
        /// The media type, the body, and the error code in it.
        body: (&'static str, &'static str, Option<&'static str>),
        range: &'static str,
        is_empty: bool,
        ends: bool,
        unsent: u64,
    },
    Proxy {
        status: u16,
        unsent: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Whole,
    Broken(u16, Side),
    Dropped,
}

const JSON: &str = "application/json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn script() -> impl Strategy<Value = Script> {
    let authorization = prop_oneof![
        Just(None),
        Just(Some(("Basic dTpw", "basic"))),
        Just(Some(("bearer x", "bearer"))),
        Just(Some(("Negotiate x", "other"))),
    ];
    let agent = prop_oneof![
        Just(None),
        Just(Some(("docker/27.3.1 go/go1.22.7", "docker"))),
        Just(Some(("skopeo/1.9.3", "containers"))),
    ];
    let status = proptest::sample::select(vec![
        200, 201, 202, 204, 206, 302, 304, 307, 400, 401, 403, 404, 408, 416, 418, 429, 500, 503,
    ]);
    let body = proptest::sample::select(vec![
        (JSON, r#"{"errors":[{"code":"DENIED"}]}"#, Some("DENIED")),
        (
            JSON,
            r#"{"errors":[{"code":"OWN","detail":{}}]}"#,
            Some("other"),
        ),
        (JSON, "{}", None),
        (IMAGE, "no manifest at all", None),
        (IMAGE, SIGNATURE, None),
        (INDEX, "no manifest at all", None),
        ("text/plain", r#"{"errors":[{"code":"DENIED"}]}"#, None),
    ]);
    let unsent = prop_oneof![3 => Just(0), 1 => 1..20_u64];
    let range = proptest::sample::select(vec!["bytes 0-9/99", "bytes 10-98/99", ""]);
    let upstream = (
        status,
        body,
        range,
        any::<bool>(),
        any::<bool>(),
        unsent.clone(),
    )
        .prop_map(
            |(status, body, range, is_empty, ends, unsent)| ScriptedResponse::Upstream {
                status,
                body,
                range,
                is_empty,
                ends,
                unsent,
            },
        );
    let proxy = (proptest::sample::select(vec![400, 408, 502, 504]), unsent)
        .prop_map(|(status, unsent)| ScriptedResponse::Proxy { status, unsent });
    let response = prop_oneof![1 => Just(ScriptedResponse::None), 6 => upstream, 1 => proxy];
    let end = prop_oneof![
        4 => Just(Ending::Whole),
        2 => Just(Ending::Broken(499, Side::Client)),
        1 => Just(Ending::Broken(502, Side::Upstream)),
        1 => Just(Ending::Dropped),
    ];
    (
        proptest::sample::select(ASKED.to_vec()),
        authorization,
        agent,
        proptest::sample::select(vec![IMAGE, INDEX]),
        proptest::collection::vec(0..3000_usize, 0..3),
        any::<bool>(),
        response,
        end,
    )
        .prop_map(
            |(asked, authorization, agent, pushed, request, request_ends, response, end)| Script {
                asked,
                authorization,
                agent,
                pushed,
                request,
                request_ends,
                response,
                end,
            },
        )
}

impl Script {
    fn begin(&self, recorder: &Arc<Recorder>) -> Observed {
        let mut fields = vec![("content-type", self.pushed)];
        fields.extend(
            self.authorization
                .map(|(value, _)| ("authorization", value)),
        );
        fields.extend(self.agent.map(|(value, _)| ("user-agent", value)));
        ask_with(recorder, self.asked.method, self.asked.target, &fields)
    }

    fn send(&self, exchange: &mut Observed) {
        for &bytes in &self.request {
            exchange.request_body(&vec![b'x'; bytes], false);
        }
        if self.request_ends {
            exchange.request_body(b"", true);
        }
    }

    /// Whether the response has no body.
    fn has_no_body(&self) -> bool {
        let status = match self.response {
            ScriptedResponse::Upstream { status, .. } => status,
            ScriptedResponse::None | ScriptedResponse::Proxy { .. } => 0,
        };
        self.asked.method == "HEAD" || matches!(status, 204 | 304)
    }

    /// How many bytes of the response's body arrive, and how many are sent.
    fn response_bytes(&self) -> (u64, u64) {
        let (bytes, unsent) = match self.response {
            ScriptedResponse::None | ScriptedResponse::Upstream { is_empty: true, .. } => (0, 0),
            ScriptedResponse::Upstream { .. } | ScriptedResponse::Proxy { .. }
                if self.has_no_body() =>
            {
                (0, 0)
            }
            ScriptedResponse::Upstream {
                body: (_, text, _),
                unsent,
                ..
            } => (text.len() as u64, unsent),
            ScriptedResponse::Proxy { unsent, .. } => (30, unsent),
        };
        (bytes, bytes.saturating_sub(unsent))
    }

    fn respond(&self, exchange: &mut Observed) {
        let (bytes, _) = self.response_bytes();
        match self.response {
            ScriptedResponse::None => {}
            ScriptedResponse::Upstream {
                status,
                body: (media_type, text, _),
                range,
                ends,
                ..
            } => {
                let fields = [("content-type", media_type), ("content-range", range)];
                exchange.responded(status, &fields);
                if bytes > 0 {
                    let (start, rest) = text.as_bytes().split_at(text.len() / 2);
                    exchange.response_body(start, false);
                    exchange.response_body(rest, ends);
                } else if ends && !self.has_no_body() {
                    exchange.response_body(b"", true);
                }
            }
            ScriptedResponse::Proxy { status, .. } => {
                let length = usize::try_from(bytes).unwrap();
                exchange.proxy_response(status, ErrorCode::Unavailable, length);
            }
        }
    }

    fn end(&self, mut exchange: Observed) {
        if !matches!(self.response, ScriptedResponse::None) {
            exchange.sent(self.response_bytes().1);
        }
        let end = match self.end {
            Ending::Whole => End::Complete,
            Ending::Broken(status, side) => End::Aborted {
                status,
                side: Some(side),
            },
            Ending::Dropped => return,
        };
        drop(exchange.finish(end));
    }

    /// Adds what must be counted. `known` says whether the repository was shown when the request
    /// began; returns whether it is shown afterwards.
    fn count(&self, known: bool, counts: &mut Counts) -> bool {
        let ScriptedRequest {
            endpoint,
            method_label: method,
            operation,
            ..
        } = self.asked;
        let pair = format!("endpoint=\"{endpoint}\",method=\"{method}\"");
        let mut add = |family: &str, labels: String, count: u64| {
            if count > 0 {
                *counts.entry(format!("{family}{{{labels}}}")).or_default() += count;
            }
        };
        let (seen, sent) = self.response_bytes();
        let head = match self.response {
            ScriptedResponse::None => None,
            ScriptedResponse::Upstream { status, .. } | ScriptedResponse::Proxy { status, .. } => {
                Some(status)
            }
        };
        let from_upstream = matches!(self.response, ScriptedResponse::Upstream { .. });
        let ended = match self.response {
            ScriptedResponse::None => false,
            ScriptedResponse::Upstream { ends, .. } => ends || self.has_no_body(),
            ScriptedResponse::Proxy { .. } => true,
        };
        let whole = matches!(self.end, Ending::Whole) || (ended && sent == seen);
        let status = head.unwrap_or(match self.end {
            Ending::Whole => 499,
            Ending::Broken(status, _) => status,
            Ending::Dropped => 500,
        });
        let label = if status == 418 {
            "other".to_owned()
        } else {
            status.to_string()
        };
        let received: usize = self.request.iter().sum();
        let received = received as u64;

        add(
            "http_requests_total",
            format!("{pair},status=\"{label}\""),
            1,
        );
        add("http_request_duration_seconds", pair.clone(), 1);
        let responses = u64::from(head.is_some());
        add("http_response_ttfb_seconds", pair.clone(), responses);
        add("http_request_body_bytes_total", pair.clone(), received);
        add("http_response_body_bytes_total", pair, sent);
        let at = format!("endpoint=\"{endpoint}\"");
        let arrived = self.request_ends && received > 0;
        add("http_request_size_bytes", at.clone(), u64::from(arrived));
        let left = whole && sent > 0;
        add("http_response_size_bytes", at.clone(), u64::from(left));

        let client = self.agent.map_or("other", |(_, client)| client);
        let purpose = self.asked.purpose;
        let labels = format!("client=\"{client}\",operation=\"{purpose}\"");
        add("client_requests_total", labels, 1);
        let scheme = self.authorization.map_or("none", |(_, scheme)| scheme);
        let result = match status {
            401 if scheme == "none" => "challenge",
            401 => "unauthorized",
            403 => "forbidden",
            _ => "ok",
        };
        let labels = format!("result=\"{result}\",scheme=\"{scheme}\"");
        let judged = from_upstream && status < 500;
        add("auth_total", labels, u64::from(judged));
        let redirected = from_upstream && matches!(status, 302 | 307);
        add("redirects_total", at.clone(), u64::from(redirected));

        let code = match self.response {
            ScriptedResponse::Upstream {
                body: (_, _, code), ..
            } if status >= 400 && seen > 0 => code,
            ScriptedResponse::Proxy { .. } if seen > 0 => Some("UNAVAILABLE"),
            _ => None,
        };
        if let Some(code) = code.filter(|_| whole) {
            add("oci_errors_total", format!("code=\"{code}\""), 1);
        }
        if let Ending::Broken(_, side) = self.end {
            let upload_cut = received > 0 && !self.request_ends;
            let cut = if from_upstream { !whole } else { upload_cut };
            let side = match side {
                Side::Client => "client",
                Side::Upstream => "upstream",
            };
            add(
                "transfers_aborted_total",
                format!("{at},side=\"{side}\""),
                u64::from(cut),
            );
        }

        let done = match status {
            401 | 403 => "denied",
            404 => "not_found",
            499 => "aborted",
            400..=499 => "client_error",
            500.. => "server_error",
            _ => "ok",
        };
        let read = if done == "ok" && !whole {
            "aborted"
        } else {
            done
        };
        let on_blob = match operation {
            "pull" => Some(("pull", read)),
            "head" | "delete" => Some((operation, done)),
            "monolithic" | "commit" if status != 202 => Some(("push", done)),
            "start" if done != "ok" => Some(("push", done)),
            "mount" if status == 202 => Some(("mount", "not_found")),
            "mount" => Some(("mount", done)),
            _ => None,
        };
        if let Some((operation, result)) = on_blob {
            let labels = format!("operation=\"{operation}\",result=\"{result}\"");
            add("blob_operations_total", labels, 1);
        }
        if operation == "mount" {
            let result = match status {
                202 => "fallback",
                200..300 => "mounted",
                _ => "error",
            };
            add("blob_mounts_total", format!("result=\"{result}\""), 1);
        }
        let mut kind = "other";
        if let Some((operation, reference)) = operation.split_once(' ') {
            let result = if operation == "pull" { read } else { done };
            let (media_type, text) = match self.response {
                _ if operation == "push" => (self.pushed, ""),
                ScriptedResponse::Upstream {
                    body: (media_type, text, _),
                    ..
                } => (media_type, text),
                _ => ("", ""),
            };
            let has_body = operation == "pull" && status == 200 && seen > 0;
            if result == "ok" && operation != "delete" {
                kind = match media_type {
                    IMAGE if has_body && text == SIGNATURE => "signature",
                    IMAGE => "image",
                    INDEX => "index",
                    _ => "other",
                };
            }
            add(
                "manifest_operations_total",
                format!(
                    "kind=\"{kind}\",operation=\"{operation}\",reference=\"{reference}\",\
                     result=\"{result}\""
                ),
                1,
            );
        }

        let succeeded = (200..300).contains(&status) && from_upstream;
        let proves = matches!(
            operation,
            "pull tag"
                | "pull digest"
                | "push tag"
                | "push digest"
                | "resolve tag"
                | "monolithic"
                | "commit"
                | "mount"
        );
        let shown = known || succeeded && status != 202 && proves;
        if self.asked.target.starts_with("/v2/a/b/") {
            let name = if shown { "a/b" } else { "_other" };
            let repository = format!("repository=\"{name}\"");
            for (direction, bytes) in [("upload", received), ("download", sent)] {
                let labels = format!("direction=\"{direction}\",{repository}");
                add("repository_bytes_total", labels, bytes);
            }
            let from_start = match self.response {
                ScriptedResponse::Upstream { range, .. } if status == 206 => {
                    range.starts_with("bytes 0-")
                }
                _ => status == 200,
            };
            let is_done = (200..300).contains(&status) && status != 202;
            let on_repository = match (operation.split(' ').next(), kind) {
                (Some("pull" | "push"), "signature") => "other",
                (Some("pull"), "index") if status == 200 => "index_pull",
                (Some("pull"), _) if endpoint == "blob" && from_start => "blob_pull",
                (Some("pull"), _) if endpoint == "manifest" && status == 200 => "pull",
                (Some("push"), "index") if status < 300 => "index_push",
                (Some("push"), _) if status < 300 => "push",
                (Some("delete"), _) if status < 300 => "delete",
                (Some("monolithic" | "commit"), _) if is_done => "blob_push",
                (Some("mount"), _) if is_done => "mount",
                _ => "other",
            };
            let is_pull = operation.starts_with("pull");
            let result = if is_pull { read } else { done };
            if result == "ok" {
                let labels = format!("operation=\"{on_repository}\",{repository}");
                add("repository_operations_total", labels, 1);
                add(
                    "repository_label_overflow_total",
                    String::new(),
                    u64::from(!shown),
                );
            }
        }
        shown
    }
}

/// Every counter and every histogram's count that is not 0. Checks that the gauges are all 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, and small ones"
)]
fn counted(registry: &MetricsRegistry) -> Counts {
    let mut counts = Counts::new();
    let exposition = registry.gather();
    for family in exposition.families() {
        let name = family.name();
        for sample in family.samples() {
            if name.contains("_in_flight") {
                assert_eq!(sample.value() as i64, 0, "{name}");
            }
            // Sessions have tests of their own.
            if family.kind() == MetricType::Gauge || name.contains("_upload_session") {
                continue;
            }
            let is_count =
                family.kind() == MetricType::Counter || sample.name().ends_with("_count");
            if !is_count || sample.value() == 0.0 {
                continue;
            }
            let mut labels: Vec<_> = sample
                .labels()
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            labels.sort();
            let name = name.trim_start_matches("octoserve_");
            let series = format!("{name}{{{}}}", labels.join(","));
            counts.insert(series, sample.value() as u64);
        }
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_counter_is_what_the_model_says(
        waves in proptest::collection::vec(proptest::collection::vec(script(), 1..8), 1..4)
    ) {
        let registry = MetricsRegistry::new("octoserve_");
        let recorder = recorder_on(&registry);
        let mut model = Counts::new();
        let mut shown = false;
        for scripts in waves {
            // Each step of all exchanges comes before the next step of any.
            let mut exchanges: Vec<_> =
                scripts.iter().map(|script| script.begin(&recorder)).collect();
            for (script, exchange) in scripts.iter().zip(&mut exchanges) {
                script.send(exchange);
            }
            let in_flight = Endpoint::ALL.iter();
            let in_flight = in_flight.map(|&e| recorder.metrics.http.in_flight.value(e));
            let begun = scripts.len() as f64;
            prop_assert!((in_flight.sum::<f64>() - begun).abs() < 0.5);
            for (script, exchange) in scripts.iter().zip(&mut exchanges) {
                script.respond(exchange);
            }
            let known = shown;
            for (script, exchange) in scripts.iter().zip(exchanges) {
                script.end(exchange);
                shown |= script.count(known, &mut model);
            }
        }
        prop_assert_eq!(counted(&registry), model);
    }
}
