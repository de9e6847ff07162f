//! The vocabulary of the OCI distribution and image specifications.
//!
//! Each type is parsed once, at the edge, and holds only what the specification allows: beyond the edge
//! there are no raw strings. [`Route`] is the exception by design: it classifies the paths of any registry
//! for labels, and leaves validation to the other types.
//!
//! What is deliberately not here: I/O, HTTP types, policy, and other modules of this crate.

mod descriptor;
mod digest;
mod duplicate_keys;
mod error;
mod manifest;
mod media_type;
mod mentions;
mod name;
mod range;
mod reference;
mod route;
mod tag;

pub use descriptor::{Annotations, Descriptor};
pub use digest::{Algorithm, Digest, DigestError, Hasher, UnknownAlgorithm};
pub use error::{ErrorBody, ErrorCode};
pub use manifest::{Kind, Manifest, ManifestError, References};
pub use media_type::{MediaType, MediaTypeError};
pub use mentions::mentioned_digests;
pub use name::{Name, NameError};
pub use range::{ByteRange, ByteRanges, RangeError, Span, Spans, Unsatisfiable, UploadRange};
pub use reference::{Reference, ReferenceError};
pub use route::{Endpoint, Route};
pub use tag::{Tag, TagError};

/// Declares an enum whose variants have fixed names: the enum, `ALL` and `as_str`.
///
/// Each variant is written once, with its name, so that no list of variants can lack one. `ALL` is an
/// array rather than a slice: other code sizes its own tables by its length.
macro_rules! named_variants {
    ($(#[$meta:meta])* pub enum $type:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $name:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        pub enum $type {
            $($(#[$variant_meta])* $variant),+
        }

        impl $type {
            /// Every variant, in the order of its discriminant.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// The name that wire formats, metrics and logs use.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}
use named_variants;

/// Implements `Display`, `AsRef`, `FromStr` and serde for a checked string, through its `parse` and
/// `as_str`.
macro_rules! checked_string {
    ($type:ident, $error:ident) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
use checked_string;
