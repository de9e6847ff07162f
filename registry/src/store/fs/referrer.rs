//! Referrers: a directory of descriptors for each subject, so that a listing opens no other manifest.
//!
//! A page takes bounded memory and time. The smallest names after the end of the last page are
//! collected while the directory is scanned. Then their files are read one after another until the
//! page is full or has read as much as it may.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::data_directory::DataDirectory;
use super::file::{each_entry, exists, open_if_there};
use super::layout::digest_of;
use super::listing::SmallestNames;
use crate::oci::{Descriptor, Digest, Name};
use crate::store::referrers::ReferrersPage;
use crate::store::{Listing, Referrers, ReferrersQuery, Result, StoreError};

/// The most files that one page reads.
const FILES: usize = 16 << 10;

/// The most bytes of them that it reads, roughly: after these it opens no other file.
const BYTES: u64 = 32 << 20;

/// The largest file that is read whole. A file of an older version may repeat all annotations of its
/// manifest, and is listed without them.
const WHOLE: u64 = 64 << 10;

pub(super) fn list(
    data: &DataDirectory,
    name: &Name,
    subject: &Digest,
    query: &ReferrersQuery,
) -> Result<Referrers> {
    let Listing { items, more } = names(data, name, subject, query.last.as_deref())?;
    let mut page = ReferrersPage::new(query);
    // Bounded apart from the page: a filter may leave out every file that is read.
    let mut left = BYTES;
    for digest in &items {
        if left == 0 {
            return Ok(page.finish(true));
        }
        match descriptor(data, name, subject, digest)? {
            // It counts as passed, so that the next page does not read it again.
            None => page.skip(digest.clone()),
            Some((descriptor, read)) => {
                left = left.saturating_sub(read);
                if !page.offer(descriptor) {
                    return Ok(page.finish(true));
                }
            }
        }
    }
    Ok(page.finish(more))
}

/// The smallest digests in a subject's directory after `last`.
fn names(
    data: &DataDirectory,
    name: &Name,
    subject: &Digest,
    last: Option<&str>,
) -> Result<Listing<Digest>> {
    let mut names = SmallestNames::new(last, FILES);
    each_entry(&data.layout.referrers(name, subject), |file| {
        if let Some(digest) = digest_of(&file.file_name()) {
            names.offer(digest.as_str(), || Some(digest.clone()));
        }
        Ok(())
    })?;
    Ok(names.finish())
}

/// A referrer's descriptor and the bytes that were read for it; `None` if there is no such manifest.
fn descriptor(
    data: &DataDirectory,
    name: &Name,
    subject: &Digest,
    digest: &Digest,
) -> Result<Option<(Descriptor, u64)>> {
    // Only the entry makes a manifest exist: a crash may leave a descriptor without it.
    if !exists(&data.layout.manifest_entry(name, digest))? {
        return Ok(None);
    }
    let path = data.layout.referrer(name, subject, digest);
    match open_if_there(&path)? {
        Some(file) => read(&file, &path).map(Some),
        None => Ok(None),
    }
}

fn read(file: &File, path: &Path) -> Result<(Descriptor, u64)> {
    let failed = |e| StoreError::io(path, e);
    let length = file.metadata().map_err(failed)?.len();
    let parsed = if length <= WHOLE {
        let mut text = Vec::new();
        // Bounded again: another program may extend the file after it was measured.
        file.take(WHOLE).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text)
    } else {
        Descriptor::read_without_annotations(BufReader::new(file))
    };
    let damaged = |_| StoreError::Corrupt {
        path: path.to_owned(),
        reason: "it is not a descriptor",
    };
    Ok((parsed.map_err(damaged)?, length))
}
