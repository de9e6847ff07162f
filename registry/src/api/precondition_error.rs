//! A condition that cannot be read.

/// The header is neither `*` nor a list of entity tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} must be * or a list of entity tags in double quotes, each the digest of a manifest or \
     blob, such as \"sha256:…\""
)]
pub(super) struct PreconditionError {
    pub(super) name: &'static str,
}
