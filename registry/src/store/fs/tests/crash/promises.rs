//! What was promised: which operations were acknowledged at a moment, and what must be there then.

use std::collections::{BTreeMap, BTreeSet};

use super::recording::Event;
use crate::oci::{Digest, Name, Tag};
use crate::store::UploadId;

/// Something that is there or not, or that leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Blob(Name, Digest),
    Manifest(Name, Digest),
    Tag(Name, Tag),
}

/// What an item is: absent, or this digest.
pub(super) type Value = Option<Digest>;

/// An operation of a history.
#[derive(Clone, Debug, Default)]
pub(super) struct Operation {
    /// What the items are after it.
    pub(super) effects: Vec<(Item, Value)>,
    /// The items that it may remove, or not.
    pub(super) takes: Vec<Item>,
    /// The sessions that it ends.
    pub(super) ends: Vec<usize>,
    /// When it began, and when it was acknowledged. A refused one has no effect and no begin.
    pub(super) begun: Option<usize>,
    /// Also a refused one may end a session.
    pub(super) has_begun: bool,
    pub(super) ended: Option<usize>,
}

/// All that a history did, up to a moment.
#[derive(Default)]
pub(super) struct Promises {
    now: usize,
    pub(super) operations: Vec<Operation>,
    /// The sessions, with the bytes that were acknowledged last.
    pub(super) uploads: Vec<(Name, UploadId)>,
    received: BTreeMap<usize, u64>,
    /// Content by its digest, and the subjects of manifests.
    pub(super) content: BTreeMap<Digest, Vec<u8>>,
    pub(super) subjects: BTreeMap<Digest, Digest>,
    /// The blobs of manifests, without which these must not be there.
    pub(super) blobs: BTreeMap<Digest, Vec<Digest>>,
    /// The manifests of indexes, likewise; where no client deletes them.
    pub(super) children: BTreeMap<Digest, Vec<Digest>>,
}

impl Promises {
    /// Goes on to the moment after an event. Returns whether it changes what was promised.
    pub(super) fn apply(&mut self, event: &Event) -> bool {
        self.now += 1;
        match *event {
            Event::Begun(number) => {
                self.operations[number].begun = Some(self.now);
                self.operations[number].has_begun = true;
            }
            Event::Ended(number, true) => self.operations[number].ended = Some(self.now),
            Event::Ended(number, false) => self.operations[number].begun = None,
            Event::Uploaded(number, bytes) => {
                self.received.insert(number, bytes);
            }
            _ => return false,
        }
        true
    }

    /// All items that the history has.
    pub(super) fn items(&self) -> BTreeSet<&Item> {
        let effects = self.operations.iter().flat_map(|one| &one.effects);
        effects.map(|(item, _)| item).collect()
    }

    /// What an item may be now: what the acknowledged operation made it that no later one has
    /// followed, or what one in progress makes of it.
    pub(super) fn allowed(&self, item: &Item) -> BTreeSet<Value> {
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        for operation in self.operations.iter().filter(|one| one.begun.is_some()) {
            for (_, value) in operation.effects.iter().filter(|effect| effect.0 == *item) {
                match operation.ended {
                    Some(_) => ended.push((operation, value.clone())),
                    None => open.push((operation, value.clone())),
                }
            }
        }
        let mut allowed = BTreeSet::new();
        if ended.is_empty() {
            allowed.insert(None);
        }
        let last: Vec<_> = ended
            .iter()
            .filter(|(one, _)| !ended.iter().any(|(later, _)| later.begun > one.ended))
            .collect();
        for (operation, value) in last.into_iter().chain(&open) {
            self.add(&mut allowed, item, operation, value);
        }
        allowed
    }

    /// Adds what an operation makes of an item. A tag goes with its manifest.
    fn add(
        &self,
        allowed: &mut BTreeSet<Value>,
        item: &Item,
        operation: &Operation,
        value: &Value,
    ) {
        let takes = self.operations.iter().any(|one| {
            let is_later = one.ended.is_none() || one.ended > operation.begun;
            one.begun.is_some() && is_later && one.takes.contains(item)
        });
        if takes {
            allowed.insert(None);
        }
        let (Item::Tag(name, _), Some(digest)) = (item, value) else {
            allowed.insert(value.clone());
            return;
        };
        let deletion = (Item::Manifest(name.clone(), digest.clone()), None);
        let deletions = self
            .operations
            .iter()
            .filter(|one| one.begun.is_some() && one.effects.contains(&deletion));
        let mut is_deleted = false;
        for one in deletions {
            if one.ended.is_some() && operation.ended.is_some() && one.begun > operation.ended {
                is_deleted = true;
            }
            // One that ended before the tag was written did not see it.
            if one.ended.is_none() || one.ended > operation.begun {
                allowed.insert(None);
            }
        }
        if !is_deleted {
            allowed.insert(value.clone());
        }
    }

    /// The sessions that are open now, with the bytes that were acknowledged: what a restart of the
    /// program must find.
    pub(super) fn open_uploads(&self) -> Vec<(&Name, &UploadId, u64)> {
        let ended: BTreeSet<_> = self
            .operations
            .iter()
            .filter(|one| one.has_begun)
            .flat_map(|one| &one.ends)
            .collect();
        let open = self.received.iter().filter(|(n, _)| !ended.contains(n));
        open.map(|(&number, &bytes)| {
            let (name, id) = &self.uploads[number];
            (name, id, bytes)
        })
        .collect()
    }
}
