//! Records what happens on disk, by inodes, and when operations begin and end.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::store::fs::disk::Step;
use crate::store::fs::disk::observer::Observer;

/// A file or directory, whatever names it has.
pub(super) type Inode = usize;

/// The directory that is observed. It is on disk before the recording begins.
pub(super) const ROOT: Inode = 0;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Names changed in one step; with `None`, the name is gone.
    Names(Vec<(Inode, OsString, Option<Inode>)>),
    /// A directory was made, with this path; its name is an event of its own.
    NewDirectory(Inode, PathBuf),
    /// The bytes of a file changed.
    Content(Inode, Change),
    /// A sync succeeded that covers all events before `start`: of an inode, or of all.
    Synced { inode: Option<Inode>, start: usize },
    /// An operation began.
    Begun(usize),
    /// An operation was acknowledged, or was refused.
    Ended(usize, bool),
    /// An upload session was acknowledged with this many bytes.
    Uploaded(usize, u64),
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write(u64, Arc<[u8]>),
    Length(u64),
}

/// An observer that records.
pub(super) struct Recorder {
    root: PathBuf,
    recording: Mutex<Recording>,
}

#[derive(Default)]
struct Recording {
    events: Vec<Event>,
    directories: HashMap<Inode, BTreeMap<OsString, Inode>>,
    inodes: usize,
}

impl Recorder {
    pub(super) fn new(root: &Path) -> Arc<Self> {
        let mut recording = Recording::default();
        recording.directories.insert(ROOT, BTreeMap::new());
        Arc::new(Self {
            root: root.to_owned(),
            recording: Mutex::new(recording),
        })
    }

    pub(super) fn note(&self, event: Event) {
        self.recording.lock().events.push(event);
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.recording.lock().events.clone()
    }
}

impl Observer for Recorder {
    fn around(&self, step: &Step<'_>, call: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        // The step and its event are one: events have the order in which the steps were done.
        let mut recording = self.recording.lock();
        let (start, synced) = (recording.events.len(), recording.synced(&self.root, step));
        call()?;
        recording.record(&self.root, step);
        drop(recording);
        let is_all = matches!(step, Step::SyncFileSystem(_));
        if is_all || synced.is_some() {
            // It covers what came before it, but takes its time: other threads get theirs.
            (0..8).for_each(|_| thread::yield_now());
            self.note(Event::Synced {
                inode: synced,
                start,
            });
        }
        Ok(())
    }
}

impl Recording {
    /// The inode that a step syncs.
    fn synced(&self, root: &Path, step: &Step<'_>) -> Option<Inode> {
        match step {
            Step::SyncFile(path) | Step::SyncDirectory(path) => self.find(&below(root, path)),
            _ => None,
        }
    }

    fn record(&mut self, root: &Path, step: &Step<'_>) {
        let path = below(root, step.path());
        let path = &*path;
        match *step {
            Step::CreateNew(_) => self.create(path),
            Step::Create(_) if self.find(path).is_none() => self.create(path),
            Step::CreateEmpty(_) => match self.find(path) {
                None => self.create(path),
                Some(_) => self.change(path, Change::Length(0)),
            },
            Step::Write(_, offset, bytes) => self.change(path, Change::Write(offset, bytes.into())),
            Step::SetLength(_, length) => self.change(path, Change::Length(length)),
            Step::CreateDirectory(_) => {
                let inode = self.inodes + 1;
                self.directories.insert(inode, BTreeMap::new());
                self.events
                    .push(Event::NewDirectory(inode, path.to_owned()));
                self.create(path);
            }
            Step::RemoveDirectory(_) | Step::RemoveFile(_) => self.set(&[(path, None)]),
            Step::RemoveTree(_) => self.remove_tree(path),
            Step::Link(_, to) => {
                let file = self.find(path);
                self.set(&[(&*below(root, to), file)]);
            }
            Step::Rename(_, to) => {
                let file = self.find(path);
                self.set(&[(&*below(root, to), file), (path, None)]);
            }
            Step::Create(_)
            | Step::SetMode(_)
            | Step::SyncFile(_)
            | Step::SyncDirectory(_)
            | Step::SyncFileSystem(_)
            | Step::SetTimes(_)
            | Step::Open(_)
            | Step::ReadDirectory(_)
            | Step::Metadata(_) => {}
        }
    }

    fn create(&mut self, path: &Path) {
        self.inodes += 1;
        self.set(&[(path, Some(self.inodes))]);
    }

    /// A file without a name is of no interest any more.
    fn change(&mut self, path: &Path, change: Change) {
        if let Some(inode) = self.find(path) {
            self.events.push(Event::Content(inode, change));
        }
    }

    fn set(&mut self, names: &[(&Path, Option<Inode>)]) {
        let mut changed = Vec::new();
        for (path, inode) in names {
            let directory = path.parent().and_then(|parent| self.find(parent));
            let directory = directory.expect("a name is made in a directory");
            let name = path.file_name().expect("a name").to_owned();
            let entries = self.directories.get_mut(&directory).expect("a directory");
            match inode {
                Some(inode) => entries.insert(name.clone(), *inode),
                None => entries.remove(&name),
            };
            changed.push((directory, name, *inode));
        }
        self.events.push(Event::Names(changed));
    }

    fn remove_tree(&mut self, path: &Path) {
        let Some(inode) = self.find(path) else { return };
        let entries = self.directories.get(&inode).cloned().unwrap_or_default();
        for name in entries.keys() {
            self.remove_tree(&path.join(name));
        }
        self.set(&[(path, None)]);
    }

    fn find(&self, path: &Path) -> Option<Inode> {
        path.iter().try_fold(ROOT, |directory, name| {
            self.directories.get(&directory)?.get(name).copied()
        })
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix(root).expect("an observed path");
    below.to_owned()
}
