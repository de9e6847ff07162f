use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What a connection gives and takes.
#[derive(Default)]
struct Script {
    /// What is read: pieces, and `None` for nothing there yet. Then the end.
    reads: VecDeque<Option<Vec<u8>>>,
    /// How much each write takes: 0 for nothing yet. Then all of it.
    writes: VecDeque<usize>,
    written: Vec<u8>,
    is_broken: bool,
}

impl Script {
    fn reading(pieces: &[&[u8]]) -> Script {
        let reads = pieces.iter().map(|piece| Some(piece.to_vec())).collect();
        Script {
            reads,
            ..Script::default()
        }
    }

    fn writing(writes: &[usize]) -> Script {
        Script {
            writes: writes.iter().copied().collect(),
            ..Script::default()
        }
    }
}

impl Io for Script {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match self.reads.pop_front() {
            Some(Some(piece)) => {
                assert!(piece.len() <= buffer.capacity() - buffer.len());
                buffer.extend_from_slice(&piece);
                Poll::Ready(Ok(piece.len()))
            }
            Some(None) => Poll::Pending,
            None => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(0));
        }
        let there: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(there > 0);
        let taken = match self.writes.pop_front() {
            Some(0) => return Poll::Pending,
            Some(most) => most.min(there),
            None => there,
        };
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.written.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls a connection that only ever pends once before it has something.
fn ready<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let mut context = Context::from_waker(std::task::Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(value) = poll(&mut context) {
            return value;
        }
    }
    panic!("never ready");
}

/// Reads a body to its end, with at most so many bytes of a piece used at a time.
fn read(incoming: &mut Incoming, io: &mut Script, most: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        let used = ready(|context| match incoming.poll_piece(io, context) {
            Poll::Ready(Ok(piece)) => {
                let used = piece.len().min(most);
                body.extend_from_slice(&piece[..used]);
                Poll::Ready(Ok(used))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        })?;
        if used == 0 {
            return Ok(body);
        }
        assert!(!incoming.is_whole());
        incoming.consume(used);
    }
}

/// Sends a body in these pieces, and what is buffered before and behind it.
fn send(outgoing: &mut Outgoing, io: &mut Script, pieces: &[&[u8]]) {
    for piece in pieces {
        let mut piece = *piece;
        while !piece.is_empty() {
            let sent = ready(|context| outgoing.poll_send(io, context, piece)).unwrap();
            assert!(sent > 0);
            piece = &piece[sent..];
        }
    }
    outgoing.end();
    ready(|context| outgoing.poll_flush(io, context)).unwrap();
}

#[test]
fn a_body_ends_where_its_length_says_and_the_rest_stays() {
    for (length, wire, body, rest) in [
        (BodyLength::None, &b"next"[..], &b""[..], &b"next"[..]),
        (BodyLength::Known(0), b"next", b"", b"next"),
        (BodyLength::Known(4), b"bodynext", b"body", b"next"),
        (
            BodyLength::Chunked,
            b"4\r\nbody\r\n0\r\n\r\nnext",
            b"body",
            b"next",
        ),
        (BodyLength::Chunked, b"0\r\nX: y\r\n\r\nnext", b"", b"next"),
        (BodyLength::UntilClose, b"bodynext", b"bodynext", b""),
        (BodyLength::UntilClose, b"", b"", b""),
    ] {
        for split in 0..=wire.len() {
            for most in [1, 3, usize::MAX] {
                // Some of it was read with the head.
                let mut incoming = Incoming::new(BytesMut::from(&wire[..split]));
                let mut io = Script::reading(&[&wire[split..]]);
                io.reads.push_front(None);
                if split == wire.len() {
                    io.reads.pop_back();
                }
                incoming.begin(length);
                let read = read(&mut incoming, &mut io, most).unwrap();
                assert_eq!(read, body, "{length:?} at {split}");
                assert!(incoming.is_whole());
                let unread: Vec<u8> = io.reads.into_iter().flatten().flatten().collect();
                assert_eq!([&incoming.buffer[..], &unread].concat(), rest);
            }
        }
    }
}

#[test]
fn a_body_that_ends_early_is_cut() {
    for (length, wire) in [
        (BodyLength::Known(5), &b"body"[..]),
        (BodyLength::Known(u64::MAX), b"body"),
        (BodyLength::Chunked, b""),
        (BodyLength::Chunked, b"4\r\nbod"),
        (BodyLength::Chunked, b"4\r\nbody\r\n"),
        (BodyLength::Chunked, b"4\r\nbody\r\n0\r\n"),
    ] {
        let mut incoming = Incoming::new(BytesMut::from(wire));
        incoming.begin(length);
        let read = read(&mut incoming, &mut Script::default(), usize::MAX);
        assert!(matches!(read, Err(BodyError::Cut)), "{length:?}: {read:?}");
        assert!(!incoming.is_whole());
    }
}

#[test]
fn a_connection_that_fails_cuts_even_a_body_that_ends_with_it() {
    for length in [
        BodyLength::Known(5),
        BodyLength::Chunked,
        BodyLength::UntilClose,
    ] {
        let mut incoming = Incoming::new(BytesMut::new());
        incoming.begin(length);
        let mut io = Script {
            is_broken: true,
            ..Script::default()
        };
        let read = read(&mut incoming, &mut io, usize::MAX);
        assert!(matches!(read, Err(BodyError::Cut)), "{length:?}: {read:?}");
        assert!(!incoming.is_whole());
    }
}

