//! W3C Trace Context: the header `traceparent` (<https://www.w3.org/TR/trace-context/>).
//!
//! Deliberately not here: spans. Nobody here takes part in a trace; its identifier is logged, and
//! passed on.

/// The length of a `traceparent` of version 00, in bytes.
const LENGTH: usize = 55;

/// The identifier of the trace that a value of `traceparent` names. `None` if it is invalid: its
/// receiver begins a new trace then.
pub fn trace_id(traceparent: &[u8]) -> Option<&str> {
    let (known, rest) = traceparent.split_at_checked(LENGTH)?;
    let (version, trace, parent, flags) =
        (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let is_separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    // A later version may append fields, and nothing else.
    let is_ended = match version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    let is_valid = is_separated
        && is_ended
        && [version, trace, parent, flags]
            .iter()
            .all(|part| is_lower_hex(part))
        && !is_zero(trace)
        && !is_zero(parent);
    is_valid.then(|| str::from_utf8(trace).ok()).flatten()
}

/// The value of `traceparent` of a trace that begins here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTraceparent([u8; LENGTH]);

impl NewTraceparent {
    /// Begins a trace of these random identifiers. It is marked as sampled: a receiver that records
    /// what its caller records would record none of its traces otherwise.
    pub fn new(trace: u128, parent: u64) -> NewTraceparent {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
        // All zeros are no identifier.
        write_hex(&mut value[3..35], trace.max(1));
        write_hex(&mut value[36..52], parent.max(1).into());
        NewTraceparent(value)
    }

    /// The header's value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn is_lower_hex(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == b'0')
}

fn write_hex(text: &mut [u8], mut number: u128) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_trace_is_read_from_a_valid_header_alone() {
        let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(valid.as_bytes()), Some(TRACE));
        for (value, is_valid) in [
            (valid.replace("-01", "-00"), true),
            (valid.replace("-01", "-ff"), true),
            // A later version may say more, but only after another hyphen.
            (valid.replacen("00-", "01-", 1), true),
            (valid.replacen("00-", "cc-", 1) + "-what-ever", true),
            (valid.replacen("00-", "cc-", 1) + "-", true),
            (valid.replacen("00-", "cc-", 1) + ".what", false),
            (valid.replacen("00-", "ff-", 1), false),
            (valid.replacen("00-", "0-", 1), false),
            (valid.replacen("00-", "0x-", 1), false),
            (valid.clone() + "-00", false),
            (valid.clone() + " ", false),
            (valid.to_uppercase(), false),
            (valid.replace(TRACE, &"0".repeat(32)), false),
            (valid.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            (valid.replace('-', "_"), false),
            (valid.replace(TRACE, &TRACE[1..]), false),
            (valid[..54].to_owned(), false),
            (format!("00-{TRACE}-00f067aa0ba902b7-0g"), false),
            (format!("00-{}ä-00f067aa0ba902b7-01", &TRACE[2..]), false),
            (String::new(), false),
        ] {
            assert_eq!(trace_id(value.as_bytes()).is_some(), is_valid, "{value}");
        }
        assert_eq!(trace_id(&[0xff; 60]), None);
    }

    #[test]
    fn a_new_trace_is_valid_whatever_is_drawn() {
        let drawn = NewTraceparent::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 7);
        assert_eq!(
            str::from_utf8(drawn.as_bytes()),
            Ok("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01")
        );
        for (trace, parent) in [(0, 0), (u128::MAX, u64::MAX)] {
            assert!(trace_id(NewTraceparent::new(trace, parent).as_bytes()).is_some());
        }
    }
}
