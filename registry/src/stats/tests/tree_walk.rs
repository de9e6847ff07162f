//! Counts a store's directory by the documented layout alone, without any code of the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::oci::Kind;
use crate::stats::Totals;

/// The figures of a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) totals: Totals,
    /// The bytes of each repository that holds any.
    pub(super) stored: BTreeMap<String, i64>,
    pub(super) sessions: u64,
    /// The bytes that sessions have received.
    pub(super) received: u64,
}

/// Counts everything except the bytes allocated on disk.
pub(super) fn walk(root: &Path) -> Walked {
    let mut walked = Walked::default();
    for shards in ["blobs/sha256", "blobs/sha512"] {
        for shard in entries(&root.join(shards)) {
            walked.totals.blobs += signed(entries(&shard).len());
        }
    }
    repositories(root, "", &mut walked);
    for session in entries(&root.join("uploads")) {
        walked.sessions += u64::from(session.join("session").exists());
        walked.received += fs::metadata(session.join("data")).map_or(0, |data| data.len());
    }
    walked
}

fn repositories(root: &Path, name: &str, walked: &mut Walked) {
    let directory = root.join("repositories").join(name);
    let (mut stored, mut items) = (0, 0);
    for link in entries(&directory.join("_blobs")) {
        stored += size(&content(root, "blobs", &link));
        items += 1;
    }
    for entry in entries(&directory.join("_manifests")) {
        let parsed: serde_json::Value = serde_json::from_slice(&fs::read(&entry).unwrap()).unwrap();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| parsed["kind"] == kind.as_str());
        walked.totals.manifests[kind.unwrap() as usize] += 1;
        stored += size(&content(root, "manifests", &entry));
        items += 1;
    }
    walked.totals.tags += signed(entries(&directory.join("_tags")).len());
    walked.totals.repositories += i64::from(items > 0);
    if stored > 0 {
        walked.stored.insert(name.to_owned(), stored);
    }
    for below in entries(&directory) {
        let component = below.file_name().unwrap().to_str().unwrap();
        if !component.starts_with('_') {
            let below = match name {
                "" => component.to_owned(),
                above => format!("{above}/{component}"),
            };
            repositories(root, &below, walked);
        }
    }
}

/// The content that a link or entry such as `sha256-<hex>` stands for.
fn content(root: &Path, pool: &str, link: &Path) -> PathBuf {
    let name = link.file_name().unwrap().to_str().unwrap();
    let (algorithm, hex) = name.split_once('-').unwrap();
    root.join(pool).join(algorithm).join(&hex[..2]).join(hex)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn size(file: &Path) -> i64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len().try_into().unwrap())
}

fn signed(count: usize) -> i64 {
    count.try_into().unwrap()
}
