//! Byte ranges: of a blob that is read, and of a chunk that is uploaded.
//!
//! Parsed here rather than by the `headers` crate: an upload's `Content-Range` has the
//! distribution-spec's own grammar, and the number of ranges is bounded.

use std::sync::Arc;

/// One range of a `Range` header (RFC 9110, section 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first byte to the last, both included.
    FromTo(u64, u64),
    /// From this byte to the end.
    From(u64),
    /// The last bytes, of this number.
    Suffix(u64),
}

/// The ranges of a `Range` header, in its order: at least one, and at most [`ByteRanges::MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteRanges {
    first: ByteRange,
    // Almost always empty, and therefore separate: one range needs no allocation.
    others: Vec<ByteRange>,
}

/// A part of a blob: `length` bytes from `start`. It is never empty, and lies within the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

/// The parts of a blob to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spans {
    /// The whole blob: no range is requested, or the ranges together are larger than the blob.
    Whole,
    /// One part of it.
    One(Span),
    /// Several parts, in the order of the request.
    Several(Arc<[Span]>),
}

/// The header does not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range is malformed")]
pub struct RangeError;

/// No byte of the ranges exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside the content's {length} bytes")]
pub struct Unsatisfiable {
    /// The content's length, in bytes.
    pub length: u64,
}

impl ByteRanges {
    /// The most ranges in one header. Lazy pullers send about as many: a partial pull of a `zstd:chunked`
    /// layer sends 1,024.
    pub const MAX: usize = 1024;

    /// Reads a `Range` header's value.
    ///
    /// `None` requests the whole: the header is absent, its unit is not bytes, or it has more than
    /// [`Self::MAX`] ranges, which a server may ignore (RFC 9110, section 14.2).
    pub fn parse(header: Option<&str>) -> Result<Option<Self>, RangeError> {
        let Some(header) = header else {
            return Ok(None);
        };
        let (unit, set) = header.split_once('=').ok_or(RangeError)?;
        if !unit.trim_ascii().eq_ignore_ascii_case("bytes") {
            return Ok(None);
        }
        let mut ranges = set
            .split(',')
            .map(str::trim_ascii)
            // A recipient must accept empty members of a list (RFC 9110, section 5.6.1.2).
            .filter(|range| !range.is_empty());
        let first = ByteRange::parse(ranges.next().ok_or(RangeError)?)?;
        let mut others = Vec::new();
        for range in ranges {
            // Before the next range is parsed: a longer header costs no more time or memory.
            if others.len() + 1 == Self::MAX {
                return Ok(None);
            }
            others.push(ByteRange::parse(range)?);
        }
        Ok(Some(Self { first, others }))
    }

    /// The ranges, in the header's order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// The parts to read of content of `length` bytes.
    ///
    /// Ranges outside the content are left out; it is an error if all are. The others keep their order and
    /// are not merged, because clients count the parts. If they are together larger than the content, the
    /// whole is sent: no header makes a response larger than that.
    pub fn resolve(&self, length: u64) -> Result<Spans, Unsatisfiable> {
        if self.others.is_empty() {
            return self.first.resolve(length).map(Spans::One);
        }
        let resolved = self.iter().filter_map(|range| range.resolve(length).ok());
        let spans: Vec<Span> = resolved.collect();
        // A u128, because a sum of spans may overflow a u64.
        let wanted: u128 = spans.iter().map(|span| u128::from(span.length)).sum();
        match *spans {
            [] => Err(Unsatisfiable { length }),
            [span] => Ok(Spans::One(span)),
            _ if wanted > u128::from(length) => Ok(Spans::Whole),
            _ => Ok(Spans::Several(spans.into())),
        }
    }
}

impl From<ByteRange> for ByteRanges {
    fn from(first: ByteRange) -> Self {
        let others = Vec::new();
        Self { first, others }
    }
}

impl Spans {
    /// The parts to read of content of `length` bytes: the whole, unless ranges are requested.
    pub fn of(ranges: Option<&ByteRanges>, length: u64) -> Result<Self, Unsatisfiable> {
        ranges.map_or(Ok(Self::Whole), |ranges| ranges.resolve(length))
    }

    /// The span with this index, of content of `length` bytes.
    pub fn get(&self, index: usize, length: u64) -> Option<Span> {
        match self {
            Self::Several(spans) => spans.get(index).copied(),
            Self::One(span) => (index == 0).then_some(*span),
            Self::Whole => (index == 0).then_some(Span { start: 0, length }),
        }
    }

    /// The number of bytes in all spans, of content of `length` bytes.
    pub fn total(&self, length: u64) -> u64 {
        match self {
            Self::Whole => length,
            Self::One(span) => span.length,
            Self::Several(spans) => spans.iter().map(|span| span.length).sum(),
        }
    }
}

