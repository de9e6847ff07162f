//! Monolithic uploads of blobs (end-4a, end-4b, end-6; section Pushing a blob monolithically).

use anyhow::{Result, ensure};
use harness::content;
use harness::wire::{self, Wire};

use super::check::{Check, NOTHING, OCTETS, with};

clauses![
    each_session_has_a_location_of_its_own,
    a_post_and_a_put_make_a_blob,
    a_single_post_makes_a_blob,
    a_blob_is_pushed_by_sha512,
    a_single_post_accepts_sha512,
    an_empty_blob_is_pushed,
    a_put_of_unknown_length_is_accepted,
    a_single_post_of_unknown_length_is_accepted,
    a_blob_may_be_pushed_again,
    a_wrong_digest_is_refused,
    an_unsupported_algorithm_is_refused,
    a_malformed_digest_is_refused,
    a_commit_without_a_digest_is_refused,
    a_committed_session_is_gone,
    a_client_may_expect_100_continue;
    ours:
    every_location_is_relative,
    a_refused_single_post_leaves_no_blob,
];

/// end-4a, POST then PUT: 202 and a `Location`, which identifies the session.
async fn each_session_has_a_location_of_its_own(at: &Check) -> Result<()> {
    let (one, two) = (at.session().await?, at.session().await?);
    ensure!(one != two, "two sessions at {one}");
    let uuid = |part: &str| {
        part.len() == 36
            && part.split('-').map(str::len).eq([8, 4, 4, 4, 12])
            && part.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
    };
    for location in [one, two] {
        ensure!(
            location.split(['/', '?', '&', '=']).any(uuid),
            "no UUID in {location}"
        );
    }
    Ok(())
}

/// end-6, POST then PUT: 201 and a `Location` that the blob can be pulled from.
async fn a_post_and_a_put_make_a_blob(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 10_000);
    let digest = content::digest(&bytes);
    let commit = with(&at.session().await?, &format!("digest={digest}"));
    let octets = [("Content-Type", OCTETS)];
    let made = at.send("PUT", &commit, &octets, &bytes).await?;
    made.is(201)?.says("docker-content-digest", &digest)?;
    let location = made.location()?;
    at.get(&location).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-4b, Single POST: 201 and a `Location` that the blob can be pulled from.
async fn a_single_post_makes_a_blob(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 10_000);
    let digest = content::digest(&bytes);
    single_post(at, &digest, &bytes).await
}

/// end-4c and end-6: the algorithm may be named when the session is opened, or not at all.
async fn a_blob_is_pushed_by_sha512(at: &Check) -> Result<()> {
    let start = at.path("blobs/uploads/");
    for (number, start) in [
        (1, start.clone()),
        (2, with(&start, "digest-algorithm=sha512")),
    ] {
        let bytes = at.bytes(number, 1000);
        let digest = content::sha512(&bytes);
        let location = at.post(&start).await?.is(202)?.location()?;
        let commit = with(&location, &format!("digest={digest}"));
        let octets = [("Content-Type", OCTETS)];
        let made = at.send("PUT", &commit, &octets, &bytes).await?;
        made.is(201)?.says("docker-content-digest", &digest)?;
        let location = made.location()?;
        at.get(&location).await?.is(200)?.holds(&bytes)?;
    }
    Ok(())
}

/// end-4b, Single POST, with another algorithm.
async fn a_single_post_accepts_sha512(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 1000);
    single_post(at, &content::sha512(&bytes), &bytes).await
}

/// end-4b and end-6: a blob may be empty.
async fn an_empty_blob_is_pushed(at: &Check) -> Result<()> {
    let digest = content::digest(b"");
    let commit = with(&at.session().await?, &format!("digest={digest}"));
    at.send("PUT", &commit, &[], b"").await?.is(201)?;
    let elsewhere = format!("/v2/{}/blobs/uploads/", at.other("single"));
    let post = with(&elsewhere, &format!("digest={digest}"));
    at.post(&post).await?.is(201)?;
    Ok(())
}

/// end-6, and RFC 9112 (section 7.1): a body may use chunked transfer coding, without a length.
async fn a_put_of_unknown_length_is_accepted(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 5000);
    let digest = content::digest(&bytes);
    let commit = with(&at.session().await?, &format!("digest={digest}"));
    let (one, two) = bytes.split_at(1234);
    let made = at.stream("PUT", &commit, &[], &[one, two]).await?;
    let location = made.is(201)?.location()?;
    at.get(&location).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-4b, and RFC 9112 (section 7.1), like the test above.
async fn a_single_post_of_unknown_length_is_accepted(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 5000);
    let digest = content::digest(&bytes);
    let post = with(&at.path("blobs/uploads/"), &format!("digest={digest}"));
    let (one, two) = bytes.split_at(1234);
    let made = at.stream("POST", &post, &[], &[one, two]).await?;
    let location = made.is(201)?.location()?;
    at.get(&location).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// Use case "Layer Upload De-duplication": existing content is accepted again.
async fn a_blob_may_be_pushed_again(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 100);
    let digest = at.push(&bytes).await?;
    at.push(&bytes).await?;
    let blob = at.get(&at.path(&format!("blobs/{digest}"))).await?;
    blob.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-6, Pushing blobs: a digest that does not match the content is 400, and no blob is created.
async fn a_wrong_digest_is_refused(at: &Check) -> Result<()> {
    at.push(&at.bytes(2, 10)).await?;
    let other512 = content::sha512(b"other");
    for wrong in [NOTHING, &other512] {
        let commit = with(&at.session().await?, &format!("digest={wrong}"));
        let octets = [("Content-Type", OCTETS)];
        let refused = at.send("PUT", &commit, &octets, &at.bytes(1, 10)).await?;
        refused.refuses(400, "DIGEST_INVALID")?;
        at.get(&at.path(&format!("blobs/{wrong}"))).await?.is(404)?;
    }
    Ok(())
}

