//! What no schema sees: whether the objects of one set fit together, and keep our own promises: no root,
//! no writable root file system, time for the drain.

use serde_json::Value;

/// A pod, or what makes pods.
pub(super) struct Workload<'a> {
    pub(super) object: &'a Value,
    labels: &'a Value,
    pub(super) spec: &'a Value,
}

/// Every pod and every template of pods.
pub(super) fn workloads(objects: &[Value]) -> Vec<Workload<'_>> {
    objects.iter().filter_map(Workload::of).collect()
}

impl<'a> Workload<'a> {
    fn of(object: &'a Value) -> Option<Self> {
        let pod = match text(&object["kind"]) {
            "Deployment" | "StatefulSet" => &object["spec"]["template"],
            "Pod" => object,
            _ => return None,
        };
        Some(Self {
            object,
            labels: &pod["metadata"]["labels"],
            spec: &pod["spec"],
        })
    }
}

/// All containers of a pod, those that start first included.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list(&spec["initContainers"]).chain(list(&spec["containers"]))
}

/// What does not fit, in one line each.
pub(super) fn problems(objects: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let workloads = workloads(objects);
    for object in objects {
        let mut add = |what: String| {
            problems.push(format!(
                "{} {}: {what}",
                text(&object["kind"]),
                name(object)
            ));
        };
        let spec = &object["spec"];
        match text(&object["kind"]) {
            "Service" => {
                let ports = list(&spec["ports"]).map(|port| &port["targetPort"]);
                has_ports(&workloads, &spec["selector"], ports, &mut add);
            }
            "PodDisruptionBudget" => {
                has_ports(
                    &workloads,
                    &spec["selector"]["matchLabels"],
                    std::iter::empty(),
                    &mut add,
                );
            }
            "NetworkPolicy" => {
                let ports = list(&spec["ingress"]).flat_map(|rule| list(&rule["ports"]));
                let ports = ports.map(|port| &port["port"]);
                has_ports(
                    &workloads,
                    &spec["podSelector"]["matchLabels"],
                    ports,
                    &mut add,
                );
            }
            "ServiceMonitor" => {
                let selector = &spec["selector"]["matchLabels"];
                let services: Vec<_> = of_kind(objects, "Service")
                    .filter(|service| selects(selector, &service["metadata"]["labels"]))
                    .collect();
                if services.is_empty() {
                    add(format!("{selector} selects no service"));
                }
                for port in list(&spec["endpoints"]).map(|endpoint| &endpoint["port"]) {
                    for service in &services {
                        if !list(&service["spec"]["ports"]).any(|has| has["name"] == *port) {
                            add(format!("service {} has no port {port}", name(service)));
                        }
                    }
                }
            }
            "PrometheusRule" => {
                let mut names: Vec<_> = list(&spec["groups"]).map(|g| text(&g["name"])).collect();
                names.sort_unstable();
                let count = names.len();
                names.dedup();
                if names.len() < count {
                    add(format!("two groups have one name: {names:?}"));
                }
            }
            "Ingress" => {
                let paths = list(&spec["rules"]).flat_map(|rule| list(&rule["http"]["paths"]));
                for service in paths.map(|path| &path["backend"]["service"]) {
                    backend(
                        objects,
                        &service["name"],
                        "name",
                        &service["port"]["name"],
                        &mut add,
                    );
                }
            }
            "HTTPRoute" => {
                let backends = list(&spec["rules"]).flat_map(|rule| list(&rule["backendRefs"]));
                for service in backends {
                    backend(
                        objects,
                        &service["name"],
                        "port",
                        &service["port"],
                        &mut add,
                    );
                }
            }
            _ => {}
        }
    }
    for workload in &workloads {
        let mut add = |what: String| {
            let object = workload.object;
            problems.push(format!(
                "{} {}: {what}",
                text(&object["kind"]),
                name(object)
            ));
        };
        pod(objects, workload, &mut add);
        for container in containers(workload.spec) {
            guarded(workload.spec, container, &mut add);
        }
    }
    problems
}

