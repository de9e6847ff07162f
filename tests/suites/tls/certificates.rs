//! Certificates: which one a client gets, their reload, their end, the one for a try, and bad ones.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::certificate::Certificate;
use harness::octoserve::{Launch, Program};
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::skopeo::Skopeo;
use harness::tls::{self, SecureClient, TlsOffer};
use harness::wire::{self, Wire};
use harness::{poll, tools};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Secure;

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() -> Result<()> {
    let first = Certificate::new()?;
    let (named, wildcard) = (
        Certificate::of("a.example")?,
        Certificate::of("*.b.example")?,
    );
    let more = format!(", certificates: [{}, {}]}}", named.keys(), wildcard.keys());
    let keys = format!("{}{more}", first.keys().trim_end_matches('}'));
    let server = Launch::all_in_one().secured(&keys, "").start().await?;
    let client = SecureClient::offering(&TlsOffer {
        trusted: &[&first, &named, &wildcard],
        ..TlsOffer::default()
    })?;
    for (name, expected) in [
        ("localhost", Some(&first)),
        ("a.example", Some(&named)),
        ("x.b.example", Some(&wildcard)),
        // It gets the first, which is not its.
        ("c.example", None),
    ] {
        let stream = TcpStream::connect(server.address()).await?;
        let shaken = client.shake(stream, name).await;
        assert_eq!(shaken.is_ok(), expected.is_some(), "{name}");
        if let (Ok(stream), Some(expected)) = (shaken, expected) {
            ensure!(
                tls::shown(&stream)? == tls::read(&expected.path())?,
                "{name}"
            );
        }
    }
    for certificate in [&first, &named, &wildcard] {
        let file = certificate.path().display().to_string();
        let expiry = metric("octoserve_tls_certificate_expiry_timestamp_seconds");
        let scrape = server.scrape().await?;
        let at = scrape.sum(&expiry.label("name", &file));
        // rcgen's are valid for long.
        ensure!(at > Some(4e9), "{file}: {at:?}");
    }
    Ok(())
}

/// Asks without an end over one connection, and again over new ones, until it is told to stop. Returns
/// how many requests it made.
async fn keep_asking(
    client: SecureClient,
    address: std::net::SocketAddr,
    is_kept: bool,
    stop: watch::Receiver<bool>,
) -> Result<usize> {
    let mut asked = 0;
    let mut wire = Wire::inside(client.connect(address).await?);
    while !*stop.borrow() {
        if !is_kept && asked > 0 {
            wire = Wire::inside(client.connect(address).await?);
        }
        wire.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await?;
        let response = wire.response("GET").await?;
        ensure!(response.head.status == 200, "{}", response.head.status);
        asked += 1;
    }
    Ok(asked)
}