/// end-4b, Single POST: the same; neither the claimed nor the true digest names a blob.
async fn a_refused_single_post_leaves_no_blob(at: &Check) -> Result<()> {
    at.push(&at.bytes(2, 10)).await?;
    let bytes = at.bytes(1, 10);
    let post = with(&at.path("blobs/uploads/"), &format!("digest={NOTHING}"));
    let refused = at.send("POST", &post, &[("Content-Type", OCTETS)], &bytes);
    refused.await?.refuses(400, "DIGEST_INVALID")?;
    for digest in [NOTHING, &content::digest(&bytes)] {
        let path = at.path(&format!("blobs/{digest}"));
        at.get(&path).await?.refuses(404, "BLOB_UNKNOWN")?;
    }
    Ok(())
}

/// Pushing blobs: an unsupported algorithm is 400, wherever it appears.
async fn an_unsupported_algorithm_is_refused(at: &Check) -> Result<()> {
    let md5 = "md5:d41d8cd98f00b204e9800998ecf8427e";
    let start = at.path("blobs/uploads/");
    let unknown = at.post(&with(&start, "digest-algorithm=md5")).await?;
    unknown.refuses(400, "DIGEST_INVALID")?;
    let post = with(&start, &format!("digest={md5}"));
    at.post(&post).await?.refuses(400, "DIGEST_INVALID")?;
    let commit = with(&at.session().await?, &format!("digest={md5}"));
    let refused = at.send("PUT", &commit, &[], b"").await?;
    refused.refuses(400, "DIGEST_INVALID")?;
    Ok(())
}

/// Pushing blobs: a malformed digest is 400.
async fn a_malformed_digest_is_refused(at: &Check) -> Result<()> {
    for malformed in ["sha256:abc", "sha256", "abc", "%00", "sha256:..%2f..%2fx"] {
        let commit = with(&at.session().await?, &format!("digest={malformed}"));
        let refused = at.send("PUT", &commit, &[], b"abc").await?;
        refused.refuses(400, "DIGEST_INVALID")?;
    }
    Ok(())
}

/// end-6, Pushing a blob in chunks: the closing PUT must name the digest of the whole blob.
async fn a_commit_without_a_digest_is_refused(at: &Check) -> Result<()> {
    let location = at.session().await?;
    let refused = at.send("PUT", &location, &[], b"abc").await?;
    refused.refuses(400, "DIGEST_INVALID")?;
    Ok(())
}

/// end-6: the commit ends the session.
async fn a_committed_session_is_gone(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 10);
    let location = at.session().await?;
    let commit = with(&location, &format!("digest={}", content::digest(&bytes)));
    at.send("PUT", &commit, &[], &bytes).await?.is(201)?;
    let over = at.get(&location).await?;
    over.refuses(404, "BLOB_UPLOAD_UNKNOWN")?;
    let again = at.send("PUT", &commit, &[], &bytes).await?;
    again.refuses(404, "BLOB_UPLOAD_UNKNOWN")?;
    Ok(())
}

/// RFC 9110, section 10.1.1: a client that expects 100 gets it before it sends its body.
async fn a_client_may_expect_100_continue(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 5000);
    let commit = with(
        &at.session().await?,
        &format!("digest={}", content::digest(&bytes)),
    );
    let request = wire::request("PUT", &commit, &[("Expect", "100-continue")], &bytes);
    let (head, body) = request.split_at(request.len() - bytes.len());
    let mut wire = Wire::connect(at.address()).await?;
    wire.send(head).await?;
    let interim = wire.interim().await?;
    ensure!(interim.status == 100, "{} first", interim.status);
    wire.send(body).await?;
    let made = wire.response("PUT").await?;
    ensure!(made.head.status == 201, "{}", made.head.status);
    Ok(())
}

/// POST then PUT: a location may be absolute or relative. Ours are relative, so that no proxy has
/// to rewrite them.
async fn every_location_is_relative(at: &Check) -> Result<()> {
    let started = at.post(&at.path("blobs/uploads/")).await?;
    let session = started.is(202)?.header("location")?.to_owned();
    let appended = at.send("PATCH", &session, &[], b"abc").await?;
    let found = at.get(&session).await?;
    let commit = with(&session, &format!("digest={}", content::digest(b"abc")));
    let made = at.send("PUT", &commit, &[], b"").await?;
    let mount = format!(
        "/v2/{}/blobs/uploads/?mount={}&from={}",
        at.other("mounted"),
        content::digest(b"abc"),
        at.repository()
    );
    let mounted = at.post(&mount).await?;
    let manifest = at.image(1).await?.to_string();
    let tagged = at.put("1", harness::client::MANIFEST, &manifest).await?;
    for reply in [started, appended, found, made, mounted, tagged] {
        let location = reply.header("location")?;
        ensure!(location.starts_with("/v2/"), "{location}");
    }
    Ok(())
}

async fn single_post(at: &Check, digest: &str, bytes: &[u8]) -> Result<()> {
    let post = with(&at.path("blobs/uploads/"), &format!("digest={digest}"));
    let made = at
        .send("POST", &post, &[("Content-Type", OCTETS)], bytes)
        .await?;
    made.is(201)?.says("docker-content-digest", digest)?;
    let location = made.location()?;
    at.get(&location).await?.is(200)?.holds(bytes)?;
    Ok(())
}
