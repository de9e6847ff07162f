//! What kind of manifest goes by.
//!
//! Signatures and attestations show only in a manifest's body. The body is copied as it streams, to
//! a bound, and read once the client has all of it, away from the client's path. What kind a digest
//! is never changes, so the body of one that was read lately is not copied again; where the answer
//! names no digest, a small body is known again by itself.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderName, header};
use quick_cache::sync::Cache;
use registry::oci::{Kind, Manifest, MediaType};

use super::Recorder;
use crate::metrics::Metrics;

/// The largest body that is copied, in bytes. The kind of a larger one is told by its media type.
const LARGEST: usize = 256 << 10;
/// What all copies together may take, in bytes. While there is no room, media types must do.
const ROOM: usize = 32 << 20;
/// What the smallest copy takes, so that the room bounds their number too.
const SMALLEST: usize = 4 << 10;
/// The largest body that is looked up by its bytes where the answer names no digest, in bytes: as
/// long as that takes, the connection's next request may have to wait.
const LOOKED_UP: usize = 16 << 10;
/// How many digests are remembered.
const REMEMBERED: usize = 4096;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What all readings share: the room for copies, and the kinds of digests that were read.
pub(super) struct KnownKinds {
    room: AtomicUsize,
    known: Cache<Fingerprint, Kind>,
    hasher: RandomState,
}

/// A digest, or a body without one, as it is remembered. Its hash has a key of its own in each process, so that nobody can
/// look for two that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint(u64);

impl Default for KnownKinds {
    fn default() -> KnownKinds {
        KnownKinds {
            room: AtomicUsize::new(ROOM),
            known: Cache::new(REMEMBERED),
            hasher: RandomState::new(),
        }
    }
}

impl KnownKinds {
    fn fingerprint(&self, headers: &HeaderMap) -> Option<Fingerprint> {
        let digest = headers.get(DIGEST)?;
        Some(Fingerprint(self.hasher.hash_one(digest.as_bytes())))
    }

    /// Of a small body; what it is depends on its media type, too.
    fn fingerprint_of_body(
        &self,
        body: &[u8],
        media_type: Option<&MediaType>,
    ) -> Option<Fingerprint> {
        let media_type = media_type.map(MediaType::as_str);
        let is_small = body.len() <= LOOKED_UP;
        is_small.then(|| Fingerprint(self.hasher.hash_one((media_type, body))))
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                room.checked_sub(bytes)
            })
            .is_ok()
    }
}

/// What is known of a manifest's kind while it goes by.
#[derive(Default)]
pub(super) struct KindReader {
    media_type: Option<MediaType>,
    digest: Option<Fingerprint>,
    known: Option<Kind>,
    copy: Option<ManifestBody>,
}

impl KindReader {
    /// Of a manifest that has these headers, whose body is to come.
    pub(super) fn with_body(recorder: &Arc<Recorder>, headers: &HeaderMap) -> KindReader {
        let readable = !headers.contains_key(header::CONTENT_ENCODING);
        KindReader {
            copy: readable.then(|| ManifestBody::new(recorder)),
            ..KindReader::without_body(headers)
        }
    }

    /// Of a manifest that an answer with these headers brings. Where the digest was seen, no other
    /// header need be looked at.
    pub(super) fn pulled(recorder: &Arc<Recorder>, headers: &HeaderMap) -> KindReader {
        let digest = recorder.kinds.fingerprint(headers);
        let known = digest.and_then(|digest| recorder.kinds.known.get(&digest));
        match known {
            Some(_) => KindReader {
                known,
                ..KindReader::default()
            },
            None => KindReader {
                digest,
                ..KindReader::with_body(recorder, headers)
            },
        }
    }

    /// Of a manifest of which there are but headers.
    pub(super) fn without_body(headers: &HeaderMap) -> KindReader {
        let media_type = headers.get(header::CONTENT_TYPE);
        KindReader {
            media_type: media_type
                .and_then(|value| value.to_str().ok())
                .and_then(|text| MediaType::from_content_type(text).ok()),
            ..KindReader::default()
        }
    }

    /// The answer to a push has these headers, which may name the digest of what was pushed.
    pub(super) fn pushed(&mut self, recorder: &Recorder, headers: &HeaderMap) {
        if self.copy.is_none() {
            return;
        }
        self.digest = recorder.kinds.fingerprint(headers);
        self.known = self
            .digest
            .and_then(|digest| recorder.kinds.known.get(&digest));
        if self.known.is_some() {
            self.copy = None;
        }
    }

    /// The next bytes of the body.
    pub(super) fn piece(&mut self, bytes: &[u8]) {
        if let Some(copy) = &mut self.copy
            && !copy.extend(bytes)
        {
            self.copy = None;
        }
    }

    /// The kind if it is known by now; else what must be read first.
    pub(super) fn end(self) -> Result<Kind, UnparsedManifest> {
        match (self.known, self.copy) {
            (Some(kind), _) => Ok(kind),
            (None, Some(copy)) if !copy.bytes.is_empty() => {
                let kinds = &copy.recorder.kinds;
                let media_type = self.media_type;
                let digest = self
                    .digest
                    .or_else(|| kinds.fingerprint_of_body(&copy.bytes, media_type.as_ref()));
                // One that has a digest was looked up by it.
                let known = match (self.digest, digest) {
                    (None, Some(digest)) => kinds.known.get(&digest),
                    _ => None,
                };
                known.ok_or(UnparsedManifest {
                    media_type,
                    digest,
                    copy,
                })
            }
            (None, _) => Ok(of_media_type(self.media_type.as_ref())),
        }
    }
}

fn of_media_type(media_type: Option<&MediaType>) -> Kind {
    media_type.map_or(Kind::Other, Kind::of_media_type)
}

/// A manifest's whole body, to be read.
pub(super) struct UnparsedManifest {
    media_type: Option<MediaType>,
    digest: Option<Fingerprint>,
    copy: ManifestBody,
}

impl UnparsedManifest {
    /// Where it is counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.copy.recorder.metrics
    }

    /// A body that is no manifest is of the kind that its media type says.
    pub(super) fn kind(&self) -> Kind {
        let manifest = Manifest::parse(&self.copy.bytes, self.media_type.as_ref());
        let kind = manifest.map_or_else(
            |_| of_media_type(self.media_type.as_ref()),
            |manifest| manifest.kind(),
        );
        if let Some(digest) = self.digest {
            self.copy.recorder.kinds.known.insert(digest, kind);
        }
        kind
    }
}

/// A copy that takes of the room for all of them for as long as it is there.
struct ManifestBody {
    recorder: Arc<Recorder>,
    bytes: Vec<u8>,
    taken: usize,
}

impl ManifestBody {
    fn new(recorder: &Arc<Recorder>) -> ManifestBody {
        ManifestBody {
            recorder: Arc::clone(recorder),
            bytes: Vec::new(),
            taken: 0,
        }
    }

    /// Whether there was room for so much more.
    fn extend(&mut self, bytes: &[u8]) -> bool {
        let length = self.bytes.len() + bytes.len();
        if length > LARGEST {
            return false;
        }
        if length > self.taken {
            let capacity = length.max(2 * self.taken).clamp(SMALLEST, LARGEST);
            if !self.recorder.kinds.take(capacity - self.taken) {
                return false;
            }
            self.taken = capacity;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        true
    }
}

impl Drop for ManifestBody {
    fn drop(&mut self) {
        let room = &self.recorder.kinds.room;
        room.fetch_add(self.taken, Ordering::Relaxed);
    }
}
