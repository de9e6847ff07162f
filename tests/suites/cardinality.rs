//! Two hundred thousand hostile requests do not make the exposition grow beyond its bounds.
//!
//! Thousands of repositories exist, so that successful as well as failed requests could create
//! label values. Afterwards, every label value is in a closed set listed here or is the name of an
//! existing repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::scrape::{Scrape, metric};
use harness::wire::Wire;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

const REPOSITORIES: usize = 5_000;
const REQUESTS: usize = 200_000;
const CONNECTIONS: usize = 16;

/// How many repositories are shown by name.
const CAP: usize = 200;
/// The bound on the series that do not depend on the configuration.
const FIXED: usize = 3_200;
/// The longest sample line, with an allowance for HELP and TYPE.
const BYTES_PER_SERIES: usize = 160;
/// The memory bound of a process that keeps no names from requests.
const MEMORY: f64 = 256e6;

/// The smallest manifest.
const MANIFEST: &str = "{\"schemaVersion\":2,\"mediaType\":\
    \"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}";

#[tokio::test]
async fn a_fresh_exposition_is_small() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let scrape = server.scrape().await?;
    ensure!(scrape.text().len() <= 50 << 10, "{}", scrape.text().len());
    Ok(())
}

/// A known mistake of other exporters: raw paths and methods as labels, and a 404 that creates a
/// series.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_creates_a_label_value() -> Result<()> {
    let server = Launch::all_in_one()
        .environment("OCTOSERVE_REGISTRY_DURABILITY", "relaxed")
        .environment("OCTOSERVE_LOGGING_ACCESS", "false")
        .start()
        .await?;
    let address = server.address();
    in_parallel(address, REPOSITORIES, push).await?;
    let filled = own_series(&server.scrape().await?);
    ensure!(filled.repositories.len() == CAP, "{filled:?}");
    in_parallel(address, REQUESTS, hostile).await?;
    let ended = metric("octoserve_http_requests_total");
    let scrape = server.scrape().await?;
    let counted = scrape.sum(&ended).unwrap_or_default();
    ensure!(counted >= REQUESTS as f64, "only {counted} were counted");
    check_exposition(&server, &scrape)
}

fn check_exposition(server: &Server, scrape: &Scrape) -> Result<()> {
    let own = own_series(scrape);
    let bound = FIXED + 12 * (CAP + 1) + 90 + 8;
    ensure!(own.count <= bound, "{} series are over {bound}", own.count);
    ensure!(
        own.bytes <= bound * BYTES_PER_SERIES,
        "an exposition of {} bytes",
        own.bytes
    );
    let memory = scrape
        .sum(&metric("process_resident_memory_bytes"))
        .context("no memory in the exposition")?;
    ensure!(memory < MEMORY, "{memory} bytes of memory");
    let secrets = [server.host(), "127.0.0.1".to_owned()];
    for (label, values) in scrape.label_values() {
        for value in values {
            ensure!(
                is_allowed(&label, &value),
                "{label}={value:?} is no value that is known"
            );
            ensure!(
                secrets.iter().all(|secret| !value.contains(secret)),
                "{label}={value:?}"
            );
        }
    }
    Ok(())
}

/// The proxy's own series in an exposition.
#[derive(Debug)]
struct Own {
    count: usize,
    bytes: usize,
    repositories: BTreeSet<String>,
}

fn own_series(scrape: &Scrape) -> Own {
    let mut own = Own {
        count: 0,
        bytes: 0,
        repositories: BTreeSet::new(),
    };
    for family in scrape.exposition().families() {
        for sample in family.samples() {
            if sample.label("source").is_some() && !family.name().contains("_aggregate_") {
                continue;
            }
            own.count += 1;
            let labels = sample.labels().map(|(k, v)| k.len() + v.len() + 4);
            own.bytes += family.name().len() + labels.sum::<usize>() + 24;
            if let Some(name) = sample.label("repository")
                && name != "_other"
            {
                own.repositories.insert(name.into_owned());
            }
        }
    }
    own
}

