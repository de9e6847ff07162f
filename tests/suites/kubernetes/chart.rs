//! The Helm chart, rendered by Helm: good values give valid objects, wrong ones are refused, and its README
//! has all of them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use harness::{kubernetes, tools};
use serde_json::Value;
use tempfile::TempDir;

use super::{examples, files, links};

fn chart() -> PathBuf {
    examples().join("kubernetes/helm/octoserve")
}

#[tokio::test]
async fn helm_renders_each_set_of_values_to_objects_that_are_valid() -> Result<()> {
    let directory = chart();
    let lint = directory.to_str().context("a path of UTF-8")?;
    let values = files(&directory.join("ci"))?;
    ensure!(values.len() >= 4, "{values:?}");
    let mut sets = Vec::new();
    for path in &values {
        let path = path.to_str().context("a path of UTF-8")?;
        kubernetes::helm(&["lint", "--strict", "--values", path, lint]).await?;
        sets.push(kubernetes::template(&directory, &["--values", path]).await?);
    }
    for (path, problems) in values.iter().zip(super::problems(&sets).await?) {
        ensure!(problems.is_empty(), "{}: {problems:#?}", path.display());
    }
    let kinds: Vec<_> = sets
        .iter()
        .flatten()
        .map(|object| links::text(&object["kind"]))
        .collect();
    for kind in [
        "ConfigMap",
        "Deployment",
        "HTTPRoute",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    ] {
        ensure!(kinds.contains(&kind), "no set of values makes a {kind}");
    }
    // Without a tag of the user's, it is the version that the chart comes with.
    let image = format!("octoserve:{}", env!("CARGO_PKG_VERSION"));
    let images = links::workloads(&sets[0]);
    let images: Vec<_> = images
        .iter()
        .flat_map(|workload| links::containers(workload.spec))
        .map(|container| links::text(&container["image"]))
        .collect();
    assert_eq!(images, [&*image, &*image]);
    // The notes are a template, too.
    let install = ["install", "release", lint, "--dry-run=client"];
    let notes = kubernetes::helm(&install).await?;
    ensure!(
        notes.contains("service/release-octoserve-metrics 5001"),
        "{notes}"
    );
    Ok(())
}

#[tokio::test]
async fn helm_adds_all_dashboards_and_rules_of_the_mixin() -> Result<()> {
    let set = [
        "--set",
        "metrics.dashboards.enabled=true,metrics.prometheusRule.enabled=true",
    ];
    let objects = kubernetes::template(&chart(), &set).await?;
    for path in files(&examples().join("mixin/dashboards"))? {
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name")?;
        let content = std::fs::read_to_string(&path)?;
        let is_there = objects
            .iter()
            .any(|object| object["data"][file] == content.as_str());
        ensure!(is_there, "{file}");
    }
    let rule = objects
        .iter()
        .find(|object| object["kind"] == "PrometheusRule");
    let groups: Vec<_> = links::list(&rule.context("no rules")?["spec"]["groups"]).collect();
    for directory in ["rules", "alerts"] {
        for path in files(&examples().join("mixin").join(directory))? {
            for file in kubernetes::objects(&std::fs::read_to_string(&path)?)? {
                for group in links::list(&file["groups"]) {
                    ensure!(
                        groups.contains(&group),
                        "{}: {}",
                        path.display(),
                        group["name"]
                    );
                }
            }
        }
    }
    Ok(())
}

/// The addresses of the runbooks in the rules of these objects.
fn runbooks(objects: &[Value]) -> Vec<&str> {
    let rules = objects
        .iter()
        .filter(|object| object["kind"] == "PrometheusRule")
        .flat_map(|object| links::list(&object["spec"]["groups"]))
        .flat_map(|group| links::list(&group["rules"]));
    let urls = rules.filter_map(|rule| rule["annotations"]["runbook_url"].as_str());
    urls.collect()
}

#[tokio::test]
async fn helm_puts_an_address_before_each_runbook() -> Result<()> {
    let rule = "metrics.prometheusRule.enabled=true";
    let plain = kubernetes::template(&chart(), &["--set", rule]).await?;
    let prefix = "https://git.example/octoserve/";
    let set = format!("{rule},metrics.prometheusRule.runbookUrlPrefix={prefix}");
    let prefixed = kubernetes::template(&chart(), &["--set", &set]).await?;
    let plain = runbooks(&plain);
    ensure!(plain.len() >= 15, "{plain:?}");
    let expected: Vec<_> = plain.iter().map(|url| format!("{prefix}{url}")).collect();
    assert_eq!(runbooks(&prefixed), expected);
    Ok(())
}

