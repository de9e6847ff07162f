//! What `doctor` tries of a registry: its data directory and its listeners.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use service::config::ByteSize;
use service::doctor::{self, CreationError, Examination, ExaminedListener, Finding, can_create_in};
use service::quantity;

use crate::config::{RegistryConfig, StorageFields};
use crate::store::fs::{DirectoryState, OpenError, Space, inspect, space};

/// Mode bits by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// What is tried of a registry that is a program of its own.
pub fn examinations(config: &RegistryConfig) -> Vec<Examination> {
    let listen = config.listen.iter().enumerate();
    let clients = listen.map(|(at, address)| ExaminedListener {
        key: format!("listen[{at}]"),
        address: address.clone(),
        tls: None,
        path: "/v2/",
        // The registry alone has its probes on the metrics listener.
        other: Some(("octoserve", service::admin::LIVE)),
    });
    let metrics = config.metrics.iter().filter_map(|metrics| {
        Some(ExaminedListener {
            key: "metrics.listen".to_owned(),
            address: metrics.listen.clone()?,
            tls: metrics.tls.clone(),
            path: service::admin::LIVE,
            other: None,
        })
    });
    let mut all: Vec<_> = clients.chain(metrics).map(doctor::listener).collect();
    all.push(data_directory(&config.storage));
    all
}

/// Whether the data directory can be used, and has space left.
pub fn data_directory(storage: &StorageFields) -> Examination {
    let (path, reserve) = (storage.data.clone(), storage.reserve);
    let subject = format!("data directory {}", path.display());
    Examination::blocking(subject, move || examined(&path, reserve))
}

fn examined(path: &Path, reserve: ByteSize) -> Vec<Finding> {
    let check = "directory";
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let mend = "give data the path of a directory";
            return vec![Finding::fail(check, "it is no directory", mend)];
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return missing(path, reserve),
        Err(error) => {
            let mend = "run this as the registry's user, or mend the path";
            return vec![Finding::fail(check, error.to_string(), mend)];
        }
    };
    let own = rustix::process::geteuid().as_raw();
    let mode = metadata.permissions().mode() & 0o7777;
    let mut findings = vec![if let Err(error) = can_create_in(path) {
        unwritable(&error, (own, metadata.uid()))
    } else if metadata.uid() != own {
        let message = format!(
            "its owner is user {}, and this is user {own}",
            metadata.uid()
        );
        Finding::warn(
            check,
            message,
            "run this as the registry's user, or chown it",
        )
    } else {
        Finding::ok(check, format!("writable by this user, {own}"))
    }];
    if mode & OTHERS_WRITE != 0 {
        let message = format!("its mode is {mode:04o}: others can change what is stored");
        findings.push(Finding::warn("mode", message, "chmod go-w on it"));
    }
    findings.push(used(inspect(path)));
    findings.extend(space_left(path, reserve));
    findings
}

/// Why this user, `own`, cannot write to a directory of the user `owner`, and what to do.
fn unwritable(error: &CreationError, (own, owner): (u32, u32)) -> Finding {
    let check = "directory";
    match error {
        CreationError::ReadOnly => {
            let mend = "mount it for writing, or give data a path on another file system";
            Finding::fail(check, error.to_string(), mend)
        }
        CreationError::OfTheKernel => {
            let mend = "give data a path on another file system";
            Finding::fail(check, error.to_string(), mend)
        }
        CreationError::Denied => {
            let message = format!("this user, {own}, cannot write there; its owner is {owner}");
            let mend = format!("chown it to the registry's user, or run this as user {owner}");
            Finding::fail(check, message, mend)
        }
        CreationError::Io(error) => {
            let mend = "see whether the file system hangs or is broken";
            Finding::fail(check, error.to_string(), mend)
        }
    }
}

/// It is made at the start, if it can be.
fn missing(path: &Path, reserve: ByteSize) -> Vec<Finding> {
    let ancestors = path.ancestors().skip(1);
    let mut ancestors = ancestors.map(|path| {
        if path.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            path.to_owned()
        }
    });
    let Some(above) = ancestors.find(|path| path.exists()) else {
        return vec![Finding::fail("directory", "it is not there", "make it")];
    };
    if let Err(error) = can_create_in(&above) {
        let message = format!(
            "it is not there, and cannot be made in {}: {error}",
            above.display()
        );
        let mend = match error {
            CreationError::Denied => "make it, and chown it to the registry's user",
            _ => "give data a path on another file system",
        };
        return vec![Finding::fail("directory", message, mend)];
    }
    let mut findings = vec![Finding::ok("directory", "it is made at the first start")];
    findings.extend(space_left(&above, reserve));
    findings
}

