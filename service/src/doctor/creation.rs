//! Whether a file or a directory can be made in a directory. None is made.

use std::io;
use std::path::Path;

use rustix::fs::{Access, FsWord};
use rustix::io::Errno;

/// The types of file systems that show what the kernel knows (`linux/magic.h`): proc, sysfs, cgroup, cgroup2,
/// debugfs, tracefs and securityfs. Their modes allow root to write; nothing can be made there all the same.
const OF_THE_KERNEL: [FsWord; 7] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
];

/// Why nothing can be made in a directory.
#[derive(Debug, thiserror::Error)]
pub enum CreationError {
    /// Not even root may.
    #[error("the file system is read-only")]
    ReadOnly,
    /// Such as /proc.
    #[error("the file system is the kernel's own")]
    OfTheKernel,
    /// This user may not.
    #[error("this user may not write there")]
    Denied,
    /// Another error of the system.
    #[error(transparent)]
    Io(io::Error),
}

/// Whether this user can make files and directories in a directory.
pub fn can_create_in(directory: &Path) -> Result<(), CreationError> {
    let found = rustix::fs::statfs(directory).map_err(CreationError::from)?;
    if OF_THE_KERNEL.contains(&found.f_type) {
        return Err(CreationError::OfTheKernel);
    }
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(CreationError::from)
}

impl From<Errno> for CreationError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ROFS => Self::ReadOnly,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            error => Self::Io(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_made_where_the_kernel_shows_what_it_knows() {
        let directory = tempfile::tempdir().unwrap();
        can_create_in(directory.path()).unwrap();
        for path in ["/proc", "/proc/self"] {
            let error = can_create_in(Path::new(path)).unwrap_err();
            assert!(matches!(error, CreationError::OfTheKernel), "{error:?}");
        }
        let missing = can_create_in(&directory.path().join("none")).unwrap_err();
        assert!(matches!(missing, CreationError::Io(_)), "{missing:?}");
    }

    #[test]
    fn a_read_only_file_system_is_told_from_a_lack_of_rights() {
        assert!(matches!(
            CreationError::from(Errno::ROFS),
            CreationError::ReadOnly
        ));
        assert!(matches!(
            CreationError::from(Errno::ACCESS),
            CreationError::Denied
        ));
    }
}
