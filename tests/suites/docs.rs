//! The documentation: its links lead somewhere, its configurations are valid, its queries are
//! evaluated, its commands run or are listed, and the tests that it names exist.
//!
//! A snippet is what a reader copies, so it is taken from the page as it is. Only what this machine
//! does not have is replaced: ports, and the directories of a system ([`places`]).

/// Endpoints and error codes.
mod api;
/// Clients configured by the files that the pages show.
mod clients;
/// Commands run, or are listed.
mod commands;
/// YAML, JSON and TOML.
mod configurations;
/// Links and anchors.
mod links;
/// Tests and suites that pages name.
mod names;
/// The pages and what they are made of.
mod pages;
/// What stands in for the ports and directories of the pages.
mod places;
/// The tutorial, from the first push to one's own pull in Prometheus.
mod tutorial;

use anyhow::{Result, ensure};
use harness::octoserve::Launch;
use harness::prometheus::Prometheus;

use pages::Page;

#[tokio::test]
async fn a_real_prometheus_evaluates_every_query() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let prometheus = Prometheus::scraping(&[server.metrics_address()]).await?;
    prometheus.expect("up", 1.0).await?;
    let mut evaluated = 0;
    for page in Page::all()? {
        for block in page.blocks().filter(|block| block.language == "promql") {
            for query in queries(&block.text) {
                let result = prometheus.query(&query).await;
                ensure!(result.is_ok(), "{}: {result:?}", block.place());
                evaluated += 1;
            }
        }
    }
    ensure!(evaluated > 100, "only {evaluated}");
    Ok(())
}

/// The queries of a block: one on each line, and what is indented belongs to the line before.
fn queries(block: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        match all.last_mut() {
            Some(last) if line.starts_with([' ', ')']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => all.push(line.to_owned()),
        }
    }
    all
}
