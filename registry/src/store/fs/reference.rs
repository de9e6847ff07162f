//! What a tag or a digest refers to in a repository, and the conditions that ask for it.

use super::data_directory::DataDirectory;
use super::disk;
use super::file::{exists, if_there};
use crate::oci::{Digest, Name, Reference, Tag};
use crate::store::{Condition, Result, StoreError};

/// Returns the manifest that a tag points at; `None` if there is no such tag.
pub(super) fn tag(data: &DataDirectory, name: &Name, tag: &Tag) -> Result<Option<Digest>> {
    let path = data.layout.tag(name, tag);
    let bytes = match disk::read(&path) {
        // A directory or something else where a tag should be.
        Err(e) if disk::is_no_file(&e) => Vec::new(),
        read => match if_there(&path, read)? {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    // Bytes that are not UTF-8 become an empty text, which is no digest either.
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let damaged = |_| StoreError::Corrupt {
        path,
        reason: "it is not a digest",
    };
    Digest::parse(text.trim_end()).map(Some).map_err(damaged)
}

/// Fails unless a condition holds. It continues to hold for as long as the caller holds the
/// repository's lock.
pub(super) fn check_condition(
    data: &DataDirectory,
    name: &Name,
    condition: Option<&Condition>,
) -> Result<()> {
    let Some(condition) = condition else {
        return Ok(());
    };
    let current = match &condition.reference {
        Reference::Tag(tag) => self::tag(data, name, tag)?,
        Reference::Digest(digest) => {
            // Not the content, which may be there for another repository.
            exists(&data.layout.manifest_entry(name, digest))?.then(|| digest.clone())
        }
    };
    condition.check(current.as_ref())
}
