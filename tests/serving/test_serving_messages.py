"""Messages between the HTTP process and a worker: whole out of pieces of any size."""

from __future__ import annotations

import pytest

from danlu.serving.protocol.messages import MAX_BODY_BYTES, Unpacker, pack


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_messages_come_whole_out_of_pieces_of_any_size(size: int) -> None:
    sent = [
        ({"do": "answer", "id": 1}, b"\x00\n{}\xff"),
        ({"say": "beat"}, b""),
        ({"do": "answer", "id": 2}, bytes(range(256)) * 3),
    ]
    wire = b"".join(pack(header, body) for header, body in sent)
    unpacker, found = Unpacker(), []
    for start in range(0, len(wire), size):
        found += unpacker.feed(wire[start : start + size])
    assert [
        ({name: value for name, value in header.items() if name != "bytes"}, body)
        for header, body in found
    ] == sent


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        list(Unpacker().feed(b'{"say":"answer","bytes":%d}\n' % (MAX_BODY_BYTES + 1)))
    with pytest.raises(ValueError, match="size"):
        list(Unpacker().feed(b'{"say":"answer","bytes":-1}\n'))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        list(Unpacker().feed(b"nonsense\n"))
