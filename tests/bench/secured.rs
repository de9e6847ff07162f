//! The tables of the proxies with TLS to their clients: all have the same certificate, an ECDSA one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::certificate::Certificate;
use harness::client::MANIFEST;
use harness::octoserve::Launch;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::load::{self, Sample, Streams};
use crate::peers::Subject;
use crate::proxies::{DOWNLOADS, transfers};
use crate::pulled::{Pulled, REPOSITORY};
use crate::rounds::{SECURED, SECURED_HAPROXY, SECURED_NGINX, small_load};
use crate::table::{Ratio, Table, ratio};
use crate::{Options, sink};

/// Clients that shake hands at a time.
const SHAKING: usize = 16;
/// HTTP/2 connections, and the requests on each at a time.
const CONNECTIONS: usize = 4;
const REQUESTS: usize = 16;

const RATIOS: &[Ratio] = &[
    ratio(SECURED, SECURED_HAPROXY, "≥ 1.0"),
    ratio(SECURED, SECURED_NGINX, ""),
];

/// Handshakes, small responses, and the blob in both directions.
pub(crate) async fn measure(
    options: &Options,
    content: &Pulled,
    tables: &mut Vec<Table>,
) -> Result<()> {
    let certificate = Certificate::new()?;
    let direct = Subject::files("upstream", content.directory.path()).await?;
    let mut subjects = in_front_of(direct.address(), &certificate, options).await?;
    let path = Pulled::manifest_path();

    let load = format!(
        "{SHAKING} clients, {} s: a new connection without a ticket, and one GET of a manifest of {} \
         bytes on it",
        options.seconds,
        content.manifest.len()
    );
    let mut table = Table::new("TLS, handshakes", load, "handshakes/s", "µs/handshake");
    table.ratios = RATIOS;
    let clients = Clients::new(&certificate)?;
    table
        .fill(options, &mut subjects, async |subject, _| {
            clients.shake(subject, &path, options.seconds).await
        })
        .await?;
    tables.push(table);

    let load = small_load(options, content);
    let mut table = Table::new("TLS, small responses", load, "req/s", "µs/request");
    table.ratios = RATIOS;
    table
        .fill(options, &mut subjects, async |subject, _| {
            load::small(subject, &path, options.seconds).await
        })
        .await?;
    tables.push(table);

    let load = format!(
        "{CONNECTIONS} connections, {REQUESTS} requests on each at a time, {} s: GET of a manifest of \
         {} bytes",
        options.seconds,
        content.manifest.len()
    );
    let mut table = Table::new("TLS, small responses, HTTP/2", load, "req/s", "µs/request");
    table.ratios = RATIOS;
    table
        .fill(options, &mut subjects, async |subject, _| {
            clients.multiplex(subject, &path, options.seconds).await
        })
        .await?;
    tables.push(table);

    for (title, version) in [
        ("TLS, a blob down", load::HTTP1),
        ("TLS, a blob down, HTTP/2", "--http2"),
    ] {
        let streams = Streams {
            version,
            ..Streams::one(DOWNLOADS)
        };
        let load = transfers("downloads", content.length, streams);
        let mut table = Table::new(title, load, "MB/s", "s/GiB");
        table.ratios = RATIOS;
        let path = content.blob_path();
        table
            .fill(options, &mut subjects, async |subject, _| {
                load::download(subject, &path, content.length, streams).await
            })
            .await?;
        tables.push(table);
    }
    drop(subjects);
    uploads(options, content, &certificate, tables).await
}

async fn uploads(
    options: &Options,
    content: &Pulled,
    certificate: &Certificate,
    tables: &mut Vec<Table>,
) -> Result<()> {
    let (address, sink) = sink::start().await?;
    let mut subjects = in_front_of(address, certificate, options).await?;
    let digest = &content.blob;
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/session?digest={digest}");
    let file = content.file(digest);
    for (title, version) in [
        ("TLS, a blob up", load::HTTP1),
        ("TLS, a blob up, HTTP/2", "--http2"),
    ] {
        let streams = Streams {
            version,
            ..Streams::one(2)
        };
        let load =
            transfers("PUT", content.length, streams) + ", to an upstream that discards them";
        let mut table = Table::new(title, load, "MB/s", "s/GiB");
        table.ratios = RATIOS;
        table
            .fill(options, &mut subjects, async |subject, _| {
                load::upload(subject, &path, &file, streams).await
            })
            .await?;
        tables.push(table);
    }
    sink.abort();
    Ok(())
}

