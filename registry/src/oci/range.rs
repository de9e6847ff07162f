//! Byte ranges: of a blob that is read, and of a chunk that is uploaded.

/// The part of a blob that a `Range` header asks for (RFC 9110, section 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last byte named, both included.
    FromTo(u64, u64),
    /// From a byte to the end.
    From(u64),
    /// So many bytes at the end.
    Suffix(u64),
}

/// The header does not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range is malformed")]
pub struct RangeError;

/// No byte of the range exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside of the {length} bytes that exist")]
pub struct Unsatisfiable {
    /// The length of the whole, in bytes.
    pub length: u64,
}

impl ByteRange {
    /// Reads a `Range` header's value.
    ///
    /// `None` means that the whole is to be sent: the header is absent, its unit is not bytes, or
    /// it asks for several ranges, which a server may answer with everything.
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
            .filter(|range| !range.is_empty());
        let range = ranges.next().ok_or(RangeError)?;
        if ranges.next().is_some() {
            return Ok(None);
        }
        let (first, last) = range.split_once('-').ok_or(RangeError)?;
        match (first, last) {
            ("", suffix) => Ok(Some(Self::Suffix(position(suffix)?))),
            (first, "") => Ok(Some(Self::From(position(first)?))),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                if first > last {
                    return Err(RangeError);
                }
                Ok(Some(Self::FromTo(first, last)))
            }
        }
    }

    /// The start and the length (at least 1) within a whole of `length` bytes.
    ///
    /// An empty whole satisfies no range: a 206 has no way to name nothing.
    pub fn resolve(self, length: u64) -> Result<(u64, u64), Unsatisfiable> {
        let (start, end) = match self {
            Self::FromTo(first, last) => (first, last.saturating_add(1).min(length)),
            Self::From(first) => (first, length),
            Self::Suffix(count) => (length.saturating_sub(count), length),
        };
        if start >= end {
            return Err(Unsatisfiable { length });
        }
        Ok((start, end - start))
    }
}

/// Where a chunk lies in its blob, both ends included: `Content-Range` of an upload (end-5, end-6).
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
        // The length must be a number too.
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

    /// How many bytes it spans; at least 1.
    pub fn length(self) -> u64 {
        self.end - self.start + 1
    }
}

/// A position in a blob. No blob is as long as a position that does not fit, so it may as well be
/// the largest.
fn position(digits: &str) -> Result<u64, RangeError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeError);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// A number that must fit.
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
            assert_eq!(ByteRange::parse(Some(header)), Ok(Some(range)), "{header}");
        }
    }

    #[test]
    fn what_a_server_may_answer_with_everything_is_no_range() {
        for header in [
            None,
            Some("items=0-5"),
            Some("bytes=0-1,3-4"),
            Some("bytes=0-1, -1"),
        ] {
            assert_eq!(ByteRange::parse(header), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn a_malformed_range_is_refused() {
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
                ByteRange::parse(Some(header)),
                Err(RangeError),
                "{header:?}"
            );
        }
    }

    #[test]
    fn a_range_is_cut_to_what_exists() {
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
            assert_eq!(range.resolve(length).ok(), part, "{range:?} of {length}");
        }
    }

    #[test]
    fn a_chunk_says_where_it_lies() {
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
    fn a_malformed_chunk_range_is_refused() {
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
        fn a_resolved_range_lies_within_the_whole(
            header in "bytes=([0-9]{0,3}|[0-9]{18,22})-([0-9]{0,3}|[0-9]{18,22})",
            length in prop_oneof![0_u64..1000, any::<u64>()],
        ) {
            if let Ok(Some(range)) = ByteRange::parse(Some(&header))
                && let Ok((start, part)) = range.resolve(length)
            {
                prop_assert!(part > 0);
                prop_assert!(start.checked_add(part).is_some_and(|end| end <= length));
            }
        }

        #[test]
        fn printing_a_range_and_reading_it_gives_it_back(a: u64, b: u64) {
            let (first, last) = (a.min(b), a.max(b));
            for (header, range) in [
                (format!("bytes={first}-{last}"), ByteRange::FromTo(first, last)),
                (format!("bytes={first}-"), ByteRange::From(first)),
                (format!("bytes=-{first}"), ByteRange::Suffix(first)),
            ] {
                prop_assert_eq!(ByteRange::parse(Some(&header)), Ok(Some(range)));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(bytes=)?[0-9, -]{0,9}|.*") {
            let _ = ByteRange::parse(Some(&text));
            let _ = UploadRange::parse(&text);
        }
    }
}
