//! Tags that bind upload sessions to upstreams and replicas.
//!
//! An upload session exists at the replica that opened it. The Location that the replica hands out
//! gets one more query parameter: a MAC over the names of the upstream and the replica and the Location's
//! path. The proxy that gets the session's next request finds the replica whose MAC that is, and takes the
//! parameter out again. So proxies that have the key in common need no memory of sessions, and the tag
//! tells nobody where a replica is.
//!
//! A short MAC of the upstream's name alone precedes it, so that a tag that nobody made costs no more with
//! many upstreams than with one.
//!
//! The path is decoded first, because a client may escape it in another way.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use ring::hmac;
use subtle::ConstantTimeEq as _;

/// The name of the query parameter.
const PARAMETER: &str = "_octoserve";

/// How many bytes of the MAC a tag has: half of it, which nobody guesses.
const LENGTH: usize = 16;

/// How many bytes say whose tag it may be.
const HINT: usize = 4;

/// The shortest key, in bytes.
pub const SHORTEST_KEY: usize = 32;

/// What tags are made with.
#[derive(Clone)]
pub struct SessionKey(Box<[u8]>);

/// Makes the tags of an upstream's replicas, and tells whose they are.
pub(crate) struct SessionTags {
    /// What each of them begins with.
    hint: [u8; HINT],
    /// Of each replica: the MAC, once it has seen the replica's name.
    begun: Vec<hmac::Context>,
}

impl SessionKey {
    /// `None` for a key that is too short.
    pub fn new(key: &[u8]) -> Option<SessionKey> {
        (key.len() >= SHORTEST_KEY).then(|| SessionKey(key.into()))
    }

    /// The key as text, for the process that comes after this one.
    pub(crate) fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }

    /// The key of such a text.
    pub(crate) fn from_hex(text: &str) -> Option<SessionKey> {
        SessionKey::new(&hex::decode(text).ok()?)
    }

    /// A key that nobody else has.
    pub fn random() -> SessionKey {
        SessionKey(Box::new(rand::random::<[u8; SHORTEST_KEY]>()))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl SessionTags {
    /// The tags of an upstream's replicas of these names.
    pub(super) fn new<'n>(
        key: &SessionKey,
        upstream: &str,
        names: impl Iterator<Item = &'n str>,
    ) -> SessionTags {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
        let with = |begun: &hmac::Context, name: &str| {
            let mut mac = begun.clone();
            mac.update(name.as_bytes());
            // It ends the name: neither an upstream's has one, nor a URL.
            mac.update(b"\0");
            mac
        };
        let of_upstream = with(&hmac::Context::with_key(&key), upstream);
        SessionTags {
            hint: start(of_upstream.clone()),
            begun: names.map(|name| with(&of_upstream, name)).collect(),
        }
    }

    /// The Location of a session of a replica, with its tag. `path` is the path that a client asks for
    /// who follows the Location.
    pub(crate) fn add(&self, replica: usize, location: &str, path: &str) -> Option<String> {
        let mac = mac(self.begun.get(replica)?, &decoded(path));
        let (location, fragment) = match location.find('#') {
            Some(at) => location.split_at(at),
            None => (location, ""),
        };
        let joint = if location.contains('?') { '&' } else { '?' };
        let tag = hex::encode([&self.hint[..], &mac].concat());
        Some(format!("{location}{joint}{PARAMETER}={tag}{fragment}"))
    }

    /// The replica that made this tag for this path.
    pub(crate) fn replica(&self, tag: &str, path: &str) -> Option<usize> {
        let mut given = [0; HINT + LENGTH];
        hex::decode_to_slice(tag, &mut given).ok()?;
        let (hint, given) = given.split_at(HINT);
        if hint != self.hint {
            return None;
        }
        let path = decoded(path);
        let mut replicas = self.begun.iter();
        replicas.position(|begun| mac(begun, &path).ct_eq(given).into())
    }
}

/// As many bytes of the MAC as a tag has.
fn mac(begun: &hmac::Context, path: &[u8]) -> [u8; LENGTH] {
    let mut mac = begun.clone();
    mac.update(path);
    start(mac)
}

/// The first bytes of a MAC.
fn start<const LENGTH: usize>(mac: hmac::Context) -> [u8; LENGTH] {
    let whole = mac.sign();
    let mut start = [0; LENGTH];
    // SHA-256 has more.
    for (byte, of_whole) in start.iter_mut().zip(whole.as_ref()) {
        *byte = *of_whole;
    }
    start
}

