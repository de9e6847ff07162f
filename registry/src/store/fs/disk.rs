//! The system calls of the store on files and directories: all that change anything, and those that
//! read and whose failure matters.
//!
//! Each function is one step that the system does or refuses. What the steps mean together, and which
//! of them a crash may undo, is for [`durable`](super::durable) and the operations. No other file of
//! the store changes anything on disk (the suite `arrows` checks it), so that a test that observes
//! these functions sees every change in its order, and can make each step fail. Outside of tests they
//! are the system calls and nothing else.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, ReadDir};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, UTIME_NOW, syncfs, utimensat};
use rustix::io::Errno;

#[cfg(test)]
pub(super) mod observer;

/// One step, as an observer sees it. A step on an open file has the path that the file was opened by.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only an observer reads what a step holds")
)]
pub(super) enum Step<'a> {
    /// Makes a file, which must not be there.
    CreateNew(&'a Path),
    /// Opens a file for writing, and makes it if it is not there.
    Create(&'a Path),
    /// The same, and removes the bytes of a file that is there.
    CreateEmpty(&'a Path),
    /// Writes bytes at an offset.
    Write(&'a Path, u64, &'a [u8]),
    /// Cuts a file, or extends it by zeros.
    SetLength(&'a Path, u64),
    SetMode(&'a Path),
    SyncFile(&'a Path),
    SyncDirectory(&'a Path),
    /// Waits for all that was changed on the file system of the path.
    SyncFileSystem(&'a Path),
    SetTimes(&'a Path),
    CreateDirectory(&'a Path),
    RemoveDirectory(&'a Path),
    /// Removes a directory and all that it holds.
    RemoveTree(&'a Path),
    RemoveFile(&'a Path),
    /// Gives the first file the second name, which must be free, too.
    Link(&'a Path, &'a Path),
    /// Moves the first file to the second path and replaces what is there.
    Rename(&'a Path, &'a Path),
    Open(&'a Path),
    ReadDirectory(&'a Path),
    Metadata(&'a Path),
}

/// Does a step; in a test, an observer of the path may do it instead, and may refuse it.
fn run<T>(step: Step<'_>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    if let Some(observer) = observer::of(&step) {
        return observer::around(&*observer, &step, call);
    }
    #[cfg(not(test))]
    let _ = step;
    call()
}

/// How files are opened. A person may have put a link or a pipe in the place of a file: no link leads
/// out of the directory, and no pipe makes anybody wait.
const CAREFULLY: i32 = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .bits()
    .cast_signed();

/// The most bytes of a small file that are read. No file of the store that is read whole is as long.
const LONGEST: u64 = 1 << 20;

/// Whether a file could not be opened because it is none: a link, a pipe, a socket, or a directory.
pub(super) fn is_no_file(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::LOOP | Errno::NXIO | Errno::ISDIR)
    )
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(CAREFULLY);
    options
}

/// Makes a file to write, which must not be there.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = options();
    let options = options.write(true).create_new(true);
    run(Step::CreateNew(path), || options.open(path))
}

/// Opens a file to write, with the bytes that it has, and makes it if it is not there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = options();
    let options = options.write(true).create(true).truncate(false);
    run(Step::Create(path), || options.open(path))
}

/// Opens a file to read and write, and makes it with this mode if it is not there.
pub(super) fn create_with_mode(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = options();
    let options = options.read(true).write(true).create(true).truncate(false);
    run(Step::Create(path), || options.mode(mode).open(path))
}

/// Opens a file to write, without the bytes that it had, and makes it if it is not there.
pub(super) fn create_empty(path: &Path) -> io::Result<File> {
    let mut options = options();
    let options = options.write(true).create(true).truncate(true);
    run(Step::CreateEmpty(path), || options.open(path))
}

/// Writes all bytes at an offset. If it fails, some of them may be there.
pub(super) fn write(file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    run(Step::Write(path, offset, bytes), || {
        file.write_all_at(bytes, offset)
    })
}

/// Cuts a file to a length, or extends it by zeros.
pub(super) fn set_length(file: &File, path: &Path, length: u64) -> io::Result<()> {
    run(Step::SetLength(path, length), || file.set_len(length))
}

/// Sets the permissions of a file.
pub(super) fn set_mode(file: &File, path: &Path, mode: u32) -> io::Result<()> {
    run(Step::SetMode(path), || {
        file.set_permissions(Permissions::from_mode(mode))
    })
}

/// Waits until the bytes of a file and its length are on disk. Its times may not be.
pub(super) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    run(Step::SyncFile(path), || file.sync_data())
}

/// Waits until the names in a directory are on disk.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    run(Step::SyncDirectory(path), || File::open(path)?.sync_all())
}

/// Makes a directory, whose parent must be there.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    run(Step::CreateDirectory(path), || {
        DirBuilder::new().create(path)
    })
}

/// Removes an empty directory.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    run(Step::RemoveDirectory(path), || fs::remove_dir(path))
}

/// Removes a directory and all that it holds, or whatever else is there.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    run(Step::RemoveTree(path), || {
        if fs::symlink_metadata(path)?.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    })
}

/// Removes a name of a file.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    run(Step::RemoveFile(path), || fs::remove_file(path))
}

/// Gives a file another name. Fails if there is anything with that name.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    run(Step::Link(from, to), || fs::hard_link(from, to))
}

/// Moves a file, and replaces what has the new name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    run(Step::Rename(from, to), || fs::rename(from, to))
}

/// Sets the times of a file to now, as the file system knows it. A link is not followed.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    run(Step::SetTimes(path), || {
        // Both to now: this asks for the right to write the file, and not to own it (utimensat(2)).
        Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    })
}

/// Waits until all that was changed on the file system of an open file is on disk.
pub(super) fn sync_file_system(file: &File, path: &Path) -> io::Result<()> {
    run(Step::SyncFileSystem(path), || Ok(syncfs(file)?))
}

/// Keeps the bytes of a file that is about to be removed, without opening it for reading.
pub(super) fn hold(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(flags.bits().cast_signed());
    run(Step::Open(path), || options.open(path))
}

/// Opens a file to read.
pub(super) fn open(path: &Path) -> io::Result<File> {
    run(Step::Open(path), || options().read(true).open(path))
}

/// The bytes of a small file; of one that was made long, the first ones.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The entries of a directory.
pub(super) fn read_directory(path: &Path) -> io::Result<ReadDir> {
    run(Step::ReadDirectory(path), || fs::read_dir(path))
}

/// What is at a path. A link there is not followed.
pub(super) fn metadata(path: &Path) -> io::Result<Metadata> {
    run(Step::Metadata(path), || fs::symlink_metadata(path))
}
