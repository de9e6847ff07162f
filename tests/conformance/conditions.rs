//! Ranges (Pulling blobs, RFC 9110 section 14) and conditional requests (section 13).

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::client::MANIFEST;
use harness::content;
use harness::wire::{self, Wire};

use super::check::{Check, NOTHING, Reply};

clauses![
    a_blob_advertises_byte_ranges,
    a_range_is_206_with_a_content_range,
    a_range_without_an_end_extends_to_the_last_byte,
    a_range_past_the_end_is_shortened,
    a_suffix_range_counts_from_the_end,
    a_range_that_starts_past_the_end_is_416_with_the_length,
    a_range_of_another_unit_is_ignored,
    ranges_larger_than_the_blob_return_all_of_it,
    a_range_of_a_head_is_ignored,
    a_range_of_an_unknown_blob_is_not_found,
    if_range_with_the_current_etag_returns_the_range,
    if_range_with_another_etag_returns_the_whole_blob,
    an_interrupted_pull_is_resumed;
    ours:
    a_malformed_range_is_416,
    several_ranges_are_multipart_byteranges,
    many_ranges_are_multipart_byteranges,
    a_client_that_has_the_blob_gets_304,
    a_client_that_has_the_manifest_gets_304,
    a_conditional_get_of_missing_content_is_404,
    a_get_whose_if_match_fails_is_412,
    a_tag_is_written_once,
    a_tag_moves_only_from_the_expected_digest,
    exactly_one_of_concurrent_pushes_of_an_absent_tag_wins,
    a_condition_applies_to_the_path_and_not_to_the_query,
    a_condition_may_apply_to_a_digest,
    a_malformed_condition_is_400,
    a_delete_honours_its_condition,
];

/// The blob for the ranges: each byte is its own position.
async fn digits(at: &Check) -> Result<(Vec<u8>, String)> {
    let bytes: Vec<u8> = (0..100).collect();
    let digest = at.push(&bytes).await?;
    Ok((bytes, at.path(&format!("blobs/{digest}"))))
}

async fn range(at: &Check, path: &str, range: &str) -> Result<Reply> {
    at.send("GET", path, &[("Range", range)], b"").await
}

/// RFC 9110, section 14.3: `Accept-Ranges` announces the support of ranges.
async fn a_blob_advertises_byte_ranges(at: &Check) -> Result<()> {
    let (_, path) = digits(at).await?;
    at.get(&path).await?.says("accept-ranges", "bytes")?;
    at.head(&path).await?.says("accept-ranges", "bytes")?;
    Ok(())
}

/// RFC 9110, sections 14.1.2 and 15.3.7: 206 with exactly these bytes and their position.
async fn a_range_is_206_with_a_content_range(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    for (first, last) in [(0, 0), (2, 5), (0, 99), (99, 99)] {
        let part = range(at, &path, &format!("bytes={first}-{last}")).await?;
        part.is(206)?.holds(&bytes[first..=last])?;
        part.says("content-range", &format!("bytes {first}-{last}/100"))?;
        part.says("content-length", &(last - first + 1).to_string())?;
    }
    Ok(())
}

/// RFC 9110, section 14.1.2: without a last position, the range extends to the end.
async fn a_range_without_an_end_extends_to_the_last_byte(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let part = range(at, &path, "bytes=90-").await?;
    part.is(206)?.holds(&bytes[90..])?;
    part.says("content-range", "bytes 90-99/100")?;
    Ok(())
}

/// RFC 9110, section 14.1.2: a last position past the end means the end.
async fn a_range_past_the_end_is_shortened(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let part = range(at, &path, "bytes=95-1000").await?;
    part.is(206)?.holds(&bytes[95..])?;
    part.says("content-range", "bytes 95-99/100")?;
    Ok(())
}

/// RFC 9110, section 14.1.2: a suffix range is that many bytes at the end, or all bytes if there
/// are fewer.
async fn a_suffix_range_counts_from_the_end(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let part = range(at, &path, "bytes=-3").await?;
    part.is(206)?.holds(&bytes[97..])?;
    part.says("content-range", "bytes 97-99/100")?;
    let all = range(at, &path, "bytes=-1000").await?;
    all.is(206)?.holds(&bytes)?;
    all.says("content-range", "bytes 0-99/100")?;
    Ok(())
}

