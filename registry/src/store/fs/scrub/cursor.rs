//! How far a scrub is, in `maintenance/scrub`, so that the next run continues there.

use std::io::Read as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::data_directory::DataDirectory;
use super::super::disk;
use super::super::durable::Draft;
use super::super::layout::Layout;
use super::parts::parts;
use super::report::ScrubReport;
use crate::store::Result;

/// The longest file that is read: twice a hundred items with ten repositories each fit.
const LONGEST: u64 = 1 << 20;

/// How far a run is, and what it has found so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScrubCursor {
    /// Whether the run quarantines. A run that does must not continue one that only reported.
    quarantine: bool,
    pub(super) at: Position,
    pub(super) report: ScrubReport,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The index of the directory that it is at, of all [`parts`].
    pub(super) part: usize,
    /// The last name in it that was checked.
    pub(super) after: Option<String>,
}

impl ScrubCursor {
    pub(super) fn start(quarantine: bool) -> Self {
        Self {
            quarantine,
            at: Position::default(),
            report: ScrubReport::default(),
        }
    }

    /// The same at another position.
    pub(super) fn starting_at(&self, at: &Position) -> Self {
        Self {
            at: at.clone(),
            ..self.clone()
        }
    }

    /// Whether a run can continue here.
    fn fits(&self, quarantine: bool) -> bool {
        self.quarantine == quarantine
            && self.at.part <= parts().count()
            && self.report.found.len() <= ScrubReport::LISTED
            && self.report.absent.len() <= ScrubReport::LISTED
    }
}

fn path(layout: &Layout) -> PathBuf {
    layout.maintenance().join("scrub")
}

/// Where an interrupted run was; `None` where there was none, or nobody can tell.
pub(super) fn read(layout: &Layout, quarantine: bool) -> Option<ScrubCursor> {
    let file = disk::open(&path(layout)).ok()?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    let mut cursor: ScrubCursor = serde_json::from_slice(&text).ok()?;
    cursor.report.corrupt_now = 0;
    Some(cursor).filter(|cursor| cursor.fits(quarantine))
}

/// Writes the file, in one step.
pub(super) fn write(data: &DataDirectory, cursor: &ScrubCursor) -> Result<()> {
    let text = serde_json::to_vec(cursor).unwrap_or_default();
    let draft = Draft::write(data, &text)?.sync(data)?;
    // Its name need not be synced: an older cursor only has more to check.
    let _ = draft.place(data, &path(&data.layout))?;
    Ok(())
}

/// Removes the file: the next run begins at the start.
pub(super) fn remove(layout: &Layout) {
    // If it stays, the next run only checks less than all.
    let _ = disk::remove_file(&path(layout));
}
