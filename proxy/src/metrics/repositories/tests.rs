//! Which repositories get a label, which labels are evicted, and what each label counts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::RepositoryOperation::{Other, Pull, Push};
use super::*;

const HOUR: Duration = Duration::from_hours(1);

struct Bench {
    registry: MetricsRegistry,
    repositories: Repositories,
    start: Instant,
}

impl Bench {
    fn new(limit: usize, allow: &[&str], groups: &[(&str, &str)]) -> Bench {
        let registry = MetricsRegistry::new("");
        let allow = allow.iter().map(ToString::to_string).collect();
        let groups = groups
            .iter()
            .map(|(names, label)| GroupRule::new(names, (*label).to_owned()).unwrap())
            .collect();
        let rules = Rules::new(limit, allow, groups, 24 * HOUR).unwrap();
        let repositories = Repositories::new(&registry, rules);
        let start = repositories.origin;
        Bench {
            registry,
            repositories,
            start,
        }
    }

    /// A manifest is pulled, so many hours after the start.
    fn pull(&self, name: &str, hours: u32) {
        let now = self.start + hours * HOUR;
        let mut handle = self.repositories.find(name);
        self.repositories.admit(&mut handle, name, now);
        self.repositories.record(&handle, Pull, now);
        self.repositories.finish(&mut handle);
    }

    /// The counts of an operation by label.
    fn counts(&self, operation: &str) -> BTreeMap<String, u64> {
        let wanted = format!("operation=\"{operation}\"");
        self.samples("repository_operations_total{")
            .filter(|(labels, _)| labels.contains(&wanted))
            .map(|(labels, value)| {
                let label = labels.split("repository=\"").nth(1).unwrap();
                (label.split('"').next().unwrap().to_owned(), value)
            })
            .collect()
    }

    fn pulls(&self) -> Vec<(String, u64)> {
        self.counts("pull").into_iter().collect()
    }

    fn samples(&self, start: &str) -> impl Iterator<Item = (String, u64)> {
        let mut text = String::new();
        self.registry.gather().write_text(&mut text);
        let start = start.to_owned();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.into_iter().filter_map(move |line| {
            let (name, value) = line.strip_prefix(&start)?.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().unwrap()))
        })
    }

    fn overflow(&self) -> u64 {
        self.repositories.overflow.value(())
    }

    fn series(&self) -> usize {
        let mut text = String::new();
        self.registry.gather().write_text(&mut text);
        text.lines().filter(|line| !line.starts_with('#')).count()
    }
}

fn pulls(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = expected.iter().map(|&(name, n)| (name.to_owned(), n));
    owned.collect()
}

/// Registries that label by any path let a scan of names create series without bound.
#[test]
fn a_404_mints_no_repository_series() {
    let bench = Bench::new(2, &[], &[]);
    for number in 0..1000 {
        let mut handle = bench.repositories.find(&format!("scanned/{number}"));
        bench
            .repositories
            .bytes(&mut handle, Transfer::Download, 100);
        bench.repositories.finish(&mut handle);
    }
    assert_eq!(bench.pulls(), pulls(&[("_other", 0)]));
    assert_eq!(bench.overflow(), 0);
    assert_eq!(bench.series(), 12 + 1);
}

#[test]
fn other_rules_apply_to_what_is_admitted_from_then_on() {
    let bench = Bench::new(1, &[], &[]);
    bench.pull("a", 0);
    bench.pull("b", 0);
    let rules = |limit, allow: &[&str], groups: &[(&str, &str)]| {
        let allow = allow.iter().map(ToString::to_string).collect();
        let groups = groups.iter();
        let groups = groups.map(|(names, label)| GroupRule::new(names, (*label).to_owned()));
        let groups = groups.map(Result::unwrap).collect();
        let rules = Rules::new(limit, allow, groups, 24 * HOUR).unwrap();
        bench.repositories.replace_rules(rules);
    };
    rules(3, &["team"], &[("^team/", "team")]);
    for name in ["a", "team/x", "b", "c"] {
        bench.pull(name, 1);
    }
    let expected = [("_other", 2), ("a", 2), ("b", 1), ("team", 1)];
    assert_eq!(bench.pulls(), pulls(&expected));
    assert!(bench.series() <= bench.registry.max_series());
    // Fewer: what is shown stays until it is idle and its slot is wanted.
    rules(1, &[], &[]);
    bench.pull("d", 2);
    assert_eq!(
        bench.pulls(),
        pulls(&[("_other", 3), ("a", 2), ("b", 1), ("team", 1)])
    );
    assert!(bench.series() <= bench.registry.max_series());
    for hours in 30..33 {
        bench.pull("e", hours);
    }
    assert_eq!(bench.pulls(), pulls(&[("_other", 5), ("e", 1)]));
}

