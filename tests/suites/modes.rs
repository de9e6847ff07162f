//! The modes of files and directories that the programs create, whatever umask they inherit.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::octoserve::Launch;

/// Checks and counts everything in a data directory.
fn check(path: &Path) -> Result<usize> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let expected = match (metadata.is_dir(), path.ends_with("data/lock")) {
        (true, _) => 0o750,
        (false, true) => 0o600,
        (false, false) => 0o640,
    };
    ensure!(mode == expected, "{}: {mode:o}", path.display());
    let mut checked = 1;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            checked += check(&entry?.path())?;
        }
    }
    Ok(checked)
}

#[tokio::test]
async fn files_are_0640_and_directories_0750_whatever_the_umask() -> Result<()> {
    for umask in ["000", "077"] {
        for launch in [Launch::registry(), Launch::all_in_one()] {
            let shell = format!("umask {umask}; exec \"$@\"");
            let words = ["sh", "-c", &shell, "sh"].map(OsString::from);
            let server = launch.under(words.into()).start().await?;
            let client = Client::new(&server.url(""))?;
            client.push_image("team/app", "1", &[1]).await?;
            let open = client.open_upload("team/app").await?;
            let sent = client.send(reqwest::Method::PATCH, &open, &[], "x").await?;
            ensure!(sent.status() == 202, "{}", sent.status());
            let checked = check(server.data())?;
            ensure!(checked > 20, "{checked} files");
        }
    }
    Ok(())
}
