//! Paginated listings: the tags of a repository (end-8), and the catalog of repositories.

use std::fmt::Display;

use http::header::LINK;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::error::ApiError;
use super::query::Query;
use super::response::{self, ApiResponse};
use super::{Api, ApiRequest};
use crate::oci::{Name, Tag};
use crate::store::{Listing, Store};

/// The most entries of one page, however many the client asks for: a repository with a million tags is
/// listed in constant memory. The `Link` header leads to the next page.
const MAX_PAGE: usize = 10_000;

/// The characters that are escaped in a parameter's value.
const VALUE: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    // A query may hold slashes (RFC 3986, section 3.4), and the names of repositories do.
    .remove(b'/');

/// The body of a tag listing (distribution-spec, Listing Tags).
#[derive(Serialize)]
struct TagsBody<'a> {
    name: &'a Name,
    tags: &'a [Tag],
}

/// The body of a catalog, as Docker's registry has it.
#[derive(Serialize)]
struct CatalogBody<'a> {
    repositories: &'a [Name],
}

impl<S: Store> Api<S> {
    /// end-8a, end-8b: a repository's tags, in byte order.
    pub(super) async fn tags_list(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let page = PageSize::parse(request.query)?;
        let last = request.query.get("last");
        // Kept until the response is made, because the entries stay in memory until then.
        let _permit = self.listings.acquire().await;
        let listing = self
            .store
            .tag_list(&name, last.as_deref(), page.limit())
            .await?;
        let listing = page.cut(listing);
        let tags = TagsBody {
            name: &name,
            tags: &listing.items,
        };
        let path = format!("/v2/{name}/tags/list");
        let response = self
            .page("application/json", response::encode(&tags))
            .await?;
        Ok(page.linked(response, &path, next(&listing)))
    }

    /// The registry's repositories, in byte order. The catalog is Docker's, not the specification's.
    pub(super) async fn catalog(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let page = PageSize::parse(request.query)?;
        let last = request.query.get("last");
        let _permit = self.listings.acquire().await;
        let listing = self
            .store
            .repository_list(last.as_deref(), page.limit())
            .await?;
        let listing = page.cut(listing);
        let catalog = CatalogBody {
            repositories: &listing.items,
        };
        let body = response::encode(&catalog);
        let response = self.page("application/json", body).await?;
        Ok(page.linked(response, "/v2/_catalog", next(&listing)))
    }
}

/// The number of entries that a page may have.
#[derive(Clone, Copy)]
struct PageSize(usize);

impl PageSize {
    fn parse(query: Query<'_>) -> Result<Self, ApiError> {
        // An empty value is treated as a missing one.
        let Some(n) = query.get("n").filter(|n| !n.is_empty()) else {
            return Ok(Self(MAX_PAGE));
        };
        // `parse` alone would take a leading plus sign, too.
        if !n.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::PageSize);
        }
        // A number that overflows is above the limit, too.
        Ok(Self(n.parse().unwrap_or(MAX_PAGE).min(MAX_PAGE)))
    }

    /// How many entries to read from the store. A page of 0 entries reads one: an unknown repository is
    /// still an error.
    fn limit(self) -> usize {
        self.0.max(1)
    }

    /// Empties the listing for a page of 0 entries, which has no next page, either: the specification
    /// forbids the `Link`.
    fn cut<T>(self, listing: Listing<T>) -> Listing<T> {
        if self.0 > 0 {
            return listing;
        }
        Listing {
            items: Vec::new(),
            more: false,
        }
    }

    /// Adds a `Link` to the next page, if there is one.
    fn linked<R>(
        self,
        mut response: ApiResponse<R>,
        path: &str,
        next: Option<&str>,
    ) -> ApiResponse<R> {
        if let Some(last) = next {
            let last = utf8_percent_encode(last, &VALUE);
            link(
                &mut response,
                // The size is repeated, so that each page of the listing has the same.
                format_args!("{path}?n={}&last={last}", self.0),
            );
        }
        response
    }
}

/// Sets the `Link` to the next page (RFC 8288).
pub(super) fn link<R>(response: &mut ApiResponse<R>, next: impl Display) {
    let link = format!("<{next}>; rel=\"next\"");
    response::set(response.headers_mut(), LINK, &link);
}

fn next<T: AsRef<str>>(listing: &Listing<T>) -> Option<&str> {
    let last = listing.items.last().filter(|_| listing.more)?;
    Some(last.as_ref())
}
