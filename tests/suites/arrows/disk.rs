//! The filesystem store changes its directory through one file. Tests put an observer under that file:
//! what another file did by itself, they would not see.

use anyhow::Result;

use super::source;

/// The one file of the store with system calls that change anything.
const DISK: &str = "registry/store/fs/disk.rs";

/// What changes a file or directory, as it is written in code.
const CHANGING: &[&str] = &[
    "fs::copy",
    "fs::create_dir",
    "fs::hard_link",
    "fs::remove_",
    "fs::rename",
    "fs::set_permissions",
    "fs::write",
    "DirBuilder",
    "File::create",
    "OpenOptions",
    "symlink(",
    ".set_len(",
    ".set_modified(",
    ".set_permissions(",
    ".set_times(",
    ".sync_all(",
    ".sync_data(",
    ".write_all(",
    ".write_all_at(",
    ".write_at(",
    "fallocate",
    "fdatasync",
    "fsync",
    "ftruncate",
    "futimens",
    "linkat",
    "mkdirat",
    "pwrite",
    "renameat",
    "sync_file_range",
    "syncfs",
    "unlinkat",
    "utimensat",
];

#[test]
fn one_file_alone_changes_the_data_directory() -> Result<()> {
    let files = source::read("registry")?;
    let store = files
        .iter()
        .filter(|file| file.name.starts_with("registry/store/fs/"));
    let mut wrong = Vec::new();
    let mut is_found = false;
    for file in store {
        let lines = file.code.lines();
        let changes = lines.filter(|line| CHANGING.iter().any(|call| line.contains(call)));
        if file.name == DISK {
            is_found = changes.count() > 10;
        } else {
            wrong.extend(changes.map(|line| format!("{}: {}", file.name, line.trim())));
        }
    }
    assert!(is_found, "{DISK} has moved");
    assert!(
        wrong.is_empty(),
        "calls that belong into {DISK}:\n{}",
        wrong.join("\n")
    );
    Ok(())
}
