//! What the fuzz targets check of all that the registry parses: against the expressions of the
//! specifications, and against what must hold of any result.
//!
//! Each function takes any bytes, and panics if something is wrong. `make fuzz` looks for such bytes. What it
//! kept is in `fuzz/seeds`, and runs with the tests.

use std::path::Path;

use regex::Regex;
use service::config::{self, ConfigError, Sources};
use service::program_config::Configuration as _;

use crate::config::{RegistryConfig, RegistryFields};
use crate::oci::{
    ByteRanges, Digest, Endpoint, Manifest, MediaType, Name, Reference, Route, Spans, Tag,
    UploadRange, mentioned_digests,
};

/// distribution-spec, Pulling manifests: `<name>`. The length is bounded apart.
const NAME: &str = "^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*$";
/// distribution-spec, Pulling manifests: `<reference>` as a tag.
const TAG: &str = "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$";
/// image-spec, Registered algorithms.
const DIGEST: &str = "^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$";
/// RFC 9110, 14.1.2: a set of ranges of bytes, with the optional white space of a list.
const RANGE: &str = "^(?i:bytes)=[ \\t]*(,[ \\t]*)*([0-9]+-[0-9]*|-[0-9]+)([ \\t]*,[ \\t]*([0-9]+-[0-9]*|-[0-9]+)?)*[ \\t]*$";

/// The lengths of content that ranges are resolved for.
const LENGTHS: [u64; 6] = [0, 1, 2, 1000, 1 << 40, u64::MAX];

/// The longest message about a wrong configuration, in bytes.
const LONGEST_MESSAGE: usize = 4 << 10;

/// Every path has a route, whose pieces are pieces of the path.
pub fn route(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else {
        return;
    };
    let route = Route::parse(path);
    for piece in [route.repository, Some(route.tail)].into_iter().flatten() {
        assert!(path.contains(piece));
    }
    // What is put together of valid pieces is taken apart into them.
    if let (Some(name), Some(reference)) = (route.repository, route.reference())
        && Name::parse(name).is_ok()
        && Reference::from_segment(reference).is_ok()
    {
        let word = match route.endpoint {
            Endpoint::Manifest => "manifests",
            Endpoint::Blob => "blobs",
            _ => "referrers",
        };
        assert_eq!(path, format!("/v2/{name}/{word}/{reference}"));
    }
}

/// A name is what the specification's expression matches.
pub fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Name::parse(text) {
        Ok(name) => {
            assert!(matches(NAME, text));
            assert_eq!(name.as_str(), text);
            assert_eq!(name.components().collect::<Vec<_>>().join("/"), text);
            assert!(Path::new(text).is_relative() && !text.contains(".."));
        }
        Err(error) => {
            // Only its length may be wrong with one that matches.
            assert!(!matches(NAME, text) || text.len() > 200, "{error}");
        }
    }
}

/// A digest is what the specification's expressions match.
pub fn digest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let digest = Digest::parse(text);
    assert_eq!(digest.is_ok(), matches(DIGEST, text));
    if let Ok(digest) = digest {
        assert_eq!(digest.as_str(), text);
        assert_eq!(digest.hex().len(), digest.algorithm().hex_length());
        let escaped = text.replace(':', "%3a");
        assert_eq!(Digest::from_segment(&escaped), Ok(digest));
    }
}

/// A reference is a tag or a digest, and never both.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert_eq!(Tag::parse(text).is_ok(), matches(TAG, text));
    let is_valid = matches(TAG, text) || matches(DIGEST, text);
    let reference = Reference::parse(text);
    assert_eq!(reference.is_ok(), is_valid);
    if let Ok(reference) = reference {
        assert_eq!(reference.as_str(), text);
        assert_eq!(Reference::from_segment(text), Ok(reference));
    }
    if let Ok(reference) = Reference::from_segment(text) {
        assert!(matches(TAG, reference.as_str()) || matches(DIGEST, reference.as_str()));
    }
}

