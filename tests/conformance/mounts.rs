//! Mounts of blobs from another repository (end-11; section Mounting a blob from another
//! repository).

use anyhow::Result;
use harness::content;

use super::check::{Check, OCTETS, with};

clauses![
    a_blob_is_mounted_from_a_repository_that_has_it,
    a_mount_of_sha512_is_a_blob,
    a_mount_of_a_missing_blob_opens_a_session,
    a_mount_from_a_repository_without_it_opens_a_session,
    a_mounted_blob_outlives_its_source,
    a_mount_of_a_blob_already_in_the_repository_succeeds;
    ours:
    a_mount_of_a_malformed_digest_opens_a_session,
    a_mount_from_a_malformed_name_opens_a_session,
    a_blob_is_mounted_without_a_named_source,
];

/// The request that mounts into another repository of the clause.
fn mount(at: &Check, digest: &str, from: Option<&str>) -> String {
    let path = format!("/v2/{}/blobs/uploads/?mount={digest}", at.other("into"));
    from.map_or(path.clone(), |from| format!("{path}&from={from}"))
}

/// end-11: 201 and a `Location` that the blob can be pulled from, without sending its bytes.
async fn a_blob_is_mounted_from_a_repository_that_has_it(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 1000);
    let digest = at.push(&bytes).await?;
    let mounted = at.post(&mount(at, &digest, Some(at.repository()))).await?;
    mounted.is(201)?.says("docker-content-digest", &digest)?;
    let location = mounted.location()?;
    at.get(&location).await?.is(200)?.holds(&bytes)?;
    let path = format!("/v2/{}/blobs/{digest}", at.other("into"));
    at.get(&path).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-11: a registry may treat `from` as optional; ours then mounts from any repository.
async fn a_blob_is_mounted_without_a_named_source(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 1000);
    let digest = at.push(&bytes).await?;
    for request in [mount(at, &digest, None), mount(at, &digest, Some(""))] {
        let location = at.post(&request).await?.is(201)?.location()?;
        at.get(&location).await?.is(200)?.holds(&bytes)?;
    }
    Ok(())
}

/// end-11, with another algorithm.
async fn a_mount_of_sha512_is_a_blob(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 1000);
    let digest = content::sha512(&bytes);
    let commit = with(&at.session().await?, &format!("digest={digest}"));
    let octets = [("Content-Type", OCTETS)];
    at.send("PUT", &commit, &octets, &bytes).await?.is(201)?;
    let mounted = at.post(&mount(at, &digest, Some(at.repository()))).await?;
    let location = mounted.is(201)?.location()?;
    at.get(&location).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-11: a blob that cannot be mounted gets 202 and an upload session for it.
async fn a_mount_of_a_missing_blob_opens_a_session(at: &Check) -> Result<()> {
    at.push(&at.bytes(9, 10)).await?;
    for (number, from) in [(1, Some(at.repository())), (2, None)] {
        let bytes = at.bytes(number, 10);
        for digest in [content::digest(&bytes), content::sha512(&bytes)] {
            let started = at.post(&mount(at, &digest, from)).await?;
            let location = started.is(202)?.location()?;
            let commit = with(&location, &format!("digest={digest}"));
            let octets = [("Content-Type", OCTETS)];
            at.send("PUT", &commit, &octets, &bytes).await?.is(201)?;
            let blob = format!("/v2/{}/blobs/{digest}", at.other("into"));
            at.get(&blob).await?.is(200)?.holds(&bytes)?;
        }
    }
    Ok(())
}

/// end-11: a blob is mounted from the repository that the client names, or not at all.
async fn a_mount_from_a_repository_without_it_opens_a_session(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 10)).await?;
    at.push_to(&at.other("beside"), &at.bytes(2, 10)).await?;
    for from in [at.other("beside"), at.other("nowhere")] {
        let started = at.post(&mount(at, &digest, Some(&from))).await?;
        started.is(202)?;
    }
    Ok(())
}

/// end-11: a failed mount opens a session, and a malformed digest is a failure.
async fn a_mount_of_a_malformed_digest_opens_a_session(at: &Check) -> Result<()> {
    for malformed in [
        "sha256:abc",
        "abc",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "",
    ] {
        let started = at
            .post(&mount(at, malformed, Some(at.repository())))
            .await?;
        started.is(202)?.location()?;
    }
    Ok(())
}

/// end-11: the same for a `from` that names no repository, such as one with its registry.
async fn a_mount_from_a_malformed_name_opens_a_session(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 10);
    let digest = at.push(&bytes).await?;
    for malformed in [
        "registry.example.com:5000/team/app",
        "UPPER",
        "..%2f..%2fetc",
        "a//b",
        "a%00b",
    ] {
        let started = at.post(&mount(at, &digest, Some(malformed))).await?;
        let location = started.is(202)?.location()?;
        let commit = with(&location, &format!("digest={digest}"));
        let octets = [("Content-Type", OCTETS)];
        at.send("PUT", &commit, &octets, &bytes).await?.is(201)?;
    }
    Ok(())
}

/// end-10 and end-11: each repository holds its blobs independently.
async fn a_mounted_blob_outlives_its_source(at: &Check) -> Result<()> {
    let bytes = at.bytes(1, 10);
    let digest = at.push(&bytes).await?;
    at.post(&mount(at, &digest, Some(at.repository())))
        .await?
        .is(201)?;
    let source = at.path(&format!("blobs/{digest}"));
    at.delete(&source).await?.is(202)?;
    at.get(&source).await?.is(404)?;
    let mounted = format!("/v2/{}/blobs/{digest}", at.other("into"));
    at.get(&mounted).await?.is(200)?.holds(&bytes)?;
    Ok(())
}

/// end-11: mounting a blob that the repository already has succeeds.
async fn a_mount_of_a_blob_already_in_the_repository_succeeds(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 10)).await?;
    for _ in 0..2 {
        let again = mount(at, &digest, Some(at.repository()));
        at.post(&again).await?.is(201)?;
    }
    Ok(())
}
