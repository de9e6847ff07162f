//! A configuration in several files: secrets apart, directories, and volumes as Kubernetes mounts them.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::process::OutputStream;
use harness::{tools, wire};
use tempfile::TempDir;

/// The origin that a browser may read responses for, by which a test sees what was read.
async fn allowed(server: &Server, origin: &str) -> Result<bool> {
    let request = wire::request("GET", "/v2/", &[("Origin", origin)], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    let allowed = response.head.header("access-control-allow-origin");
    Ok(allowed == Some(origin))
}

fn cors(origin: &str) -> String {
    format!("cors: {{origins: ['{origin}']}}\n")
}

/// What a program prints, and its errors, for these files.
async fn tried(word: &str, files: &[&Path]) -> Result<(Option<i32>, String, String)> {
    let mut words = vec![word.to_owned()];
    for file in files {
        words.push("--config".to_owned());
        words.push(file.to_str().context("UTF-8")?.to_owned());
    }
    let program = Program::Octoserve.path()?;
    let output = tools::attempt(&program.to_string_lossy(), &words).await?;
    Ok((
        output.status.code(),
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    ))
}

#[tokio::test]
async fn secrets_may_be_apart_and_are_masked_in_what_is_printed() -> Result<()> {
    let directory = TempDir::new()?;
    let main = directory.path().join("octoserve.yaml");
    let secret = directory.path().join("secret.yaml");
    std::fs::write(
        &main,
        "metrics:\n  path: /m\n  basic_auth: {username: me}\n",
    )?;
    let hash = "$2b$04$dz9bKp04Yl4EbxRBUdqrre/ZIWbPzRH8zR9VgCPLPH6cPnVgWaSIm";
    std::fs::write(
        &secret,
        format!("metrics: {{basic_auth: {{password_hash: '{hash}'}}}}\n"),
    )?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    let (code, printed, error) = tried("--print-config", &[&main, &secret]).await?;
    assert_eq!(code, Some(0), "{error}");
    ensure!(
        printed.contains("path: /m") && printed.contains("username: me"),
        "{printed}"
    );
    ensure!(
        !printed.contains("$2b$") && printed.contains("********"),
        "{printed}"
    );
    let (code, _, error) = tried("--check", &[&main, &secret]).await?;
    assert_eq!(code, Some(0), "{error}");
    // Without it the first file alone is wrong, and is named.
    let (code, _, error) = tried("--check", &[&main]).await?;
    assert_eq!(code, Some(64));
    let place = format!("{}:3: metrics.basic_auth: ", main.display());
    ensure!(error.contains(&place), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_error_names_the_file_and_line_that_it_is_in() -> Result<()> {
    let directory = TempDir::new()?;
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("10-limits.yaml"), "limits:\n  drain: 1s\n")?;
    std::fs::write(
        path("20-more.yml"),
        "# more\nlimits:\n  idle_timeout: 1ms\n",
    )?;
    std::fs::write(path("notes.txt"), "not: [read\n")?;
    let (code, _, error) = tried("--check", &[directory.path()]).await?;
    assert_eq!(code, Some(64));
    let place = format!(
        "{}:3: limits.idle_timeout: must be from",
        path("20-more.yml").display()
    );
    ensure!(error.contains(&place), "{error}");
    std::fs::write(path("20-more.yml"), "limits: [1]\n")?;
    let (_, _, error) = tried("--check", &[directory.path()]).await?;
    let place = format!("{}:1: limits: ", path("20-more.yml").display());
    ensure!(error.contains(&place), "{error}");
    // A later file takes an error of an earlier one away.
    std::fs::write(path("20-more.yml"), "limits: {drain: soon}\n")?;
    std::fs::write(path("30-last.yaml"), "limits: {drain: 2s}\n")?;
    let (code, printed, error) = tried("--print-config", &[directory.path()]).await?;
    assert_eq!(code, Some(0), "{error}");
    ensure!(printed.contains("drain: 2s"), "{printed}");
    let empty = TempDir::new()?;
    let (code, _, error) = tried("--check", &[empty.path()]).await?;
    assert_eq!(code, Some(64));
    ensure!(
        error.contains("no file *.yaml or *.yml in this directory"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_reload_reads_all_files_again_or_none() -> Result<()> {
    let directory = TempDir::new()?;
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
    write("a.yaml", &cors("https://a.example"))?;
    let mut server = Launch::all_in_one()
        .argument("--config")
        .argument(directory.path())
        .start()
        .await?;
    ensure!(allowed(&server, "https://a.example").await?);
    write("b.yaml", &cors("https://b.example"))?;
    ensure!(server.reload().await?);
    ensure!(allowed(&server, "https://b.example").await?);
    ensure!(!allowed(&server, "https://a.example").await?);
    write("c.yaml", "cors:\n  origns: []\n")?;
    ensure!(!server.reload().await?);
    ensure!(allowed(&server, "https://b.example").await?);
    let log = server.process().output(OutputStream::Stderr)?;
    let place = format!(
        "{}:2: cors.origns: unknown key, did you mean origins?",
        directory.path().join("c.yaml").display()
    );
    ensure!(log.contains(&place), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_volume_of_kubernetes_is_read_through_its_links() -> Result<()> {
    let directory = TempDir::new()?;
    let path = |name: &str| directory.path().join(name);
    let revision = |name: &str, text: &str| -> Result<()> {
        std::fs::create_dir(path(name))?;
        Ok(std::fs::write(path(name).join("octoserve.yaml"), text)?)
    };
    revision("..2026_1", &cors("https://one.example"))?;
    symlink("..2026_1", path("..data"))?;
    symlink("..data/octoserve.yaml", path("octoserve.yaml"))?;
    let server = Launch::all_in_one()
        .argument("--config")
        .argument(directory.path())
        .start()
        .await?;
    ensure!(allowed(&server, "https://one.example").await?);
    // As the kubelet replaces it, by one rename.
    revision("..2026_2", &cors("https://two.example"))?;
    symlink("..2026_2", path("..data_tmp"))?;
    std::fs::rename(path("..data_tmp"), path("..data"))?;
    std::fs::remove_dir_all(path("..2026_1"))?;
    ensure!(server.reload().await?);
    ensure!(allowed(&server, "https://two.example").await?);
    Ok(())
}
