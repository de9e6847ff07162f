//! Preconditions: `If-Match` and `If-None-Match` (RFC 9110, sections 13.1.1, 13.1.2 and 13.2.2).
//!
//! The entity tag of a manifest or blob is its digest in quotes. Nothing else has one: conditions on
//! listings and upload sessions are ignored. Where a change depends on a tag, the store checks the
//! condition in the same atomic step.
//!
//! The lists are parsed here rather than by the `headers` crate, which does not give out their
//! entity tags: the store needs the digests that they name.

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};

use super::error::ApiError;
use super::precondition_error::PreconditionError;
use crate::oci::{Digest, Reference};
use crate::store::{Condition, Versions};

/// How entity tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag never matches.
    Strong,
    /// `W/` is ignored.
    Weak,
}

/// The condition of a change of `reference`; `None` if the request has none.
pub(super) fn of_change(
    headers: &HeaderMap,
    reference: &Reference,
) -> Result<Option<Condition>, PreconditionError> {
    let matches = if_match(headers)?;
    let differs = if_none_match(headers)?;
    Ok((matches.is_some() || differs.is_some()).then(|| Condition {
        reference: reference.clone(),
        matches,
        differs,
    }))
}

/// Checks the condition of a deletion of content that exists. The check need not be atomic with the
/// deletion: the content of a digest never changes.
pub(super) fn check_deletion(headers: &HeaderMap, digest: &Digest) -> Result<(), ApiError> {
    let reference = Reference::Digest(digest.clone());
    match of_change(headers, &reference)? {
        Some(condition) => Ok(condition.check(Some(digest))?),
        None => Ok(()),
    }
}

/// Whether a client that reads content has it already. Fails if `If-Match` does not hold.
///
/// A malformed `If-None-Match` is ignored: the client then gets the whole content, which is never wrong.
pub(super) fn is_known_to_reader(headers: &HeaderMap, digest: &Digest) -> Result<bool, ApiError> {
    let condition = Condition {
        reference: Reference::Digest(digest.clone()),
        matches: if_match(headers)?,
        differs: None,
    };
    // `If-Match` comes first: a 412 takes precedence over a 304 (RFC 9110, section 13.2.2).
    condition.check(Some(digest))?;
    let known = if_none_match(headers).ok().flatten();
    Ok(known.is_some_and(|known| known.contain(Some(digest))))
}

/// Whether a request has a condition.
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH)
}

fn if_match(headers: &HeaderMap) -> Result<Option<Versions>, PreconditionError> {
    let malformed = PreconditionError { name: "If-Match" };
    versions(headers, &IF_MATCH, Comparison::Strong).map_err(|MalformedList| malformed)
}

fn if_none_match(headers: &HeaderMap) -> Result<Option<Versions>, PreconditionError> {
    let malformed = PreconditionError {
        name: "If-None-Match",
    };
    versions(headers, &IF_NONE_MATCH, Comparison::Weak).map_err(|MalformedList| malformed)
}

struct MalformedList;

/// The digests that all lines of a header list. Entity tags that are no digests match no content here,
/// and are left out.
fn versions(
    headers: &HeaderMap,
    name: &HeaderName,
    comparison: Comparison,
) -> Result<Option<Versions>, MalformedList> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let (mut digests, mut tags, mut any) = (Vec::new(), 0_usize, false);
    for line in headers.get_all(name) {
        let mut rest = line.as_bytes();
        while let Some(member) = next_member(&mut rest)? {
            match member {
                ListMember::Any if any => return Err(MalformedList),
                ListMember::Any => any = true,
                ListMember::Tag { opaque, weak } => {
                    // A list of tags that are no digests is valid, and matches nothing.
                    tags += 1;
                    let comparable = !weak || comparison == Comparison::Weak;
                    // An entity tag need not be UTF-8. One that is not is no digest.
                    let text = std::str::from_utf8(opaque).unwrap_or_default();
                    if comparable && let Ok(digest) = Digest::parse(text) {
                        digests.push(digest);
                    }
                }
            }
        }
    }
    match (any, tags) {
        (true, 0) => Ok(Some(Versions::Any)),
        (false, 1..) => Ok(Some(Versions::Of(digests))),
        // The grammar has neither `*` beside a tag nor a list without a member.
        _ => Err(MalformedList),
    }
}

/// A member of the list: `*`, which stands alone, or an entity tag.
enum ListMember<'a> {
    Any,
    Tag { opaque: &'a [u8], weak: bool },
}

