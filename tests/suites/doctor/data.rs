//! The registry's data directory.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use harness::octoserve::Program;
use harness::tools;
use tempfile::TempDir;

use super::{Report, report};

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_a_failure() -> Result<()> {
    let directory = TempDir::new()?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let of = async |more: &str| {
        let text = format!(
            "listen: 127.0.0.1:0\nregistry: {{data: '{}'{more}}}\n",
            data.display()
        );
        report(&text).await
    };
    of("")
        .await?
        .expect("data directory", "lock", "ok", "no registry has used it")?;
    let full = of(", reserve: 1000TiB").await?;
    full.expect("data directory", "free space", "fail", "pushes are refused")?;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777))?;
    of("")
        .await?
        .expect("data directory", "mode", "warn", "0777")?;
    std::fs::write(data.join("lock"), "distribution\n")?;
    of("")
        .await?
        .expect("data directory", "lock", "fail", "layout")?;
    std::fs::remove_dir_all(&data)?;
    std::fs::write(&data, "")?;
    let file = of("").await?;
    file.expect("data directory", "directory", "fail", "no directory")?;
    assert_eq!(file.code, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_read_only_file_system_is_named_even_to_root() -> Result<()> {
    let directory = TempDir::new()?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let program = Program::Registry.path()?;
    let words = [
        "--mount",
        "sh",
        "-euc",
        "mount -t tmpfs -o ro,size=1m none \"$1\"; exec \"$0\" doctor --json --listen 127.0.0.1:0 --data \"$1$2\"",
        program.to_str().context("a path of UTF-8")?,
        data.to_str().context("a path of UTF-8")?,
    ];
    for (below, said) in [
        ("", "the file system is read-only"),
        ("/new", "cannot be made in"),
    ] {
        let output = tools::attempt("unshare", &[&words[..], &[below]].concat()).await?;
        let report = Report::of(&output)?;
        report.expect("data directory", "directory", "fail", said)?;
        report.expect("data directory", "directory", "fail", "read-only")?;
        assert_eq!(report.code, Some(1));
    }
    Ok(())
}
