//! Which sessions enter and leave the table, and that the counts add up.

use std::collections::HashMap;

use proptest::prelude::*;
use service::metrics::Label as _;

use super::*;

const START: &str = "/v2/team/app/blobs/uploads/";
const HOUR: Duration = Duration::from_hours(1);

fn table(limit: usize) -> SessionTable {
    SessionTable::with_limit(&MetricsRegistry::new(""), limit)
}

/// The events so far: started, completed, cancelled, failed, expired, unknown.
fn counts(sessions: &SessionTable) -> [u64; SessionEvent::ALL.len()] {
    std::array::from_fn(|index| sessions.metrics.events.value(SessionEvent::ALL[index]))
}

/// How many sessions are open. Checks that each one that entered is in the table or has left.
fn open(sessions: &SessionTable) -> u64 {
    let [started, completed, cancelled, failed, expired, unknown] = counts(sessions);
    let held: usize = sessions
        .shards
        .iter()
        .map(|shard| shard.lock().values().map(Vec::len).sum::<usize>())
        .sum();
    assert_eq!(held, sessions.open.load(Ordering::Relaxed));
    let open = held as u64;
    assert_eq!(
        started + unknown,
        open + completed + cancelled + failed + expired
    );
    open
}

fn look_alikes(sessions: &SessionTable) -> usize {
    let counts = sessions.look_alikes.iter();
    counts.map(|count| count.load(Ordering::Relaxed)).sum()
}

/// A request for a target, and its response.
fn ask(
    sessions: &SessionTable,
    method: Method,
    target: &str,
    status: u16,
    location: Option<&str>,
    now: Instant,
) {
    let handle = find(sessions, target, now);
    let response = response(method, target, status, location);
    sessions.responded(&handle, response, now);
}

fn find(sessions: &SessionTable, target: &str, now: Instant) -> SessionHandle {
    let (path, query) = split(target);
    sessions.find(path, query, now)
}

fn response<'a>(
    method: Method,
    target: &'a str,
    status: u16,
    location: Option<&'a str>,
) -> SessionResponse<'a> {
    let (path, query) = split(target);
    SessionResponse {
        method,
        path,
        query,
        repository: None,
        status,
        location,
    }
}

fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn start(sessions: &SessionTable, location: &str) -> Instant {
    let now = sessions.origin;
    sessions.opened(START, location, Some("team/app"), now);
    now
}

#[test]
fn an_upload_is_started_and_completed_once() {
    let sessions = table(9);
    let now = start(&sessions, "/v2/team/app/blobs/uploads/1");
    assert_eq!(open(&sessions), 1);
    let handle = sessions.find("/v2/team/app/blobs/uploads/1", None, now);
    assert_eq!(handle.repository(), Some("team/app"));
    drop(handle);
    let target = "/v2/team/app/blobs/uploads/1?digest=sha256:0";
    ask(
        &sessions,
        Method::Patch,
        target,
        202,
        Some("/v2/team/app/blobs/uploads/1"),
        now,
    );
    ask(
        &sessions,
        Method::Put,
        target,
        201,
        Some("/v2/team/app/blobs/sha256:0"),
        now + HOUR,
    );
    assert_eq!(counts(&sessions), [1, 1, 0, 0, 0, 0]);
    assert_eq!(open(&sessions), 0);
    assert_eq!(
        sessions.metrics.duration.count(SessionOutcome::Completed),
        1
    );
}

/// A gauge that is lowered at each failed commit goes negative in other registries' metrics.
#[test]
fn the_gauges_are_set_and_never_negative_after_a_failed_commit() {
    let sessions = table(9);
    let now = start(&sessions, "/v2/team/app/blobs/uploads/1");
    let target = "/v2/team/app/blobs/uploads/1?digest=sha256:0";
    sessions.refresh(now + HOUR);
    assert_eq!(sessions.metrics.active.value(()).to_bits(), 1_f64.to_bits());
    assert_eq!(
        sessions.metrics.oldest_age.value(()).to_bits(),
        3600_f64.to_bits()
    );
    for status in [400, 400, 404, 404] {
        ask(&sessions, Method::Put, target, status, None, now + HOUR);
    }
    ask(&sessions, Method::Delete, target, 404, None, now + HOUR);
    sessions.refresh(now + HOUR);
    assert_eq!(counts(&sessions), [1, 0, 0, 1, 0, 0]);
    assert_eq!(sessions.metrics.active.value(()).to_bits(), 0_f64.to_bits());
    assert_eq!(
        sessions.metrics.oldest_age.value(()).to_bits(),
        0_f64.to_bits()
    );
    // It succeeds in the end: as another session, so that the sum stays right.
    ask(&sessions, Method::Put, target, 201, None, now + HOUR);
    assert_eq!(counts(&sessions), [1, 1, 0, 1, 0, 1]);
    assert_eq!(open(&sessions), 0);
}

