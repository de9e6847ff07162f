//! The items of a directory of content, in order, in bounded memory.

use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::vec::IntoIter;

use super::super::file::each_entry;
use super::super::layout::Shard;
use crate::oci::Digest;
use crate::store::Result;

/// The most names in memory at a time: a larger directory is read several times.
const WINDOW: usize = 10_000;

/// The digests of a directory, from the smallest on.
pub(super) struct ShardNames {
    shard: Shard,
    directory: PathBuf,
    window: IntoIter<String>,
    /// What the windows so far ended with.
    after: Option<String>,
    is_last: bool,
    foreign: u64,
}

impl ShardNames {
    /// The names that come after one, or all of them.
    pub(super) fn new(shard: Shard, directory: PathBuf, after: Option<String>) -> Self {
        Self {
            shard,
            directory,
            window: Vec::new().into_iter(),
            after,
            is_last: false,
            foreign: 0,
        }
    }

    /// How many files were there that are named after no digest of this directory.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign
    }

    /// The next digest.
    pub(super) fn next(&mut self) -> Result<Option<Digest>> {
        loop {
            if let Some(name) = self.window.next() {
                // It was one when the directory was read.
                if let Some(digest) = digest(self.shard, &name) {
                    return Ok(Some(digest));
                }
            } else if self.is_last {
                return Ok(None);
            } else {
                self.read_window(WINDOW)?;
            }
        }
    }

    fn read_window(&mut self, size: usize) -> Result<()> {
        let mut names = BinaryHeap::new();
        let (mut foreign, mut is_last) = (0, true);
        each_entry(&self.directory, |entry| {
            let file = entry.file_name();
            let Some(name) = file
                .to_str()
                .filter(|name| digest(self.shard, name).is_some())
            else {
                foreign += 1;
                return Ok(());
            };
            if self.after.as_deref().is_some_and(|after| name <= after) {
                return Ok(());
            }
            names.push(name.to_owned());
            if names.len() > size {
                // The largest: a later window has it.
                names.pop();
                is_last = false;
            }
            Ok(())
        })?;
        let names = names.into_sorted_vec();
        if let Some(last) = names.last() {
            self.after = Some(last.clone());
        }
        self.window = names.into_iter();
        (self.foreign, self.is_last) = (foreign, is_last);
        Ok(())
    }
}

/// The digest that a file of a shard is named after; `None` if it is named otherwise, or is in the wrong
/// directory.
fn digest(shard: Shard, name: &str) -> Option<Digest> {
    let digest = Digest::parse(&format!("{}:{name}", shard.algorithm.as_str())).ok()?;
    (Shard::of(shard.pool, &digest) == shard).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::store::fs::layout::Pool;

    #[test]
    fn all_names_come_once_in_order_whatever_the_window_and_strangers_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let shard = Shard {
            pool: Pool::Blobs,
            algorithm: Algorithm::Sha256,
            prefix: 0xab,
        };
        let name = |number: u64| format!("ab{number:062x}");
        for number in 0..25 {
            std::fs::write(directory.path().join(name(number)), "").unwrap();
        }
        for stranger in [
            "x",
            "ab",
            &name(1).to_uppercase(),
            &name(0).replace("ab", "ac"),
        ] {
            std::fs::write(directory.path().join(stranger), "").unwrap();
        }
        for (window, after) in [
            (1, None),
            (7, None),
            (25, None),
            (100, Some(9)),
            (3, Some(24)),
        ] {
            let start = after.map(&name);
            let mut names = ShardNames::new(shard, directory.path().to_owned(), start);
            let mut found = Vec::new();
            while !names.is_last || names.window.len() > 0 {
                if names.window.len() == 0 {
                    names.read_window(window).unwrap();
                }
                found.extend(names.next().unwrap().map(|digest| digest.hex().to_owned()));
            }
            let expected: Vec<_> = (after.map_or(0, |after| after + 1)..25).map(name).collect();
            assert_eq!(found, expected, "{window}");
            assert_eq!(names.foreign(), 4);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        let shard = Shard {
            pool: Pool::Blobs,
            algorithm: Algorithm::Sha256,
            prefix: 0,
        };
        let mut names = ShardNames::new(shard, "/does/not/exist".into(), None);
        assert_eq!(names.next().unwrap(), None);
    }
}
