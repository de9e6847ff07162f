//! The header of the PROXY protocol, by which a load balancer says whose connection it forwards: version
//! 1 is a line, version 2 is binary.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// The most bytes of a header: version 2 may carry more than addresses.
const MAX: usize = 4 << 10;

/// What a header of version 1 begins with.
const LINE: &[u8] = b"PROXY ";
/// The most bytes of a header of version 1.
const MAX_LINE: usize = 107;

/// Why a connection has no header.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ProxyHeaderError {
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Invalid,
    #[error("the connection ended within the header of the PROXY protocol")]
    Closed,
    #[error("the header of the PROXY protocol did not arrive in time")]
    TimedOut,
}

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    /// Where the client is; `None` where the load balancer does not say, as in its own health checks.
    pub(super) client: Option<SocketAddr>,
    /// What was read after the header.
    pub(super) rest: BytesMut,
}

/// Reads the header, before anything else of the connection is read.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> Result<ProxyHeader, ProxyHeaderError> {
    let read = async {
        let mut bytes = BytesMut::with_capacity(MAX);
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(length) if length > 0 => {}
                _ => return Err(ProxyHeaderError::Closed),
            }
            if let Some((client, length)) = parse(&bytes)? {
                bytes.advance(length);
                return Ok(ProxyHeader {
                    client,
                    rest: bytes,
                });
            }
            if bytes.len() >= MAX {
                return Err(ProxyHeaderError::Invalid);
            }
        }
    };
    let read = timeout(limit, read).await;
    read.unwrap_or(Err(ProxyHeaderError::TimedOut))
}

/// The client and the length of a header; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, ProxyHeaderError> {
    // ppp refuses some lines that only end too early.
    let known = bytes.len().min(LINE.len());
    if bytes[..known] == LINE[..known] && !bytes.contains(&b'\n') {
        let may_end = bytes.len() < MAX_LINE;
        return may_end.then_some(None).ok_or(ProxyHeaderError::Invalid);
    }
    let header = HeaderResult::parse(bytes);
    if header.is_incomplete() {
        return Ok(None);
    }
    let at = |ip: IpAddr, port| Some(SocketAddr::new(ip, port));
    match header {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(ends) => at(ends.source_address.into(), ends.source_port),
                v1::Addresses::Tcp6(ends) => at(ends.source_address.into(), ends.source_port),
                v1::Addresses::Unknown => None,
            };
            Ok(Some((client, header.header.len())))
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(ends)) => {
                    at(ends.source_address.into(), ends.source_port)
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(ends)) => {
                    at(ends.source_address.into(), ends.source_port)
                }
                (v2::Command::Local, _)
                | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            };
            Ok(Some((client, header.len())))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(ProxyHeaderError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A header of version 2 from 203.0.113.7:4711, with so many bytes more.
    fn binary(command: u8, more: u16) -> Vec<u8> {
        let length = 12 + more;
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, 0x11]);
        header.extend(length.to_be_bytes());
        header.extend([203, 0, 113, 7, 10, 0, 0, 1]);
        header.extend(4711_u16.to_be_bytes());
        header.extend(5000_u16.to_be_bytes());
        header.resize(header.len() + usize::from(more), 0);
        header
    }

    async fn read_all(bytes: &[u8]) -> Result<(Option<String>, Vec<u8>), ProxyHeaderError> {
        let mut stream = bytes;
        let header = read(&mut stream, LONG).await?;
        let client = header.client.map(|client| client.to_string());
        Ok((client, [&header.rest[..], stream].concat()))
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        let client = || Some("203.0.113.7:4711".to_owned());
        for (header, named) in [
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 5000\r\n".to_vec(),
                client(),
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 5000\r\n".to_vec(),
                Some("[2001:db8::1]:4711".to_owned()),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (binary(1, 0), client()),
            (binary(1, 300), client()),
            (binary(0, 0), None),
        ] {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            let read = read_all(&bytes).await.unwrap();
            assert_eq!(read, (named, b"GET / HTTP/1.1\r\n".to_vec()));
            // Byte for byte, too.
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end} of {header:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET /v2/ HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.7 nowhere 1 2\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            &[b'P'; 200],
            &binary(1, 8000),
        ] {
            let refused = read_all(bytes).await.unwrap_err();
            assert_eq!(refused, ProxyHeaderError::Invalid, "{bytes:?}");
        }
        for bytes in [&b""[..], b"PROXY TCP4 203.0.113.7", &binary(1, 0)[..20]] {
            assert_eq!(read_all(bytes).await.unwrap_err(), ProxyHeaderError::Closed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_is_not_waited_for() {
        let (mut near, _far) = tokio::io::duplex(64);
        let refused = read(&mut near, LONG).await.unwrap_err();
        assert_eq!(refused, ProxyHeaderError::TimedOut);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"PROXY ", &bytes[..]].concat());
            let _ = parse(&[b"\r\n\r\n\0\r\nQUIT\n", &bytes[..]].concat());
        }
    }
}
