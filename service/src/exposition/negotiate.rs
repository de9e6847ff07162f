//! Choosing the format by an Accept header (RFC 9110 §12.5.1), and compression by Accept-Encoding
//! (§12.5.3). Written by hand: no maintained crate knows this short list of media types and
//! versions.

use super::limits::OmittedSamples;
use super::model::Exposition;

/// The content type of the text format.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The content type of OpenMetrics.
pub const OPENMETRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The Content-Type of the response.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_CONTENT_TYPE,
            Self::OpenMetrics => OPENMETRICS_CONTENT_TYPE,
        }
    }

    /// Appends an exposition in this format; what the format forbids is left out.
    pub fn write(self, exposition: &Exposition, out: &mut String) -> OmittedSamples {
        match self {
            Self::Text => {
                exposition.write_text(out);
                OmittedSamples::default()
            }
            Self::OpenMetrics => exposition.write_openmetrics(out),
        }
    }
}

/// The format that an Accept header asks for; text if it leaves the choice, or accepts neither.
pub fn negotiate(accept: Option<&str>) -> Format {
    let mut text = Quality::default();
    let mut openmetrics = Quality::default();
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut quality = 1.0;
        let mut version = None;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                // A broken weight must not make its range the preferred one.
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        match (media.as_str(), version) {
            ("*/*", _) => {
                text.consider(1, quality);
                openmetrics.consider(1, quality);
            }
            ("text/*", _) => text.consider(2, quality),
            ("application/*", _) => openmetrics.consider(2, quality),
            // Prometheus lists several versions in one header: those that nothing here writes do
            // not count.
            ("text/plain", None | Some("0.0.4")) => text.consider(3, quality),
            ("application/openmetrics-text", None | Some("1.0.0")) => {
                openmetrics.consider(3, quality);
            }
            _ => {}
        }
    }
    // On a tie the text format: it can express every sample, and OpenMetrics cannot.
    if openmetrics.quality > text.quality {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Whether an Accept-Encoding header wants gzip at least as much as nothing of the kind. Without
/// the header an exposition is sent as it is.
pub fn accepts_gzip(accept_encoding: Option<&str>) -> bool {
    let mut gzip = Quality::default();
    // Acceptable unless refused, but preferred only if named.
    let mut identity = Quality::default();
    for coding in accept_encoding.unwrap_or_default().split(',') {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut quality = 1.0;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            if name.trim().eq_ignore_ascii_case("q") {
                quality = value.trim().parse().unwrap_or(0.0);
            }
        }
        match name.as_str() {
            // `x-gzip` is the old name of gzip, and equal to it (RFC 9110, section 8.4.1.3).
            "gzip" | "x-gzip" => gzip.consider(2, quality),
            "identity" => identity.consider(2, quality),
            "*" => gzip.consider(1, quality),
            _ => {}
        }
    }
    gzip.quality > 0.0 && gzip.quality >= identity.quality
}

/// The quality of the most specific range so far.
#[derive(Default)]
struct Quality {
    specificity: u8,
    quality: f64,
}

impl Quality {
    fn consider(&mut self, specificity: u8, quality: f64) {
        // The most specific range decides (RFC 9110, section 12.5.1); among equal ones, the best
        // weight.
        if (specificity, quality) > (self.specificity, self.quality)
            || self.specificity < specificity
        {
            *self = Self {
                specificity,
                quality,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_default() {
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("text/html"),
            Some("image/*;q=0.5"),
        ] {
            assert_eq!(negotiate(accept), Format::Text, "{accept:?}");
        }
    }

    #[test]
    fn the_higher_quality_wins() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(negotiate(Some(prometheus)), Format::OpenMetrics);
        let old = "text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.9,*/*;q=0.1";
        assert_eq!(negotiate(Some(old)), Format::Text);
    }

    #[test]
    fn the_more_specific_range_counts() {
        let accept = "*/*;q=1, text/plain;q=0.1, application/openmetrics-text;q=0.2";
        assert_eq!(negotiate(Some(accept)), Format::OpenMetrics);
    }

    #[test]
    fn a_quality_of_zero_refuses() {
        assert_eq!(
            negotiate(Some("application/openmetrics-text;q=0")),
            Format::Text
        );
        assert_eq!(
            negotiate(Some("Application/OpenMetrics-Text")),
            Format::OpenMetrics
        );
    }

    #[test]
    fn a_version_that_we_do_not_speak_is_not_chosen() {
        let accept = "application/openmetrics-text; version=2.0.0, text/plain;q=0.1";
        assert_eq!(negotiate(Some(accept)), Format::Text);
    }

    #[test]
    fn gzip_is_sent_where_it_is_preferred_to_identity() {
        for wants in [
            "gzip",
            "GZIP",
            "x-gzip",
            "deflate, gzip;q=0.1",
            "*",
            "br, *;q=0.5",
            "gzip;q=0.5, identity;q=0.5",
            "identity;q=0, gzip;q=0.1",
        ] {
            assert!(accepts_gzip(Some(wants)), "{wants}");
        }
        for wants in [
            "",
            "deflate, br",
            "gzip;q=0",
            "*, gzip;q=0",
            "gzip;q=0.1, identity",
            "gzip;q=x",
            "identity",
        ] {
            assert!(!accepts_gzip(Some(wants)), "{wants}");
        }
        assert!(!accepts_gzip(None));
    }
}
