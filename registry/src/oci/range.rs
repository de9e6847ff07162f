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
