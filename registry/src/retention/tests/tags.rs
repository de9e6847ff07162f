use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_tag_is_kept_for_the_first_reason_and_others_go() {
    let fixture = Fixture::new();
    for (n, (tag, days)) in [
        ("new", 1),
        ("v1", 100),
        ("pushed", 20),
        ("pulled", 100),
        ("pulled-by-digest", 100),
        ("old", 100),
        ("older", 200),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.push(&image(n), &[tag], days).await;
    }
    let pulls = fixture.store.pulls();
    pulls.record(&name("a"), &Reference::Tag(tag("pulled")), true);
    let by_digest = Reference::Digest(image(4).digest);
    pulls.record(&name("a"), &by_digest, false);
    let keep = Keep {
        newest: Some(1),
        tags: vec![Pattern::parse("v*").unwrap()],
        pushed_within: Some(DAY * 30),
        pulled_within: Some(DAY * 30),
    };
    let report = fixture.run(&settings(Some(keep), None));
    let expected = KeptTags {
        newest: 1,
        matches: 1,
        pushed: 1,
        pulled: 2,
        ..KeptTags::default()
    };
    assert_eq!(report.total.tags_kept, expected);
    assert_eq!(report.total.tags_deleted, 2);
    assert_eq!(deleted(&report), ["old", "older"]);
    assert_eq!(
        report.deletions[0].reason.replace("200", "100"),
        format!(
            "not among the newest 1, matches no pattern, pushed 100 days ago, not pulled for {} days",
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
                / 86_400
        )
    );
    let left = ["new", "pulled", "pulled-by-digest", "pushed", "v1"];
    assert_eq!(fixture.tags("a").await, left);
    // Their manifests stay: nothing says how long those without a tag are kept.
    for n in 0..7 {
        assert!(fixture.has(&image(n).digest).await);
    }
    assert_eq!((report.repositories, report.failures), (1, 0));
    assert_eq!(report.page[0].repository, "a");
    assert_eq!(report.page[0].rule, Some(0));
}

#[tokio::test]
async fn as_long_as_pulls_are_not_remembered_for_the_time_no_tag_goes_for_want_of_pulls() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let fixture = Fixture { store, directory };
    fixture.push(&image(1), &["1"], 100).await;
    let keep = Keep {
        pulled_within: Some(DAY),
        ..Keep::default()
    };
    let report = fixture.run(&settings(Some(keep), None));
    assert_eq!(report.total.tags_kept.pulls_unknown, 1);
    assert_eq!(fixture.tags("a").await, ["1"]);
}

#[tokio::test]
async fn a_dry_run_tells_what_a_run_does_and_changes_nothing() {
    let fixture = Fixture::new();
    for n in 0..600 {
        let days = u32::try_from(n).unwrap() + 1;
        fixture.push(&image(n % 7), &[&n.to_string()], days).await;
    }
    let mut settings = newest(10, Some(DAY));
    settings.dry_run = true;
    let would = fixture.run(&settings);
    assert_eq!(fixture.tags("a").await.len(), 600);
    assert!(would.dry_run);
    settings.dry_run = false;
    let done = fixture.run(&settings);
    assert_eq!(deleted(&would), deleted(&done));
    assert_eq!(
        (done.total.tags_deleted, done.total.tags_kept.newest),
        (590, 10)
    );
    assert_eq!(fixture.tags("a").await.len(), 10);
    let again = fixture.run(&settings);
    assert_eq!(again.total.tags_deleted, 0);
    assert_eq!(again.total.tags_kept, done.total.tags_kept);
}

#[tokio::test]
async fn a_repository_is_judged_by_its_first_rule_and_left_as_it_is_without_one() {
    let fixture = Fixture::new();
    let repositories = ["prod/web", "team/web", "other"];
    for repository in repositories {
        for n in 0..3 {
            fixture
                .push_to(repository, &image(n), &[&n.to_string()], 9)
                .await;
        }
    }
    let rule = |pattern: &str, keep: Option<Keep>| RetentionRule {
        repositories: vec![Pattern::parse(pattern).unwrap()],
        keep,
        untagged: None,
    };
    let keep = |pattern: &str| Keep {
        tags: vec![Pattern::parse(pattern).unwrap()],
        ..Keep::default()
    };
    let settings = RetentionSettings {
        dry_run: false,
        rules: vec![
            rule("prod/*", None),
            rule("{team,prod}/**", Some(keep("1"))),
            rule("team/web", Some(keep("2"))),
        ],
    };
    let report = fixture.run(&settings);
    for (repository, tags) in repositories.into_iter().zip([3, 1, 3]) {
        assert_eq!(fixture.tags(repository).await.len(), tags, "{repository}");
    }
    assert_eq!(fixture.tags("team/web").await, ["1"]);
    let rules: BTreeSet<_> = report
        .page
        .iter()
        .map(|one| {
            (
                one.repository.as_str(),
                one.rule,
                one.counts.tags_kept.no_rule,
            )
        })
        .collect();
    let expected = [
        ("other", None, 3),
        ("prod/web", Some(0), 3),
        ("team/web", Some(1), 0),
    ];
    assert_eq!(rules, expected.into());
}

