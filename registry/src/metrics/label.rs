//! The labels and buckets that the registry and the proxy share. Every label is a closed set:
//! what a client or an upstream sends is turned into one of its values first, without an
//! allocation.

mod client;
mod pair;

pub use client::Client;
pub use pair::Pair;

use crate::oci::{Endpoint, Kind};
use service::metrics::{Label, labels};

/// The names of all labels of both programs: a label that a configuration adds must have another.
pub const NAMES: &[&str] = &[
    "backend",
    "client",
    "code",
    "direction",
    "endpoint",
    "error_type",
    "event",
    "kind",
    // Not ours: Prometheus adds `le` to histograms, and `quantile` to summaries.
    "le",
    "method",
    "name",
    "operation",
    "outcome",
    "quantile",
    "reason",
    "reference",
    "repository",
    "result",
    "revision",
    "rustc",
    "scheme",
    "side",
    "source",
    "status",
    "upstream",
    "version",
];

/// The status that is counted where the client closed its request before a response began.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Buckets for latencies and durations, in seconds.
pub const LATENCY: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0, 900.0,
];

/// Buckets for the latencies of storage, which start at the latency of a memory cache, in seconds.
pub const STORAGE_LATENCY: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0,
    60.0, 300.0, 900.0,
];

labels! {
    /// A request's method.
    pub enum Method: "method" {
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Delete = "DELETE",
        Options = "OPTIONS",
        Other = "OTHER",
    }

    /// A response's status.
    pub enum Status: "status" {
        S200 = "200",
        S201 = "201",
        S202 = "202",
        S204 = "204",
        S206 = "206",
        S301 = "301",
        S302 = "302",
        S303 = "303",
        S304 = "304",
        S307 = "307",
        S308 = "308",
        S400 = "400",
        S401 = "401",
        S403 = "403",
        S404 = "404",
        S405 = "405",
        S406 = "406",
        /// The client stopped sending its request.
        S408 = "408",
        /// A precondition failed.
        S412 = "412",
        S413 = "413",
        S416 = "416",
        S429 = "429",
        /// The client left before a response began.
        S499 = "499",
        S500 = "500",
        S502 = "502",
        S503 = "503",
        S504 = "504",
        S507 = "507",
        /// A loop was found.
        S508 = "508",
        Other = "other",
    }
}

impl Method {
    /// The label of a method as it stands in a request, where case matters.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

impl Status {
    /// The label of a status.
    pub fn of(status: u16) -> Self {
        match status {
            200 => Self::S200,
            201 => Self::S201,
            202 => Self::S202,
            204 => Self::S204,
            206 => Self::S206,
            301 => Self::S301,
            302 => Self::S302,
            303 => Self::S303,
            304 => Self::S304,
            307 => Self::S307,
            308 => Self::S308,
            400 => Self::S400,
            401 => Self::S401,
            403 => Self::S403,
            404 => Self::S404,
            405 => Self::S405,
            406 => Self::S406,
            408 => Self::S408,
            412 => Self::S412,
            413 => Self::S413,
            416 => Self::S416,
            429 => Self::S429,
            499 => Self::S499,
            500 => Self::S500,
            502 => Self::S502,
            503 => Self::S503,
            504 => Self::S504,
            507 => Self::S507,
            508 => Self::S508,
            _ => Self::Other,
        }
    }
}

impl Label for Endpoint {
    const NAME: &'static str = "endpoint";
    const ALL: &'static [Self] = &Endpoint::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Kind {
    const NAME: &'static str = "kind";
    const ALL: &'static [Self] = &Kind::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that `ALL` is in order of the indices and names nothing twice.
    fn is_consistent<L: Label + PartialEq + std::fmt::Debug>() {
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{label:?}");
        }
        let mut values: Vec<_> = L::ALL.iter().map(|label| label.value()).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), L::ALL.len());
    }

    #[test]
    fn every_label_has_its_own_index_and_value() {
        is_consistent::<Endpoint>();
        is_consistent::<Method>();
        is_consistent::<Status>();
        is_consistent::<Kind>();
        is_consistent::<Client>();
    }

    #[test]
    fn label_sets_have_the_sizes_that_the_series_bound_counts_on() {
        let sizes = [
            <Endpoint as Label>::ALL.len(),
            Method::ALL.len(),
            Status::ALL.len(),
            <Kind as Label>::ALL.len(),
            Client::ALL.len(),
        ];
        assert_eq!(sizes, [11, 8, 30, 6, 16]);
    }

    #[test]
    fn a_status_is_labelled_with_its_own_number_or_other() {
        for status in 0..=u16::MAX {
            let label = Status::of(status);
            if label != Status::Other {
                assert_eq!(label.value(), status.to_string());
            }
        }
        let known = (0..=u16::MAX)
            .filter(|&status| Status::of(status) != Status::Other)
            .count();
        assert_eq!(known, Status::ALL.len() - 1);
    }

    #[test]
    fn a_method_is_labelled_by_its_exact_spelling() {
        for &method in Method::ALL {
            assert_eq!(Method::of(method.value()), method);
        }
        for method in ["get", "", "GET ", "PROPFIND", "CONNECT", "\0"] {
            assert_eq!(Method::of(method), Method::Other, "{method:?}");
        }
    }

    #[test]
    fn buckets_ascend_to_the_documented_ends() {
        for buckets in [LATENCY, STORAGE_LATENCY] {
            assert!(buckets.is_sorted_by(|a, b| a < b));
        }
        let ends = |buckets: &[f64]| (buckets.len(), buckets[0], buckets[buckets.len() - 1]);
        assert_eq!(ends(LATENCY), (16, 0.001, 900.0));
        assert_eq!(ends(STORAGE_LATENCY), (18, 0.0001, 900.0));
    }
}
