//! Runs on a store in a directory.

mod manifests;
mod refused;
mod tags;
mod together;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Descriptor, Digest, Kind, MediaType, Name, Reference, Tag};
use crate::store::fs::{Durability, FsStore, write_memory_since_1970};
use crate::store::maintenance::{Pace, Run};
use crate::store::{NewManifest, Store};

const DAY: Duration = Duration::from_hours(24);

/// A store with one repository, `a`, that remembers pulls since 1970.
struct Fixture {
    store: FsStore,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_memory_since_1970(directory.path());
        let store = open(directory.path());
        Self { store, directory }
    }

    /// Pushes a manifest as if it were so many days ago.
    async fn push(&self, new: &NewManifest, tags: &[&str], days: u32) -> Digest {
        self.push_to("a", new, tags, days).await
    }

    async fn push_to(&self, name: &str, new: &NewManifest, tags: &[&str], days: u32) -> Digest {
        self.push_now(name, new, tags).await;
        for tag in tags {
            self.age(&format!("{name}/_tags/{tag}"), days);
        }
        self.age(&entry(name, &new.digest), days);
        new.digest.clone()
    }

    async fn push_now(&self, name: &str, new: &NewManifest, tags: &[&str]) {
        let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
        let name = self::name(name);
        let written = self.store.manifest_write(&name, new.clone(), &tags, None);
        written.await.unwrap();
    }

    /// Makes a file of a repository as old as that. It may have gone.
    fn age(&self, path: &str, days: u32) {
        let path = self.directory.path().join("repositories").join(path);
        if let Ok(file) = File::options().append(true).open(path) {
            file.set_modified(SystemTime::now() - DAY * days).unwrap();
        }
    }

    fn run(&self, settings: &RetentionSettings) -> RetentionReport {
        let mut report = RetentionReport::default();
        let (store, dry_run) = (&self.store, settings.dry_run);
        let ended = run(store, settings, dry_run, &Run::new(Pace::Full), &mut report);
        ended.unwrap();
        report
    }

    /// The tags that are there.
    async fn tags(&self, name: &str) -> Vec<String> {
        let listing = self.store.tag_list(&self::name(name), None, 10_000).await;
        let tags = listing.map(|listing| listing.items).unwrap_or_default();
        tags.iter().map(|tag| tag.as_str().to_owned()).collect()
    }

    async fn has(&self, digest: &Digest) -> bool {
        let reference = Reference::Digest(digest.clone());
        let read = self.store.manifest_read(&name("a"), &reference).await;
        read.is_ok()
    }
}

fn open(directory: &Path) -> FsStore {
    FsStore::open(directory, Durability::Relaxed, Arc::new(())).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn entry(name: &str, digest: &Digest) -> String {
    format!("{name}/_manifests/{}", digest.as_str().replace(':', "-"))
}

/// A manifest with these bytes.
fn manifest(text: &str) -> NewManifest {
    NewManifest {
        digest: Digest::of(Algorithm::Sha256, text.as_bytes()),
        media_type: MediaType::OCI_MANIFEST,
        bytes: Bytes::from(text.to_owned()),
        kind: Kind::Image,
        blobs: Vec::new(),
        children: Vec::new(),
        subject: None,
    }
}

fn image(n: usize) -> NewManifest {
    manifest(&format!("{{\"n\":{n}}}"))
}

fn index(children: &[&Digest]) -> NewManifest {
    let digests: Vec<_> = children
        .iter()
        .map(|child| serde_json::json!({"digest": child.as_str()}))
        .collect();
    NewManifest {
        media_type: MediaType::OCI_INDEX,
        kind: Kind::Index,
        children: children.iter().copied().cloned().collect(),
        ..manifest(&serde_json::json!({ "manifests": digests }).to_string())
    }
}

fn referrer(subject: &Digest) -> NewManifest {
    let text = serde_json::json!({"subject": {"digest": subject.as_str()}}).to_string();
    let new = manifest(&text);
    let descriptor = Descriptor::new(new.media_type.clone(), new.digest.clone(), 1);
    NewManifest {
        subject: Some((subject.clone(), descriptor)),
        ..new
    }
}

/// Settings with one rule, for all repositories.
fn settings(keep: Option<Keep>, untagged: Option<Duration>) -> RetentionSettings {
    RetentionSettings {
        dry_run: false,
        rules: vec![RetentionRule {
            repositories: vec![Pattern::parse("**").unwrap()],
            keep,
            untagged,
        }],
    }
}

/// Settings that keep so many tags, and untagged manifests for a time.
fn newest(newest: usize, untagged: Option<Duration>) -> RetentionSettings {
    let keep = Keep {
        newest: Some(newest),
        ..Keep::default()
    };
    settings(Some(keep), untagged)
}

/// The tags, and the digests of manifests, that were deleted.
fn deleted(report: &RetentionReport) -> Vec<String> {
    let deletions = report.deletions.iter();
    let mut names: Vec<_> = deletions
        .map(|one| one.tag.clone().unwrap_or_else(|| one.digest.clone()))
        .collect();
    names.sort_unstable();
    names
}
