//! The contract of [`Store`], one test for each clause, for every store and wrapper.
//!
//! `suite!(name, make)` makes a module of tests. `make` returns a store and a value that must outlive it.
//! `suite!(name, bounded make)` makes a module of the clauses about a store that holds at most three
//! upload sessions.

mod blobs;
mod bounded;
mod conditions;
mod manifests;
mod referrers;
mod repositories;
mod tags;
mod uploads;

use std::future::{pending, poll_fn};
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Listing, NewManifest, ReferrersQuery, Result, Store};
use crate::oci::{
    Algorithm, ByteRange, ByteRanges, Descriptor, Digest, Kind, MediaType, Name, Tag,
};

pub(crate) use blobs::*;
pub(crate) use bounded::*;
pub(crate) use conditions::*;
pub(crate) use manifests::*;
pub(crate) use referrers::*;
pub(crate) use repositories::*;
pub(crate) use tags::*;
pub(crate) use uploads::*;

macro_rules! suite {
    ($module:ident, bounded $make:expr) => {
        mod $module {
            $crate::store::suite::suite!(@tests $make;
                the_longest_idle_session_is_evicted
                a_session_without_bytes_is_evicted_before_one_with_bytes
                a_session_that_is_receiving_is_not_evicted
            );
        }
    };
    ($module:ident, $make:expr) => {
        mod $module {
            $crate::store::suite::suite!(@tests $make;
                a_pushed_blob_is_read_back_whole
                a_large_blob_is_read_in_order
                an_empty_blob_is_a_blob
                a_range_is_read_and_its_position_returned
                several_ranges_are_read_in_the_order_asked_for
                ranges_larger_than_the_blob_become_the_whole_blob
                a_range_outside_the_blob_is_refused_with_its_size
                a_blob_belongs_only_to_the_repositories_it_was_added_to
                a_blob_is_mounted_from_a_repository_that_holds_it
                a_blob_is_mounted_from_anywhere_when_no_source_is_named
                a_deleted_blob_is_gone_here_and_stays_elsewhere
                a_blob_that_is_deleted_while_it_is_read_is_read_to_its_end
                chunks_continue_where_the_last_one_ended
                a_chunk_at_the_wrong_offset_is_refused_and_changes_nothing
                a_body_that_fails_leaves_the_bytes_that_arrived
                an_aborted_append_leaves_a_whole_prefix
                a_wrong_digest_ends_the_session
                a_digest_may_use_another_algorithm_than_was_announced
                a_session_of_sha512_is_committed
                a_cancelled_session_is_unknown
                a_session_is_valid_only_in_its_repository
                a_committed_session_is_unknown
                content_that_exists_already_is_committed_again
                of_concurrent_appends_exactly_one_wins
                of_concurrent_commits_exactly_one_wins
                a_session_that_is_receiving_cannot_be_committed
                a_session_that_is_receiving_can_be_cancelled
                an_aborted_commit_happens_whole_or_not_at_all
                a_manifest_is_read_by_tag_and_digest_byte_for_byte
                a_large_manifest_is_read_whole_or_in_order
                a_manifest_pushed_again_takes_the_new_media_type
                a_manifest_with_unknown_references_is_refused_and_leaves_nothing
                an_index_needs_its_children_in_the_repository
                an_aborted_push_happens_whole_or_not_at_all
                a_tag_is_created_moved_or_left_unchanged
                a_deleted_manifest_removes_its_tags
                a_deleted_tag_leaves_its_manifest
                a_tag_needs_a_manifest
                an_unknown_tag_is_an_unknown_manifest
                an_unknown_item_cannot_be_deleted
                tags_are_listed_in_order_and_by_pages
                listing_the_tags_of_an_unknown_repository_fails
                repositories_are_listed_in_the_order_of_their_full_names
                repositories_are_listed_by_pages_of_any_size
                a_repository_exists_while_it_holds_a_blob_or_a_manifest
                a_refused_operation_makes_no_repository
                names_may_contain_the_words_of_the_layout
                referrers_are_listed_in_order_with_or_without_their_subject
                a_deleted_referrer_is_no_longer_listed
                referrers_are_filtered_and_listed_by_pages
                a_simultaneous_push_and_delete_leave_no_broken_manifest
                a_tag_that_is_written_only_if_absent_never_moves
                a_tag_moves_only_from_where_it_was_expected
                a_condition_may_name_a_manifest_by_its_digest
                of_concurrent_writes_of_an_absent_tag_exactly_one_wins
                a_tag_is_deleted_only_where_it_leads_to_what_was_expected
            );
        }
    };
    (@tests $make:expr; $($clause:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $clause() {
            let (store, _guard) = $make;
            $crate::store::suite::$clause(&store).await;
        }
    )+};
}
pub(crate) use suite;

