//! Serving an exposition over HTTP: format and compression are negotiated, and `Vary` names the
//! request headers that decide.
//!
//! Deliberately not here: making the exposition, and authentication ([`auth`](super::auth)).

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

mod body;
mod final_file;

pub use final_file::FinalFile;

pub use body::{EncodedExposition, EncodedExpositions, ExpositionBody, ReadTooSlowly};

use crate::exposition::{Exposition, Format, OmittedSamples, accepts_gzip, negotiate};

/// The format and compression that a scraper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeFormat {
    format: Format,
    gzip: bool,
}

impl ScrapeFormat {
    /// What a request's headers ask for.
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            format: negotiate(joined(headers, &ACCEPT).as_deref()),
            gzip: accepts_gzip(joined(headers, &ACCEPT_ENCODING).as_deref()),
        }
    }

    /// Writes the exposition in each of these forms, and each format once; and what OpenMetrics
    /// forbids and was left out for that, if it is among them. A large exposition takes a while:
    /// not for a thread that serves.
    pub fn encode(exposition: &Exposition, forms: &[Self]) -> (Vec<(Self, Bytes)>, OmittedSamples) {
        let mut omitted = OmittedSamples::default();
        let mut encoded = Vec::with_capacity(forms.len());
        for format in [Format::Text, Format::OpenMetrics] {
            let in_format = |form: &&Self| form.format == format;
            if !forms.iter().any(|form| in_format(&form)) {
                continue;
            }
            let mut text = String::new();
            let by_format = format.write(exposition, &mut text);
            if format == Format::OpenMetrics {
                omitted = by_format;
            }
            let text = Bytes::from(text);
            for &form in forms.iter().filter(in_format) {
                let bytes = if form.gzip {
                    compressed(&text)
                } else {
                    text.clone()
                };
                encoded.push((form, bytes));
            }
        }
        (encoded, omitted)
    }

    /// The response with an exposition that was [encoded](Self::encode) so.
    pub fn respond(self, exposition: Arc<EncodedExposition>) -> Response<ExpositionBody> {
        let length = exposition.len();
        let mut response = Response::new(ExpositionBody::new(exposition));
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(self.format.content_type()),
        );
        headers.insert(CONTENT_LENGTH, length.into());
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn compressed(text: &[u8]) -> Bytes {
    // An exposition repeats itself so much that more effort gains little.
    let buffer = Vec::with_capacity(text.len() / 8);
    let mut encoder = GzEncoder::new(buffer, Compression::fast());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default().into()
}

/// A header's value, which may come in several lines; what is no text of it is passed over.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::exposition::{OPENMETRICS_CONTENT_TYPE, ParseLimits, TEXT_CONTENT_TYPE};

    fn wanted(headers: &[(HeaderName, &'static str)]) -> ScrapeFormat {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        ScrapeFormat::of(&map)
    }

    #[test]
    fn a_compressed_exposition_is_the_same_exposition() {
        let text = "# HELP x_total X.\n# TYPE x_total counter\nx_total 1\n";
        let (exposition, _) = Exposition::parse(text, &ParseLimits::default());
        let plain = wanted(&[]);
        let gzip = wanted(&[(ACCEPT_ENCODING, "deflate, gzip;q=0.5")]);
        let (forms, _) = ScrapeFormat::encode(&exposition, &[gzip, plain]);
        let [(_, ref encoded), (_, ref written)] = forms[..] else {
            panic!("{} forms", forms.len())
        };
        assert_eq!(forms[0].0, gzip);
        assert_eq!(written, text);
        let mut again = String::new();
        let mut unpacked = GzDecoder::new(&**encoded);
        unpacked.read_to_string(&mut again).unwrap();
        assert_eq!(again, text);
        let response = gzip.respond(EncodedExpositions::default().add(encoded.clone()));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(
            response.headers()[CONTENT_LENGTH],
            encoded.len().to_string().as_str()
        );
    }

    #[test]
    fn every_response_has_a_vary_header_for_what_it_depends_on() {
        for (headers, media_type) in [
            (&[][..], TEXT_CONTENT_TYPE),
            (
                &[(ACCEPT, "application/openmetrics-text")],
                OPENMETRICS_CONTENT_TYPE,
            ),
        ] {
            let response = wanted(headers).respond(EncodedExpositions::default().add(Bytes::new()));
            assert_eq!(response.headers()[VARY], "Accept, Accept-Encoding");
            assert_eq!(response.headers()[CONTENT_TYPE], media_type);
            assert!(!response.headers().contains_key(CONTENT_ENCODING));
        }
    }

    #[test]
    fn a_header_in_several_lines_is_one_list() {
        let lines = [
            (ACCEPT, "text/plain;q=0.5"),
            (ACCEPT, "application/openmetrics-text"),
        ];
        assert_eq!(wanted(&lines).format, Format::OpenMetrics);
    }
}
