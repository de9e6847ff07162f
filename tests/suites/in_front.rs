//! Everything at once: docker, podman, skopeo and containerd log in, push and pull over TLS, through two
//! replicas of an https registry with tokens, and cannot tell the proxy from the registry. One replica is
//! killed meanwhile: what was cut fails as at the registry itself, and a retry succeeds. The same with nginx
//! as a TLS terminator in front.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::authority::Authority;
use harness::certificate::Certificate;
use harness::containerd::Containerd;
use harness::docker::Docker;
use harness::foreign::{AUTHORIZATION, ForeignRegistry, USER};
use harness::octoserve::{Launch, Server};
use harness::podman::Podman;
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::{Metric, metric};
use harness::skopeo::Skopeo;
use harness::terminator::Terminator;
use harness::token_server::TokenServer;

mod differences;

const DEADLINE: Duration = Duration::from_secs(30);

/// Tokens are valid for longer than any test takes.
const LIFETIME: u64 = 600;

/// Who ends the clients' TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Octoserve,
    Nginx,
}

/// octoserve in front of two replicas of a registry, and maybe nginx in front of it.
struct Whole {
    server: Server,
    certificate: Certificate,
    terminator: Option<Terminator>,
    // The second is dropped before the first, whose content it shares.
    second: ForeignRegistry,
    first: ForeignRegistry,
    tokens: TokenServer,
    authority: Authority,
}

impl Whole {
    async fn with(ends: Ends) -> Result<Self> {
        let authority = Authority::new("the authority")?;
        let tokens = TokenServer::start(AUTHORIZATION, LIFETIME).await?;
        let signed = authority.sign(&["localhost"])?;
        let first = ForeignRegistry::start_with_tls_and_tokens(&signed, &tokens).await?;
        let second = first.replica().await?;
        let certificate = Certificate::new()?;
        let replica = |registry: &ForeignRegistry| {
            format!("'https://localhost:{}'", registry.address().port())
        };
        let keys = format!(
            "upstreams:\n  - replicas: [{}, {}]\n    tls: {{ca: '{}'}}\n    balance: round_robin\n    \
             health: {{interval: 1s, timeout: 1s, rise: 1, fall: 1}}\n",
            replica(&first),
            replica(&second),
            authority.path().display()
        );
        let server = match ends {
            Ends::Octoserve => Launch::configured("").secured(&certificate.keys(), &keys),
            Ends::Nginx => {
                let keys = format!("{keys}trust_forwarded_from: [127.0.0.0/8]\n");
                Launch::configured(&keys).metrics_listener()
            }
        };
        let server = server.start().await?;
        let terminator = match ends {
            Ends::Octoserve => None,
            Ends::Nginx => Some(Terminator::start(server.address()).await?),
        };
        Ok(Self {
            server,
            certificate,
            terminator,
            second,
            first,
            tokens,
            authority,
        })
    }

    /// What clients reach that need a name, for which the certificate is.
    fn host(&self) -> String {
        match &self.terminator {
            Some(terminator) => terminator.host(),
            None => self.server.secure_host(),
        }
    }

    /// What docker reaches, which takes any certificate of 127.0.0.0/8.
    fn address(&self) -> String {
        match &self.terminator {
            Some(terminator) => terminator.address().to_string(),
            None => self.server.host(),
        }
    }

    /// The certificate that clients see.
    fn certificate(&self) -> PathBuf {
        match &self.terminator {
            Some(terminator) => terminator.certificate(),
            None => self.certificate.path(),
        }
    }

    /// Waits until the access log has an event with all of these words.
    async fn logged(&mut self, words: &[&str]) -> Result<()> {
        let server = &mut self.server;
        poll::until("the request is logged", DEADLINE, async || {
            let log = server.process().output(OutputStream::Stderr)?;
            let is_it = |line: &str| words.iter().all(|word| line.contains(word));
            Ok(log.lines().any(is_it).then_some(()))
        })
        .await
    }

