//! The parameters of a query string.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A request's query string. Values are decoded when they are read.
///
/// Only `percent-encoding` is used, and not `form_urlencoded`, which reads a plus sign as a space.
/// Here a plus sign stands for itself: no parameter of the specification may hold a space, and media
/// types (`artifactType`) often hold a plus sign that a person typed as it is. Bytes that are not
/// UTF-8 become U+FFFD, which no type of ours accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// The first value of a parameter.
    pub(super) fn get(self, name: &str) -> Option<Cow<'a, str>> {
        self.pairs()
            .find(|(key, _)| decode(key) == name)
            .map(|(_, value)| decode(value))
    }

    /// All values of a parameter, in order.
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.pairs()
            .filter(move |(key, _)| decode(key) == name)
            .map(|(_, value)| decode(value))
    }

    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_a_plus_sign_is_kept() {
        let query = Query::new(Some("digest=sha256%3Aab&artifactType=a/b+json&%6e=3&empty"));
        assert_eq!(query.get("digest").unwrap(), "sha256:ab");
        assert_eq!(query.get("artifactType").unwrap(), "a/b+json");
        assert_eq!(query.get("n").unwrap(), "3");
        assert_eq!(query.get("empty").unwrap(), "");
        assert_eq!(query.get("absent"), None);
        assert_eq!(Query::new(None).get("n"), None);
    }

    #[test]
    fn a_repeated_parameter_gives_its_first_value_or_all() {
        let query = Query::new(Some("tag=1&x=0&tag=1.2"));
        assert_eq!(query.get("tag").unwrap(), "1");
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["1", "1.2"]);
    }

    #[test]
    fn an_encoded_separator_does_not_separate() {
        let query = Query::new(Some("last=a%26n%3D5"));
        assert_eq!(query.get("last").unwrap(), "a&n=5");
        assert_eq!(query.get("n"), None);
    }

    #[test]
    fn bytes_that_are_not_utf_8_decode_to_a_replacement_character() {
        assert_eq!(Query::new(Some("tag=%ff")).get("tag").unwrap(), "\u{fffd}");
    }
}
