//! Referrers: for each subject a folder of descriptors, so that a listing opens no other manifest.
//!
//! A page costs bounded memory and time: the smallest names after the last page's end are gathered
//! while the folder is scanned, then their files are read one after another until the page is full
//! or enough was read.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::data_directory::DataDirectory;
use super::file::{each_entry, exists, if_there};
use super::layout::digest_of;
use super::listing::Page as Names;
use crate::oci::{Descriptor, Digest, Name};
use crate::store::referrers::Page;
use crate::store::{Listing, Referrers, ReferrersQuery, Result, StoreError};

/// The most files that one page reads.
const FILES: usize = 16 << 10;

/// How many bytes of them it reads, roughly: after so many it opens no other.
const BYTES: u64 = 32 << 20;

/// The largest file that is read whole. One of a former version may repeat all annotations of its
/// manifest; it is listed without them.
const WHOLE: u64 = 64 << 10;

pub(super) fn list(
    data: &DataDirectory,
    name: &Name,
    subject: &Digest,
    query: &ReferrersQuery,
) -> Result<Referrers> {
    let Listing { items, more } = names(data, name, subject, query.last.as_deref())?;
    let mut page = Page::new(query);
    let mut left = BYTES;
    for digest in &items {
        if left == 0 {
            return Ok(page.finish(true));
        }
        match descriptor(data, name, subject, digest)? {
            None => page.pass(digest.clone()),
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

/// The smallest digests in a subject's folder after `last`.
fn names(
    data: &DataDirectory,
    name: &Name,
    subject: &Digest,
    last: Option<&str>,
) -> Result<Listing<Digest>> {
    let mut names = Names::new(last, FILES);
    each_entry(&data.layout.referrers(name, subject), |file| {
        if let Some(digest) = digest_of(&file.file_name()) {
            names.offer(digest.as_str(), || Some(digest.clone()));
        }
        Ok(())
    })?;
    Ok(names.finish())
}

/// A referrer's descriptor and how many bytes were read for it; `None` if there is no such manifest.
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
    match if_there(&path, File::open(&path))? {
        Some(file) => read(&file, &path).map(Some),
        None => Ok(None),
    }
}

fn read(file: &File, path: &Path) -> Result<(Descriptor, u64)> {
    let failed = |e| StoreError::io(path, e);
    let length = file.metadata().map_err(failed)?.len();
    let parsed = if length <= WHOLE {
        let mut text = Vec::new();
        file.take(WHOLE).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text)
    } else {
        Descriptor::read_without_annotations(BufReader::new(file))
    };
    let damaged = |_| StoreError::Corrupt {
        path: path.to_owned(),
        reason: "no descriptor",
    };
    Ok((parsed.map_err(damaged)?, length))
}