#[tokio::test]
async fn a_reload_under_load_drops_no_connection() -> Result<()> {
    let mut front = Secure::embedded().await?;
    let second = Certificate::new()?;
    let (address, old) = (
        front.server.address(),
        tls::read(&front.certificate.path())?,
    );
    let client = SecureClient::offering(&TlsOffer {
        trusted: &[&front.certificate, &second],
        ..TlsOffer::default()
    })?;
    let (stop, stopped) = watch::channel(false);
    let asking = [true, true, true, false, false].map(|is_kept| {
        tokio::spawn(keep_asking(
            client.clone(),
            address,
            is_kept,
            stopped.clone(),
        ))
    });
    let before = client.connect(address).await?;
    ensure!(tls::shown(&before)? == old);
    front.certificate.become_like(&second)?;
    let new = tls::read(&second.path())?;
    let server = &mut front.server;
    poll::until("the certificate is loaded again", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains("certificate reloaded").then_some(()))
    })
    .await?;
    // A session of before is not resumed: the client gets the new certificate at once.
    ensure!(tls::shown(&client.connect(address).await?)? == new);
    stop.send(true)?;
    for asking in asking {
        let asked = asking.await??;
        ensure!(asked > 1, "{asked}");
    }
    // A connection of before is served as before.
    let mut wire = Wire::inside(before);
    wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
    assert_eq!(wire.response("GET").await?.head.status, 200);

    // A bad one is not loaded.
    front
        .certificate
        .replace(&front.certificate.path(), "none")?;
    let server = &mut front.server;
    poll::until("the bad certificate is seen", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains("certificate reload failed").then_some(()))
    })
    .await?;
    ensure!(tls::shown(&client.connect(address).await?)? == new);
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_served_and_logged() -> Result<()> {
    let expired = Certificate::expired()?;
    let launch = Launch::all_in_one().secured(&expired.keys(), "");
    let mut server = launch.start().await?;
    let name = expired.path().display().to_string();
    poll::until("the log says it", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        let event = log
            .lines()
            .find(|line| line.contains("certificate has expired"));
        Ok(event
            .map(|event| event.contains(&name))
            .filter(|named| *named))
    })
    .await?;
    let expiry = metric("octoserve_tls_certificate_expiry_timestamp_seconds");
    // 3 February 2001.
    expiry
        .label("name", &name)
        .value(981_158_400)
        .assert_in(&server)
        .await
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_at_the_start() -> Result<()> {
    let (certificate, other) = (Certificate::new()?, Certificate::new()?);
    let files = |certificate: &Path, key: &Path, more: &str| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("certificate: '{certificate}', key: '{key}'{more}")
    };
    let missing = Path::new("/nonexistent/tls.crt");
    let empty = tempfile::NamedTempFile::new()?;
    let (path, key) = (certificate.path(), certificate.key());
    for (keys, refusal) in [
        (files(&path, &other.key(), ""), "tls.key: "),
        (files(missing, &key, ""), "tls.certificate: cannot read"),
        (files(&path, missing, ""), "tls.key: cannot read"),
        (files(empty.path(), &key, ""), "tls.certificate: "),
        (files(&key, &key, ""), "tls.certificate: "),
        (files(&path, &path, ""), "tls.key: "),
        (
            files(&path, &key, ", client_ca: /nonexistent/ca.crt"),
            "tls.client_ca: cannot read",
        ),
        (
            files(&path, &key, ", min_version: 1.1"),
            "tls.min_version: ",
        ),
        (
            files(&path, &key, ", client_certificates: sometimes"),
            "tls.client_certificates: ",
        ),
        (
            format!("certificate: '{}'", path.display()),
            "tls: the key key is missing",
        ),
        (
            files(
                &path,
                &key,
                &format!(", certificates: [{{{}}}]", files(&path, &other.key(), "")),
            ),
            "tls.certificates[0].key: ",
        ),
    ] {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("octoserve.yaml");
        let text = format!("listen:\n  - address: 127.0.0.1:0\n    tls: {{{keys}}}\n");
        std::fs::write(&file, text)?;
        let program = Program::Octoserve.path()?.display().to_string();
        let file = file.display().to_string();
        for more in [&[][..], &["--check"]] {
            let arguments = [&["--config", file.as_str()][..], more].concat();
            let ended = tools::attempt(&program, &arguments).await?;
            let error = String::from_utf8(ended.stderr)?;
            assert_eq!(ended.status.code(), Some(64), "{error}");
            let place = format!("{file}:3: listen[0].{refusal}");
            ensure!(error.contains(&place), "{error}\n{place}");
            ensure!(ended.stdout.is_empty());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_and_clients_can_trust_it() -> Result<()> {
    let launch = Launch::all_in_one().argument("--tls-self-signed");
    let mut server = launch.metrics_listener().start().await?;
    let host = server.secure_host();
    let made = server.working_directory().join("octoserve-tls/tls.crt");
    let hints = server.process().output(OutputStream::Stdout)?;
    let step = hints
        .lines()
        .find(|line| line.contains("skopeo"))
        .with_context(|| hints.clone())?;
    // `mkdir -p DIRECTORY && cp CERTIFICATE DIRECTORY/ca.crt`, with the paths of this test.
    let directory = tempfile::tempdir()?;
    let own = directory.path().display().to_string();
    let (_, command) = step.split_once(": ").context("no command")?;
    let command = command.replace("/etc/containers/certs.d", &own);
    let here = server.working_directory().display().to_string();
    tools::run("sh", &["-c", &format!("cd {here} && {command}")]).await?;
    let certificates = format!("{own}/{host}");
    ensure!(std::fs::read(format!("{certificates}/ca.crt"))? == std::fs::read(&made)?);

    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[91])?;
    let image = format!("docker://{host}/team/app:1");
    skopeo
        .copy_verified(&layout, &image, &["--dest-cert-dir", &certificates])
        .await?;
    let back = format!("dir:{}", directory.path().join("back").display());
    skopeo
        .copy_verified(&image, &back, &["--src-cert-dir", &certificates])
        .await?;
    // Without the step the certificate is not trusted.
    ensure!(skopeo.copy_verified(&image, &back, &[]).await.is_err());
    // The command for curl is as it is printed.
    let (_, curl) = hints.split_once("curl: curl ").context("no curl")?;
    let curl = format!("cd {here} && curl --silent --fail {curl}");
    tools::run("sh", &["-c", curl.trim()]).await?;
    let expiry = metric("octoserve_tls_certificate_expiry_timestamp_seconds");
    let scrape = server.scrape().await?;
    let at = scrape.sum(&expiry.label("name", "octoserve-tls/tls.crt"));
    ensure!(at > Some(4e9), "{at:?}");
    Ok(())
}
