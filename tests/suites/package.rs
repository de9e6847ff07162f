//! What a release consists of, made of the programs under test: the Debian package, installed, upgraded and
//! removed in a Debian of its own, and the archive with its checksums and its list of dependencies.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::chroot::Chroot;
use harness::octoserve::Program;
use harness::tools;
use serde_json::Value;
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Runs a script of packaging/ on the programs under test. They are compressed little: it is only a test.
async fn make(script: &str, output: &Path) -> Result<String> {
    let program = Program::Octoserve.path()?;
    let programs = program.parent().context("a program in no directory")?;
    let script = format!("{ROOT}/packaging/{script}");
    let words = [
        "COMPRESSION=-Zgzip -z1",
        "LEVEL=1",
        "sh",
        &script,
        text(programs)?,
        text(output)?,
    ];
    tools::run("env", &words).await
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of UTF-8")
}

/// The package as somebody else's version: a later one, with another conffile.
async fn later(package: &Path, directory: &Path) -> Result<PathBuf> {
    let tree = directory.join("tree");
    tools::run("dpkg-deb", &["--raw-extract", text(package)?, text(&tree)?]).await?;
    for (file, from, to) in [
        ("DEBIAN/control", "\nVersion: ", "\nVersion: 1:"),
        ("etc/octoserve/octoserve.yaml", "# The", "# Now the"),
        ("etc/octoserve/registry.yaml", "# The", "# Now the"),
    ] {
        let path = tree.join(file);
        let content = std::fs::read_to_string(&path)?;
        ensure!(content.contains(from), "{file}: {content}");
        std::fs::write(path, content.replacen(from, to, 1))?;
    }
    let later = directory.join("later.deb");
    let build = [
        "--root-owner-group",
        "-Zgzip",
        "-z1",
        "--build",
        text(&tree)?,
        text(&later)?,
    ];
    tools::run("dpkg-deb", &build).await?;
    Ok(later)
}

/// Both programs in the chroot with the installed configuration, as the package's user; systemd would make
/// the directories of the sockets. Commands reach each of them while it runs.
const SERVES: &str = "
for program in octoserve octoserve-registry; do
    install -d -o octoserve -g octoserve -m 700 /run/$program
    case $program in octoserve) file=octoserve.yaml ;; *) file=registry.yaml ;; esac
    setpriv --reuid=octoserve --regid=octoserve --init-groups $program --config /etc/octoserve/$file >/tmp/$program.out 2>&1 &
    tries=0
    until $program health --config /etc/octoserve/$file 2>/tmp/$program.health; do
        tries=$((tries + 1))
        if [ $tries -gt 300 ]; then cat /tmp/$program.out /tmp/$program.health; exit 1; fi
        sleep 0.1
    done
    $program ctl --config /etc/octoserve/$file status
    case $program in
    octoserve) octoserve-registry scrub --socket /run/octoserve/control.sock ;;
    *)
        for job in 'gc --dry-run' gc scrub retention; do
            $program $job --config /etc/octoserve/registry.yaml
        done
        ;;
    esac
    kill -TERM $!
    wait $!
    cat /tmp/$program.out
done";

