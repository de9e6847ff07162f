//! Certificates, of upstreams and of listeners.

use anyhow::{Result, ensure};
use harness::authority::Authority;
use harness::octoserve::Program;
use harness::tls_front::TlsFront;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{report, report_of, responding, run};

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