#[test]
fn a_failure_that_can_be_retried_ends_no_session() {
    let sessions = table(9);
    let now = start(&sessions, "/v2/team/app/blobs/uploads/1");
    let target = "/v2/team/app/blobs/uploads/1";
    for (method, status) in [
        (Method::Put, 401),
        (Method::Put, 416),
        (Method::Put, 429),
        (Method::Put, 499),
        (Method::Put, 500),
        (Method::Put, 307),
        (Method::Patch, 400),
        (Method::Patch, 416),
        (Method::Delete, 403),
        (Method::Head, 404),
        (Method::Post, 404),
    ] {
        ask(&sessions, method, target, status, None, now);
    }
    assert_eq!(counts(&sessions), [1, 0, 0, 0, 0, 0]);
    ask(&sessions, Method::Delete, target, 204, None, now);
    assert_eq!(counts(&sessions), [1, 0, 1, 0, 0, 0]);
    assert_eq!(open(&sessions), 0);
}

#[test]
fn a_session_that_was_opened_elsewhere_is_unknown_once() {
    let sessions = table(9);
    let now = sessions.origin;
    let target = "/v2/a/blobs/uploads/1?_state=x";
    ask(&sessions, Method::Patch, target, 404, None, now);
    assert_eq!(counts(&sessions), [0; 6], "the registry does not know it");
    ask(
        &sessions,
        Method::Patch,
        target,
        202,
        Some("/v2/a/blobs/uploads/1?_state=y"),
        now,
    );
    ask(
        &sessions,
        Method::Get,
        target,
        204,
        Some("/v2/a/blobs/uploads/1?_state=z"),
        now,
    );
    assert_eq!(open(&sessions), 1);
    ask(&sessions, Method::Put, target, 201, None, now);
    assert_eq!(counts(&sessions), [0, 1, 0, 0, 0, 1]);
    assert_eq!(open(&sessions), 0);
    let observed = sessions.metrics.duration.count(SessionOutcome::Completed);
    assert_eq!(observed, 0, "its start was not seen");
}

/// The upload was begun before the proxy started, and its client sends two requests at once.
#[test]
fn of_two_first_requests_for_a_session_one_opens_it_and_the_other_finds_it() {
    let target = "/v2/a/blobs/uploads/1?_state=x";
    let later = |state: &str| format!("/v2/a/blobs/uploads/1?_state={state}");
    let (y, z) = (later("y"), later("z"));
    let second_responses = [
        (Method::Patch, 202, Some(&*z), 0),
        (Method::Get, 204, None, 0),
        (Method::Put, 201, None, 1),
        (Method::Delete, 204, None, 1),
    ];
    for (method, status, location, ended) in second_responses {
        let sessions = table(9);
        let now = sessions.origin;
        let handles = [(); 2].map(|()| find(&sessions, target, now));
        let first = response(Method::Patch, target, 202, Some(&y));
        sessions.responded(&handles[0], first, now);
        let second = response(method, target, status, location);
        sessions.responded(&handles[1], second, now);
        assert_eq!(counts(&sessions)[5], 1, "{method:?}");
        assert_eq!(open(&sessions), 1 - ended, "{method:?}");
        drop(handles);
        ask(&sessions, Method::Put, &z, 201, None, now);
        assert_eq!(open(&sessions), 0, "{method:?}");
    }
}

