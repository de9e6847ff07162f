use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::oci::Digest;
use crate::retention::Pattern;

const NOW: u64 = 1_000_000;

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn pulled(second: u64) -> LastPull {
    LastPull {
        at: at(second),
        is_known: true,
    }
}

fn judge(
    keep: &Keep,
    newest: Option<u64>,
    tag: &str,
    pushed: u64,
    pull: LastPull,
) -> Option<KeptBecause> {
    let rules = TagRules::new(keep, at(NOW), newest.map(at));
    let tag = Tag::parse(tag).unwrap();
    rules.judge(&tag, true, at(pushed), || pull)
}

#[test]
fn a_tag_is_kept_by_any_of_the_conditions() {
    let keep = Keep {
        newest: Some(1),
        tags: vec![Pattern::parse("v*").unwrap()],
        pushed_within: Some(Duration::from_secs(100)),
        pulled_within: Some(Duration::from_secs(1000)),
    };
    let long_ago = pulled(5);
    for (tag, pushed, pull, kept) in [
        ("1", NOW - 50, long_ago, Some(KeptBecause::Newest)),
        ("v1", NOW - 500, long_ago, Some(KeptBecause::Matches)),
        ("1", NOW - 100, long_ago, Some(KeptBecause::Pushed)),
        ("1", NOW - 101, long_ago, None),
        (
            "1",
            NOW - 101,
            pulled(NOW - 1000),
            Some(KeptBecause::Pulled),
        ),
        ("1", NOW - 101, pulled(NOW + 9), Some(KeptBecause::Pulled)),
        ("1", NOW - 101, pulled(NOW - 1001), None),
        ("1", NOW + 101, long_ago, Some(KeptBecause::Newest)),
    ] {
        assert_eq!(
            judge(&keep, Some(NOW - 50), tag, pushed, pull),
            kept,
            "{tag} {pushed}"
        );
    }
    let unknown = LastPull {
        is_known: false,
        ..pulled(NOW - 1000)
    };
    let kept = judge(&keep, None, "1", 5, unknown);
    assert_eq!(kept, Some(KeptBecause::PullsUnknown));
    assert_eq!(judge(&Keep::default(), None, "1", 5, unknown), None);
}

#[test]
fn a_tag_of_this_second_or_of_the_future_is_kept_in_any_case() {
    for (pushed, kept) in [
        (NOW + 1, true),
        (NOW, true),
        (NOW - 1, true),
        (NOW - 2, false),
    ] {
        let found = judge(&Keep::default(), None, "1", pushed, pulled(0));
        assert_eq!(found.is_some(), kept, "{pushed}");
    }
}

#[test]
fn a_tag_that_names_a_digest_is_that_of_a_referrer() {
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let long = Digest::of(Algorithm::Sha512, b"x");
    let tag = |text: String| subject_of(&Tag::parse(&text).unwrap());
    let subject = |digest: &Digest| TagSubject {
        algorithm: digest.algorithm(),
        hex: digest.hex()[..64].to_owned(),
    };
    let hex = digest.hex();
    for ending in ["", ".sig", ".att", ".sbom", "."] {
        assert_eq!(tag(format!("sha256-{hex}{ending}")), Some(subject(&digest)));
    }
    // A tag has no room for all of it.
    let cut = &long.hex()[..64];
    assert_eq!(tag(format!("sha512-{cut}")), Some(subject(&long)));
    assert_eq!(tag(format!("sha512-{cut}.sig")), Some(subject(&long)));
    assert_eq!(tag(format!("sha512-{}", &long.hex()[..121])), None);
    for other in [
        format!("sha256-{hex}x"),
        format!("sha256-{}", &hex[1..]),
        format!("sha1-{hex}"),
        format!("v1-{hex}"),
        "sha256-".to_owned(),
        "latest".to_owned(),
    ] {
        assert_eq!(tag(other.clone()), None, "{other}");
    }
}

proptest! {
    #[test]
    fn the_newest_are_those_that_were_pushed_last(times in prop::collection::vec(0..50_u64, 0..40), most in 1..20_usize) {
        let mut newest = NewestTags::new(most);
        for &time in &times {
            newest.offer(at(time));
            prop_assert!(newest.times.len() <= most);
        }
        let since = newest.since();
        let kept = times.iter().filter(|&&time| since.is_some_and(|since| at(time) >= since)).count();
        let mut sorted = times.clone();
        sorted.sort_unstable();
        sorted.reverse();
        // No fewer than asked for, and more only where several were pushed at the same time.
        let least = sorted.get(most - 1).or(sorted.last());
        let expected = least.map_or(0, |least| sorted.iter().filter(|&time| time >= least).count());
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn more_to_keep_never_keeps_less(
        pushed in 0..2 * NOW,
        pull in 0..2 * NOW,
        pushed_within in prop::option::of(0..2 * NOW),
        pulled_within in prop::option::of(0..2 * NOW),
        more in 0..NOW,
    ) {
        let keep = |more| Keep {
            pushed_within: pushed_within.map(|within| Duration::from_secs(within + more)),
            pulled_within: pulled_within.map(|within| Duration::from_secs(within + more)),
            ..Keep::default()
        };
        let before = judge(&keep(0), None, "1", pushed, pulled(pull));
        let after = judge(&keep(more), None, "1", pushed, pulled(pull));
        prop_assert!(before.is_none() || after.is_some());
    }
}
