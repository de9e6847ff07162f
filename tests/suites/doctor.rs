//! `doctor`: each check failing and succeeding, what it prints, its exit codes, and that it changes
//! nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use harness::authority::Authority;
use harness::octoserve::{Launch, Program, Server};
use harness::scripted::{Caller, Scripted};
use harness::source::Source;
use harness::tls_front::TlsFront;
use harness::tmux::Tmux;
use harness::token_server::TokenServer;
use harness::tools;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_mins(1);

/// Longer than a label of a name may be: no server of names is asked for it.
const NO_NAME: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.example";

/// `tester:hunter2`, as a registry and a server of tokens get it.
const BASIC: &str = "Basic dGVzdGVyOmh1bnRlcjI=";

/// Where the messages begin in the report that is compared.
const FIGURES: usize = "  ok    token realm  ".len();

/// The end of each response of a scripted server.
const CLOSE: &str = "Connection: close\r\nContent-Length: 0\r\n\r\n";

/// The report as JSON, by subject and check, and the exit code.
struct Report {
    code: Option<i32>,
    checks: BTreeMap<(String, String), (String, String)>,
    text: String,
}

impl Report {
    fn of(output: &Output) -> Result<Self> {
        let text = String::from_utf8(output.stdout.clone())?;
        let json: Value = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let checks = json["checks"].as_array().context("no checks")?;
        let word = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let checks = checks.iter().map(|check| {
            let key = (word(check, "subject"), word(check, "check"));
            let said = format!("{} | {}", word(check, "message"), word(check, "mend"));
            (key, (word(check, "result"), said))
        });
        Ok(Self {
            code: output.status.code(),
            checks: checks.collect(),
            text,
        })
    }

    /// The result of a check of the first subject that begins so, and what was said.
    fn check(&self, subject: &str, check: &str) -> Result<(&str, &str)> {
        let mut all = self.checks.iter();
        let found = all.find(|((of, name), _)| of.starts_with(subject) && name == check);
        let (_, (result, said)) =
            found.with_context(|| format!("{subject} {check}: {}", self.text))?;
        Ok((result, said))
    }

    fn expect(&self, subject: &str, check: &str, result: &str, said: &str) -> Result<()> {
        let found = self.check(subject, check)?;
        ensure!(
            found.0 == result && found.1.contains(said),
            "{subject}, {check}: {found:?} and not {result}, {said}"
        );
        Ok(())
    }
}

/// Runs the command in a directory, with a configuration if there is one.
async fn run(
    program: Program,
    directory: &Path,
    configuration: Option<&str>,
    arguments: &[&str],
) -> Result<Output> {
    let path = program.path()?.to_string_lossy().into_owned();
    let mut words = vec!["-C".to_owned(), directory.to_string_lossy().into_owned()];
    words.extend([path, "doctor".to_owned()]);
    if let Some(text) = configuration {
        let file = directory.join("doctor.yaml");
        std::fs::write(&file, text)?;
        words.extend(["--config".to_owned(), file.to_string_lossy().into_owned()]);
    }
    words.extend(arguments.iter().map(|&word| word.to_owned()));
    tools::attempt("env", &words).await
}

/// The report on the proxy with this configuration.
async fn report(configuration: &str) -> Result<Report> {
    let directory = TempDir::new()?;
    let output = run(
        Program::Octoserve,
        directory.path(),
        Some(configuration),
        &["--json"],
    )
    .await?;
    Report::of(&output)
}

/// The report on the proxy in front of this upstream; `more` are keys of the upstream.
async fn report_of(url: &str, more: &str) -> Result<Report> {
    report(&format!(
        "listen: 127.0.0.1:0\nupstreams: [{{replicas: ['{url}']{more}}}]\n"
    ))
    .await
}

/// A server whose response to each request depends on its head.
async fn server(
    respond: impl Fn(&str) -> String + Clone + Send + Sync + 'static,
) -> Result<Scripted> {
    Scripted::start_beside(move |mut caller: Caller| {
        let respond = respond.clone();
        async move {
            let head = caller.head().await?;
            caller.send(respond(&head)).await
        }
    })
    .await
}

