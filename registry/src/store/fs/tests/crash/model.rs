//! A disk that a crash may surprise: what is on it for certain, and what may be.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::recording::{Change, Event, Inode, ROOT};

/// After this many events the system has written what nobody has synced. It bounds the states.
const WRITTEN_BACK: usize = 60;

/// The disk after a prefix of a recording.
#[derive(Default)]
pub(super) struct Disk {
    events: usize,
    directories: HashMap<Inode, Directory>,
    files: HashMap<Inode, File>,
}

#[derive(Default)]
struct Directory {
    path: PathBuf,
    /// The names that are on disk.
    durable: BTreeMap<OsString, Inode>,
    /// The changes that may be or may not be, by the number of their event.
    pending: Vec<(usize, OsString, Option<Inode>)>,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<(usize, Change)>,
}

/// What becomes of bytes that are not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Kept,
    Dropped,
    /// The file has half of its new length.
    Half,
    /// The file has its new length, but not the bytes.
    Zeros,
}

/// A change of a name that is not synced: the directory, and the number of the event.
pub(super) type Pending = (Inode, usize);

/// What a crash leaves: directories, and files with their inode and bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Tree(Vec<Entry>);

/// A path, and the file there; `None` for a directory.
type Entry = (PathBuf, Option<(Inode, Vec<u8>)>);

impl Disk {
    pub(super) fn new() -> Self {
        let mut disk = Self::default();
        disk.directories.insert(ROOT, Directory::default());
        disk
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let now = self.events;
        self.events += 1;
        match event {
            Event::Names(changes) => {
                for (directory, name, inode) in changes {
                    let directory = self.directories.entry(*directory).or_default();
                    directory.pending.push((now, name.clone(), *inode));
                }
            }
            Event::NewDirectory(inode, path) => {
                self.directories
                    .entry(*inode)
                    .or_default()
                    .path
                    .clone_from(path);
            }
            Event::Content(inode, change) => {
                let file = self.files.entry(*inode).or_default();
                file.pending.push((now, change.clone()));
            }
            Event::Synced {
                inode: Some(inode),
                start,
            } => self.write_back(*inode, *start),
            Event::Synced { inode: None, start } => self.write_all_back(*start),
            Event::Begun(_) | Event::Ended(..) | Event::Uploaded(..) => {}
        }
        self.write_all_back(self.events.saturating_sub(WRITTEN_BACK));
    }

    fn write_all_back(&mut self, before: usize) {
        let inodes = self.directories.keys().chain(self.files.keys());
        for inode in inodes.copied().collect::<Vec<_>>() {
            self.write_back(inode, before);
        }
    }

    /// Makes the changes before an event durable.
    fn write_back(&mut self, inode: Inode, before: usize) {
        if let Some(directory) = self.directories.get_mut(&inode) {
            let covered = directory
                .pending
                .partition_point(|change| change.0 < before);
            for (_, name, inode) in directory.pending.drain(..covered) {
                set(&mut directory.durable, name, inode);
            }
        }
        if let Some(file) = self.files.get_mut(&inode) {
            let covered = file.pending.partition_point(|change| change.0 < before);
            for (_, change) in file.pending.drain(..covered) {
                change.apply(&mut file.durable);
            }
        }
    }

    /// The changes of names that a crash may undo one by one. Those of temporary files and of
    /// uploads are many, and promise nothing: they are left to chance.
    pub(super) fn pending(&self) -> Vec<Pending> {
        let mut found = Vec::new();
        for (inode, directory) in &self.directories {
            let mut parts = directory.path.iter().skip(1);
            if parts
                .next()
                .is_none_or(|part| part != "tmp" && part != "uploads")
            {
                found.extend(directory.pending.iter().map(|change| (*inode, change.0)));
            }
        }
        found.sort_unstable();
        found
    }

    /// The tree that a crash leaves that keeps these names, and does that to bytes.
    pub(super) fn crash(
        &self,
        keeps: impl Fn(Pending) -> bool,
        fate: impl Fn(Inode) -> Fate,
    ) -> Tree {
        let mut tree = Vec::new();
        self.visit(ROOT, PathBuf::new(), &keeps, &fate, &mut tree);
        Tree(tree)
    }

    fn visit(
        &self,
        inode: Inode,
        path: PathBuf,
        keeps: &impl Fn(Pending) -> bool,
        fate: &impl Fn(Inode) -> Fate,
        tree: &mut Vec<Entry>,
    ) {
        let Some(directory) = self.directories.get(&inode) else {
            let bytes = self.files.get(&inode).map(|file| file.after(fate(inode)));
            tree.push((path, Some((inode, bytes.unwrap_or_default()))));
            return;
        };
        let mut names = directory.durable.clone();
        for (event, name, change) in &directory.pending {
            if keeps((inode, *event)) {
                set(&mut names, name.clone(), *change);
            }
        }
        tree.push((path.clone(), None));
        for (name, inode) in names {
            self.visit(inode, path.join(name), keeps, fate, tree);
        }
    }
}

impl File {
    fn after(&self, fate: Fate) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (_, change) in &self.pending {
            change.apply(&mut bytes);
        }
        let known = self.durable.len().min(bytes.len());
        match fate {
            Fate::Kept => {}
            Fate::Dropped => bytes.clone_from(&self.durable),
            Fate::Half => bytes.truncate(known.midpoint(bytes.len())),
            Fate::Zeros => bytes[known..].fill(0),
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
            Self::Write(offset, written) => {
                let start = usize::try_from(*offset).unwrap();
                let end = start + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(written);
            }
        }
    }
}

impl Tree {
    /// Makes the tree in an empty directory.
    pub(super) fn write(&self, root: &Path) {
        let mut written: HashMap<Inode, &Path> = HashMap::new();
        for (path, file) in &self.0 {
            let target = root.join(path);
            match file {
                // The root itself is there.
                None if path.as_os_str().is_empty() => {}
                None => fs::create_dir(target).unwrap(),
                Some((inode, bytes)) => {
                    if let Some(first) = written.get(inode) {
                        fs::hard_link(root.join(first), target).unwrap();
                    } else {
                        fs::write(target, bytes).unwrap();
                        written.insert(*inode, path);
                    }
                }
            }
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// A drawing for the report of a failure.
    pub(super) fn draw(&self) -> String {
        let lines = self.0.iter().map(|(path, file)| match file {
            None => format!("{}/", path.display()),
            Some((inode, bytes)) => {
                format!("{} [{inode}] {} bytes", path.display(), bytes.len())
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn set(names: &mut BTreeMap<OsString, Inode>, name: OsString, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(name, inode),
        None => names.remove(&name),
    };
}
