//! nginx as a TLS terminator, as many people put one in front of their registry.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::certificate::Certificate;
use crate::process::Process;
use crate::tools;

/// How often a port is tried that another program may have taken.
const ATTEMPTS: usize = 5;

/// How long nginx may take to accept connections.
const START: Duration = Duration::from_secs(20);

/// nginx, which speaks TLS to clients and HTTP to a server. Dropping it stops it.
pub struct Terminator {
    address: SocketAddr,
    // Fields are dropped in this order: the process must end before its directory is removed.
    _process: Process,
    _directory: TempDir,
    certificate: Certificate,
}

impl Terminator {
    /// Starts it in front of a server.
    ///
    /// # Errors
    /// If nginx is missing or does not start.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            // nginx does not report a port that the kernel chose.
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let certificate = Certificate::new()?;
            let directory = TempDir::with_prefix("octoserve-nginx-")?;
            let here = directory.path().display();
            let configuration = format!(
                "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
                 events {{ }}\n\
                 http {{\n\
                 access_log off; client_max_body_size 0;\n\
                 client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
                 fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi;\n\
                 scgi_temp_path {here}/scgi;\n\
                 server {{\n\
                 listen {address} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
                 location / {{\n\
                 proxy_pass http://{server}; proxy_http_version 1.1;\n\
                 proxy_request_buffering off; proxy_set_header Host $http_host;\n\
                 proxy_set_header X-Forwarded-For $remote_addr;\n\
                 proxy_set_header X-Forwarded-Proto $scheme;\n\
                 }} }} }}\n",
                certificate.path().display(),
                certificate.key().display(),
            );
            let file = directory.path().join("nginx.conf");
            std::fs::write(&file, configuration)?;
            let nginx =
                tools::find("nginx").context("nginx is missing: `make test` installs it")?;
            let mut command = Command::new(nginx);
            command.arg("-c").arg(&file);
            let mut process = Process::start("nginx", command, directory.path())?;
            if is_up(&mut process, address).await? {
                return Ok(Self {
                    address,
                    _process: process,
                    _directory: directory,
                    certificate,
                });
            }
        }
        bail!("nginx does not start")
    }

    /// The certificate that its clients see.
    pub fn certificate(&self) -> PathBuf {
        self.certificate.path()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `localhost` and its port.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }
}

/// Waits until it accepts connections. False if it has ended.
async fn is_up(process: &mut Process, address: SocketAddr) -> Result<bool> {
    let up = async {
        loop {
            if !process.is_running()? {
                return Ok(false);
            }
            if TcpStream::connect(address).await.is_ok() {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(START, up).await.unwrap_or(Ok(false))
}
