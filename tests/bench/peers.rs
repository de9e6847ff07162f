//! The programs under test, each a process on a free loopback port: ours, and the alternatives in
//! Debian.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::certificate::Certificate;
use harness::octoserve::{Launch, Server};
use harness::process::{Process, Signal};
use harness::{poll, tools};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// nginx's configuration of a proxied request.
const LOCATION: &str = "location / {\n\
    proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection '';\n\
    proxy_request_buffering off; proxy_max_temp_file_size 0;\n}\n";

/// mtail's program for nginx's log: requests and bytes by kind of route.
const MTAIL: &str = r"counter requests by endpoint, method, status
counter bytes by endpoint, method
/^(?P<method>[A-Z]+) (?P<path>\S+) (?P<status>\d+) (?P<bytes>\d+) / {
  $path =~ /\/manifests\/[^\/]+$/ {
    requests['manifest'][$method][$status]++
    bytes['manifest'][$method] += $bytes
  }
  $path =~ /\/blobs\/[^\/]+$/ {
    requests['blob'][$method][$status]++
    bytes['blob'][$method] += $bytes
  }
  $path =~ /\/blobs\/uploads\// {
    requests['upload'][$method][$status]++
  }
}
";

/// How long a program may take to accept connections.
const START: Duration = Duration::from_secs(20);

/// A program under test. Dropping it stops it.
pub(crate) struct Subject {
    name: &'static str,
    scheme: &'static str,
    address: SocketAddr,
    /// A helper process whose processor time and memory count for it.
    beside: Option<Process>,
    child: Child,
    /// The file that the helper process reads.
    directory: Option<TempDir>,
}

enum Child {
    Ours(Box<Server>),
    // Fields are dropped in this order: the process must end before its directory is removed.
    Peer(
        Process,
        #[expect(dead_code, reason = "kept as long as the process")] TempDir,
    ),
}

impl Subject {
    /// One of our programs, from the release builds in `directory`, without an access log.
    pub(crate) async fn ours(name: &'static str, launch: Launch, directory: &Path) -> Result<Self> {
        let launch = launch.environment("OCTOSERVE_LOGGING_ACCESS", "false");
        Self::logged(name, launch, directory).await
    }

    /// One of our programs with its access log, which goes to a file.
    pub(crate) async fn logged(
        name: &'static str,
        launch: Launch,
        directory: &Path,
    ) -> Result<Self> {
        let server = launch.built(directory).start().await?;
        Ok(Self {
            name,
            scheme: "http",
            address: server.address(),
            beside: None,
            child: Child::Ours(Box::new(server)),
            directory: None,
        })
    }

    /// haproxy on two threads in front of `upstream`.
    pub(crate) async fn haproxy(
        name: &'static str,
        upstream: SocketAddr,
        splice: bool,
    ) -> Result<Self> {
        let splice = if splice {
            (
                "  tune.pipesize 1048576\n",
                "  option splice-request\n  option splice-response\n",
            )
        } else {
            ("", "")
        };
        let configuration =
            |address: SocketAddr, _: &Path| haproxy(address, upstream, 2, splice, "");
        Self::peer(name, "haproxy", &["-q", "-db", "-f"], configuration).await
    }

    /// haproxy on one thread, started through `under`.
    pub(crate) async fn haproxy_under(
        name: &'static str,
        upstream: SocketAddr,
        under: Vec<OsString>,
    ) -> Result<Self> {
        let configuration =
            |address: SocketAddr, _: &Path| haproxy(address, upstream, 1, ("", ""), "");
        let arguments = ["-q", "-db", "-f"];
        Self::peer_under(name, "haproxy", &arguments, configuration, under).await
    }

    /// nginx, one process, with the files below `root`.
    pub(crate) async fn files(name: &'static str, root: &Path) -> Result<Self> {
        let location = format!(
            "sendfile on; tcp_nopush on;\n\
             root {};\n\
             default_type application/vnd.oci.image.manifest.v1+json;\n\
             location / {{ }}\n",
            root.display()
        );
        Self::nginx(name, "", "", &location).await
    }

    /// nginx, one process, as a proxy in front of `upstream`.
    pub(crate) async fn nginx_proxy(name: &'static str, upstream: SocketAddr) -> Result<Self> {
        Self::nginx(name, &behind(upstream), "", LOCATION).await
    }

