//! Whether an address to listen on is free, and its certificates are good.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Examination, Finding, REQUEST, can_create_in, certificate};
use crate::health::{HealthError, Probe};
use crate::listen::{self, ListenAddr};
use crate::tls::Tls;

/// A listener that is configured.
#[derive(Clone, Debug)]
pub struct ExaminedListener {
    /// The key of the configuration.
    pub key: String,
    /// The address.
    pub address: ListenAddr,
    /// The certificates, where it speaks TLS.
    pub tls: Option<Tls>,
    /// A path to which a running process of ours responds 200.
    pub path: &'static str,
    /// The other one of our programs, and a path to which it responds 200 and this one does not, where there is
    /// one.
    pub other: Option<(&'static str, &'static str)>,
}

/// Whether the address is free or a running process of ours has it, and its certificates are good.
pub fn listener(listener: ExaminedListener) -> Examination {
    let subject = format!("{} {}", listener.key, listener.address);
    Examination::new(subject, async move {
        let mut findings = vec![address(&listener).await];
        let Some(tls) = &listener.tls else {
            return findings;
        };
        // It was loaded, so that each key belongs to its certificate.
        findings.extend(tls.expiries().iter().map(|one| {
            let name = one.file.display().to_string();
            certificate(
                &name,
                one.validity(),
                "renew it: it is loaded when its file changes",
            )
        }));
        findings
    })
}

async fn address(listener: &ExaminedListener) -> Finding {
    let tried = match &listener.address {
        ListenAddr::Tcp(address) if address.port() == 0 => {
            return Finding::ok("address", "the system chooses a free port");
        }
        ListenAddr::Tcp(address) => listen::try_tcp(*address),
        ListenAddr::Unix(path) => try_unix(path).await,
    };
    let error = match tried {
        Ok(()) => return Finding::ok("address", "free"),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => taken(listener).await,
        io::ErrorKind::PermissionDenied => Finding::fail(
            "address",
            "this user may not listen there",
            "take a port above 1023, give the program CAP_NET_BIND_SERVICE, or run this as the \
             program's user",
        ),
        io::ErrorKind::AddrNotAvailable => Finding::fail(
            "address",
            "no network interface of this machine has it",
            "listen on one that it has, or on 0.0.0.0 or [::] for all",
        ),
        _ => Finding::fail(
            "address",
            error.to_string(),
            format!("choose another one in {}", listener.key),
        ),
    }
}

/// Somebody listens there; who?
async fn taken(listener: &ExaminedListener) -> Finding {
    let ListenAddr::Tcp(_) = &listener.address else {
        return Finding::ok("address", "a running process listens there");
    };
    let probe = |path| match &listener.tls {
        None => Probe::of_listener(&listener.address, path),
        Some(tls) => Probe::of_secured_listener(&listener.address, tls, path),
    };
    let elsewhere = || {
        let key = &listener.key;
        format!("stop that one, or choose another address in {key}")
    };
    let found = probe(listener.path).check_within(REQUEST).await;
    if let (Ok(()), Some((program, path))) = (&found, listener.other)
        && probe(path).check_within(REQUEST).await.is_ok()
    {
        let message = format!("another program has it: {program}");
        return Finding::fail("address", message, elsewhere());
    }
    match found {
        Ok(()) => Finding::ok("address", "a running octoserve serves it"),
        // With client certificates, as this one has none: its certificate was as we know it.
        Err(HealthError::Client(crate::net::ClientError::Tls(_)))
            if listener
                .tls
                .as_ref()
                .is_some_and(Tls::requires_client_certificates) =>
        {
            Finding::ok(
                "address",
                "taken, by a server that asks for client certificates",
            )
        }
        Err(_) => Finding::fail("address", "another program has it", elsewhere()),
    }
}

/// Whether a socket could be made at a path. None is made.
async fn try_unix(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
            let directory = directory.map_or_else(|| PathBuf::from("."), Path::to_owned);
            return can_create_in(&directory).map_err(|error| {
                let directory = directory.display();
                io::Error::other(format!("no socket can be made in {directory}: {error}"))
            });
        }
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::other("there is a file that is no socket"));
    }
    match timeout(REQUEST, UnixStream::connect(path)).await {
        // Left behind by a process that was killed. It is replaced at the start.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::doctor::CheckResult::{Fail, Ok};

    async fn found(address: &str) -> Finding {
        super::address(&ExaminedListener {
            key: "listen[0]".to_owned(),
            address: address.parse().unwrap(),
            tls: None,
            path: "/livez",
            other: None,
        })
        .await
    }

    #[tokio::test]
    async fn a_free_address_stays_free_and_a_taken_one_is_told() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let taken = tokio::spawn({
            let address = address.clone();
            async move { found(&address).await }
        });
        // No HTTP: the probe ends without a response.
        let accepted = tokio::task::spawn_blocking(move || socket.accept().map(|_| ()));
        accepted.await.unwrap().unwrap();
        let taken = taken.await.unwrap();
        assert_eq!(
            (taken.result, &*taken.message),
            (Fail, "another program has it")
        );
        for _ in 0..2 {
            let free = found(&address).await;
            assert_eq!((free.result, &*free.message), (Ok, "free"));
        }
        assert_eq!(found("127.0.0.1:0").await.result, Ok);
        let foreign = found("192.0.2.1:5000").await;
        assert!(
            foreign.message.contains("no network interface"),
            "{foreign:?}"
        );
    }

    #[tokio::test]
    async fn a_socket_is_made_where_there_is_none_or_a_stale_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let address = format!("unix:{}", path.display());
        assert_eq!(found(&address).await.message, "free");
        assert!(!path.exists());
        let socket = UnixListener::bind(&path).unwrap();
        let running = found(&address).await;
        assert_eq!(running.message, "a running process listens there");
        drop(socket);
        assert_eq!(found(&address).await.message, "free");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        let file = found(&address).await;
        assert!(file.message.contains("no socket"), "{file:?}");
        let kernel = found("unix:/proc/s").await;
        assert_eq!(kernel.result, Fail);
        assert!(kernel.message.contains("the kernel's own"), "{kernel:?}");
        let nowhere = format!("unix:{}/none/s", directory.path().display());
        let nowhere = found(&nowhere).await;
        assert_eq!(nowhere.result, Fail);
        assert!(nowhere.message.contains("none"), "{nowhere:?}");
    }
}