#[test]
fn no_series_is_printed_before_the_first_request() {
    let bench = Bench::new(200, &["team/app"], &[]);
    assert_eq!(bench.series(), 1, "the overflow counter alone");
}

#[test]
fn an_admitted_repository_starts_with_all_its_series_at_0() {
    let bench = Bench::new(1, &[], &[]);
    let mut handle = bench.repositories.find("team/app");
    bench
        .repositories
        .admit(&mut handle, "team/app", bench.start);
    assert_eq!(bench.series(), 12 + 1);
    let all = bench.samples("repository_").map(|(_, value)| value);
    assert_eq!(all.sum::<u64>(), 0);
}

#[test]
fn the_first_repositories_are_shown_and_the_rest_is_other() {
    let bench = Bench::new(2, &[], &[]);
    for name in ["a", "b", "c", "a", "d"] {
        bench.pull(name, 0);
    }
    assert_eq!(bench.pulls(), pulls(&[("_other", 2), ("a", 2), ("b", 1)]));
    assert_eq!(bench.overflow(), 2);
}

#[test]
fn a_cap_of_0_shows_no_name() {
    let bench = Bench::new(0, &[], &[]);
    bench.pull("a", 0);
    bench.pull("a", 1000);
    assert_eq!(bench.pulls(), pulls(&[("_other", 2)]));
}

#[test]
fn a_full_cap_keeps_slots_for_the_allow_list() {
    let bench = Bench::new(2, &["kept"], &[]);
    for name in ["a", "b", "kept", "c"] {
        bench.pull(name, 0);
    }
    assert_eq!(
        bench.pulls(),
        pulls(&[("_other", 2), ("a", 1), ("kept", 1)])
    );
    bench.pull("c", 1000);
    assert_eq!(
        bench.pulls(),
        pulls(&[("_other", 2), ("c", 1), ("kept", 1)])
    );
}

#[test]
fn the_least_recently_used_label_is_evicted_once_idle_and_its_counts_are_dropped() {
    let bench = Bench::new(2, &[], &[]);
    bench.pull("a", 0);
    bench.pull("b", 1);
    bench.pull("a", 2);
    bench.pull("c", 24);
    assert_eq!(bench.pulls(), pulls(&[("_other", 1), ("a", 2), ("b", 1)]));
    bench.pull("c", 25);
    assert_eq!(bench.pulls(), pulls(&[("_other", 1), ("a", 2), ("c", 1)]));
    // A repository that is shown again starts at 0.
    bench.pull("b", 26);
    assert_eq!(bench.pulls(), pulls(&[("_other", 1), ("b", 1), ("c", 1)]));
}

#[test]
fn a_full_cap_is_not_searched_before_a_label_can_be_evicted() {
    let bench = Bench::new(1, &[], &[]);
    bench.pull("a", 0);
    bench.pull("b", 1);
    let until = bench.repositories.full_until.load(Ordering::Relaxed);
    assert_eq!(u128::from(until), (24 * HOUR).as_millis());
    bench.pull("a", 2);
    bench.pull("b", 25);
    assert_eq!(bench.pulls(), pulls(&[("_other", 2), ("a", 2)]));
    bench.pull("b", 26);
    assert_eq!(bench.pulls(), pulls(&[("_other", 2), ("b", 1)]));
}

