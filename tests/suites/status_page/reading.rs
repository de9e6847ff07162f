//! What the page computes: the text format, rates over resets, quantiles, and when a disk is full. The
//! page's own functions run in Chromium on expositions and times of the test's choice.

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::octoserve::Launch;
use serde_json::json;

use super::open;

/// The page of an idle server, and its functions.
async fn page() -> Result<(harness::octoserve::Server, Browser)> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    Ok((server, browser))
}

/// Makes a snapshot of an exposition at a time in seconds.
pub(super) const SNAPSHOT: &str = "
    const { Exposition, Snapshot, Timeline, FreeSpace, quantile, problems, parseSample, asDuration, asBytes } = statusPage;
    const snapshot = (text, time, clock = 1000) => {
        const exposition = new Exposition();
        exposition.push(text);
        return new Snapshot(exposition, time, clock);
    };";

#[tokio::test]
async fn it_reads_the_text_format() -> Result<()> {
    let (_server, browser) = page().await?;
    let script = format!(
        "{SNAPSHOT}
        const read = (line) => {{ const s = parseSample(line); return s && [s.name, [...s.labels].join('|'), String(s.value)].join(' ~ '); }};
        return [
            'a 1', 'a{{}} 2.5e-3', 'a_b:c +Inf', 'a -inf 1700000000000', 'a NaN', 'a .5', 'a 1e+09',
            'a{{b=\"c\",d=\"e,}}= f\"}} 3', 'a{{b=\"q\\\\\"s\\\\\\\\n\\\\n\",}} 4', 'a{{ b = \"c\" }}\\t5 6',
            'a{{b=\"\u{e4}{{\"}} 7',
            'a', 'a b', 'a 0x1p3', 'a 1 2 3', '{{a=\"b\"}} 1', 'a{{b}} 1', 'a{{b=c}} 1', 'a{{b=\"c}} 1', 'a{{b=\"c\"', '1a 1', 'a 1_000', 'a Infinity1',
        ].map(read)"
    );
    let expected = json!([
        "a ~  ~ 1",
        "a ~  ~ 0.0025",
        "a_b:c ~  ~ Infinity",
        "a ~  ~ -Infinity",
        "a ~  ~ NaN",
        "a ~  ~ 0.5",
        "a ~  ~ 1000000000",
        "a ~ b,c|d,e,}= f ~ 3",
        "a ~ b,q\"s\\n\n ~ 4",
        "a ~ b,c ~ 5",
        "a ~ b,ä{ ~ 7",
        null,
        null,
        null,
        null,
        null,
        null,
        null,
        null,
        null,
        null,
        null,
        null,
    ]);
    assert_eq!(browser.run(&script).await?, expected);

    // The same in pieces of any length, and with lines that are none.
    let script = format!(
        "{SNAPSHOT}
        const text = '# TYPE octoserve_tags gauge\\noctoserve_tags 5\\n\\nnonsense}}\\noctoserve_blobs{{source=\"x\"}} 1\\r\\noctoserve_tags{{broken 1\\nother 3\\n';
        const results = new Set();
        for (let size = 1; size <= text.length; size += 1) {{
            const exposition = new Exposition();
            for (let at = 0; at < text.length; at += size) exposition.push(text.slice(at, at + size));
            results.add([exposition.samples.size, exposition.samples.get('octoserve_tags').length, exposition.malformed, exposition.types.size, exposition.isWhole].join());
        }}
        const long = new Exposition();
        for (let at = 0; at < 100; at += 1) long.push('octoserve_tags{{a=\"' + 'x'.repeat(1000));
        return [...results, long.malformed, long.isWhole].join(' ')"
    );
    assert_eq!(browser.text(&script).await?, "2,1,2,1,true 1 false");
    Ok(())
}