/// Whether a label may have this value.
fn is_allowed(label: &str, value: &str) -> bool {
    match label {
        "repository" => value == "_other" || number(value).is_some_and(|n| n < REPOSITORIES),
        "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
        // These describe the build.
        "version" | "revision" | "rustc" => true,
        _ => CLOSED
            .iter()
            .any(|(name, values)| *name == label && values.split(' ').any(|one| one == value)),
    }
}

/// The number of a pushed repository.
fn number(repository: &str) -> Option<usize> {
    let number = repository.strip_prefix("real/team/r")?;
    number.parse().ok()
}

/// Every value of every closed set, over all families with that label.
const CLOSED: &[(&str, &str)] = &[
    (
        "endpoint",
        "base catalog tags manifest blob upload_start upload_session referrers token extension other",
    ),
    ("method", "GET HEAD POST PUT PATCH DELETE OPTIONS OTHER"),
    (
        "status",
        "200 201 202 204 206 301 302 303 304 307 308 400 401 403 404 405 406 408 412 413 416 429 499 \
         500 502 503 504 507 508 other success error",
    ),
    (
        "result",
        "ok not_found denied client_error server_error aborted mounted fallback error challenge \
         unauthorized forbidden refused interrupted",
    ),
    (
        "client",
        "docker containerd containers crio buildkit kaniko cosign notation oras helm regclient \
         crane trivy curl python other",
    ),
    (
        "kind",
        "image index artifact signature attestation other blob manifest tag upload",
    ),
    ("reference", "tag digest"),
    ("upstream", "registry"),
    ("source", "registry"),
    ("backend", "filesystem"),
    ("direction", "upload download read write"),
    ("side", "client upstream"),
    ("scheme", "basic bearer none other"),
    (
        "outcome",
        "ok error timeout completed cancelled failed expired",
    ),
    (
        "event",
        "started completed cancelled failed expired unknown",
    ),
    (
        "reason",
        "limit tls timeout connect reset dns protocol type_conflict duplicate malformed sessions bytes \
         space read_only",
    ),
    (
        "error_type",
        "not_found digest_mismatch invalid no_space permission io timeout other",
    ),
    (
        "operation",
        "pull head push mount delete resolve other created moved deleted blob_stat blob_read \
         blob_delete blob_mount upload_create upload_append upload_commit upload_cancel \
         upload_stat manifest_read manifest_write manifest_delete tag_read tag_write tag_delete \
         tag_list repository_list referrers_list index_pull index_push blob_pull blob_push",
    ),
    (
        "code",
        "BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID \
         MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN \
         SIZE_INVALID UNAUTHORIZED DENIED UNSUPPORTED TOOMANYREQUESTS \
         PAGINATION_NUMBER_INVALID UNAVAILABLE other",
    ),
];

