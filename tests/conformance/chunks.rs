//! Blobs pushed in chunks (end-4c, end-5, end-6, end-13, end-14; sections Pushing a blob in chunks
//! and Cancel a blob upload).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::content;
use harness::poll;
use harness::wire::{self, Wire};

use super::check::{Check, OCTETS, Reply, with};

/// How long a registry may take to notice a broken connection.
const DEADLINE: Duration = Duration::from_secs(20);

clauses![
    chunks_in_order_make_a_blob,
    the_last_chunk_may_come_with_the_commit,
    chunks_by_sha512_make_a_blob,
    a_chunk_of_unknown_length_is_accepted,
    chunks_without_a_range_are_appended,
    the_first_chunk_starts_at_zero,
    a_chunk_out_of_order_is_416_and_the_session_stays_open,
    a_last_chunk_out_of_order_is_416,
    a_session_reports_its_offset,
    a_cancelled_session_is_gone,
    an_unknown_session_is_not_found,
    a_session_belongs_to_its_repository,
    a_wrong_digest_of_the_chunks_is_refused;
    ours:
    a_refused_chunk_returns_the_offset_to_resume_at,
    a_head_of_a_session_has_the_headers_of_a_get,
    an_empty_session_reports_offset_zero,
    a_chunk_range_that_contradicts_the_length_is_refused,
    a_malformed_range_of_a_chunk_is_refused,
    a_chunk_may_use_the_content_range_syntax_of_http,
    an_interrupted_upload_is_resumed,
    an_interrupted_streamed_upload_is_resumed,
];

/// Sends a chunk with its `Content-Range`.
async fn chunk(at: &Check, location: &str, first: usize, bytes: &[u8]) -> Result<Reply> {
    let range = format!("{first}-{}", first + bytes.len() - 1);
    let headers = [("Content-Type", OCTETS), ("Content-Range", range.as_str())];
    at.send("PATCH", location, &headers, bytes).await
}

/// Commits a session and pulls the blob.
async fn commit(at: &Check, location: &str, bytes: &[u8], digest: &str) -> Result<()> {
    let path = with(location, &format!("digest={digest}"));
    let made = at.send("PUT", &path, &[], b"").await?;
    made.is(201)?.says("docker-content-digest", digest)?;
    let blob = made.location()?;
    at.get(&blob).await?.is(200)?.holds(bytes)?;
    Ok(())
}

/// end-5: each chunk is 202 with the next `Location` and a `Range` that ends with the last byte
/// received.
async fn chunks_in_order_make_a_blob(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 900);
    let mut location = at.session().await?;
    for (number, part) in bytes.chunks(300).enumerate() {
        let taken = chunk(at, &location, number * 300, part).await?;
        let last = number * 300 + 299;
        taken.is(202)?.says("range", &format!("0-{last}"))?;
        location = taken.location()?;
    }
    commit(at, &location, &bytes, &content::digest(&bytes)).await
}

/// end-6: the final chunk may be the body of the closing PUT.
async fn the_last_chunk_may_come_with_the_commit(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 500);
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, &bytes[..400]).await?;
    let digest = content::digest(&bytes);
    let last = with(&taken.is(202)?.location()?, &format!("digest={digest}"));
    let headers = [("Content-Type", OCTETS), ("Content-Range", "400-499")];
    let made = at.send("PUT", &last, &headers, &bytes[400..]).await?;
    let blob = made.is(201)?.location()?;
    at.get(&blob).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-4c: a session that names its digest algorithm when it is opened.
async fn chunks_by_sha512_make_a_blob(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 600);
    let start = with(&at.path("blobs/uploads/"), "digest-algorithm=sha512");
    let mut location = at.post(&start).await?.is(202)?.location()?;
    for (number, part) in bytes.chunks(300).enumerate() {
        let taken = chunk(at, &location, number * 300, part).await?;
        location = taken.is(202)?.location()?;
    }
    commit(at, &location, &bytes, &content::sha512(&bytes)).await
}

/// end-5, and RFC 9112 (section 7.1): a chunked body has neither a range nor a length.
async fn a_chunk_of_unknown_length_is_accepted(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 5000);
    let location = at.session().await?;
    let parts: Vec<&[u8]> = bytes.chunks(999).collect();
    let octets = [("Content-Type", OCTETS)];
    let taken = at.stream("PATCH", &location, &octets, &parts).await?;
    taken.is(202)?.says("range", "0-4999")?;
    let location = taken.location()?;
    commit(at, &location, &bytes, &content::digest(&bytes)).await
}

/// end-5: a chunk without `Content-Range` is appended, as in docker's pushes.
async fn chunks_without_a_range_are_appended(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 600);
    let mut location = at.session().await?;
    for part in bytes.chunks(200) {
        let octets = [("Content-Type", OCTETS)];
        let taken = at.send("PATCH", &location, &octets, part).await?;
        location = taken.is(202)?.location()?;
    }
    commit(at, &location, &bytes, &content::digest(&bytes)).await
}

