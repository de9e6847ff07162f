//! The modes of what a program of ours makes.

use rustix::fs::Mode;
use rustix::process::umask;

/// Files are 0640 and directories 0750, whatever the umask was that the program was started with:
/// one that lets nobody in makes a backup fail, and one that lets everybody in shows private
/// content. To be called first of all, since the whole process has one umask.
pub fn set() {
    umask(Mode::from_raw_mode(0o027));
}