/// In the archive are copies of what the chart links to, and it renders to the same.
#[tokio::test]
async fn helm_packs_what_the_chart_links_to() -> Result<()> {
    let (directory, chart) = (TempDir::new()?, chart());
    let source = chart.to_str().context("a path of UTF-8")?;
    let target = directory.path().to_str().context("a path of UTF-8")?;
    kubernetes::helm(&["package", source, "--destination", target]).await?;
    let [archive] = &files(directory.path())?[..] else {
        bail!("not one archive");
    };
    let archive = archive.to_str().context("a path of UTF-8")?;
    tools::run("tar", &["-xzf", archive, "-C", target]).await?;
    let unpacked = directory.path().join("octoserve");
    for link in ["rules", "alerts", "dashboards"] {
        ensure!(
            !std::fs::symlink_metadata(unpacked.join(link))?.is_symlink(),
            "{link}"
        );
        for path in files(&examples().join("mixin").join(link))? {
            let copy = unpacked
                .join(link)
                .join(path.file_name().context("a name")?);
            assert_eq!(
                std::fs::read(&copy)?,
                std::fs::read(&path)?,
                "{}",
                copy.display()
            );
        }
    }
    let set = [
        "--set",
        "metrics.dashboards.enabled=true,metrics.prometheusRule.enabled=true",
    ];
    let packed = kubernetes::template(archive.as_ref(), &set).await?;
    assert_eq!(packed, kubernetes::template(&chart, &set).await?);
    Ok(())
}

#[tokio::test]
async fn helm_refuses_wrong_values() -> Result<()> {
    for (set, said) in [
        ("replicas=2", "'replicas' not allowed"),
        ("image.repo=x", "'repo' not allowed"),
        ("image.repository=a:b", "does not match pattern"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("replicaCount=two", "/replicaCount"),
        ("replicaCount=2", "/replicaCount"),
        (
            "replicaCount=2,persistence.enabled=false",
            "set config.upstreams for a proxy",
        ),
        ("persistence.size=big", "/persistence/size"),
        ("persistence.accessModes={Once}", "/persistence/accessModes"),
        ("service.port=70000", "/service/port"),
        ("service.type=External", "/service/type"),
        ("config.listen=5", "/config/listen"),
        ("config.upstreams=registry", "/config/upstreams"),
        ("ingress.enabled=true", "/ingress/hosts"),
        ("httproute.enabled=true", "/httproute/parentRefs"),
        (
            "metrics.serviceMonitor.interval=30",
            "/metrics/serviceMonitor/interval",
        ),
        (
            "metrics.serviceMonitor.basicAuth.username=x",
            "/basicAuth/username",
        ),
        ("metrics.serviceMonitor.enable=true", "'enable' not allowed"),
        (
            "metrics.prometheusRule.runbookUrlPrefix=docs",
            "/prometheusRule/runbookUrlPrefix",
        ),
        (
            "podDisruptionBudget.maxUnavailable=most",
            "/podDisruptionBudget/maxUnavailable",
        ),
        ("preStopSeconds=0", "/preStopSeconds"),
        ("existingSecret=My_Secret", "/existingSecret"),
    ] {
        match kubernetes::template(&chart(), &["--set", set]).await {
            Ok(_) => bail!("{set} is accepted"),
            Err(error) => {
                let error = format!("{error:#}");
                ensure!(error.contains(said), "{set}: {said:?} is not in {error}");
            }
        }
    }
    Ok(())
}

/// The comments of values.yaml, which begin with `# --`, as the rows of a table.
fn documented(values: &str) -> Vec<String> {
    let (mut rows, mut path, mut comment) = (Vec::new(), Vec::new(), None);
    for line in values.lines() {
        let text = line.trim_start();
        if let Some(words) = text.strip_prefix("# -- ") {
            comment = Some(words);
        } else if let Some((key, default)) = text.split_once(':')
            && key.chars().all(|c| c.is_ascii_alphanumeric())
        {
            path.truncate((line.len() - text.len()) / 2);
            path.push(key);
            if let Some(words) = comment.take() {
                let default = match default.trim() {
                    "" => "see values.yaml".to_owned(),
                    default => format!("`{default}`"),
                };
                rows.push(format!("| `{}` | {default} | {words} |", path.join(".")));
            }
        }
    }
    rows
}

#[tokio::test]
async fn the_readme_has_all_values() -> Result<()> {
    let values = std::fs::read_to_string(chart().join("values.yaml"))?;
    let rows = documented(&values);
    ensure!(rows.len() > 50, "{rows:?}");
    let readme = std::fs::read_to_string(chart().join("README.md"))?;
    let found: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(
        found,
        rows,
        "README.md of the chart; its table should be\n{}",
        rows.join("\n")
    );
    // Every value has a comment, its own or that of what it is part of.
    for values in kubernetes::objects(&values)? {
        for (key, value) in values.as_object().into_iter().flatten() {
            let (own, part) = (format!("| `{key}` "), format!("| `{key}."));
            let is_documented = rows
                .iter()
                .any(|row| row.starts_with(&own) || row.starts_with(&part));
            ensure!(is_documented, "{key}: {value} has no comment");
        }
    }
    Ok(())
}