#[tokio::test]
async fn a_push_of_a_tag_renews_it_whether_it_moves_or_not() {
    let fixture = Fixture::new();
    for tag in ["same", "moved", "old"] {
        fixture.push(&image(1), &[tag], 9).await;
    }
    fixture.push_now("a", &image(1), &["same"]).await;
    fixture.push_now("a", &image(2), &["moved"]).await;
    let keep = Keep {
        pushed_within: Some(DAY),
        ..Keep::default()
    };
    fixture.run(&settings(Some(keep), None));
    assert_eq!(fixture.tags("a").await, ["moved", "same"]);
}

#[tokio::test]
async fn a_signature_s_tag_takes_no_place_and_goes_some_time_after_its_image() {
    let fixture = Fixture::new();
    let signed = fixture.push(&image(1), &["1"], 9).await;
    let gone = image(99).digest;
    let of = |digest: &Digest| format!("{}.sig", digest.as_str().replace(':', "-"));
    fixture.push(&image(2), &[&of(&signed)], 1).await;
    fixture.push(&image(3), &[&of(&gone)], 5).await;
    // Nobody says for how long: both stay.
    let report = fixture.run(&newest(1, None));
    assert_eq!(report.total.tags_kept.newest, 1);
    assert_eq!(report.total.tags_kept.referrers, 2);
    let report = fixture.run(&newest(1, Some(DAY * 7)));
    assert_eq!(report.total.tags_kept.referrers, 2);
    let report = fixture.run(&newest(1, Some(DAY * 3)));
    assert_eq!(deleted(&report)[0], of(&gone));
    assert_eq!(report.total.tags_deleted, 1);
    assert!(
        report.deletions[0]
            .reason
            .starts_with("its subject sha256:")
    );
    let mut left = vec!["1".to_owned(), of(&signed)];
    left.sort_unstable();
    assert_eq!(fixture.tags("a").await, left);
}

#[tokio::test]
async fn the_tag_of_a_sha512_image_s_signature_names_a_part_of_its_digest() {
    let fixture = Fixture::new();
    let of = |digest: &Digest| format!("sha512-{}", &digest.hex()[..64]);
    let long = |n| {
        let mut image = image(n);
        image.digest = Digest::of(Algorithm::Sha512, &image.bytes);
        image
    };
    let signed = fixture.push(&long(1), &["1"], 9).await;
    let gone = long(99).digest;
    fixture.push(&image(2), &[&of(&signed)], 9).await;
    fixture.push(&image(3), &[&of(&gone)], 9).await;
    let report = fixture.run(&newest(1, Some(DAY * 3)));
    assert_eq!(deleted(&report)[0], of(&gone));
    assert_eq!(report.total.tags_deleted, 1);
    assert_eq!(report.total.tags_kept.newest, 1);
    assert_eq!(report.total.tags_kept.referrers, 1);
}

#[tokio::test]
async fn repositories_that_lose_something_are_reported_first() {
    let fixture = Fixture::new();
    for repository in ["a", "b", "c", "d"] {
        fixture.push_now(repository, &image(1), &["new"]).await;
    }
    for repository in ["b", "d"] {
        fixture.push_to(repository, &image(2), &["old"], 9).await;
    }
    let report = fixture.run(&newest(1, None));
    let mut names: Vec<_> = report.page.iter().map(|one| &*one.repository).collect();
    names[..2].sort_unstable();
    names[2..].sort_unstable();
    assert_eq!(names, ["b", "d", "a", "c"]);
}