impl ByteRange {
    /// Reads one range of a set.
    fn parse(range: &str) -> Result<Self, RangeError> {
        let (first, last) = range.split_once('-').ok_or(RangeError)?;
        match (first, last) {
            ("", suffix) => Ok(Self::Suffix(position(suffix)?)),
            (first, "") => Ok(Self::From(position(first)?)),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                // Invalid (RFC 9110, section 14.1.1), and not only unsatisfiable.
                if first > last {
                    return Err(RangeError);
                }
                Ok(Self::FromTo(first, last))
            }
        }
    }

    /// The part to read of content of `length` bytes: at least one byte.
    ///
    /// Empty content satisfies no range: the `Content-Range` of a 206 cannot express an empty part.
    pub fn resolve(self, length: u64) -> Result<Span, Unsatisfiable> {
        let (start, end) = match self {
            // A last byte beyond the end, or a suffix longer than the content, is valid and is cut
            // (RFC 9110, section 14.1.2).
            Self::FromTo(first, last) => (first, last.saturating_add(1).min(length)),
            Self::From(first) => (first, length),
            Self::Suffix(count) => (length.saturating_sub(count), length),
        };
        if start >= end {
            return Err(Unsatisfiable { length });
        }
        let length = end - start;
        Ok(Span { start, length })
    }
}

/// The position of a chunk in its blob, both ends included: `Content-Range` of an upload (end-5, end-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadRange {
    start: u64,
    end: u64,
}

impl UploadRange {
    /// Reads the header's value: `start-end` as distribution-spec has it, or HTTP's own
    /// `bytes start-end/size`, which some clients send.
    pub fn parse(header: &str) -> Result<Self, RangeError> {
        let header = header.trim_ascii();
        let range = match header.split_once(' ') {
            Some((unit, rest)) if unit.eq_ignore_ascii_case("bytes") => {
                let (range, size) = rest.trim_ascii().split_once('/').ok_or(RangeError)?;
                if size != "*" {
                    number(size)?;
                }
                range
            }
            _ => header,
        };
        let (start, end) = range.split_once('-').ok_or(RangeError)?;
        let (start, end) = (number(start)?, number(end)?);
        // The length, `end + 1`, must not overflow.
        if start > end || end == u64::MAX {
            return Err(RangeError);
        }
        Ok(Self { start, end })
    }

    /// The first byte's position.
    pub fn start(self) -> u64 {
        self.start
    }

    /// The last byte's position.
    pub fn end(self) -> u64 {
        self.end
    }

    /// The number of bytes; at least 1.
    pub fn length(self) -> u64 {
        self.end - self.start + 1
    }
}

