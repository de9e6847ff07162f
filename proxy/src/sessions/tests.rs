//! What enters the table, what leaves it, and that the two add up.

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

/// What is open, and that whatever came is there or gone.
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

fn odd(sessions: &SessionTable) -> usize {
    let counts = sessions.look_alikes.iter();
    counts.map(|count| count.load(Ordering::Relaxed)).sum()
}

/// A request for a target, and its answer.
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

/// What the others get wrong, 2.
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
    // It went through in the end: it is another session by then, and the sum is right.
    ask(&sessions, Method::Put, target, 201, None, now + HOUR);
    assert_eq!(counts(&sessions), [1, 1, 0, 1, 0, 1]);
    assert_eq!(open(&sessions), 0);
}

#[test]
fn what_can_be_tried_again_ends_no_session() {
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
    assert_eq!(counts(&sessions), [0; 6], "nobody knows it");
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
    assert_eq!(observed, 0, "nobody knows when it began");
}

/// An upload that was begun before the proxy was there, and whose client sends two requests at once.
#[test]
fn of_two_first_requests_for_a_session_one_brings_it_in_and_the_other_finds_it() {
    let target = "/v2/a/blobs/uploads/1?_state=x";
    let later = |state: &str| format!("/v2/a/blobs/uploads/1?_state={state}");
    let (y, z) = (later("y"), later("z"));
    let second_answers = [
        (Method::Patch, 202, Some(&*z), 0),
        (Method::Get, 204, None, 0),
        (Method::Put, 201, None, 1),
        (Method::Delete, 204, None, 1),
    ];
    for (method, status, location, ended) in second_answers {
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
fn a_session_is_adopted_once_where_two_requests_find_none_at_the_same_time() {
    let sessions = table(9);
    let now = sessions.origin;
    let [x, y, z] = ["x", "y", "z"].map(|state| format!("/v2/a/blobs/uploads/1?_state={state}"));
    // Both have looked, and neither has entered it.
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
        "it is where the later answer said"
    );
}

#[test]
fn a_session_that_was_begun_meanwhile_is_not_what_an_earlier_request_was_for() {
    let sessions = table(9);
    let now = sessions.origin;
    let earlier = find(&sessions, "/u?id=1", now);
    start(&sessions, "/u?id=2");
    let answered = response(Method::Patch, "/u?id=1", 202, Some("/u?id=1"));
    sessions.responded(&earlier, answered, now);
    assert_eq!(counts(&sessions), [1, 0, 0, 0, 0, 1]);
    assert_eq!(open(&sessions), 2);
}

#[test]
fn a_session_is_followed_through_locations_of_every_shape() {
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
        assert_eq!((open(&sessions), odd(&sessions)), (0, 0));
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
fn the_start_of_an_upload_is_no_session_but_for_its_query() {
    let sessions = table(9);
    start(&sessions, "?upload=1");
    let is_session = |query| sessions.is_session(Endpoint::UploadStart, START, query);
    assert!(is_session(Some("upload=1&digest=sha256:0")));
    assert!(!is_session(None));
    assert!(!is_session(Some("mount=sha256:0&from=a")));
    assert!(!is_session(Some("upload=2")));
}

#[test]
fn sessions_on_one_path_are_told_apart_by_their_queries() {
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
fn an_idle_session_expires_and_one_that_is_asked_for_does_not() {
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
    assert_eq!(open(&sessions), 1, "it was asked for meanwhile");
    sessions.refresh(now + 49 * HOUR);
    assert_eq!(open(&sessions), 0);
    assert_eq!(sessions.metrics.duration.count(SessionOutcome::Expired), 2);
}

#[test]
fn in_a_full_table_the_one_that_was_idle_for_longest_gives_way() {
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
        "all are in use: the newcomer is not followed"
    );
    assert_eq!(counts(&sessions), [3, 0, 0, 0, 1, 0]);
    drop(handles);
    sessions.opened(START, "/u/3", None, now + 2 * HOUR);
    assert_eq!((open(&sessions), odd(&sessions)), (2, 2));
    assert!(sessions.is_session(Endpoint::Other, "/u/3", None));
    assert_eq!(counts(&sessions), [4, 0, 0, 0, 2, 0]);
}

#[test]
fn a_session_has_lasted_from_its_start_to_its_end() {
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
    let mut page = String::new();
    registry.gather().write_text(&mut page);
    let told: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("upload_session_duration_seconds_sum"))
        .collect();
    let expected = [
        "{outcome=\"cancelled\"} 7200",
        "{outcome=\"completed\"} 3600",
        "{outcome=\"expired\"} 90000",
        "{outcome=\"failed\"} 10800",
    ];
    assert_eq!(told, expected);
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
enum Action {
    Start(u8),
    Ask(Method, u8, u16, Option<u8>),
    Enter(u8),
    /// The last request that entered is answered.
    Leave(Method, u16, Option<u8>),
    Wait(u32),
}

fn action() -> impl Strategy<Value = Action> {
    let methods = prop::sample::select(Method::ALL);
    let statuses = prop::sample::select(vec![201, 202, 204, 307, 400, 404, 416, 499, 500]);
    let place = || prop::option::of(0..12_u8);
    prop_oneof![
        3 => (0..12_u8).prop_map(Action::Start),
        6 => (methods.clone(), 0..12_u8, statuses.clone(), place())
            .prop_map(|(m, at, status, to)| Action::Ask(m, at, status, to)),
        2 => (0..12_u8).prop_map(Action::Enter),
        2 => (methods, statuses, place())
            .prop_map(|(m, status, to)| Action::Leave(m, status, to)),
        1 => (0..30_u32).prop_map(Action::Wait),
    ]
}

/// Locations of all shapes, of which some share a path.
fn location(number: u8) -> String {
    match number % 4 {
        0 => format!("/v2/a/blobs/uploads/{number}"),
        1 => format!("/odd/{number}"),
        2 => format!("/shared?id={number}"),
        _ => format!("/v2/a/blobs/uploads/?id={number}"),
    }
}

proptest! {
    /// Whatever happens: what came in went out or is there, no more than there may be, and every
    /// odd path is known by as many sessions as are there.
    #[test]
    fn any_history_adds_up(limit in 1..5_usize, actions in prop::collection::vec(action(), 0..80)) {
        let sessions = table(limit);
        let mut now = sessions.origin;
        let mut handles = Vec::new();
        for action in actions {
            match action {
                Action::Start(place) => {
                    sessions.opened(START, &location(place), Some("a"), now);
                }
                Action::Ask(method, place, status, to) => {
                    let to = to.map(location);
                    ask(&sessions, method, &location(place), status, to.as_deref(), now);
                }
                Action::Enter(place) => {
                    let target = location(place);
                    let handle = find(&sessions, &target, now);
                    handles.push((handle, target));
                }
                Action::Leave(method, status, to) => {
                    if let Some((handle, target)) = handles.pop() {
                        let to = to.map(location);
                        let response = response(method, &target, status, to.as_deref());
                        sessions.responded(&handle, response, now);
                    }
                }
                Action::Wait(hours) => {
                    now += hours * HOUR;
                    sessions.refresh(now);
                }
            }
            let open = open(&sessions);
            prop_assert!(open <= limit as u64);
            let mut odd_places: HashMap<usize, usize> = HashMap::new();
            for shard in &sessions.shards {
                for session in shard.lock().values().flatten() {
                    if let Some(odd) = session.location.lock().looks_like {
                        *odd_places.entry(odd.index()).or_default() += 1;
                    }
                }
            }
            for (endpoint, count) in sessions.look_alikes.iter().enumerate() {
                let expected = odd_places.get(&endpoint).copied().unwrap_or(0);
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
    fn no_location_is_too_odd(location in "\\PC*", base in "/\\PC*", query in "\\PC*") {
        let sessions = table(2);
        let now = sessions.origin;
        sessions.opened(&base, &location, None, now);
        sessions.find(&base, Some(&query), now);
        prop_assert_eq!(open(&sessions), 1);
    }
}
