//! A certificate for a try: `--tls-self-signed`.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use service::listen::ListenAddr;
use service::tls::{Tls, TlsError, TlsFields, TlsVersion};

use crate::config::PROTOCOLS;

/// Where the certificate is kept, so that clients which trust it do so after a restart, too.
const DIRECTORY: &str = "octoserve-tls";

/// A certificate for a try.
#[derive(Debug)]
pub(super) struct SelfSigned {
    pub(super) tls: Tls,
    certificate: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Its files cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The files that are there are of no use.
    #[error("{0}; remove the directory {DIRECTORY} to have a new certificate made")]
    Load(#[from] TlsError),
}

impl SelfSigned {
    /// The certificate in the working directory, which is made if there is none.
    pub(super) fn prepare() -> Result<SelfSigned, SelfSignedError> {
        SelfSigned::prepare_in(Path::new(DIRECTORY))
    }

    fn prepare_in(directory: &Path) -> Result<SelfSigned, SelfSignedError> {
        let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
        // The certificate is written last: where it is, the key is.
        if !certificate.exists() {
            make(directory, &certificate, &key)?;
        }
        let files = TlsFields {
            certificate: certificate.clone(),
            key,
            certificates: Vec::new(),
            client_ca: None,
            client_certificates: None,
            min_version: TlsVersion::Tls12,
        };
        Ok(SelfSigned {
            tls: Tls::load(&files, PROTOCOLS)?,
            certificate,
        })
    }

    /// What clients need to trust it, for the operator.
    pub(super) fn hints(&self, addresses: &[ListenAddr]) -> String {
        let certificate = self.certificate.display();
        let port = addresses.iter().find_map(|address| match address {
            ListenAddr::Tcp(address) => Some(address.port()),
            ListenAddr::Unix(_) => None,
        });
        let host = format!("localhost:{}", port.unwrap_or(443));
        let mut text = format!(
            "the certificate {certificate} is made for a try; let clients trust it, as root:"
        );
        for (client, directory) in [
            ("docker", "/etc/docker/certs.d"),
            ("podman, skopeo", "/etc/containers/certs.d"),
            ("containerd", "/etc/containerd/certs.d"),
        ] {
            // To write to a String never fails.
            let _ = write!(
                text,
                "\n  {client}: mkdir -p {directory}/{host} && cp {certificate} {directory}/{host}/ca.crt"
            );
        }
        // With `localhost`, containerd speaks plain HTTP unless a file says otherwise.
        let hosts = format!(r#"server = "https://{host}"\nca = "ca.crt"\n[host]\n"#);
        let _ = write!(
            text,
            " && printf '{hosts}' > /etc/containerd/certs.d/{host}/hosts.toml\n  \
             (ctr also needs --hosts-dir /etc/containerd/certs.d)\n  \
             curl: curl --cacert {certificate} https://{host}/v2/"
        );
        text
    }
}

fn make(directory: &Path, certificate: &Path, key: &Path) -> Result<(), SelfSignedError> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let host = rustix::system::uname();
    // A name that no certificate can have is left out.
    if let Ok(host) = host.nodename().to_str()
        && CertificateParams::new([host.to_owned()]).is_ok()
        && !names.iter().any(|name| name == host)
    {
        names.push(host.to_owned());
    }
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "octoserve, self-signed");
    params.distinguished_name = name;
    let pair = KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SelfSignedError::Write { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    write_new(key, 0o600, &pair.serialize_pem()).map_err(failed(key))?;
    write_new(certificate, 0o644, &made.pem()).map_err(failed(certificate))
}

/// Writes a file whole, or not at all.
fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tls");
        let first = SelfSigned::prepare_in(&path).unwrap();
        let pem = fs::read(&first.certificate).unwrap();
        let key = fs::metadata(path.join("tls.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let second = SelfSigned::prepare_in(&path).unwrap();
        assert_eq!(fs::read(&second.certificate).unwrap(), pem);
        fs::write(path.join("tls.key"), "none").unwrap();
        let error = SelfSigned::prepare_in(&path).unwrap_err().to_string();
        assert!(
            error.contains("tls.key") && error.contains("remove"),
            "{error}"
        );
    }

    #[test]
    fn the_hints_name_the_port_and_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let made = SelfSigned::prepare_in(directory.path()).unwrap();
        let hints = made.hints(&[
            "unix:/run/a".parse().unwrap(),
            "0.0.0.0:5443".parse().unwrap(),
        ]);
        let file = made.certificate.display();
        for client in ["docker", "containers", "containerd"] {
            let copy = format!("{file} /etc/{client}/certs.d/localhost:5443/ca.crt");
            assert!(hints.contains(&copy), "{hints}");
        }
        let hosts = r#"printf 'server = "https://localhost:5443"\nca = "ca.crt"\n[host]\n' > "#;
        assert!(hints.contains(hosts), "{hints}");
    }
}
