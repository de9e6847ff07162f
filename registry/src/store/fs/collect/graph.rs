//! The manifests of a repository, and which of them lead to which.

use std::collections::HashMap;
use std::mem;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::oci::Digest;

/// Manifests that go together, or not at all.
pub(super) type Group = Vec<Digest>;

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
    /// By number, the number of the subject.
    subjects: Vec<Option<usize>>,
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
        let mut subjects = vec![None; nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            let Some(subject) = &node.subject else {
                continue;
            };
            match numbers.get(subject).copied() {
                Some(subject) => {
                    leads_to[subject].push(at);
                    subjects[at] = Some(subject);
                }
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
            subjects,
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
    ///
    /// A referrer may mention its subject elsewhere, too: then each leads to the other, and they make a group.
    /// A group of more than `most` is divided: then a referrer goes before a subject that it mentions.
    pub(super) fn rounds(&self, most: usize) -> Vec<Vec<Group>> {
        // The first round in which a manifest may go.
        let mut earliest = vec![0; self.digests.len()];
        let mut rounds: Vec<Vec<Group>> = Vec::new();
        // It says them in the opposite order.
        for component in self.components().into_iter().rev() {
            let first = component.iter().map(|&at| earliest[at]).max();
            let first = first.unwrap_or_default();
            let groups = if component.len() <= most {
                vec![vec![component.clone()]]
            } else {
                self.by_mentions(&component)
            };
            let next = first + groups.len();
            for (groups, round) in groups.into_iter().zip(first..) {
                if rounds.len() <= round {
                    rounds.resize_with(round + 1, Vec::new);
                }
                rounds[round].extend(groups.iter().map(|group| self.digests(group)));
            }
            for &to in component.iter().flat_map(|&at| &self.leads_to[at]) {
                earliest[to] = earliest[to].max(next);
            }
        }
        rounds
    }

    /// Those that need not stay, each with all that lead to it and to which it leads. Who leads to another one
    /// comes later.
    fn components(&self) -> Vec<Vec<usize>> {
        let mut graph = DiGraph::<(), ()>::with_capacity(self.kept.len(), 0);
        for _ in &self.kept {
            graph.add_node(());
        }
        let goes = |at: &usize| !self.kept[*at];
        for from in (0..self.kept.len()).filter(goes) {
            for &to in self.leads_to[from].iter().filter(|to| goes(to)) {
                graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
            }
        }
        let components = kosaraju_scc(&graph).into_iter();
        let components = components.map(|all| all.into_iter().map(NodeIndex::index).collect());
        components
            .filter(|all: &Vec<_>| all.iter().all(goes))
            .collect()
    }

    /// Divides a component by what its manifests mention: in that they make no circle, since none can mention
    /// a digest that depends on its own.
    fn by_mentions(&self, component: &[usize]) -> Vec<Vec<Vec<usize>>> {
        let mut mentioning: HashMap<_, usize> = component.iter().map(|&at| (at, 0)).collect();
        let mentioned = |from: usize| {
            let all = self.leads_to[from].iter().copied();
            all.filter(move |&to| self.subjects[to] != Some(from))
        };
        for to in component.iter().flat_map(|&from| mentioned(from)) {
            mentioning.entry(to).and_modify(|count| *count += 1);
        }
        let mut now: Vec<_> = component
            .iter()
            .copied()
            .filter(|at| mentioning.get(at) == Some(&0))
            .collect();
        let mut rounds = Vec::new();
        while !now.is_empty() {
            let mut later = Vec::new();
            for to in now.iter().flat_map(|&from| mentioned(from)) {
                if let Some(count) = mentioning.get_mut(&to) {
                    *count -= 1;
                    if *count == 0 {
                        later.push(to);
                    }
                }
            }
            rounds.push(now.into_iter().map(|at| vec![at]).collect());
            now = later;
        }
        rounds
    }

    fn digests(&self, numbers: &[usize]) -> Vec<Digest> {
        numbers.iter().map(|&at| self.digests[at].clone()).collect()
    }
}

#[cfg(test)]
mod tests;