fn used(state: Result<DirectoryState, OpenError>) -> Finding {
    let check = "lock";
    match state {
        Ok(DirectoryState::New) => Finding::ok(check, "no registry has used it yet"),
        Ok(DirectoryState::Free) => Finding::ok(check, "free: no registry runs on it"),
        Ok(DirectoryState::InUse) => Finding::ok(check, "a running registry holds it"),
        Err(error @ OpenError::Layout { .. }) => {
            let mend = "it is another version's, or another program's: give data another path";
            Finding::fail(check, error.to_string(), mend)
        }
        Err(error) => {
            let message = service::log::causes(&error);
            Finding::fail(check, message, "run this as the registry's user")
        }
    }
}

fn space_left(path: &Path, reserve: ByteSize) -> Vec<Finding> {
    match space(path) {
        Ok(space) => free(&space, reserve),
        Err(error) => {
            let mend = "see whether the file system hangs or is broken";
            vec![Finding::fail("free space", error.to_string(), mend)]
        }
    }
}

/// Compares what is free with what uploads must leave.
fn free(space: &Space, reserve: ByteSize) -> Vec<Finding> {
    let sizes = |bytes: u64| quantity::bytes(bytes as f64);
    let counts = |files: u64| quantity::count(files as f64);
    let mut findings = vec![compared(
        "free space",
        (space.available, space.size, reserve.get()),
        sizes,
    )];
    // Some file systems have no fixed number of inodes.
    if space.files > 0 {
        let reserved = space.reserved_files(reserve.get());
        let figures = (space.files_available, space.files, reserved);
        findings.push(compared("free inodes", figures, counts));
    }
    findings
}

fn compared(
    check: &str,
    (free, all, reserve): (u64, u64, u64),
    shown: impl Fn(u64) -> String,
) -> Finding {
    let message = format!(
        "{} of {}, of which {} are reserved",
        shown(free),
        shown(all),
        shown(reserve)
    );
    let mend = "delete what is not needed, enlarge the file system, or lower reserve";
    if free == 0 || free < reserve {
        let message = format!("{message}: pushes are refused");
        return Finding::fail(check, message, mend);
    }
    // A tenth of the disk can be filled by a few pushes, and so can the reserve again.
    if free < all / 10 || free < reserve.saturating_mul(2) {
        return Finding::warn(check, message, mend);
    }
    Finding::ok(check, message)
}

#[cfg(test)]
mod tests {
    use service::doctor::CheckResult::{self, Fail, Ok as Fine, Warn};

    use super::*;

    fn found(path: &Path) -> Vec<(String, CheckResult, String)> {
        let found = examined(path, ByteSize::bytes(0)).into_iter();
        let found = found.filter(|one| !one.check.starts_with("free"));
        found
            .map(|one| (one.check, one.result, one.message))
            .collect()
    }

    #[test]
    fn a_directory_is_there_or_can_be_made_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let results = |path: &Path| -> Vec<_> {
            found(path)
                .into_iter()
                .map(|(_, result, _)| result)
                .collect()
        };
        assert_eq!(results(directory.path()), [Fine, Fine]);
        assert_eq!(results(&directory.path().join("a/b")), [Fine]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(results(&file), [Fail]);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let open = found(directory.path());
        assert_eq!((open[1].0.as_str(), open[1].1), ("mode", Warn));
        assert!(open[1].2.contains("0777"), "{open:?}");
        fs::write(directory.path().join("lock"), "other 1\n").unwrap();
        let other = found(directory.path());
        assert_eq!((other[2].0.as_str(), other[2].1), ("lock", Fail));
    }

    #[test]
    fn where_not_even_root_can_write_the_file_system_is_named() {
        let read_only = unwritable(&CreationError::ReadOnly, (0, 0));
        assert!(read_only.message.contains("read-only"), "{read_only:?}");
        let denied = unwritable(&CreationError::Denied, (1000, 0));
        assert!(denied.message.contains("this user, 1000"), "{denied:?}");
        for path in ["/proc", "/proc/nope"] {
            let found = found(Path::new(path));
            assert_eq!((found[0].0.as_str(), found[0].1), ("directory", Fail));
            assert!(found[0].2.contains("the kernel's own"), "{found:?}");
        }
    }

    #[test]
    fn free_space_is_compared_with_the_reserve() {
        let of = |available, files_available| {
            let space = Space {
                size: 100 << 30,
                available,
                files_free: files_available,
                files: 1000,
                files_available,
            };
            let found = free(&space, ByteSize::gib(1));
            [found[0].result, found[1].result]
        };
        assert_eq!(of(50 << 30, 500), [Fine, Fine]);
        assert_eq!(of(9 << 30, 99), [Warn, Warn]);
        assert_eq!(of(1 << 29, 9), [Fail, Fail]);
        let text = &compared("x", (1 << 30, 4 << 30, 1 << 20), |bytes| {
            quantity::bytes(bytes as f64)
        });
        assert_eq!(text.message, "1 GiB of 4 GiB, of which 1 MiB are reserved");
        let none = Space {
            size: 1 << 40,
            available: 1 << 39,
            files_free: 0,
            files: 0,
            files_available: 0,
        };
        assert_eq!(free(&none, ByteSize::gib(1)).len(), 1);
    }
}
