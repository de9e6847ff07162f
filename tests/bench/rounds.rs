//! All tables, in the order in which they are measured and printed.

use anyhow::{Result, ensure};
use harness::octoserve::Launch;

use crate::peers::{self, Subject};
use crate::pulled::Pulled;
use crate::table::Table;
use crate::{Options, collection, load, proxies, registries, say, statistics};

/// The rows of the tables, by program.
pub(crate) const DIRECT: &str = "nginx, the files directly";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const SPLICE: &str = "haproxy with splice";
pub(crate) const NGINX: &str = "nginx as a proxy";
pub(crate) const MTAIL: &str = "nginx, its log and mtail";
pub(crate) const CADDY: &str = "caddy";
pub(crate) const OURS: &str = "octoserve in front of nginx";
pub(crate) const SECURED: &str = "octoserve with TLS";
pub(crate) const SECURED_HAPROXY: &str = "haproxy with TLS";
pub(crate) const SECURED_NGINX: &str = "nginx with TLS";
pub(crate) const LOGGED: &str = "octoserve with access log";
pub(crate) const UNMEASURED: &str = "octoserve without metrics";
pub(crate) const QUIET: &str = "octoserve that nobody scrapes";
pub(crate) const SCRAPED: &str = "octoserve scraped 50 times a second";
pub(crate) const STEADY: &str = "octoserve that nobody changes";
pub(crate) const RELOADED: &str = "octoserve reloaded once a second";
pub(crate) const TAKEN_OVER: &str = "octoserve taken over once a second";
pub(crate) const REGISTRY: &str = "octoserve-registry";
pub(crate) const ALL_IN_ONE: &str = "octoserve, all-in-one";
pub(crate) const DOCKER: &str = "docker-registry";

/// Starts all programs and measures all tables.
pub(crate) async fn measure(options: &Options) -> Result<Vec<Table>> {
    for program in [
        "wrk",
        "curl",
        "haproxy",
        "nginx",
        "caddy",
        "mtail",
        "docker-registry",
    ] {
        peers::find(program)?;
    }
    for program in ["octoserve", "octoserve-registry"] {
        let path = options.bin_dir.join(program);
        ensure!(
            path.is_file(),
            "{} is missing: `make bench` builds it",
            path.display()
        );
    }
    say("starting the registries");
    let directory = &options.bin_dir;
    let mut subjects = vec![
        Subject::ours(REGISTRY, Launch::registry(), directory).await?,
        Subject::ours(ALL_IN_ONE, Launch::all_in_one(), directory).await?,
        Subject::docker_registry(DOCKER).await?,
    ];
    let content = Pulled::push_to(&subjects, options.blob << 20).await?;

    let mut tables = Vec::new();
    proxies::measure(options, &content, &mut tables).await?;
    registries::measure(options, &content, &mut subjects, &mut tables).await?;
    drop(subjects);
    tables.push(registries::images(options).await?);
    tables.push(registries::many_connections(options).await?);
    tables.push(registries::tags(options).await?);
    statistics::measure(options, &mut tables).await?;
    collection::measure(options, &mut tables).await?;
    Ok(tables)
}

/// A description of the load of small responses.
pub(crate) fn small_load(options: &Options, content: &Pulled) -> String {
    format!(
        "wrk, 1 thread, {} connections, {} s: GET of a manifest of {} bytes",
        load::CONNECTIONS,
        options.seconds,
        content.manifest.len()
    )
}