/// RFC 9110, section 15.5.17: 416 if none of the bytes exists, with the length in `Content-Range`.
async fn a_range_that_starts_past_the_end_is_416_with_the_length(at: &Check) -> Result<()> {
    let (_, path) = digits(at).await?;
    for beyond in ["bytes=100-", "bytes=100-200"] {
        let refused = range(at, &path, beyond).await?;
        refused.is(416)?.says("content-range", "bytes */100")?;
    }
    Ok(())
}

/// RFC 9110, section 14.2: a server may reject a malformed range; ours does, so that no client
/// mistakes the whole blob for a part.
async fn a_malformed_range_is_416(at: &Check) -> Result<()> {
    let (_, path) = digits(at).await?;
    for malformed in [
        "bytes=5-2",
        "bytes=a-b",
        "bytes=",
        "bytes",
        "bytes=-",
        "bytes=-0",
        "bytes=--5",
        "bytes=1-2-3",
    ] {
        let refused = range(at, &path, malformed).await?;
        refused.refuses(416, "SIZE_INVALID")?;
        refused.says("content-range", "bytes */100")?;
    }
    Ok(())
}

/// RFC 9110, section 14.2: a range in an unknown unit must be ignored.
async fn a_range_of_another_unit_is_ignored(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    range(at, &path, "lines=1-2")
        .await?
        .is(200)?
        .holds(&bytes)?;
    Ok(())
}

/// RFC 9110, section 14.2: a server may ignore expensive ranges.
async fn ranges_larger_than_the_blob_return_all_of_it(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let all = range(at, &path, "bytes=0-99,5-6").await?;
    all.is(200)?.holds(&bytes)?.lacks("content-range")?;
    Ok(())
}

/// The body of a multipart response according to RFC 9110, section 14.6.
fn parts(reply: &Reply, ranges: &[(usize, usize)], bytes: &[u8]) -> Result<Vec<u8>> {
    let kind = reply.header("content-type")?;
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .with_context(|| kind.to_owned())?;
    let mut body = Vec::new();
    for (place, &(first, last)) in ranges.iter().enumerate() {
        let before = if place > 0 { "\r\n" } else { "" };
        let head = format!(
            "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {first}-{last}/{}\r\n\r\n",
            bytes.len()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&bytes[first..=last]);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok(body)
}

/// RFC 9110, section 15.3.7.2: several ranges are parts of one 206, in the requested order.
/// Unsatisfiable ranges are left out; a single remaining one is a plain 206; none is 416.
async fn several_ranges_are_multipart_byteranges(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let reply = range(at, &path, "bytes=10-13, 0-3,200-,-2").await?;
    let body = parts(&reply, &[(10, 13), (0, 3), (98, 99)], &bytes)?;
    reply.is(206)?.holds(&body)?.lacks("content-range")?;
    reply.says("content-length", &body.len().to_string())?;
    let one = range(at, &path, "bytes=200-,10-13").await?;
    one.is(206)?.holds(&bytes[10..=13])?;
    one.says("content-range", "bytes 10-13/100")?;
    let none = range(at, &path, "bytes=200-,300-301").await?;
    none.refuses(416, "SIZE_INVALID")?;
    none.says("content-range", "bytes */100")?;
    let headers = [("Range", "bytes=0-1,5-6"), ("If-Range", "\"other\"")];
    at.send("GET", &path, &headers, b"").await?.is(200)?;
    let head = at.send("HEAD", &path, &headers[..1], b"").await?;
    head.is(200)?.says("content-length", "100")?;
    Ok(())
}

/// Lazy pullers request up to 1,024 ranges at once, and count the parts.
async fn many_ranges_are_multipart_byteranges(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 300_000);
    let digest = at.push(&bytes).await?;
    let path = at.path(&format!("blobs/{digest}"));
    let ranges: Vec<_> = (0..1024).map(|n| (n * 290, n * 290 + n % 200)).collect();
    let written: Vec<_> = ranges
        .iter()
        .map(|(first, last)| format!("{first}-{last}"))
        .collect();
    let written = written.join(",");
    let reply = range(at, &path, &format!("bytes={written}")).await?;
    reply.is(206)?.holds(&parts(&reply, &ranges, &bytes)?)?;
    let more = range(at, &path, &format!("bytes={written},299000-299001")).await?;
    more.is(200)?.holds(&bytes)?;
    Ok(())
}

