//! examples/kubernetes, without a cluster: kustomize and Helm render it, the schemas of the API and our own
//! rules judge what they rendered, and our programs read the configuration that each pod would mount.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::{kubernetes, tools};
use serde_json::{Value, json};

mod chart;
mod links;
mod programs;

use self::programs::Programs;

/// Overlays that are complete by themselves.
const OVERLAYS: [&str; 3] = ["standalone", "sidecar", "proxies"];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

async fn overlay(name: &str) -> Result<Vec<Value>> {
    let directory = examples().join("kubernetes/overlays").join(name);
    kubernetes::kustomize(&directory).await
}

/// What is wrong with each set, by the schemas, among the objects, and by our programs.
async fn problems(sets: &[Vec<Value>]) -> Result<Vec<Vec<String>>> {
    let schemas =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/kubernetes/custom.schemas.json");
    let mut problems = kubernetes::validate(sets, &schemas).await?;
    let programs = Programs::start().await?;
    for (found, set) in problems.iter_mut().zip(sets) {
        found.extend(links::problems(set));
        found.extend(programs.problems(set).await?);
    }
    Ok(problems)
}

#[tokio::test]
async fn each_overlay_is_valid_fits_together_and_is_read_by_the_programs() -> Result<()> {
    let mut sets = Vec::new();
    for name in OVERLAYS {
        let mut set = overlay(name).await?;
        ensure!(set.len() >= 8, "{name}: {} objects", set.len());
        // It stands beside each of them.
        set.extend(overlay("monitoring").await?);
        sets.push(set);
    }
    for (name, problems) in OVERLAYS.iter().zip(problems(&sets).await?) {
        ensure!(problems.is_empty(), "{name}: {problems:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_component_adds_the_password_of_the_metrics_to_each_overlay() -> Result<()> {
    let kubernetes = examples().join("kubernetes").canonicalize()?;
    let directory = tempfile::tempdir()?;
    let mut sets = Vec::new();
    for name in OVERLAYS {
        // As a user's own kustomization takes in ours; kustomize wants relative paths.
        let root = "../".repeat(directory.path().canonicalize()?.components().count() - 1);
        let at = format!("{root}{}", kubernetes.strip_prefix("/")?.display());
        let kustomization = format!(
            "resources: ['{at}/overlays/{name}']\ncomponents: ['{at}/components/metrics-password']\n"
        );
        std::fs::write(directory.path().join("kustomization.yaml"), kustomization)?;
        sets.push(kubernetes::kustomize(directory.path()).await?);
    }
    for (set, problems) in sets.iter().zip(problems(&sets).await?) {
        ensure!(problems.is_empty(), "{problems:#?}");
        let octoserve = set.iter().find(|object| object["kind"] == "Deployment");
        let octoserve = octoserve.context("no deployment")?.to_string();
        ensure!(octoserve.contains("OCTOSERVE_METRICS_BASIC_AUTH_PASSWORD_FILE"));
    }
    Ok(())
}

/// A mistake: what it changes, and what a problem then says.
type Mistake = (&'static str, fn(&mut Value), &'static str);

/// Each is made in the overlay `proxies` beside `monitoring`, in every object of that kind and name.
const MISTAKES: &[(&str, &str, Mistake)] = &[
    (
        "Service",
        "octoserve",
        (
            "a selector",
            |o| o["spec"]["selector"] = json!({"app": "octoserve"}),
            "selects no pod",
        ),
    ),
    (
        "Service",
        "octoserve",
        (
            "a port",
            |o| o["spec"]["ports"][0]["targetPort"] = json!("web"),
            "octoserve has no port \"web\"",
        ),
    ),
    (
        "Service",
        "octoserve-metrics",
        (
            "the name that is scraped",
            |o| o["spec"]["ports"][0]["name"] = json!("prom"),
            "service octoserve-metrics has no port \"metrics\"",
        ),
    ),
    (
        "PodDisruptionBudget",
        "octoserve",
        (
            "a selector",
            |o| o["spec"]["selector"]["matchLabels"] = json!({"app": "x"}),
            "selects no pod",
        ),
    ),
    (
        "NetworkPolicy",
        "octoserve-registry",
        (
            "a port",
            |o| o["spec"]["ingress"][0]["ports"][0]["port"] = json!("https"),
            "has no port \"https\"",
        ),
    ),
    (
        "ServiceMonitor",
        "octoserve",
        (
            "a selector",
            |o| o["spec"]["selector"]["matchLabels"] = json!({"app": "x"}),
            "selects no service",
        ),
    ),
    (
        "ServiceMonitor",
        "octoserve",
        (
            "an unknown field",
            |o| o["spec"]["endpoints"][0]["passwordFile"] = json!("x"),
            "passwordFile",
        ),
    ),
    (
        "PrometheusRule",
        "octoserve",
        (
            "an unknown field",
            |o| o["spec"]["groups"][0]["rules"][0]["query"] = json!("up"),
            "query",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "an unknown field",
            |o| o["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = json!({}),
            "livenesProbe",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "an image's key",
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["image"] = json!({"repository": "octoserve"});
            },
            "containers[0].image",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "a probe's path",
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["livenessProbe"]["httpGet"]["path"] = json!("/healthz");
            },
            "the probe /healthz responds 404",
        ),
    ),
    (
        "StatefulSet",
        "octoserve-registry",
        (
            "a probe's port",
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["readinessProbe"]["httpGet"]["port"] = json!("admin");
            },
            "has no port \"admin\"",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "a port's number",
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["ports"][1]["containerPort"] = json!(9090);
            },
            "metrics is 9090 for the pod, and \"0.0.0.0:5001\" for octoserve",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "too little time",
            |o| o["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(30),
            "30 s are not enough for 5 s and a drain of 30s",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "service links",
            |o| o["spec"]["template"]["spec"]["enableServiceLinks"] = json!(true),
            "wrong enableServiceLinks",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "root",
            |o| o["spec"]["template"]["spec"]["securityContext"]["runAsUser"] = json!(0),
            "wrong runAsUser",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "a volume",
            |o| {
                let spec = &mut o["spec"]["template"]["spec"];
                spec["volumes"][0]["configMap"]["name"] = json!("octoserve");
            },
            "there is no ConfigMap \"octoserve\"",
        ),
    ),
    (
        "Deployment",
        "octoserve",
        (
            "a variable of a service",
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["env"] =
                    json!([{"name": "OCTOSERVE_PORT", "value": "tcp://10.0.0.1:5000"}]);
            },
            "OCTOSERVE_PORT: unknown variable",
        ),
    ),
    (
        "StatefulSet",
        "octoserve-registry",
        (
            "data on no volume",
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["volumeMounts"][2]["mountPath"] = json!("/var/lib/registry");
            },
            "/data is on no volume",
        ),
    ),
];

