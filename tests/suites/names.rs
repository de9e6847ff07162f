//! An upstream given by name: the name resolves to another address, or to none for a while, and the
//! proxy uses the last known address.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scripted::{Caller, Scripted};
use harness::wire;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::scene::response;

/// Longer than the proxy's interval between two lookups.
const DEADLINE: Duration = Duration::from_secs(40);

const NAME: &str = "registry.test";

/// The proxy in front of two upstreams with the same port. The name resolves to one of them.
struct Street {
    server: Server,
    directory: TempDir,
    _upstreams: [Scripted; 2],
}

async fn tell(mut caller: Caller, who: &'static str) -> Result<()> {
    loop {
        caller.head().await?;
        caller.send(response("200 OK", who.len(), who)).await?;
    }
}

impl Street {
    async fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.2:0").await?;
        let first = Scripted::start_on(listener, |caller| tell(caller, "first"))?;
        let port = first.address().port();
        let second = format!("127.0.0.3:{port}");
        let second = Scripted::listening(&second, |caller| tell(caller, "second")).await?;
        let directory = tempfile::tempdir()?;
        let (hosts, sources) = (
            directory.path().join("hosts"),
            directory.path().join("nsswitch"),
        );
        std::fs::write(&hosts, format!("127.0.0.2 {NAME}\n"))?;
        // No other source of names is used.
        std::fs::write(&sources, "hosts: files\n")?;
        let inside = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/nsswitch.conf && exec \"$0\" \"$@\"",
            hosts.display(),
            sources.display()
        );
        let under = ["unshare", "--mount", "sh", "-c", &inside].map(OsString::from);
        let launch = Launch::in_front_of(&format!("http://{NAME}:{port}"));
        let server = launch.under(under.into()).start().await?;
        let street = Self {
            server,
            directory,
            _upstreams: [first, second],
        };
        // The proxy has just looked the name up, and does so again only much later.
        let known = poll::until("the name is resolved", DEADLINE, async || {
            Ok((street.asked().await?.head.status == 200).then_some(()))
        });
        known.await?;
        Ok(street)
    }

    /// Changes the name's address, or removes it, in the hosts file that the proxy sees.
    fn rename(&self, address: Option<&str>) -> Result<()> {
        let line = match address {
            Some(address) => format!("{address} {NAME}\n"),
            None => format!("127.0.0.9 {}\n", "x".repeat(NAME.len())),
        };
        // One write in place: the new line has the length of the old one.
        let hosts = self.directory.path().join("hosts");
        let mut hosts = OpenOptions::new().write(true).open(hosts)?;
        Ok(hosts.write_all(line.as_bytes())?)
    }

    async fn asked(&self) -> Result<wire::Response> {
        let request = wire::request("GET", "/v2/", &[], b"");
        wire::exchange(self.server.address(), "GET", &request).await
    }

    /// The upstream that responds; no request may fail.
    async fn who(&self) -> Result<String> {
        let response = self.asked().await?;
        ensure!(response.head.status == 200, "{}", response.head.status);
        Ok(String::from_utf8(response.body)?)
    }

    async fn becomes(&self, who: &str) -> Result<()> {
        let found = poll::until("the new address is used", DEADLINE, async || {
            Ok((self.who().await? == who).then_some(()))
        });
        found.await?;
        // The change is permanent.
        for _ in 0..10 {
            assert_eq!(self.who().await?, who);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_new_address_of_an_upstream_name_is_used_without_a_failed_request() -> Result<()> {
    let street = Street::new().await?;
    assert_eq!(street.who().await?, "first");
    street.rename(Some("127.0.0.3"))?;
    street.becomes("second").await
}

#[tokio::test]
async fn a_failed_lookup_keeps_the_known_addresses() -> Result<()> {
    let mut street = Street::new().await?;
    street.rename(None)?;
    poll::until("a lookup failed", DEADLINE, async || {
        let log = street.server.process().output(OutputStream::Stderr)?;
        Ok(log
            .contains("cannot resolve the upstream's name")
            .then_some(()))
    })
    .await?;
    assert_eq!(street.who().await?, "first");
    street.rename(Some("127.0.0.3"))?;
    street.becomes("second").await
}
