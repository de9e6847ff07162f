//! A listing of a registry's directory, to check that a refused request left nothing behind.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::content;

/// Every file below a directory, by path, with its length and digest, which directories lack.
pub type Tree = BTreeMap<String, Option<(u64, String)>>;

/// Lists everything below `root`. Sockets and other special files are listed like directories.
///
/// # Errors
/// If something cannot be read, for instance because it was removed meanwhile.
pub fn list(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in
            std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?
        {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            let content = if kind.is_file() {
                let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                Some((bytes.len() as u64, content::digest(&bytes)))
            } else {
                None
            };
            tree.insert(name, content);
            if kind.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_changes_the_tree() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/b"), "one").unwrap();
        let before = list(root.path()).unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "a/b"]);
        std::fs::write(root.path().join("a/b"), "two").unwrap();
        assert_ne!(before, list(root.path()).unwrap());
    }
}
