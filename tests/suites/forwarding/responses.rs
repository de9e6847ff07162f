//! Responses in the form in which they reach the client: the upstream's fields without those of its
//! connection, one length, and never a part that looks whole.

use anyhow::{Context, Result, ensure};

use super::{OK, Protocol, ask, is_502, saying};
use crate::scene::BLOB;

const BOTH: [Protocol; 2] = [Protocol::Http11, Protocol::Http2];

#[tokio::test]
async fn what_the_upstream_says_of_its_connection_is_removed() -> Result<()> {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    for version in ["1.0", "1.1"] {
        let said = format!(
            "HTTP/{version} 200 Fine\r\nDate: {DATE}\r\nServer: scripted\r\n\
             Connection: X-Private, keep-alive\r\nConnection: x-other\r\nX-Private: secret\r\n\
             X-Other: secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             TE: trailers\r\nTrailer: X-End\r\nUpgrade: h2c\r\nX-Public: yes\r\n\
             Content-Length: 2\r\n\r\nok"
        );
        let scene = saying(&said, version == "1.0").await?;
        for protocol in BOTH {
            // `Wire` takes nothing but HTTP/1.1.
            let whole = ask(&scene, protocol, "GET", BLOB).await?.context("cut")?;
            assert_eq!(
                (whole.status, &whole.body[..]),
                (200, &b"ok"[..]),
                "{version}"
            );
            assert_eq!(whole.values("date"), [DATE], "{protocol:?}, {version}");
            assert_eq!(whole.values("server"), ["scripted"]);
            assert_eq!(whole.values("x-public"), ["yes"]);
            assert_eq!(whole.values("content-length"), ["2"]);
            for name in [
                "x-private",
                "x-other",
                "keep-alive",
                "proxy-connection",
                "te",
                "trailer",
                "upgrade",
                "connection",
                "transfer-encoding",
            ] {
                ensure!(
                    whole.values(name).is_empty(),
                    "{protocol:?}, {version}: {whole:?}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_reason_phrase_is_kept_and_an_old_version_is_not() -> Result<()> {
    for version in ["1.0", "1.1"] {
        let said = format!("HTTP/{version} 200 Quite Fine\r\nContent-Length: 2\r\n\r\nok");
        let scene = saying(&said, version == "1.0").await?;
        let mut client = scene.client().await?;
        client.send(crate::scene::get(BLOB).as_bytes()).await?;
        let start = b"HTTP/1.1 200 Quite Fine\r\n";
        let heard = client.exactly(start.len()).await?;
        assert_eq!(
            String::from_utf8_lossy(&heard),
            String::from_utf8_lossy(start)
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_502() -> Result<()> {
    let said = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    for after in ["", "hello", OK] {
        let scene = saying(&format!("{said}{after}"), false).await?;
        for protocol in BOTH {
            let whole = ask(&scene, protocol, "GET", BLOB).await?.context("cut")?;
            is_502(&whole).with_context(|| format!("{protocol:?}, {after:?}"))?;
        }
        scene.nothing_in_flight().await?;
    }
    Ok(())
}

#[tokio::test]
async fn equal_content_lengths_of_a_response_are_one_and_unequal_ones_502() -> Result<()> {
    for (lengths, passes) in [
        ("Content-Length: 5, 5", true),
        ("Content-Length: 5\r\nContent-Length: 5", true),
        ("Content-Length: 5,5\r\nX: y\r\nContent-Length: 5", true),
        ("Content-Length: 5, 6", false),
        ("Content-Length: 5\r\nContent-Length: 6", false),
        ("Content-Length: 5,", false),
    ] {
        let said = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhello!");
        let scene = saying(&said, false).await?;
        for protocol in BOTH {
            let whole = ask(&scene, protocol, "GET", BLOB).await?;
            let whole = whole.with_context(|| format!("{protocol:?}, {lengths}: cut"))?;
            if passes {
                assert_eq!(
                    (whole.status, &whole.body[..]),
                    (200, &b"hello"[..]),
                    "{lengths}"
                );
                assert_eq!(
                    whole.values("content-length"),
                    ["5"],
                    "{protocol:?}, {lengths}"
                );
            } else {
                is_502(&whole).with_context(|| format!("{protocol:?}, {lengths}"))?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_chunk_of_a_response_never_looks_whole() -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "\r\n\r\n",
        ";x\r\n\r\n",
        "5\r\nhello\r\n\r\n\r\n",
        "5\r\nhello\r\n\r\nworld\r\n0\r\n\r\n",
        "5\r\nhello\r\n;x\r\n\r\n",
        "5\r\nhello\r\n \r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0;\0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
    ] {
        let scene = saying(&format!("{head}{chunks}"), false).await?;
        for protocol in [Protocol::Http10, Protocol::Http11, Protocol::Http2] {
            let whole = ask(&scene, protocol, "GET", BLOB).await?;
            ensure!(
                whole.as_ref().is_none_or(|whole| whole.status == 502),
                "{protocol:?}, {chunks:?}: {whole:?}"
            );
        }
        scene.nothing_in_flight().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_chunk_extension_of_a_response_is_dropped() -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let scene = saying(
        &format!("{head}5;a=b\r\nhello\r\n0;c\r\nX: y\r\n\r\n"),
        false,
    )
    .await?;
    for protocol in [Protocol::Http10, Protocol::Http11, Protocol::Http2] {
        let whole = ask(&scene, protocol, "GET", BLOB).await?.context("cut")?;
        assert_eq!(
            (whole.status, &whole.body[..]),
            (200, &b"hello"[..]),
            "{protocol:?}"
        );
        ensure!(whole.values("x").is_empty(), "{whole:?}");
    }
    Ok(())
}