/// RFC 9110, section 14.2: ranges are defined for GET only.
async fn a_range_of_a_head_is_ignored(at: &Check) -> Result<()> {
    let (_, path) = digits(at).await?;
    let head = at.send("HEAD", &path, &[("Range", "bytes=0-1")], b"").await;
    head?.is(200)?.says("content-length", "100")?;
    Ok(())
}

/// end-2, Pulling blobs: 404 comes before any range.
async fn a_range_of_an_unknown_blob_is_not_found(at: &Check) -> Result<()> {
    digits(at).await?;
    let path = at.path(&format!("blobs/{NOTHING}"));
    range(at, &path, "bytes=0-1")
        .await?
        .refuses(404, "BLOB_UNKNOWN")?;
    Ok(())
}

/// RFC 9110, section 13.1.5: `If-Range` with the content's entity tag applies the range.
async fn if_range_with_the_current_etag_returns_the_range(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let tag = at.head(&path).await?.header("etag")?.to_owned();
    let headers = [("Range", "bytes=1-2"), ("If-Range", tag.as_str())];
    let part = at.send("GET", &path, &headers, b"").await?;
    part.is(206)?.holds(&bytes[1..=2])?;
    Ok(())
}

/// RFC 9110, section 13.1.5: `If-Range` with another entity tag, or a weak one, ignores the range.
async fn if_range_with_another_etag_returns_the_whole_blob(at: &Check) -> Result<()> {
    let (bytes, path) = digits(at).await?;
    let weak = format!("W/{}", at.head(&path).await?.header("etag")?);
    for tag in ["\"other\"", &weak] {
        let headers = [("Range", "bytes=1-2"), ("If-Range", tag)];
        let all = at.send("GET", &path, &headers, b"").await?;
        all.is(200)?.holds(&bytes)?;
    }
    Ok(())
}

/// Use case "Resumable Pull": the client keeps what arrived and requests the rest by a range.
async fn an_interrupted_pull_is_resumed(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 1 << 20);
    let digest = at.push(&bytes).await?;
    let path = at.path(&format!("blobs/{digest}"));
    let mut wire = Wire::connect(at.address()).await?;
    wire.send(&wire::request("GET", &path, &[], b"")).await?;
    ensure!(wire.head().await?.status == 200, "no blob");
    let mut kept = wire.exactly(300_000).await?;
    drop(wire);
    let rest = range(at, &path, "bytes=300000-").await?;
    kept.extend(&rest.is(206)?.response.body);
    ensure!(content::digest(&kept) == digest, "the parts are no whole");
    Ok(())
}

/// RFC 9110, section 13.1.2: `If-None-Match` with the current entity tag, alone, weak or in a list,
/// gets 304 without a body; any other tag gets the content.
async fn a_client_that_has_the_blob_gets_304(at: &Check) -> Result<()> {
    let (_, path) = digits(at).await?;
    conditional(at, &path).await
}

/// RFC 9110, section 13.1.2, for manifests by tag and by digest.
async fn a_client_that_has_the_manifest_gets_304(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let digest = content::digest(manifest.as_bytes());
    conditional(at, &at.path("manifests/1")).await?;
    conditional(at, &at.path(&format!("manifests/{digest}"))).await
}

/// RFC 9110, section 13.2.1: a condition is ignored if the response without it would be an error.
async fn a_conditional_get_of_missing_content_is_404(at: &Check) -> Result<()> {
    digits(at).await?;
    for tag in [format!("\"{NOTHING}\""), "*".to_owned()] {
        let headers = [("If-None-Match", tag.as_str())];
        for rest in ["blobs", "manifests"] {
            let path = at.path(&format!("{rest}/{NOTHING}"));
            at.send("GET", &path, &headers, b"").await?.is(404)?;
        }
    }
    Ok(())
}

async fn conditional(at: &Check, path: &str) -> Result<()> {
    let whole = at.get(path).await?;
    let tag = whole.header("etag")?.to_owned();
    let digest = whole.header("docker-content-digest")?;
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        "*".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            let headers = [("If-None-Match", known.as_str())];
            let same = at.send(method, path, &headers, b"").await?;
            same.is(304)?.holds(b"")?;
            same.says("etag", &tag)?
                .says("docker-content-digest", digest)?;
        }
    }
    let bare = tag.trim_matches('"');
    for other in ["\"other\"", bare] {
        let headers = [("If-None-Match", other)];
        let changed = at.send("GET", path, &headers, b"").await;
        let changed = changed.with_context(|| other.to_owned())?;
        changed.is(200)?.holds(&whole.response.body)?;
    }
    Ok(())
}

