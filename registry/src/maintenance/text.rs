//! Reports of jobs, for a person.

use std::fmt;

use service::quantity;

use super::job::JobReport;
use crate::oci::Name;
use crate::retention::{RepositoryReport, RetentionDeletion, RetentionReport};
use crate::store::fs::{CorruptContent, GcReport, Holders, MissingContent, ScrubReport, TakenItem};
use crate::store::maintenance::LeftItem;

impl fmt::Display for JobReport {
    /// In lines; the first is the summary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gc { dry_run, report } => gc(f, *dry_run, report),
            Self::Scrub(report) => scrub(f, report),
            Self::Retention(report) => retention(f, report),
        }
    }
}

fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn size(bytes: u64) -> String {
    quantity::bytes(bytes as f64)
}

fn gc(f: &mut fmt::Formatter<'_>, dry_run: bool, report: &GcReport) -> fmt::Result {
    let blobs = number(report.blobs, "blob", "blobs");
    let manifests = number(report.manifests, "manifest", "manifests");
    let freed = size(report.freed);
    if dry_run {
        writeln!(
            f,
            "would remove {blobs} and {manifests}, and free {freed}; nothing was removed"
        )?;
    } else {
        writeln!(f, "removed {blobs} and {manifests}, and freed {freed}")?;
    }
    let repositories = number(report.repositories, "repository", "repositories");
    let entries = number(report.entries, "manifest", "manifests");
    let links = number(report.links, "blob", "blobs");
    let taken = if dry_run { "would take" } else { "took" };
    writeln!(
        f,
        "examined {repositories}, and {taken} {entries} and {links} from them"
    )?;
    for one in &report.taken {
        let TakenItem {
            repository,
            pool,
            digest,
        } = one;
        writeln!(f, "takes {pool}/{digest} from {repository}")?;
    }
    let more = (report.entries + report.links).saturating_sub(report.taken.len() as u64);
    // An older registry names none.
    if more > 0 && !report.taken.is_empty() {
        writeln!(f, "and {more} more")?;
    }
    left_as_it_is(f, &report.left, report.skipped)?;
    if report.keeps_content {
        writeln!(
            f,
            "all content was kept, since not all repositories could be read"
        )?;
    }
    if report.busy > 0 {
        let busy = number(report.busy, "repository", "repositories");
        writeln!(
            f,
            "{busy} changed all the time: left for the next collection"
        )?;
    }
    Ok(())
}

fn scrub(f: &mut fmt::Formatter<'_>, report: &ScrubReport) -> fmt::Result {
    let checked = number(
        report.checked,
        "blob or manifest is",
        "blobs and manifests are",
    );
    let read = size(report.bytes);
    let continued = if report.continued {
        ", with what an interrupted run had read"
    } else {
        ""
    };
    let corrupt = match report.corrupt {
        0 => "nothing is corrupt".to_owned(),
        count => format!(
            "{count} corrupt, {} of them quarantined",
            report.quarantined
        ),
    };
    writeln!(
        f,
        "{corrupt}; {checked} what the digest says, {read} read{continued}"
    )?;
    for one in &report.found {
        writeln!(f, "{}", corrupt_line(one))?;
    }
    let more = report.corrupt.saturating_sub(report.found.len() as u64);
    if more > 0 {
        writeln!(f, "and {more} more: see the log")?;
    }
    if report.missing > 0 {
        let missing = number(
            report.missing,
            "blob or manifest is missing",
            "blobs and manifests are missing",
        );
        writeln!(f, "{missing} that a repository holds")?;
    }
    for one in &report.absent {
        let MissingContent {
            pool,
            digest,
            quarantined,
            holders,
        } = one;
        let why = if *quarantined { "quarantined" } else { "gone" };
        writeln!(f, "missing {pool}/{digest} {}: {why}", held_by(holders))?;
    }
    if report.absent.len() >= ScrubReport::LISTED {
        writeln!(f, "there may be more: see the log")?;
    }
    if report.corrupt > report.quarantined {
        writeln!(
            f,
            "scrub --repair moves what is corrupt to the quarantine, and a push stores it again"
        )?;
    } else if report.corrupt + report.missing > 0 {
        writeln!(f, "a push of the same content stores it again")?;
    }
    if report.unchecked > 0 {
        let unchecked = number(report.unchecked, "file", "files");
        writeln!(f, "{unchecked} could not be checked: see the log")?;
    }
    Ok(())
}

