//! What our programs say of a set of objects: the configuration that a pod mounts, with the pod's
//! variables, and the probes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use harness::octoserve::{Launch, Program, Server};
use harness::{kubernetes, tools, wire};
use serde_json::Value;
use tempfile::TempDir;

use super::links::{Workload, containers, list, name, text, workloads};

/// Both programs, to ask them for probes.
pub(super) struct Programs {
    octoserve: Server,
    registry: Server,
}

impl Programs {
    /// Starts them.
    pub(super) async fn start() -> Result<Self> {
        Ok(Self {
            octoserve: Launch::all_in_one().metrics_listener().start().await?,
            registry: Launch::registry().start().await?,
        })
    }

    /// What they refuse, in one line each.
    pub(super) async fn problems(&self, objects: &[Value]) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for workload in workloads(objects) {
            for container in containers(workload.spec) {
                let Some(program) = program(container) else {
                    continue;
                };
                let mut found = self.probes(program, container).await?;
                if list(&container["args"]).any(|word| word == "--config") {
                    found.extend(configuration(objects, &workload, container, program).await?);
                }
                let pod = name(workload.object);
                problems.extend(found.into_iter().map(|what| format!("{pod}: {what}")));
            }
        }
        Ok(problems)
    }

    async fn probes(&self, program: Program, container: &Value) -> Result<Vec<String>> {
        let address = match program {
            Program::Octoserve => self.octoserve.metrics_address(),
            Program::Registry => self.registry.metrics_address(),
        };
        let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
        let paths: BTreeSet<_> = probes
            .iter()
            .map(|probe| text(&container[probe]["httpGet"]["path"]))
            .filter(|path| !path.is_empty())
            .collect();
        let mut problems = Vec::new();
        for path in paths {
            let request = wire::request("GET", path, &[], b"");
            let status = wire::exchange(address, "GET", &request).await?.head.status;
            if status != 200 {
                problems.push(format!("the probe {path} responds {status}"));
            }
        }
        Ok(problems)
    }
}

/// Which of our programs a container runs.
fn program(container: &Value) -> Option<Program> {
    let image = text(&container["image"]).rsplit('/').next()?;
    match image.split(':').next()? {
        "octoserve" => Some(Program::Octoserve),
        "octoserve-registry" => Some(Program::Registry),
        _ => None,
    }
}

/// The pod's files in a directory, and its variables, read by the program.
async fn configuration(
    objects: &[Value],
    workload: &Workload<'_>,
    container: &Value,
    program: Program,
) -> Result<Vec<String>> {
    let directory = TempDir::new()?;
    let root = directory.path().to_str().context("a path of UTF-8")?;
    let (mounted, secrets) = mount(objects, workload, container, root)?;

    let mut words = vec!["-i".to_owned()];
    for (variable, value) in image_variables()? {
        words.push(format!("{variable}={value}"));
    }
    for variable in list(&container["env"]) {
        // The value of another object is some word.
        let value = variable["value"].as_str().unwrap_or("word");
        let value = inside(value, &secrets, root)?;
        words.push(format!("{}={value}", text(&variable["name"])));
    }
    words.push(program.path()?.to_string_lossy().into_owned());
    words.push("--print-config".to_owned());
    for word in list(&container["args"]) {
        let word = text(word);
        words.push(if word.starts_with('/') {
            format!("{root}{word}")
        } else {
            word.to_owned()
        });
    }
    let output = tools::attempt("env", &words).await?;
    if !output.status.success() {
        return Ok(vec![
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ]);
    }
    let printed = kubernetes::objects(&String::from_utf8(output.stdout)?)?;
    let printed = printed.first().context("no configuration printed")?;
    Ok(agrees(printed, workload.spec, container, program, &mounted))
}