#[test]
fn a_malformed_chunk_is_told_apart_from_a_cut() {
    let mut incoming = Incoming::new(BytesMut::from(&b"1\r\nab\r\n"[..]));
    incoming.begin(BodyLength::Chunked);
    let read = read(&mut incoming, &mut Script::default(), usize::MAX);
    assert!(
        matches!(read, Err(BodyError::Malformed(Refusal::Body))),
        "{read:?}"
    );
}

#[test]
fn only_what_is_not_in_the_buffer_is_missing_from_the_socket() {
    let mut incoming = Incoming::new(BytesMut::from(&b"body"[..]));
    incoming.begin(BodyLength::Known(10));
    assert_eq!((incoming.missing(), incoming.on_socket()), (Some(6), None));
    incoming.consume(4);
    assert_eq!(incoming.missing(), Some(6));
    assert_eq!(incoming.on_socket(), Some(6));
    incoming.moved(6);
    assert!(incoming.is_whole());
    assert_eq!(incoming.on_socket(), Some(0));
    for length in [BodyLength::Chunked, BodyLength::UntilClose] {
        incoming.begin(length);
        assert_eq!((incoming.missing(), incoming.on_socket()), (None, None));
    }
}

#[test]
fn the_next_request_in_the_buffer_is_not_missing() {
    let mut incoming = Incoming::new(BytesMut::from(&b"bodynext"[..]));
    incoming.begin(BodyLength::Known(4));
    assert_eq!((incoming.missing(), incoming.on_socket()), (Some(0), None));
}

#[test]
fn memory_that_holds_something_is_not_released() {
    let mut incoming = Incoming::new(BytesMut::from(&b"next"[..]));
    incoming.release();
    assert_eq!(incoming.buffer, "next");
    incoming.buffer.advance(4);
    incoming.release();
    assert_eq!(incoming.buffer.capacity(), 0);
    let mut outgoing = Outgoing::new();
    outgoing.buffer.extend_from_slice(b"head");
    outgoing.release();
    assert_eq!(outgoing.buffer, "head");
}

#[test]
fn a_head_goes_before_its_body() {
    let mut outgoing = Outgoing::new();
    outgoing.buffer.extend_from_slice(b"head\r\n\r\n");
    outgoing.begin(false);
    assert!(!outgoing.is_plain());
    let mut io = Script::writing(&[3, 0, 1, 0]);
    send(&mut outgoing, &mut io, &[b"bo", b"dy"]);
    assert_eq!(io.written, b"head\r\n\r\nbody");
    assert!(outgoing.is_plain());
}

#[test]
fn a_message_without_a_body_is_its_head() {
    for is_chunked in [false, true] {
        let mut outgoing = Outgoing::new();
        outgoing.buffer.extend_from_slice(b"head\r\n\r\n");
        outgoing.begin(is_chunked);
        let mut io = Script::writing(&[0, 1]);
        send(&mut outgoing, &mut io, &[]);
        let expected = if is_chunked {
            &b"head\r\n\r\n0\r\n\r\n"[..]
        } else {
            b"head\r\n\r\n"
        };
        assert_eq!(io.written, expected);
    }
}

#[test]
fn a_chunk_is_as_long_as_its_size_says_even_if_more_comes_meanwhile() {
    let mut outgoing = Outgoing::new();
    outgoing.begin(true);
    assert!(!outgoing.is_plain());
    // The line of the size and one byte of the data; then more of the body is there.
    let mut io = Script::writing(&[4, 0]);
    let sent = ready(|context| outgoing.poll_send(&mut io, context, b"abc")).unwrap();
    assert_eq!((sent, &io.written[..]), (1, &b"3\r\na"[..]));
    send(&mut outgoing, &mut io, &[b"bcde"]);
    assert_eq!(io.written, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
}

#[test]
fn a_write_that_takes_nothing_is_an_error() {
    let mut io = Script {
        is_broken: true,
        ..Script::default()
    };
    let mut outgoing = Outgoing::new();
    let sent = ready(|context| outgoing.poll_send(&mut io, context, b"body"));
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::WriteZero);
    outgoing.buffer.extend_from_slice(b"head");
    let flushed = ready(|context| outgoing.poll_flush(&mut io, context));
    assert_eq!(flushed.unwrap_err().kind(), io::ErrorKind::WriteZero);
}

proptest! {
    #[test]
    fn a_chunked_body_survives_any_reads_and_writes(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..6),
        writes in prop::collection::vec(0..40_usize, 0..100),
        reads in prop::collection::vec(1..40_usize, 1..100),
        most in 1..50_usize,
    ) {
        let mut outgoing = Outgoing::new();
        outgoing.begin(true);
        let mut io = Script::writing(&writes);
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        send(&mut outgoing, &mut io, &slices);

        let mut wire = &io.written[..];
        let mut there = Script::default();
        for size in reads {
            let (piece, rest) = wire.split_at(size.min(wire.len()));
            if !piece.is_empty() {
                there.reads.extend([Some(piece.to_vec()), None]);
            }
            wire = rest;
        }
        let mut incoming = Incoming::new(BytesMut::new());
        incoming.begin(BodyLength::Chunked);
        if !wire.is_empty() {
            there.reads.push_back(Some(wire.to_vec()));
        }
        let body = read(&mut incoming, &mut there, most).unwrap();
        prop_assert_eq!(body, pieces.concat());
        prop_assert!(incoming.is_whole() && incoming.buffer.is_empty());
    }
}