/// Takes the next member off a line, and skips empty ones (RFC 9110, section 5.6.1.2).
fn next_member<'a>(rest: &mut &'a [u8]) -> Result<Option<ListMember<'a>>, MalformedList> {
    let skipped = rest.iter().position(|byte| !b" \t,".contains(byte));
    let text = &rest[skipped.unwrap_or(rest.len())..];
    if text.is_empty() {
        return Ok(None);
    }
    let (member, after) = match text.strip_prefix(b"*") {
        Some(after) => (ListMember::Any, after),
        None => entity_tag(text).ok_or(MalformedList)?,
    };
    let after = after.trim_ascii_start();
    // Without the comma, `"a""b"` would pass as two tags.
    if !after.is_empty() && !after.starts_with(b",") {
        return Err(MalformedList);
    }
    *rest = after;
    Ok(Some(member))
}

/// The entity tag at the start of `text`, and the text after it. An entity tag may contain commas.
fn entity_tag(text: &[u8]) -> Option<(ListMember<'_>, &[u8])> {
    // Only an upper-case `W` marks a weak tag (RFC 9110, section 8.8.3).
    let (weak, quoted) = match text.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let quoted = quoted.strip_prefix(b"\"")?;
    let end = quoted.iter().position(|&byte| byte == b'"')?;
    let opaque = &quoted[..end];
    // `etagc` of RFC 9110, section 8.8.3. It excludes the quote, which cannot occur before `end`.
    let is_etagc = |&byte: &u8| matches!(byte, 0x21..=0x7e | 0x80..);
    let tag = ListMember::Tag { opaque, weak };
    opaque
        .iter()
        .all(is_etagc)
        .then(|| (tag, &quoted[end + 1..]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::oci::Algorithm;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(name.clone(), value);
        }
        headers
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    /// The lines of a header with `D` for the digest.
    fn lines(texts: &[&str]) -> Vec<String> {
        let texts = texts.iter();
        texts
            .map(|text| text.replace('D', digest().as_str()))
            .collect()
    }

    fn read(texts: &[&str], comparison: Comparison) -> Option<Versions> {
        let lines = lines(texts);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let headers = headers(&IF_MATCH, &lines);
        versions(&headers, &IF_MATCH, comparison).ok().flatten()
    }

    #[test]
    fn an_entity_tag_matches_alone_in_a_list_on_any_line_or_through_a_star() {
        for named in [
            &["\"D\""][..],
            &["\"other\" , \"D\""],
            &["\"a,b\",,\"D\", "],
            &["\"other\"", "\t\"D\""],
            &["*"],
            &[" * "],
        ] {
            let versions = read(named, Comparison::Strong).unwrap();
            assert!(versions.contain(Some(&digest())), "{named:?}");
            assert!(!versions.contain(None), "{named:?}");
        }
        for other in [&["\"other\""][..], &["\"\""], &["\"D,\""], &["\"\u{e4}\""]] {
            let versions = read(other, Comparison::Weak).unwrap();
            assert!(!versions.contain(Some(&digest())), "{other:?}");
        }
    }

    #[test]
    fn a_weak_entity_tag_matches_in_weak_comparison_only() {
        let weak = read(&["W/\"D\""], Comparison::Weak).unwrap();
        assert!(weak.contain(Some(&digest())));
        let strong = read(&["W/\"D\""], Comparison::Strong).unwrap();
        assert!(!strong.contain(Some(&digest())));
    }

    #[test]
    fn anything_but_a_list_of_entity_tags_is_malformed() {
        for malformed in [
            &[""][..],
            &[","],
            &["D"],
            &["'D'"],
            &["\"D"],
            &["D\""],
            &["w/\"D\""],
            &["W/D"],
            &["\"D\" \"D\""],
            &["\"D\"; x"],
            &["\"a b\""],
            &["**"],
            &["*, *"],
            &["*, \"D\""],
            &["\"D\"", "*"],
            &["W/*"],
        ] {
            let lines = lines(malformed);
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            for name in [&IF_MATCH, &IF_NONE_MATCH] {
                let reference = Reference::Digest(digest());
                let condition = of_change(&headers(name, &lines), &reference);
                assert!(condition.is_err(), "{malformed:?}");
            }
        }
        let none = of_change(&HeaderMap::new(), &Reference::Digest(digest()));
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn a_reader_with_a_malformed_if_none_match_gets_the_content() {
        for unknown in ["D", "\"other\"", ""] {
            let lines = lines(&[unknown]);
            let headers = headers(&IF_NONE_MATCH, &[&lines[0]]);
            assert!(
                !is_known_to_reader(&headers, &digest()).unwrap(),
                "{unknown}"
            );
        }
    }
}
