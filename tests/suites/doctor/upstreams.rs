//! Upstreams: told from other servers, gone, slow, cut, and with another clock.

use anyhow::{Context as _, Result, ensure};
use harness::octoserve::Program;
use harness::scripted::{Caller, Scripted};
use tempfile::TempDir;

use super::{DEADLINE, NO_NAME, Report, date, report, report_of, responding, run, server};

#[tokio::test]
async fn an_upstream_is_told_from_other_servers() -> Result<()> {
    let version = "Docker-Distribution-Api-Version: registry/2.0\r\n";
    for (status, headers, check, result, said) in [
        (
            "200 OK",
            version,
            "protocol",
            "ok",
            "registry/2.0, and asks for no credentials",
        ),
        (
            "200 OK",
            "Content-Type: text/html\r\n",
            "protocol",
            "warn",
            "web page",
        ),
        (
            "404 Not Found",
            "",
            "protocol",
            "fail",
            "no registry below this URL",
        ),
        ("503 Busy", "", "protocol", "fail", "see its log"),
        (
            "301 Moved",
            "Location: https://r.example/v2/?signature=hunter2\r\n",
            "protocol",
            "fail",
            "redirects to https://r.example:443 |",
        ),
        (
            "401 No",
            "WWW-Authenticate: Basic realm=\"x\"\r\n",
            "token realm",
            "ok",
            "a password",
        ),
        (
            "401 No",
            "WWW-Authenticate: Bearer realm=\"x\"\r\n",
            "token realm",
            "fail",
            "no URL",
        ),
        (
            "401 No",
            "",
            "token realm",
            "fail",
            "neither for a password",
        ),
        (
            "401 No",
            "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/t?secret=hunter2\"\r\n",
            "token realm",
            "fail",
            "http://127.0.0.1:1/t: cannot connect",
        ),
        ("200 \x1b[2JOK", "X: \u{1b}]0;x\r\n", "answers", "fail", ""),
    ] {
        let upstream = responding(status, headers).await?;
        let report = report_of(&upstream.url(), "").await?;
        report.expect("upstream main, http://127.0.0.1:", check, result, said)?;
        let code = i32::from(result == "fail");
        assert_eq!(report.code, Some(code), "{status}: {}", report.text);
        ensure!(
            !report.text.contains("hunter2") && !report.text.contains('\u{1b}'),
            "{}",
            report.text
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_is_gone_slow_or_cut_is_a_line_and_the_others_are_tried() -> Result<()> {
    let slow = Scripted::start_beside(|mut caller: Caller| async move {
        caller.head().await?;
        caller.closed().await
    })
    .await?;
    let cut = server(|_| "HTTP/1.1 200 OK\r\nContent-".to_owned()).await?;
    let garbage = server(|_| "\0\x01\x02 nonsense\r\n\r\n".to_owned()).await?;
    let fine = responding("200 OK", &date(0)).await?;
    let text = format!(
        "listen: 127.0.0.1:0\nupstreams:\n- {{replicas: ['http://127.0.0.1:1', '{}', '{}', '{}', \
         'http://{NO_NAME}', 'unix:/nonexistent', '{}']}}\n",
        slow.url(),
        cut.url(),
        garbage.url(),
        fine.url()
    );
    let started = tokio::time::timeout(DEADLINE, report(&text)).await;
    let report = started.context("doctor hangs")??;
    for (url, check, result, said) in [
        (
            "http://127.0.0.1:1",
            "answers",
            "fail",
            "start the registry",
        ),
        (&slow.url(), "answers", "fail", "within 5 s"),
        (&cut.url(), "answers", "fail", "not valid HTTP"),
        (&garbage.url(), "answers", "fail", "not valid HTTP"),
        (
            &*format!("http://{NO_NAME}"),
            "name",
            "fail",
            "cannot be resolved",
        ),
        ("unix:/nonexistent", "answers", "fail", "start the registry"),
        (&fine.url(), "protocol", "ok", ""),
        (&fine.url(), "clock", "ok", "agrees"),
    ] {
        let subject = format!("upstream main, {url}");
        let found = report.checks.get(&(subject.clone(), check.to_owned()));
        let (found, message) = found.with_context(|| format!("{subject} {check}"))?;
        ensure!(
            found == result && message.contains(said),
            "{subject}: {found} {message}"
        );
    }
    assert_eq!(report.code, Some(1));
    Ok(())
}

#[tokio::test]
async fn clocks_that_differ_are_a_warning_which_counts_if_asked_for() -> Result<()> {
    let upstream = responding("200 OK", &date(90)).await?;
    let text = format!(
        "listen: 127.0.0.1:0\nupstreams: [{{replicas: ['{}']}}]\n",
        upstream.url()
    );
    let directory = TempDir::new()?;
    for (arguments, code) in [(&["--json"][..], 0), (&["--json", "--strict"], 2)] {
        let output = run(Program::Octoserve, directory.path(), Some(&text), arguments).await?;
        let report = Report::of(&output)?;
        report.expect(
            "upstream main",
            "clock",
            "warn",
            "s ahead of this machine's",
        )?;
        assert_eq!(report.code, Some(code));
    }
    Ok(())
}
