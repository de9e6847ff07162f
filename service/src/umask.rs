//! The modes of what a program of ours makes.

use rustix::fs::Mode;
use rustix::process::umask;

/// Sets the umask, so that files are 0640 and directories 0750 whatever the umask was at the start.
/// A stricter one makes backups fail, and a looser one shows private content. Call it first: the
/// umask belongs to the whole process.
pub fn set() {
    umask(Mode::from_raw_mode(0o027));
}
