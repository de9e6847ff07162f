//! The directories of content, in the order of a scrub.

use super::super::layout::{Pool, Shard};
use crate::oci::Algorithm;

/// All directories of content, in the order in which they are visited.
pub(super) fn parts() -> impl Iterator<Item = Shard> {
    (0..=u8::MAX).flat_map(|prefix| {
        Pool::ALL.into_iter().flat_map(move |pool| {
            Algorithm::ALL.into_iter().map(move |algorithm| Shard {
                pool,
                algorithm,
                prefix,
            })
        })
    })
}
