//! The protocol of content, links and collection as a small model, explored in full.
//!
//! There is one blob, and two repositories that may hold it. Clients push and mount it, name it in an image,
//! delete both, and ask for it, while collections run. A step of the model is what one thread does between
//! two moments at which another may see it. All interleavings of all steps are visited. Each rule of the
//! protocol is also left out once, to see that the exploration finds what goes wrong without it.

#![expect(clippy::struct_excessive_bools, reason = "a model: each fact is a bit")]

use self::Kind::{Collect, Delete, Head, Mount, Push};
use super::exploration::{self, ModelState};

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Who adds content to a repository says that it relies on it.
    Say,
    /// It says so before it looks for the content.
    SayFirst,
    /// A collection that begins to watch waits for those who hold the lock of a repository.
    PassAll,
    /// It does so again for the repository whose manifests it is about to read.
    PassOne,
    /// It reads the manifests that were written since.
    ReadWritten,
    /// A manifest looks for its blobs again if one was removed since it looked.
    LookAgain,
    /// A link that a client was told of is not removed.
    LookAtTime,
    /// A push whose content went before it was linked brings it again.
    BringAgain,
}

/// What all threads see.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Disk {
    content: bool,
    repositories: [Repository; 2],
    shard_lock: Lock,
    is_watched: bool,
    said: bool,
    /// The repository that the collection is at.
    pruned: Option<usize>,
    written: bool,
}

type Lock = Option<usize>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Repository {
    lock: Lock,
    link: bool,
    /// A client was told of the link within the grace.
    is_fresh: bool,
    entry: bool,
    removals: u8,
    /// The client knows that the image is there.
    acknowledged: bool,
    /// The client knows that the blob is there, and nobody has deleted it.
    told: bool,
    /// A push was refused that has brought all it names.
    refused: bool,
}

/// A thread: what it is, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thread {
    kind: Kind,
    at: u8,
    /// What it has read.
    saw_watched: bool,
    saw_content: bool,
    removals: u8,
    mentioned: bool,
    held: bool,
    /// Which repositories were there when the walk read their directory.
    met: [bool; 2],
    attempts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Pushes the blob and an image of it.
    Push(usize),
    /// Mounts the blob from anywhere, and pushes an image of it.
    Mount(usize),
    /// Deletes image and blob.
    Delete(usize),
    /// Asks for the blob, and counts on it.
    Head(usize),
    Collect,
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

