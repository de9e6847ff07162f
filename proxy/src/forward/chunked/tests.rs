use bytes::{Buf as _, BytesMut};
use proptest::prelude::*;

use super::*;

/// What came of the bytes: the data, and how many bytes are left behind the end of the body; `None`
/// if it has not ended.
type Decoded = Result<(Vec<u8>, Option<usize>), Refusal>;

/// Decodes bytes that arrive in these pieces.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = ChunkDecoder::new();
    let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !decoder.is_at_end() {
            match decoder.decode(&buffer)? {
                Chunked::Data { framing, data } => {
                    assert!(data > 0);
                    buffer.advance(framing);
                    body.extend_from_slice(&buffer[..data]);
                    buffer.advance(data);
                    decoder.consume(data);
                }
                Chunked::More { framing } => {
                    assert_eq!(framing, buffer.len());
                    buffer.clear();
                    break;
                }
                Chunked::End { framing } => {
                    buffer.advance(framing);
                    assert!(decoder.is_at_end());
                }
            }
        }
    }
    Ok((body, decoder.is_at_end().then_some(buffer.len())))
}

/// Decodes bytes however they arrive in two pieces, which makes no difference.
fn decoded(bytes: &[u8]) -> Decoded {
    let whole = decode([bytes]);
    for split in 0..=bytes.len() {
        let (first, second) = bytes.split_at(split);
        let parts = decode([first, second]);
        assert_eq!(parts, whole, "{} at {split}", bytes.escape_ascii());
    }
    assert_eq!(decode(bytes.chunks(1)), whole);
    whole
}

fn encode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = BytesMut::new();
    for piece in pieces {
        size_line(&mut out, piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out.to_vec()
}

#[test]
fn the_data_of_all_chunks_is_the_body_however_it_arrives() {
    for (text, body, left) in [
        (&b"0\r\n\r\n"[..], &b""[..], Some(0)),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", Some(0)),
        (b"3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n", b"abc\r\n", Some(0)),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", Some(0)),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", Some(0)),
        (b"0000000000000003\r\nabc\r\n000\r\n\r\n", b"abc", Some(0)),
        (b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"abc", Some(16)),
        (b"0\r\n\r\n0\r\n\r\n", b"", Some(5)),
        (b"3\r\nab", b"ab", None),
        (b"3\r\nabc\r\n0\r\n", b"abc", None),
        (b"3\r\nabc\r\n0\r\n\r", b"abc", None),
        (b"", b"", None),
    ] {
        let expected = Ok((body.to_vec(), left));
        assert_eq!(decoded(text), expected, "{}", text.escape_ascii());
    }
}

#[test]
fn a_size_is_hexadecimal_digits() {
    for text in [
        &b"\r\n\r\n"[..],
        b"g\r\n\r\n",
        b"0x0\r\n\r\n",
        b"-1\r\n\r\n",
        b"+0\r\n\r\n",
        b" 3\r\nabc\r\n",
        b"\t3\r\nabc\r\n",
        b"\xef\xbc\x93\r\nabc\r\n",
        b";x\r\n\r\n",
        b";x=y\r\n\r\n",
        b"\0\r\n",
        b"3.0\r\nabc\r\n",
        b"3,\r\nabc\r\n",
        b"3_0\r\n",
    ] {
        assert_eq!(decoded(text), Err(Refusal::Body), "{}", text.escape_ascii());
    }
    // In the place of a later chunk, too.
    for text in [&b"1\r\na\r\n\r\n\r\n"[..], b"1\r\na\r\n;x\r\n\r\n"] {
        assert_eq!(decoded(text), Err(Refusal::Body), "{}", text.escape_ascii());
    }
}

#[test]
fn a_size_that_does_not_fit_is_refused() {
    let mut decoder = ChunkDecoder::new();
    let largest = b"ffffffffffffffff\r\nabc";
    let data = Chunked::Data {
        framing: 18,
        data: 3,
    };
    assert_eq!(decoder.decode(largest), Ok(data));
    for text in [&b"10000000000000000\r\n"[..], b"00000000000000001\r\na\r\n"] {
        assert_eq!(decoded(text), Err(Refusal::Body), "{}", text.escape_ascii());
    }
}

#[test]
fn every_line_ends_with_a_carriage_return_and_a_line_feed() {
    for text in [
        &b"0\n\n"[..],
        b"0\r\n\n",
        b"0\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3\r\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"0\r\n\rx",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: y\r\r\n",
    ] {
        assert_eq!(decoded(text), Err(Refusal::Body), "{}", text.escape_ascii());
    }
}