#[test]
fn a_session_is_opened_once_when_two_requests_find_none_at_the_same_time() {
    let sessions = table(9);
    let now = sessions.origin;
    let [x, y, z] = ["x", "y", "z"].map(|state| format!("/v2/a/blobs/uploads/1?_state={state}"));
    // Both requests found no session, and neither has opened it yet.
    for location in [&y, &z] {
        sessions.first_seen(response(Method::Patch, &x, 202, Some(location)), now);
    }
    assert_eq!(counts(&sessions), [0, 0, 0, 0, 0, 1]);
    assert_eq!(open(&sessions), 1);
    let other = start(&sessions, "/v2/a/blobs/uploads/1?_state=other");
    ask(&sessions, Method::Put, &z, 201, None, other);
    assert_eq!(
        counts(&sessions),
        [1, 1, 0, 0, 0, 1],
        "it is at the Location of the later response"
    );
}

#[test]
fn an_earlier_request_is_not_for_a_session_that_was_opened_after_it() {
    let sessions = table(9);
    let now = sessions.origin;
    let earlier = find(&sessions, "/u?id=1", now);
    start(&sessions, "/u?id=2");
    let response = response(Method::Patch, "/u?id=1", 202, Some("/u?id=1"));
    sessions.responded(&earlier, response, now);
    assert_eq!(counts(&sessions), [1, 0, 0, 0, 0, 1]);
    assert_eq!(open(&sessions), 2);
}

#[test]
fn a_session_is_tracked_through_locations_of_every_shape() {
    for locations in [
        // distribution: the state changes, the path does not.
        [
            "/v2/team/app/blobs/uploads/u?_state=a%3D",
            "/v2/team/app/blobs/uploads/u?_state=b%3D",
        ],
        [
            "http://localhost:5000/v2/team/app/blobs/uploads/u",
            "/v2/team/app/blobs/uploads/u",
        ],
        [
            "/v2/team/app/blobs/uploads/1",
            "/v2/team/app/blobs/uploads/2",
        ],
        [
            "/v2/team/app/blobs/upload/1",
            "/v2/team/app/blobs/upload/1?part=2",
        ],
        [
            "/artifacts-uploads/namespaces/a/uploads/AF-1",
            "/artifacts-uploads/namespaces/a/uploads/AF-2",
        ],
        ["?upload=1", "?upload=2"],
        ["/u?id=1", "/u?id=2"],
        ["/v2/", "/v2/?a"],
        ["u", "../uploads/v"],
        [
            "/v2/team/app/blobs/uploads/x/manifests/y",
            "/v2/team/app/blobs/uploads/x/manifests/z",
        ],
    ] {
        let sessions = table(9);
        let now = start(&sessions, locations[0]);
        let mut target = String::new();
        for location in [Some(locations[1]), None] {
            let from = if target.is_empty() {
                locations[0]
            } else {
                locations[1]
            };
            target = absolute(from);
            let (path, query) = target
                .split_once('?')
                .map_or((&*target, None), |(p, q)| (p, Some(q)));
            let endpoint = registry::oci::Route::parse(path).endpoint;
            let is_session =
                endpoint == Endpoint::UploadSession || sessions.is_session(endpoint, path, query);
            assert!(is_session, "{target}");
            if location.is_some() {
                ask(&sessions, Method::Patch, &target, 202, location, now);
            } else {
                let joint = if query.is_some() { '&' } else { '?' };
                let target = format!("{target}{joint}digest=sha256%3A0");
                ask(&sessions, Method::Put, &target, 201, None, now);
            }
        }
        assert_eq!(counts(&sessions), [1, 1, 0, 0, 0, 0], "{locations:?}");
        assert_eq!((open(&sessions), look_alikes(&sessions)), (0, 0));
    }
}

/// Where a client goes that asked for [`START`].
fn absolute(location: &str) -> String {
    let location = location
        .strip_prefix("http://localhost:5000")
        .unwrap_or(location);
    let location = location.strip_prefix("../uploads/").unwrap_or(location);
    if location.starts_with('/') {
        location.to_owned()
    } else {
        format!("{START}{location}")
    }
}

#[test]
fn a_path_is_a_session_only_while_one_is_open_there() {
    let sessions = table(9);
    let other = |path: &str| sessions.is_session(Endpoint::Other, path, None);
    assert!(!other("/u/1"));
    let now = start(&sessions, "/u/1");
    assert!(other("/u/1"));
    assert!(!other("/u/2"));
    ask(
        &sessions,
        Method::Put,
        "/u/1?digest=sha256:0",
        201,
        None,
        now,
    );
    assert!(!other("/u/1"));
}