    /// nginx, one process, as a proxy with TLS.
    pub(crate) async fn secured_nginx(
        name: &'static str,
        upstream: SocketAddr,
        certificate: &Certificate,
    ) -> Result<Self> {
        let server = format!(
            "ssl_certificate {}; ssl_certificate_key {};\nssl_session_cache shared:s:1m;\n{LOCATION}",
            certificate.path().display(),
            certificate.key().display()
        );
        let subject = Self::nginx(name, &behind(upstream), " ssl http2", &server).await?;
        Ok(subject.secured())
    }

    /// haproxy on two threads, with TLS.
    pub(crate) async fn secured_haproxy(
        name: &'static str,
        upstream: SocketAddr,
        certificate: &Certificate,
    ) -> Result<Self> {
        // It wants both in one file.
        let both = [certificate.path(), certificate.key()].map(std::fs::read_to_string);
        let [certificate, key] = both;
        let both = certificate? + &key?;
        let directory = TempDir::with_prefix("octoserve-bench-")?;
        let file = directory.path().join("both.pem");
        std::fs::write(&file, both)?;
        let bind = format!(" ssl crt {} alpn h2,http/1.1", file.display());
        let global = ("  tune.ssl.default-dh-param 2048\n", "");
        let configuration =
            |address: SocketAddr, _: &Path| haproxy(address, upstream, 2, global, &bind);
        let arguments = ["-q", "-db", "-f"];
        let mut subject = Self::peer(name, "haproxy", &arguments, configuration).await?;
        subject.directory = Some(directory);
        Ok(subject.secured())
    }

    /// The same, which is spoken to inside TLS.
    pub(crate) fn secured(mut self) -> Self {
        self.scheme = "https";
        self
    }

    /// nginx with an access log, from which mtail derives metrics: the usual way to get metrics by
    /// route.
    pub(crate) async fn nginx_with_mtail(name: &'static str, upstream: SocketAddr) -> Result<Self> {
        let logs = TempDir::with_prefix("octoserve-bench-")?;
        let log = logs.path().join("access.log");
        std::fs::write(&log, "")?;
        let programs = logs.path().join("programs");
        std::fs::create_dir(&programs)?;
        std::fs::write(programs.join("registry.mtail"), MTAIL)?;
        let mut command = Command::new(find("mtail")?);
        command
            .args(["--address", "127.0.0.1", "--port"])
            .arg(free_address()?.port().to_string())
            .arg("--progs")
            .arg(programs)
            .arg("--logs")
            .arg(&log)
            .arg("--log_dir")
            .arg(logs.path());
        let mtail = Process::start("mtail", command, logs.path())?;
        let before = format!(
            "{}log_format short '$request_method $uri $status $body_bytes_sent $request_time';\n",
            behind(upstream)
        );
        let location = format!("access_log {} short;\n{LOCATION}", log.display());
        let mut subject = Self::nginx(name, &before, "", &location).await?;
        subject.beside = Some(mtail);
        subject.directory = Some(logs);
        Ok(subject)
    }

    /// caddy as a proxy in front of `upstream`.
    pub(crate) async fn caddy(name: &'static str, upstream: SocketAddr) -> Result<Self> {
        let configuration = |address: SocketAddr, directory: &Path| {
            format!(
                "{{\n  admin off\n  auto_https off\n  storage file_system {}\n}}\n\
                 http://{address} {{\n  reverse_proxy {upstream}\n}}\n",
                directory.display()
            )
        };
        let arguments = ["run", "--adapter", "caddyfile", "--config"];
        Self::peer(name, "caddy", &arguments, configuration).await
    }