fn retention(f: &mut fmt::Formatter<'_>, report: &RetentionReport) -> fmt::Result {
    let total = &report.total;
    let tags = number(total.tags_deleted, "tag", "tags");
    let manifests = number(total.manifests_deleted, "manifest", "manifests");
    let kept = number(total.tags_kept.total(), "tag", "tags");
    if report.dry_run {
        writeln!(
            f,
            "would delete {tags} and {manifests}, and keep {kept}; nothing was deleted"
        )?;
    } else {
        writeln!(f, "deleted {tags} and {manifests}, and kept {kept}")?;
    }
    for one in &report.page {
        writeln!(f, "{}", repository_line(one))?;
    }
    left_out(f, report.repositories, report.page.len())?;
    for one in &report.deletions {
        writeln!(f, "{}", deletion_line(one))?;
    }
    let deleted = total.tags_deleted + total.manifests_deleted;
    left_out(f, deleted, report.deletions.len())?;
    left_as_it_is(f, &report.left, report.failures)
}

/// What could not be read or changed, and stays as it is.
fn left_as_it_is(f: &mut fmt::Formatter<'_>, left: &[LeftItem], all: u64) -> fmt::Result {
    for LeftItem { repository, reason } in left {
        match repository {
            Some(repository) => writeln!(f, "leaves {repository} as it is: {reason}")?,
            None => writeln!(f, "leaves something as it is: {reason}")?,
        }
    }
    if left.is_empty() && all > 0 {
        // Of an older registry.
        let items = number(all, "item was", "items were");
        return writeln!(f, "{items} left as before: see the log");
    }
    left_out(f, all, left.len())
}

/// Says how many more there are than were told.
fn left_out(f: &mut fmt::Formatter<'_>, all: u64, told: usize) -> fmt::Result {
    match all.saturating_sub(told as u64) {
        0 => Ok(()),
        more => writeln!(f, "and {more} more: see the log"),
    }
}

/// What was kept of a repository, and why.
fn repository_line(one: &RepositoryReport) -> String {
    let RepositoryReport {
        repository,
        rule,
        counts,
    } = one;
    let rule = match rule {
        Some(rule) => format!("rule {rule}"),
        None => "no rule".to_owned(),
    };
    format!("{repository} ({rule}) keeps {counts}")
}

fn deletion_line(one: &RetentionDeletion) -> String {
    let RetentionDeletion {
        repository,
        tag,
        digest,
        reason,
    } = one;
    match tag {
        Some(tag) => format!("deletes {repository}:{tag} at {digest}: {reason}"),
        None => format!("deletes {repository}@{digest}: {reason}"),
    }
}

fn corrupt_line(one: &CorruptContent) -> String {
    let state = if one.quarantined {
        "quarantined"
    } else {
        "corrupt"
    };
    let held = held_by(&one.holders);
    format!("{state} {}/{} {held}: {}", one.pool, one.digest, one.reason)
}

