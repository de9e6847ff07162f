//! One way through all content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use service::log::causes;

use super::super::data_directory::DataDirectory;
use super::super::layout::Shard;
use super::cursor::{self, Position, ScrubCursor};
use super::hashing::{Content, ReadFile, ScrubFinding, verify};
use super::pacing::Pacing;
use super::parts::parts;
use super::quarantine::quarantine;
use super::report::{CorruptContent, Corruption, Holders, ScrubError, ScrubReport};
use super::shard_names::ShardNames;
use crate::store::maintenance::Run;

/// How often the cursor is written.
const KEPT_EVERY: Duration = Duration::from_secs(10);

/// So many items in a row that the disk cannot return mean that the disk fails, and not the items.
const FAILING: usize = 16;

/// One way through all content.
pub(super) struct Pass<'a> {
    pub(super) data: &'a Arc<DataDirectory>,
    quarantine: bool,
    pub(super) pacing: Pacing<'a>,
    pub(super) cursor: ScrubCursor,
    kept: Instant,
    /// Where everything before it is settled: nothing of it is in `unreadable`.
    settled: Position,
    /// What the disk could not return since it last returned something.
    unreadable: Vec<(Content, ReadFile, Corruption)>,
    returned_any: bool,
}

impl<'a> Pass<'a> {
    /// One that continues where an interrupted one was.
    pub(super) fn new(data: &'a Arc<DataDirectory>, quarantine: bool, pacing: Pacing<'a>) -> Self {
        let cursor = cursor::read(&data.layout, quarantine);
        let mut cursor = cursor.unwrap_or_else(|| ScrubCursor::start(quarantine));
        cursor.report.continued = cursor.at != Position::default();
        Self {
            data,
            quarantine,
            pacing,
            settled: cursor.at.clone(),
            cursor,
            kept: Instant::now(),
            unreadable: Vec::new(),
            returned_any: false,
        }
    }

    /// What it found.
    pub(super) fn report(self) -> ScrubReport {
        self.cursor.report
    }

    /// Goes to the end.
    pub(super) fn run(&mut self, run: &Run) -> Result<(), ScrubError> {
        let parts: Vec<_> = parts().collect();
        run.begin("content", Some(parts.len() as u64));
        run.advance(self.cursor.at.part as u64);
        while let Some(&shard) = parts.get(self.cursor.at.part) {
            self.scrub_shard(shard)?;
            // A directory that is lost looks like an empty one.
            self.data.root.check()?;
            self.cursor.at.part += 1;
            self.cursor.at.after = None;
            run.advance(1);
            self.keep_cursor_sometimes();
        }
        self.settle_unreadable()?;
        // What follows may be interrupted. Then nothing of this is done again.
        self.settled.clone_from(&self.cursor.at);
        self.repositories(run)
    }

    fn scrub_shard(&mut self, shard: Shard) -> Result<(), ScrubError> {
        let directory = self.data.layout.shard(shard);
        let after = self.cursor.at.after.clone();
        let mut names = ShardNames::new(shard, directory, after);
        loop {
            self.pacing.pause()?;
            let next = match names.next() {
                Ok(next) => next,
                Err(error) => {
                    self.data.root.check()?;
                    self.cursor.report.unchecked += 1;
                    tracing::warn!(error = causes(&error), "content not checked");
                    return Ok(());
                }
            };
            let Some(digest) = next else {
                self.cursor.report.foreign += names.foreign();
                return Ok(());
            };
            let content = Content {
                path: self.data.layout.content(shard.pool, &digest),
                pool: shard.pool,
                digest,
            };
            self.check(&content)?;
            self.cursor.at.after = Some(content.digest.hex().to_owned());
            self.keep_cursor_sometimes();
        }
    }

    fn check(&mut self, content: &Content) -> Result<(), ScrubError> {
        match verify(content, &mut self.pacing)? {
            ScrubFinding::Sound { bytes } => {
                let report = &mut self.cursor.report;
                report.checked += 1;
                report.bytes += bytes;
                self.returned_any = true;
                self.settle_unreadable()?;
            }
            ScrubFinding::Wrong { bytes, file } => {
                self.cursor.report.bytes += bytes;
                self.returned_any = true;
                self.settle_unreadable()?;
                self.found(content, &file, &Corruption::Digest)?;
            }
            ScrubFinding::Unreadable { file, error } => {
                let corruption = Corruption::Unreadable(error.to_string());
                self.unreadable.push((content.clone(), file, corruption));
                if self.unreadable.len() >= FAILING {
                    return Err(ScrubError::Failing { items: FAILING });
                }
            }
            ScrubFinding::Unchecked(error) => {
                self.cursor.report.unchecked += 1;
                let path = content.path.display();
                tracing::warn!(%path, %error, "content not checked");
            }
            ScrubFinding::Foreign => self.cursor.report.foreign += 1,
            ScrubFinding::Absent => {}
        }
        Ok(())
    }

    /// What could not be read is damaged, now that the disk has returned something else. Where it has
    /// returned nothing, it is the disk, and nothing is moved.
    fn settle_unreadable(&mut self) -> Result<(), ScrubError> {
        for (content, file, corruption) in std::mem::take(&mut self.unreadable) {
            self.found(&content, &file, &corruption)?;
        }
        Ok(())
    }

    fn found(
        &mut self,
        content: &Content,
        file: &ReadFile,
        corruption: &Corruption,
    ) -> Result<(), ScrubError> {
        let (pool, path) = (content.pool.directory(), content.path.display());
        let (digest, reason) = (&content.digest, corruption.to_string());
        let mut quarantined = false;
        if self.quarantine && self.returned_any {
            match quarantine(self.data, content, file) {
                Ok(true) => quarantined = true,
                // A push has replaced it, or a deletion removed it.
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.data.root.check()?;
                    let error = causes(&error);
                    tracing::error!(%digest, error, "corrupt content not quarantined");
                }
            }
        }
        tracing::error!(%digest, pool, %path, reason, quarantined, "corrupt content");
        self.cursor.report.add(CorruptContent {
            pool: pool.to_owned(),
            digest: content.digest.clone(),
            reason,
            quarantined,
            holders: Holders::default(),
        });
        Ok(())
    }

    fn keep_cursor_sometimes(&mut self) {
        if self.unreadable.is_empty() {
            self.settled.clone_from(&self.cursor.at);
        }
        if self.kept.elapsed() >= KEPT_EVERY {
            self.keep_cursor();
        }
    }

    /// Has the next run continue here.
    pub(super) fn keep_cursor(&mut self) {
        self.kept = Instant::now();
        // What could not be read is looked at again by the next run.
        if let Err(error) = cursor::write(self.data, &self.cursor.starting_at(&self.settled)) {
            let error = causes(&error);
            tracing::warn!(error, "how far the scrub is was not kept");
        }
    }
}