/// A position in a blob. One that overflows is read as the largest: no blob is that long.
fn position(digits: &str) -> Result<u64, RangeError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeError);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// A number that must not overflow.
fn number(digits: &str) -> Result<u64, RangeError> {
    position(digits)?;
    digits.parse().map_err(|_| RangeError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_range_of_bytes_is_read() {
        for (header, range) in [
            ("bytes=0-0", ByteRange::FromTo(0, 0)),
            ("bytes=5-99", ByteRange::FromTo(5, 99)),
            ("bytes=5-", ByteRange::From(5)),
            ("bytes=-5", ByteRange::Suffix(5)),
            ("Bytes = 5-9 ", ByteRange::FromTo(5, 9)),
            ("bytes=,5-9,", ByteRange::FromTo(5, 9)),
            (
                "bytes=0-99999999999999999999",
                ByteRange::FromTo(0, u64::MAX),
            ),
        ] {
            let read = ByteRanges::parse(Some(header));
            assert_eq!(read, Ok(Some(range.into())), "{header}");
        }
    }

    #[test]
    fn several_ranges_are_read_in_order_up_to_a_limit() {
        let read = |header: &str| {
            let ranges = ByteRanges::parse(Some(header)).unwrap();
            ranges.map(|ranges| ranges.iter().collect::<Vec<_>>())
        };
        assert_eq!(
            read("bytes=10-13, ,0-3,\t-1,5-"),
            Some(vec![
                ByteRange::FromTo(10, 13),
                ByteRange::FromTo(0, 3),
                ByteRange::Suffix(1),
                ByteRange::From(5),
            ])
        );
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(read(&many(ByteRanges::MAX)).unwrap().len(), ByteRanges::MAX);
        assert_eq!(read(&many(ByteRanges::MAX + 1)), None);
        assert_eq!(ByteRanges::parse(Some("bytes=0-3,x")), Err(RangeError));
    }

    #[test]
    fn several_ranges_keep_their_order_and_those_outside_the_content_are_dropped() {
        let span = |start, length| Span { start, length };
        let several = |spans: &[Span]| Ok(Spans::Several(spans.into()));
        for (header, length, spans) in [
            ("bytes=0-3,10-13", 14, several(&[span(0, 4), span(10, 4)])),
            ("bytes=10-13,0-3", 14, several(&[span(10, 4), span(0, 4)])),
            ("bytes=0-1,0-1", 10, several(&[span(0, 2), span(0, 2)])),
            ("bytes=0-4,5-", 10, several(&[span(0, 5), span(5, 5)])),
            ("bytes=0-3,10-13", 10, Ok(Spans::One(span(0, 4)))),
            ("bytes=99-,-2", 10, Ok(Spans::One(span(8, 2)))),
            ("bytes=10-,20-30", 10, Err(Unsatisfiable { length: 10 })),
            ("bytes=0-,0-0", 10, Ok(Spans::Whole)),
            ("bytes=0-,0-", u64::MAX, Ok(Spans::Whole)),
        ] {
            let ranges = ByteRanges::parse(Some(header)).unwrap().unwrap();
            assert_eq!(ranges.resolve(length), spans, "{header} of {length}");
        }
    }

    #[test]
    fn a_range_of_another_unit_is_ignored() {
        for header in [None, Some("items=0-5")] {
            assert_eq!(ByteRanges::parse(header), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn a_malformed_range_is_rejected() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes=--1",
            "bytes=1-2-3",
            "0-5",
            "bytes=\u{661}-",
        ] {
            assert_eq!(
                ByteRanges::parse(Some(header)),
                Err(RangeError),
                "{header:?}"
            );
        }
    }

    #[test]
    fn a_range_is_cut_to_the_content() {
        for (range, length, part) in [
            (ByteRange::FromTo(0, 0), 10, Some((0, 1))),
            (ByteRange::FromTo(2, 5), 10, Some((2, 4))),
            (ByteRange::FromTo(2, u64::MAX), 10, Some((2, 8))),
            (ByteRange::FromTo(9, 9), 10, Some((9, 1))),
            (ByteRange::FromTo(10, 10), 10, None),
            (ByteRange::FromTo(5, 2), 10, None),
            (ByteRange::From(9), 10, Some((9, 1))),
            (ByteRange::From(10), 10, None),
            (ByteRange::From(u64::MAX), 10, None),
            (ByteRange::Suffix(3), 10, Some((7, 3))),
            (ByteRange::Suffix(30), 10, Some((0, 10))),
            (ByteRange::Suffix(0), 10, None),
            (ByteRange::From(0), 0, None),
            (ByteRange::Suffix(1), 0, None),
        ] {
            let part = part.map(|(start, length)| Span { start, length });
            assert_eq!(range.resolve(length).ok(), part, "{range:?} of {length}");
        }
    }

    #[test]
    fn the_position_of_a_chunk_is_read() {
        for header in [
            "5-9",
            "bytes 5-9/10",
            "bytes 5-9/*",
            "Bytes 5-9/10",
            " 5-9 ",
        ] {
            let range = UploadRange::parse(header).unwrap();
            assert_eq!(
                (range.start(), range.end(), range.length()),
                (5, 9, 5),
                "{header}"
            );
        }
        let all = format!("0-{}", u64::MAX - 1);
        assert_eq!(UploadRange::parse(&all).unwrap().length(), u64::MAX);
    }

    #[test]
    fn a_malformed_chunk_range_is_rejected() {
        for header in [
            "",
            "-",
            "5-",
            "-5",
            "5",
            "9-5",
            "a-b",
            "5-9/10",
            "bytes 5-9",
            "bytes 5-9/x",
            "bytes=5-9",
            "items 5-9/10",
            "5-9-10",
            "+5-9",
            "0-18446744073709551615",
            "0-99999999999999999999",
        ] {
            assert_eq!(UploadRange::parse(header), Err(RangeError), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_range_lies_within_the_content(
            header in "bytes=(([0-9]{0,3}|[0-9]{18,22})-([0-9]{0,3}|[0-9]{18,22}),){1,4}",
            length in prop_oneof![0_u64..1000, any::<u64>()],
        ) {
            if let Ok(Some(ranges)) = ByteRanges::parse(Some(&header))
                && let Ok(spans) = ranges.resolve(length)
            {
                prop_assert!(spans.total(length) <= length);
                let parts = match &spans {
                    Spans::Whole => &[][..],
                    Spans::One(span) => std::slice::from_ref(span),
                    Spans::Several(spans) => spans,
                };
                for Span { start, length: part } in parts {
                    prop_assert!(*part > 0);
                    prop_assert!(start.checked_add(*part).is_some_and(|end| end <= length));
                }
            }
        }

        #[test]
        fn a_range_survives_printing_and_parsing(a: u64, b: u64) {
            let (first, last) = (a.min(b), a.max(b));
            for (header, range) in [
                (format!("bytes={first}-{last}"), ByteRange::FromTo(first, last)),
                (format!("bytes={first}-"), ByteRange::From(first)),
                (format!("bytes=-{first}"), ByteRange::Suffix(first)),
            ] {
                prop_assert_eq!(ByteRanges::parse(Some(&header)), Ok(Some(range.into())));
            }
        }

        #[test]
        fn parsing_never_panics(text in "(bytes=)?[0-9, -]{0,9}|.*") {
            let _ = ByteRanges::parse(Some(&text));
            let _ = UploadRange::parse(&text);
        }
    }
}
