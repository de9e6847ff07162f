//! The tables of the proxies, all in front of the same upstream.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use harness::octoserve::Launch;

use crate::load::{HTTP1, Streams};
use crate::peers::Subject;
use crate::pulled::{Pulled, REPOSITORY};
use crate::rounds::{
    CADDY, DIRECT, HAPROXY, LOGGED, MTAIL, NGINX, OURS, QUIET, SCRAPED, SPLICE, UNMEASURED,
    small_load,
};
use crate::table::{Compare, Table, compare, ratio};
use crate::{Options, changes, instructions, load, many, secured, sink};

/// Downloads of the blob in one measurement.
pub(crate) const DOWNLOADS: u32 = 4;
/// The length of the smaller blob.
const SMALL: u64 = 1 << 20;
/// Concurrent connections, in tables with several.
const STREAMS: u32 = 16;
/// Uploads of the blob in one measurement.
const UPLOADS: u32 = 2;

/// Small responses, and downloads and uploads of the blob.
pub(crate) async fn measure(
    options: &Options,
    content: &Pulled,
    tables: &mut Vec<Table>,
) -> Result<()> {
    let direct = Subject::files(DIRECT, content.directory.path()).await?;
    let mut subjects = in_front_of(direct.address(), &options.bin_dir).await?;
    subjects.insert(0, direct);

    let load = small_load(options, content);
    let mut table = Table::new("Proxies, small responses", load, "req/s", "µs/request");
    table.ratios = const {
        &[
            ratio(OURS, HAPROXY, "≥ 1.0"),
            ratio(LOGGED, HAPROXY, "≥ 0.9"),
            ratio(OURS, NGINX, ""),
            ratio(OURS, MTAIL, "≥ 1.1"),
            ratio(OURS, UNMEASURED, ""),
        ]
    };
    let path = Pulled::manifest_path();
    table
        .fill(options, &mut subjects, async |subject, _| {
            load::small(subject, &path, options.seconds).await
        })
        .await?;
    tables.push(table);

    let load = format!(
        "{} requests a second over {} connections for {} s: GET of a manifest of {} bytes",
        many::PACE,
        many::CONNECTIONS,
        options.seconds,
        content.manifest.len()
    );
    let mut table = Table::new("Proxies, latency", load, "ms (median)", "µs/request");
    table.ratios = const {
        &[
            compare(OURS, DIRECT, Compare::Difference, "< 0.10"),
            compare(OURS, DIRECT, Compare::DifferenceAt99, "< 0.5"),
            compare(HAPROXY, DIRECT, Compare::Difference, ""),
            compare(HAPROXY, DIRECT, Compare::DifferenceAt99, ""),
        ]
    };
    table
        .fill(options, &mut subjects, async |subject, _| {
            many::paced(subject, &path, options.seconds).await
        })
        .await?;
    tables.push(table);
    tables.push(scraped(options, content, subjects[0].address()).await?);
    tables.push(changes::table(options, content, subjects[0].address()).await?);

    let load = format!(
        "curl, one connection: {DOWNLOADS} downloads of {} MiB",
        options.blob
    );
    let mut table = Table::new("Proxies, a blob down", load, "MB/s", "s/GiB");
    table.ratios = BLOBS;
    let path = content.blob_path();
    table
        .fill(options, &mut subjects, async |subject, _| {
            load::download(subject, &path, content.length, Streams::one(DOWNLOADS)).await
        })
        .await?;
    tables.push(table);

    // The other programs would add nothing here.
    subjects.retain(|subject| COMPARED.contains(&subject.name()));
    let small = content.small_blob(SMALL)?;
    for (title, path, length, streams) in [
        (
            "Proxies, small blobs down",
            Pulled::path_of(&small),
            SMALL,
            Streams::one(256),
        ),
        (
            "Proxies, small blobs down, 16 at a time",
            Pulled::path_of(&small),
            SMALL,
            Streams {
                times: 512,
                at_a_time: STREAMS,
                version: HTTP1,
            },
        ),
        (
            "Proxies, blobs down, 16 at a time",
            content.blob_path(),
            content.length,
            Streams {
                times: STREAMS,
                at_a_time: STREAMS,
                version: HTTP1,
            },
        ),
    ] {
        let load = transfers("downloads", length, streams);
        let mut table = Table::new(title, load, "MB/s", "s/GiB");
        table.ratios = BLOBS;
        table
            .fill(options, &mut subjects, async |subject, _| {
                load::download(subject, &path, length, streams).await
            })
            .await?;
        tables.push(table);
    }
    drop(subjects);
    uploads(options, content, &small, tables).await?;
    secured::measure(options, content, tables).await?;
    tables.push(instructions::table(options, content).await?);
    Ok(())
}

