"""Reads what the fuzz targets forwarded: each line's bytes are one message with its body, for h11."""

import sys

import h11

# A head of 64 KiB, with what the proxy adds.
LIMIT = 128 << 10


def read(kind, written):
    """The body, and the bytes after the end of the message."""
    if kind == "request":
        connection = h11.Connection(h11.SERVER, LIMIT)
    else:
        connection = h11.Connection(h11.CLIENT, LIMIT)
        connection.send(h11.Request(method=kind, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(written)
    connection.receive_data(b"")
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert not event.headers, event.headers
            return body, connection.trailing_data[0]
        else:
            heads = (h11.Request, h11.InformationalResponse, h11.Response)
            assert isinstance(event, heads), event


def main():
    count, failed = 0, 0
    with open(sys.argv[1]) as lines:
        for line in lines:
            kind, *parts = line.split()
            written, body = (bytes.fromhex(part.rstrip(".")) for part in parts)
            count += 1
            try:
                seen, rest = read(kind, written)
                assert seen == body, ("another body", seen, body)
                assert not rest, ("something follows", rest)
            except (h11.RemoteProtocolError, AssertionError) as error:
                failed += 1
                print(f"h11: {kind} {written}: {error!r}", file=sys.stderr)
    print(f"h11: {count} messages, {failed} of them refused or different")
    # Nothing read is nothing checked.
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