    /// Nothing failed that a client would have seen.
    async fn never_failed(&self) -> Result<()> {
        let scrape = self.server.scrape().await?;
        for status in ["500", "502", "503", "504"] {
            let failed = requests().label("status", status);
            let failed = scrape.sum(&failed).unwrap_or_default();
            ensure!(failed < 0.5, "{failed} responses {status}");
        }
        Ok(())
    }
}

fn requests() -> Metric {
    metric("octoserve_http_requests_total")
}

fn credentials() -> String {
    format!("{}:{}", USER.0, USER.1)
}

async fn docker(whole: &Whole, seed: u64) -> Result<()> {
    let docker = Docker::shared().await?;
    let config = tempfile::tempdir()?;
    let run = async |arguments: &[&str]| docker.run_with(config.path(), arguments).await;
    let host = whole.address();
    let image = format!("{host}/team/docker:1");
    docker.image(&image, None, seed).await?;
    let id = docker.id(&image).await?;
    ensure!(run(&["push", &image]).await.is_err(), "nobody logged in");
    let login = ["login", "--username", USER.0, "--password", USER.1];
    run(&[&login[..], &[&host]].concat()).await?;
    run(&["push", &image]).await?;
    docker.forget(&[&image]).await?;
    run(&["pull", &image]).await?;
    assert_eq!(docker.id(&image).await?, id);
    Ok(())
}

async fn podman(whole: &Whole, seed: u64) -> Result<()> {
    let podman = Podman::new()?;
    let host = whole.host();
    let image = format!("{host}/team/podman:1");
    podman.image(&image, "amd64", seed).await?;
    ensure!(podman.push(&image).await.is_err(), "nobody logged in");
    podman.login(&host, USER.0, USER.1).await?;
    podman.push(&image).await?;
    podman.forget(&[&image]).await?;
    podman.pull(&image, &[]).await?;
    Ok(())
}

async fn skopeo(whole: &Whole, seed: u64) -> Result<()> {
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[seed, seed + 1])?;
    let image = format!("docker://{}/team/skopeo:1", whole.host());
    let trusted = tempfile::tempdir()?;
    std::fs::copy(whole.certificate(), trusted.path().join("ca.crt"))?;
    let trusted = trusted.path().display().to_string();
    let (to, from) = (["--dest-cert-dir", &trusted], ["--src-cert-dir", &trusted]);
    let refused = skopeo.copy_verified(&layout, &image, &to).await;
    ensure!(refused.is_err(), "nobody logged in");
    let own = credentials();
    let to = [&to[..], &["--dest-creds", &own]].concat();
    let from = [&from[..], &["--src-creds", &own]].concat();
    skopeo.copy_verified(&layout, &image, &to).await?;
    let back = format!("dir:{}", skopeo.directory().join("back").display());
    skopeo.copy_verified(&image, &back, &from).await?;
    assert_eq!(
        skopeo.manifest_as(&image, &own).await?,
        skopeo.manifest(&back).await?
    );
    Ok(())
}

/// It pushes what skopeo has pushed, under another name.
async fn containerd(whole: &Whole) -> Result<()> {
    let host = whole.host();
    let containerd = Containerd::trusting(&host, &whole.certificate()).await?;
    let (image, copy) = (
        format!("{host}/team/skopeo:1"),
        format!("{host}/team/containerd:1"),
    );
    ensure!(
        containerd.fetch(&image, &[]).await.is_err(),
        "nobody logged in"
    );
    let own = credentials();
    let user = ["--user", own.as_str()];
    containerd.fetch(&image, &user).await?;
    containerd.tag(&image, &copy).await?;
    containerd.push(&copy, &user).await?;
    let skopeo = Skopeo::new()?;
    assert_eq!(
        skopeo
            .manifest_as(&format!("docker://{image}"), &own)
            .await?,
        skopeo
            .manifest_as(&format!("docker://{copy}"), &own)
            .await?
    );
    Ok(())
}

