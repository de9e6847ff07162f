//! The combinations of endpoint and method.

use super::{Endpoint, Method};
use service::metrics::{Label as _, LabelSet};

/// An endpoint together with a method that it supports. Only some of all combinations are pairs, so
/// that unusual methods do not multiply the series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair(u8);

impl Pair {
    /// Every pair, by endpoint.
    pub const ALL: &'static [(Endpoint, Method)] = &[
        (Endpoint::Base, Method::Get),
        (Endpoint::Base, Method::Head),
        (Endpoint::Catalog, Method::Get),
        (Endpoint::Catalog, Method::Head),
        (Endpoint::Tags, Method::Get),
        (Endpoint::Tags, Method::Head),
        (Endpoint::Manifest, Method::Get),
        (Endpoint::Manifest, Method::Head),
        (Endpoint::Manifest, Method::Put),
        (Endpoint::Manifest, Method::Delete),
        (Endpoint::Blob, Method::Get),
        (Endpoint::Blob, Method::Head),
        (Endpoint::Blob, Method::Delete),
        (Endpoint::UploadStart, Method::Post),
        (Endpoint::UploadSession, Method::Get),
        (Endpoint::UploadSession, Method::Put),
        (Endpoint::UploadSession, Method::Patch),
        (Endpoint::UploadSession, Method::Delete),
        (Endpoint::Referrers, Method::Get),
        (Endpoint::Referrers, Method::Head),
        (Endpoint::Token, Method::Get),
        (Endpoint::Token, Method::Post),
        (Endpoint::Extension, Method::Get),
        (Endpoint::Extension, Method::Other),
        (Endpoint::Other, Method::Get),
        (Endpoint::Other, Method::Head),
        (Endpoint::Other, Method::Post),
        (Endpoint::Other, Method::Put),
        (Endpoint::Other, Method::Patch),
        (Endpoint::Other, Method::Delete),
        (Endpoint::Other, Method::Options),
        (Endpoint::Other, Method::Other),
    ];

    /// The pair to count a request under. A method that the endpoint lacks counts as endpoint
    /// `other` with that method. An extension defines its own methods: each but GET counts as OTHER.
    #[inline]
    pub fn of(endpoint: Endpoint, method: Method) -> Self {
        Self(INDEXES[endpoint as usize][method as usize])
    }

    /// The endpoint.
    pub fn endpoint(self) -> Endpoint {
        Self::ALL[usize::from(self.0)].0
    }

    /// The method.
    pub fn method(self) -> Method {
        Self::ALL[usize::from(self.0)].1
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Pair({}, {})",
            self.endpoint().as_str(),
            self.method().value()
        )
    }
}

impl LabelSet for Pair {
    const COUNT: usize = Self::ALL.len();

    fn names(names: &mut Vec<&'static str>) {
        names.extend([Endpoint::NAME, Method::NAME]);
    }

    #[inline]
    fn index(self) -> usize {
        usize::from(self.0)
    }

    fn values(self, values: &mut Vec<&'static str>) {
        values.extend([self.endpoint().as_str(), self.method().value()]);
    }
}

const ENDPOINTS: usize = Endpoint::ALL.len();
const METHODS: usize = Method::ALL.len();

/// The index in [`Pair::ALL`] of each combination. Built at compile time, where a missing pair is an
/// error: a new endpoint or method does not compile until it has its pairs.
const INDEXES: [[u8; METHODS]; ENDPOINTS] = {
    assert!(
        Pair::ALL.len() <= u8::MAX as usize + 1,
        "a pair is one byte"
    );
    // A table, because each request looks up its pair.
    let mut indexes = [[0; METHODS]; ENDPOINTS];
    let mut endpoint = 0;
    // `while`, because a `for` loop cannot run at compile time.
    while endpoint < ENDPOINTS {
        let mut methods = 0;
        let mut method = 0;
        while method < METHODS {
            indexes[endpoint][method] = match find(endpoint, method) {
                Some(index) => {
                    // Counts its own pairs only, not those that stand in below.
                    methods += 1;
                    index
                }
                None if endpoint == Endpoint::Extension as usize => {
                    expect(find(endpoint, Method::Other as usize))
                }
                None => expect(find(Endpoint::Other as usize, method)),
            };
            method += 1;
        }
        // Without this check, all requests of a forgotten endpoint would count as `other`.
        assert!(methods > 0, "every endpoint has a method");
        endpoint += 1;
    }
    indexes
};

#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion above bounds the number of pairs"
)]
const fn find(endpoint: usize, method: usize) -> Option<u8> {
    let mut index = 0;
    while index < Pair::ALL.len() {
        let (e, m) = Pair::ALL[index];
        if e as usize == endpoint && m as usize == method {
            return Some(index as u8);
        }
        index += 1;
    }
    None
}

const fn expect(index: Option<u8>) -> u8 {
    match index {
        Some(index) => index,
        None => panic!("endpoint `other` has every method, and an extension has OTHER"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_pair_is_itself() {
        for (index, &(endpoint, method)) in Pair::ALL.iter().enumerate() {
            let pair = Pair::of(endpoint, method);
            assert_eq!((pair.endpoint(), pair.method()), (endpoint, method));
            assert_eq!(LabelSet::index(pair), index);
        }
    }

    #[test]
    fn any_other_combination_is_other_with_its_method() {
        for endpoint in Endpoint::ALL {
            for &method in Method::ALL {
                let pair = Pair::of(endpoint, method);
                let expected = if Pair::ALL.contains(&(endpoint, method)) {
                    (endpoint, method)
                } else if endpoint == Endpoint::Extension {
                    (endpoint, Method::Other)
                } else {
                    (Endpoint::Other, method)
                };
                assert_eq!((pair.endpoint(), pair.method()), expected);
            }
        }
    }

    #[test]
    fn a_pair_prints_two_labels() {
        let mut values = Vec::new();
        Pair::of(Endpoint::UploadSession, Method::Patch).values(&mut values);
        assert_eq!(values, ["upload_session", "PATCH"]);
        let mut names = Vec::new();
        Pair::names(&mut names);
        assert_eq!(names, ["endpoint", "method"]);
    }
}
