//! Files that somebody may be writing.

use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use super::error::ConfigError;
use super::files::expanded;
use crate::small_file;

/// How long the files must stay as they are.
const QUIET: Duration = Duration::from_millis(100);

/// How often they may change meanwhile.
const MOST_CHANGES: usize = 50;

/// Waits until files, and those of directories, stay as they are for a moment. What is cut off at the end of
/// a line is often valid, and says less than was meant: an editor may be in the middle of it. For the same
/// reason this fails if a file says nothing at all. Blocks the thread.
#[expect(clippy::disallowed_methods, reason = "a thread for blocking work")]
pub(crate) fn wait_until_settled(given: &[PathBuf]) -> Result<(), ConfigError> {
    let mut last = texts(given)?;
    if last.is_empty() {
        return Ok(());
    }
    for _ in 0..MOST_CHANGES {
        sleep(QUIET);
        let now = texts(given)?;
        if now == last {
            return match now.into_iter().find(|(_, text)| says_nothing(text)) {
                Some((path, _)) => Err(unreadable(path, io::Error::other("it is empty"))),
                None => Ok(()),
            };
        }
        last = now;
    }
    // Nobody knows which of several it was: the first stands for all.
    let (path, _) = last.swap_remove(0);
    Err(unreadable(path, io::Error::other("it keeps changing")))
}

fn texts(given: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, ConfigError> {
    let files = expanded(given)?.into_iter();
    let texts = files.map(|file| match small_file::read_text(&file.path) {
        Ok(text) => Ok((file.path, text)),
        Err(source) => Err(unreadable(file.path, source)),
    });
    texts.collect()
}

fn unreadable(path: PathBuf, source: io::Error) -> ConfigError {
    ConfigError::Unreadable { path, source }
}

fn says_nothing(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || matches!(line, "---" | "...")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_says_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("octoserve.yaml");
        for (text, is_refused) in [
            ("", true),
            ("# nothing\n---\n\n", true),
            ("listen: a\n", false),
            ("# some\n{}\n", false),
        ] {
            fs::write(&path, text).unwrap();
            let settled = wait_until_settled(std::slice::from_ref(&path));
            assert_eq!(settled.is_err(), is_refused, "{text:?}: {settled:?}");
        }
        // In a directory each file counts.
        fs::write(directory.path().join("more.yaml"), "").unwrap();
        let error = wait_until_settled(&[directory.path().to_owned()]).unwrap_err();
        assert!(
            error.to_string().ends_with("more.yaml: it is empty"),
            "{error}"
        );
        assert!(wait_until_settled(&[]).is_ok());
        fs::remove_file(&path).unwrap();
        assert!(wait_until_settled(std::slice::from_ref(&path)).is_err());
    }
}
