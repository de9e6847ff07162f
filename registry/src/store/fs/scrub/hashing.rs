//! Reads one item of content, and compares it with its digest.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

use super::super::disk;
use super::super::layout::Pool;
use super::pacing::Pacing;
use crate::oci::{Digest, Hasher};
use crate::store::maintenance::Interrupted;

/// The bytes that are read at once: between two reads a run can be stopped.
const CHUNK: usize = 256 << 10;

/// One item, as its name says.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) path: PathBuf,
    pub(super) pool: Pool,
    pub(super) digest: Digest,
}

/// Which file was read: its file system, and its number there. Another file may have its name by now.
///
/// It is held open, so that its number is not used again.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) identity: (u64, u64),
    _open: Option<File>,
}

/// What was found.
#[derive(Debug)]
pub(super) enum ScrubFinding {
    /// It is what its digest says.
    Sound { bytes: u64 },
    /// It is something else.
    Wrong { bytes: u64, file: ReadFile },
    /// The disk cannot return it.
    Unreadable { file: ReadFile, error: io::Error },
    /// It cannot be read now, for a reason that says nothing about it.
    Unchecked(io::Error),
    /// It is no plain file: nothing that the store has made.
    Foreign,
    /// It is gone.
    Absent,
}

/// Reads an item. What is wrong is read once more, from the disk: a bit that flipped in memory is no
/// damage to the file.
pub(super) fn verify(
    content: &Content,
    pacing: &mut Pacing<'_>,
) -> Result<ScrubFinding, Interrupted> {
    pacing.opened()?;
    // Neither a link is followed nor a pipe waited for: a person may have put anything here.
    let file = match disk::open(&content.path) {
        Ok(file) => file,
        Err(error) => return Ok(not_opened(content, error)),
    };
    let metadata = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(ScrubFinding::Foreign),
        Err(error) => return Ok(ScrubFinding::Unchecked(error)),
    };
    let identity = (metadata.dev(), metadata.ino());
    // What others have in memory stays there. What only the scrub has read would evict it.
    let was_cached = is_cached(&file);
    let first = hash(&file, content, pacing)?;
    if !was_cached {
        forget(&file);
    }
    let open = |file| ReadFile {
        identity,
        _open: Some(file),
    };
    match first {
        Ok((digest, bytes)) if digest == content.digest => Ok(ScrubFinding::Sound { bytes }),
        Err(error) if !is_damage(&error) => Ok(ScrubFinding::Unchecked(error)),
        first => {
            forget(&file);
            match hash(&file, content, pacing)? {
                Ok((digest, bytes)) if digest == content.digest => {
                    let digest = &content.digest;
                    tracing::warn!(
                        %digest,
                        "content was read wrong once, and right the second time: the machine's memory or its \
                         disk may fail"
                    );
                    Ok(ScrubFinding::Sound { bytes })
                }
                Ok((_, bytes)) => Ok(ScrubFinding::Wrong {
                    bytes,
                    file: open(file),
                }),
                Err(error) if is_damage(&error) => Ok(ScrubFinding::Unreadable {
                    file: open(file),
                    error,
                }),
                Err(error) => Ok(match first {
                    Ok((_, bytes)) => ScrubFinding::Wrong {
                        bytes,
                        file: open(file),
                    },
                    Err(_) => ScrubFinding::Unchecked(error),
                }),
            }
        }
    }
}

fn not_opened(content: &Content, error: io::Error) -> ScrubFinding {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => ScrubFinding::Absent,
        // A symbolic link, and a socket or a device.
        Some(Errno::LOOP | Errno::NXIO | Errno::NODEV) => ScrubFinding::Foreign,
        _ if is_damage(&error) => match std::fs::symlink_metadata(&content.path) {
            Ok(metadata) => ScrubFinding::Unreadable {
                file: ReadFile {
                    identity: (metadata.dev(), metadata.ino()),
                    _open: None,
                },
                error,
            },
            // Nor could it be moved.
            Err(_) => ScrubFinding::Unchecked(error),
        },
        _ => ScrubFinding::Unchecked(error),
    }
}

/// Whether an error says that the bytes are lost, and not that this process may not have them.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::IO
                | Errno::UCLEAN
                | Errno::BADMSG
                | Errno::ILSEQ
                | Errno::NODATA
                | Errno::REMOTEIO
        )
    )
}

/// The digest of a file, and its length.
fn hash(
    file: &File,
    content: &Content,
    pacing: &mut Pacing<'_>,
) -> Result<io::Result<(Digest, u64)>, Interrupted> {
    let mut hasher = Hasher::new(content.digest.algorithm());
    let mut buffer = vec![0; CHUNK];
    let mut read = 0_u64;
    loop {
        match pread(file, &mut buffer[..], read) {
            Ok(0) => return Ok(Ok((hasher.finish(), read))),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                read += length as u64;
                pacing.read(length as u64)?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Ok(Err(error.into())),
        }
    }
}

/// Whether the beginning of a file is in memory.
fn is_cached(file: &File) -> bool {
    let mut byte = [0];
    let byte = &mut [io::IoSliceMut::new(&mut byte)];
    matches!(preadv2(file, byte, 0, ReadWriteFlags::NOWAIT), Ok(1..))
}

/// Has the system forget what it has read of a file.
fn forget(file: &File) {
    // Advice: where it is not taken, only memory is lost.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_lost_is_damage_and_what_is_denied_is_not() {
        for code in [Errno::IO, Errno::UCLEAN, Errno::BADMSG] {
            assert!(is_damage(&code.into()), "{code}");
        }
        for code in [
            Errno::ACCESS,
            Errno::PERM,
            Errno::MFILE,
            Errno::NOMEM,
            Errno::STALE,
        ] {
            assert!(!is_damage(&code.into()), "{code}");
        }
    }
}
