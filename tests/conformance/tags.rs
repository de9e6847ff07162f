//! Listings of tags and of repositories, page by page (end-8a, end-8b; section Listing Tags).

use anyhow::{Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use serde_json::{Value, json};

use super::check::{CONFIG, Check, Reply};

clauses![
    tags_are_listed_in_order,
    a_page_has_the_requested_number_of_tags,
    a_page_begins_after_the_last_tag,
    last_works_without_n,
    last_need_not_be_a_tag_of_the_repository,
    a_page_larger_than_the_list_has_all_tags,
    the_tags_of_an_unknown_repository_are_404,
    a_head_of_the_tags_has_no_body,
    names_with_a_common_prefix_are_different_repositories,
    the_catalog_lists_repositories_in_order;
    ours:
    links_lead_through_all_tags,
    a_page_of_size_zero_is_empty,
    a_page_size_that_is_not_a_number_is_refused,
    a_repository_without_tags_has_an_empty_list,
    a_hundred_tags_are_listed,
    links_lead_through_the_catalog,
];

/// In the order of their bytes.
const TAGS: [&str; 6] = ["1", "10", "2", "A", "_x", "a.b-c"];

async fn some_tags(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    for tag in TAGS.iter().rev() {
        at.put(tag, MANIFEST, &manifest).await?.is(201)?;
    }
    Ok(())
}

/// Requests a page of tags and checks its format.
async fn page(at: &Check, query: &str) -> Result<(Vec<String>, Reply)> {
    let reply = at.get(&at.path(&format!("tags/list{query}"))).await?;
    let body = reply.is(200)?.json()?;
    ensure!(body["name"] == at.repository(), "{body}");
    Ok((texts(&body["tags"])?, reply))
}

fn texts(list: &Value) -> Result<Vec<String>> {
    Ok(serde_json::from_value(list.clone())?)
}

/// The link to the next page (RFC 8288).
fn next(reply: &Reply) -> Option<String> {
    let link = reply.response.head.header("link")?;
    let target = link.strip_prefix('<')?.split_once('>')?;
    target.1.contains("rel=\"next\"").then(|| {
        let path = target.0.strip_prefix("http://registry");
        path.unwrap_or(target.0).to_owned()
    })
}

/// end-8a: 200, the name and all tags, in byte order.
async fn tags_are_listed_in_order(at: &Check) -> Result<()> {
    some_tags(at).await?;
    let (tags, reply) = page(at, "").await?;
    ensure!(tags == TAGS, "{tags:?}");
    let kind = reply.header("content-type")?;
    ensure!(kind.starts_with("application/json"), "{kind}");
    reply.lacks("link")?;
    Ok(())
}

/// end-8b: with `n`, the first `n` tags.
async fn a_page_has_the_requested_number_of_tags(at: &Check) -> Result<()> {
    some_tags(at).await?;
    for n in 1..=TAGS.len() {
        let (tags, _) = page(at, &format!("?n={n}")).await?;
        ensure!(tags == TAGS[..n], "n={n}: {tags:?}");
    }
    Ok(())
}

/// end-8b: with `last`, the tags after it.
async fn a_page_begins_after_the_last_tag(at: &Check) -> Result<()> {
    some_tags(at).await?;
    for (place, last) in TAGS.iter().enumerate() {
        let (tags, _) = page(at, &format!("?n=2&last={last}")).await?;
        let rest = &TAGS[place + 1..];
        ensure!(tags == rest[..rest.len().min(2)], "after {last}: {tags:?}");
    }
    Ok(())
}

/// end-8b: `n` is optional with `last`.
async fn last_works_without_n(at: &Check) -> Result<()> {
    some_tags(at).await?;
    let (tags, reply) = page(at, "?last=2").await?;
    ensure!(tags == TAGS[3..], "{tags:?}");
    reply.lacks("link")?;
    Ok(())
}

/// end-8b: `last` is a tag's value, not a position: it may have been deleted meanwhile.
async fn last_need_not_be_a_tag_of_the_repository(at: &Check) -> Result<()> {
    some_tags(at).await?;
    let (tags, _) = page(at, "?n=2&last=11").await?;
    ensure!(tags == ["2", "A"], "{tags:?}");
    let (tags, _) = page(at, "?n=2&last=zzz").await?;
    ensure!(tags.is_empty(), "{tags:?}");
    Ok(())
}

/// end-8b: fewer tags than requested only on the last page, which has no `Link`.
async fn a_page_larger_than_the_list_has_all_tags(at: &Check) -> Result<()> {
    some_tags(at).await?;
    for n in [6, 7, 1000] {
        let (tags, reply) = page(at, &format!("?n={n}")).await?;
        ensure!(tags == TAGS, "n={n}: {tags:?}");
        reply.lacks("link")?;
    }
    Ok(())
}

/// end-8b: `Link` with `rel="next"` names the next page, and is absent on the last one.
async fn links_lead_through_all_tags(at: &Check) -> Result<()> {
    some_tags(at).await?;
    for n in 1..=4 {
        let (mut all, mut reply) = page(at, &format!("?n={n}")).await?;
        while let Some(link) = next(&reply) {
            ensure!(link.starts_with(&at.path("tags/list?")), "{link}");
            reply = at.get(&link).await?;
            let tags = texts(&reply.is(200)?.json()?["tags"])?;
            ensure!(!tags.is_empty() && tags.len() <= n, "{tags:?}");
            all.extend(tags);
        }
        ensure!(all == TAGS, "n={n}: {all:?}");
    }
    Ok(())
}

/// end-8b: with `n` zero the list is empty and there must not be a `Link`.
async fn a_page_of_size_zero_is_empty(at: &Check) -> Result<()> {
    some_tags(at).await?;
    for query in ["?n=0", "?n=0&last=1"] {
        let (tags, reply) = page(at, query).await?;
        ensure!(tags.is_empty(), "{query}: {tags:?}");
        reply.lacks("link")?;
    }
    Ok(())
}

/// end-8b: `n` is an integer.
async fn a_page_size_that_is_not_a_number_is_refused(at: &Check) -> Result<()> {
    some_tags(at).await?;
    for n in ["-1", "x", "1.5", "0x10", "%31%00"] {
        for path in [
            at.path(&format!("tags/list?n={n}")),
            format!("/v2/_catalog?n={n}"),
        ] {
            at.get(&path)
                .await?
                .refuses(400, "PAGINATION_NUMBER_INVALID")?;
        }
    }
    let (tags, _) = page(at, "?n=99999999999999999999999").await?;
    ensure!(tags == TAGS, "{tags:?}");
    let (tags, _) = page(at, "?n=").await?;
    ensure!(tags == TAGS, "{tags:?}");
    Ok(())
}

/// end-8a: the list of an existing repository may be empty.
async fn a_repository_without_tags_has_an_empty_list(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    at.put(&digest, MANIFEST, &manifest).await?.is(201)?;
    let (tags, _) = page(at, "").await?;
    ensure!(tags.is_empty(), "{tags:?}");
    Ok(())
}

/// end-8a: 404 for an unknown repository.
async fn the_tags_of_an_unknown_repository_are_404(at: &Check) -> Result<()> {
    let refused = at.get(&at.path("tags/list")).await?;
    refused.refuses(404, "NAME_UNKNOWN")?;
    at.head(&at.path("tags/list")).await?.is(404)?;
    Ok(())
}

/// RFC 9110, section 9.3.2: HEAD is supported wherever GET is.
async fn a_head_of_the_tags_has_no_body(at: &Check) -> Result<()> {
    some_tags(at).await?;
    let get = at.get(&at.path("tags/list")).await?;
    let head = at.head(&at.path("tags/list")).await?;
    head.is(200)?.holds(b"")?;
    head.says("content-length", get.header("content-length")?)?;
    Ok(())
}

/// end-8 and end-9: the name of a repository may be a prefix of another's.
async fn names_with_a_common_prefix_are_different_repositories(at: &Check) -> Result<()> {
    let names: Vec<_> = ["a", "a/b", "a/b/c", "ab", "a-b", "a/tags"]
        .map(|name| at.other(name))
        .into();
    let config = at.bytes(1, 10);
    for (number, name) in names.iter().enumerate() {
        at.push_to(name, &config).await?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": descriptor(CONFIG, &config),
        });
        let path = format!("/v2/{name}/manifests/{number}");
        let headers = [("Content-Type", MANIFEST)];
        let body = manifest.to_string();
        let pushed = at.send("PUT", &path, &headers, body.as_bytes()).await?;
        pushed.is(201)?;
    }
    let gone = format!("/v2/{}/manifests/0", names[0]);
    at.delete(&gone).await?.is(202)?;
    for (number, name) in names.iter().enumerate().skip(1) {
        let tags = at.get(&format!("/v2/{name}/tags/list")).await?;
        let expected = json!({"name": name, "tags": [number.to_string()]});
        ensure!(tags.is(200)?.json()? == expected, "{}", tags.json()?);
        let other = format!("/v2/{name}/manifests/0");
        at.get(&other).await?.refuses(404, "MANIFEST_UNKNOWN")?;
    }
    Ok(())
}

