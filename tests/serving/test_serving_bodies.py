"""The body of a request to columns: every form, every refusal with its field and row."""

from __future__ import annotations

import base64
import io
import json
import time
import wave
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("python_multipart", reason="pip install 'danlu[serve]'")

from danlu.serving.protocol.refusals import Refusal, errors_as_refusals
from danlu.serving.worker import decode_values, parse_body

FIELDS: list[dict[str, Any]] = [
    {"name": "age", "kind": "number", "required": False, "example": 30.0},
    {"name": "city", "kind": "category", "required": False, "example": "Rome"},
    {"name": "joined", "kind": "datetime", "required": True, "example": "2024-01-31"},
]
IMAGE: list[dict[str, Any]] = [
    {"name": "image", "kind": "image", "required": True, "shape": [2, 3, 1], "example": ""}
]
AUDIO: list[dict[str, Any]] = [
    {"name": "sound", "kind": "audio", "required": True, "rate": 8000, "example": ""}
]
JSON = "application/json"


def read(
    body: Any, kind: str = JSON, fields: list[dict[str, Any]] = FIELDS, most: int = 10
) -> decode_values.Columns:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with errors_as_refusals():
        return decode_values.decode(parse_body.parse(kind, data, fields, most), fields)


def refused(
    body: Any, kind: str = JSON, fields: list[dict[str, Any]] = FIELDS, most: int = 10
) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(body, kind, fields, most)
    return caught.value


def row(**changes: Any) -> dict[str, Any]:
    return {"age": 30, "city": "Rome", "joined": "2024-01-31", **changes}


def png(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def test_one_row_and_many_rows_are_columns() -> None:
    one, many = read({"row": row()}), read({"rows": [row(), row(age=None, city=None)]})
    assert (one.count, many.count) == (1, 2)
    assert one.values["age"].tolist() == [30.0]
    assert np.isnan(many.values["age"][1])
    assert many.values["city"] == ["Rome", None]
    assert one.key == many.key is not None  # so they are answered together


def test_values_that_can_be_read_in_two_ways_are_read_with_their_own_request_alone() -> None:
    assert read({"row": row(age="1,234")}).key is None
    assert read({"row": row(city=5)}).key is None
    assert read({"row": row(joined="03/04/2011")}).key is None
    assert read({"row": row(joined="2024-01-31T10:00:00")}).key not in (
        None,
        read({"row": row()}).key,
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"row": NaN}', "not JSON"),
        (b'{"row": Infinity}', "not JSON"),
        (b'{"row": {"age": ' + b"9" * 5000 + b"}}", "not JSON"),
        (b'{"row": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'\xff\xfe{"row": 1}', "not JSON"),
        (b'{"row": {"city": "\xff"}}', "not JSON"),
        (b'{"row": {"city": "\\ud800"}}', "not JSON"),
        (b"[]", "a list, not an object"),
        (b'"row"', "a string, not an object"),
        (b'{"rows": {}}', "an object, not a list"),
        (b'{"rows": []}', "there is no row"),
        (b'{"rows": [1]}', "not a number"),
        (b'{"age": 1}', "neither row nor rows"),
        (b"{}", "neither row nor rows"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, says: str) -> None:
    found = refused(body)
    assert found.status == 400
    assert says in found.message
    assert found.hint


def test_a_refusal_names_the_field_and_the_row() -> None:
    lost = row()
    del lost["city"]
    found = refused({"rows": [row(), lost]})
    assert (found.field, found.row) == ("city", 2)
    found = refused({"rows": [row(), {**lost, "cty": "Rome"}]})
    assert found.hint == "was it written as cty?"
    found = refused({"rows": [row(), row(), row(age=2**70)]})
    assert (found.field, found.row, found.message) == ("age", 3, "the number is too large.")


def test_no_more_rows_are_read_than_allowed() -> None:
    assert refused({"rows": [row()] * 11}).status == 413
    assert refused(b"age,city,joined\n" + b"1,Rome,2024-01-31\n" * 11, "text/csv").status == 413


def test_csv_is_rows_with_a_line_of_names() -> None:
    found = read(
        b'\xef\xbb\xbfcity,age,joined\nRome,3,2024-01-31\n"Os,lo",,2024-01-31\n',
        "text/csv; charset=utf-8",
    )
    assert found.count == 2
    assert found.values["city"] == ["Rome", "Os,lo"]
    assert found.values["age"] == ["3", ""]
    assert found.key is None  # numbers in words: read as a file is


@pytest.mark.parametrize(
    ("body", "row"),
    [
        (b"age,city\n1,2,3\n", 1),
        (b"age,age\n1,2\n", None),
        (b'age,city\n1,"2\n', 1),
        (b"\xff\n", None),
        (b"", None),
    ],
)
def test_csv_that_is_none_is_refused(body: bytes, row: int | None) -> None:
    found = refused(body, "text/csv")
    assert (found.status, found.row) == (400, row)


def form(*parts: tuple[str, str | None, bytes], boundary: str = "b") -> bytes:
    made = b""
    for name, file, data in parts:
        beside = f'; filename="{file}"' if file else ""
        made += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{beside}\r\n\r\n'.encode()
            + data
            + b"\r\n"
        )
    return made + f"--{boundary}--\r\n".encode()


def test_a_form_with_a_file_is_a_row_and_with_several_is_several() -> None:
    pixels = [np.full((2, 3), value, dtype=np.uint8) for value in (0, 255)]
    found = read(
        form(*[("image", "a.png", png(each)) for each in pixels]),
        "multipart/form-data; boundary=b",
        IMAGE,
    )
    assert found.values["image"].tolist() == [each[:, :, None].tolist() for each in pixels]
    found = read(
        form(
            ("age", None, b"3"), ("city", None, "Århus".encode()), ("joined", None, b"2024-01-31")
        ),
        "multipart/form-data; boundary=b",
    )
    assert found.values["city"] == ["Århus"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", form(("age", None, b"1"))),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", form(("age", None, b"1"))[:-8]),
        ("multipart/form-data; boundary=b", form(("age", None, b"\xff"))),
        (
            "multipart/form-data; boundary=b",
            form(("age", None, b"1"), ("age", None, b"2"), ("city", None, b"Rome")),
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--\r\n",
        ),
        ("multipart/form-data; boundary=" + "b" * 100_000, form(("age", None, b"1"))),
    ],
)
def test_a_form_that_is_none_is_refused(kind: str, body: bytes) -> None:
    assert refused(body, kind).status == 400


