//! Referrers: which manifests have a given one as their subject (end-12).

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::{self, Answer, OCI_FILTERS_APPLIED};
use super::error::ApiError;
use super::tags::link;
use super::{Api, Call};
use crate::oci::{Descriptor, Digest};
use crate::store::{Store, StoreError};

/// Clients refuse manifests of more than 4 MiB; what does not fit goes to the next page.
const PAGE_BYTES: usize = 4 * 1024 * 1024 - 1024;

impl<S: Store> Api<S> {
    /// end-12a, end-12b: always an index, if need be an empty one. Clients take a 404 to mean that
    /// there is no such endpoint.
    pub(super) async fn referrers(&self, call: &Call<'_>) -> Result<Answer<S::Reader>, ApiError> {
        let name = call.name()?;
        let digest = Digest::from_segment(call.route.tail)?;
        let mut referrers = match self.store.referrers_list(&name, &digest).await {
            Ok(referrers) => referrers,
            Err(StoreError::RepositoryUnknown | StoreError::ManifestUnknown) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let filter = call
            .query
            .get("artifactType")
            .filter(|kind| !kind.is_empty());
        if let Some(wanted) = &filter {
            referrers.retain(|referrer| is_of_type(referrer, wanted));
        }
        if let Some(last) = call.query.get("last") {
            referrers.retain(|referrer| referrer.digest.as_str() > &*last);
        }

        let (body, last) = index(&referrers, PAGE_BYTES);
        let mut answer = answer::json(StatusCode::OK, INDEX, body);
        if filter.is_some() {
            answer::set(answer.headers_mut(), OCI_FILTERS_APPLIED, "artifactType");
        }
        if let Some(last) = last {
            let mut next = format!("/v2/{name}/referrers/{digest}?last={}", last.digest);
            if let Some(filter) = &filter {
                next.push_str("&artifactType=");
                next.extend(utf8_percent_encode(filter, NON_ALPHANUMERIC));
            }
            link(&mut answer, next);
        }
        Ok(answer)
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn is_of_type(referrer: &Descriptor, wanted: &str) -> bool {
    let kind = referrer.artifact_type.as_ref();
    kind.is_some_and(|kind| kind.as_str() == wanted)
}

/// An index of as many referrers as fit into `limit` bytes (of at least one), and the last of them
/// if others follow.
fn index(referrers: &[Descriptor], limit: usize) -> (Vec<u8>, Option<&Descriptor>) {
    let mut body =
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":["#).into_bytes();
    let mut last = None;
    for (place, referrer) in referrers.iter().enumerate() {
        let entry = answer::encode(referrer);
        if place > 0 {
            if body.len() + entry.len() > limit {
                last = referrers.get(place - 1);
                break;
            }
            body.push(b',');
        }
        body.extend_from_slice(&entry);
    }
    body.extend_from_slice(b"]}");
    (body, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, MediaType};

    fn referrer(content: &[u8]) -> Descriptor {
        let digest = Digest::of(Algorithm::Sha256, content);
        Descriptor::new(MediaType::OCI_MANIFEST, digest, content.len() as u64)
    }

    #[test]
    fn an_index_of_none_is_an_index() {
        let (body, last) = index(&[], PAGE_BYTES);
        insta::assert_snapshot!(
            String::from_utf8(body).unwrap(),
            @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
        assert_eq!(last, None);
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_page() {
        let referrers = [referrer(b"1"), referrer(b"2"), referrer(b"3")];
        let (whole, last) = index(&referrers, PAGE_BYTES);
        assert_eq!(last, None);
        let (part, last) = index(&referrers, whole.len() - 10);
        assert_eq!(last, Some(&referrers[1]));
        assert!(part.len() < whole.len());
        let (one, last) = index(&referrers, 0);
        assert_eq!(last, Some(&referrers[0]));
        assert!(
            String::from_utf8(one)
                .unwrap()
                .contains(referrers[0].digest.as_str())
        );
    }
}