async fn responding(status: &str, headers: &str) -> Result<Scripted> {
    let response = format!("HTTP/1.1 {status}\r\n{headers}{CLOSE}");
    server(move |_| response.clone()).await
}

/// The header of a server whose clock is so many seconds ahead.
fn date(ahead: u64) -> String {
    let now = SystemTime::now();
    let shift = Duration::from_secs(ahead);
    format!("Date: {}\r\n", httpdate::fmt_http_date(now + shift))
}

#[tokio::test]
async fn the_default_configuration_is_fine_and_nothing_is_written() -> Result<()> {
    let directory = TempDir::new()?;
    for program in [Program::Octoserve, Program::Registry] {
        let free = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let output = run(program, directory.path(), None, &free).await?;
        let text = String::from_utf8(output.stdout)?;
        // A test machine's disk may be nearly full, which is a warning.
        ensure!(output.status.code() == Some(0), "{text}");
        for line in [
            "process\n  ",
            "  open files ",
            "listen[0] 127.0.0.1:0\n  ok    address",
            "metrics.listen 127.0.0.1:0\n  ok    address",
            "it is made at the first start\n",
            ", 0 failed\n",
        ] {
            ensure!(text.contains(line), "{line:?} is not in\n{text}");
        }
        ensure!(text.contains("data directory ./data\n"), "{text}");
        let columns = text.lines().map(|line| line.chars().count());
        ensure!(columns.max() <= Some(120), "{text}");
    }
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_running_process_is_no_trouble_and_a_foreign_one_is() -> Result<()> {
    for (program, launch) in [
        (Program::Octoserve, Launch::all_in_one()),
        (Program::Registry, Launch::registry()),
    ] {
        let is_registry = program == Program::Registry;
        let control = "control: {socket: control.sock}\n";
        let server = launch.configuration(control).start().await?;
        let text = configuration_of(&server, is_registry);
        let output = run(
            program,
            server.working_directory(),
            Some(&text),
            &["--json"],
        )
        .await?;
        let report = Report::of(&output)?;
        report.expect(
            "listen[0]",
            "address",
            "ok",
            "a running octoserve serves it",
        )?;
        report.expect("process", "control socket", "ok", "runs as process")?;
        report.expect(
            "data directory",
            "lock",
            "ok",
            "a running registry holds it",
        )?;
        assert_eq!(report.code, Some(0), "{}", report.text);
        // The process goes on.
        server.scrape().await?;
    }
    let foreign = responding("404 Not Found", "Server: other\r\n").await?;
    let report = report(&format!("listen: '{}'\n", foreign.address())).await?;
    report.expect("listen[0]", "address", "fail", "another program has it")?;
    assert_eq!(report.code, Some(1));
    Ok(())
}

/// The configuration of a server that runs.
fn configuration_of(server: &Server, is_registry: bool) -> String {
    let (address, data) = (server.address(), server.data().display());
    let control = "control: {socket: control.sock}\n";
    if is_registry {
        let metrics = server.metrics_address();
        format!(
            "listen: '{address}'\ndata: '{data}'\nmetrics: {{listen: '{metrics}'}}\nreserve: 0B\n{control}"
        )
    } else {
        format!("listen: '{address}'\nregistry: {{data: '{data}', reserve: 0B}}\n{control}")
    }
}

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

#[tokio::test]
async fn a_certificate_is_told_by_its_end_its_name_and_its_authority() -> Result<()> {
    let authority = Authority::new("the authority")?;
    let stranger = Authority::new("a stranger")?;
    let plain = responding("200 OK", "").await?;
    let ca = format!(", tls: {{ca: '{}'}}", authority.path().display());
    let server = plain.address();
    let good = TlsFront::start(server, &authority.sign(&["localhost"])?, None).await?;
    let report = report_of(&format!("https://localhost:{}", good.port()), &ca).await?;
    report.expect("upstream main", "protocol", "ok", "")?;
    report.expect(
        "upstream main",
        "certificate",
        "ok",
        "its certificate is good until",
    )?;
    assert_eq!(report.code, Some(0));
    for (certificate, clients, said) in [
        (
            authority.sign_expired(&["localhost"])?,
            None,
            "expired at 2001-01-01",
        ),
        (
            authority.sign(&["other.example"])?,
            None,
            "is for other.example, and not for localhost",
        ),
        (
            stranger.sign(&["localhost"])?,
            None,
            "not signed by a known authority | set tls.ca",
        ),
        (
            authority.sign(&["localhost"])?,
            Some(&stranger),
            "asks for a client certificate",
        ),
    ] {
        let front = TlsFront::start(server, &certificate, clients).await?;
        let report = report_of(&format!("https://localhost:{}", front.port()), &ca).await?;
        report.expect("upstream main", "certificate", "fail", said)?;
        assert_eq!(report.code, Some(1));
    }
    // It responds to the first bytes, as servers do that speak plain HTTP.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let no_tls = format!("https://{}", listener.local_addr()?);
    let responding = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 5];
            stream.read_exact(&mut first).await.ok();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .ok();
        }
    });
    let no_tls = report_of(&no_tls, &ca).await?;
    responding.abort();
    no_tls.expect("upstream main", "certificate", "fail", "does not speak TLS")?;
    let own = stranger.sign(&["client"])?;
    let both = format!(
        ", tls: {{ca: '{}', {}}}",
        authority.path().display(),
        own.keys()
    );
    let asks = TlsFront::start(server, &authority.sign(&["localhost"])?, Some(&stranger)).await?;
    let report = report_of(&format!("https://localhost:{}", asks.port()), &both).await?;
    report.expect("upstream main", "protocol", "ok", "")?;
    Ok(())
}