#[test]
fn an_extension_is_dropped() {
    for text in [
        &b"3;x\r\nabc\r\n0;y=z\r\n\r\n"[..],
        b"3;\r\nabc\r\n0;\r\n\r\n",
        b"3 ;x = \"y\"\r\nabc\r\n0\t; z\r\n\r\n",
        b"3 \r\nabc\r\n0\t \r\n\r\n",
        b"3;0\r\nabc\r\n0;5\r\n\r\n",
        b"3;\x80\xff\r\nabc\r\n0\r\n\r\n",
    ] {
        let expected = Ok((b"abc".to_vec(), Some(0)));
        assert_eq!(decoded(text), expected, "{}", text.escape_ascii());
    }
}

#[test]
fn a_control_character_in_an_extension_is_refused() {
    for control in (0..=31_u8).chain([127]).filter(|byte| *byte != b'\t') {
        let text = [b"3;a", &[control][..], b"b\r\nabc\r\n0\r\n\r\n"].concat();
        assert_eq!(decoded(&text), Err(Refusal::Body), "{control}");
    }
}

#[test]
fn an_extension_has_a_limit() {
    let with = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length - 1));
    let longest = with(MAX_EXTENSION);
    assert_eq!(decode([longest.as_bytes()]), Ok((b"a".to_vec(), Some(0))));
    let longer = with(MAX_EXTENSION + 1);
    assert_eq!(decode([longer.as_bytes()]), Err(Refusal::Body));
}

#[test]
fn trailers_are_dropped() {
    for text in [
        &b"1\r\na\r\n0\r\nX: y\r\n\r\n"[..],
        b"1\r\na\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n0\r\nX: \t\xff\r\n y\r\n\r\n",
        b"1\r\na\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let expected = Ok((b"a".to_vec(), Some(0)));
        assert_eq!(decoded(text), expected, "{}", text.escape_ascii());
    }
}

#[test]
fn a_control_character_in_a_trailer_is_refused() {
    for control in (0..=31_u8).chain([127]).filter(|byte| *byte != b'\t') {
        let text = [b"0\r\nX: a", &[control][..], b"b\r\n\r\n"].concat();
        assert_eq!(decoded(&text), Err(Refusal::Body), "{control}");
    }
}

#[test]
fn all_trailers_together_have_a_limit() {
    let with = |length: usize| {
        let (first, second) = (length / 2, length - length / 2);
        let lines = format!("{}\r\n{}\r\n", "x".repeat(first), "y".repeat(second));
        format!("0\r\n{lines}\r\n")
    };
    let longest = with(MAX_TRAILERS);
    assert_eq!(decode([longest.as_bytes()]), Ok((Vec::new(), Some(0))));
    let longer = with(MAX_TRAILERS + 1);
    assert_eq!(decode([longer.as_bytes()]), Err(Refusal::Body));
}

#[test]
fn data_may_be_taken_in_parts() {
    let mut decoder = ChunkDecoder::new();
    let data = |framing, data| Ok(Chunked::Data { framing, data });
    assert_eq!(decoder.decode(b"5\r\nabcde\r\n"), data(3, 5));
    decoder.consume(2);
    assert_eq!(decoder.decode(b"cde\r\n"), data(0, 3));
    decoder.consume(0);
    assert_eq!(decoder.decode(b"cde\r\n"), data(0, 3));
    decoder.consume(3);
    assert!(!decoder.is_at_end());
    assert_eq!(
        decoder.decode(b"\r\n0\r\n\r\nG"),
        Ok(Chunked::End { framing: 7 })
    );
    assert!(decoder.is_at_end());
    assert_eq!(decoder.decode(b"G"), Ok(Chunked::End { framing: 0 }));
    assert_eq!(decoder.decode(b""), Ok(Chunked::End { framing: 0 }));
}

#[test]
fn a_size_is_written_without_leading_zeros() {
    for (size, line) in [
        (0, "0\r\n"),
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (255, "ff\r\n"),
        (256, "100\r\n"),
        (0x1234_5678, "12345678\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        let mut out = BytesMut::new();
        size_line(&mut out, size);
        assert_eq!(out, line);
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_whatever_its_chunks_and_its_reads(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        reads in prop::collection::vec(1..100_usize, 1..50),
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut wire = encode(chunks.iter().map(Vec::as_slice));
        wire.extend_from_slice(&rest);
        let (mut pieces, mut left) = (Vec::new(), &wire[..]);
        for size in reads {
            let (piece, later) = left.split_at(size.min(left.len()));
            pieces.push(piece);
            left = later;
        }
        pieces.push(left);
        prop_assert_eq!(decode(pieces), Ok((chunks.concat(), Some(rest.len()))));
    }

    #[test]
    fn any_bytes_are_the_same_however_they_arrive(
        bytes in prop::collection::vec(prop::sample::select(&b"01a;\r\n \tx:\x00"[..]), 0..40),
    ) {
        let whole = decoded(&bytes);
        if let Ok((body, Some(left))) = whole {
            prop_assert!(body.len() + left + 5 <= bytes.len());
        }
    }
}
