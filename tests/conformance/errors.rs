//! Refusals: statuses, codes, bodies and headers (section Error Codes, and promises beyond it).

use anyhow::{Result, ensure};
use harness::client::MANIFEST;

use super::check::{Check, NOTHING};

clauses![
    an_error_has_the_format_of_the_specification;
    ours:
    an_unsupported_method_is_405_with_the_allowed_ones,
    an_unknown_method_is_405,
    an_invalid_name_is_refused_at_every_endpoint,
    an_unknown_endpoint_is_404,
    an_invalid_digest_is_refused_at_every_endpoint,
    a_path_with_repeated_slashes_redirects_to_the_clean_path,
    an_invalid_tag_is_reported_as_a_tag,
    the_longest_name_is_accepted,
];

/// Error Codes: a JSON body has `errors`, each with a `code` from the list, in capitals and
/// underscores, and a textual `message`.
async fn an_error_has_the_format_of_the_specification(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    for path in [
        at.path("manifests/unknown"),
        at.path(&format!("manifests/{NOTHING}")),
        at.path(&format!("blobs/{NOTHING}")),
        format!("/v2/{}/tags/list", at.other("unknown")),
        "/v2/UPPER/tags/list".to_owned(),
    ] {
        let refused = at.get(&path).await?;
        let body = refused.json()?;
        let errors = body["errors"].as_array();
        ensure!(errors.is_some_and(|all| !all.is_empty()), "{path}: {body}");
        for error in errors.into_iter().flatten() {
            let code = error["code"].as_str().unwrap_or_default();
            ensure!(
                !code.is_empty() && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
                "{path}: {body}"
            );
            ensure!(error["message"].is_string(), "{path}: {body}");
        }
    }
    Ok(())
}

/// RFC 9110, section 15.5.6: 405 must list the supported methods in `Allow`.
async fn an_unsupported_method_is_405_with_the_allowed_ones(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    let session = at.session().await?;
    let manifest = at.path("manifests/1");
    let blob = at.path(&format!("blobs/{NOTHING}"));
    let referrers = at.path(&format!("referrers/{NOTHING}"));
    let (tags, start) = (at.path("tags/list"), at.path("blobs/uploads/"));
    let read = "GET, HEAD";
    for (path, methods, allowed) in [
        ("/v2/", &["POST", "PUT", "PATCH", "DELETE"][..], read),
        ("/v2/_catalog", &["POST", "PUT", "PATCH", "DELETE"], read),
        (&tags, &["POST", "PUT", "PATCH", "DELETE"], read),
        (&referrers, &["POST", "PUT", "PATCH", "DELETE"], read),
        (&manifest, &["POST", "PATCH"], "GET, HEAD, PUT, DELETE"),
        (&blob, &["POST", "PUT", "PATCH"], "GET, HEAD, DELETE"),
        (&start, &["GET", "HEAD", "PUT", "PATCH", "DELETE"], "POST"),
        (&session, &["POST"], "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        for method in methods {
            let refused = at.send(method, path, &[], b"").await?;
            refused.is(405)?.says("allow", allowed)?;
            if *method != "HEAD" {
                refused.refuses(405, "UNSUPPORTED")?;
            }
        }
    }
    Ok(())
}

/// RFC 9110, section 9.1: an unknown method is not allowed either.
async fn an_unknown_method_is_405(at: &Check) -> Result<()> {
    for method in ["OPTIONS", "BREW", "get"] {
        let refused = at.send(method, "/v2/", &[], b"").await?;
        refused
            .refuses(405, "UNSUPPORTED")?
            .says("allow", "GET, HEAD")?;
    }
    Ok(())
}