#[tokio::test]
async fn a_listeners_certificate_is_checked_as_its_file_says() -> Result<()> {
    let authority = Authority::new("the authority")?;
    let listen = |keys: &str| format!("listen: [{{address: '127.0.0.1:0', tls: {{{keys}}}}}]\n");
    let good = report(&listen(&authority.sign(&["localhost"])?.keys())).await?;
    good.expect("listen[0]", "certificate", "ok", "is good until")?;
    let old = report(&listen(&authority.sign_expired(&["localhost"])?.keys())).await?;
    old.expect("listen[0]", "certificate", "fail", "expired on 2001-01-01")?;
    // One that cannot be loaded is a configuration that cannot be used.
    let directory = TempDir::new()?;
    let (one, other) = (authority.sign(&["a"])?, authority.sign(&["b"])?);
    let (certificate, key) = (one.certificate.display(), other.key.display());
    let mixed = listen(&format!("certificate: '{certificate}', key: '{key}'"));
    let output = run(Program::Octoserve, directory.path(), Some(&mixed), &[]).await?;
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("does not belong to the certificate"),
        "{said}"
    );
    Ok(())
}

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

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_a_failure() -> Result<()> {
    let directory = TempDir::new()?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let of = async |more: &str| {
        let text = format!(
            "listen: 127.0.0.1:0\nregistry: {{data: '{}'{more}}}\n",
            data.display()
        );
        report(&text).await
    };
    of("")
        .await?
        .expect("data directory", "lock", "ok", "no registry has used it")?;
    let full = of(", reserve: 1000TiB").await?;
    full.expect("data directory", "free space", "fail", "pushes are refused")?;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777))?;
    of("")
        .await?
        .expect("data directory", "mode", "warn", "0777")?;
    std::fs::write(data.join("lock"), "distribution\n")?;
    of("")
        .await?
        .expect("data directory", "lock", "fail", "layout")?;
    std::fs::remove_dir_all(&data)?;
    std::fs::write(&data, "")?;
    let file = of("").await?;
    file.expect("data directory", "directory", "fail", "no directory")?;
    assert_eq!(file.code, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_read_only_file_system_is_named_even_to_root() -> Result<()> {
    let directory = TempDir::new()?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let program = Program::Registry.path()?;
    let words = [
        "--mount",
        "sh",
        "-euc",
        "mount -t tmpfs -o ro,size=1m none \"$1\"; exec \"$0\" doctor --json --listen 127.0.0.1:0 --data \"$1$2\"",
        program.to_str().context("a path of UTF-8")?,
        data.to_str().context("a path of UTF-8")?,
    ];
    for (below, said) in [
        ("", "the file system is read-only"),
        ("/new", "cannot be made in"),
    ] {
        let output = tools::attempt("unshare", &[&words[..], &[below]].concat()).await?;
        let report = Report::of(&output)?;
        report.expect("data directory", "directory", "fail", said)?;
        report.expect("data directory", "directory", "fail", "read-only")?;
        assert_eq!(report.code, Some(1));
    }
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_an_error_of_usage() -> Result<()> {
    let directory = TempDir::new()?;
    for program in [Program::Octoserve, Program::Registry] {
        let output = run(program, directory.path(), Some("listn: x\n"), &[]).await?;
        assert_eq!(output.status.code(), Some(64));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said.contains(":1: ") && said.contains("listn"), "{said}");
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_report_for_a_person_is_as_the_documentation_shows() -> Result<()> {
    let upstream = responding(
        "401 Unauthorized",
        "Docker-Distribution-Api-Version: registry/2.0\r\n\
         WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\",service=\"registry\"\r\n",
    )
    .await?;
    let text = format!(
        "listen: 127.0.0.1:0\nlimits: {{connections: 10, streams: 10}}\n\
         upstreams: [{{replicas: ['{}']}}]\n",
        upstream.url()
    );
    let directory = TempDir::new()?;
    let output = run(Program::Octoserve, directory.path(), Some(&text), &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    // What differs from machine to machine, and from run to run.
    let port = upstream.address().port().to_string();
    let lines = text.lines().map(|line| match line {
        line if line.contains("open files") => line[..FIGURES].to_owned() + "LIMIT",
        line if line.contains("answers") => line[..FIGURES].to_owned() + "401 to /v2/ in TIME",
        line => line.replace(&port, "PORT"),
    });
    let lines: Vec<_> = lines.collect();
    insta::assert_snapshot!(lines.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_terminal_shows_what_is_waited_for() -> Result<()> {
    let silent = Scripted::start_beside(|mut caller: Caller| async move {
        caller.head().await?;
        caller.closed().await
    })
    .await?;
    let program = Program::Octoserve.path()?;
    let script = format!(
        "{} doctor --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --upstream {}; \
         echo \"ended with $?\"; exec cat",
        program.display(),
        silent.url()
    );
    for width in [100, 50] {
        let screen = Tmux::start(width, 40, &script).await?;
        let waits = |text: &str| text.contains("doctor upstream main, ") && text.contains("[==");
        let shown = screen.until("the bar", waits).await?;
        // One line, however narrow the terminal is; and no report yet.
        assert_eq!(shown.trim_end().lines().count(), 1, "{shown}");
        let ended = |text: &str| text.contains("ended with 1");
        let shown = screen.until("the report", ended).await?;
        ensure!(
            shown.contains("1 failed") && !shown.contains("[=="),
            "{shown}"
        );
        ensure!(shown.starts_with("process\n"), "{shown}");
    }
    Ok(())
}

/// The registry alone on a port that the all-in-one has: both respond to `/v2/` as a registry does.
#[tokio::test]
async fn the_other_program_is_told_from_ones_own() -> Result<()> {
    let (all_in_one, registry) = (
        Launch::all_in_one().start().await?,
        Launch::registry().start().await?,
    );
    let directory = TempDir::new()?;
    for (program, address, said) in [
        (
            Program::Registry,
            all_in_one.address(),
            "another program has it: octoserve",
        ),
        (
            Program::Octoserve,
            registry.address(),
            "another program has it",
        ),
    ] {
        let address = address.to_string();
        let words = [
            "--json",
            "--listen",
            &address,
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        let report = Report::of(&run(program, directory.path(), None, &words).await?)?;
        report.expect("listen[0]", "address", "fail", said)?;
        assert_eq!(report.code, Some(1));
    }
    Ok(())
}