#[test]
fn the_start_of_an_upload_is_a_session_only_with_the_right_query() {
    let sessions = table(9);
    start(&sessions, "?upload=1");
    let is_session = |query| sessions.is_session(Endpoint::UploadStart, START, query);
    assert!(is_session(Some("upload=1&digest=sha256:0")));
    assert!(!is_session(None));
    assert!(!is_session(Some("mount=sha256:0&from=a")));
    assert!(!is_session(Some("upload=2")));
}

#[test]
fn sessions_on_one_path_are_distinguished_by_their_queries() {
    let sessions = table(9);
    let now = start(&sessions, "/u?id=1");
    start(&sessions, "/u?id=2");
    ask(
        &sessions,
        Method::Put,
        "/u?digest=sha256:0&id=1",
        201,
        None,
        now,
    );
    ask(&sessions, Method::Delete, "/u?id=2", 204, None, now);
    assert_eq!(counts(&sessions), [2, 1, 1, 0, 0, 0]);
    assert_eq!(open(&sessions), 0);
}

#[test]
fn an_idle_session_expires_and_one_with_a_request_in_flight_does_not() {
    let sessions = table(9);
    let now = start(&sessions, "/v2/a/blobs/uploads/1");
    start(&sessions, "/v2/a/blobs/uploads/2");
    let handle = sessions.find("/v2/a/blobs/uploads/2", None, now);
    sessions.refresh(now + 23 * HOUR);
    assert_eq!(open(&sessions), 2);
    sessions.refresh(now + 24 * HOUR);
    assert_eq!(counts(&sessions), [2, 0, 0, 0, 1, 0]);
    drop(handle);
    sessions.find("/v2/a/blobs/uploads/2", None, now + 25 * HOUR);
    sessions.refresh(now + 48 * HOUR);
    assert_eq!(open(&sessions), 1, "a request for it came in between");
    sessions.refresh(now + 49 * HOUR);
    assert_eq!(open(&sessions), 0);
    assert_eq!(sessions.metrics.duration.count(SessionOutcome::Expired), 2);
}

#[test]
fn a_full_table_expires_the_session_that_was_idle_for_longest() {
    let sessions = table(2);
    let now = sessions.origin;
    let handles: Vec<SessionHandle> = (0..2)
        .map(|number| {
            let location = format!("/u/{number}");
            sessions.opened(START, &location, None, now + number * HOUR);
            sessions.find(&location, None, now + number * HOUR)
        })
        .collect();
    sessions.opened(START, "/u/2", None, now + 2 * HOUR);
    assert_eq!(
        open(&sessions),
        2,
        "all are in use: the new session is not tracked"
    );
    assert_eq!(counts(&sessions), [3, 0, 0, 0, 1, 0]);
    drop(handles);
    sessions.opened(START, "/u/3", None, now + 2 * HOUR);
    assert_eq!((open(&sessions), look_alikes(&sessions)), (2, 2));
    assert!(sessions.is_session(Endpoint::Other, "/u/3", None));
    assert_eq!(counts(&sessions), [4, 0, 0, 0, 2, 0]);
}

#[test]
fn a_sessions_duration_is_from_its_start_to_its_end() {
    let registry = MetricsRegistry::new("");
    let sessions = SessionTable::with_limit(&registry, 9);
    let target = |number: u32| format!("/v2/a/blobs/uploads/{number}");
    let now = sessions.origin;
    let ends = [
        ("completed", Method::Put, 201),
        ("cancelled", Method::Delete, 204),
        ("failed", Method::Patch, 404),
    ];
    for ((_, method, status), hours) in ends.into_iter().zip(1..) {
        start(&sessions, &target(hours));
        ask(
            &sessions,
            method,
            &target(hours),
            status,
            None,
            now + hours * HOUR,
        );
    }
    start(&sessions, &target(0));
    sessions.refresh(now + 25 * HOUR);
    let mut text = String::new();
    registry.gather().write_text(&mut text);
    let sums: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("upload_session_duration_seconds_sum"))
        .collect();
    let expected = [
        "{outcome=\"cancelled\"} 7200",
        "{outcome=\"completed\"} 3600",
        "{outcome=\"expired\"} 90000",
        "{outcome=\"failed\"} 10800",
    ];
    assert_eq!(sums, expected);
}

