//! Prometheus: a real server, its query language, and promtool.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::process::{OutputStream, Process};
use crate::scrape::{Scrape, metric};
use crate::{poll, tools};

/// How long a scrape or query may take to show the expected value.
const DEADLINE: Duration = Duration::from_mins(1);

/// How often Prometheus scrapes.
const INTERVAL: &str = "250ms";

/// A running Prometheus with one job, `octoserve`. Dropping it kills it.
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

/// A target and the result of its last scrape.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `up`, `down`, or `unknown` before the first scrape.
    pub health: String,
    /// The reason if it is down.
    pub error: String,
}

/// One series of a query's result: its labels and its value.
pub type Series = (BTreeMap<String, String>, f64);

impl Prometheus {
    /// Starts one that scrapes `/metrics` of these targets.
    ///
    /// # Errors
    /// If prometheus is not installed or does not start.
    pub async fn scraping(targets: &[SocketAddr]) -> Result<Self> {
        Self::scraping_with(targets, "").await
    }

    /// Starts one with additional keys in its `scrape_configs`: `scheme: https, …`.
    ///
    /// # Errors
    /// If prometheus is not installed or does not start.
    pub async fn scraping_with(targets: &[SocketAddr], keys: &str) -> Result<Self> {
        let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        Self::configured(&format!(
            "global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}}}\n\
             scrape_configs:\n- {{job_name: octoserve, static_configs: [{{targets: [{}]}}], {keys}}}\n",
            targets.join(", ")
        ))
        .await
    }

    /// Starts one with this configuration.
    ///
    /// # Errors
    /// If prometheus is not installed or does not start.
    pub async fn configured(text: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-prometheus-")?;
        let configuration = directory.path().join("prometheus.yml");
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(tools::find("prometheus")?);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(directory.path());
        let mut process = Process::start("prometheus", command, directory.path())?;
        let parse = |line: &str| {
            line.split_once("msg=\"Listening on\" address=")?
                .1
                .split(' ')
                .next()?
                .parse()
                .ok()
        };
        let address = process
            .announced(OutputStream::Stderr, "its address", parse)
            .await?;
        let prometheus = Self {
            process,
            address,
            _directory: directory,
        };
        poll::until("prometheus is ready", DEADLINE, async || {
            let ready = reqwest::get(format!("http://{address}/-/ready")).await;
            Ok(ready
                .is_ok_and(|response| response.status() == 200)
                .then_some(()))
        })
        .await?;
        Ok(prometheus)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Evaluates an expression now.
    ///
    /// # Errors
    /// If Prometheus refuses it.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>> {
        let url = format!("http://{}/api/v1/query", self.address);
        let url = reqwest::Url::parse_with_params(&url, [("query", expression)])?;
        let response: Value = serde_json::from_slice(&reqwest::get(url).await?.bytes().await?)?;
        ensure!(response["status"] == "success", "{expression}: {response}");
        let result = response["data"]["result"].as_array().context("no vector")?;
        result.iter().map(series).collect()
    }

    /// The values of a label among the series of a selector, as Grafana's variables ask for them.
    ///
    /// # Errors
    /// If Prometheus refuses the selector.
    pub async fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let url = format!("http://{}/api/v1/label/{label}/values", self.address);
        let url = reqwest::Url::parse_with_params(&url, [("match[]", selector)])?;
        let response: Value = serde_json::from_slice(&reqwest::get(url).await?.bytes().await?)?;
        ensure!(response["status"] == "success", "{selector}: {response}");
        let values = response["data"].as_array().context("no values")?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        values.iter().map(text).collect()
    }

    /// Waits until every target has been scraped, and returns the targets.
    ///
    /// # Errors
    /// If one is not scraped in time.
    pub async fn scraped_targets(&self) -> Result<Vec<Target>> {
        poll::until("every target is scraped", DEADLINE, async || {
            let url = format!("http://{}/api/v1/targets?state=active", self.address);
            let response: Value = serde_json::from_slice(&reqwest::get(url).await?.bytes().await?)?;
            let targets = response["data"]["activeTargets"].as_array();
            let targets: Vec<_> = targets.context("no targets")?.iter().map(target).collect();
            let all =
                !targets.is_empty() && targets.iter().all(|target| target.health != "unknown");
            Ok(all.then_some(targets))
        })
        .await
    }

    /// The sum of all series of this name in Prometheus's own metrics.
    ///
    /// # Errors
    /// If there is none.
    pub async fn own(&self, name: &str) -> Result<f64> {
        let url = format!("http://{}/metrics", self.address);
        let scrape = Scrape::parse(reqwest::get(url).await?.text().await?)?;
        scrape.sum(&metric(name)).with_context(|| name.to_owned())
    }

    /// Waits until an expression has this single value: the target may not have been scraped yet.
    ///
    /// # Errors
    /// If it has another value at the deadline; with that value.
    pub async fn expect(&self, expression: &str, value: f64) -> Result<()> {
        let mut last = Vec::new();
        let holds = poll::until(expression, DEADLINE, async || {
            last = self.query(expression).await?;
            #[expect(clippy::float_cmp, reason = "counts are exact below 2^53")]
            let holds = matches!(&last[..], [(_, found)] if *found == value);
            Ok(holds.then_some(()))
        });
        holds
            .await
            .with_context(|| format!("{expression} is {last:?}, not {value}"))
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The complaints of `promtool check metrics` about an exposition; empty if there are none.
///
/// # Errors
/// If promtool is not installed or does not exit.
pub async fn promtool(exposition: &str) -> Result<String> {
    let mut promtool = tokio::process::Command::new(tools::find("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = promtool.stdin.take().context("promtool has no input")?;
    let feed = async {
        // promtool exits at the first line that it cannot parse and closes its input; its output
        // tells why.
        input.write_all(exposition.as_bytes()).await.ok();
        drop(input);
    };
    let both = async { tokio::join!(feed, promtool.wait_with_output()).1 };
    let output = timeout(DEADLINE, both).await??;
    let words = [output.stdout, output.stderr].concat();
    let mut words = String::from_utf8_lossy(&words).into_owned();
    if !output.status.success() && words.is_empty() {
        words = format!("promtool: {}", output.status);
    }
    Ok(words)
}

fn series(value: &Value) -> Result<Series> {
    let number = value["value"][1].as_str().context("no value")?.parse()?;
    Ok((labels(&value["metric"]), number))
}

fn target(value: &Value) -> Target {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Target {
        labels: labels(&value["labels"]),
        health: text("health"),
        error: text("lastError"),
    }
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let labels = value.as_object().into_iter().flatten();
    labels
        .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn promtool_accepts_a_good_exposition_and_rejects_a_bad_one() {
        let good = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n";
        assert_eq!(promtool(good).await.unwrap(), "");
        let bad = "# HELP a A.\n# TYPE a counter\na 1\n";
        assert!(promtool(bad).await.unwrap().contains("_total"));
    }

    #[tokio::test]
    async fn prometheus_knows_when_a_target_is_down() {
        let prometheus = Prometheus::scraping(&["127.0.0.1:1".parse().unwrap()])
            .await
            .unwrap();
        prometheus
            .expect("up{job=\"octoserve\"}", 0.0)
            .await
            .unwrap();
    }
}
