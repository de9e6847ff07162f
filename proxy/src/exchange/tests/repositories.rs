//! Which repositories are shown, and what is counted of them.

use super::*;

/// The series of the families of repositories that are not 0, but for the time of the last pull.
fn series(page: &Registry) -> Vec<String> {
    let mut text = String::new();
    page.gather().write_text(&mut text);
    text.lines()
        .filter_map(|line| line.strip_prefix("octoserve_repository_"))
        .filter(|line| !line.ends_with(" 0") && !line.starts_with("last_pull"))
        .map(ToOwned::to_owned)
        .collect()
}

fn last_pull(page: &Registry, repository: &str) -> Option<f64> {
    let page = page.gather();
    let family = page.family("octoserve_repository_last_pull_timestamp_seconds");
    let mut samples = family.unwrap().samples();
    let sample = samples.find(|sample| sample.label("repository").unwrap() == repository);
    sample.map(|sample| sample.value())
}

#[test]
fn a_404_mints_no_repository() {
    let page = Registry::new("octoserve_");
    let recorder = recorder_on(&page);
    for (method, rest, status) in [
        ("GET", "manifests/1".to_owned(), 404),
        ("GET", "manifests/1".to_owned(), 401),
        ("GET", format!("blobs/{DIGEST}"), 404),
        ("HEAD", "manifests/1".to_owned(), 404),
        ("PUT", "manifests/1".to_owned(), 400),
        ("POST", "blobs/uploads/".to_owned(), 202),
        ("GET", "tags/list".to_owned(), 200),
    ] {
        exchange(&recorder, method, &of_app(&rest), status);
    }
    assert_eq!(last_pull(&page, "team/app"), None);
    // What had no success is no operation, what had is nobody's.
    assert_eq!(
        series(&page),
        [
            "label_overflow_total 2",
            "operations_total{operation=\"other\",repository=\"_other\"} 2"
        ]
    );
}

#[test]
fn a_repository_is_shown_once_a_success_proves_it() {
    for (method, rest, status) in [
        ("GET", "manifests/1".to_owned(), 200),
        ("PUT", "manifests/1".to_owned(), 201),
        ("HEAD", "manifests/1".to_owned(), 200),
        ("PUT", "blobs/uploads/1?digest=x".to_owned(), 201),
        ("POST", "blobs/uploads/?digest=x".to_owned(), 201),
        ("POST", "blobs/uploads/?mount=x".to_owned(), 201),
    ] {
        let page = Registry::new("octoserve_");
        exchange(&recorder_on(&page), method, &of_app(&rest), status);
        assert!(last_pull(&page, "team/app").is_some(), "{method} {rest}");
    }
}

#[test]
fn operations_and_bytes_are_counted_by_repository() {
    let page = Registry::new("octoserve_");
    let recorder = recorder_on(&page);
    let mut push = ask(&recorder, "PUT", &of_app("manifests/1"));
    push.received(&[0; 7]).answered(201, &[]).whole(b"");
    let mut pull = ask(&recorder, "GET", &blob());
    pull.answered(200, &[]);
    pull.response_body(&[0; 10], false);
    pull.cut(4, Side::Client);
    exchange(&recorder, "HEAD", &blob(), 200);
    exchange(&recorder, "DELETE", &of_app("manifests/1"), 202);
    assert_eq!(
        series(&page),
        [
            "bytes_total{direction=\"download\",repository=\"team/app\"} 4",
            "bytes_total{direction=\"upload\",repository=\"team/app\"} 7",
            "operations_total{operation=\"delete\",repository=\"team/app\"} 1",
            "operations_total{operation=\"other\",repository=\"team/app\"} 1",
            "operations_total{operation=\"push\",repository=\"team/app\"} 1"
        ]
    );
}

#[test]
fn the_last_pull_is_a_manifests_or_a_tags_and_no_blobs() {
    for (method, target, status, is_pull) in [
        ("GET", of_app("manifests/1"), 200, true),
        ("GET", of_app("manifests/1"), 304, true),
        ("HEAD", of_app("manifests/1"), 200, true),
        ("HEAD", of_app(&format!("manifests/{DIGEST}")), 200, false),
        ("GET", blob(), 200, false),
        ("GET", of_app("manifests/1"), 404, false),
        ("PUT", of_app("manifests/1"), 201, false),
    ] {
        let page = Registry::new("octoserve_");
        let recorder = recorder_on(&page);
        exchange(&recorder, "PUT", &of_app("manifests/1"), 201);
        exchange(&recorder, method, &target, status);
        let time = last_pull(&page, "team/app").unwrap();
        assert_eq!(time > 0.0, is_pull, "{method} {target} {status}");
    }
}

#[test]
fn the_cap_folds_what_comes_later() {
    let page = Registry::new("octoserve_");
    let recorder = recorder_on(&page);
    for name in ["a", "b", "c", "d"] {
        exchange(&recorder, "GET", &format!("/v2/{name}/manifests/1"), 200);
    }
    assert_eq!(
        series(&page),
        [
            "label_overflow_total 2",
            "operations_total{operation=\"pull\",repository=\"_other\"} 2",
            "operations_total{operation=\"pull\",repository=\"a\"} 1",
            "operations_total{operation=\"pull\",repository=\"b\"} 1"
        ]
    );
}
