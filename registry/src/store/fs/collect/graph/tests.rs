use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::oci::Algorithm;

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn node(name: &str, children: &[&str], subject: Option<&str>, is_candidate: bool) -> Node {
    Node {
        digest: digest(name),
        children: children.iter().map(|child| digest(child)).collect(),
        subject: subject.map(digest),
        is_candidate,
    }
}

/// The rounds, each sorted.
fn rounds(graph: &ManifestGraph) -> Vec<Vec<Group>> {
    let mut rounds = graph.rounds(32);
    for round in &mut rounds {
        for group in &mut *round {
            group.sort();
        }
        round.sort();
    }
    rounds
}

/// A round of these groups.
fn round(groups: &[&[&str]]) -> Vec<Group> {
    let group = |names: &&[&str]| {
        let mut group: Group = names.iter().map(|name| digest(name)).collect();
        group.sort();
        group
    };
    let mut round: Vec<_> = groups.iter().map(group).collect();
    round.sort();
    round
}

#[test]
fn what_a_kept_manifest_leads_to_is_kept_at_any_depth() {
    let graph = ManifestGraph::new(vec![
        node("index", &["index 2"], None, false),
        node("index 2", &["image"], None, true),
        node("image", &[], None, true),
        node("signature", &[], Some("image"), true),
        node("of the signature", &["layers"], Some("signature"), true),
        node("layers", &[], None, true),
    ]);
    assert!(rounds(&graph).is_empty());
    assert!(graph.keeps(&digest("layers")));
}

#[test]
fn a_long_chain_goes_link_by_link() {
    let names: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
    let link = |n: usize| {
        let subject = n.checked_sub(1).map(|before| names[before].as_str());
        node(&names[n], &[], subject, true)
    };
    let graph = ManifestGraph::new((0..names.len()).map(link).collect());
    let in_order: Vec<_> = names.iter().map(|name| round(&[&[name]])).collect();
    assert_eq!(rounds(&graph), in_order);
}

#[test]
fn what_goes_goes_after_what_leads_to_it() {
    let graph = ManifestGraph::new(vec![
        node("image", &[], None, true),
        node("index", &["image", "shared"], None, true),
        node("signature", &[], Some("index"), true),
        node("shared", &[], None, true),
        node("tagged", &["shared"], None, false),
        node("of nobody", &[], Some("deleted long ago"), true),
    ]);
    assert_eq!(
        rounds(&graph),
        [
            round(&[&["index"], &["of nobody"]]),
            round(&[&["image"], &["signature"]])
        ]
    );
}

#[test]
fn those_that_lead_to_each_other_go_together_and_before_what_they_lead_to() {
    let graph = ManifestGraph::new(vec![
        node("image", &[], None, true),
        node("index", &["image"], None, true),
        node("signature", &["index"], Some("index"), true),
        node("of the signature", &[], Some("signature"), true),
        node("outer index", &["index"], None, true),
    ]);
    assert_eq!(
        rounds(&graph),
        [
            round(&[&["outer index"]]),
            round(&[&["index", "signature"]]),
            round(&[&["image"], &["of the signature"]])
        ]
    );
}

#[test]
fn a_large_group_is_divided_so_that_no_manifest_goes_before_one_that_mentions_it() {
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let mut nodes = vec![
        node("child", &[], None, true),
        node("subject", &["child"], None, true),
    ];
    let mention = |name: &String| node(name, &["subject"], Some("subject"), true);
    nodes.extend(names.iter().map(mention));
    let graph = ManifestGraph::new(nodes);
    let referrers: Vec<_> = names.iter().map(|name| [name.as_str()]).collect();
    let referrers: Vec<_> = referrers.iter().map(|one| &one[..]).collect();
    assert_eq!(
        rounds(&graph),
        [
            round(&referrers),
            round(&[&["subject"]]),
            round(&[&["child"]])
        ]
    );
}

#[test]
fn what_is_written_meanwhile_keeps_what_it_leads_to() {
    let mut graph = ManifestGraph::new(vec![
        node("index", &["image"], None, true),
        node("image", &[], None, true),
        node("signature", &[], Some("image"), true),
        node("early signature", &[], Some("late image"), true),
        node("other", &[], None, true),
    ]);
    assert!(graph.keep(&digest("index")));
    assert!(!graph.keep(&digest("late image")));
    assert_eq!(rounds(&graph), [round(&[&["other"]])]);
}

/// The manifests of a repository: which of the earlier ones each mentions, and which one is its subject. A
/// manifest can only refer to earlier ones, as their digests are in it.
fn any_manifests() -> impl Strategy<Value = Vec<(Vec<usize>, Option<usize>)>> {
    let references = (
        prop::collection::vec(0..40_usize, 0..4),
        prop::option::of(0..40_usize),
    );
    prop::collection::vec(references, 1..40)
}

proptest! {
    #[test]
    fn each_manifest_goes_once_and_before_those_that_it_mentions(
        manifests in any_manifests(),
        kept in prop::collection::vec(0..200_usize, 0..3),
        most in 1..6_usize,
    ) {
        let names: Vec<_> = (0..manifests.len()).map(|n| n.to_string()).collect();
        let earlier = |n: usize, other: usize| other.checked_rem(n);
        let mentions: Vec<Vec<usize>> = manifests
            .iter()
            .enumerate()
            .map(|(n, (all, _))| all.iter().filter_map(|&other| earlier(n, other)).collect())
            .collect();
        let subjects: Vec<Option<usize>> = manifests
            .iter()
            .enumerate()
            .map(|(n, (_, subject))| subject.and_then(|other| earlier(n, other)))
            .collect();
        let nodes = (0..manifests.len()).map(|n| {
            let mut children: Vec<_> = mentions[n].iter().map(|&n| names[n].as_str()).collect();
            children.sort_unstable();
            children.dedup();
            let subject = subjects[n].map(|n| names[n].as_str());
            node(&names[n], &children, subject, !kept.contains(&n))
        });
        let graph = ManifestGraph::new(nodes.collect());
        // By manifest, its round and its group.
        let mut places = HashMap::new();
        let rounds = graph.rounds(most);
        for (at, round) in rounds.iter().enumerate() {
            prop_assert!(!round.is_empty());
            for (number, group) in round.iter().enumerate() {
                prop_assert!(group.len() <= most);
                for digest in group {
                    prop_assert!(places.insert(digest.clone(), (at, number)).is_none());
                }
            }
        }
        for n in 0..manifests.len() {
            let place = places.get(&digest(&names[n])).copied();
            prop_assert_eq!(place.is_none(), graph.keeps(&digest(&names[n])));
            let Some(place) = place else {
                for &mentioned in &mentions[n] {
                    prop_assert!(graph.keeps(&digest(&names[mentioned])));
                }
                continue;
            };
            prop_assert!(subjects[n].is_none_or(|subject| !graph.keeps(&digest(&names[subject]))));
            for &mentioned in &mentions[n] {
                if let Some(&other) = places.get(&digest(&names[mentioned])) {
                    prop_assert!(other == place || other.0 > place.0, "{} {}", n, mentioned);
                }
            }
        }
    }
}