/// Sends this many requests over a few keep-alive connections.
async fn in_parallel(
    address: SocketAddr,
    requests: usize,
    spell: fn(usize, &mut StdRng) -> Spelt,
) -> Result<()> {
    let mut senders = JoinSet::new();
    for sender in 0..CONNECTIONS {
        senders.spawn(async move {
            let mut random = StdRng::seed_from_u64(sender as u64);
            let mut wire = Wire::connect(address).await?;
            for number in (sender..requests).step_by(CONNECTIONS) {
                let Spelt {
                    method,
                    text,
                    expected,
                } = spell(number, &mut random);
                wire.send(text.as_bytes()).await?;
                let response = wire.response(method).await.context(text.clone())?;
                let status = response.head.status;
                ensure!(
                    expected.is_none_or(|expected| expected == status),
                    "{status} to {text}"
                );
                if response.head.header("connection") == Some("close") {
                    wire = Wire::connect(address).await?;
                }
            }
            Ok(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    Ok(())
}

/// The bytes of a request.
struct Spelt {
    method: &'static str,
    text: String,
    expected: Option<u16>,
}

fn push(number: usize, _: &mut StdRng) -> Spelt {
    let text = format!(
        "PUT /v2/real/team/r{number}/manifests/t HTTP/1.1\r\nHost: a\r\n\
         Content-Type: application/vnd.oci.image.index.v1+json\r\nContent-Length: {}\r\n\r\n\
         {MANIFEST}",
        MANIFEST.len()
    );
    Spelt {
        method: "PUT",
        text,
        expected: Some(201),
    }
}

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "PROPFIND", "get", "TRACE",
];

const AGENTS: &[&str] = &[
    "docker/27.0",
    "containerd/2.1",
    "skopeo/1.9",
    "cosign/v2 go-containerregistry/v0",
    "Helm/3",
    "curl/8",
    "python-requests/2",
    "",
];

/// A random request, mostly for missing content.
fn hostile(number: usize, random: &mut StdRng) -> Spelt {
    let mut method = *METHODS.choose(random).unwrap_or(&"GET");
    let mut expected = None;
    let name = format!(
        "n{:x}/x{:x}",
        random.random::<u32>(),
        random.random::<u16>()
    );
    let hex = format!(
        "{:032x}{:032x}",
        random.random::<u128>(),
        random.random::<u128>()
    );
    let path = match random.random_range(0..16) {
        // An existing one.
        0..3 => {
            method = "GET";
            expected = Some(200);
            format!("/v2/real/team/r{}/manifests/t", number % REPOSITORIES)
        }
        3 => format!("/v2/real/team/r{}/manifests/{hex}", number % REPOSITORIES),
        4 => format!("/v2/real/team/r{}/tags/list?n={hex}", number % REPOSITORIES),
        5 => format!("/v2/{name}/manifests/{hex}"),
        6 => format!("/v2/{name}/manifests/sha256:{hex}"),
        7 => format!("/v2/{name}/blobs/sha256:{hex}"),
        8 => format!("/v2/{name}/blobs/uploads/{hex}?digest=sha256:{hex}"),
        9 => format!("/v2/{name}/referrers/sha256:{hex}?artifactType={name}"),
        10 => format!("/v2/{name}/_{hex}/{name}"),
        11 => format!("/v2/_other/tags/list?token={hex}"),
        12 => format!("/v2/{}%2f..%2F{name}/tags/list", hex.to_uppercase()),
        13 => format!("/{name}/{hex}?{hex}"),
        // A success that does not prove that the repository exists.
        14 if number.is_multiple_of(2) => {
            method = "POST";
            format!("/v2/{name}/blobs/uploads/")
        }
        14 => format!("/v2/{name}/blobs/manifests/tags/{hex}"),
        _ => format!("/token?account={hex}&scope=repository:{name}:pull"),
    };
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {hex}.example\r\n");
    // Writing to a String cannot fail.
    let agent = AGENTS.choose(random).unwrap_or(&"");
    write!(text, "User-Agent: {agent}{hex}\r\nX-{hex}: {name}\r\n").ok();
    match random.random_range(0..4) {
        0 => write!(text, "Authorization: Bearer {hex}\r\n").ok(),
        1 => write!(text, "Authorization: Basic {hex}\r\nAccept: text/{hex}\r\n").ok(),
        2 => write!(
            text,
            "Authorization: {hex} {hex}\r\nRange: bytes=0-{number}\r\n"
        )
        .ok(),
        _ => None,
    };
    if expected.is_some() {
        // A range of a manifest would have another status.
        text = text.replace("Range:", "X-Range:");
    }
    if matches!(method, "POST" | "PUT" | "PATCH") {
        text.push_str("Content-Length: 0\r\n");
    }
    text.push_str("\r\n");
    Spelt {
        method,
        text,
        expected,
    }
}

#[test]
fn each_closed_set_is_declared_once() {
    let mut sets = BTreeMap::new();
    for (label, values) in CLOSED {
        assert!(sets.insert(label, values).is_none(), "{label}");
    }
}