async fn in_front_of(
    upstream: SocketAddr,
    certificate: &Certificate,
    options: &Options,
) -> Result<Vec<Subject>> {
    let launch = Launch::in_front_of(&format!("http://{upstream}"));
    let launch = launch.secured(&certificate.keys(), "");
    let ours = Subject::ours(SECURED, launch, &options.bin_dir).await?;
    Ok(vec![
        Subject::secured_haproxy(SECURED_HAPROXY, upstream, certificate).await?,
        Subject::secured_nginx(SECURED_NGINX, upstream, certificate).await?,
        ours.secured(),
    ])
}

/// Clients that trust the certificate.
struct Clients {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Clients {
    fn new(certificate: &Certificate) -> Result<Clients> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate.path())?)?;
        let config = |protocol: &[u8]| {
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let builder = builder.with_safe_default_protocol_versions()?;
            let builder = builder.with_root_certificates(roots.clone());
            let mut config = builder.with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            config.resumption = Resumption::disabled();
            anyhow::Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Clients {
            http1: config(b"http/1.1")?,
            http2: config(b"h2")?,
        })
    }

    /// A new connection for each request: handshakes per second.
    async fn shake(&self, subject: &mut Subject, path: &str, seconds: u64) -> Result<Sample> {
        let address = subject.address();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: registry\r\nAccept: {MANIFEST}\r\nConnection: close\r\n\r\n"
        );
        counted(subject, seconds, SHAKING, |until| {
            let (connector, request) = (self.http1.clone(), request.clone());
            async move {
                let mut done = 0;
                let mut response = Vec::new();
                while Instant::now() < until {
                    let mut stream = connect(&connector, address).await?;
                    stream.write_all(request.as_bytes()).await?;
                    response.clear();
                    stream.read_to_end(&mut response).await?;
                    ensure!(response.starts_with(b"HTTP/1.1 200 "), "no 200");
                    done += 1;
                }
                Ok(done)
            }
        })
        .await
    }

    /// Many requests on few connections: requests per second.
    async fn multiplex(&self, subject: &mut Subject, path: &str, seconds: u64) -> Result<Sample> {
        let address = subject.address();
        let mut senders = Vec::new();
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let stream = connect(&self.http2, address).await?;
            ensure!(
                stream.get_ref().1.alpn_protocol() == Some(b"h2"),
                "no HTTP/2"
            );
            let (sender, connection) = h2::client::handshake(stream).await?;
            connections.spawn(connection);
            senders.push(sender);
        }
        let url = format!("https://registry{path}");
        let mut turn = 0;
        counted(subject, seconds, CONNECTIONS * REQUESTS, |until| {
            turn += 1;
            let (sender, url) = (senders[turn % CONNECTIONS].clone(), url.clone());
            async move {
                let mut done = 0;
                let mut sender = sender.ready().await?;
                while Instant::now() < until {
                    let request = http::Request::get(&url)
                        .header("accept", MANIFEST)
                        .body(())?;
                    let (response, _) = sender.send_request(request, true)?;
                    let mut body = response.await?.into_body();
                    while let Some(piece) = body.data().await {
                        let length = piece?.len();
                        body.flow_control().release_capacity(length)?;
                    }
                    sender = sender.ready().await?;
                    done += 1;
                }
                Ok(done)
            }
        })
        .await
    }
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    Ok(connector.connect(name, stream).await?)
}

/// Runs so many workers until the time is over; each returns how often it did its work.
async fn counted<F>(
    subject: &mut Subject,
    seconds: u64,
    workers: usize,
    mut work: impl FnMut(Instant) -> F,
) -> Result<Sample>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let before = subject.processor_time()?;
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let mut running: JoinSet<_> = (0..workers).map(|_| work(until)).collect();
    let mut done = 0;
    while let Some(worker) = running.join_next().await {
        done += worker.context("a worker failed")??;
    }
    let took = begun.elapsed();
    let spent = subject.processor_time()?.saturating_sub(before);
    ensure!(done > 0, "nothing was done");
    Ok(Sample {
        value: done as f64 / took.as_secs_f64(),
        processor: spent.as_secs_f64() * 1e6 / done as f64,
        p99: None,
        resident: subject.resident()?,
    })
}
