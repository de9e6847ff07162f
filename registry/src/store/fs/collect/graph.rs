//! The manifests of a repository, and which of them lead to which.

use std::collections::HashMap;
use std::mem;

use crate::oci::Digest;

/// A manifest of a repository.
pub(super) struct Node {
    pub(super) digest: Digest,
    /// The manifests of the repository that it mentions, each once.
    pub(super) children: Vec<Digest>,
    pub(super) subject: Option<Digest>,
    /// Whether no tag points at it, and nobody was told of it lately.
    pub(super) is_candidate: bool,
}

/// The manifests of a repository. An index leads to its manifests, and a manifest to its referrers.
pub(super) struct ManifestGraph {
    digests: Vec<Digest>,
    numbers: HashMap<Digest, usize>,
    /// By number, the numbers of those that each manifest leads to.
    leads_to: Vec<Vec<usize>>,
    /// The referrers of subjects that are not there. A subject may be pushed after its referrer.
    waiting: HashMap<Digest, Vec<usize>>,
    /// By number, whether a manifest is no candidate, or one that is none leads to it.
    kept: Vec<bool>,
}

impl ManifestGraph {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        let numbers: HashMap<_, _> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| (node.digest.clone(), at))
            .collect();
        let mut leads_to: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let children = node.children.iter().filter_map(|child| numbers.get(child));
            leads_to.push(children.copied().collect());
        }
        let mut waiting: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            let Some(subject) = &node.subject else {
                continue;
            };
            match numbers.get(subject) {
                Some(&subject) => leads_to[subject].push(at),
                None => waiting.entry(subject.clone()).or_default().push(at),
            }
        }
        // It may be among several of them.
        for numbers in &mut leads_to {
            numbers.sort_unstable();
            numbers.dedup();
        }
        let mut graph = Self {
            kept: vec![false; nodes.len()],
            digests: Vec::with_capacity(nodes.len()),
            numbers,
            leads_to,
            waiting,
        };
        let mut kept = Vec::new();
        for (at, node) in nodes.into_iter().enumerate() {
            graph.digests.push(node.digest);
            if !node.is_candidate {
                kept.push(at);
            }
        }
        graph.keep_all(kept);
        graph
    }

    /// Whether a manifest has to stay.
    pub(super) fn keeps(&self, digest: &Digest) -> bool {
        self.numbers.get(digest).is_some_and(|&at| self.kept[at])
    }

    /// Keeps a manifest, and what it leads to. Returns false if it is not known, so that nobody knows which
    /// manifests it mentions.
    pub(super) fn keep(&mut self, digest: &Digest) -> bool {
        let known = self.numbers.get(digest).copied();
        let waiting = self.waiting.remove(digest).unwrap_or_default();
        self.keep_all(known.into_iter().chain(waiting).collect());
        known.is_some()
    }

    fn keep_all(&mut self, mut next: Vec<usize>) {
        while let Some(at) = next.pop() {
            if !mem::replace(&mut self.kept[at], true) {
                next.extend(&self.leads_to[at]);
            }
        }
    }

    /// The manifests that need not stay, in an order in which each one is gone before those that it leads to.
    /// Takes time in proportion to the manifests and what they lead to.
    pub(super) fn rounds(&self) -> Vec<Vec<Digest>> {
        let mut is_ordered = self.kept.clone();
        let mut left: Vec<_> = (0..is_ordered.len())
            .filter(|&at| !is_ordered[at])
            .collect();
        // How many of those that are left lead to it.
        let mut leading = vec![0_usize; is_ordered.len()];
        for &to in left.iter().flat_map(|&from| &self.leads_to[from]) {
            leading[to] += 1;
        }
        let mut rounds = Vec::new();
        let mut now: Vec<_> = left
            .iter()
            .copied()
            .filter(|&at| leading[at] == 0)
            .collect();
        while !now.is_empty() {
            let mut later = Vec::new();
            for &at in &now {
                is_ordered[at] = true;
                for &to in &self.leads_to[at] {
                    leading[to] -= 1;
                    if leading[to] == 0 && !is_ordered[to] {
                        later.push(to);
                    }
                }
            }
            rounds.push(self.digests(&now));
            now = later;
        }
        // A referrer may mention its subject, too: then each leads to the other, and they go together.
        left.retain(|&at| !is_ordered[at]);
        if !left.is_empty() {
            rounds.push(self.digests(&left));
        }
        rounds
    }

    fn digests(&self, numbers: &[usize]) -> Vec<Digest> {
        numbers.iter().map(|&at| self.digests[at].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(graph.rounds(), [[]; 0]);
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
        let in_order: Vec<_> = names.iter().map(|name| vec![digest(name)]).collect();
        assert_eq!(graph.rounds(), in_order);
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
        let mut rounds = graph.rounds();
        for round in &mut rounds {
            round.sort();
        }
        let mut first = ["index", "of nobody"].map(digest);
        let mut second = ["image", "signature"].map(digest);
        first.sort();
        second.sort();
        assert_eq!(rounds, [first.to_vec(), second.to_vec()]);
    }

    #[test]
    fn those_that_lead_to_each_other_go_together() {
        let graph = ManifestGraph::new(vec![
            node("image", &[], None, true),
            node("signature", &["image"], Some("image"), true),
        ]);
        assert_eq!(graph.rounds().concat().len(), 2);
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
        assert_eq!(graph.rounds(), [[digest("other")]]);
    }
}