#[tokio::test]
async fn what_is_damaged_stays_and_keeps_the_manifests() {
    let fixture = Fixture::new();
    fixture.push(&image(1), &["1"], 9).await;
    fixture.push(&image(2), &["2"], 9).await;
    fixture.push(&image(3), &[], 9).await;
    let path = fixture.directory.path().join("repositories/a/_tags/1");
    fs::write(path, "sha256:").unwrap();
    fixture.age("a/_tags/1", 9);
    let keep = Keep {
        pulled_within: Some(DAY),
        ..Keep::default()
    };
    let report = fixture.run(&settings(Some(keep), Some(DAY)));
    assert_eq!(deleted(&report), ["2"]);
    assert_eq!(fixture.tags("a").await, ["1"]);
    assert_eq!(report.failures, 2);
    assert!(fixture.has(&image(3).digest).await);
}

#[tokio::test]
async fn a_damaged_tag_takes_no_place_and_a_dry_run_says_the_same() {
    let fixture = Fixture::new();
    for (n, tag) in ["1", "2", "3", "broken"].into_iter().enumerate() {
        let days = 9 - u32::try_from(n).unwrap();
        fixture.push(&image(n), &[tag], days).await;
    }
    let path = fixture.directory.path().join("repositories/a/_tags/broken");
    fs::write(path, "").unwrap();
    fixture.age("a/_tags/broken", 1);
    let rules = newest(1, None);
    let dry = fixture.run(&RetentionSettings {
        dry_run: true,
        ..rules.clone()
    });
    let done = fixture.run(&rules);
    assert_eq!(deleted(&dry), ["1", "2"]);
    assert_eq!((dry.failures, dry.left.len()), (1, 1));
    assert!(
        dry.left[0].reason.contains("_tags/broken"),
        "{:?}",
        dry.left
    );
    let dry = RetentionReport {
        dry_run: false,
        ..dry
    };
    assert_eq!(done, dry);
    assert_eq!(fixture.tags("a").await, ["3", "broken"]);
}

#[tokio::test]
async fn a_run_that_is_stopped_says_so_and_what_it_did() {
    let fixture = Fixture::new();
    fixture.push(&image(1), &["1"], 9).await;
    let stopped = Run::new(Pace::Full);
    stopped.stop();
    let mut report = RetentionReport::default();
    let settings = newest(1, None);
    let ended = run(&fixture.store, &settings, false, &stopped, &mut report);
    assert!(matches!(ended, Err(RetentionError::Interrupted(_))));
    assert_eq!(report.repositories, 0);
    let progress = stopped.progress();
    assert_eq!((progress.phase, progress.done), ("repositories", 0));
}

/// A tag of a test: how many days ago it was pushed, and whether it was pulled.
fn any_tags() -> impl Strategy<Value = Vec<(u32, bool)>> {
    prop::collection::vec((1..30_u32, any::<bool>()), 0..12)
}

fn any_keep() -> impl Strategy<Value = Keep> {
    let within = || prop::option::of((1..30_u32).prop_map(|days| DAY * days + DAY / 2));
    let pattern = prop::option::of(prop::sample::select(vec!["[0-3]*", "1?", "{2,5}"]));
    (prop::option::of(1..6_usize), pattern, within(), within()).prop_map(
        |(newest, pattern, pushed_within, pulled_within)| Keep {
            newest,
            tags: pattern
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
            pushed_within,
            pulled_within,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn exactly_the_tags_go_that_no_condition_keeps(tags in any_tags(), keep in any_keep()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fixture = Fixture::new();
        let pulls = fixture.store.pulls();
        let mut days: Vec<u32> = tags.iter().map(|&(days, _)| days).collect();
        days.sort_unstable();
        let mut stays = Vec::new();
        for (n, &(pushed, is_pulled)) in tags.iter().enumerate() {
            let text = n.to_string();
            runtime.block_on(fixture.push(&image(n), &[&text], pushed));
            if is_pulled {
                pulls.record(&name("a"), &Reference::Tag(tag(&text)), false);
            }
            // The files of one day differ by microseconds: then the later one is the newer.
            let newer = tags.iter().enumerate().filter(|&(m, &(other, _))| (other, n) < (pushed, m));
            let is_newest = keep.newest.is_some_and(|newest| newer.count() < newest);
            let is_pushed = keep.pushed_within.is_some_and(|within| DAY * pushed <= within);
            let is_kept = is_pulled && keep.pulled_within.is_some();
            if is_newest || is_pushed || is_kept || keep.tags.iter().any(|one| one.matches(&text)) {
                stays.push(text);
            }
        }
        stays.sort_unstable();
        let report = fixture.run(&settings(Some(keep), None));
        prop_assert_eq!(report.total.tags_kept.total(), stays.len() as u64);
        prop_assert_eq!(runtime.block_on(fixture.tags("a")), stays);
    }
}