#[test]
fn a_repository_keeps_its_label_until_its_operation_is_counted() {
    let bench = Bench::new(1, &[], &[]);
    bench.pull("a", 0);
    let mut handle = bench.repositories.find("a");
    bench.pull("b", 48);
    bench.repositories.bytes(&mut handle, Transfer::Download, 7);
    let bytes = bench.samples("repository_bytes_total{direction=\"download\",repository=\"a\"}");
    assert_eq!(bytes.map(|(_, value)| value).collect::<Vec<_>>(), [7]);
    bench.repositories.finish(&mut handle);
    bench.pull("b", 48);
    assert_eq!(bench.pulls(), pulls(&[("_other", 2), ("a", 1)]));
    bench.repositories.record(&handle, Pull, bench.start);
    assert_eq!(bench.pulls(), pulls(&[("_other", 2), ("a", 2)]));
    drop(handle);
    bench.pull("b", 48);
    assert_eq!(bench.pulls(), pulls(&[("_other", 2), ("b", 1)]));
}

#[test]
fn bytes_of_an_admitted_repository_are_counted_as_they_move() {
    let bench = Bench::new(1, &[], &[]);
    let bytes = |label: &str| {
        let series =
            format!("repository_bytes_total{{direction=\"upload\",repository=\"{label}\"}}");
        bench.samples(&series).map(|(_, value)| value).sum::<u64>()
    };
    let now = bench.start;
    let mut first = bench.repositories.find("a");
    bench.repositories.bytes(&mut first, Transfer::Upload, 5);
    assert_eq!(bytes("a"), 0, "the repository may not exist");
    bench.repositories.admit(&mut first, "a", now);
    assert_eq!(bytes("a"), 5);
    bench.repositories.bytes(&mut first, Transfer::Upload, 6);
    assert_eq!(bytes("a"), 11);
    bench.repositories.finish(&mut first);
    assert_eq!(bytes("a"), 11);
    let mut other = bench.repositories.find("b");
    bench.repositories.bytes(&mut other, Transfer::Upload, 3);
    bench.repositories.admit(&mut other, "b", now);
    bench.repositories.finish(&mut other);
    assert_eq!((bytes("a"), bytes("_other")), (11, 3));
}

#[test]
fn a_text_that_is_not_a_name_is_never_a_label() {
    let bench = Bench::new(9, &[], &[]);
    let long = "a".repeat(256);
    for name in [
        "A", "a//b", "_other", "a/_b", "..", "a%2fb", "a b", "", &long,
    ] {
        bench.pull(name, 0);
    }
    assert_eq!(bench.pulls(), pulls(&[("_other", 9)]));
}

#[test]
fn the_last_pull_is_the_time_of_day() {
    let bench = Bench::new(1, &[], &[]);
    bench.pull("a", 0);
    let handle = bench.repositories.find("a");
    bench
        .repositories
        .pulled(&handle, SystemTime::UNIX_EPOCH + Duration::from_secs(7));
    let last = bench.samples("repository_last_pull_timestamp_seconds{repository=\"a\"}");
    assert_eq!(last.map(|(_, value)| value).collect::<Vec<_>>(), [7]);
}

#[test]
fn groups_share_a_label_and_the_allow_list_comes_first() {
    let groups = [
        ("^team-([a-z]+)/", "team-$1"),
        ("^team-", "teams"),
        ("^x(.*)", "$1"),
    ];
    let bench = Bench::new(5, &["team-a/own"], &groups);
    for name in [
        "team-a/x",
        "team-a/y",
        "team-a/own",
        "team-1",
        "y",
        "x_other",
        "x",
    ] {
        bench.pull(name, 0);
    }
    assert_eq!(
        bench.pulls(),
        pulls(&[
            ("_other", 2),
            ("team-a", 2),
            ("team-a/own", 1),
            ("teams", 1),
            ("y", 1)
        ])
    );
    // A member of a group is in the cache by now; another is not before it is admitted.
    assert!(bench.repositories.find("team-a/x").slot.is_some());
    assert!(bench.repositories.find("team-a/z").slot.is_none());
}