/// The pods that a selector selects exist, and each has these ports by name.
fn has_ports<'a>(
    workloads: &[Workload<'_>],
    selector: &Value,
    ports: impl Iterator<Item = &'a Value>,
    add: &mut impl FnMut(String),
) {
    let pods: Vec<_> = workloads
        .iter()
        .filter(|pod| selects(selector, pod.labels))
        .collect();
    if pods.is_empty() {
        add(format!("{selector} selects no pod"));
    }
    for port in ports {
        for pod in &pods {
            let mut named = containers(pod.spec).flat_map(|container| list(&container["ports"]));
            if !named.any(|has| has["name"] == *port) {
                add(format!("{} has no port {port}", name(pod.object)));
            }
        }
    }
}

fn backend(
    objects: &[Value],
    service: &Value,
    key: &str,
    port: &Value,
    add: &mut impl FnMut(String),
) {
    let found = of_kind(objects, "Service").find(|object| object["metadata"]["name"] == *service);
    match found {
        None => add(format!("there is no service {service}")),
        Some(found) if !list(&found["spec"]["ports"]).any(|has| has[key] == *port) => {
            add(format!("service {service} has no port {port}"));
        }
        Some(_) => {}
    }
}

/// What a pod refers to exists, and it is selected by its own workload.
fn pod(objects: &[Value], workload: &Workload<'_>, add: &mut impl FnMut(String)) {
    let Workload {
        object,
        labels,
        spec,
    } = workload;
    let exists = |kind: &str, name: &Value| {
        of_kind(objects, kind).any(|object| object["metadata"]["name"] == *name)
    };
    if object["kind"] != "Pod" && !selects(&object["spec"]["selector"]["matchLabels"], labels) {
        add("it does not select its own pods".to_owned());
    }
    if let Some(account) = spec
        .get("serviceAccountName")
        .filter(|name| *name != "default")
        && !exists("ServiceAccount", account)
    {
        add(format!("there is no service account {account}"));
    }
    let mut volumes = Vec::new();
    for volume in list(&spec["volumes"]) {
        volumes.push(&volume["name"]);
        for (kind, reference) in [
            ("ConfigMap", &volume["configMap"]["name"]),
            (
                "PersistentVolumeClaim",
                &volume["persistentVolumeClaim"]["claimName"],
            ),
        ] {
            if !reference.is_null() && !exists(kind, reference) {
                add(format!("there is no {kind} {reference}"));
            }
        }
    }
    let claims = list(&object["spec"]["volumeClaimTemplates"]);
    volumes.extend(claims.map(|claim| &claim["metadata"]["name"]));
    for container in containers(spec) {
        for mount in list(&container["volumeMounts"]) {
            if !volumes.contains(&&mount["name"]) {
                add(format!("there is no volume {}", mount["name"]));
            }
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let port = &container[probe]["httpGet"]["port"];
            let mut ports = list(&container["ports"]);
            if !port.is_null() && !ports.any(|has| has["name"] == *port) {
                add(format!("{probe}: {} has no port {port}", container["name"]));
            }
        }
    }
}

/// A container cannot become root, write its own file system or take all memory.
fn guarded(spec: &Value, container: &Value, add: &mut impl FnMut(String)) {
    let (pod, own) = (&spec["securityContext"], &container["securityContext"]);
    for (what, kept) in [
        ("runAsNonRoot", pod["runAsNonRoot"] == true),
        (
            "runAsUser",
            pod["runAsUser"].as_u64().is_some_and(|user| user > 0),
        ),
        (
            "seccompProfile",
            pod["seccompProfile"]["type"] == "RuntimeDefault",
        ),
        (
            "automountServiceAccountToken",
            spec["automountServiceAccountToken"] == false,
        ),
        (
            "allowPrivilegeEscalation",
            own["allowPrivilegeEscalation"] == false,
        ),
        (
            "readOnlyRootFilesystem",
            own["readOnlyRootFilesystem"] == true,
        ),
        (
            "capabilities",
            own["capabilities"] == serde_json::json!({"drop": ["ALL"]}),
        ),
        // Kubernetes would set OCTOSERVE_PORT and the like, which our programs refuse.
        ("enableServiceLinks", spec["enableServiceLinks"] == false),
    ] {
        if !kept {
            add(format!("{} has a wrong {what}", container["name"]));
        }
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Whether labels fit a selector, which must select by something.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(label, value)| labels[label] == *value)
    })
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}
