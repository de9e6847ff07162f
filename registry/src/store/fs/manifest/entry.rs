//! The file that makes a manifest one of a repository.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Kind, MediaType, Name};
use crate::store::fs::changes::RepositoryCounts;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::file::{if_there, visit_entries};
use crate::store::fs::layout::digest_of;
use crate::store::fs::{blob, disk};
use crate::store::{NewManifest, Result, StoreError};

/// The file of a manifest in a repository.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::store::fs) struct ManifestEntry {
    pub(super) media_type: MediaType,
    kind: String,
    pub(in crate::store::fs) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store::fs) subject: Option<Digest>,
}

impl ManifestEntry {
    pub(super) fn of(new: &NewManifest) -> Self {
        Self {
            media_type: new.media_type.clone(),
            kind: new.kind.as_str().to_owned(),
            size: new.bytes.len() as u64,
            subject: new.subject.as_ref().map(|(subject, _)| subject.clone()),
        }
    }

    /// The entry of a manifest; `None` if the repository does not hold it.
    pub(in crate::store::fs) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match disk::read(path) {
            Err(e) if disk::is_no_file(&e) => Vec::new(),
            read => match if_there(path, read)? {
                Some(text) => text,
                None => return Ok(None),
            },
        };
        let damaged = |_| StoreError::Corrupt {
            path: path.to_owned(),
            reason: "it is not a manifest entry",
        };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// What this entry adds to the repository.
    pub(in crate::store::fs) fn counts(&self, allocated: i64) -> RepositoryCounts {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind);
        let stored = blob::signed(self.size);
        let mut counts = RepositoryCounts {
            stored,
            allocated,
            ..Default::default()
        };
        counts.manifest(kind.unwrap_or(Kind::Other), 1);
        counts
    }
}

/// Calls `visit` with the digest and path of each manifest of a repository, in no order.
pub(in crate::store::fs) fn each<E: From<StoreError>>(
    data: &DataDirectory,
    name: &Name,
    mut visit: impl FnMut(Digest, &Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    visit_entries(
        &data.layout.manifest_entries(name),
        |file| match digest_of(&file.file_name()) {
            Some(digest) => visit(digest, &file.path()),
            None => Ok(()),
        },
    )
}