#[test]
fn a_label_may_refer_to_captured_groups_only() {
    let about = |names: &str, label: &str| {
        let rule = GroupRule::new(names, label.to_owned());
        rule.err().map(|error| error.is_about_label())
    };
    for label in ["$1", "${1}s", "$team-$0", "a$$b", "100$", "$ $-"] {
        assert_eq!(about("^(?<team>a)", label), None, "{label}");
    }
    for label in ["$2", "$1s", "${name}", "", "_$1", "_other"] {
        assert_eq!(about("^(?<team>a)", label), Some(true), "{label}");
    }
    assert_eq!(about("(", "a"), Some(false));
}

/// One step of a random history.
#[derive(Clone, Debug)]
struct Step {
    name: u8,
    admits: bool,
    bytes: u16,
    minutes: u16,
}

fn step() -> impl Strategy<Value = Step> {
    (0..8_u8, prop::bool::weighted(0.7), any::<u16>(), 0..900_u16).prop_map(
        |(name, admits, bytes, minutes)| Step {
            name,
            admits,
            bytes,
            minutes,
        },
    )
}

/// The contract in its simplest form: label, pulls and pushes, bytes, last use in minutes.
#[derive(Default)]
struct Model {
    shown: Vec<(u8, u64, u64, u64)>,
    other: (u64, u64),
    printed_other: bool,
}

impl Model {
    fn step(&mut self, step: &Step, cap: usize, now: u64) {
        let bytes = u64::from(step.bytes);
        let mut at = self.shown.iter().position(|slot| slot.0 == step.name);
        if at.is_none() && step.admits {
            if self.shown.len() == cap {
                let oldest = (0..cap).min_by_key(|&slot| self.shown[slot].3);
                if let Some(oldest) = oldest.filter(|&at| self.shown[at].3 + 24 * 60 <= now) {
                    self.shown.remove(oldest);
                }
            }
            if self.shown.len() < cap {
                self.shown.push((step.name, 0, 0, now));
                at = Some(self.shown.len() - 1);
            }
        }
        if let Some(at) = at {
            let slot = &mut self.shown[at];
            slot.1 += 1;
            slot.2 += bytes;
            slot.3 = now;
        } else {
            self.other.0 += 1;
            self.other.1 += bytes;
            self.printed_other = true;
        }
    }
}

proptest! {
    #[test]
    fn any_history_is_counted_as_the_contract_says(
        cap in 0..4_usize,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let bench = Bench::new(cap, &[], &[]);
        let mut model = Model::default();
        let mut minutes = 0;
        for step in &steps {
            // No two at the same time: then either might be the least recently used.
            minutes += u64::from(step.minutes) + 1;
            let now = bench.start + Duration::from_secs(60 * minutes);
            let name = format!("r{}", step.name);
            let repositories = &bench.repositories;
            let mut handle = repositories.find(&name);
            repositories.bytes(&mut handle, Transfer::Upload, u64::from(step.bytes));
            if step.admits {
                repositories.admit(&mut handle, &name, now);
            }
            repositories.record(&handle, if step.admits { Push } else { Other }, now);
            repositories.finish(&mut handle);
            model.step(step, cap, minutes);
            prop_assert!(bench.series() <= bench.registry.max_series());
        }
        let mut expected: BTreeMap<String, (u64, u64)> = model
            .shown
            .iter()
            .map(|&(name, operations, bytes, _)| (format!("r{name}"), (operations, bytes)))
            .collect();
        if model.printed_other {
            expected.insert(OTHER.to_owned(), model.other);
        }
        let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for operation in ["push", "other"] {
            for (label, count) in bench.counts(operation) {
                found.entry(label).or_default().0 += count;
            }
        }
        for (labels, value) in bench.samples("repository_bytes_total{") {
            let label = labels.split("repository=\"").nth(1).unwrap().split('"').next().unwrap();
            found.entry(label.to_owned()).or_default().1 += value;
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(bench.overflow(), model.other.0);
        prop_assert_eq!(bench.registry.max_series(), 12 * (cap + 1) + 1);
    }
}