    /// Debian's docker-registry without an access log, with the cache of its packaged
    /// configuration.
    pub(crate) async fn docker_registry(name: &'static str) -> Result<Self> {
        let configuration = |address: SocketAddr, directory: &Path| {
            format!(
                "version: 0.1\n\
                 log: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage:\n  cache: {{blobdescriptor: inmemory}}\n\
                 \x20 filesystem: {{rootdirectory: {}}}\n\
                 http: {{addr: '{address}', secret: of-the-benchmark}}\n",
                directory.join("data").display()
            )
        };
        Self::peer(name, "docker-registry", &["serve"], configuration).await
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) async fn terminate(&mut self, deadline: Duration) -> Result<()> {
        let process = self.process();
        process.signal(Signal::TERM)?;
        process.exited(deadline).await?;
        Ok(())
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The processor time of all its threads so far.
    pub(crate) fn processor_time(&mut self) -> Result<Duration> {
        let beside = match &self.beside {
            Some(process) => process.processor_time()?,
            None => Duration::ZERO,
        };
        Ok(self.process().processor_time()? + beside)
    }

    /// Its resident memory, in MB.
    pub(crate) fn resident(&mut self) -> Result<f64> {
        let beside = match &self.beside {
            Some(process) => process.memory()?.resident,
            None => 0,
        };
        Ok((self.process().memory()?.resident + beside) as f64 / 1e6)
    }

    /// Its peak resident memory, in MB.
    pub(crate) fn peak(&mut self) -> Result<f64> {
        Ok(self.process().memory()?.peak as f64 / 1e6)
    }

    fn process(&mut self) -> &mut Process {
        match &mut self.child {
            Child::Ours(server) => server.process(),
            Child::Peer(process, _) => process,
        }
    }

    async fn nginx(name: &'static str, http: &str, listen: &str, server: &str) -> Result<Self> {
        let configuration = |address: SocketAddr, directory: &Path| {
            let directory = directory.display();
            format!(
                "daemon off; master_process off; pid {directory}/nginx.pid;\n\
                 error_log {directory}/error.log;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{\n\
                 access_log off; keepalive_requests 100000000; client_max_body_size 0;\n\
                 client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
                 fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;\n\
                 scgi_temp_path {directory}/scgi;\n\
                 {http}server {{ listen {address}{listen};\n{server}}}\n}}\n"
            )
        };
        Self::peer(name, "nginx", &["-c"], configuration).await
    }

    /// Starts `program` with `arguments` and the path of its configuration, and waits until it
    /// accepts connections.
    async fn peer(
        name: &'static str,
        program: &str,
        arguments: &[&str],
        configuration: impl Fn(SocketAddr, &Path) -> String,
    ) -> Result<Self> {
        Self::peer_under(name, program, arguments, configuration, Vec::new()).await
    }

    async fn peer_under(
        name: &'static str,
        program: &str,
        arguments: &[&str],
        configuration: impl Fn(SocketAddr, &Path) -> String,
        mut under: Vec<OsString>,
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-bench-")?;
        let address = free_address()?;
        let file = directory.path().join("configuration");
        std::fs::write(&file, configuration(address, directory.path()))?;
        under.push(find(program)?.into());
        let mut command = Command::new(under.remove(0));
        command
            .args(under)
            .args(arguments)
            .arg(&file)
            .current_dir(directory.path());
        let mut process = Process::start(program, command, directory.path())?;
        let what = format!("{program} accepts connections");
        let accepts = poll::until(&what, START, async || {
            anyhow::ensure!(process.is_running()?, "{}", process.last_words());
            Ok(TcpStream::connect(address).await.ok())
        });
        accepts.await?;
        Ok(Self {
            name,
            scheme: "http",
            address,
            beside: None,
            child: Child::Peer(process, directory),
            directory: None,
        })
    }
}

/// haproxy's configuration.
fn haproxy(
    address: SocketAddr,
    upstream: SocketAddr,
    threads: u32,
    (global, more): (&str, &str),
    bind: &str,
) -> String {
    format!(
        "global\n  nbthread {threads}\n  maxconn 2000\n{global}\
         defaults\n  mode http\n  http-reuse always\n{more}\
         \x20 timeout connect 5s\n  timeout client 75s\n  timeout server 75s\n\
         listen proxy\n  bind {address}{bind}\n  server upstream {upstream}\n"
    )
}

/// nginx's configuration of an upstream with keep-alive connections.
fn behind(upstream: SocketAddr) -> String {
    format!(
        "upstream behind {{ server {upstream}; keepalive 64; keepalive_requests 100000000; }}\n"
    )
}

/// The path of a program.
///
/// # Errors
/// If it is missing, with the command that installs it.
pub(crate) fn find(program: &str) -> Result<std::path::PathBuf> {
    tools::find(program)
        .ok()
        .with_context(|| format!("{program} is missing: `make bench` installs it"))
}

/// A free address, because these programs do not report a port chosen by the kernel.
fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?)
}
