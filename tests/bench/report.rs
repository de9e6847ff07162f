//! The document: medians, spreads and ratios, and the machine.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::load::Sample;
use crate::micro::Micro;
use crate::table::{Compare, Table};
use crate::{Options, plot};

/// The machine and the versions of the programs.
pub(crate) struct Machine {
    processor: String,
    kernel: String,
    memory: u64,
    programs: Vec<String>,
}

impl Machine {
    /// Reads them from the kernel and the programs.
    pub(crate) async fn describe(bin_dir: &Path) -> Result<Self> {
        let cores = std::thread::available_parallelism()?;
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = after(&cpuinfo, "model name").unwrap_or("unknown processor");
        let version = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel: Vec<_> = version.trim().split(['.', '-']).take(2).collect();
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let memory: u64 = after(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .context("a strange /proc/meminfo")?;
        let mut programs = Vec::new();
        let ours = bin_dir.join("octoserve").display().to_string();
        for (program, argument) in [
            (ours.as_str(), "--version"),
            ("haproxy", "-v"),
            ("nginx", "-v"),
            ("caddy", "version"),
            ("mtail", "--version"),
            ("docker-registry", "--version"),
            ("wrk", "-v"),
            ("curl", "--version"),
        ] {
            programs.push(version_of(program, argument).await?);
        }
        Ok(Self {
            processor: format!("{cores} cores of {model}"),
            kernel: kernel.join("."),
            memory: memory / 1024 / 1024,
            programs,
        })
    }
}

/// The whole document in Markdown.
pub(crate) fn page(
    machine: &Machine,
    options: &Options,
    tables: &[Table],
    micro: Option<&[Micro]>,
) -> String {
    let mut page = format!(
        "# Benchmarks\n\n\
         Written by `make bench`, which starts everything on loopback beside everything else and \
         measures it in turns: rounds: {rounds}. Each figure is the median of the rounds, with the \
         lowest and the highest in brackets. A ratio is taken within a round, and the median is that \
         of the ratios.\n\n\
         Only the ratios mean something elsewhere. Client, server and upstream share the cores of \
         one machine, so that a client's work slows the server that it measures; processor time is \
         what the kernel charged to the server alone, in ticks of 10 ms. Nothing is taken out for \
         whatever else ran meanwhile: the load average of the last minute is noted with each table, \
         and the clients and servers measured make a load of about the number of cores by \
         themselves. Where it is well above, or where the brackets are wide, the figures say \
         little.\n\n\
         Everything of ours is recorded as by default, without an access log. haproxy has two \
         threads and reuses connections always; caddy logs nothing; mtail counts the requests and \
         bytes of each kind of route from nginx's access log, and its processor time and memory are \
         charged with nginx's; nginx is one process, and keeps connections to its \
         upstream; docker-registry has the cache of its packaged configuration; none of the others has \
         an access log. docker-registry does not sync what is pushed to disk; ours does, before it \
         responds.\n\n\
         Machine: {processor}, {memory} GiB of memory, Linux {kernel}. Programs: {programs}.\n",
        rounds = options.rounds,
        processor = machine.processor,
        memory = machine.memory,
        kernel = machine.kernel,
        programs = machine.programs.join("; "),
    );
    for each in tables.iter().filter(|table| !table.rows.is_empty()) {
        table(&mut page, each);
    }
    if let Some(micro) = micro {
        micros(&mut page, micro);
    }
    page.push_str(
        "\n## Again\n\n\
         `make bench` installs what is missing on Debian, builds the release and writes this page. \
         `make bench BENCH='--rounds 5 --seconds 10 --no-micro'` measures longer, and leaves out the \
         micro-benchmarks; `make bench BENCH=--help` has the rest.\n",
    );
    page
}

fn table(page: &mut String, table: &Table) {
    let small = table
        .rows
        .iter()
        .any(|(_, samples)| samples.iter().any(|sample| sample.p99.is_some()));
    let (title, unit, per) = (table.title, table.unit, table.per);
    let averages = match &table.averages {
        (before, _) if before.is_empty() => String::new(),
        (before, after) => format!(" Load average before {before}, after {after}."),
    };
    add(
        page,
        &format!(
            "\n## {title}\n\n{}.{averages}\n\n\
             | | {unit} | processor, {per} |{} RSS, MB |\n|---|---|---|{}---|\n",
            table.load,
            if small { " p99, ms |" } else { "" },
            if small { "---|" } else { "" },
        ),
    );
    for (name, samples) in &table.rows {
        let of = |figure: fn(&Sample) -> f64| spread(samples.iter().map(figure).collect());
        let p99 = if small {
            let p99 = samples.iter().filter_map(|sample| sample.p99).collect();
            format!(" {} |", spread(p99))
        } else {
            String::new()
        };
        let (value, processor) = (of(|sample| sample.value), of(|sample| sample.processor));
        let resident = of(|sample| sample.resident);
        add(
            page,
            &format!("| {name} | {value} | {processor} |{p99} {resident} |\n"),
        );
    }
    add(
        page,
        &format!("\n![{title}]({}/{})\n", plot::DIRECTORY, plot::file(title)),
    );
    if table.ratios.is_empty() {
        return;
    }
    add(
        page,
        &format!("\n| compared by {unit} | | goal |\n|---|---|---|\n"),
    );
    for ratio in table.ratios {
        let samples = |wanted: &str| {
            let row = table.rows.iter().find(|(name, _)| *name == wanted);
            row.map_or(&[][..], |(_, samples)| samples)
        };
        let quotients = samples(ratio.of)
            .iter()
            .zip(samples(ratio.to))
            .map(|(of, to)| ratio.how.of(of, to));
        let quotients = spread(quotients.collect());
        add(
            page,
            &format!(
                "| {} {} {} | {quotients} | {} |\n",
                ratio.of,
                match ratio.how {
                    Compare::Quotient => "÷",
                    Compare::Difference => "−",
                    Compare::DifferenceAt99 => "(p99) −",
                    Compare::Percentage => "in percent of",
                },
                ratio.to,
                ratio.goal
            ),
        );
    }
}

fn micros(page: &mut String, micro: &[Micro]) {
    page.push_str(
        "\n## Micro-benchmarks\n\n\
         criterion, in the profile of a release: its estimate, with its confidence interval in \
         brackets. `route` is the parse of one path (goal < 150 ns for each but the longest name \
         that there can be, which is 255 bytes); `exchange` is the recording of one whole request, \
         its route parse and clocks included (goal < 500 ns). That neither allocates is a test of \
         `make test`. `page` is a whole one of ours, gathered and written (goal < 5 ms), and \
         compressed; `100,000 samples` is another one's page (goal < 60 ms for parse, merge \
         and write together).\n\n| | time |\n|---|---|\n",
    );
    for Micro { name, times } in micro {
        let [low, middle, high] = times;
        add(page, &format!("| {name} | {middle} ({low} – {high}) |\n"));
    }
}

/// The median, with minimum and maximum in parentheses.
fn spread(figures: Vec<f64>) -> String {
    match range(figures) {
        Some([low, middle, high]) => {
            format!("{} ({}–{})", number(middle), number(low), number(high))
        }
        None => "–".to_owned(),
    }
}

/// The minimum, the median and the maximum.
pub(crate) fn range(mut figures: Vec<f64>) -> Option<[f64; 3]> {
    figures.sort_by(f64::total_cmp);
    let (&low, &high) = (figures.first()?, figures.last()?);
    let half = figures.len() / 2;
    let middle = if figures.len().is_multiple_of(2) {
        f64::midpoint(figures[half - 1], figures[half])
    } else {
        figures[half]
    };
    Some([low, middle, high])
}

/// About three significant digits: no measurement here is more precise.
pub(crate) fn number(figure: f64) -> String {
    let decimals = match figure.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.decimals$}")
}

fn add(page: &mut String, text: &str) {
    // Writing to a String cannot fail.
    page.write_str(text).ok();
}

fn after<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_once(':')?.1.trim())
}

/// The first line of the program's version output, without a URL.
async fn version_of(program: &str, argument: &str) -> Result<String> {
    let output = if program.contains('/') {
        tokio::process::Command::new(program)
            .arg(argument)
            .output()
            .await
    } else {
        tokio::process::Command::new(crate::peers::find(program)?)
            .arg(argument)
            .output()
            .await
    };
    let output = output.with_context(|| format!("{program} is missing: `make bench` builds it"))?;
    // wrk and nginx print it on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().next().unwrap_or_default();
    let words: Vec<_> = line
        .split_ascii_whitespace()
        .take_while(|word| !word.contains("://") && *word != "-" && !word.starts_with(['(', '[']))
        .take(3)
        .map(|word| word.trim_end_matches(',').trim_start_matches("/usr/bin/"))
        .collect();
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_lowest_and_highest() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), "2.00 (1.00–3.00)");
        assert_eq!(spread(vec![100.0, 200.0]), "150 (100–200)");
        assert_eq!(spread(vec![]), "–");
    }
}
