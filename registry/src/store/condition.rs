//! Conditions of a change (RFC 9110, section 13).

use super::error::StoreError;
use crate::oci::{Digest, Reference};

/// What a change requires of a reference. The store checks it in the same step in which it makes the
/// change, so that of several changes with one condition at most one succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The reference to check.
    pub reference: Reference,
    /// It must lead to one of these (`If-Match`).
    pub matches: Option<Versions>,
    /// It must lead to none of these (`If-None-Match`).
    pub differs: Option<Versions>,
}

/// Manifests that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// Any manifest.
    Any,
    /// Those with these digests.
    Of(Vec<Digest>),
}

impl Versions {
    /// Whether `current` is one of them. `None` is none of them.
    pub fn contain(&self, current: Option<&Digest>) -> bool {
        match (self, current) {
            // RFC 9110, section 13.1.1: even `*` is false where there is no current representation.
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(digests), Some(current)) => digests.contains(current),
        }
    }
}

impl Condition {
    /// Fails with `ConditionFailed` unless the condition holds where the reference leads to
    /// `current`.
    pub fn check(&self, current: Option<&Digest>) -> Result<(), StoreError> {
        let matches = self.matches.as_ref();
        let differs = self.differs.as_ref();
        // RFC 9110, section 13.2.2: a true If-Match leads on to If-None-Match, so both must hold.
        if matches.is_none_or(|wanted| wanted.contain(current))
            && differs.is_none_or(|unwanted| !unwanted.contain(current))
        {
            return Ok(());
        }
        Err(StoreError::ConditionFailed {
            current: current.cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn both_parts_of_a_condition_must_hold() {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let (a, b) = (digest("a"), digest("b"));
        let of =
            |digests: &[&Digest]| Some(Versions::Of(digests.iter().copied().cloned().collect()));
        let holds = |matches: &Option<Versions>, differs: &Option<Versions>, current| {
            let condition = Condition {
                reference: Reference::Digest(a.clone()),
                matches: matches.clone(),
                differs: differs.clone(),
            };
            condition.check(current).is_ok()
        };
        let any = Some(Versions::Any);
        for (matches, differs, at_a, at_nothing) in [
            (None, None, true, true),
            (any.clone(), None, true, false),
            (None, any.clone(), false, true),
            (of(&[&a, &b]), None, true, false),
            (of(&[&b]), None, false, false),
            (of(&[]), None, false, false),
            (None, of(&[&b, &a]), false, true),
            (None, of(&[&b]), true, true),
            (of(&[&a]), of(&[&b]), true, false),
            (of(&[&a]), of(&[&a]), false, false),
            (any.clone(), any, false, false),
        ] {
            let case = format!("{matches:?} {differs:?}");
            assert_eq!(holds(&matches, &differs, Some(&a)), at_a, "{case}");
            assert_eq!(holds(&matches, &differs, None), at_nothing, "{case}");
        }
    }
}
