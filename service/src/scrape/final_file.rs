//! The last exposition of a process, in a file: to sum counters over restarts and takeovers, since
//! no scrape comes after the last request.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::exposition::Format;
use crate::metrics::MetricsRegistry;

/// What stands for the process's number in a path.
const NUMBER: &str = "%p";

/// Writes the process's own families to a file, in the text format.
#[derive(Clone, Debug)]
pub struct FinalFile(PathBuf);

impl FinalFile {
    /// The file at this path, in whose last part `%p` stands for the number of the process.
    pub fn new(path: &Path) -> Self {
        let number = std::process::id().to_string();
        let name = path.file_name().map(|name| name.to_string_lossy());
        Self(match name {
            Some(name) if name.contains(NUMBER) => {
                path.with_file_name(name.replace(NUMBER, &number))
            }
            _ => path.to_owned(),
        })
    }

    /// Writes it, whole or not at all. A failure is logged: the process ends all the same.
    pub async fn write(&self, registry: &MetricsRegistry) {
        let (registry, path) = (registry.clone(), self.0.clone());
        let written = spawn_blocking(move || {
            let mut text = String::new();
            Format::Text.write(&registry.gather(), &mut text);
            write(&path, &text)
        });
        let path = self.0.display();
        match written.await {
            Ok(Ok(())) => tracing::info!(%path, "wrote the last exposition"),
            Ok(Err(error)) => tracing::error!(%path, %error, "cannot write the last exposition"),
            Err(error) => tracing::error!(%path, %error, "cannot make the last exposition"),
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // A file of this name is left over, or somebody else's, and may be a link.
    let _ = fs::remove_file(&temporary);
    let created = fs::File::create_new(&temporary);
    let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
    let moved = written.and_then(|()| fs::rename(&temporary, path));
    if moved.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_has_the_families_and_the_processs_number() {
        let directory = tempfile::tempdir().unwrap();
        let registry = MetricsRegistry::new("test_");
        registry.build_info("1.2.3", "r", "c");
        let file = FinalFile::new(&directory.path().join("last-%p.prom"));
        file.write(&registry).await;
        let name = format!("last-{}.prom", std::process::id());
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(text.contains("test_build_info{"), "{text}");
        // No half of it is left over.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_no_reason_to_fail() {
        let path = Path::new("/nowhere/at/all/last.prom");
        FinalFile::new(path)
            .write(&MetricsRegistry::new("test_"))
            .await;
        assert!(!path.exists());
    }
}