/// end-5: the first chunk's range starts at 0.
async fn the_first_chunk_starts_at_zero(at: &Check) -> Result<()> {
    let location = at.session().await?;
    chunk(at, &location, 1, b"abc").await?.is(416)?;
    chunk(at, &location, 0, b"abc").await?.is(202)?;
    Ok(())
}

/// end-5: a gap, a repetition or an overlap is 416; the right chunk is accepted afterwards.
async fn a_chunk_out_of_order_is_416_and_the_session_stays_open(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 300);
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, &bytes[..100]).await?;
    let location = taken.is(202)?.location()?;
    for first in [200, 0, 99, 101] {
        let refused = chunk(at, &location, first, &bytes[first..]).await?;
        refused.is(416)?;
    }
    let status = at.get(&location).await?;
    status.is(204)?.says("range", "0-99")?;
    let taken = chunk(at, &status.location()?, 100, &bytes[100..]).await?;
    let location = taken.is(202)?.location()?;
    commit(at, &location, &bytes, &content::digest(&bytes)).await
}

/// end-6: a final chunk out of order is 416, too.
async fn a_last_chunk_out_of_order_is_416(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 300);
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, &bytes[..100]).await?;
    let location = taken.is(202)?.location()?;
    let digest = content::digest(&bytes);
    let last = with(&location, &format!("digest={digest}"));
    let headers = [("Content-Type", OCTETS), ("Content-Range", "200-299")];
    let refused = at.send("PUT", &last, &headers, &bytes[200..]).await?;
    refused.is(416)?;
    at.get(&at.path(&format!("blobs/{digest}")))
        .await?
        .is(404)?;
    Ok(())
}

/// end-5, and promised: the 416 itself has the session's offset, and a code of the specification.
async fn a_refused_chunk_returns_the_offset_to_resume_at(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, b"abc").await?;
    let location = taken.is(202)?.location()?;
    let refused = chunk(at, &location, 7, b"abc").await?;
    refused.refuses(416, "BLOB_UPLOAD_INVALID")?;
    refused.says("range", "0-2")?;
    let taken = chunk(at, &refused.location()?, 3, b"def").await?;
    taken.is(202)?.says("range", "0-5")?;
    Ok(())
}

/// end-13: 204 with the session's `Location` and `Range`, after any chunk.
async fn a_session_reports_its_offset(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, b"abc").await?;
    let status = at.get(&taken.is(202)?.location()?).await?;
    status.is(204)?.says("range", "0-2")?.holds(b"")?;
    let taken = chunk(at, &status.location()?, 3, b"de").await?;
    let status = at.get(&taken.is(202)?.location()?).await?;
    status.is(204)?.says("range", "0-4")?;
    Ok(())
}

/// end-13, and RFC 9110, section 9.3.2: a HEAD has the headers of a GET.
async fn a_head_of_a_session_has_the_headers_of_a_get(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, b"abc").await?;
    let location = taken.is(202)?.location()?;
    let status = at.get(&location).await?;
    let head = at.head(&location).await?;
    head.is(204)?.says("range", "0-2")?.holds(b"")?;
    head.says("location", status.header("location")?)?;
    head.says("docker-upload-uuid", status.header("docker-upload-uuid")?)?;
    Ok(())
}

/// end-4a and end-13: the header's grammar cannot express an empty range; clients expect `0-0`.
async fn an_empty_session_reports_offset_zero(at: &Check) -> Result<()> {
    let started = at.post(&at.path("blobs/uploads/")).await?;
    started.is(202)?.says("range", "0-0")?;
    let status = at.get(&started.location()?).await?;
    status.is(204)?.says("range", "0-0")?;
    Ok(())
}

/// end-14: 204, and then the session is unknown at every endpoint.
async fn a_cancelled_session_is_gone(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, b"abc").await?;
    let location = taken.is(202)?.location()?;
    at.delete(&location).await?.is(204)?;
    gone(at, &location).await
}

/// end-5, end-6, end-13, end-14: 404 for a session that never existed.
async fn an_unknown_session_is_not_found(at: &Check) -> Result<()> {
    let session = "blobs/uploads/01234567-89ab-cdef-0123-456789abcdef";
    gone(at, &at.path(session)).await
}

async fn gone(at: &Check, location: &str) -> Result<()> {
    let digest = content::digest(b"abc");
    let commit = with(location, &format!("digest={digest}"));
    for (method, path, body) in [
        ("GET", location, &b""[..]),
        ("PATCH", location, b"abc"),
        ("PUT", &commit, b"abc"),
        ("DELETE", location, b""),
    ] {
        let refused = at.send(method, path, &[], body).await?;
        refused.refuses(404, "BLOB_UPLOAD_UNKNOWN")?;
    }
    Ok(())
}