/// end-8: many tags in one listing.
async fn a_hundred_tags_are_listed(at: &Check) -> Result<()> {
    let manifest = at.image(1).await?.to_string();
    let digest = content::digest(manifest.as_bytes());
    let mut expected: Vec<_> = (0..150).map(|number| format!("v{number}")).collect();
    let reference = format!("{digest}?tag={}", expected.join("&tag="));
    at.put(&reference, MANIFEST, &manifest).await?.is(201)?;
    expected.sort();
    let (tags, _) = page(at, "").await?;
    ensure!(tags == expected, "{tags:?}");
    Ok(())
}

/// Promised, like docker-registry: repositories in byte order, after `last`.
async fn the_catalog_lists_repositories_in_order(at: &Check) -> Result<()> {
    let mine: Vec<_> = ["a", "b", "b/c", "d"].map(|name| at.other(name)).into();
    for repository in mine.iter().rev() {
        let bytes = at.bytes(1, 10);
        at.push_to(repository, &bytes).await?;
        // docker-registry lists a repository once it has a manifest.
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": descriptor(CONFIG, &bytes),
        });
        let path = format!("/v2/{repository}/manifests/1");
        let headers = [("Content-Type", MANIFEST)];
        let body = manifest.to_string();
        at.send("PUT", &path, &headers, body.as_bytes())
            .await?
            .is(201)?;
    }
    let path = format!("/v2/_catalog?n=4&last={}", at.repository());
    let found = at.get(&path).await?;
    let found = texts(&found.is(200)?.json()?["repositories"])?;
    ensure!(found == mine, "{found:?}");
    let path = format!("/v2/_catalog?n=2&last={}", mine[1]);
    let found = at.get(&path).await?;
    let found = texts(&found.is(200)?.json()?["repositories"])?;
    ensure!(found == mine[2..], "{found:?}");
    Ok(())
}

/// Promised: a page of the catalog has a `Link` to the next one, too.
async fn links_lead_through_the_catalog(at: &Check) -> Result<()> {
    let mine: Vec<_> = ["a", "b", "c"].map(|name| at.other(name)).into();
    for repository in &mine {
        at.push_to(repository, &at.bytes(1, 10)).await?;
    }
    let mut path = format!("/v2/_catalog?n=1&last={}", at.repository());
    for repository in &mine {
        let reply = at.get(&path).await?;
        let found = texts(&reply.is(200)?.json()?["repositories"])?;
        ensure!(found == [repository.as_str()], "{found:?}");
        // Other tests push too, so more repositories may follow our last one.
        path = next(&reply).unwrap_or_default();
    }
    let none = at.get("/v2/_catalog?n=0").await?;
    none.is(200)?.lacks("link")?;
    ensure!(
        none.json()? == json!({"repositories": []}),
        "{}",
        none.json()?
    );
    Ok(())
}
