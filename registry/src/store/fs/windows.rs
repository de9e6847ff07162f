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
pub(super) struct Windows(Mutex<VecDeque<Arc<Window>>>);

/// The tags of a repository that come after one, in order, and whether more follow them.
struct Window {
    name: Name,
    after: Option<String>,
    listing: Listing<Tag>,
}

impl Windows {
    /// The page after `last`, if a stretch holds all of it.
    pub(super) fn page(
        &self,
        name: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Option<Listing<Tag>> {
        let windows: Vec<_> = {
            let windows = self.0.lock();
            let of_repository = windows.iter().filter(|window| window.name == *name);
            of_repository.map(Arc::clone).collect()
        };
        windows.iter().find_map(|window| window.page(last, limit))
    }

    /// Keeps what a scan for the tags after `after` found; for the holder of the repository's turn.
    pub(super) fn keep(&self, name: &Name, after: Option<&str>, listing: &Listing<Tag>) {
        let window = Window {
            name: name.clone(),
            after: after.map(str::to_owned),
            listing: listing.clone(),
        };
        let mut windows = self.0.lock();
        windows.push_front(Arc::new(window));
        windows.truncate(KEPT);
    }

    /// Forgets a repository's tags, of which one came or went; for the holder of its turn.
    pub(super) fn forget(&self, name: &Name) {
        self.0.lock().retain(|window| window.name != *name);
    }
}

impl Window {
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

    fn kept(after: Option<&str>, tags: &[&str], more: bool) -> Windows {
        let windows = Windows::default();
        let items = names(tags);
        windows.keep(&name("a"), after, &Listing { items, more });
        windows
    }

    fn page(windows: &Windows, last: Option<&str>, limit: usize) -> Option<(Vec<String>, bool)> {
        let page = windows.page(&name("a"), last, limit)?;
        let items = page.items.iter().map(ToString::to_string).collect();
        Some((items, page.more))
    }

    fn expected(tags: &[&str], more: bool) -> (Vec<String>, bool) {
        (tags.iter().map(ToString::to_string).collect(), more)
    }

    #[test]
    fn a_page_within_a_stretch_is_served_and_says_whether_more_follows() {
        let windows = kept(None, &["a", "b", "c", "d"], true);
        assert_eq!(page(&windows, None, 2), Some(expected(&["a", "b"], true)));
        assert_eq!(
            page(&windows, Some("b"), 2),
            Some(expected(&["c", "d"], true))
        );
        assert_eq!(page(&windows, Some("aa"), 1), Some(expected(&["b"], true)));
        assert_eq!(page(&windows, Some("b"), 3), None);
        assert_eq!(page(&windows, Some("d"), 1), None);
    }

    #[test]
    fn the_last_stretch_knows_the_end() {
        let windows = kept(Some("b"), &["c", "d"], false);
        assert_eq!(
            page(&windows, Some("b"), 2),
            Some(expected(&["c", "d"], false))
        );
        assert_eq!(page(&windows, Some("c"), 9), Some(expected(&["d"], false)));
        assert_eq!(page(&windows, Some("z"), 9), Some(expected(&[], false)));
        assert_eq!(page(&windows, Some("a"), 1), None);
        assert_eq!(page(&windows, None, 1), None);
    }

    #[test]
    fn what_changed_is_forgotten_and_other_repositories_are_not() {
        let windows = kept(None, &["a"], false);
        windows.forget(&name("b"));
        assert!(page(&windows, None, 1).is_some());
        assert!(windows.page(&name("b"), None, 1).is_none());
        windows.forget(&name("a"));
        assert!(page(&windows, None, 1).is_none());
    }

    #[test]
    fn the_oldest_stretch_goes_first() {
        let windows = kept(None, &["a"], false);
        for other in ["b", "c", "d", "e"] {
            let listing = Listing {
                items: names(&["1"]),
                more: false,
            };
            windows.keep(&name(other), None, &listing);
        }
        assert!(page(&windows, None, 1).is_none());
        assert!(windows.page(&name("b"), None, 1).is_some());
    }
}