/// Error Codes: `NAME_INVALID` at every endpoint.
async fn an_invalid_name_is_refused_at_every_endpoint(at: &Check) -> Result<()> {
    for name in ["UPPER", "-a", "a..b", "a%2fb", "a/../b"] {
        for (method, rest) in [
            ("GET", "tags/list".to_owned()),
            ("GET", "manifests/1".to_owned()),
            ("HEAD", "manifests/1".to_owned()),
            ("PUT", "manifests/1".to_owned()),
            ("DELETE", "manifests/1".to_owned()),
            ("GET", format!("blobs/{NOTHING}")),
            ("DELETE", format!("blobs/{NOTHING}")),
            ("GET", format!("referrers/{NOTHING}")),
            ("POST", "blobs/uploads/".to_owned()),
            ("POST", format!("blobs/uploads/?mount={NOTHING}")),
            ("POST", format!("blobs/uploads/?digest={NOTHING}")),
            ("GET", "blobs/uploads/session".to_owned()),
            ("PATCH", "blobs/uploads/session".to_owned()),
            ("PUT", format!("blobs/uploads/session?digest={NOTHING}")),
            ("DELETE", "blobs/uploads/session".to_owned()),
        ] {
            let path = format!("/v2/{name}/{rest}");
            let headers = [("Content-Type", MANIFEST)];
            let refused = at.send(method, &path, &headers, b"").await?;
            if method == "HEAD" {
                refused.is(400)?.holds(b"")?;
            } else {
                refused.refuses(400, "NAME_INVALID")?;
            }
        }
    }
    Ok(())
}

/// Error Codes: `UNSUPPORTED` for a path that is not an endpoint of the specification.
async fn an_unknown_endpoint_is_404(at: &Check) -> Result<()> {
    for path in [
        "/ui/",
        "/v1/",
        "/v2/name",
        "/v2/_ext/name",
        "/v3/a/tags/list",
        "/favicon.ico",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let refused = at.send(method, path, &[], b"").await?;
            refused.refuses(404, "UNSUPPORTED")?;
        }
    }
    Ok(())
}

/// Like docker-registry: a GET or HEAD with doubled or trailing slashes is redirected.
async fn a_path_with_repeated_slashes_redirects_to_the_clean_path(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    let (tags, manifest) = (at.path("tags/list"), at.path("manifests/1"));
    for (path, clean) in [
        (format!("{tags}/?n=1"), format!("{tags}?n=1")),
        (format!("/{tags}"), tags.clone()),
        (manifest.replace("/v2/", "/v2//"), manifest.clone()),
        ("//v2/_catalog".to_owned(), "/v2/_catalog".to_owned()),
    ] {
        for method in ["GET", "HEAD"] {
            let moved = at.send(method, &path, &[], b"").await?;
            moved.is(301)?.says("location", &clean)?;
        }
        at.get(&clean).await?.is(200)?;
    }
    let put = manifest.replace("/v2/", "/v2//");
    let refused = at
        .send("PUT", &put, &[("Content-Type", MANIFEST)], b"{}")
        .await?;
    refused.refuses(400, "NAME_INVALID")?;
    Ok(())
}

/// Error Codes: the error of a push to an invalid tag is about the tag, not about a digest.
async fn an_invalid_tag_is_reported_as_a_tag(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    for tag in ["1.0.0+build", "1.0.0%2Bbuild"] {
        let refused = at.put(tag, MANIFEST, &manifest).await?;
        refused.refuses(400, "MANIFEST_INVALID")?;
        let unknown = at.get(&at.path(&format!("manifests/{tag}"))).await?;
        unknown.refuses(404, "MANIFEST_UNKNOWN")?;
    }
    Ok(())
}

/// Error Codes: `DIGEST_INVALID` at every endpoint with a digest.
async fn an_invalid_digest_is_refused_at_every_endpoint(at: &Check) -> Result<()> {
    at.tagged("1", 1).await?;
    let short = &NOTHING[..NOTHING.len() - 1];
    let upper = NOTHING.replace('0', "A");
    for digest in [short, &upper, "sha512:00", "sha256:"] {
        for (method, rest) in [("GET", "blobs"), ("DELETE", "blobs"), ("GET", "referrers")] {
            let path = at.path(&format!("{rest}/{digest}"));
            let refused = at.send(method, &path, &[], b"").await?;
            refused.refuses(400, "DIGEST_INVALID")?;
        }
    }
    Ok(())
}

/// Pulling manifests: clients limit a name to 255 characters including the registry's host; our
/// limit is for the name alone.
async fn the_longest_name_is_accepted(at: &Check) -> Result<()> {
    let rest = 255 - at.repository().len() - 1;
    let bytes = at.bytes(1, 10);
    let repository = at.other(&"n".repeat(rest));
    let digest = at.push_to(&repository, &bytes).await?;
    let blob = at.get(&format!("/v2/{repository}/blobs/{digest}")).await?;
    blob.is(200)?.holds(&bytes)?;
    let path = format!("/v2/{repository}n/tags/list");
    at.get(&path).await?.refuses(400, "NAME_INVALID")?;
    Ok(())
}