#[tokio::test]
async fn increases_survive_resets_and_new_series() -> Result<()> {
    let (_server, browser) = page().await?;
    let script = format!(
        "{SNAPSHOT}
        const total = (pairs, started = 1) => 'process_start_time_seconds ' + started + '\\n' + pairs.map(([code, value]) => `octoserve_oci_errors_total{{code=\"${{code}}\"}} ${{value}}\\n`).join('');
        const timeline = new Timeline();
        const grown = () => timeline.minute === null ? null : [timeline.minute.of(timeline.last.own('oci_errors_total')), timeline.minute.seconds];
        const results = [];
        const at = (time, pairs, started) => {{ timeline.push(snapshot(total(pairs, started), time)); results.push(grown()); }};
        at(100, [['A', 10]]);
        at(102, [['A', 14]]);
        at(110, [['A', 20], ['B', 3]]);
        at(120, [['A', 2], ['B', 3]]);
        at(160, [['A', 5], ['B', 9]]);
        at(170, [['A', 6], ['B', 9]]);
        at(172, [['A', 1]], 2);
        at(174, [['A', 4]], 2);
        at(176, [['A', NaN]], 2);
        return results"
    );
    // Of the last minute: since the newest checkpoint that is at least a minute old, or the first.
    let expected = json!([
        null,
        [4, 2],
        [13, 10],
        [5, 20],
        [14, 60],
        [12, 60],
        null,
        [3, 2],
        [0, 4]
    ]);
    assert_eq!(browser.run(&script).await?, expected);
    Ok(())
}

/// The values are those of Prometheus's `histogram_quantile`.
#[tokio::test]
async fn quantiles_are_those_of_prometheus() -> Result<()> {
    let (_server, browser) = page().await?;
    let script = format!(
        "{SNAPSHOT}
        const round = (value) => value === undefined ? null : Math.round(value * 1e6) / 1e6;
        const buckets = [[0.1, 10], [0.5, 30], [1, 40], [Infinity, 50]];
        return [
            quantile(0.1, buckets), quantile(0.5, buckets), quantile(0.7, buckets), quantile(0.99, buckets),
            quantile(0.5, [[Infinity, 4]]), quantile(0.5, []), quantile(0.5, [[1, 0], [Infinity, 0]]),
            quantile(0.5, [[1, 5]]), quantile(0.5, buckets.toReversed()), quantile(0, buckets), quantile(1, [[1, 3], [2, 3], [Infinity, 3]]),
        ].map(round)"
    );
    let expected = json!([0.05, 0.4, 0.75, 1.0, 0.0, null, null, null, 0.4, 0.0, 1.0]);
    let found = browser.run(&script).await?;
    let numbers = |value: &serde_json::Value| -> Vec<Option<f64>> {
        let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(serde_json::Value::as_f64).collect()
    };
    assert_eq!(numbers(&found), numbers(&expected));
    Ok(())
}

#[tokio::test]
async fn a_disk_that_fills_is_full_when_it_says() -> Result<()> {
    let (_server, browser) = page().await?;
    let script = format!(
        "{SNAPSHOT}
        const space = (free) => {{ const of = new FreeSpace(); for (let time = 0; time <= 100; time += 5) of.push(time, free(time)); return of; }};
        const young = new FreeSpace();
        for (const time of [0, 5, 10]) young.push(time, 1000 - time);
        return [
            space((time) => 1e9 - 1e6 * time).timeToFull, space(() => 5e9).timeToFull, space((time) => 1e9 + time * 1e6).timeToFull,
            space((time) => time === 50 ? NaN : 1e9 - 1e6 * time).timeToFull, young.timeToFull, new FreeSpace().timeToFull,
            asDuration(0), asDuration(0.0123), asDuration(59.9), asDuration(3600), asDuration(90061), asDuration(4e8), asDuration(NaN), asDuration(Infinity),
            asBytes(0), asBytes(1023), asBytes(1536), asBytes(5e13), asBytes(-2048), asBytes(NaN), asBytes(1e300),
        ].map((value) => typeof value === 'number' ? String(Math.round(value)) : String(value))"
    );
    let expected = json!([
        "900",
        "Infinity",
        "Infinity",
        "900",
        "undefined",
        "undefined",
        "0 s",
        "12.3 ms",
        "59.9 s",
        "1 h",
        "1 day 1 h",
        "12 years 249 days",
        "–",
        "–",
        "0 B",
        "1023 B",
        "1.5 KiB",
        "45.5 TiB",
        "-2 KiB",
        "–",
        "8.9e+284 PiB",
    ]);
    let found = browser.run(&script).await?;
    assert_eq!(found, expected);
    let console = browser.console().await?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}
