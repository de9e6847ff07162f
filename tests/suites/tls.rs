//! TLS to clients: handshakes, good and bad ones, certificates and their reload, bodies in both versions
//! of HTTP, and the clients of this field.

use anyhow::Result;
use harness::certificate::Certificate;
use harness::octoserve::{Launch, Server};
use harness::tls::SecureClient;
use harness::tools;
use harness::wire::Wire;

mod certificates;
mod clients;
mod handshakes;
mod transfers;

/// A server with a certificate, and a client that trusts it.
struct Secure {
    server: Server,
    certificate: Certificate,
    client: SecureClient,
}

impl Secure {
    /// octoserve with the embedded registry.
    async fn embedded() -> Result<Self> {
        Self::of(Launch::all_in_one(), "").await
    }

    /// octoserve in front of the registry at `url`, with more keys.
    async fn in_front_of(url: &str, keys: &str) -> Result<Self> {
        let keys = format!("upstreams: [{{replicas: ['{url}']}}]\n{keys}");
        Self::of(Launch::configured(""), &keys).await
    }

    async fn of(launch: Launch, keys: &str) -> Result<Self> {
        let certificate = Certificate::new()?;
        let launch = launch.secured(&certificate.keys(), keys);
        Ok(Self {
            server: launch.start().await?,
            client: SecureClient::trusting(&certificate)?,
            certificate,
        })
    }

    /// A connection that speaks HTTP/1.1.
    async fn wire(&self) -> Result<Wire> {
        let stream = self.client.connect(self.server.address()).await?;
        Ok(Wire::inside(stream))
    }

    /// Runs curl, which trusts the certificate, with a path of this server as the last argument.
    async fn curl(&self, arguments: &[&str], path: &str) -> Result<String> {
        let certificate = self.certificate.path().display().to_string();
        let own = ["--silent", "--show-error", "--fail", "--cacert"];
        let url = format!("https://{}{path}", self.server.secure_host());
        let words = [&own[..], &[&certificate], arguments, &[&url]].concat();
        tools::run("curl", &words).await
    }
}