/// What of a range is accepted lies within its content.
pub fn range(bytes: &[u8]) {
    let Ok(header) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(Some(ranges)) = ByteRanges::parse(Some(header)) else {
        return;
    };
    assert!(matches(RANGE, header), "{header:?}");
    assert!(ranges.iter().count() <= ByteRanges::MAX);
    for length in LENGTHS {
        let Ok(spans) = ranges.resolve(length) else {
            continue;
        };
        assert!(spans.total(length) <= length);
        let parts = match &spans {
            Spans::Whole => &[][..],
            Spans::One(span) => std::slice::from_ref(span),
            Spans::Several(spans) => spans,
        };
        for part in parts {
            assert!(part.length > 0 && part.start < length);
            assert!(part.length <= length - part.start);
        }
    }
}

/// The range of a chunk (end-5) is read as it is written.
pub fn content_range(bytes: &[u8]) {
    let Ok(header) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(range) = UploadRange::parse(header) {
        assert!(range.start() <= range.end());
        assert_eq!(range.end() - range.start() + 1, range.length());
        let written = format!("{}-{}", range.start(), range.end());
        assert_eq!(UploadRange::parse(&written), Ok(range));
    }
}

/// A manifest is a JSON document, and mentions all that it refers to.
pub fn manifest(bytes: &[u8]) {
    let mut mentioned = Vec::new();
    let searched = mentioned_digests(bytes, |digest| mentioned.push(digest));
    for media_type in [
        None,
        Some(&MediaType::OCI_MANIFEST),
        Some(&MediaType::OCI_INDEX),
    ] {
        match Manifest::parse(bytes, media_type) {
            Ok(manifest) => {
                assert!(serde_json::from_slice::<serde_json::Value>(bytes).is_ok());
                assert!(searched.is_ok());
                let references = manifest.references();
                for digest in references.blobs.iter().chain(&references.children) {
                    assert!(mentioned.contains(digest));
                }
                let digest = Digest::of(crate::oci::Algorithm::Sha256, bytes);
                let referrer = manifest.referrer(digest, bytes.len() as u64);
                assert_eq!(referrer.is_some(), manifest.subject().is_some());
            }
            Err(error) => assert!(error.to_string().len() < 1000),
        }
    }
}

/// A configuration is read, or refused with a line that names its file; what is printed of it is read as
/// the same.
pub fn configuration(bytes: &[u8]) {
    // One for each process: targets run beside each other.
    let path = std::env::temp_dir().join(format!("octoserve-fuzz-{}.yaml", std::process::id()));
    let read = |bytes: &[u8]| -> Result<String, ConfigError> {
        std::fs::write(&path, bytes).expect("the directory for temporary files is writable");
        let sources = Sources {
            files: vec![path.clone()],
            ..Sources::default()
        };
        let loaded = config::load_with_origins::<RegistryFields>(sources)?;
        let printed = config::print(&loaded.fields);
        RegistryConfig::resolve(loaded.fields, &loaded.origins)?;
        Ok(printed)
    };
    let first = read(bytes);
    match &first {
        Ok(printed) => {
            let again = read(printed.as_bytes());
            assert_eq!(again.as_ref().ok(), Some(printed), "{again:?}");
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() <= LONGEST_MESSAGE, "{message}");
            assert!(message.contains("octoserve-fuzz-"), "{message}");
        }
    }
    let _ = std::fs::remove_file(&path);
}

fn matches(expression: &str, text: &str) -> bool {
    Regex::new(expression)
        .expect("an expression of this file")
        .is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs all seeds of a target.
    fn replay(target: &str, check: fn(&[u8])) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
        let mut seeds = 0;
        for seed in std::fs::read_dir(root.join(target)).unwrap() {
            let path = seed.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| check(&bytes));
            assert!(outcome.is_ok(), "{}", path.display());
            seeds += 1;
        }
        assert!(seeds >= 10, "{target}: only {seeds} seeds");
    }

    macro_rules! replayed {
        ($($target:ident)+) => {$(
            #[test]
            fn $target() {
                replay(stringify!($target), super::$target);
            }
        )+};
    }

    replayed!(route name digest reference range content_range manifest configuration);
}