const ABSENT: (&str, &str) = ("If-None-Match", "*");

/// Pushes an image under a reference with conditions.
async fn push(
    at: &Check,
    reference: &str,
    manifest: &str,
    conditions: &[(&str, &str)],
) -> Result<Reply> {
    let path = at.path(&format!("manifests/{reference}"));
    let headers = [&[("Content-Type", MANIFEST)], conditions].concat();
    at.send("PUT", &path, &headers, manifest.as_bytes()).await
}

fn entity_tag(manifest: &str) -> String {
    format!("\"{}\"", content::digest(manifest.as_bytes()))
}

/// RFC 9110, section 13.1.1: 412 if the entity tag is not listed in `If-Match`; section 13.2.2:
/// `If-Match` takes precedence over `If-None-Match`.
async fn a_get_whose_if_match_fails_is_412(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let blob = at.push(b"blob").await?;
    let blob = (at.path(&format!("blobs/{blob}")), format!("\"{blob}\""));
    for (path, own) in [(at.path("manifests/1"), entity_tag(&manifest)), blob] {
        let other = entity_tag("other");
        let all = format!("{other}, {own}");
        for wanted in ["*", &own, &all] {
            let get = at.send("GET", &path, &[("If-Match", wanted)], b"").await?;
            get.is(200)?.says("etag", &own)?;
        }
        let both = [("If-Match", other.as_str()), ABSENT];
        for conditions in [&both[..1], &both] {
            let get = at.send("GET", &path, conditions, b"").await?;
            get.refuses(412, "DENIED")?;
            at.send("HEAD", &path, conditions, b"").await?.is(412)?;
        }
        let weak = format!("W/{own}");
        let get = at.send("GET", &path, &[("If-Match", &weak)], b"").await?;
        get.refuses(412, "DENIED")?;
    }
    Ok(())
}

/// RFC 9110, section 13.1.2: with `If-None-Match: *` a tag is written only if it does not exist,
/// and a refused push writes nothing.
async fn a_tag_is_written_once(at: &Check) -> Result<()> {
    let (first, second) = (
        at.image(1).await?.to_string(),
        at.image(2).await?.to_string(),
    );
    push(at, "1", &first, &[ABSENT]).await?.is(201)?;
    for manifest in [&first, &second] {
        let refused = push(at, "1", manifest, &[ABSENT]).await?;
        refused.refuses(412, "DENIED")?;
    }
    let named = [("If-None-Match", entity_tag(&first))];
    let named = named
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    push(at, "1", &second, &named)
        .await?
        .refuses(412, "DENIED")?;
    let path = at.path("manifests/1");
    at.get(&path).await?.is(200)?.holds(first.as_bytes())?;
    let path = at.path(&format!("manifests/{}", content::digest(second.as_bytes())));
    at.get(&path).await?.is(404)?;
    Ok(())
}

/// RFC 9110, section 13.1.1: with `If-Match` a tag moves only from the named digest.
async fn a_tag_moves_only_from_the_expected_digest(at: &Check) -> Result<()> {
    let first = at.tagged("1", 1).await?;
    let (second, third) = (
        at.image(2).await?.to_string(),
        at.image(3).await?.to_string(),
    );
    let from_first = entity_tag(&first);
    let condition = [("If-Match", from_first.as_str())];
    push(at, "2", &second, &condition)
        .await?
        .refuses(412, "DENIED")?;
    push(at, "2", &second, &[("If-Match", "*")])
        .await?
        .refuses(412, "DENIED")?;
    push(at, "1", &second, &condition).await?.is(201)?;
    push(at, "1", &third, &condition)
        .await?
        .refuses(412, "DENIED")?;
    let weak = format!("W/{}", entity_tag(&second));
    let refused = push(at, "1", &third, &[("If-Match", &weak)]).await?;
    refused.refuses(412, "DENIED")?;
    let own = entity_tag(&second);
    let lines = [("If-Match", "\"a,b\""), ("If-Match", own.as_str())];
    push(at, "1", &third, &lines).await?.is(201)?;
    let found = at.get(&at.path("manifests/1")).await?;
    found.is(200)?.holds(third.as_bytes())?;
    Ok(())
}