fn held_by(holders: &Holders) -> String {
    let names: Vec<_> = holders.repositories.iter().map(Name::as_str).collect();
    match (names.as_slice(), holders.more_repositories) {
        ([], _) => "in no repository".to_owned(),
        (_, 0) => format!("in {}", names.join(", ")),
        (_, more) => format!("in {} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Digest};
    use crate::retention::RetentionCounts;

    #[test]
    fn a_collection_is_told_in_figures() {
        let report = GcReport {
            repositories: 3,
            links: 2,
            entries: 1,
            blobs: 2,
            manifests: 1,
            freed: 3 << 20,
            skipped: 2,
            left: vec![LeftItem {
                repository: Some("team/app".to_owned()),
                reason: "a tag is damaged".to_owned(),
            }],
            keeps_content: true,
            taken: vec![TakenItem {
                repository: "team/app".to_owned(),
                pool: "blobs".to_owned(),
                digest: Digest::of(Algorithm::Sha256, b""),
            }],
            busy: 2,
        };
        let text = |dry_run| {
            let report = report.clone();
            JobReport::Gc { dry_run, report }.to_string()
        };
        assert_eq!(
            text(false),
            "removed 2 blobs and 1 manifest, and freed 3 MiB\n\
             examined 3 repositories, and took 1 manifest and 2 blobs from them\n\
             takes blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 from team/app\n\
             and 2 more\n\
             leaves team/app as it is: a tag is damaged\n\
             and 1 more: see the log\n\
             all content was kept, since not all repositories could be read\n\
             2 repositories changed all the time: left for the next collection\n"
        );
        assert!(text(true).starts_with("would remove 2 blobs and 1 manifest, and free 3 MiB;"));
    }

    #[test]
    fn the_report_of_an_older_registry_is_told_in_figures_alone() {
        let report = r#"{"job": "gc", "dry_run": false, "repositories": 1, "links": 4, "entries": 1,
            "blobs": 4, "manifests": 1, "freed": 0, "skipped": 2}"#;
        let report: JobReport = serde_json::from_str(report).unwrap();
        assert_eq!(
            report.to_string(),
            "removed 4 blobs and 1 manifest, and freed 0 B\n\
             examined 1 repository, and took 1 manifest and 4 blobs from them\n\
             2 items were left as before: see the log\n"
        );
    }

    #[test]
    fn a_retention_tells_what_it_kept_and_why_and_what_it_deleted() {
        let mut report = RetentionReport {
            dry_run: true,
            repositories: 2,
            failures: 1,
            left: vec![LeftItem {
                repository: Some("b".to_owned()),
                reason: "it cannot be read".to_owned(),
            }],
            ..RetentionReport::default()
        };
        report.total.tags_deleted = 2;
        report.total.tags_kept.newest = 10;
        let mut counts = report.total;
        counts.tags_kept.pulled = 1;
        report.page = vec![
            RepositoryReport {
                repository: "team/app".to_owned(),
                rule: Some(0),
                counts,
            },
            RepositoryReport {
                repository: "b".to_owned(),
                rule: None,
                counts: RetentionCounts::default(),
            },
        ];
        report.deletions = vec![RetentionDeletion {
            repository: "team/app".to_owned(),
            tag: Some("1".to_owned()),
            digest: "sha256:00".to_owned(),
            reason: "pushed 9 days ago".to_owned(),
        }];
        assert_eq!(
            JobReport::Retention(report).to_string(),
            "would delete 2 tags and 0 manifests, and keep 10 tags; nothing was deleted\n\
             team/app (rule 0) keeps 10 newest, 1 pulled\n\
             b (no rule) keeps nothing\n\
             deletes team/app:1 at sha256:00: pushed 9 days ago\n\
             and 1 more: see the log\n\
             leaves b as it is: it cannot be read\n"
        );
    }

    #[test]
    fn what_is_corrupt_is_told_with_who_holds_it() {
        let mut report = ScrubReport {
            checked: 7,
            bytes: 1024,
            ..ScrubReport::default()
        };
        let text = |report: &ScrubReport| JobReport::Scrub(report.clone()).to_string();
        assert_eq!(
            text(&report),
            "nothing is corrupt; 7 blobs and manifests are what the digest says, 1 KiB read\n"
        );
        let digest = Digest::of(Algorithm::Sha256, b"");
        report.corrupt = 2;
        report.found = vec![CorruptContent {
            pool: "blobs".to_owned(),
            digest: digest.clone(),
            reason: "its bytes have another digest".to_owned(),
            quarantined: false,
            holders: Holders {
                repositories: vec![Name::parse("a/b").unwrap()],
                more_repositories: 3,
            },
        }];
        report.missing = 2;
        report.absent = vec![MissingContent {
            pool: "manifests".to_owned(),
            digest: digest.clone(),
            quarantined: true,
            holders: Holders::default(),
        }];
        let lines = text(&report);
        assert!(
            lines.contains(&format!(
                "\ncorrupt blobs/{digest} in a/b and 3 more: its bytes have another digest\nand 1 more: see"
            )),
            "{lines}"
        );
        assert!(
            lines.contains(&format!(
                "\n2 blobs and manifests are missing that a repository holds\n\
                 missing manifests/{digest} in no repository: quarantined\n"
            )),
            "{lines}"
        );
        assert!(lines.contains("scrub --repair"), "{lines}");
    }
}
