//! A page of referrers, collected one descriptor at a time.

use crate::oci::{Descriptor, Digest};

/// Which referrers of a subject to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferrersQuery {
    /// Only those with this artifact type, as it was pushed.
    pub artifact_type: Option<String>,
    /// Only those whose digest comes after this text.
    pub last: Option<String>,
    /// The bytes that the page's descriptors may have together, as JSON. A single one may be larger.
    pub bytes: usize,
}

/// A page of referrers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    /// Descriptors in ascending order of their digests.
    pub items: Vec<Descriptor>,
    /// The digest after which the next page begins; `None` on the last page. It need not be that of the
    /// last item: a store may stop among descriptors that the filter leaves out, so that even an empty
    /// page may be followed by others.
    pub next: Option<Digest>,
}

/// Collects a page. Descriptors are offered in ascending order of their digests.
pub(super) struct ReferrersPage<'a> {
    query: &'a ReferrersQuery,
    listed: Referrers,
    bytes: usize,
    /// The last digest that was taken, left out or skipped.
    last: Option<Digest>,
}

impl<'a> ReferrersPage<'a> {
    pub(super) fn new(query: &'a ReferrersQuery) -> Self {
        Self {
            query,
            listed: Referrers::default(),
            bytes: 0,
            last: None,
        }
    }

    /// Takes a descriptor, or leaves it out if the filter says so. Returns false if the page is full.
    pub(super) fn offer(&mut self, descriptor: Descriptor) -> bool {
        let digest = descriptor.digest.clone();
        if self.is_wanted(&descriptor) {
            // A descriptor holds nothing that JSON cannot express: this does not fail.
            self.bytes += serde_json::to_vec(&descriptor).map_or(0, |json| json.len());
            // The first one always fits: a page without it would never get past it.
            if self.bytes > self.query.bytes && !self.listed.items.is_empty() {
                return false;
            }
            self.listed.items.push(descriptor);
        }
        // Also one that the filter leaves out: the next page must not filter it again.
        self.last = Some(digest);
        true
    }

    /// Skips a digest that is not a referrer's.
    pub(super) fn skip(&mut self, digest: Digest) {
        self.last = Some(digest);
    }

    /// The page. `more` says whether referrers follow those that were taken or left out.
    pub(super) fn finish(mut self, more: bool) -> Referrers {
        self.listed.next = self.last.filter(|_| more);
        self.listed
    }

    fn is_wanted(&self, descriptor: &Descriptor) -> bool {
        let wanted = self.query.artifact_type.as_deref();
        let found = descriptor.artifact_type.as_ref();
        wanted.is_none_or(|wanted| found.is_some_and(|found| found.as_str() == wanted))
    }
}
