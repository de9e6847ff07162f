//! Notes which sources and which compiler this build is of, for `build_info` and `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = output(&rustc, &["--version"]).unwrap_or_default();
    let rustc = rustc.split(' ').nth(1).unwrap_or("unknown").to_owned();
    // An image is built from a directory without its history: the build says what it builds.
    let revision = std::env::var("OCTOSERVE_REVISION")
        .ok()
        .or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=OCTOSERVE_RUSTC={rustc}");
    println!("cargo::rustc-env=OCTOSERVE_REVISION={revision}");
    println!("cargo::rerun-if-env-changed=OCTOSERVE_REVISION");
    // A path that does not exist would make every build a new one.
    let head = "../.git/logs/HEAD";
    if Path::new(head).exists() {
        println!("cargo::rerun-if-changed={head}");
    } else {
        println!("cargo::rerun-if-changed=build.rs");
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
