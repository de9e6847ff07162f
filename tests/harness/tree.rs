//! A registry's folder as a list, to see that a refused request left nothing behind.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::content;

/// Every file below a folder, by path, with its length and digest; folders have neither.
pub type Tree = BTreeMap<String, Option<(u64, String)>>;

/// Lists everything below `root`. Sockets and the like are listed as folders are.
///
/// # Errors
/// If something cannot be read, for instance because it vanished meanwhile.
pub fn list(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
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
                folders.push(path);
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