def test_an_unknown_type_is_refused() -> None:
    assert refused(b"<row/>", "application/xml").status == 415
    assert refused(b"x", "image/png").status == 415  # the model takes no image


def test_an_image_comes_as_pixels_as_base64_as_a_data_url_or_as_it_is() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    coded = base64.b64encode(png(pixels)).decode()
    wanted = pixels[None, :, :, None].tolist()
    for cell in (
        pixels.tolist(),
        pixels[:, :, None].tolist(),
        pixels.astype(float).tolist(),
        coded,
        f"data:image/png;base64,{coded}",
    ):
        found = read({"row": {"image": cell}}, fields=IMAGE)
        assert found.values["image"].dtype == np.uint8
        assert found.values["image"].tolist() == wanted
    assert read(png(pixels), "image/png", IMAGE).values["image"].tolist() == wanted


def test_an_image_of_another_size_is_resized() -> None:
    found = read({"row": {"image": np.full((20, 30), 7).tolist()}}, fields=IMAGE)
    assert found.values["image"].tolist() == np.full((1, 2, 3, 1), 7).tolist()


@pytest.mark.parametrize(
    "cell",
    [None, 5, True, {}, [], [[]], [[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5, 256]], [[1, 2, 3], [4, 5, -1]], [[1, 2, 3], [4, 5, 0.5]],
     [["a"] * 3] * 2, [3, 3], [[1, 2, 3], 3], "/etc/passwd", "file:///etc/passwd", "http://localhost/", "", "AAAA", "data:image/png;base64,%%%",
     [[[[1]]]]],
)  # fmt: skip
def test_what_is_no_image_is_refused_by_its_name(cell: Any) -> None:
    good = [[1, 2, 3], [4, 5, 6]]
    found = refused({"rows": [{"image": good}, {"image": cell}]}, fields=IMAGE)
    assert (found.field, found.row) == ("image", 2)
    assert found.status in (400, 413)


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that declares side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_an_image_that_declares_more_than_it_can_hold_is_not_decoded() -> None:
    assert "bomb" in refused(bomb(6000), "image/png", IMAGE).message
    found = refused({"rows": [{"image": base64.b64encode(bomb(4000)).decode()}] * 5}, fields=IMAGE)
    assert found.status in (400, 413)


def test_a_recording_comes_as_samples_or_as_a_file_and_is_no_path() -> None:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.arange(100, dtype="<i2").tobytes())
    coded = base64.b64encode(held.getvalue()).decode()
    for given in ({"row": {"sound": coded}}, {"row": {"sound": list(range(100))}}):
        assert read(given, fields=AUDIO).values["sound"][0].tolist() == list(range(100))
    for cell in (None, "/etc/passwd", "AAAA", [1, "a"], [[1]], 3, coded[:40]):
        found = refused({"row": {"sound": cell}}, fields=AUDIO)
        assert (found.field, found.row) == ("sound", 1)


@pytest.mark.parametrize(
    "row",
    [{f"k{number}": 1 for number in range(500_000)}, {"age": [[]] * 1_000_000}],
    ids=["names", "lists"],
)
def test_a_body_of_too_many_names_or_values_is_refused_before_it_is_parsed(row: Any) -> None:
    body = json.dumps({"row": row}).encode()
    fields: Any = [{"name": "age"}]
    began = time.process_time()
    with pytest.raises(Refusal, match="the body holds more than") as caught:
        parse_body.parse("application/json", body, fields, 4096)
    assert caught.value.status == 413
    assert time.process_time() - began < 0.2  # parsed and looked through, it took 0.8 to 30 s
    full = json.dumps({"rows": [{"age": 1}] * 4096}).encode()
    assert len(parse_body.parse("application/json", full, fields, 4096)) == 4096
