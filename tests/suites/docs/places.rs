//! What stands in for the ports and directories of the pages: a directory with the files of
//! /etc/octoserve, a server that runs from them, and a Prometheus that scrapes it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use harness::authority::Authority;
use harness::certificate::Certificate;
use harness::octoserve::{Launch, Server};
use harness::prometheus::Prometheus;
use tempfile::TempDir;

/// Directories of a system that pages name; one directory of the test stands in for all.
const DIRECTORIES: &[&str] = &["/etc/octoserve/", "/run/octoserve/", "/var/lib/octoserve/"];

/// A hash that bcrypt reads, for those that are cut short in the pages.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// The files of /etc/octoserve and its like. Dropping it removes them.
pub(super) struct Files {
    directory: TempDir,
}

impl Files {
    /// Makes every file that a page names there.
    pub(super) fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-docs-")?;
        let certificate = Certificate::new()?;
        let authority = Authority::new("of the pages")?;
        let copies = [
            (authority.path(), &["ca.crt", "clients.crt"][..]),
            (certificate.path(), &["tls.crt", "other.crt", "client.crt"]),
            (certificate.key(), &["tls.key", "other.key", "client.key"]),
        ];
        for (from, names) in copies {
            for name in names {
                std::fs::copy(&from, directory.path().join(name))?;
            }
        }
        let secrets = ["hub-token", "ghcr-token", "ecr-password", "scrape-password"];
        for name in secrets {
            std::fs::write(directory.path().join(name), "secret\n")?;
        }
        let key = "0123456789abcdef0123456789abcdef\n";
        std::fs::write(directory.path().join("session.key"), key)?;
        std::fs::create_dir(directory.path().join("conf.d"))?;
        let more = directory.path().join("conf.d/more.yaml");
        std::fs::write(more, "metrics: {path: /metrics}\n")?;
        let own = Self { directory };
        let configuration = own.configuration();
        std::fs::write(own.path("octoserve.yaml"), configuration)?;
        Ok(own)
    }

    /// What /etc/octoserve/octoserve.yaml says where a page does not show it.
    fn configuration(&self) -> String {
        format!(
            "listen: 127.0.0.1:0\nmetrics: {{listen: '127.0.0.1:0'}}\n\
             registry: {{sparse_manifests: true}}\n\
             control: {{socket: '{}', take_over_socket: '{}'}}\n",
            self.path("control.sock"),
            self.path("take-over.sock")
        )
    }

    /// A path in the directory.
    pub(super) fn path(&self, name: &str) -> String {
        self.root().join(name).display().to_string()
    }

    /// The directory.
    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A snippet, with the directory in the place of those of a system.
    pub(super) fn placed(&self, snippet: &str) -> String {
        let own = format!("{}/", self.root().display());
        let mut placed = snippet.replace("$2b$12$…", HASH);
        for directory in DIRECTORIES {
            placed = placed.replace(directory, &own);
        }
        placed
    }
}

/// A running octoserve with its files, and what scrapes it.
pub(super) struct System {
    // Fields are dropped in this order: the programs must end before their files are removed.
    prometheus: Prometheus,
    server: Server,
    /// The files.
    pub(super) files: Files,
}

impl System {
    pub(super) async fn start() -> Result<Self> {
        let files = Files::new()?;
        let server = Launch::all_in_one()
            .configuration(&files.configuration())
            .listens_as_configured()
            .announces_metrics()
            .start()
            .await?;
        let prometheus = Prometheus::scraping(&[server.metrics_address()]).await?;
        Ok(Self {
            prometheus,
            server,
            files,
        })
    }

    /// The server.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// A snippet, with the ports and directories of this system.
    pub(super) fn placed(&self, snippet: &str) -> String {
        let ports: [(&str, SocketAddr); 3] = [
            ("127.0.0.1:5000", self.server.address()),
            ("127.0.0.1:5001", self.server.metrics_address()),
            ("127.0.0.1:9090", self.prometheus.address()),
        ];
        let mut placed = self.files.placed(snippet);
        for (shown, own) in ports {
            placed = placed.replace(shown, &own.to_string());
        }
        placed
    }
}