#[tokio::test]
async fn the_debian_package_is_installed_upgraded_removed_and_purged() -> Result<()> {
    let (directory, chroot) = (TempDir::new()?, Chroot::new().await?);
    let made = make("deb.sh", directory.path()).await?;
    let package = PathBuf::from(made.trim());
    let later = later(&package, directory.path()).await?;
    for (from, to) in [(&package, "/first.deb"), (&later, "/later.deb")] {
        std::fs::copy(from, chroot.path(to))?;
    }

    // Nothing is missing: no network, and so no other package.
    chroot.run("dpkg --install /first.deb").await?;
    for program in ["octoserve", "octoserve-registry"] {
        let version = chroot.run(&format!("{program} --version")).await?;
        ensure!(version.starts_with(&format!("{program} ")), "{version}");
    }
    let user = chroot.run("getent passwd octoserve").await?;
    ensure!(user.contains("/nologin"), "{user}");
    for file in ["octoserve.yaml", "registry.yaml"] {
        let path = format!("/etc/octoserve/{file}");
        let of = chroot.run(&format!("stat -c '%a %U:%G' {path}")).await?;
        assert_eq!(of.trim(), "640 root:octoserve", "{path}");
    }
    for (page, heading) in [
        ("man1/octoserve.1", "SYNOPSIS"),
        ("man1/octoserve-registry.1", "SYNOPSIS"),
        ("man1/octoserve-health.1", "SYNOPSIS"),
        ("man1/octoserve-ctl-status.1", "SYNOPSIS"),
        ("man5/octoserve.yaml.5", "KEYS"),
        ("man5/octoserve-registry.yaml.5", "KEYS"),
    ] {
        let path = chroot.path(&format!("/usr/share/man/{page}.gz"));
        let page = tools::run("gzip", &["-dc", text(&path)?]).await?;
        ensure!(page.contains(&format!(".SH {heading}")), "{page}");
    }
    for program in ["octoserve", "octoserve-registry"] {
        let schema = format!("/usr/share/octoserve/{program}.schema.json");
        let schema = std::fs::read_to_string(chroot.path(&schema))?;
        ensure!(schema.contains("$schema"), "{schema}");
    }
    chroot
        .run("bash -n /usr/share/bash-completion/completions/octoserve")
        .await?;
    for file in [
        "zsh/vendor-completions/_octoserve",
        "fish/vendor_completions.d/octoserve.fish",
    ] {
        let completions = std::fs::read_to_string(chroot.path("/usr/share").join(file))?;
        ensure!(completions.contains("print-config"), "{file}");
    }
    for directory in ["octoserve", "octoserve-registry"] {
        let path = format!("/var/lib/{directory}");
        let of = chroot.run(&format!("stat -c '%a %U:%G' {path}")).await?;
        assert_eq!(of.trim(), "750 octoserve:octoserve", "{directory}");
    }
    // Before the first start, and as the documentation says.
    chroot.run("setpriv --reuid=octoserve --regid=octoserve --init-groups octoserve doctor --config /etc/octoserve/octoserve.yaml").await?;
    linked(&chroot.path("/usr/share/doc/octoserve"))?;
    let units = chroot.path("/usr/lib/systemd/system/octoserve.service");
    ensure!(units.exists(), "no unit");
    for file in ["octoserve.yaml", "registry.yaml"] {
        let file = std::fs::read_to_string(chroot.path("/etc/octoserve").join(file))?;
        let schema = schema_of(&file).context(file.clone())?;
        ensure!(chroot.path(schema).exists(), "no {schema}");
    }
    let served = chroot.run(SERVES).await?;
    ensure!(served.contains("listening on 127.0.0.1:5000"), "{served}");
    ensure!(served.contains("listening on 127.0.0.1:5010"), "{served}");
    // Two collections, two scrubs and one retention, all in the running process: its log has their ends.
    for (ended, times) in [("gc ended", 2), ("scrub ended", 2), ("retention ended", 1)] {
        assert_eq!(served.matches(ended).count(), times, "{ended}: {served}");
    }

    upgraded(&chroot).await?;
    gone(&chroot).await
}

/// The path of the schema that the first line of a configuration names.
fn schema_of(text: &str) -> Option<&str> {
    let (_, schema) = text
        .lines()
        .next()?
        .split_once("yaml-language-server: $schema=")?;
    Some(schema.trim())
}