#[test]
fn the_repository_of_a_session_is_known_unless_its_name_is_too_long() {
    let sessions = table(9);
    let now = sessions.origin;
    sessions.opened(START, "/u/1", Some("team/app"), now);
    sessions.opened(START, "/u/2", Some(&"a".repeat(256)), now);
    let handle = sessions.find("/u/1", None, now);
    assert_eq!(handle.repository(), Some("team/app"));
    assert_eq!(sessions.find("/u/2", None, now).repository(), None);
    assert_eq!(sessions.find("/u/3", None, now).repository(), None);
}

#[derive(Clone, Debug)]
enum HistoryStep {
    Start(u8),
    Ask(Method, u8, u16, Option<u8>),
    Enter(u8),
    /// The last request that entered gets its response.
    Leave(Method, u16, Option<u8>),
    Wait(u32),
}

fn history_step() -> impl Strategy<Value = HistoryStep> {
    let methods = prop::sample::select(Method::ALL);
    let statuses = prop::sample::select(vec![201, 202, 204, 307, 400, 404, 416, 499, 500]);
    let number = || prop::option::of(0..12_u8);
    prop_oneof![
        3 => (0..12_u8).prop_map(HistoryStep::Start),
        6 => (methods.clone(), 0..12_u8, statuses.clone(), number())
            .prop_map(|(m, at, status, to)| HistoryStep::Ask(m, at, status, to)),
        2 => (0..12_u8).prop_map(HistoryStep::Enter),
        2 => (methods, statuses, number())
            .prop_map(|(m, status, to)| HistoryStep::Leave(m, status, to)),
        1 => (0..30_u32).prop_map(HistoryStep::Wait),
    ]
}

/// Locations of all shapes, of which some share a path.
fn location(number: u8) -> String {
    match number % 4 {
        0 => format!("/v2/a/blobs/uploads/{number}"),
        1 => format!("/opaque/{number}"),
        2 => format!("/shared?id={number}"),
        _ => format!("/v2/a/blobs/uploads/?id={number}"),
    }
}

proptest! {
    /// After any history, each session that entered is in the table or has left, the limit holds,
    /// and the look-alike paths are counted right.
    #[test]
    fn any_history_adds_up(limit in 1..5_usize, steps in prop::collection::vec(history_step(), 0..80)) {
        let sessions = table(limit);
        let mut now = sessions.origin;
        let mut handles = Vec::new();
        for step in steps {
            match step {
                HistoryStep::Start(number) => {
                    sessions.opened(START, &location(number), Some("a"), now);
                }
                HistoryStep::Ask(method, number, status, to) => {
                    let to = to.map(location);
                    ask(&sessions, method, &location(number), status, to.as_deref(), now);
                }
                HistoryStep::Enter(number) => {
                    let target = location(number);
                    let handle = find(&sessions, &target, now);
                    handles.push((handle, target));
                }
                HistoryStep::Leave(method, status, to) => {
                    if let Some((handle, target)) = handles.pop() {
                        let to = to.map(location);
                        let response = response(method, &target, status, to.as_deref());
                        sessions.responded(&handle, response, now);
                    }
                }
                HistoryStep::Wait(hours) => {
                    now += hours * HOUR;
                    sessions.refresh(now);
                }
            }
            let open = open(&sessions);
            prop_assert!(open <= limit as u64);
            let mut expected_counts: HashMap<usize, usize> = HashMap::new();
            for shard in &sessions.shards {
                for session in shard.lock().values().flatten() {
                    if let Some(endpoint) = session.location.lock().looks_like {
                        *expected_counts.entry(endpoint.index()).or_default() += 1;
                    }
                }
            }
            for (endpoint, count) in sessions.look_alikes.iter().enumerate() {
                let expected = expected_counts.get(&endpoint).copied().unwrap_or(0);
                prop_assert_eq!(count.load(Ordering::Relaxed), expected);
            }
        }
        handles.clear();
        sessions.refresh(now + 25 * HOUR);
        prop_assert_eq!(open(&sessions), 0);
        let active = sessions.metrics.active.value(());
        prop_assert_eq!(active.to_bits(), 0_f64.to_bits());
    }

    #[test]
    fn any_location_is_tracked(location in "\\PC*", base in "/\\PC*", query in "\\PC*") {
        let sessions = table(2);
        let now = sessions.origin;
        sessions.opened(&base, &location, None, now);
        sessions.find(&base, Some(&query), now);
        prop_assert_eq!(open(&sessions), 1);
    }
}
