//! The accounting by itself: what is fed to exchanges, and what the families say then.

use http::{HeaderName, HeaderValue};
use registry::metrics::label::Status;

use super::*;

mod errors;
mod manifests;
mod model;
mod operations;
mod requests;
mod transfers;

const DIGEST: &str = "sha256:0af90af90af90af90af90af90af90af90af90af90af90af90af90af90af90af9";

fn recorder() -> Arc<Recorder> {
    Arc::new(Recorder::new(&Registry::new("octoserve_")))
}

/// The path of something of a repository whose name nests.
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

/// A request for a target, the query included.
fn ask(recorder: &Arc<Recorder>, method: &str, target: &str) -> Exchange {
    ask_with(recorder, method, target, &[])
}

fn ask_with(
    recorder: &Arc<Recorder>,
    method: &str,
    target: &str,
    fields: &[(&'static str, &str)],
) -> Exchange {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let request = Request {
        method,
        path,
        query,
        headers: &headers(fields),
    };
    Exchange::begin(recorder, &request)
}

impl Exchange {
    fn received(&mut self, body: &[u8]) -> &mut Self {
        self.request_body(body, true);
        self
    }

    fn answered(&mut self, status: u16, fields: &[(&'static str, &str)]) -> &mut Self {
        self.response_head(status, &headers(fields));
        self
    }

    /// The whole body of the response goes to the client, and the exchange ends.
    fn whole(&mut self, body: &[u8]) {
        self.response_body(body, true);
        self.sent(body.len() as u64);
        drop(self.finish(End::Whole));
    }

    /// The exchange ends with so much of the response sent.
    fn cut(&mut self, sent: u64, side: Side) {
        self.sent(sent);
        let status = match side {
            Side::Client => CLIENT_CLOSED_REQUEST,
            Side::Upstream => 502,
        };
        let side = Some(side);
        drop(self.finish(End::Broken { status, side }));
    }
}

/// A request with an answer of this status, in one go.
fn exchange(recorder: &Arc<Recorder>, method: &str, target: &str, status: u16) {
    ask(recorder, method, target)
        .received(b"")
        .answered(status, &[])
        .whole(b"");
}
