//! What stands in for the ports, hosts and directories of the pages: a directory with the files of
//! /etc/octoserve, programs that run from them, and a Prometheus that scrapes one of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::authority::Authority;
use harness::certificate::Certificate;
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::prometheus::Prometheus;
use tempfile::TempDir;

/// Directories of a system that pages name; one directory of the test stands in for all.
const DIRECTORIES: &[&str] = &["/etc/octoserve/", "/run/octoserve/", "/var/lib/octoserve/"];

/// The directory of a registry that does not run, which pages name as /var/lib/octoserve.
const LEFT: &str = "left";

/// How long a program may take to end.
const DEADLINE: Duration = Duration::from_secs(30);

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

    /// What a proxy says that is in front of two registries; pages have a socket for its metrics.
    fn proxy(&self, one: &Server, other: &Server) -> String {
        format!(
            "upstreams: [{{name: main, replicas: ['{}', '{}']}}]\n\
             metrics: {{listen: 'unix:{}'}}\ncontrol: {{socket: '{}'}}\n",
            one.url(""),
            other.url(""),
            self.path("metrics.sock"),
            self.path("proxy.sock")
        )
    }

    /// Leaves a registry's directory that nobody serves, with an image.
    async fn leave_data(&self) -> Result<()> {
        let launch = Launch::registry().data(&self.root().join(LEFT));
        let mut server = launch.start().await?;
        let client = Client::new(&server.url(""))?;
        client.push_image("team/app", "1", &[1]).await?;
        let status = server.terminate(DEADLINE).await?;
        ensure!(status.success(), "{status}");
        Ok(())
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

/// The programs that pages speak of, running with their files, and what scrapes them.
pub(super) struct System {
    // Fields are dropped in this order: the programs must end before their files are removed.
    prometheus: Prometheus,
    /// In front of the two below.
    proxy: Server,
    registry: Server,
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
        let socket = files.path("registry.sock");
        let registry = Launch::registry()
            .configuration(&format!("control: {{socket: '{socket}'}}\n"))
            .start()
            .await?;
        let proxy = files.proxy(&server, &registry);
        std::fs::write(files.path("proxy.yaml"), &proxy)?;
        let proxy = Launch::configured(&proxy).start().await?;
        // As the programs run, for the commands that ask them or use their directories.
        let (address, metrics) = (server.address(), server.metrics_address());
        let configuration = files.configuration();
        let configuration = configuration
            .replacen("127.0.0.1:0", &address.to_string(), 1)
            .replacen("127.0.0.1:0", &metrics.to_string(), 1)
            .replace(
                "registry: {",
                &format!("registry: {{data: '{}', ", server.data().display()),
            );
        std::fs::write(files.path("octoserve.yaml"), configuration)?;
        let data = registry.data().display();
        let configuration = format!("data: '{data}'\ncontrol: {{socket: '{socket}'}}\n");
        std::fs::write(files.path("registry.yaml"), configuration)?;
        files.leave_data().await?;
        Ok(Self {
            prometheus,
            proxy,
            registry,
            server,
            files,
        })
    }

    /// The server.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// A snippet, with the ports, hosts and directories of this system.
    pub(super) fn placed(&self, snippet: &str) -> String {
        let ports: [(&str, SocketAddr); 5] = [
            ("127.0.0.1:5000", self.server.address()),
            ("127.0.0.1:5001", self.server.metrics_address()),
            ("127.0.0.1:9090", self.prometheus.address()),
            ("registry-2:5000", self.registry.address()),
            ("registry.example:5001", self.proxy_metrics()),
        ];
        let data = format!("--data {}", self.files.path(LEFT));
        let mut placed = snippet.replace("--data /var/lib/octoserve", &data);
        placed = self.files.placed(&placed);
        for (shown, own) in ports {
            placed = placed.replace(shown, &own.to_string());
        }
        placed
    }

    /// The proxy has its metrics on the main listener, too.
    fn proxy_metrics(&self) -> SocketAddr {
        self.proxy.address()
    }
}
