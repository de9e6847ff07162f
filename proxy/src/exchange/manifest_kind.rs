//! The kind of a manifest that is pulled or pushed.
//!
//! Only the body tells signatures and attestations from images. The body is copied as it streams,
//! up to a bound, and parsed once the client has all of it, away from the client's path. The kind of
//! a digest never changes, so a manifest whose digest is in the cache is not copied. Where the
//! response has no digest, a small body is looked up in the cache by its own hash.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use http::{HeaderMap, HeaderName, header};
use quick_cache::sync::Cache;
use registry::oci::{Kind, Manifest, MediaType};

/// The largest body that is copied, in bytes. The kind of a larger one is that of its media type.
const LARGEST: usize = 256 << 10;
/// How many bytes all copies together may take. Beyond that, kinds are those of the media types.
const BUDGET: usize = 32 << 20;
/// How many bytes the smallest copy takes, so that the budget bounds the number of copies, too.
const SMALLEST: usize = 4 << 10;
/// The largest body, in bytes, that is looked up by its own hash. The hash is computed on the
/// connection's task, whose next request waits for it.
const LOOKED_UP: usize = 16 << 10;
/// How many manifests' kinds are remembered.
const REMEMBERED: usize = 4096;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What all readers share: the budget for copies, and the kinds of the manifests parsed lately.
pub(super) struct KnownKinds {
    /// How many bytes of the budget are left.
    budget: AtomicUsize,
    known: Cache<Fingerprint, Kind>,
    hasher: RandomState,
}

/// The hash of a digest, or of a body that has none. Its key differs in each process and no hash is
/// ever shown, so that nobody can craft two manifests of one hash. `SipHash` would take longer than
/// the rest of recording a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fingerprint(u64);

impl Default for KnownKinds {
    fn default() -> KnownKinds {
        KnownKinds {
            budget: AtomicUsize::new(BUDGET),
            known: Cache::new(REMEMBERED),
            hasher: RandomState::default(),
        }
    }
}

impl KnownKinds {
    fn fingerprint(&self, headers: &HeaderMap) -> Option<Fingerprint> {
        let digest = headers.get(DIGEST)?;
        // Hashed, because an upstream may send a header of any length: all entries have one size.
        Some(Fingerprint(self.hasher.hash_one(digest.as_bytes())))
    }

    /// The fingerprint of a small body and its media type: both determine the kind.
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
    pub(super) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Takes bytes from the budget. False if too few are left.
    fn take(&self, bytes: usize) -> bool {
        // Relaxed: the budget is a number, and guards no other memory.
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |budget| {
                budget.checked_sub(bytes)
            })
            .is_ok()
    }
}

/// Finds the kind of one manifest while it streams by.
#[derive(Default)]
pub(super) struct KindReader {
    media_type: Option<MediaType>,
    digest: Option<Fingerprint>,
    known: Option<Kind>,
    copy: Option<ManifestBody>,
}

impl KindReader {
    /// For a manifest with these headers, whose body will follow.
    pub(super) fn with_body(kinds: &Arc<KnownKinds>, headers: &HeaderMap) -> KindReader {
        // A compressed body is not decompressed for the sake of a metric.
        let readable = !headers.contains_key(header::CONTENT_ENCODING);
        KindReader {
            copy: readable.then(|| ManifestBody::new(kinds)),
            ..KindReader::without_body(headers)
        }
    }

    /// For a manifest in a response with these headers. If the kind of its digest is known, no
    /// other header is read.
    pub(super) fn pulled(kinds: &Arc<KnownKinds>, headers: &HeaderMap) -> KindReader {
        let digest = kinds.fingerprint(headers);
        let known = digest.and_then(|digest| kinds.known.get(&digest));
        match known {
            Some(_) => KindReader {
                known,
                ..KindReader::default()
            },
            None => KindReader {
                digest,
                ..KindReader::with_body(kinds, headers)
            },
        }
    }

    /// For a manifest with these headers, whose body will not follow.
    pub(super) fn without_body(headers: &HeaderMap) -> KindReader {
        let media_type = headers.get(header::CONTENT_TYPE);
        KindReader {
            media_type: media_type
                .and_then(|value| value.to_str().ok())
                .and_then(|text| MediaType::from_content_type(text).ok()),
            ..KindReader::default()
        }
    }

    /// The response to a push arrived. Its headers may name the digest of the pushed manifest.
    pub(super) fn pushed(&mut self, kinds: &KnownKinds, headers: &HeaderMap) {
        if self.copy.is_none() {
            return;
        }
        self.digest = kinds.fingerprint(headers);
        self.known = self.digest.and_then(|digest| kinds.known.get(&digest));
        // The copy returns its bytes to the budget now, and not when the exchange ends.
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

    /// The kind if it is known by now, or else the manifest that must be parsed.
    pub(super) fn end(self) -> Result<Kind, UnparsedManifest> {
        match (self.known, self.copy) {
            (Some(kind), _) => Ok(kind),
            (None, Some(copy)) if !copy.bytes.is_empty() => {
                let kinds = &copy.kinds;
                let media_type = self.media_type;
                let digest = self
                    .digest
                    .or_else(|| kinds.fingerprint_of_body(&copy.bytes, media_type.as_ref()));
                // A digest from the headers was looked up when they arrived.
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

/// The whole body of a manifest whose kind is not known yet.
pub(super) struct UnparsedManifest {
    media_type: Option<MediaType>,
    digest: Option<Fingerprint>,
    copy: ManifestBody,
}

impl UnparsedManifest {
    /// Parses the body, and remembers the kind. A body that is not a manifest has the kind of its
    /// media type.
    pub(super) fn kind(&self) -> Kind {
        let manifest = Manifest::parse(&self.copy.bytes, self.media_type.as_ref());
        let kind = manifest.map_or_else(
            |_| of_media_type(self.media_type.as_ref()),
            |manifest| manifest.kind(),
        );
        if let Some(digest) = self.digest {
            self.copy.kinds.known.insert(digest, kind);
        }
        kind
    }
}

/// A copy of a manifest's body. It holds its part of the budget until it is dropped.
struct ManifestBody {
    kinds: Arc<KnownKinds>,
    bytes: Vec<u8>,
    taken: usize,
}

impl ManifestBody {
    fn new(kinds: &Arc<KnownKinds>) -> ManifestBody {
        ManifestBody {
            kinds: Arc::clone(kinds),
            bytes: Vec::new(),
            taken: 0,
        }
    }

    /// Appends bytes. False if the body is too large, or the budget is used up.
    fn extend(&mut self, bytes: &[u8]) -> bool {
        let length = self.bytes.len() + bytes.len();
        if length > LARGEST {
            return false;
        }
        if length > self.taken {
            // Doubled, so that a body in small pieces is not moved for each of them.
            let capacity = length.max(2 * self.taken).clamp(SMALLEST, LARGEST);
            if !self.kinds.take(capacity - self.taken) {
                return false;
            }
            self.taken = capacity;
            // Exact: the vector must not hold more than was taken from the budget.
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        true
    }
}

impl Drop for ManifestBody {
    fn drop(&mut self) {
        let budget = &self.kinds.budget;
        budget.fetch_add(self.taken, Ordering::Relaxed);
    }
}
