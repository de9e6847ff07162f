//! Who takes part in a takeover.

/// A process, as its predecessor and its successor see it.
#[derive(Clone, Debug)]
pub struct ProcessIdentity {
    /// The name of the program.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Why it can't take over from another process, nor another one from it, if that is so.
    pub refusal: Option<&'static str>,
}