/// Writes the files that the container mounts below `root`. Where everything is mounted, and where secrets
/// are.
fn mount(
    objects: &[Value],
    workload: &Workload<'_>,
    container: &Value,
    root: &str,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut mounted, mut secrets) = (Vec::new(), Vec::new());
    for mount in list(&container["volumeMounts"]) {
        let path = text(&mount["mountPath"]);
        let target = format!("{root}{path}");
        std::fs::create_dir_all(&target)?;
        let volume = list(&workload.spec["volumes"]).find(|volume| volume["name"] == mount["name"]);
        let Some(volume) = volume else {
            // A claim of a StatefulSet's template.
            mounted.push(path.to_owned());
            continue;
        };
        if !volume["secret"].is_null() {
            secrets.push(path.to_owned());
        } else if volume["configMap"].is_null() {
            mounted.push(path.to_owned());
        }
        let data = objects.iter().find(|object| {
            object["kind"] == "ConfigMap"
                && object["metadata"]["name"] == volume["configMap"]["name"]
        });
        for (file, content) in data
            .and_then(|map| map["data"].as_object())
            .into_iter()
            .flatten()
        {
            std::fs::write(Path::new(&target).join(file), text(content))?;
        }
    }
    // The configuration names the secrets' files.
    for entry in std::fs::read_dir(format!("{root}/etc/octoserve"))? {
        let path = entry?.path();
        let content = inside(&std::fs::read_to_string(&path)?, &secrets, root)?;
        std::fs::write(path, content)?;
    }
    Ok((mounted, secrets))
}

/// The text with each path of a secret's file moved below `root`, where such a file is made.
fn inside(text: &str, secrets: &[String], root: &str) -> Result<String> {
    let mut text = text.to_owned();
    for mount in secrets {
        for (at, _) in text.clone().match_indices(mount.as_str()) {
            let file = text[at..].split(|c: char| c.is_whitespace() || ",'\"}".contains(c));
            let file = file.into_iter().next().unwrap_or_default();
            std::fs::write(
                format!("{root}{file}"),
                "a secret of at least 32 bytes, in a test",
            )?;
        }
        text = text.replace(mount.as_str(), &format!("{root}{mount}"));
    }
    Ok(text)
}

/// The variables that the image sets.
fn image_variables() -> Result<Vec<(String, String)>> {
    let dockerfile = concat!(env!("CARGO_MANIFEST_DIR"), "/../Dockerfile");
    let dockerfile = std::fs::read_to_string(dockerfile)?;
    let lines = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "));
    let variables = lines.flat_map(str::split_ascii_whitespace);
    let variables: Option<Vec<_>> = variables
        .map(|word| word.split_once('='))
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    variables.context("an ENV without a value in the Dockerfile")
}

/// Whether the configuration in effect agrees with the pod: its ports, its time to end, its volumes.
fn agrees(
    printed: &Value,
    spec: &Value,
    container: &Value,
    program: Program,
    mounted: &[String],
) -> Vec<String> {
    let mut problems = Vec::new();
    let address = |value: &Value| match value {
        Value::Object(listener) => text(&listener["address"]).to_owned(),
        other => text(other).to_owned(),
    };
    for (port, listens) in [
        ("http", address(&printed["listen"][0])),
        ("metrics", address(&printed["metrics"]["listen"])),
    ] {
        let number = list(&container["ports"]).find(|has| has["name"] == port);
        let number = number.map_or(&Value::Null, |port| &port["containerPort"]);
        if listens != format!("0.0.0.0:{number}") {
            problems.push(format!(
                "{port} is {number} for the pod, and {listens:?} for octoserve"
            ));
        }
    }
    let hook = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_u64()
        .unwrap_or(0);
    let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    let drain = text(&printed["limits"]["drain"]);
    let seconds = drain
        .strip_suffix('s')
        .and_then(|seconds| seconds.parse::<u64>().ok());
    match seconds {
        Some(seconds) if hook > 0 && hook + seconds < grace => {}
        _ => problems.push(format!(
            "{grace} s are not enough for {hook} s and a drain of {drain}"
        )),
    }
    let stores = printed["upstreams"].as_array().is_none_or(Vec::is_empty);
    let data = match program {
        Program::Octoserve => &printed["registry"]["data"],
        Program::Registry => &printed["data"],
    };
    let socket = Path::new(text(&printed["control"]["socket"])).parent();
    let socket = socket.map(|parent| parent.to_string_lossy().into_owned());
    // The working directory of the images is /.
    let data = stores.then(|| {
        format!(
            "/{}",
            text(data).trim_start_matches("./").trim_start_matches('/')
        )
    });
    for path in [data, socket].into_iter().flatten() {
        if !mounted.contains(&path) {
            problems.push(format!("{path} is on no volume"));
        }
    }
    problems
}