#[tokio::test]
async fn a_mistake_in_any_object_is_found() -> Result<()> {
    let mut sound = overlay("proxies").await?;
    sound.extend(overlay("monitoring").await?);
    let mut sets = Vec::new();
    for (kind, name, (what, mistake, _)) in MISTAKES {
        let mut set = sound.clone();
        let object = set
            .iter_mut()
            .find(|object| object["kind"] == *kind && links::name(object) == *name);
        mistake(object.with_context(|| format!("{what}: no {kind} {name}"))?);
        sets.push(set);
    }
    for ((kind, name, (what, _, said)), problems) in MISTAKES.iter().zip(problems(&sets).await?) {
        let is_found = problems.iter().any(|problem| problem.contains(said));
        ensure!(
            is_found,
            "{kind} {name}, {what}: {said:?} is not in {problems:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_the_program_refuses_is_found() -> Result<()> {
    let mut set = overlay("sidecar").await?;
    let maps = set
        .iter_mut()
        .filter(|object| object["kind"] == "ConfigMap");
    for map in maps {
        let text = links::text(&map["data"]["octoserve.yaml"]).replace("upstreams:", "upstream:");
        map["data"]["octoserve.yaml"] = json!(text);
    }
    let problems = problems(&[set]).await?.concat();
    let is_found = problems
        .iter()
        .any(|problem| problem.contains("octoserve.yaml:5: upstream: unknown key"));
    ensure!(is_found, "{problems:#?}");
    Ok(())
}

/// What monitoring.sh writes of the mixin is what is there, and has all of it.
#[tokio::test]
async fn the_rules_and_the_dashboards_are_those_of_the_mixin() -> Result<()> {
    let copy = tempfile::tempdir()?;
    let copied = copy.path().join("examples");
    let (from, to) = (examples().canonicalize()?, copied.display().to_string());
    tools::run("cp", &["-a", &from.to_string_lossy(), &to]).await?;
    let script = from.join("kubernetes/monitoring.sh");
    tools::run("sh", &[script.to_str().context("a path of UTF-8")?, &to]).await?;
    for file in [
        "kubernetes/overlays/monitoring/prometheusrule.yaml",
        "mixin/kustomization.yaml",
    ] {
        let [written, committed] =
            [&copied, &from].map(|at| std::fs::read_to_string(at.join(file)));
        ensure!(
            written? == committed?,
            "{file}: run examples/kubernetes/monitoring.sh"
        );
    }

    let objects = overlay("monitoring").await?;
    let rule = objects
        .iter()
        .find(|object| object["kind"] == "PrometheusRule");
    let mut groups: Vec<_> = links::list(&rule.context("no rules")?["spec"]["groups"]).collect();
    let mut expected = Vec::new();
    for directory in ["rules", "alerts"] {
        for path in files(&from.join("mixin").join(directory))? {
            for file in kubernetes::objects(&std::fs::read_to_string(path)?)? {
                expected.extend(links::list(&file["groups"]).cloned());
            }
        }
    }
    ensure!(!expected.is_empty(), "the mixin has no rules");
    let by_name = |group: &&Value| links::text(&group["name"]).to_owned();
    groups.sort_by_key(by_name);
    expected.sort_by_key(|group| by_name(&group));
    assert_eq!(groups, expected.iter().collect::<Vec<_>>());

    let dashboards = files(&from.join("mixin/dashboards"))?;
    let maps = objects
        .iter()
        .filter(|object| object["kind"] == "ConfigMap");
    let maps: Vec<_> = maps.collect();
    assert_eq!(maps.len(), dashboards.len());
    for path in dashboards {
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a name")?;
        let content = std::fs::read_to_string(&path)?;
        let map = maps
            .iter()
            .find(|map| map["data"][file] == content.as_str());
        let map = map.with_context(|| format!("no ConfigMap has {file}"))?;
        assert_eq!(
            map["metadata"]["labels"]["grafana_dashboard"], "1",
            "{file}"
        );
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut files: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}