/// The latency of requests during constant scrapes.
async fn scraped(options: &Options, content: &Pulled, upstream: SocketAddr) -> Result<Table> {
    let mut subjects = Vec::new();
    for name in [QUIET, SCRAPED] {
        let launch = Launch::in_front_of(&format!("http://{upstream}"));
        let subject = Subject::ours(name, launch, &options.bin_dir).await?;
        many::fill_exposition(subject.address()).await?;
        subjects.push(subject);
    }
    let load = format!(
        "{} requests a second over {} connections for {} s: GET of a manifest of {} bytes; before, \
         one request of each endpoint and method, so that the page is large; processor time is that \
         of the scrapes, too",
        many::PACE,
        many::CONNECTIONS,
        options.seconds,
        content.manifest.len()
    );
    let mut table = Table::new(
        "Proxies, latency while scraped",
        load,
        "ms (median)",
        "µs/request",
    );
    table.ratios = const {
        &[
            compare(SCRAPED, QUIET, Compare::Difference, ""),
            compare(SCRAPED, QUIET, Compare::DifferenceAt99, "< 1"),
        ]
    };
    let path = Pulled::manifest_path();
    table
        .fill(options, &mut subjects, async |subject, _| {
            let scraper = (subject.name() == SCRAPED).then(|| many::scraping(subject.address()));
            let sample = many::paced(subject, &path, options.seconds).await;
            if let Some(scraper) = scraper {
                ensure!(!scraper.is_finished(), "a scrape failed");
                scraper.abort();
            }
            sample
        })
        .await?;
    Ok(table)
}

/// The programs in the tables of many transfers.
const COMPARED: &[&str] = &[DIRECT, HAPROXY, SPLICE, NGINX, OURS];

/// A description of curl's transfers.
pub(crate) fn transfers(what: &str, length: u64, streams: Streams) -> String {
    let Streams {
        times, at_a_time, ..
    } = streams;
    let connections = match at_a_time {
        1 => "one connection".to_owned(),
        _ => format!("{at_a_time} connections"),
    };
    format!(
        "curl, {connections}: {times} {what} of {} MiB",
        length >> 20
    )
}

const BLOBS: &[crate::table::Ratio] = &[
    ratio(OURS, SPLICE, "≥ 0.95, 16 at a time ≥ 1.0"),
    ratio(OURS, HAPROXY, "≥ 1.0"),
    ratio(OURS, NGINX, ""),
];

/// Uploads through the proxies, in front of an upstream that discards them.
async fn uploads(
    options: &Options,
    content: &Pulled,
    small: &str,
    tables: &mut Vec<Table>,
) -> Result<()> {
    let (address, sink) = sink::start().await?;
    let mut subjects = in_front_of(address, &options.bin_dir).await?;
    for (title, digest, length, streams) in [
        (
            "Proxies, a blob up",
            content.blob.as_str(),
            content.length,
            Streams::one(UPLOADS),
        ),
        ("Proxies, small blobs up", small, SMALL, Streams::one(256)),
        (
            "Proxies, small blobs up, 16 at a time",
            small,
            SMALL,
            Streams {
                times: 512,
                at_a_time: STREAMS,
                version: HTTP1,
            },
        ),
        (
            "Proxies, blobs up, 16 at a time",
            content.blob.as_str(),
            content.length,
            Streams {
                times: STREAMS,
                at_a_time: STREAMS,
                version: HTTP1,
            },
        ),
    ] {
        let load = transfers("PUT", length, streams) + ", to an upstream that discards them";
        let mut table = Table::new(title, load, "MB/s", "s/GiB");
        table.ratios = BLOBS;
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/session?digest={digest}");
        let file = content.file(digest);
        table
            .fill(options, &mut subjects, async |subject, _| {
                load::upload(subject, &path, &file, streams).await
            })
            .await?;
        tables.push(table);
        // The other programs would add nothing to the following tables.
        subjects.retain(|subject| COMPARED.contains(&subject.name()));
    }
    sink.abort();
    Ok(())
}

async fn in_front_of(upstream: SocketAddr, directory: &Path) -> Result<Vec<Subject>> {
    let launch = || Launch::in_front_of(&format!("http://{upstream}"));
    let unmeasured = launch().environment("OCTOSERVE_METRICS_ENABLED", "false");
    Ok(vec![
        Subject::haproxy(HAPROXY, upstream, false).await?,
        Subject::haproxy(SPLICE, upstream, true).await?,
        Subject::nginx_proxy(NGINX, upstream).await?,
        Subject::nginx_with_mtail(MTAIL, upstream).await?,
        Subject::caddy(CADDY, upstream).await?,
        Subject::ours(OURS, launch(), directory).await?,
        Subject::logged(LOGGED, launch(), directory).await?,
        Subject::ours(UNMEASURED, unmeasured, directory).await?,
    ])
}
