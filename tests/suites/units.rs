//! The systemd units, as systemd itself reads them. No systemd runs: what octoserve tells it is in the suite
//! `systemd`.

use std::path::Path;

use anyhow::{Result, ensure};
use harness::octoserve::Program;
use harness::{kubernetes, tools};
use tempfile::TempDir;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");

/// The units, and the program of each.
const UNITS: [(&str, Program, &str); 2] = [
    ("octoserve", Program::Octoserve, "octoserve.yaml"),
    ("octoserve-registry", Program::Registry, "registry.yaml"),
];

/// Ten times the exposure that `systemd-analyze security` may find, of 100. What is left of it is mostly the
/// network, which a server needs.
const EXPOSURE: &str = "--threshold=19";

fn unit(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(
        Path::new(PACKAGING).join("systemd").join(name),
    )?)
}

/// What systemd has to say of a unit, and of its exposure if it is a service. Nothing, if all is well.
async fn verdict(name: &str, text: &str, program: Program) -> Result<String> {
    let directory = TempDir::new()?;
    let installed = format!("/usr/bin/{} ", program.name());
    // systemd looks for the program. It is in no package on this machine.
    let text = text.replace(&installed, &format!("{} ", program.path()?.display()));
    let path = directory.path().join(name);
    std::fs::write(&path, text)?;
    if name.ends_with(".socket") {
        // A socket needs its service.
        let service = name.replace(".socket", ".service");
        let text = unit(&service)?.replace(&installed, &format!("{} ", program.path()?.display()));
        std::fs::write(directory.path().join(service), text)?;
    }
    let path = path.to_string_lossy().into_owned();
    let mut said = String::new();
    let verify = tools::attempt("systemd-analyze", &["verify", "--man=no", &path]).await?;
    said.push_str(&String::from_utf8_lossy(&verify.stderr));
    if name.ends_with(".service") {
        let security = ["security", "--offline=true", EXPOSURE, "--no-pager", &path];
        let security = tools::attempt("systemd-analyze", &security).await?;
        if !security.status.success() {
            said.push_str(&String::from_utf8_lossy(&security.stdout));
        }
    }
    Ok(said)
}

#[tokio::test]
async fn systemd_accepts_the_units_and_finds_little_exposed() -> Result<()> {
    for (name, program, _) in UNITS {
        for name in [format!("{name}.service"), format!("{name}.socket")] {
            let said = verdict(&name, &unit(&name)?, program).await?;
            ensure!(said.is_empty(), "{name}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_unit_is_found() -> Result<()> {
    for (name, from, to, said) in [
        (
            "octoserve.service",
            "WatchdogSec=",
            "WatchDogSec=",
            "WatchDogSec",
        ),
        (
            "octoserve.service",
            "Type=notify",
            "Type=notified",
            "notified",
        ),
        (
            "octoserve.service",
            "ExecStart=/usr/bin/octoserve ",
            "ExecStart=/usr/bin/octoserved ",
            "not executable",
        ),
        (
            "octoserve.service",
            "ProtectSystem=strict\n",
            "",
            "exposure level",
        ),
        (
            "octoserve.service",
            "SystemCallFilter=@system-service\n",
            "",
            "exposure level",
        ),
        (
            "octoserve.socket",
            "ListenStream=127.0.0.1:5000",
            "ListenStream=127.0.0.1:x",
            "127.0.0.1:x",
        ),
        (
            "octoserve.socket",
            "NoDelay=true",
            "NoDelays=true",
            "NoDelays",
        ),
    ] {
        let text = unit(name)?;
        ensure!(text.contains(from), "{name} has no {from}");
        let found = verdict(name, &text.replace(from, to), Program::Octoserve).await?;
        ensure!(
            found.contains(said),
            "{name}, {to:?}: {said:?} is not in {found:?}"
        );
    }
    Ok(())
}

/// The addresses of a socket unit must all be in the configuration, or the program refuses them.
#[tokio::test]
async fn units_and_packaged_configurations_agree() -> Result<()> {
    for (name, program, file) in UNITS {
        let configuration = format!("{PACKAGING}/{file}");
        let printed = program.path()?;
        let words = ["--config", &configuration, "--print-config"];
        let printed = tools::run(&printed.to_string_lossy(), &words).await?;
        let printed = &kubernetes::objects(&printed)?[0];
        let socket = unit(&format!("{name}.socket"))?;
        let mut bound: Vec<_> = socket
            .lines()
            .filter_map(|line| line.strip_prefix("ListenStream="))
            .collect();
        let listeners = [&printed["listen"][0], &printed["metrics"]["listen"]];
        let mut configured: Vec<_> = listeners
            .iter()
            .filter_map(|listener| listener["address"].as_str().or(listener.as_str()))
            .collect();
        bound.sort_unstable();
        configured.sort_unstable();
        assert_eq!(bound, configured, "{name}");

        let service = unit(&format!("{name}.service"))?;
        ensure!(
            service.contains(&format!("--config /etc/octoserve/{file}\n")),
            "{name}"
        );
        // Where the control socket is: without it no command reaches the running program.
        let control = printed["control"]["socket"].as_str();
        assert_eq!(control, Some(&*format!("/run/{name}/control.sock")));
        ensure!(
            service.contains(&format!("\nRuntimeDirectory={name}\n")),
            "{name}"
        );
        let data = printed["data"]
            .as_str()
            .or(printed["registry"]["data"].as_str());
        assert_eq!(data, Some(&*format!("/var/lib/{name}")));
        ensure!(
            service.contains(&format!("\nStateDirectory={name}\n")),
            "{name}"
        );
    }
    Ok(())
}