/// All clients, with one replica killed between their requests.
async fn day_of_all_clients(ends: Ends, seed: u64) -> Result<()> {
    let mut whole = Whole::with(ends).await?;
    docker(&whole, seed).await?;
    podman(&whole, seed + 1).await?;
    skopeo(&whole, seed + 2).await?;
    containerd(&whole).await?;
    whole.never_failed().await?;
    // Both have served.
    for registry in [&whole.first, &whole.second] {
        ensure!(registry.served()? > 10, "{}", registry.url());
    }
    let targets = whole.tokens.issued();
    ensure!(targets.iter().any(|issued| issued.target.contains("push")));

    // Now with one of them: no client notices.
    whole.second.process().kill()?;
    docker(&whole, seed + 10).await?;
    podman(&whole, seed + 11).await?;
    skopeo(&whole, seed + 12).await?;
    containerd(&whole).await?;
    whole.never_failed().await?;
    let unhealthy = "upstream unhealthy";
    whole.logged(&[unhealthy]).await
}

#[tokio::test]
async fn clients_log_in_push_and_pull_over_tls() -> Result<()> {
    day_of_all_clients(Ends::Octoserve, 900).await
}

#[tokio::test]
async fn clients_log_in_push_and_pull_behind_nginx() -> Result<()> {
    day_of_all_clients(Ends::Nginx, 930).await
}

/// The image of many layers that is moved while a replica is killed.
fn layers(seed: u64) -> Vec<u64> {
    (seed..seed + 12).collect()
}

#[tokio::test]
async fn a_replica_that_is_killed_during_a_pull_or_a_push_costs_at_most_a_retry() -> Result<()> {
    for (ends, seed) in [(Ends::Octoserve, 960), (Ends::Nginx, 980)] {
        let mut whole = Whole::with(ends).await?;
        let skopeo = Skopeo::new()?;
        let (host, own) = (whole.host(), credentials());
        let layout = skopeo.layout("many", &layers(seed))?;
        let (pushed, again) = (
            format!("docker://{host}/team/many:1"),
            format!("docker://{host}/team/again:1"),
        );
        let to = ["--dest-creds", own.as_str()];
        let from = ["--src-creds", own.as_str()];
        skopeo.copy(&layout, &pushed, &to).await?;

        // A pull: the replica is killed once a blob was read.
        let back = format!("dir:{}", skopeo.directory().join("back").display());
        let pull = skopeo.copy(&pushed, &back, &from);
        let killed = async {
            whole
                .logged(&[r#""endpoint":"blob""#, r#""method":"GET""#])
                .await?;
            whole.second.process().kill()
        };
        let (pull, killed) = tokio::join!(pull, killed);
        killed?;
        if pull.is_err() {
            skopeo
                .copy(&pushed, &back, &from)
                .await
                .context("the retry")?;
        }
        assert_eq!(
            skopeo.manifest_as(&pushed, &own).await?,
            skopeo.manifest(&back).await?
        );

        // It comes back. A push: the other one is killed once a blob was written.
        whole.second.restart().await?;
        whole.logged(&["upstream healthy"]).await?;
        let push = skopeo.copy(&layout, &again, &to);
        let killed = async {
            whole
                .logged(&[r#""repository":"team/again""#, r#""method":"PUT""#])
                .await?;
            whole.first.process().kill()
        };
        let (push, killed) = tokio::join!(push, killed);
        killed?;
        if push.is_err() {
            skopeo
                .copy(&layout, &again, &to)
                .await
                .context("the retry")?;
        }
        let back = format!("dir:{}", skopeo.directory().join("again").display());
        skopeo.copy(&again, &back, &from).await?;
        assert_eq!(
            skopeo.manifest_as(&again, &own).await?,
            skopeo.manifest(&back).await?
        );
    }
    Ok(())
}