/// Polls a future at most `polls` times, and drops it.
async fn poll_and_drop(future: impl Future, polls: usize) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready()));
        if polled.await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn body(bytes: &[u8]) -> impl Stream {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))])
}

trait Stream: futures_util::Stream<Item = Result<Bytes>> + Send + Unpin + 'static {}
impl<T: futures_util::Stream<Item = Result<Bytes>> + Send + Unpin + 'static> Stream for T {}

/// A body that yields `bytes` and then nothing more, ever.
fn stalled(bytes: &[u8]) -> impl Stream {
    body(bytes).chain(stream::once(Box::pin(pending())))
}

pub(crate) async fn push(store: &impl Store, repository: &str, bytes: &[u8]) -> Digest {
    let (name, digest) = (name(repository), digest(bytes));
    let upload = store.upload_create(&name, Algorithm::Sha256).await.unwrap();
    store
        .upload_append(&name, &upload.id, 0, body(bytes))
        .await
        .unwrap();
    store
        .upload_commit(&name, &upload.id, &digest)
        .await
        .unwrap();
    digest
}

async fn pull(
    store: &impl Store,
    repository: &str,
    digest: &Digest,
    range: Option<ByteRange>,
) -> Result<Vec<u8>> {
    let ranges = range.map(ByteRanges::from);
    let read = store.blob_read(&name(repository), digest, ranges).await?;
    let chunks: Vec<Bytes> = read.reader.try_collect().await?;
    assert_eq!(
        chunks.iter().map(Bytes::len).sum::<usize>() as u64,
        read.spans.total(read.size)
    );
    Ok(chunks.concat())
}

pub(super) fn manifest(text: &str) -> NewManifest {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    NewManifest {
        digest: digest(&bytes),
        media_type: MediaType::OCI_MANIFEST,
        bytes,
        kind: Kind::Image,
        blobs: vec![],
        children: vec![],
        subject: None,
    }
}

pub(super) async fn put(store: &impl Store, repository: &str, text: &str, tags: &[&str]) -> Digest {
    let new = manifest(text);
    let digest = new.digest.clone();
    let tags: Vec<_> = tags.iter().map(|text| tag(text)).collect();
    store
        .manifest_write(&name(repository), new, &tags, None)
        .await
        .unwrap();
    digest
}

fn referrer(text: &str, subject: &Digest) -> NewManifest {
    let mut new = manifest(text);
    let size = new.bytes.len() as u64;
    let descriptor = Descriptor::new(new.media_type.clone(), new.digest.clone(), size);
    new.subject = Some((subject.clone(), descriptor));
    new
}

/// All referrers of a subject, collected from pages of `bytes` bytes.
pub(crate) async fn all_referrers(
    store: &impl Store,
    repository: &str,
    subject: &Digest,
    artifact_type: Option<&str>,
    bytes: usize,
) -> Vec<Descriptor> {
    let mut query = ReferrersQuery {
        artifact_type: artifact_type.map(str::to_owned),
        last: None,
        bytes,
    };
    let mut all = Vec::new();
    loop {
        let repository = name(repository);
        let page = store.referrers_list(&repository, subject, &query).await;
        let page = page.unwrap();
        all.extend(page.items);
        let Some(next) = page.next else {
            return all;
        };
        assert!(
            query.last.as_deref() < Some(next.as_str()),
            "the next page begins later"
        );
        query.last = Some(next.to_string());
    }
}

async fn all_tags(store: &impl Store, repository: &str) -> Vec<String> {
    let listing = store.tag_list(&name(repository), None, 1000).await.unwrap();
    assert!(!listing.more);
    listing.items.iter().map(ToString::to_string).collect()
}

async fn all_repositories(store: &impl Store) -> Vec<String> {
    let Listing { items, more } = store.repository_list(None, 1000).await.unwrap();
    assert!(!more);
    items.iter().map(ToString::to_string).collect()
}
