//! docker: push, pull by tag and by digest, a mount into a second repository instead of an upload,
//! and a pull of deleted content. The metrics must agree.

use anyhow::{Result, ensure};
use harness::docker::Docker;
use harness::scrape::{Metric, metric};
use reqwest::{Method, StatusCode};

use crate::Front;
use crate::content::{Moved, PUSHED_INDEX, push_index};

#[tokio::test]
async fn docker_works_with_the_embedded_registry() -> Result<()> {
    day_of_an_image(&Front::embedded().await?, 100).await
}

#[tokio::test]
async fn docker_works_with_a_foreign_registry() -> Result<()> {
    day_of_an_image(&Front::foreign().await?, 200).await
}

/// Each test has its own `seed`, so that the shared daemon does not know its layers yet.
async fn day_of_an_image(front: &Front, seed: u64) -> Result<()> {
    let docker = Docker::shared().await?;
    let (base, web) = (
        front.image("team/app/base:1"),
        front.image("team/app/web:1"),
    );
    docker.image(&base, None, seed).await?;
    docker.image(&web, Some(&base), seed + 1).await?;
    let id = docker.id(&web).await?;

    docker.run(&["push", &web]).await?;
    requests("manifest", "PUT", "201")
        .value(1)
        .assert_in(&front.server)
        .await?;
    // Two layers and the configuration.
    requests("upload_session", "PUT", "201")
        .value(3)
        .assert_in(&front.server)
        .await?;

    let digest = docker.digest(&web).await?;
    docker.forget(&[&web, &base]).await?;
    docker.run(&["pull", &web]).await?;
    assert_eq!(docker.id(&web).await?, id, "another image came back by tag");
    requests("blob", "GET", "200")
        .value(3)
        .assert_in(&front.server)
        .await?;

    let by_digest = front.image(&format!("team/app/web@{digest}"));
    docker.forget(&[&web]).await?;
    docker.run(&["pull", &by_digest]).await?;
    assert_eq!(
        docker.id(&by_digest).await?,
        id,
        "another image came back by digest"
    );
    requests("blob", "GET", "200")
        .value(6)
        .assert_in(&front.server)
        .await?;

    // The daemon remembers the layers' repository and requests a mount of each.
    let copy = front.image("team/copy:1");
    docker.run(&["tag", &by_digest, &copy]).await?;
    docker.run(&["push", &copy]).await?;
    requests("upload_start", "POST", "201")
        .value(2)
        .assert_in(&front.server)
        .await?;

    let manifest = format!("/v2/team/app/web/manifests/{digest}");
    let deleted = front
        .client
        .send(Method::DELETE, &manifest, &[], "")
        .await?;
    ensure!(
        deleted.status() == StatusCode::ACCEPTED,
        "DELETE: {}",
        deleted.status()
    );
    docker.forget(&[&by_digest, &copy]).await?;
    let gone = docker.run(&["pull", &web]).await;
    let error = gone
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        error.contains("manifest unknown") || error.contains("not found"),
        "{error}"
    );
    docker.run(&["pull", &copy]).await?;
    assert_eq!(docker.id(&copy).await?, id, "the copy did not survive");
    docker.forget(&[&copy]).await?;
    requests("manifest", "DELETE", "202")
        .value(1)
        .assert_in(&front.server)
        .await?;
    metric("octoserve_http_requests_in_flight")
        .value(0)
        .assert_in(&front.server)
        .await
}

#[tokio::test]
async fn each_docker_image_counts_as_one_pull_or_push() -> Result<()> {
    let front = Front::embedded().await?;
    let docker = Docker::shared().await?;
    let base = front.image("team/own/base:1");
    let (first, second) = (front.image("team/own/web:1"), front.image("team/own/web:2"));
    docker.image(&base, None, 300).await?;
    docker.image(&first, Some(&base), 301).await?;
    docker.image(&second, Some(&base), 302).await?;
    docker.run(&["push", &first]).await?;
    docker.run(&["push", &second]).await?;
    // The layer of the base already exists when the second image is pushed.
    let mut moved = Moved {
        push: 2,
        blob_push: 3 + 2,
        ..Moved::default()
    };
    moved.assert_in(&front, "team/own/web").await?;
    let digest = docker.digest(&second).await?;
    let by_digest = front.image(&format!("team/own/web@{digest}"));
    // Two images, because the daemon may keep the manifest of a removed image.
    docker.forget(&[&first, &second, &base]).await?;
    for name in [&first, &by_digest] {
        docker.run(&["pull", name]).await?;
        moved.pull += 1;
        moved.blob_pull += 3;
        moved.assert_in(&front, "team/own/web").await?;
        // It already has everything, including the manifest, and only resolves the tag.
        docker.run(&["pull", name]).await?;
        moved.assert_in(&front, "team/own/web").await?;
        docker.forget(&[name]).await?;
    }

    push_index(&front, "team/own/multi", 310).await?;
    let multi = front.image("team/own/multi:1");
    let platform = "--platform=linux/amd64";
    docker.run(&["pull", platform, &multi]).await?;
    let moved = Moved {
        index_pull: 1,
        pull: 1,
        blob_pull: 3,
        ..PUSHED_INDEX
    };
    moved.assert_in(&front, "team/own/multi").await?;
    docker.forget(&[&multi]).await
}

fn requests(endpoint: &str, method: &str, status: &str) -> Metric {
    metric("octoserve_http_requests_total")
        .label("endpoint", endpoint)
        .label("method", method)
        .label("status", status)
}
