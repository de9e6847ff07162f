//! A file that somebody may be writing.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::small_file;

/// How long a file must stay as it is.
const QUIET: Duration = Duration::from_millis(100);

/// How often it may change meanwhile.
const MOST_CHANGES: usize = 50;

/// Waits until a file stays as it is for a moment. What is cut off at the end of a line is often valid,
/// and says less than was meant: an editor may be in the middle of it. For the same reason this fails if
/// the file says nothing at all. Blocks the thread.
#[expect(clippy::disallowed_methods, reason = "a thread for blocking work")]
pub(crate) fn wait_until_settled(path: &Path) -> io::Result<()> {
    let mut last = small_file::read_text(path)?;
    for _ in 0..MOST_CHANGES {
        sleep(QUIET);
        let now = small_file::read_text(path)?;
        if now == last {
            return if says_nothing(&now) {
                Err(io::Error::other("it is empty"))
            } else {
                Ok(())
            };
        }
        last = now;
    }
    Err(io::Error::other("it keeps changing"))
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
            let settled = wait_until_settled(&path);
            assert_eq!(settled.is_err(), is_refused, "{text:?}: {settled:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(wait_until_settled(&path).is_err());
    }
}
