//! Whether a source of metrics can be aggregated.

use service::doctor::{Examination, Finding};
use service::log::causes;
use service::net::GetRequest;
use service::quantity;

use crate::aggregate::{AggregateLimits, FetchError, SourceSize, inspect};

/// Whether the source is reached, its exposition is read, and both stay within the limits.
pub(super) fn examination(
    name: &str,
    request: &GetRequest,
    limits: AggregateLimits,
) -> Examination {
    let request = request.clone();
    let subject = format!("metrics source {name}, {}", request.url());
    Examination::new(subject, async move {
        match inspect(&request, &limits).await {
            Ok(size) => judged(&size, &limits),
            Err(error) => vec![failed(&error)],
        }
    })
}

fn failed(error: &FetchError) -> Finding {
    let check = "scrape";
    let mend = match error {
        FetchError::Tls(failure) => return Finding::fail_as_said(check, &failure.to_string()),
        FetchError::Connect(_) => "start the server, or mend the URL in upstreams[].metrics",
        FetchError::Status(_) | FetchError::Unreadable | FetchError::Http(_) => {
            "mend the URL in upstreams[].metrics: it must be of an endpoint for Prometheus"
        }
        FetchError::TooLarge(_) => "raise metrics.aggregate.max_bytes, or have it expose less",
        FetchError::Timeout => {
            "see why it is slow, or raise metrics.aggregate.timeout and the scraper's"
        }
    };
    Finding::fail(check, causes(error), mend)
}

fn judged(size: &SourceSize, limits: &AggregateLimits) -> Vec<Finding> {
    let bytes = |bytes: usize| quantity::bytes(bytes as f64);
    let (sent, samples) = (bytes(size.bytes), size.samples);
    let check = "size";
    let message = format!(
        "{samples} samples in {sent}; the limits are {} and {}",
        limits.max_samples,
        bytes(limits.max_bytes)
    );
    let mend = "raise metrics.aggregate.max_samples and max_bytes, or have it expose less";
    let dropped = &size.dropped;
    // Four fifths: what grows with its repositories will be over it some day.
    let is_near = samples > limits.max_samples / 5 * 4 || size.bytes > limits.max_bytes / 5 * 4;
    let mut findings = vec![if dropped.limit > 0 {
        let message = format!("{message}: {} samples are dropped", dropped.limit);
        Finding::fail(check, message, mend)
    } else if is_near {
        Finding::warn(check, message, mend)
    } else {
        Finding::ok(check, message)
    }];
    let check = "format";
    let lost = dropped.malformed + dropped.duplicate + dropped.type_conflict;
    findings.push(if lost > 0 {
        let message = format!(
            "{} malformed, {} duplicate and {} samples of two types are dropped",
            dropped.malformed, dropped.duplicate, dropped.type_conflict
        );
        Finding::warn(
            check,
            message,
            "mend what exposes them; promtool check metrics shows where",
        )
    } else if samples == 0 {
        let mend = "mend the URL in upstreams[].metrics";
        Finding::warn(check, "it has no samples", mend)
    } else {
        Finding::ok(check, "all samples are read")
    });
    findings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use service::doctor::CheckResult::{Fail, Ok as Fine, Warn};
    use service::exposition::DroppedSamples;

    use super::*;

    #[test]
    fn a_source_is_judged_by_its_size_and_by_what_is_dropped() {
        let limits = AggregateLimits {
            timeout: Duration::from_secs(5),
            max_bytes: 1000,
            max_samples: 100,
        };
        let none = DroppedSamples::default();
        let cut = DroppedSamples { limit: 2, ..none };
        let bad = DroppedSamples {
            malformed: 3,
            ..none
        };
        for (bytes, samples, dropped, results) in [
            (500, 50, none, [Fine, Fine]),
            (500, 81, none, [Warn, Fine]),
            (801, 50, none, [Warn, Fine]),
            (500, 100, cut, [Fail, Fine]),
            (500, 50, bad, [Fine, Warn]),
            (0, 0, none, [Fine, Warn]),
        ] {
            let size = SourceSize {
                bytes,
                samples,
                dropped,
            };
            let found = judged(&size, &limits);
            assert_eq!([found[0].result, found[1].result], results, "{size:?}");
        }
    }
}
