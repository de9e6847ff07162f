//! Upload sessions across their requests.

use registry::metrics::label::Status;
use service::metrics::Label as _;

use super::*;
use crate::metrics::SessionEvent;

/// How many sessions are open, and the events so far: started, completed, cancelled, failed,
/// expired, unknown.
#[expect(clippy::cast_possible_truncation, reason = "counts, and small ones")]
fn sessions(registry: &MetricsRegistry) -> (i64, [i64; SessionEvent::ALL.len()]) {
    let exposition = registry.gather();
    let sum = |family: &str, event: Option<&str>| {
        let family = exposition.family(family).unwrap();
        let samples = family.samples();
        samples
            .filter(|sample| event.is_none_or(|event| sample.label("event").unwrap() == event))
            .map(|sample| sample.value() as i64)
            .sum()
    };
    let events = std::array::from_fn(|index| {
        let event = SessionEvent::ALL[index].value();
        sum("octoserve_upload_sessions_total", Some(event))
    });
    (sum("octoserve_upload_sessions_active", None), events)
}

fn start(recorder: &Arc<Recorder>, location: &str) {
    ask(recorder, "POST", &of_app("blobs/uploads/"))
        .received(b"")
        .responded(202, &[("location", location)])
        .whole(b"");
}

fn resume(recorder: &Arc<Recorder>, method: &str, target: &str, status: u16, location: &str) {
    ask(recorder, method, target)
        .received(b"part")
        .responded(status, &[("location", location)])
        .whole(b"");
}

#[test]
fn a_session_is_tracked_from_its_start_to_its_end() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let location = of_app("blobs/uploads/1");
    start(&recorder, &location);
    assert_eq!(sessions(&registry), (1, [1, 0, 0, 0, 0, 0]));
    resume(&recorder, "PATCH", &location, 202, &location);
    resume(
        &recorder,
        "PUT",
        &format!("{location}?digest=x"),
        201,
        &blob(),
    );
    assert_eq!(sessions(&registry), (0, [1, 1, 0, 0, 0, 0]));
    start(&recorder, &location);
    resume(&recorder, "DELETE", &location, 204, "");
    assert_eq!(sessions(&registry), (0, [2, 1, 1, 0, 0, 0]));
}

#[test]
fn a_failed_commit_never_turns_the_gauge_of_sessions_negative() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let location = of_app("blobs/uploads/1");
    let commit = format!("{location}?digest=x");
    start(&recorder, &location);
    for _ in 0..3 {
        resume(&recorder, "PUT", &commit, 400, "");
    }
    resume(&recorder, "DELETE", &location, 404, "");
    assert_eq!(sessions(&registry), (0, [1, 0, 0, 1, 0, 0]));
    // Nor does a commit of a session that was not opened here.
    resume(&recorder, "PUT", &commit, 201, "");
    assert_eq!(sessions(&registry), (0, [1, 1, 0, 1, 0, 1]));
}

#[test]
fn a_location_of_any_shape_is_an_upload_session_of_its_repository() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    start(&recorder, "https://elsewhere.example/up/loads/7?state=abc");
    let patch = Pair::of(Endpoint::UploadSession, Method::Patch);
    resume(
        &recorder,
        "PATCH",
        "/up/loads/7?state=abc",
        202,
        "/up/8?state=d",
    );
    let requests = &recorder.metrics.http.requests;
    assert_eq!(requests.value((patch, Status::of(202))), 1);
    // The older Location is no session any more.
    exchange(&recorder, "PATCH", "/up/loads/7?state=abc", 404);
    resume(&recorder, "PUT", "/up/8?state=d&digest=x", 201, &blob());
    assert_eq!(sessions(&registry), (0, [1, 1, 0, 0, 0, 0]));
    let put = Pair::of(Endpoint::UploadSession, Method::Put);
    assert_eq!(requests.value((put, Status::of(201))), 1);
    let other = Pair::of(Endpoint::Other, Method::Patch);
    assert_eq!(requests.value((other, Status::of(404))), 1);
    let mut text = String::new();
    registry.gather().write_text(&mut text);
    let pushed = "repository_operations_total{operation=\"blob_push\",repository=\"team/app\"} 1";
    assert!(text.contains(pushed), "{text}");
}

#[test]
fn a_mount_that_falls_back_opens_a_session_and_one_that_succeeds_none() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let target = of_app("blobs/uploads/?mount=x&from=y");
    resume(&recorder, "POST", &target, 201, &blob());
    assert_eq!(sessions(&registry).0, 0);
    resume(&recorder, "POST", &target, 202, &of_app("blobs/uploads/1"));
    assert_eq!(sessions(&registry), (1, [1, 0, 0, 0, 0, 0]));
}

#[test]
fn an_aborted_upload_can_be_resumed() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let location = of_app("blobs/uploads/1");
    start(&recorder, &location);
    let mut cut = ask(&recorder, "PATCH", &location);
    cut.request_body(b"some", false);
    cut.cut(0, Side::Client);
    assert_eq!(sessions(&registry).0, 1);
    resume(&recorder, "PUT", &format!("{location}?digest=x"), 201, "");
    assert_eq!(sessions(&registry), (0, [1, 1, 0, 0, 0, 0]));
}
