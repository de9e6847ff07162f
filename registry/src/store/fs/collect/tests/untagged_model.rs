//! The protocol by which untagged manifests go as a small model, explored in full, like that of blobs
//! ([`model`](super::model)).
//!
//! One repository may hold an image, an index that mentions it, and a referrer of the image. One tag leads to
//! the index or to the image. Clients push and delete them, move and delete the tag, and ask for them, while a
//! collection, and a retention beside it, remove what no tag leads to.

use self::Kind::{Collect, Delete, Head, Put, Untag};
use super::exploration::{self, ModelState};

const IMAGE: usize = 0;
const INDEX: usize = 1;
const REFERRER: usize = 2;

/// What each manifest leads to: an index to its image, and an image to its referrers.
const LEADS_TO: [Option<usize>; 3] = [Some(REFERRER), Some(IMAGE), None];

/// The order in which they go: before what they lead to.
const ORDER: [usize; 3] = [INDEX, IMAGE, REFERRER];

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A collection that begins to watch waits until the lock is free.
    Pass,
    /// It keeps the manifests that were written since, and what they lead to.
    KeepWritten,
    /// What a manifest leads to that stays is kept.
    KeepReached,
    /// What a client was told of is not removed: the time is read under the lock.
    LookAtTime,
    /// A manifest that loses its tag counts as told.
    RenewUntagged,
    /// Manifests that lead to others go first.
    LeadersFirst,
    /// An index looks for its image again if something was removed since it looked.
    LookAgain,
    /// A write that points a tag at a manifest says so, also when it has said the entry before.
    SayTag,
    /// It also looks whether the entry is still there.
    LookBeforeTag,
}

const RULES: [Rule; 9] = [
    Rule::Pass,
    Rule::KeepWritten,
    Rule::KeepReached,
    Rule::LookAtTime,
    Rule::RenewUntagged,
    Rule::LeadersFirst,
    Rule::LookAgain,
    Rule::SayTag,
    Rule::LookBeforeTag,
];

/// What all threads see.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Disk {
    is_locked: bool,
    entries: [bool; 3],
    tag: Option<usize>,
    removals: u8,
    /// What was written since each of the collections watches; `None` while it does not.
    watches: [Option<[bool; 3]>; 2],
    /// What clients count on: they were told of it, or it had a tag, within the grace.
    promised: [bool; 3],
    /// What the times of the files say of that.
    told: [bool; 3],
    /// The referrer was acknowledged, and a tag has led to its image ever since.
    is_referrer_promised: bool,
}

/// A thread: what it is, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thread {
    kind: Kind,
    at: u8,
    attempts: u8,
    removals: u8,
    /// What a collection has met, and what of it has to stay.
    met: [bool; 3],
    kept: [bool; 3],
    tag: Option<usize>,
    /// The places in the order that are done.
    done: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Pushes a manifest, with the tag or by its digest.
    Put(usize, bool),
    /// Deletes the tag.
    Untag,
    /// Deletes a manifest, and the tag if it leads there.
    Delete(usize),
    /// Asks for a manifest, and counts on it.
    Head(usize),
    /// One of two collections.
    Collect(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    disk: Disk,
    threads: Vec<Thread>,
}

impl ModelState for State {
    fn threads(&self) -> usize {
        self.threads.len()
    }

    fn is_over(&self) -> bool {
        self.threads.iter().all(|thread| thread.at == END)
    }
}

/// One exploration.
#[derive(Clone, Copy)]
struct Model {
    without: Option<Rule>,
    /// Whether a collection keeps what a client was told of.
    has_grace: bool,
}

const END: u8 = u8::MAX;

impl Disk {
    fn lock(&mut self, thread: &mut Thread) -> bool {
        thread.at += 1;
        !std::mem::replace(&mut self.is_locked, true)
    }

    /// All that an index needs is there.
    fn is_complete(&self, manifest: usize) -> bool {
        manifest != INDEX || self.entries[IMAGE]
    }

    fn say(&mut self, manifest: usize) {
        for written in self.watches.iter_mut().flatten() {
            written[manifest] = true;
        }
    }
}

