//! Listings in pages: the tags of a repository (end-8) and the repositories of the registry.

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

/// The most entries of one page, whether or not the client asks for more: so a repository of a
/// million tags is listed in constant memory. The `Link` leads on.
const PAGE: usize = 10_000;

/// What may stand in a parameter's value as it is.
const VALUE: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
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
    /// end-8a, end-8b: a repository's tags in order of their bytes.
    pub(super) async fn tags_list(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let page = PageSize::parse(request.query)?;
        let last = request.query.get("last");
        let _one_of_few = self.listings.acquire().await;
        let listing = self
            .store
            .tag_list(&name, last.as_deref(), page.ask())
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

    /// The repositories in order of their bytes: an extension as old as the API.
    pub(super) async fn catalog(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let page = PageSize::parse(request.query)?;
        let last = request.query.get("last");
        let _one_of_few = self.listings.acquire().await;
        let listing = self
            .store
            .repository_list(last.as_deref(), page.ask())
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

/// How many entries a page is to have.
#[derive(Clone, Copy)]
struct PageSize(usize);

impl PageSize {
    fn parse(query: Query<'_>) -> Result<Self, ApiError> {
        // An empty value says no more than a missing one.
        let Some(n) = query.get("n").filter(|n| !n.is_empty()) else {
            return Ok(Self(PAGE));
        };
        if !n.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::PageSize);
        }
        // A number too large for a `usize` is too large for a page, too.
        Ok(Self(n.parse().unwrap_or(PAGE).min(PAGE)))
    }

    /// A page of none still has to find out whether the repository exists.
    fn ask(self) -> usize {
        self.0.max(1)
    }

    /// A page of none has nothing after it, either: the specification forbids the `Link`.
    fn cut<T>(self, listing: Listing<T>) -> Listing<T> {
        if self.0 > 0 {
            return listing;
        }
        Listing {
            items: Vec::new(),
            more: false,
        }
    }

    /// The response with a `Link` to the next page, if there is one.
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
                format_args!("{path}?n={}&last={last}", self.0),
            );
        }
        response
    }
}

/// Points to the next page (RFC 8288).
pub(super) fn link<R>(response: &mut ApiResponse<R>, next: impl Display) {
    let link = format!("<{next}>; rel=\"next\"");
    response::set(response.headers_mut(), LINK, &link);
}

fn next<T: AsRef<str>>(listing: &Listing<T>) -> Option<&str> {
    let last = listing.items.last().filter(|_| listing.more)?;
    Some(last.as_ref())
}