/// end-5: `<name>` is part of the location; the session is unknown under any other name.
async fn a_session_belongs_to_its_repository(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let elsewhere = location.replace(at.repository(), &at.other("beside"));
    let refused = at.send("PATCH", &elsewhere, &[], b"abc").await?;
    refused.refuses(404, "BLOB_UPLOAD_UNKNOWN")?;
    at.get(&location).await?.is(204)?;
    Ok(())
}

/// end-6: the digest is of the whole blob, not of its last chunk.
async fn a_wrong_digest_of_the_chunks_is_refused(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let taken = chunk(at, &location, 0, b"abc").await?;
    let digest = content::digest(b"def");
    let last = with(&taken.is(202)?.location()?, &format!("digest={digest}"));
    let refused = at.send("PUT", &last, &[], b"def").await?;
    refused.refuses(400, "DIGEST_INVALID")?;
    at.get(&at.path(&format!("blobs/{digest}")))
        .await?
        .is(404)?;
    Ok(())
}

/// end-5: `Content-Range` and `Content-Length` describe the same chunk.
async fn a_chunk_range_that_contradicts_the_length_is_refused(at: &Check) -> Result<()> {
    let location = at.session().await?;
    for range in ["0-9", "0-1"] {
        let headers = [("Content-Range", range)];
        let refused = at.send("PATCH", &location, &headers, b"abc").await?;
        refused.refuses(400, "SIZE_INVALID")?;
    }
    at.get(&location).await?.is(204)?.says("range", "0-0")?;
    Ok(())
}

/// end-5: the range must match `^[0-9]+-[0-9]+$`, both ends included.
async fn a_malformed_range_of_a_chunk_is_refused(at: &Check) -> Result<()> {
    let location = at.session().await?;
    for range in [
        "",
        "0",
        "-",
        "-2",
        "0-",
        "2-0",
        "a-b",
        "0-2-4",
        "0x0-0x2",
        "0-99999999999999999999999",
    ] {
        let headers = [("Content-Range", range)];
        let refused = at.send("PATCH", &location, &headers, b"abc").await?;
        refused.refuses(400, "BLOB_UPLOAD_INVALID")?;
    }
    at.get(&location).await?.is(204)?.says("range", "0-0")?;
    Ok(())
}

/// RFC 9110, section 14.4: HTTP's own syntax of the header is accepted, too.
async fn a_chunk_may_use_the_content_range_syntax_of_http(at: &Check) -> Result<()> {
    let location = at.session().await?;
    for (range, reported) in [("bytes 0-2/*", "0-2"), ("bytes 3-5/6", "0-5")] {
        let headers = [("Content-Range", range)];
        let taken = at.send("PATCH", &location, &headers, b"abc").await?;
        taken.is(202)?.says("range", reported)?;
    }
    let headers = [("Content-Range", "bytes 0-2/*")];
    let refused = at.send("PATCH", &location, &headers, b"abc").await?;
    refused.refuses(416, "BLOB_UPLOAD_INVALID")?;
    Ok(())
}

/// Use case "Resumable Push": a connection breaks within a chunk; the bytes that arrived stay, the
/// session reports their number, and the upload resumes there.
async fn an_interrupted_upload_is_resumed(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 100_000);
    let location = at.session().await?;
    let headers = [("Content-Range", "0-99999")];
    let whole = wire::request("PATCH", &location, &headers, &bytes);
    let cut = whole.len() - bytes.len() + 40_000;
    carried_on(at, &location, &bytes, &whole[..cut]).await
}

/// The same with a body of unknown length.
async fn an_interrupted_streamed_upload_is_resumed(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 100_000);
    let location = at.session().await?;
    let whole = wire::chunked("PATCH", &location, &[], &[&bytes[..40_000]]);
    // Without the last chunk.
    let cut = whole.len() - b"0\r\n\r\n".len();
    carried_on(at, &location, &bytes, &whole[..cut]).await
}

/// The offset of the registry counts, however many bytes were sent.
async fn carried_on(at: &Check, location: &str, bytes: &[u8], broken: &[u8]) -> Result<()> {
    let mut wire = Wire::connect(at.address()).await?;
    wire.send(broken).await?;
    drop(wire);
    let carried_on = poll::until("the rest is accepted", DEADLINE, async || {
        let status = at.get(location).await?;
        let range = status.is(204)?.header("range")?;
        let last: usize = range.strip_prefix("0-").context("no range")?.parse()?;
        ensure!(last < 40_000, "more than was sent: {range}");
        let first = if last == 0 { 0 } else { last + 1 };
        // The registry may still be appending bytes of the broken request.
        let taken = chunk(at, &status.location()?, first, &bytes[first..]).await?;
        match taken.response.head.status {
            202 => Ok(Some(taken.location()?)),
            416 => Ok(None),
            status => bail!("{status} for the rest"),
        }
    });
    let location = carried_on.await?;
    commit(at, &location, bytes, &content::digest(bytes)).await
}
