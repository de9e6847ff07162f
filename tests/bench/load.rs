//! One measurement: a client's load on one server, and the server's processor time and memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::client::Client;
use harness::tools;

use crate::peers::Subject;

/// Connections that wrk keeps busy.
pub(crate) const CONNECTIONS: u32 = 32;

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The main figure: requests per second, MB/s, or seconds.
    pub(crate) value: f64,
    /// Processor time of the server: µs per request, or s per GiB.
    pub(crate) processor: f64,
    /// The 99th percentile of the latency in ms, for small responses.
    pub(crate) p99: Option<f64>,
    /// Resident memory of the server afterwards, or its peak where the table says so, in MB.
    pub(crate) resident: f64,
}

/// Small responses: requests `path` repeatedly, after a second of warm-up.
pub(crate) async fn small(subject: &mut Subject, path: &str, seconds: u64) -> Result<Sample> {
    let url = subject.url(path);
    wrk(&url, 1).await?;
    let before = subject.processor_time()?;
    let text = wrk(&url, seconds).await?;
    let spent = subject.processor_time()?.saturating_sub(before);
    let requests: f64 = word(&text, " requests in ", Side::Before)?.parse()?;
    ensure!(requests > 0.0, "{url}: no responses\n{text}");
    ensure!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{url}: wrk reports failures\n{text}"
    );
    Ok(Sample {
        value: word(&text, "Requests/sec:", Side::After)?.parse()?,
        processor: spent.as_secs_f64() * 1e6 / requests,
        p99: Some(milliseconds(word(&text, "99% ", Side::After)?)?),
        resident: subject.resident()?,
    })
}

/// How often one curl transfers something, and over how many concurrent connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) times: u32,
    pub(crate) at_a_time: u32,
    /// The version of HTTP, as curl has it.
    pub(crate) version: &'static str,
}

/// What most transfers use.
pub(crate) const HTTP1: &str = "--http1.1";

impl Streams {
    /// Sequential transfers on one connection.
    pub(crate) const fn one(times: u32) -> Self {
        Self {
            times,
            at_a_time: 1,
            version: HTTP1,
        }
    }

    fn arguments(self) -> Vec<String> {
        let mut arguments = curl();
        arguments.push(self.version.to_owned());
        if self.at_a_time > 1 {
            let most = self.at_a_time.to_string();
            arguments.extend(
                ["--parallel", "--parallel-immediate", "--parallel-max"].map(str::to_owned),
            );
            arguments.push(most);
        }
        arguments
    }

    /// The seconds of all transfers, given the time of `each` transfer and of the `whole` curl
    /// process, which includes curl's start. The start is left out if possible.
    fn took(self, each: &[f64], whole: Duration) -> f64 {
        match self.at_a_time {
            1 => each.iter().sum(),
            _ => whole.as_secs_f64(),
        }
    }
}

/// Downloads `path` by curl: MB/s.
pub(crate) async fn download(
    subject: &mut Subject,
    path: &str,
    length: u64,
    streams: Streams,
) -> Result<Sample> {
    let url = subject.url(path);
    let mut arguments = streams.arguments();
    arguments.extend(["--write-out", "%{size_download} %{time_total}\n"].map(str::to_owned));
    for _ in 0..streams.times {
        arguments.extend(["--output".into(), "/dev/null".into(), url.clone()]);
    }
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let text = tools::run("curl", &arguments).await?;
    let whole = begun.elapsed();
    let spent = subject.processor_time()?.saturating_sub(before);
    let (mut total, mut each) = (0, Vec::new());
    for line in text.lines() {
        let (size, time) = line.split_once(' ').context("curl printed no figures")?;
        ensure!(size == length.to_string(), "{url}: {size} bytes came");
        total += length;
        each.push(time.parse::<f64>()?);
    }
    transfer(subject, total, streams.took(&each, whole), spent)
}

/// Uploads `file` by curl, to a server that needs no session: MB/s.
pub(crate) async fn upload(
    subject: &mut Subject,
    path: &str,
    file: &Path,
    streams: Streams,
) -> Result<Sample> {
    let mut arguments = streams.arguments();
    arguments.extend(["--write-out", "%{time_total}\n"].map(str::to_owned));
    arguments.extend(["--header", "Expect:"].map(str::to_owned));
    for _ in 0..streams.times {
        arguments.push("--upload-file".into());
        arguments.push(file.display().to_string());
        arguments.push(subject.url(path));
    }
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let text = tools::run("curl", &arguments).await?;
    let whole = begun.elapsed();
    let spent = subject.processor_time()?.saturating_sub(before);
    let each: Vec<f64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(each.len() == streams.times as usize, "curl printed {text}");
    let total = std::fs::metadata(file)?.len() * u64::from(streams.times);
    transfer(subject, total, streams.took(&each, whole), spent)
}