impl Model {
    fn has(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// What thread `me` does next; `None` if it waits for the lock, or has ended.
    fn step(self, state: &State, me: usize) -> Option<State> {
        let mut next = state.clone();
        let (disk, thread) = (&mut next.disk, &mut next.threads[me]);
        let goes_on = match thread.kind {
            _ if thread.at == END => false,
            Put(manifest, has_tag) => self.put(disk, thread, manifest, has_tag),
            Untag => self.untag(disk, thread),
            Delete(manifest) => delete(disk, thread, manifest),
            Head(manifest) => head(disk, thread, manifest),
            Collect(which) => self.collect(disk, thread, which),
        };
        goes_on.then_some(next)
    }

    fn put(self, disk: &mut Disk, thread: &mut Thread, manifest: usize, has_tag: bool) -> bool {
        let mut to = thread.at + 1;
        match thread.at {
            0 => thread.removals = disk.removals,
            1 if !disk.is_complete(manifest) => to = END,
            2 | 5 => return disk.lock(thread),
            3 => {
                let looks = self.has(Rule::LookAgain) && disk.removals != thread.removals;
                if looks && !disk.is_complete(manifest) {
                    disk.is_locked = false;
                    to = END;
                } else {
                    disk.say(manifest);
                }
            }
            // The lock is free while the entry is synced.
            4 => {
                disk.entries[manifest] = true;
                (disk.promised[manifest], disk.told[manifest]) = (true, true);
                disk.is_referrer_promised |= manifest == REFERRER && disk.tag.is_some();
                disk.is_locked = false;
                to = if has_tag { 5 } else { END };
            }
            6 if self.has(Rule::LookBeforeTag) && !disk.entries[manifest] => {
                disk.is_locked = false;
                thread.attempts += 1;
                to = if thread.attempts < 2 { 0 } else { END };
            }
            6 if self.has(Rule::SayTag) => disk.say(manifest),
            1 | 6 => {}
            _ => {
                if let Some(old) = disk.tag.filter(|&old| old != manifest) {
                    self.lose_tag(disk, old);
                }
                disk.tag = Some(manifest);
                disk.is_locked = false;
                to = END;
            }
        }
        thread.at = to;
        true
    }

    /// A manifest is kept for the grace from when its tag left.
    fn lose_tag(self, disk: &mut Disk, manifest: usize) {
        disk.promised[manifest] = true;
        disk.told[manifest] |= self.has(Rule::RenewUntagged);
    }

    fn untag(self, disk: &mut Disk, thread: &mut Thread) -> bool {
        if thread.at == 0 {
            return disk.lock(thread);
        }
        if let Some(old) = disk.tag.take() {
            self.lose_tag(disk, old);
        }
        disk.is_referrer_promised = false;
        disk.is_locked = false;
        thread.at = END;
        true
    }

    fn collect(self, disk: &mut Disk, thread: &mut Thread, which: usize) -> bool {
        let mut to = thread.at + 1;
        match thread.at {
            0 => {
                disk.watches[which] = Some([false; 3]);
                (thread.met, thread.kept, thread.done) = ([false; 3], [false; 3], 0);
            }
            1 if self.has(Rule::Pass) && disk.is_locked => return false,
            1 => {}
            2 => thread.tag = disk.tag,
            // The directory of the entries, one after the other.
            3..6 => {
                let manifest = usize::from(thread.at - 3);
                thread.met[manifest] = disk.entries[manifest];
                if disk.entries[manifest]
                    && (thread.tag == Some(manifest) || self.is_told(disk, manifest))
                {
                    thread.kept[manifest] = true;
                }
            }
            // What they mention, as far as they are still there.
            6 => {
                for manifest in ORDER {
                    thread.met[manifest] &= disk.entries[manifest];
                    if thread.met[manifest] && thread.kept[manifest] {
                        self.keep(thread, manifest);
                    }
                }
            }
            7 => return disk.lock(thread),
            8 => {
                if self.has(Rule::KeepWritten) {
                    for manifest in ORDER {
                        let is_written = disk.watches[which].is_some_and(|all| all[manifest]);
                        // Of one that is gone nobody knows what it mentions.
                        if is_written && (thread.met[manifest] || disk.entries[manifest]) {
                            self.keep(thread, manifest);
                        }
                    }
                }
                let order = if self.has(Rule::LeadersFirst) {
                    ORDER
                } else {
                    [IMAGE, REFERRER, INDEX]
                };
                let manifest = order[thread.done];
                if thread.met[manifest]
                    && self.is_told(disk, manifest)
                    && self.has(Rule::LookAtTime)
                {
                    self.keep(thread, manifest);
                }
                if thread.met[manifest] && !thread.kept[manifest] && disk.entries[manifest] {
                    (disk.entries[manifest], disk.removals) = (false, disk.removals + 1);
                }
                thread.done += 1;
                disk.is_locked = false;
                to = if thread.done < ORDER.len() { 7 } else { 9 };
            }
            _ => {
                disk.watches[which] = None;
                thread.attempts += 1;
                to = if thread.attempts < 2 { 0 } else { END };
            }
        }
        thread.at = to;
        true
    }

    fn is_told(self, disk: &Disk, manifest: usize) -> bool {
        self.has_grace && disk.told[manifest]
    }

    fn keep(self, thread: &mut Thread, manifest: usize) {
        thread.kept[manifest] = true;
        let mut at = manifest;
        while self.has(Rule::KeepReached)
            && let Some(to) = LEADS_TO[at]
        {
            thread.kept[to] = true;
            at = to;
        }
    }

    /// Visits all states. Returns how many there are, or one in which something is missing.
    fn explore(self, start: Disk, kinds: &[Kind]) -> Result<usize, Box<State>> {
        let threads = kinds.iter().map(|&kind| Thread {
            kind,
            at: 0,
            attempts: 0,
            removals: 0,
            met: [false; 3],
            kept: [false; 3],
            tag: None,
            done: 0,
        });
        let start = State {
            disk: start,
            threads: threads.collect(),
        };
        exploration::explore(
            start,
            |state, me| self.step(state, me),
            |state| self.misses_something(&state.disk),
        )
    }

    fn misses_something(self, disk: &Disk) -> bool {
        let is_cut = disk.entries[INDEX] && !disk.entries[IMAGE];
        let leads_nowhere = disk.tag.is_some_and(|to| !disk.entries[to]);
        let lost = (0..3).any(|manifest| disk.promised[manifest] && !disk.entries[manifest]);
        is_cut
            || leads_nowhere
            || self.has_grace && lost
            || disk.is_referrer_promised && !disk.entries[REFERRER]
    }
}

fn delete(disk: &mut Disk, thread: &mut Thread, manifest: usize) -> bool {
    match thread.at {
        0 => return disk.lock(thread),
        1 => {
            if disk.tag == Some(manifest) {
                (disk.tag, disk.is_referrer_promised) = (None, false);
            }
            thread.at = 2;
        }
        _ => {
            disk.promised[manifest] = false;
            disk.is_referrer_promised &= manifest != REFERRER;
            (disk.entries[manifest], disk.removals) = (false, disk.removals + 1);
            disk.is_locked = false;
            thread.at = END;
        }
    }
    true
}

fn head(disk: &mut Disk, thread: &mut Thread, manifest: usize) -> bool {
    match thread.at {
        0 if !disk.entries[manifest] => thread.at = END,
        0 => thread.at = 1,
        1 => return disk.lock(thread),
        _ => {
            disk.told[manifest] |= disk.entries[manifest];
            disk.promised[manifest] |= disk.entries[manifest];
            disk.is_locked = false;
            thread.at = END;
        }
    }
    true
}

/// The clients of one exploration, and what is there before.
fn scenes() -> Vec<(Disk, Vec<Kind>)> {
    let disk = |entries, tag| Disk {
        entries,
        tag,
        is_referrer_promised: entries[REFERRER] && tag.is_some(),
        ..Disk::default()
    };
    let all = [true; 3];
    let pair = [true, true, false];
    let none = disk([false; 3], None);
    let alone = disk([true, false, false], None);
    let clients = [
        (none.clone(), [Put(IMAGE, false), Put(INDEX, true)]),
        (none, [Put(IMAGE, true), Put(REFERRER, false)]),
        (disk(pair, Some(INDEX)), [Untag, Put(INDEX, true)]),
        (disk(pair, Some(INDEX)), [Delete(INDEX), Put(INDEX, true)]),
        (disk(pair, Some(INDEX)), [Put(IMAGE, true), Head(INDEX)]),
        (disk(pair, None), [Put(IMAGE, true), Put(INDEX, false)]),
        (disk(pair, None), [Delete(INDEX), Put(INDEX, true)]),
        (disk(pair, None), [Head(IMAGE), Head(INDEX)]),
        (disk(all, Some(INDEX)), [Put(IMAGE, true), Untag]),
        (
            disk(all, Some(IMAGE)),
            [Put(INDEX, true), Put(REFERRER, false)],
        ),
        (
            disk(all, Some(IMAGE)),
            [Delete(REFERRER), Put(REFERRER, false)],
        ),
        (disk(all, None), [Put(INDEX, true), Put(REFERRER, false)]),
        (alone, [Put(INDEX, true), Untag]),
        (
            disk([true, false, true], None),
            [Put(IMAGE, true), Put(REFERRER, false)],
        ),
    ];
    let mut scenes = Vec::new();
    for (disk, [one, two]) in clients {
        scenes.push((disk.clone(), vec![one, two, Collect(0)]));
        for client in [one, two] {
            scenes.push((disk.clone(), vec![client, Collect(0), Collect(1)]));
        }
    }
    scenes
}

fn explore(without: Option<Rule>) -> Result<usize, Box<State>> {
    let mut states = 0;
    for has_grace in [false, true] {
        for (disk, kinds) in scenes() {
            let model = Model { without, has_grace };
            states += model.explore(disk, &kinds)?;
        }
    }
    Ok(states)
}

#[test]
fn nothing_that_a_tag_leads_to_or_a_client_was_told_of_is_ever_missing() {
    let states = explore(None).unwrap_or_else(|state| panic!("{state:#?}"));
    assert!(states > 10_000, "{states}");
}

#[test]
fn each_rule_is_needed() {
    for rule in RULES {
        explore(Some(rule)).expect_err(&format!("nothing goes wrong without {rule:?}"));
    }
}
