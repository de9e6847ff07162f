//! An upstream that discards every upload, so that no disk limits the upload through a proxy. It
//! accepts only bodies of known length, which is how curl sends a file and a proxy forwards it.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The size of a read.
const PIECE: usize = 512 * 1024;

/// Starts it; it runs until the task is aborted.
pub(crate) async fn start() -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A broken connection makes curl fail.
            tokio::spawn(serve(stream));
        }
    });
    Ok((address, task))
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut held = 0;
    loop {
        let end = loop {
            if let Some(end) = piece[..held]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break end + 4;
            }
            match stream.read(&mut piece[held..]).await? {
                0 => return Ok(()),
                more => held += more,
            }
        };
        let length = content_length(&piece[..end])?;
        let mut left = length.saturating_sub(u64::try_from(held - end)?);
        while left > 0 {
            match stream.read(&mut piece).await? {
                0 => bail!("the body ends early"),
                more => left = left.saturating_sub(u64::try_from(more)?),
            }
        }
        held = 0;
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            .await?;
    }
}

fn content_length(head: &[u8]) -> Result<u64> {
    let head = std::str::from_utf8(head)?;
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    Ok(line.context("an upload without a length")?.trim().parse()?)
}
