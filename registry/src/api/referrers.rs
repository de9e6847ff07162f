//! Referrers: which manifests have a given one as their subject (end-12).

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::error::ApiError;
use super::listings::link;
use super::response::{self, ApiResponse, OCI_FILTERS_APPLIED};
use super::{Api, ApiRequest};
use crate::oci::{Descriptor, Digest};
use crate::store::{Referrers, ReferrersQuery, Store, StoreError};

/// The most bytes of a page's descriptors. Clients refuse manifests of more than 4 MiB, so the rest of the
/// index must fit into what is left; further descriptors go to the next page.
const PAGE_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

impl<S: Store> Api<S> {
    /// end-12a, end-12b: an index of the referrers, possibly empty. Clients take a 404 to mean that the
    /// registry has no such endpoint, and fall back to tags.
    pub(super) async fn referrers(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let digest = Digest::from_segment(request.route.tail)?;
        let filter = request
            .query
            .get("artifactType")
            .filter(|kind| !kind.is_empty());
        let query = ReferrersQuery {
            artifact_type: filter.as_deref().map(str::to_owned),
            last: request.query.get("last").map(Cow::into_owned),
            bytes: PAGE_BYTES,
        };
        // A page takes up to 4 MiB: the permit bounds how many are in memory.
        let _permit = self.listings.acquire().await;
        let page = match self.store.referrers_list(&name, &digest, &query).await {
            Err(StoreError::RepositoryUnknown | StoreError::ManifestUnknown) => {
                Referrers::default()
            }
            listed => listed?,
        };

        let mut response = self.page(INDEX, index(&page.items)).await?;
        // Without this header a client filters the list again by itself (distribution-spec,
        // Listing Referrers).
        if filter.is_some() {
            response::set(response.headers_mut(), OCI_FILTERS_APPLIED, "artifactType");
        }
        if let Some(last) = page.next {
            let mut next = format!("/v2/{name}/referrers/{digest}?last={last}");
            if let Some(filter) = &filter {
                // The next page needs the same filter. It is escaped: many parsers of queries
                // read a raw `+` as a space.
                next.push_str("&artifactType=");
                next.extend(utf8_percent_encode(filter, NON_ALPHANUMERIC));
            }
            link(&mut response, next);
        }
        Ok(response)
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An index of referrers.
fn index(referrers: &[Descriptor]) -> Vec<u8> {
    let index = ReferrersIndex {
        schema_version: 2,
        media_type: INDEX,
        manifests: referrers,
    };
    response::encode(&index)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_referrers_is_valid() {
        insta::assert_snapshot!(
            String::from_utf8(index(&[])).unwrap(),
            @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
    }
}