impl Model {
    fn has(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// What thread `me` does next; `None` if it waits for a lock, or has ended.
    fn step(self, state: &State, me: usize) -> Option<State> {
        let mut next = state.clone();
        let (disk, thread) = (&mut next.disk, &mut next.threads[me]);
        let goes_on = match thread.kind {
            _ if thread.at == END => false,
            Kind::Push(at) => self.push(disk, thread, me, at, true),
            Kind::Mount(at) => self.push(disk, thread, me, at, false),
            Kind::Delete(at) => delete(&mut disk.repositories[at], thread, me),
            Kind::Head(at) => head(&mut disk.repositories[at], thread, me),
            Kind::Collect => self.collect(disk, thread, me),
        };
        goes_on.then_some(next)
    }

    fn push(
        self,
        disk: &mut Disk,
        thread: &mut Thread,
        me: usize,
        at: usize,
        brings: bool,
    ) -> bool {
        let is_complete = disk.content && disk.repositories[at].link;
        let here = &mut disk.repositories[at];
        let mut to = thread.at + 1;
        match thread.at {
            0 if !brings => to = 2,
            // `keep`, under the lock of the shard.
            0 => {
                thread.saw_watched = disk.is_watched;
                return take(&mut disk.shard_lock, me, thread, 1);
            }
            1 => {
                disk.said |= thread.saw_watched && self.has(Rule::Say);
                disk.content = true;
                disk.shard_lock = None;
            }
            // `link`, under the lock of the repository.
            2 => return take(&mut here.lock, me, thread, 3),
            3 => {
                thread.saw_watched = disk.is_watched;
                return take(&mut disk.shard_lock, me, thread, 4);
            }
            4 => {
                if self.has(Rule::SayFirst) {
                    disk.said |= thread.saw_watched && self.has(Rule::Say);
                }
                thread.saw_content = disk.content;
                disk.shard_lock = None;
            }
            5 if !thread.saw_content => {
                here.lock = None;
                let again = brings && self.has(Rule::BringAgain) && thread.attempts < 2;
                here.refused |= brings && !again;
                thread.attempts += 1;
                to = if again { 0 } else { END };
            }
            5 => {
                if !self.has(Rule::SayFirst) {
                    disk.said |= thread.saw_watched;
                }
                (here.link, here.is_fresh, here.told) = (true, true, true);
                here.lock = None;
            }
            // The write of a manifest: it looks for the blob without a lock.
            6 => thread.removals = here.removals,
            7 if !is_complete => to = END,
            7 => {}
            8 => return take(&mut here.lock, me, thread, 9),
            9 if self.has(Rule::LookAgain) && here.removals != thread.removals && !is_complete => {
                here.lock = None;
                to = END;
            }
            9 => disk.written |= disk.pruned == Some(at),
            _ => {
                (here.entry, here.acknowledged, here.lock) = (true, true, None);
                to = END;
            }
        }
        thread.at = to;
        true
    }

    fn collect(self, disk: &mut Disk, thread: &mut Thread, me: usize) -> bool {
        // Steps 10 to 19 are about the first repository, 20 to 29 about the second.
        let which = usize::from(thread.at / 10).saturating_sub(1).min(1);
        let mut to = thread.at + 1;
        let is_old =
            |here: &Repository| !(self.has_grace && here.is_fresh && self.has(Rule::LookAtTime));
        match thread.at {
            0 => disk.is_watched = true,
            1 | 2 => {
                let lock = disk.repositories[usize::from(thread.at - 1)].lock;
                if self.has(Rule::PassAll) && lock.is_some() {
                    return false;
                }
                if thread.at == 2 {
                    to = 3;
                }
            }
            3 => {
                thread.met = disk
                    .repositories
                    .each_ref()
                    .map(|here| here.link || here.entry);
                to = 10;
            }
            10 | 20 if !thread.met[which] => to = if which == 0 { 20 } else { 30 },
            10 | 20 => (disk.pruned, disk.written) = (Some(which), false),
            11 | 21 => {
                if self.has(Rule::PassOne) && disk.repositories[which].lock.is_some() {
                    return false;
                }
                thread.mentioned = false;
            }
            12 | 22 => thread.mentioned |= disk.repositories[which].entry,
            13 | 23 => {
                let here = &disk.repositories[which];
                if !here.link || thread.mentioned {
                    to = thread.at + 3;
                }
            }
            14 | 24 => {
                return take(
                    &mut disk.repositories[which].lock,
                    me,
                    thread,
                    thread.at + 1,
                );
            }
            15 | 25 if disk.written && self.has(Rule::ReadWritten) => {
                disk.written = false;
                disk.repositories[which].lock = None;
                to = thread.at - 3;
            }
            15 | 25 => {
                let here = &mut disk.repositories[which];
                if here.link && is_old(here) {
                    (here.link, here.removals) = (false, here.removals + 1);
                }
                here.lock = None;
            }
            16 | 26 => {
                thread.held |= disk.repositories[which].link;
                disk.pruned = None;
                to = if which == 0 { 20 } else { 30 };
            }
            30 if thread.held => to = 32,
            30 => return take(&mut disk.shard_lock, me, thread, 31),
            31 => {
                disk.content &= disk.said;
                disk.shard_lock = None;
            }
            32 => disk.said = false,
            _ => {
                disk.is_watched = false;
                thread.held = false;
                thread.attempts += 1;
                to = if thread.attempts < 2 { 0 } else { END };
            }
        }
        thread.at = to;
        true
    }

    /// Visits all states. Returns how many there are, or one in which something acknowledged is missing.
    fn explore(self, start: Disk, kinds: &[Kind]) -> Result<usize, Box<State>> {
        let threads = kinds.iter().map(|&kind| Thread {
            kind,
            at: 0,
            saw_watched: false,
            saw_content: false,
            removals: 0,
            mentioned: false,
            held: false,
            met: [false; 2],
            attempts: 0,
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
        disk.repositories.iter().any(|here| {
            here.acknowledged && !(here.entry && here.link && disk.content)
                || self.has_grace && here.told && !(here.link && disk.content)
                || here.refused
        })
    }
}

/// Takes a lock and goes on; waits if somebody has it.
fn take(lock: &mut Lock, me: usize, thread: &mut Thread, to: u8) -> bool {
    if lock.is_some() {
        return false;
    }
    *lock = Some(me);
    thread.at = to;
    true
}

fn delete(here: &mut Repository, thread: &mut Thread, me: usize) -> bool {
    match thread.at {
        0 | 2 => return take(&mut here.lock, me, thread, thread.at + 1),
        1 => (here.acknowledged, here.entry, here.lock) = (false, false, None),
        _ => {
            (here.acknowledged, here.told) = (false, false);
            (here.link, here.removals, here.lock) = (false, here.removals + 1, None);
        }
    }
    thread.at = if thread.at == 3 { END } else { thread.at + 1 };
    true
}

fn head(here: &mut Repository, thread: &mut Thread, me: usize) -> bool {
    match thread.at {
        0 if !here.link => thread.at = END,
        0 => thread.at = 1,
        1 => return take(&mut here.lock, me, thread, 2),
        _ => {
            here.is_fresh = here.link;
            here.told = here.link;
            here.lock = None;
            thread.at = END;
        }
    }
    true
}

/// The clients of one exploration, and what is there before.
fn scenes() -> Vec<(Disk, Vec<Kind>)> {
    let image = Repository {
        link: true,
        entry: true,
        acknowledged: true,
        ..Repository::default()
    };
    let loose = Repository {
        link: true,
        ..Repository::default()
    };
    let disk = |content, first: &Repository, second: &Repository| Disk {
        content,
        repositories: [first.clone(), second.clone()],
        ..Disk::default()
    };
    let none = Repository::default();
    vec![
        (disk(false, &none, &none), vec![Push(0), Push(1), Collect]),
        (disk(true, &none, &none), vec![Push(0), Mount(1), Collect]),
        (disk(true, &none, &none), vec![Mount(0), Mount(1), Collect]),
        (
            disk(true, &image, &none),
            vec![Delete(0), Mount(1), Collect],
        ),
        (disk(true, &image, &none), vec![Delete(0), Push(0), Collect]),
        (disk(true, &loose, &none), vec![Mount(0), Head(0), Collect]),
        (disk(true, &loose, &loose), vec![Head(0), Mount(1), Collect]),
        (disk(true, &loose, &none), vec![Push(0), Delete(0), Collect]),
    ]
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
fn nothing_that_was_acknowledged_is_ever_missing() {
    let states = explore(None).unwrap_or_else(|state| panic!("{state:#?}"));
    assert!(states > 10_000, "{states}");
}

#[test]
fn each_rule_is_needed() {
    for rule in [
        Rule::Say,
        Rule::SayFirst,
        Rule::PassAll,
        Rule::PassOne,
        Rule::ReadWritten,
        Rule::LookAgain,
        Rule::LookAtTime,
        Rule::BringAgain,
    ] {
        explore(Some(rule)).expect_err(&format!("nothing goes wrong without {rule:?}"));
    }
}