fn decoded(path: &str) -> Cow<'_, [u8]> {
    percent_decode_str(path).into()
}

/// A target without its tag, and the tag; `None` if it has none. Everything else stays byte for byte.
/// Of several tags the last one is taken: those before are of other proxies that stand behind this one.
pub(crate) fn split(target: &str) -> Option<(String, &str)> {
    let query = target.find('?')? + 1;
    let (mut start, mut found) = (query, None);
    for part in target[query..].split('&') {
        let end = start + part.len();
        let value = part.strip_prefix(PARAMETER);
        if let Some(tag) = value.and_then(|value| match value {
            "" => Some(""),
            value => value.strip_prefix('='),
        }) {
            found = Some((start, end, tag));
        }
        start = end + 1;
    }
    let (start, end, tag) = found?;
    let (before, after) = (&target[..start], &target[end..]);
    // One joint goes with it: that before it, or, where it comes first, that after it.
    let rest = match after.strip_prefix('&') {
        Some(after) if start == query => [before, after].concat(),
        _ => [&target[..start - 1], after].concat(),
    };
    Some((rest, tag))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(key: u8, names: &[&str]) -> SessionTags {
        let key = SessionKey::new(&[key; SHORTEST_KEY]).unwrap();
        SessionTags::new(&key, "main", names.iter().copied())
    }

    fn tag(tags: &SessionTags, replica: usize, path: &str) -> String {
        let location = tags.add(replica, path, path).unwrap();
        split(&location).unwrap().1.to_owned()
    }

    #[test]
    fn a_tag_names_the_replica_that_has_the_session_at_every_proxy_with_the_key() {
        let path = "/v2/team/app/blobs/uploads/1";
        let here = tags(1, &["http://a:5000", "http://b:5000"]);
        // Another order, and one more.
        let there = tags(1, &["http://b:5000", "http://c:5000", "http://a:5000"]);
        for replica in 0..2 {
            let tag = tag(&here, replica, path);
            assert_eq!(here.replica(&tag, path), Some(replica));
            assert_eq!(there.replica(&tag, path), Some([2, 0][replica]));
            assert_eq!(here.replica(&tag, "/v2/team/app/blobs/uploads/2"), None);
            assert_eq!(
                tags(2, &["http://a:5000", "http://b:5000"]).replica(&tag, path),
                None
            );
            assert_eq!(
                here.replica(&tag, "/v2/team%2Fapp/blobs/uploads/%31"),
                Some(replica)
            );
        }
        assert_eq!(
            tags(1, &["http://d"]).replica(&tag(&here, 0, path), path),
            None
        );
    }

    #[test]
    fn a_key_is_the_same_one_after_it_was_passed_on() {
        let key = SessionKey::random();
        let passed = SessionKey::from_hex(&key.to_hex()).unwrap();
        let tags = |key| SessionTags::new(key, "main", ["a", "b"].into_iter());
        let tag = tag(&tags(&key), 1, "/u");
        assert_eq!(tags(&passed).replica(&tag, "/u"), Some(1));
        for bad in ["", "0", "zz", "00"] {
            assert!(SessionKey::from_hex(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_tag_that_nobody_made_fits_no_replica() {
        let tags = tags(1, &["http://a:5000"]);
        let good = tag(&tags, 0, "/u");
        assert_eq!(good.len(), 2 * (HINT + LENGTH));
        let longer = format!("{good}00");
        for bad in [
            "",
            "0",
            &good[..30],
            &longer,
            &"0".repeat(40),
            &format!("{}{}", &good[..8], "0".repeat(32)),
            &format!("{}{}", "0".repeat(8), &good[8..]),
            "zz",
            "%00",
            "é",
        ] {
            assert_eq!(tags.replica(bad, "/u"), None, "{bad}");
        }
    }

    #[test]
    fn a_tag_of_one_upstream_fits_no_other_with_the_same_key_and_replicas() {
        let of = |upstream: &str, replica: &str| {
            let key = SessionKey::new(&[1; SHORTEST_KEY]).unwrap();
            SessionTags::new(&key, upstream, std::iter::once(replica))
        };
        let all = [
            of("a", "http://r"),
            of("ahttp", "://r"),
            of("b", "http://r"),
        ];
        for (made_by, one) in all.iter().enumerate() {
            let made = tag(one, 0, "/u");
            for (asked, other) in all.iter().enumerate() {
                let found = (made_by == asked).then_some(0);
                assert_eq!(other.replica(&made, "/u"), found, "{made_by} {asked}");
            }
        }
    }

    #[test]
    fn a_name_and_a_path_do_not_run_into_each_other() {
        let tags = tags(1, &["http://a", "http://a/b"]);
        assert_ne!(tag(&tags, 0, "/b/u"), tag(&tags, 1, "/u"));
    }

    #[test]
    fn the_tag_is_the_last_parameter_before_a_fragment() {
        let tags = tags(1, &["http://a"]);
        for (location, before, after) in [
            ("/u", "/u?", ""),
            ("/u?", "/u?&", ""),
            ("/u?_state=a%3D", "/u?_state=a%3D&", ""),
            ("/u?a&", "/u?a&&", ""),
            ("/u#f?x", "/u?", "#f?x"),
            ("/u?a#f", "/u?a&", "#f"),
            ("http://us/u", "http://us/u?", ""),
        ] {
            let tagged = tags.add(0, location, "/u").unwrap();
            let tag = tag(&tags, 0, "/u");
            assert_eq!(tagged, format!("{before}_octoserve={tag}{after}"));
        }
    }

    #[test]
    fn only_a_whole_parameter_of_that_name_is_a_tag() {
        for (target, rest) in [
            ("/u?_octoserve=1", Some(("/u", "1"))),
            ("/u?_octoserve", Some(("/u", ""))),
            ("/u?_octoserve=", Some(("/u", ""))),
            ("/u?_octoserve=1&digest=x", Some(("/u?digest=x", "1"))),
            ("/u?_octoserve=1&", Some(("/u?", "1"))),
            ("/u?a&_octoserve=1&b", Some(("/u?a&b", "1"))),
            ("/u?a?_octoserve=1", None),
            (
                "/u?_octoserve=1&_octoserve=2",
                Some(("/u?_octoserve=1", "2")),
            ),
            ("/u?a_octoserve=1", None),
            ("/u?_octoserver=1", None),
            ("/u?_Octoserve=1", None),
            ("/u&_octoserve=1", None),
            ("/_octoserve=1", None),
            ("/u?", None),
            ("/u", None),
        ] {
            let found = split(target);
            let found = found.as_ref().map(|(rest, tag)| (rest.as_str(), *tag));
            assert_eq!(found, rest, "{target}");
        }
    }

    proptest! {
        #[test]
        fn what_was_added_is_taken_out_again_and_nothing_else(
            path in "/[a-z0-9/%._~-]{0,20}",
            query in proptest::option::of("[a-z_=&?/:%+-]{0,30}"),
            appended in proptest::option::of("[a-z][a-z=&?:%]{0,20}"),
        ) {
            let tags = tags(7, &["http://a", "http://b"]);
            let target = |query: Option<&str>| match query {
                Some(query) => format!("{path}?{query}"),
                None => path.clone(),
            };
            let location = target(query.as_deref());
            let tagged = tags.add(1, &location, &path).unwrap();
            // As a client appends parameters, with the tag and without.
            let (with, without) = match &appended {
                None => (tagged, location),
                Some(more) => {
                    let without = match &query {
                        Some(query) => target(Some(&format!("{query}&{more}"))),
                        None => target(Some(more)),
                    };
                    (format!("{tagged}&{more}"), without)
                }
            };
            let (rest, tag) = split(&with).unwrap();
            prop_assert_eq!(&rest, &without);
            prop_assert_eq!(tags.replica(tag, &path), Some(1));
            prop_assert_eq!(split(&rest), None);
        }

        #[test]
        fn a_parameter_of_any_place_is_taken_out_alone(
            parts in proptest::collection::vec("[a-z=?/:%+-]{0,8}", 0..6),
            place in 0_usize..7,
        ) {
            let place = place.min(parts.len());
            let mut with = parts.clone();
            with.insert(place, "_octoserve=0123".to_owned());
            let with = format!("/u?{}", with.join("&"));
            let without = match parts.as_slice() {
                [] => "/u".to_owned(),
                parts => format!("/u?{}", parts.join("&")),
            };
            prop_assert_eq!(split(&with), Some((without, "0123")));
        }
    }
}
