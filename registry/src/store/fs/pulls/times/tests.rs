use super::*;
use crate::oci::Algorithm;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn of_tag(times: &PullTimes, text: &str) -> PullFingerprint {
    times.key.tag(&name("a"), &tag(text))
}

/// The fingerprints of one shard.
fn of_one_shard(count: usize) -> impl Iterator<Item = PullFingerprint> {
    (0..count as u64).map(|n| PullFingerprint::from_bytes((n << 38 | n).to_le_bytes()))
}

#[test]
fn a_pull_of_a_tag_or_of_its_manifest_counts_and_the_latest_is_found() {
    let times = PullTimes::since(Minute(100));
    let (a, one, x) = (name("a"), tag("1"), digest("x"));
    let last = || times.last(&a, &one, &x);
    let at = |minute| Minute(minute).end();
    assert_eq!((last().at, last().is_known), (at(100), false));
    times.insert(of_tag(&times, "1"), Minute(150));
    assert_eq!((last().at, last().is_known), (at(150), true));
    times.insert(times.key.manifest(&a, &x), Minute(200));
    assert_eq!((last().at, last().is_known), (at(200), true));
    // Another tag of the manifest, and the same names elsewhere.
    assert_eq!(times.last(&a, &tag("2"), &x).at, at(200));
    assert_eq!(times.last(&a, &tag("2"), &digest("y")).at, at(100));
    assert_eq!(times.last(&name("b"), &one, &x).at, at(100));
    // The clock was set back.
    times.insert(of_tag(&times, "1"), Minute(120));
    times.insert(of_tag(&times, "3"), Minute(99));
    assert_eq!(last().at, at(200));
    assert!(!times.last(&a, &tag("3"), &digest("y")).is_known);
}

#[test]
fn a_head_of_a_digest_is_no_pull() {
    let times = PullTimes::since(Minute(0));
    let (a, one, x) = (name("a"), tag("1"), digest("x"));
    let by_digest = Reference::Digest(x.clone());
    times.record(&a, &by_digest, true);
    assert!(!times.last(&a, &one, &x).is_known);
    for (reference, is_head) in [
        (by_digest, false),
        (Reference::Tag(one.clone()), false),
        (Reference::Tag(one.clone()), true),
    ] {
        let times = PullTimes::since(Minute(0));
        let before = SystemTime::now();
        times.record(&a, &reference, is_head);
        let last = times.last(&a, &one, &x);
        // The system's tick may be some milliseconds old.
        assert!(last.is_known && last.at + Duration::from_secs(1) > before);
        assert!(last.at < SystemTime::now() + Duration::from_secs(61));
    }
}

#[test]
fn what_changes_nothing_need_not_be_saved() {
    let times = PullTimes::since(Minute(5));
    assert!(times.take_unsaved(Minute(0)));
    let one = of_tag(&times, "1");
    for (minute, is_news) in [
        (5, false),
        (6, true),
        (6, false),
        (7, true),
        (6, false),
        (4, false),
    ] {
        times.insert(one, Minute(minute));
        assert_eq!(times.take_unsaved(Minute(0)), is_news, "{minute}");
    }
}

#[test]
fn what_has_not_changed_is_saved_again_from_time_to_time() {
    let times = PullTimes::since(Minute(5));
    assert!(times.take_unsaved(Minute(1000)));
    times.note_saved(Minute(1000));
    assert!(!times.take_unsaved(Minute(1000 + SAVED_AGAIN - 1)));
    assert!(times.take_unsaved(Minute(1000 + SAVED_AGAIN)));
}

#[test]
fn after_a_gap_all_counts_as_pulled_at_its_end() {
    let times = PullTimes::since(Minute(5));
    let (one, two) = (of_tag(&times, "1"), of_tag(&times, "2"));
    times.insert(one, Minute(1000));
    times.is_complete_until(Minute(1000));
    let end = 1000 + LONGEST_GAP;
    assert!(!times.go_on(Minute(end)));
    assert_eq!(times.find(one), (Minute(1000), true));
    assert_eq!(times.find(two), (Minute(5), false));
    let late = Minute(end + LONGEST_GAP + 1);
    assert!(times.go_on(late));
    assert_eq!(times.find(one), (late, false));
    assert_eq!(times.find(two), (late, false));
    assert!(!times.go_on(late));
    times.insert(one, Minute(late.0 + 1));
    assert_eq!(times.find(one), (Minute(late.0 + 1), true));
}

#[test]
fn a_full_shard_forgets_the_oldest_and_counts_them_as_pulled_when_the_last_of_them_was() {
    let times = PullTimes::since(Minute(1));
    let mut newest = 1;
    for (n, fingerprint) in of_one_shard(10 * MOST).enumerate() {
        newest = 10 + u32::try_from(n / 100).unwrap();
        times.insert(fingerprint, Minute(newest));
        let shard = times.shard(fingerprint).read();
        assert!(shard.len() <= MOST);
        assert!(shard.times.capacity() <= 16_384);
    }
    for (n, fingerprint) in of_one_shard(10 * MOST).enumerate() {
        let pulled = Minute(10 + u32::try_from(n / 100).unwrap());
        let (found, is_known) = times.find(fingerprint);
        assert!(found >= pulled, "it would go too early");
        assert!(!is_known || found == pulled);
    }
    let shard = times.shards.iter().find(|shard| shard.read().len() > 0);
    assert!(shard.unwrap().read().floor < Minute(newest));
}

#[test]
fn a_shard_full_of_one_minute_forgets_all_of_them() {
    let times = PullTimes::since(Minute(1));
    for fingerprint in of_one_shard(3 * MOST) {
        times.insert(fingerprint, Minute(2));
        assert_eq!(times.find(fingerprint).0, Minute(2));
    }
    times.insert(PullFingerprint::from_bytes([0; 8]), Minute(3));
    assert_eq!(
        times.find(PullFingerprint::from_bytes([0; 8])),
        (Minute(3), true)
    );
}

#[test]
fn pulls_that_are_recorded_at_the_same_time_are_all_remembered() {
    let times = PullTimes::since(Minute(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let times = &times;
            scope.spawn(move || {
                for n in 0..20_000_u32 {
                    let text = (n % 5000).to_string();
                    times.insert(of_tag(times, &text), Minute(1 + n + thread));
                }
            });
        }
    });
    for n in 0..5000_u32 {
        let latest = Minute(1 + n + 15_000 + 3);
        assert_eq!(times.find(of_tag(&times, &n.to_string())), (latest, true));
    }
}

#[test]
fn a_minute_is_that_of_the_clock() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    for (seconds, minute) in [(0, 0), (59, 0), (60, 1), (119, 1), (120, 2)] {
        assert_eq!(Minute::of(at(seconds)), Minute(minute));
    }
    assert_eq!((Minute(7).begin(), Minute(7).end()), (at(420), at(480)));
    // A clock from before 1970, and one that is beyond all minutes.
    assert_eq!(Minute::of(UNIX_EPOCH - Duration::from_secs(1)), Minute(0));
    assert_eq!(Minute::of(at(1 << 40)), Minute(u32::MAX));
    for _ in 0..1000 {
        let before = Minute::of(SystemTime::now());
        let (now, again) = (Minute::now(), Minute::now());
        let after = Minute::of(SystemTime::now());
        assert!(before <= now && now <= again && again <= after);
    }
}
