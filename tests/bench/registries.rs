//! The tables of the registries, and of nginx where plain files suffice.

use anyhow::{Context, Result};
use harness::octoserve::Launch;

use crate::load::Streams;
use crate::peers::Subject;
use crate::proxies::DOWNLOADS;
use crate::pulled::{Pulled, write};
use crate::rounds::{ALL_IN_ONE, DIRECT, DOCKER, REGISTRY, small_load};
use crate::table::{Table, ratio};
use crate::{Options, load, many};

/// What a push costs without the syncs.
const RELAXED: &str = "octoserve-registry, durability: relaxed";

/// Pulls of a manifest and of the blob, and pushes of a blob.
pub(crate) async fn measure(
    options: &Options,
    content: &Pulled,
    subjects: &mut Vec<Subject>,
    tables: &mut Vec<Table>,
) -> Result<()> {
    // Plain files are the upper limit.
    subjects.insert(0, Subject::files(DIRECT, content.directory.path()).await?);
    let load = small_load(options, content);
    let mut table = Table::new("Registries, manifest by tag", load, "req/s", "µs/request");
    table.ratios = const {
        &[
            ratio(REGISTRY, DIRECT, "≥ 0.7 (first step ≥ 0.5)"),
            ratio(REGISTRY, DOCKER, "≥ 7 (first step ≥ 5)"),
            ratio(ALL_IN_ONE, REGISTRY, "≥ 0.75"),
        ]
    };
    let path = Pulled::manifest_path();
    table
        .fill(options, subjects, async |subject, _| {
            load::small(subject, &path, options.seconds).await
        })
        .await?;
    tables.push(table);

    let load = format!(
        "curl, one connection: {DOWNLOADS} downloads of {} MiB",
        options.blob
    );
    let mut table = Table::new("Registries, a blob down", load, "MB/s", "s/GiB");
    table.ratios = const {
        &[
            ratio(REGISTRY, DIRECT, "≥ 0.95 (first step ≥ 0.9)"),
            ratio(REGISTRY, DOCKER, ""),
            ratio(ALL_IN_ONE, REGISTRY, "≥ 0.85"),
        ]
    };
    let path = content.blob_path();
    table
        .fill(options, subjects, async |subject, _| {
            load::download(subject, &path, content.length, Streams::one(DOWNLOADS)).await
        })
        .await?;
    tables.push(table);

    drop(subjects.remove(0));
    tables.push(pushes(options, content, subjects).await?);
    Ok(())
}

/// Pushes of a new blob in each round.
async fn pushes(options: &Options, content: &Pulled, subjects: &mut [Subject]) -> Result<Table> {
    let load = format!(
        "one POST and one PUT (curl) of a new blob of {} MiB",
        options.blob
    );
    let mut table = Table::new("Registries, push of a blob", load, "s", "s/GiB");
    table.ratios = const {
        &[
            ratio(REGISTRY, DOCKER, "≤ 0.5 (first step ≤ 0.6)"),
            ratio(ALL_IN_ONE, REGISTRY, ""),
        ]
    };
    let mut blobs = Vec::new();
    for round in 0..options.rounds {
        let file = content.directory.path().join(format!("push-{round}"));
        let digest = write(&file, u64::from(round) + 1000, content.length)?;
        blobs.push((file, digest));
    }
    table
        .fill(options, subjects, async |subject, round| {
            let (file, digest) = &blobs[round];
            load::push(subject, file, digest).await
        })
        .await?;
    Ok(table)
}

/// Concurrent pushes of small images.
pub(crate) async fn images(options: &Options) -> Result<Table> {
    let directory = &options.bin_dir;
    let mut subjects = vec![
        Subject::ours(REGISTRY, Launch::registry(), directory).await?,
        Subject::ours(RELAXED, relaxed(), directory).await?,
        Subject::ours(ALL_IN_ONE, Launch::all_in_one(), directory).await?,
        Subject::docker_registry(DOCKER).await?,
    ];
    let load = format!(
        "{} images of three layers of 1 KiB and a configuration (9 requests each), over {} \
         connections; {DOCKER}, which takes long, is pushed a tenth of them",
        options.images,
        many::CONNECTIONS
    );
    let title = "Registries, pushes of small images";
    let mut table = Table::new(title, load, "images/s", "µs/image");
    table.ratios = const {
        &[
            ratio(REGISTRY, DOCKER, "≥ 2"),
            ratio(ALL_IN_ONE, REGISTRY, ""),
            ratio(RELAXED, REGISTRY, ""),
        ]
    };
    table
        .fill(options, &mut subjects, async |subject, round| {
            let tenth = subject.name() == DOCKER;
            let count = options.images / if tenth { 10 } else { 1 };
            many::images(subject, round, count).await
        })
        .await?;
    Ok(table)
}

fn relaxed() -> Launch {
    Launch::registry().environment("OCTOSERVE_DURABILITY", "relaxed")
}

/// The memory during many concurrent pushes.
pub(crate) async fn many_connections(options: &Options) -> Result<Table> {
    let directory = &options.bin_dir;
    let mut subjects = vec![
        Subject::ours(REGISTRY, Launch::registry(), directory).await?,
        Subject::ours(ALL_IN_ONE, Launch::all_in_one(), directory).await?,
    ];
    let load = format!(
        "{} GiB in blobs of {} MiB over {} connections, once; the memory is the highest that there \
         was (goal < 60 MB)",
        options.pushed,
        many::BLOB >> 20,
        many::CONNECTIONS
    );
    let title = "Registries, many pushes at a time";
    let mut table = Table::new(title, load, "MB/s", "s/GiB");
    let blobs = many::blobs();
    table.rounds = Some(1);
    table
        .fill(options, &mut subjects, async |subject, _| {
            many::pushes(subject, &blobs, options.pushed << 30).await
        })
        .await?;
    Ok(table)
}

/// Listing very many tags, page by page.
pub(crate) async fn tags(options: &Options) -> Result<Table> {
    let title = "Registries, a listing of very many tags";
    // The benchmark's tags need not survive a power failure.
    let mut subjects = vec![Subject::ours(REGISTRY, relaxed(), &options.bin_dir).await?];
    let subject = subjects.first().context("no registry")?;
    if options.measures(title) {
        many::tag(subject, options.tags).await?;
    }
    let load = format!(
        "all {} tags of a repository in pages of 1,000, once; the memory is the highest that there \
         was, while they were pushed too",
        options.tags
    );
    let mut table = Table::new(title, load, "pages/s", "µs/page");
    table.rounds = Some(1);
    table
        .fill(options, &mut subjects, async |subject, _| {
            many::pages(subject, options.tags).await
        })
        .await?;
    Ok(table)
}
