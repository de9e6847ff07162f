//! Credentials, and sources of metrics.

use anyhow::{Result, ensure};
use harness::source::Source;
use harness::token_server::TokenServer;
use tempfile::TempDir;

use super::{BASIC, CLOSE, report, report_of, responding, server};

#[tokio::test]
async fn credentials_are_tried_and_never_shown() -> Result<()> {
    let directory = TempDir::new()?;
    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2\n")?;
    let keys = format!(
        "credentials: {{username: tester, password_file: '{}'",
        password.display()
    );
    let tokens = TokenServer::start(BASIC, 60).await?;
    let locked = |accepted: &'static str, challenge: String| {
        server(move |head: &str| {
            let sent = head
                .lines()
                .find_map(|line| line.strip_prefix("authorization: "));
            if sent.is_some_and(|sent| sent.starts_with(accepted)) {
                format!("HTTP/1.1 200 OK\r\n{CLOSE}")
            } else {
                format!("HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\n{CLOSE}")
            }
        })
    };
    let bearer = format!("Bearer realm=\"{}\",service=\"s\"", tokens.realm());
    let realm = format!(", realm: '{}'", tokens.realm());
    let basic = || "Basic realm=\"x\"".to_owned();
    let refusing = TokenServer::start("Basic other", 60).await?;
    let refused = format!("Bearer realm=\"{}\"", refusing.realm());
    let other = format!(", realm: '{}'", refusing.realm());
    for (upstream, more, result, said) in [
        (locked(BASIC, basic()).await?, "", "ok", "accepted (Basic)"),
        (
            locked("Basic x", basic()).await?,
            "",
            "fail",
            "refuses the user name or the password",
        ),
        (
            locked("Bearer ", bearer.clone()).await?,
            &*realm,
            "ok",
            "with a token",
        ),
        (
            locked("Bearer x", bearer.clone()).await?,
            &*realm,
            "fail",
            "refuses the user name",
        ),
        (
            locked("Bearer ", bearer.clone()).await?,
            "",
            "fail",
            "set credentials.realm",
        ),
        (
            locked("Bearer ", refused).await?,
            &*other,
            "fail",
            "responds 401",
        ),
        (responding("200 OK", "").await?, "", "warn", "asks for none"),
    ] {
        let report = report_of(&upstream.url(), &format!(", {keys}{more}}}")).await?;
        report.expect("upstream main", "credentials", result, said)?;
        for secret in ["hunter2", "dGVzdGVy", "eyJ"] {
            ensure!(!report.text.contains(secret), "{}", report.text);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_source_of_metrics_is_read_as_a_scrape_reads_it() -> Result<()> {
    let upstream = responding("200 OK", "").await?;
    let many: Vec<_> = (0..90).map(|at| format!("x{{a=\"{at}\"}} 1\n")).collect();
    let many = many.concat();
    let huge = "# HELP x y\n".repeat(10_000);
    let text = "text/plain; version=0.0.4";
    let sources = [
        (
            "fine",
            Source::exposition(text, "x 1\n").await?,
            "format",
            "ok",
            "all samples",
        ),
        (
            "near",
            Source::exposition(text, &many).await?,
            "size",
            "warn",
            "90 samples",
        ),
        (
            "bad",
            Source::exposition(text, "x 1\nx 2\n{\n").await?,
            "format",
            "warn",
            "1 malformed, 1 dup",
        ),
        (
            "empty",
            Source::exposition(text, "").await?,
            "format",
            "warn",
            "no samples",
        ),
        (
            "html",
            Source::exposition("text/html", "<html>").await?,
            "scrape",
            "fail",
            "not a metrics",
        ),
        (
            "huge",
            Source::exposition(text, &huge).await?,
            "scrape",
            "fail",
            "larger than",
        ),
        (
            "gone",
            Source::responding("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?,
            "scrape",
            "fail",
            "404",
        ),
        (
            "cut",
            Source::responding("HTTP/1.1 200 OK\r\nContent-Le").await?,
            "scrape",
            "fail",
            "HTTP",
        ),
        (
            "slow",
            Source::scripted(|stream| async move {
                // Held open until the other side has had enough.
                stream.readable().await?;
                Ok(())
            })
            .await?,
            "scrape",
            "fail",
            "in time",
        ),
    ];
    let each = sources
        .iter()
        .map(|(name, source, ..)| format!("{{source: {name}, url: '{}'}}", source.url()));
    let each: Vec<_> = each.collect();
    let report = report(&format!(
        "listen: 127.0.0.1:0\nupstreams: [{{replicas: ['{}'], metrics: [{}]}}]\n\
         metrics: {{aggregate: {{timeout: 2s, max_bytes: 64KiB, max_samples: 100}}}}\n",
        upstream.url(),
        each.join(", ")
    ))
    .await?;
    for (name, _, check, result, said) in &sources {
        report.expect(&format!("metrics source {name},"), check, result, said)?;
    }
    assert_eq!(report.code, Some(1));
    Ok(())
}