/// RFC 9110, section 13.1.2: "can be used … to prevent lost updates": all pushes but the first are
/// refused.
async fn exactly_one_of_concurrent_pushes_of_an_absent_tag_wins(at: &Check) -> Result<()> {
    let mut manifests = Vec::new();
    for number in 0..8 {
        manifests.push(at.image(number).await?.to_string());
    }
    let pushes = manifests
        .iter()
        .map(|manifest| push(at, "once", manifest, &[ABSENT]));
    let replies = try_join_all(pushes).await?;
    let mut winners = replies
        .iter()
        .zip(&manifests)
        .filter(|(reply, _)| reply.response.head.status == 201);
    let (_, winner) = winners.next().context("nobody wins")?;
    ensure!(winners.next().is_none(), "two win");
    for reply in replies
        .iter()
        .filter(|reply| reply.response.head.status != 201)
    {
        reply.refuses(412, "DENIED")?;
    }
    let found = at.get(&at.path("manifests/once")).await?;
    found.is(200)?.holds(winner.as_bytes())?;
    Ok(())
}

/// RFC 9110, section 13.1: a condition applies to the target resource, which the path names; the
/// tags in the query move unconditionally.
async fn a_condition_applies_to_the_path_and_not_to_the_query(at: &Check) -> Result<()> {
    let (first, second) = (
        at.image(1).await?.to_string(),
        at.image(2).await?.to_string(),
    );
    push(at, "1.0?tag=latest", &first, &[ABSENT])
        .await?
        .is(201)?;
    push(at, "1.1?tag=latest", &second, &[ABSENT])
        .await?
        .is(201)?;
    let refused = push(at, "1.1?tag=latest", &first, &[ABSENT]).await?;
    refused.refuses(412, "DENIED")?;
    let latest = at.get(&at.path("manifests/latest")).await?;
    latest.is(200)?.holds(second.as_bytes())?;
    Ok(())
}

/// RFC 9110, section 13.1.2, for a manifest by digest.
async fn a_condition_may_apply_to_a_digest(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    push(at, &digest, &manifest, &[ABSENT]).await?.is(201)?;
    push(at, &digest, &manifest, &[ABSENT])
        .await?
        .refuses(412, "DENIED")?;
    let own = entity_tag(&manifest);
    push(at, &digest, &manifest, &[("If-Match", &own)])
        .await?
        .is(201)?;
    Ok(())
}

/// RFC 9110, sections 8.8.3 and 13.1: a malformed condition of a change is an error rather than
/// ignored.
async fn a_malformed_condition_is_400(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    for name in ["If-Match", "If-None-Match"] {
        for malformed in ["", "x", &digest, "\"x", "*, \"x\"", "\"x\" \"y\""] {
            let refused = push(at, "1", &manifest, &[(name, malformed)]).await?;
            refused.refuses(400, "UNSUPPORTED")?;
        }
    }
    at.get(&at.path("manifests/1")).await?.is(404)?;
    Ok(())
}

/// RFC 9110, section 13.1.1: a tag, a manifest or a blob is deleted only if it matches the
/// condition; section 13.2.1: missing content is 404 whatever the condition.
async fn a_delete_honours_its_condition(at: &Check) -> Result<()> {
    let manifest = at.tagged("1", 1).await?;
    let digest = content::digest(manifest.as_bytes());
    let blob = at.push(b"blob").await?;
    let own_blob = format!("\"{blob}\"");
    let own = entity_tag(&manifest);
    let other = entity_tag("other");
    for (path, own) in [
        (at.path("manifests/1"), &own),
        (at.path(&format!("manifests/{digest}")), &own),
        (at.path(&format!("blobs/{blob}")), &own_blob),
    ] {
        let refused = at
            .send("DELETE", &path, &[("If-Match", &other)], b"")
            .await?;
        refused.refuses(412, "DENIED")?;
        at.get(&path).await?.is(200)?;
        let own = [("If-Match", own.as_str())];
        at.send("DELETE", &path, &own, b"").await?.is(202)?;
        at.send("DELETE", &path, &own, b"").await?.is(404)?;
    }
    Ok(())
}