/// Pushes `file`, whose digest is known, as a new blob in two requests: seconds.
pub(crate) async fn push(subject: &mut Subject, file: &Path, digest: &str) -> Result<Sample> {
    let base = subject.url("");
    let client = Client::new(&base)?;
    let length = std::fs::metadata(file)?.len();
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let location = client.open_upload("team/app/pushed").await?;
    let joint = if location.contains('?') { '&' } else { '?' };
    let url = match location.strip_prefix('/') {
        Some(path) => format!("{base}/{path}{joint}digest={digest}"),
        None => format!("{location}{joint}digest={digest}"),
    };
    let mut arguments = curl();
    for argument in ["--header", "Expect:", "--header"] {
        arguments.push(argument.into());
    }
    arguments.push("Content-Type: application/octet-stream".into());
    arguments.extend(["--upload-file".into(), file.display().to_string(), url]);
    tools::run("curl", &arguments).await?;
    let took = begun.elapsed();
    let spent = subject.processor_time()?.saturating_sub(before);
    let sample = transfer(subject, length, took.as_secs_f64(), spent)?;
    Ok(Sample {
        value: took.as_secs_f64(),
        ..sample
    })
}

pub(crate) fn transfer(
    subject: &mut Subject,
    bytes: u64,
    seconds: f64,
    spent: Duration,
) -> Result<Sample> {
    ensure!(seconds > 0.0, "curl measured no time");
    let bytes = bytes as f64;
    Ok(Sample {
        value: bytes / 1e6 / seconds,
        processor: spent.as_secs_f64() / (bytes / f64::from(1 << 30)),
        p99: None,
        resident: subject.resident()?,
    })
}

async fn wrk(url: &str, seconds: u64) -> Result<String> {
    let (connections, duration) = (format!("-c{CONNECTIONS}"), format!("-d{seconds}s"));
    let accept = format!("Accept: {}", harness::client::MANIFEST);
    let arguments = [
        "-t1",
        // A slow response is a figure, not a failure.
        "--timeout",
        "20s",
        &connections,
        &duration,
        "--latency",
        "-H",
        &accept,
        url,
    ];
    tools::run("wrk", &arguments).await
}

/// The arguments of every transfer.
fn curl() -> Vec<String> {
    [
        "--silent",
        "--show-error",
        "--fail",
        // The certificates are made for the measurement.
        "--insecure",
        "--noproxy",
        "*",
        "--max-time",
        "120",
    ]
    .map(str::to_owned)
    .into()
}

#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// The word before or after `mark`.
fn word<'a>(text: &'a str, mark: &str, side: Side) -> Result<&'a str> {
    let found = text
        .split_once(mark)
        .and_then(|(before, after)| match side {
            Side::Before => before.split_ascii_whitespace().next_back(),
            Side::After => after.split_ascii_whitespace().next(),
        });
    found.with_context(|| format!("wrk printed no {mark:?}\n{text}"))
}

/// A duration as wrk prints it: `812.00us`, `1.25ms`, `1.02s`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(Ok(number)) = text.strip_suffix(unit).map(str::parse::<f64>) {
            return Ok(number * factor);
        }
    }
    bail!("wrk printed a strange duration: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_parsed() {
        let text = "    99%    1.98ms\n  402 requests in 3.00s, 1MB read\nRequests/sec:  134.00\n";
        assert_eq!(word(text, " requests in ", Side::Before).unwrap(), "402");
        assert_eq!(word(text, "Requests/sec:", Side::After).unwrap(), "134.00");
        let p99 = milliseconds(word(text, "99% ", Side::After).unwrap()).unwrap();
        assert!((p99 - 1.98).abs() < 1e-9);
        assert!((milliseconds("812.00us").unwrap() - 0.812).abs() < 1e-9);
        assert!((milliseconds("1.02s").unwrap() - 1020.0).abs() < 1e-9);
    }
}
