//! Why something is deleted, for a person.

use std::time::{Duration, SystemTime};

use super::settings::Keep;
use super::tags::TagSubject;
use crate::store::fs::LastPull;

/// Why no condition keeps a tag: what each of them looked at.
pub(super) fn of_tag(
    keep: &Keep,
    pushed: SystemTime,
    last_pull: LastPull,
    now: SystemTime,
) -> String {
    let mut parts = Vec::new();
    if let Some(newest) = keep.newest {
        parts.push(format!("not among the newest {newest}"));
    }
    if !keep.tags.is_empty() {
        parts.push("matches no pattern".to_owned());
    }
    parts.push(format!("pushed {} ago", age(pushed, now)));
    if keep.pulled_within.is_some() {
        let age = age(last_pull.at, now);
        parts.push(if last_pull.is_known {
            format!("pulled {age} ago")
        } else {
            format!("not pulled for {age}")
        });
    }
    parts.join(", ")
}

/// Why the tag of a referrer goes.
pub(super) fn of_referrer(subject: &TagSubject, pushed: SystemTime, now: SystemTime) -> String {
    format!(
        "its subject {subject} is gone, pushed {} ago",
        age(pushed, now)
    )
}

/// Why a manifest without a tag goes.
pub(super) fn of_manifest(used: SystemTime, now: SystemTime) -> String {
    format!("no tag leads to it, not used for {}", age(used, now))
}

/// A length of time in one unit.
fn age(time: SystemTime, now: SystemTime) -> String {
    let age = now.duration_since(time).unwrap_or(Duration::ZERO).as_secs();
    // Never "1 day": from two of a unit on it is exact enough.
    for (seconds, unit) in [(86_400, "days"), (3600, "hours"), (60, "minutes")] {
        if age >= 2 * seconds {
            return format!("{} {unit}", age / seconds);
        }
    }
    format!("{age} s")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::oci::Algorithm;
    use crate::retention::Pattern;

    #[test]
    fn a_reason_says_what_each_condition_looked_at() {
        let now = UNIX_EPOCH + Duration::from_hours(100_000);
        let ago = |hours| now - Duration::from_hours(hours);
        let pulled = |is_known| LastPull {
            at: ago(49),
            is_known,
        };
        let mut keep = Keep::default();
        assert_eq!(
            of_tag(&keep, ago(1), pulled(true), now),
            "pushed 60 minutes ago"
        );
        keep.newest = Some(3);
        keep.pulled_within = Some(Duration::ZERO);
        assert_eq!(
            of_tag(&keep, ago(47), pulled(true), now),
            "not among the newest 3, pushed 47 hours ago, pulled 2 days ago"
        );
        keep.tags = vec![Pattern::parse("v*").unwrap()];
        assert_eq!(
            of_tag(&keep, now + Duration::from_secs(1), pulled(false), now),
            "not among the newest 3, matches no pattern, pushed 0 s ago, not pulled for 2 days"
        );
        let subject = |algorithm| TagSubject {
            algorithm,
            hex: "ab".repeat(32),
        };
        assert_eq!(
            of_manifest(ago(240), now),
            "no tag leads to it, not used for 10 days"
        );
        assert_eq!(
            of_referrer(&subject(Algorithm::Sha256), ago(240), now),
            format!(
                "its subject sha256:{} is gone, pushed 10 days ago",
                "ab".repeat(32)
            )
        );
        let cut = of_referrer(&subject(Algorithm::Sha512), ago(240), now);
        assert!(cut.contains("abab… is gone"), "{cut}");
    }
}
