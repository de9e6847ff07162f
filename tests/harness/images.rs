//! Very many images, written directly into the data directory of a registry according to `docs/storage.md`.
//!
//! All manifests differ, and each repository has a layer of its own; one in a hundred has a blob that nothing
//! needs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::{MANIFEST, descriptor};
use crate::content;

/// The images of each repository.
pub const IMAGES: u64 = 10;
/// Of so many repositories one has a blob that nothing needs.
pub const GARBAGE: u64 = 100;

/// Writes so many repositories below a data directory, with one thread per processor. They are `app-0`,
/// `app-1` and so on, below `team-0` to `team-99`. The tags are `v0` to `v9`.
///
/// # Errors
/// If something cannot be written.
pub fn write(root: &Path, count: u64) -> Result<()> {
    let config = b"{}".to_vec();
    place(root, "blobs", &config)?;
    let one = |number: u64| -> Result<()> {
        let repository = root.join(format!("repositories/team-{}/app-{number}", number % 100));
        for directory in ["_blobs", "_manifests", "_tags"] {
            fs::create_dir_all(repository.join(directory))?;
        }
        let layer = content::bytes(number, 64);
        place(root, "blobs", &layer)?;
        let mut blobs = vec![config.clone(), layer.clone()];
        if number.is_multiple_of(GARBAGE) {
            let garbage = content::bytes(number, 65);
            place(root, "blobs", &garbage)?;
            blobs.push(garbage);
        }
        for blob in blobs {
            fs::write(
                repository.join("_blobs").join(file_name(&blob)),
                format!("{}\n", blob.len()),
            )?;
        }
        for version in 0..IMAGES {
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
                "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
                "annotations": {"version": version.to_string()},
            });
            let manifest = manifest.to_string();
            place(root, "manifests", manifest.as_bytes())?;
            let entry = json!({"mediaType": MANIFEST, "kind": "image", "size": manifest.len()});
            let name = file_name(manifest.as_bytes());
            fs::write(
                repository.join("_manifests").join(name),
                format!("{entry}\n"),
            )?;
            let tag = content::digest(manifest.as_bytes()) + "\n";
            fs::write(repository.join("_tags").join(format!("v{version}")), tag)?;
        }
        Ok(())
    };
    in_parallel(count, one)
}

/// Does something for each number below `count`, with one thread per processor.
///
/// # Errors
/// The first of them.
pub fn in_parallel(count: u64, one: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|first| {
                let one = &one;
                scope.spawn(move || (first as u64..count).step_by(workers).try_for_each(one))
            })
            .collect();
        let mut done = workers.into_iter().map(|worker| {
            let joined = worker.join().ok().context("a worker panicked");
            joined.flatten()
        });
        done.try_for_each(|done| done)
    })
}

/// Writes content where the store keeps it.
fn place(root: &Path, pool: &str, bytes: &[u8]) -> Result<()> {
    let digest = content::digest(bytes);
    let hex = digest.trim_start_matches("sha256:");
    let directory = root.join(pool).join("sha256").join(&hex[..2]);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(hex), bytes)?)
}

fn file_name(bytes: &[u8]) -> String {
    content::digest(bytes).replace(':', "-")
}
