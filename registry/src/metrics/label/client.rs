//! The families of clients.

use service::metrics::labels;

labels! {
    /// A family of clients, told by the `User-Agent` they send.
    pub enum Client: "client" {
        Docker = "docker",
        Containerd = "containerd",
        /// podman, buildah, skopeo and others on the containers library.
        Containers = "containers",
        Crio = "crio",
        Buildkit = "buildkit",
        Kaniko = "kaniko",
        Cosign = "cosign",
        Notation = "notation",
        Oras = "oras",
        Helm = "helm",
        Regclient = "regclient",
        /// crane, and others that use its library under its name.
        Crane = "crane",
        Trivy = "trivy",
        Curl = "curl",
        Python = "python",
        Other = "other",
    }
}

/// What each family's `User-Agent` starts with, in lower case. The first match counts. Tools built
/// on go-containerregistry put their own name before the library's.
const PREFIXES: [(&str, Client); 32] = [
    ("docker/", Client::Docker),
    ("docker-client/", Client::Docker),
    ("moby/", Client::Docker),
    ("containerd/", Client::Containerd),
    ("containers/", Client::Containers),
    ("podman/", Client::Containers),
    ("libpod/", Client::Containers),
    ("buildah/", Client::Containers),
    ("skopeo/", Client::Containers),
    ("cri-o/", Client::Crio),
    ("crio/", Client::Crio),
    ("buildkit/", Client::Buildkit),
    ("kaniko/", Client::Kaniko),
    ("cosign/", Client::Cosign),
    ("notation/", Client::Notation),
    ("notation-go/", Client::Notation),
    ("oras/", Client::Oras),
    ("oras-go", Client::Oras),
    ("oras-py", Client::Oras),
    ("helm/", Client::Helm),
    ("regclient/", Client::Regclient),
    ("regctl/", Client::Regclient),
    ("regsync/", Client::Regclient),
    ("regbot/", Client::Regclient),
    ("crane/", Client::Crane),
    ("gcrane/", Client::Crane),
    ("krane/", Client::Crane),
    ("go-containerregistry", Client::Crane),
    ("trivy/", Client::Trivy),
    ("curl/", Client::Curl),
    // Without a slash, because the name of a library follows, as in `python-requests/2`.
    ("python-", Client::Python),
    ("python/", Client::Python),
];

impl Client {
    /// The family of a `User-Agent` header's value; of an absent one, give the empty text.
    pub fn of(user_agent: &str) -> Self {
        let agent = user_agent.as_bytes();
        let starts_with = |prefix: &str| {
            agent
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        PREFIXES
            .iter()
            .find(|(prefix, _)| starts_with(prefix))
            .map_or(Self::Other, |&(_, client)| client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::metrics::Label as _;

    #[test]
    fn real_clients_are_recognized_by_their_user_agents() {
        let agents = [
            (
                "docker/27.3.1 go/go1.22.7 git-commit/41ca978 kernel/6.8.0 os/linux arch/amd64 \
                 UpstreamClient(Docker-Client/27.3.1 \\(linux\\))",
                "docker",
            ),
            ("Docker-Client/20.10.24 (linux)", "docker"),
            ("containerd/v2.0.0", "containerd"),
            ("containerd/1.6.20~ds1", "containerd"),
            (
                "containers/5.29.2 (github.com/containers/image)",
                "containers",
            ),
            ("libpod/3.0.1", "containers"),
            ("Buildah/1.28.2", "containers"),
            ("skopeo/1.9.3", "containers"),
            ("cri-o/1.29.1 go/go1.21.5 os/linux arch/amd64", "crio"),
            ("buildkit/v0.16.0", "buildkit"),
            ("kaniko/v1.23.2 go-containerregistry/v0.19.2", "kaniko"),
            (
                "cosign/v2.4.1 (linux; amd64) go-containerregistry/v0.20.2",
                "cosign",
            ),
            ("cosign/v3.0.2 (linux; amd64)", "cosign"),
            ("notation/1.2.0", "notation"),
            ("oras/1.2.0", "oras"),
            ("oras-go", "oras"),
            ("Helm/3.16.2", "helm"),
            ("Helm/4.0.0", "helm"),
            ("regclient/regctl (v0.7.1)", "regclient"),
            ("regclient/regsync (v0.7.1)", "regclient"),
            ("regclient/regclient", "regclient"),
            ("crane/0.20.2 go-containerregistry/0.20.2", "crane"),
            ("gcrane/0.20.2 go-containerregistry/0.20.2", "crane"),
            ("go-containerregistry/v0.20.2", "crane"),
            ("go-containerregistry", "crane"),
            ("trivy/0.57.0 go-containerregistry/v0.20.2", "trivy"),
            ("curl/8.11.0", "curl"),
            ("python-requests/2.32.3", "python"),
            ("Python-urllib/3.13", "python"),
            ("python-httpx/0.27.2", "python"),
            ("Python/3.11 aiohttp/3.10.10", "python"),
        ];
        for (agent, client) in agents {
            assert_eq!(Client::of(agent).value(), client, "{agent}");
        }
    }

    #[test]
    fn anything_else_is_other() {
        for agent in [
            "",
            "Mozilla/5.0",
            "ko/0.15 go-containerregistry/v0.20",
            "dock",
            "dockerish",
            "é",
        ] {
            assert_eq!(Client::of(agent), Client::Other, "{agent}");
        }
    }
}
