//! The accounting by itself: events go into exchanges, and the metrics are checked.

use http::{HeaderName, HeaderValue};
use registry::metrics::label::{Client, Status};

use super::*;
use crate::metrics::Rules;
use crate::metrics::label::{AuthScheme, Transfer};

mod errors;
mod manifests;
mod model;
mod operations;
mod repositories;
mod requests;
mod sessions;
mod transfers;

const DIGEST: &str = "sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9";

fn recorder() -> Arc<Recorder> {
    recorder_on(&MetricsRegistry::new("octoserve_"))
}

/// A recorder that shows two repositories at most.
fn recorder_on(registry: &MetricsRegistry) -> Arc<Recorder> {
    let rules = Rules::new(2, Vec::new(), Vec::new(), Duration::from_hours(24));
    Arc::new(Recorder::new(registry, rules.unwrap()))
}

/// An exchange and its request.
struct Observed {
    stage: Stage,
    method: String,
    target: String,
}

/// What the exchange's type says, so that a test need not.
enum Stage {
    Awaiting(Exchange<Awaiting>),
    Responding(Exchange<Responding>),
    /// Between two of the others.
    Moved,
}

/// A path in a repository whose name has two components.
fn of_app(rest: &str) -> String {
    format!("/v2/team/app/{rest}")
}

fn blob() -> String {
    of_app(&format!("blobs/{DIGEST}"))
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        })
        .collect()
}

/// Begins an exchange for a target, which may have a query.
fn ask(recorder: &Arc<Recorder>, method: &str, target: &str) -> Observed {
    ask_with(recorder, method, target, &[])
}

fn ask_with(
    recorder: &Arc<Recorder>,
    method: &str,
    target: &str,
    fields: &[(&'static str, &str)],
) -> Observed {
    Observed {
        stage: Stage::Awaiting(Exchange::begin(
            recorder,
            &request(method, target, &headers(fields)),
        )),
        method: method.to_owned(),
        target: target.to_owned(),
    }
}

fn request<'a>(method: &'a str, target: &'a str, headers: &'a HeaderMap) -> Request<'a> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Request {
        method,
        path,
        query,
        headers,
    }
}

impl Observed {
    fn request_body(&mut self, piece: &[u8], last: bool) {
        match &mut self.stage {
            Stage::Awaiting(exchange) => exchange.request_body(piece, last),
            Stage::Responding(exchange) => exchange.request_body(piece, last),
            Stage::Moved => panic!("it has ended"),
        }
    }

    fn received(&mut self, body: &[u8]) -> &mut Self {
        self.request_body(body, true);
        self
    }

    fn awaiting(&mut self) -> Exchange<Awaiting> {
        match std::mem::replace(&mut self.stage, Stage::Moved) {
            Stage::Awaiting(exchange) => exchange,
            _ => panic!("its response has begun"),
        }
    }

    fn responding(&mut self) -> &mut Exchange<Responding> {
        match &mut self.stage {
            Stage::Responding(exchange) => exchange,
            _ => panic!("no response has begun"),
        }
    }

    fn responded(&mut self, status: u16, fields: &[(&'static str, &str)]) -> &mut Self {
        let (asked, exchange) = (HeaderMap::new(), self.awaiting());
        let request = request(&self.method, &self.target, &asked);
        let exchange = exchange.response_head(&request, status, &headers(fields));
        self.stage = Stage::Responding(exchange);
        self
    }

    fn proxy_response(&mut self, status: u16, code: ErrorCode, length: usize) {
        let exchange = self.awaiting().proxy_response(status, code, length);
        self.stage = Stage::Responding(exchange);
    }

    fn response_body(&mut self, piece: &[u8], last: bool) {
        self.responding().response_body(piece, last);
    }

    fn sent(&mut self, total: u64) {
        self.responding().sent(total);
    }

    fn end(&mut self, end: End) -> EndedExchange {
        match std::mem::replace(&mut self.stage, Stage::Moved) {
            Stage::Awaiting(exchange) => exchange.end(end),
            Stage::Responding(exchange) => exchange.end(end),
            Stage::Moved => panic!("it has ended"),
        }
    }

    fn finish(&mut self, end: End) -> Option<DeferredCount> {
        self.end(end).deferred
    }

    /// Sends the whole body of the response and ends the exchange.
    fn whole(&mut self, body: &[u8]) {
        self.response_body(body, true);
        self.sent(body.len() as u64);
        drop(self.finish(End::Complete));
    }

    /// Aborts the exchange after `sent` bytes of the response's body.
    fn cut(&mut self, sent: u64, side: Side) {
        if sent > 0 {
            self.sent(sent);
        }
        let status = match side {
            Side::Client => CLIENT_CLOSED_REQUEST,
            Side::Upstream => 502,
        };
        let side = Some(side);
        drop(self.finish(End::Aborted { status, side }));
    }
}

/// A whole exchange with a response of this status.
fn exchange(recorder: &Arc<Recorder>, method: &str, target: &str, status: u16) {
    ask(recorder, method, target)
        .received(b"")
        .responded(status, &[])
        .whole(b"");
}

/// Far longer than any step of an exchange takes here.
const MOMENT: Duration = Duration::from_millis(20);

fn pass_a_moment() {
    let began = Instant::now();
    while began.elapsed() < MOMENT {
        std::thread::yield_now();
    }
}

/// The sum of a histogram's observations.
fn sum(registry: &MetricsRegistry, family: &str, labels: &str) -> f64 {
    let mut text = String::new();
    registry.gather().write_text(&mut text);
    let series = format!("octoserve_{family}_sum{{{labels}}} ");
    let sum = text.lines().find_map(|line| line.strip_prefix(&series));
    sum.unwrap().parse().unwrap()
}