/// Whatever the pages below a directory link to is there, and so are the schemas that configurations name.
fn linked(root: &Path) -> Result<()> {
    let (mut wrong, mut followed) = (Vec::new(), 0);
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        let targets: Vec<_> = match extension {
            Some("md") => links(&std::fs::read_to_string(&path)?),
            Some("yaml") => {
                let text = std::fs::read_to_string(&path)?;
                schema_of(&text).map(str::to_owned).into_iter().collect()
            }
            _ => continue,
        };
        let directory = path.parent().context("a file in no directory")?;
        for target in targets {
            followed += 1;
            if !directory.join(&target).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(followed > 200, "only {followed} links");
    Ok(())
}

/// The files that a page links to.
fn links(page: &str) -> Vec<String> {
    // What is between fences or back quotes is code.
    let blocks = page.split("```").step_by(2);
    let prose: String = blocks
        .flat_map(|block| block.split('`').step_by(2))
        .collect();
    let targets = prose.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', ' ', '#']).next());
    let files = targets.filter(|target| {
        !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
    });
    files.map(str::to_owned).collect()
}

/// What the administrator has changed stays, and the rest is the new version's.
async fn upgraded(chroot: &Chroot) -> Result<()> {
    let edit = "
        echo '# mine' >>/etc/octoserve/octoserve.yaml
        chmod 600 /etc/octoserve/registry.yaml
        chown octoserve:adm /etc/octoserve/registry.yaml
        dpkg --install --force-confold /later.deb";
    chroot.run(edit).await?;
    let version = chroot
        .run("dpkg-query --show --showformat '${Version} ${Status}' octoserve")
        .await?;
    ensure!(
        version.starts_with("1:") && version.ends_with(" installed"),
        "{version}"
    );
    let [edited, other] = ["octoserve.yaml", "registry.yaml"]
        .map(|file| std::fs::read_to_string(chroot.path("/etc/octoserve").join(file)));
    let (edited, other) = (edited?, other?);
    ensure!(
        edited.ends_with("# mine\n") && !edited.contains("Now the"),
        "{edited}"
    );
    ensure!(other.contains("Now the"), "{other}");
    let of = chroot
        .run("stat -c '%a %U:%G' /etc/octoserve/registry.yaml")
        .await?;
    assert_eq!(of.trim(), "600 octoserve:adm");
    chroot
        .run("octoserve --config /etc/octoserve/octoserve.yaml --check")
        .await?;
    Ok(())
}

/// A removal keeps configuration and data, a purge the data alone.
async fn gone(chroot: &Chroot) -> Result<()> {
    chroot.run("dpkg --remove octoserve").await?;
    ensure!(!chroot.path("/usr/bin/octoserve").exists());
    ensure!(chroot.path("/etc/octoserve/octoserve.yaml").exists());

    let purged = chroot.attempt("dpkg --purge octoserve").await?;
    let said = String::from_utf8_lossy(&purged.stderr).into_owned();
    ensure!(purged.status.success(), "{said}");
    ensure!(
        said.contains("kept, with its owner: /var/lib/octoserve /var/lib/octoserve-registry"),
        "{said}"
    );
    ensure!(!chroot.path("/etc/octoserve").exists());
    // Its files would otherwise be the next user's.
    chroot.run("getent passwd octoserve").await?;

    chroot
        .run("dpkg --install /first.deb && rm -r /var/lib/octoserve* /run/octoserve* && dpkg --purge octoserve")
        .await?;
    let user = chroot.attempt("getent passwd octoserve").await?;
    ensure!(!user.status.success(), "the user is still there");
    let left = chroot
        .run("find / -xdev -name '*octoserve*' -not -path '/tmp/*'")
        .await?;
    assert_eq!(left.trim(), "");
    Ok(())
}

#[tokio::test]
async fn the_archive_has_checksums_and_an_sbom_and_is_reproducible() -> Result<()> {
    let directory = TempDir::new()?;
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let sums = make("dist.sh", &first).await?;
    assert_eq!(make("dist.sh", &second).await?, sums, "not reproducible");
    let check = format!("cd '{}' && sha256sum --check SHA256SUMS", text(&first)?);
    tools::run("sh", &["-c", &check]).await?;
    let names: Vec<_> = sums
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(names.len(), 3, "{sums}");
    let file = |end: &str| {
        let name = names.iter().find(|name| name.ends_with(end));
        name.map(|name| first.join(name))
            .with_context(|| format!("no {end} in {sums}"))
    };

    let archive = file(".tar.gz")?;
    tools::run(
        "tar",
        &["-xzf", text(&archive)?, "-C", text(directory.path())?],
    )
    .await?;
    let name = archive
        .file_name()
        .and_then(|name| name.to_str())
        .context("a name")?;
    let root = directory.path().join(name.trim_end_matches(".tar.gz"));
    for program in ["octoserve", "octoserve-registry"] {
        let path = root.join("bin").join(program);
        let version = tools::run(text(&path)?, &["--version"]).await?;
        ensure!(version.starts_with(program), "{version}");
    }
    for file in [
        "LICENSE",
        "README.md",
        "docs/configuration.md",
        "examples/kubernetes/helm/octoserve/Chart.yaml",
        "share/man/man1/octoserve.1",
        "share/bash-completion/completions/octoserve",
        "packaging/systemd/octoserve.service",
    ] {
        let metadata =
            std::fs::symlink_metadata(root.join(file)).with_context(|| file.to_owned())?;
        ensure!(metadata.is_file() && metadata.len() > 0, "{file}");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644, "{file}");
    }
    // A directory of its own, where the repository has a link.
    let rules = root.join("examples/kubernetes/helm/octoserve/rules");
    ensure!(std::fs::symlink_metadata(rules)?.is_dir());
    assert_eq!(
        std::fs::metadata(root.join("bin/octoserve"))?.mode() & 0o777,
        0o755
    );

    linked(&root)?;
    complete(&file(".cdx.json")?)
}

/// Each crate of the list is in Cargo.lock, and each reference leads to one.
fn complete(sbom: &Path) -> Result<()> {
    let sbom: Value = serde_json::from_str(&std::fs::read_to_string(sbom)?)?;
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    let components = sbom["components"].as_array().context("no components")?;
    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock"))?;
    let mut references = BTreeSet::new();
    for component in components {
        let [name, version] = ["name", "version"].map(|key| component[key].as_str().unwrap_or(""));
        let package = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        ensure!(lock.contains(&package), "{package} is not in Cargo.lock");
        ensure!(
            component["licenses"][0]["expression"].is_string(),
            "{component}"
        );
        ensure!(
            component["hashes"].is_array() || name.starts_with("octoserve-"),
            "{component}"
        );
        references.insert(component["bom-ref"].as_str().context("no reference")?);
    }
    for name in ["ring", "tokio", "rustls", "octoserve-service"] {
        let is_there = references
            .iter()
            .any(|reference| reference.starts_with(&format!("pkg:cargo/{name}@")));
        ensure!(is_there, "{name} is missing");
    }
    for name in ["proptest", "serde_derive", "cc"] {
        let is_there = references
            .iter()
            .any(|reference| reference.starts_with(&format!("pkg:cargo/{name}@")));
        ensure!(!is_there, "{name} is in no program");
    }
    for dependency in sbom["dependencies"].as_array().context("no dependencies")? {
        for reference in dependency["dependsOn"].as_array().into_iter().flatten() {
            let reference = reference.as_str().context("a reference of text")?;
            ensure!(
                references.contains(reference),
                "{reference} is no component"
            );
        }
    }
    Ok(())
}
