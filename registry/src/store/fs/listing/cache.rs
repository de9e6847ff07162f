//! A cache of ordered tags, so that a client that lists a million tags page by page does not cause a scan
//! of the directory for each page.
//!
//! A scan takes long, whatever the size of the page, so it collects more than one page. The tags that it
//! found serve the pages that follow, until a tag of the repository is created or deleted.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::oci::{Name, Tag};
use crate::store::Listing;

/// The tags that one scan collects at most, some 4 MB in memory.
pub(super) const LENGTH: usize = 1 << 16;

/// The scans whose tags are kept: this many listings can be in progress without evicting each other's
/// tags.
const KEPT: usize = 4;

/// The cached listings of one store.
#[derive(Default)]
pub(in crate::store::fs) struct ListingCache(Mutex<VecDeque<Arc<ScannedTags>>>);

/// The tags of a repository that follow `after`, in order, and whether more follow them.
struct ScannedTags {
    name: Name,
    after: Option<String>,
    listing: Listing<Tag>,
}

impl ListingCache {
    /// The page after `last`, if one scan holds all of it.
    pub(in crate::store::fs) fn page(
        &self,
        name: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Option<Listing<Tag>> {
        // The lock is released before the search: a page may copy thousands of tags.
        let scans: Vec<_> = {
            let scans = self.0.lock();
            let of_repository = scans.iter().filter(|scan| scan.name == *name);
            of_repository.map(Arc::clone).collect()
        };
        scans.iter().find_map(|scan| scan.page(last, limit))
    }

    /// Keeps the result of a scan for the tags after `after`. The caller holds the repository's lock.
    pub(in crate::store::fs) fn keep(
        &self,
        name: &Name,
        after: Option<&str>,
        listing: &Listing<Tag>,
    ) {
        let scan = ScannedTags {
            name: name.clone(),
            after: after.map(str::to_owned),
            listing: listing.clone(),
        };
        let mut scans = self.0.lock();
        scans.push_front(Arc::new(scan));
        scans.truncate(KEPT);
    }

    /// Removes a repository, of which a tag was created or deleted. The caller holds its lock.
    pub(in crate::store::fs) fn forget(&self, name: &Name) {
        self.0.lock().retain(|scan| scan.name != *name);
    }
}

impl ScannedTags {
    fn page(&self, last: Option<&str>, limit: usize) -> Option<Listing<Tag>> {
        // `None` is less than any text: a scan from the start begins before every page.
        if self.after.as_deref() > last {
            return None;
        }
        let tags = &self.listing.items;
        let from = last.map_or(0, |last| tags.partition_point(|tag| tag.as_str() <= last));
        let rest = &tags[from..];
        let more = rest.len() > limit || self.listing.more;
        // The page goes past the end of the scan, and only a new scan finds the tags there.
        if rest.len() < limit && self.listing.more {
            return None;
        }
        Some(Listing {
            items: rest[..rest.len().min(limit)].to_vec(),
            more,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tags: &[&str]) -> Vec<Tag> {
        tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect()
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn kept(after: Option<&str>, tags: &[&str], more: bool) -> ListingCache {
        let scans = ListingCache::default();
        let items = names(tags);
        scans.keep(&name("a"), after, &Listing { items, more });
        scans
    }

    fn page(scans: &ListingCache, last: Option<&str>, limit: usize) -> Option<(Vec<String>, bool)> {
        let page = scans.page(&name("a"), last, limit)?;
        let items = page.items.iter().map(ToString::to_string).collect();
        Some((items, page.more))
    }

    fn expected(tags: &[&str], more: bool) -> (Vec<String>, bool) {
        (tags.iter().map(ToString::to_string).collect(), more)
    }

    #[test]
    fn a_page_within_a_scan_is_served_and_says_whether_more_follows() {
        let scans = kept(None, &["a", "b", "c", "d"], true);
        assert_eq!(page(&scans, None, 2), Some(expected(&["a", "b"], true)));
        assert_eq!(
            page(&scans, Some("b"), 2),
            Some(expected(&["c", "d"], true))
        );
        assert_eq!(page(&scans, Some("aa"), 1), Some(expected(&["b"], true)));
        assert_eq!(page(&scans, Some("b"), 3), None);
        assert_eq!(page(&scans, Some("d"), 1), None);
    }

    #[test]
    fn the_last_scan_knows_the_end() {
        let scans = kept(Some("b"), &["c", "d"], false);
        assert_eq!(
            page(&scans, Some("b"), 2),
            Some(expected(&["c", "d"], false))
        );
        assert_eq!(page(&scans, Some("c"), 9), Some(expected(&["d"], false)));
        assert_eq!(page(&scans, Some("z"), 9), Some(expected(&[], false)));
        assert_eq!(page(&scans, Some("a"), 1), None);
        assert_eq!(page(&scans, None, 1), None);
    }

    #[test]
    fn a_changed_repository_is_removed_and_others_stay() {
        let scans = kept(None, &["a"], false);
        scans.forget(&name("b"));
        assert!(page(&scans, None, 1).is_some());
        assert!(scans.page(&name("b"), None, 1).is_none());
        scans.forget(&name("a"));
        assert!(page(&scans, None, 1).is_none());
    }

    #[test]
    fn the_oldest_scan_is_evicted_first() {
        let scans = kept(None, &["a"], false);
        for other in ["b", "c", "d", "e"] {
            let listing = Listing {
                items: names(&["1"]),
                more: false,
            };
            scans.keep(&name(other), None, &listing);
        }
        assert!(page(&scans, None, 1).is_none());
        assert!(scans.page(&name("b"), None, 1).is_some());
    }
}
