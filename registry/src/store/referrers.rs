//! A page of referrers, gathered one descriptor at a time.

use crate::oci::{Descriptor, Digest};

/// Which referrers of a subject to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferrersQuery {
    /// Only those with this artifact type, as it was pushed.
    pub artifact_type: Option<String>,
    /// Only those whose digest comes after this text.
    pub last: Option<String>,
    /// How many bytes the page's descriptors may have together, as JSON. One may be larger.
    pub bytes: usize,
}

/// A page of referrers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    /// Descriptors in ascending order of their digests.
    pub items: Vec<Descriptor>,
    /// Where the listing goes on; `None` at its end. It need not be the last item: a store may stop
    /// between those that the filter leaves out, so even an empty page may be followed by others.
    pub next: Option<Digest>,
}

/// A page in the making. Descriptors come in ascending order of their digests.
pub(super) struct ReferrersPage<'a> {
    query: &'a ReferrersQuery,
    listed: Referrers,
    bytes: usize,
    /// The last descriptor that was taken or left out.
    passed: Option<Digest>,
}

impl<'a> ReferrersPage<'a> {
    pub(super) fn new(query: &'a ReferrersQuery) -> Self {
        Self {
            query,
            listed: Referrers::default(),
            bytes: 0,
            passed: None,
        }
    }

    /// Takes a descriptor, or leaves it out if the filter says so. Returns whether it had room.
    pub(super) fn offer(&mut self, descriptor: Descriptor) -> bool {
        let digest = descriptor.digest.clone();
        if self.is_wanted(&descriptor) {
            // A descriptor has nothing that JSON can't express.
            self.bytes += serde_json::to_vec(&descriptor).map_or(0, |json| json.len());
            if self.bytes > self.query.bytes && !self.listed.items.is_empty() {
                return false;
            }
            self.listed.items.push(descriptor);
        }
        self.passed = Some(digest);
        true
    }

    /// Passes over a digest that is no referrer's.
    pub(super) fn skip(&mut self, digest: Digest) {
        self.passed = Some(digest);
    }

    /// The page; `more` says whether anything comes after what was offered and had room.
    pub(super) fn finish(mut self, more: bool) -> Referrers {
        self.listed.next = self.passed.filter(|_| more);
        self.listed
    }

    fn is_wanted(&self, descriptor: &Descriptor) -> bool {
        let wanted = self.query.artifact_type.as_deref();
        let found = descriptor.artifact_type.as_ref();
        wanted.is_none_or(|wanted| found.is_some_and(|found| found.as_str() == wanted))
    }
}
