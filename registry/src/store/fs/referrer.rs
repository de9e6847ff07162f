//! Referrers: for each subject a folder of descriptors, so that a listing opens no other manifest.

use std::fs;

use super::Inner;
use super::file::{each_entry, exists, if_there};
use super::layout::digest_of;
use crate::oci::{Descriptor, Digest, Name};
use crate::store::{Result, StoreError};

pub(super) fn list(inner: &Inner, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    each_entry(&inner.layout.referrers(name, subject), |file| {
        let Some(digest) = digest_of(&file.file_name()) else {
            return Ok(());
        };
        // Only the entry makes a manifest exist: a crash may leave a descriptor without it.
        if !exists(&inner.layout.manifest_entry(name, &digest))? {
            return Ok(());
        }
        let path = file.path();
        if let Some(text) = if_there(&path, fs::read(&path))? {
            let damaged = |_| StoreError::Corrupt {
                path,
                reason: "no descriptor",
            };
            found.push(serde_json::from_slice::<Descriptor>(&text).map_err(damaged)?);
        }
        Ok(())
    })?;
    found.sort_by(|a, b| a.digest.cmp(&b.digest));
    Ok(found)
}
