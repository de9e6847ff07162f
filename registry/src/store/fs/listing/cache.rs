//! Stretches of the ordered tags of repositories, so that a client that lists a million of them page
//! by page does not have the folder read for each page.
//!
//! A scan of a folder is long and gathers what is in order after some tag, so it gathers more than
//! a page. What it found serves the pages that follow until a tag of the repository comes or goes.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::oci::{Name, Tag};
use crate::store::Listing;

/// The tags of one stretch, some 4 MB in memory.
pub(super) const LENGTH: usize = 1 << 16;

/// The stretches that are kept: as many listings can be under way without getting in each other's
/// way.
const KEPT: usize = 4;

/// The stretches of one store.
#[derive(Default)]
pub(in crate::store::fs) struct ListingCache(Mutex<VecDeque<Arc<Stretch>>>);

/// The tags of a repository that come after one, in order, and whether more follow them.
struct Stretch {
    name: Name,
    after: Option<String>,
    listing: Listing<Tag>,
}

impl ListingCache {
    /// The page after `last`, if a stretch holds all of it.
    pub(in crate::store::fs) fn page(
        &self,
        name: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Option<Listing<Tag>> {
        let stretches: Vec<_> = {
            let stretches = self.0.lock();
            let of_repository = stretches.iter().filter(|stretch| stretch.name == *name);
            of_repository.map(Arc::clone).collect()
        };
        stretches
            .iter()
            .find_map(|stretch| stretch.page(last, limit))
    }

    /// Keeps what a scan for the tags after `after` found; for the holder of the repository's turn.
    pub(in crate::store::fs) fn keep(
        &self,
        name: &Name,
        after: Option<&str>,
        listing: &Listing<Tag>,
    ) {
        let stretch = Stretch {
            name: name.clone(),
            after: after.map(str::to_owned),
            listing: listing.clone(),
        };
        let mut stretches = self.0.lock();
        stretches.push_front(Arc::new(stretch));
        stretches.truncate(KEPT);
    }

    /// Forgets a repository's tags, of which one came or went; for the holder of its turn.
    pub(in crate::store::fs) fn forget(&self, name: &Name) {
        self.0.lock().retain(|stretch| stretch.name != *name);
    }
}

impl Stretch {
    fn page(&self, last: Option<&str>, limit: usize) -> Option<Listing<Tag>> {
        if self.after.as_deref() > last {
            return None;
        }
        let tags = &self.listing.items;
        let from = last.map_or(0, |last| tags.partition_point(|tag| tag.as_str() <= last));
        let rest = &tags[from..];
        let more = rest.len() > limit || self.listing.more;
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
        let stretches = ListingCache::default();
        let items = names(tags);
        stretches.keep(&name("a"), after, &Listing { items, more });
        stretches
    }

    fn page(
        stretches: &ListingCache,
        last: Option<&str>,
        limit: usize,
    ) -> Option<(Vec<String>, bool)> {
        let page = stretches.page(&name("a"), last, limit)?;
        let items = page.items.iter().map(ToString::to_string).collect();
        Some((items, page.more))
    }

    fn expected(tags: &[&str], more: bool) -> (Vec<String>, bool) {
        (tags.iter().map(ToString::to_string).collect(), more)
    }

    #[test]
    fn a_page_within_a_stretch_is_served_and_says_whether_more_follows() {
        let stretches = kept(None, &["a", "b", "c", "d"], true);
        assert_eq!(page(&stretches, None, 2), Some(expected(&["a", "b"], true)));
        assert_eq!(
            page(&stretches, Some("b"), 2),
            Some(expected(&["c", "d"], true))
        );
        assert_eq!(
            page(&stretches, Some("aa"), 1),
            Some(expected(&["b"], true))
        );
        assert_eq!(page(&stretches, Some("b"), 3), None);
        assert_eq!(page(&stretches, Some("d"), 1), None);
    }

    #[test]
    fn the_last_stretch_knows_the_end() {
        let stretches = kept(Some("b"), &["c", "d"], false);
        assert_eq!(
            page(&stretches, Some("b"), 2),
            Some(expected(&["c", "d"], false))
        );
        assert_eq!(
            page(&stretches, Some("c"), 9),
            Some(expected(&["d"], false))
        );
        assert_eq!(page(&stretches, Some("z"), 9), Some(expected(&[], false)));
        assert_eq!(page(&stretches, Some("a"), 1), None);
        assert_eq!(page(&stretches, None, 1), None);
    }

    #[test]
    fn what_changed_is_forgotten_and_other_repositories_are_not() {
        let stretches = kept(None, &["a"], false);
        stretches.forget(&name("b"));
        assert!(page(&stretches, None, 1).is_some());
        assert!(stretches.page(&name("b"), None, 1).is_none());
        stretches.forget(&name("a"));
        assert!(page(&stretches, None, 1).is_none());
    }

    #[test]
    fn the_oldest_stretch_goes_first() {
        let stretches = kept(None, &["a"], false);
        for other in ["b", "c", "d", "e"] {
            let listing = Listing {
                items: names(&["1"]),
                more: false,
            };
            stretches.keep(&name(other), None, &listing);
        }
        assert!(page(&stretches, None, 1).is_none());
        assert!(stretches.page(&name("b"), None, 1).is_some());
    }
}
