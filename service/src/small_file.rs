//! Reading the files that a configuration names: keys, certificates, passwords.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The bytes of a file of at most 1 MiB. A reload must end whatever a path leads to, so this fails for
/// anything that is no regular file: a pipe or a device may have no end, or no writer.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The same of a file that holds UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let not_utf8 = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(read(path)?).map_err(not_utf8)
}

/// What to do about a file that cannot be read, to be said after the error; empty where nothing general helps.
pub fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; run this as the program's user or as root, with sudo",
        _ => "",
    }
}

/// Opens a regular file for reading, and never waits.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // To open a pipe would wait for its writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn what_to_do_is_said_of_a_file_that_is_missing_or_closed() {
        let said = |kind: io::ErrorKind| mend(&kind.into());
        assert!(said(io::ErrorKind::NotFound).contains("path"));
        assert!(said(io::ErrorKind::PermissionDenied).contains("sudo"));
        assert_eq!(said(io::ErrorKind::InvalidData), "");
    }

    #[test]
    fn only_a_small_regular_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("text"), "secret\n").unwrap();
        fs::write(path("bytes"), [0xff]).unwrap();
        let largest = fs::File::create(path("largest")).unwrap();
        largest.set_len(LARGEST).unwrap();
        let larger = fs::File::create(path("larger")).unwrap();
        larger.set_len(LARGEST + 1).unwrap();
        mkfifoat(CWD, path("pipe"), Mode::RWXU).unwrap();
        assert_eq!(read_text(&path("text")).unwrap(), "secret\n");
        assert_eq!(read(&path("bytes")).unwrap(), [0xff]);
        assert_eq!(read(&path("largest")).unwrap().len() as u64, LARGEST);
        for (name, why) in [
            ("larger", "larger than 1 MiB"),
            ("pipe", "not a regular file"),
            (".", "not a regular file"),
            ("missing", "No such file"),
        ] {
            let error = read(&path(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        let error = read_text(&path("bytes")).unwrap_err().to_string();
        assert!(error.contains("not UTF-8"), "{error}");
    }
}
