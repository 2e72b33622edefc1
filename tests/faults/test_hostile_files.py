"""Files that are damaged, lying, malicious or merely odd: each is read rightly or refused by a message that names file, row or column."""

from __future__ import annotations

import csv as stdlib_csv
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.data import cache
from danlu.errors import DataError
from danlu.recipe import ColumnOptions, Part
from danlu.terms import Table

MESSY = (
    Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    / "messy_csv"
)
pytestmark = pytest.mark.timeout(60)  # a pipe that is waited for would hang


def read(source: str, columns: dict[str, ColumnOptions] | None = None, **options: Any) -> Table:
    part = Part(source, registry.config("sources", source).model_validate(options))
    return cache.load_table(part, columns or {}, use_cache=False)[0]


@dataclass(frozen=True)
class Hostile:
    """A file `name` that `make` writes; either `says` stands in the refusal, or the columns hold
    `reads`."""

    name: str
    make: bytes | str | Callable[[Path], None]
    says: tuple[str, ...] = ()
    reads: dict[str, list[Any]] = field(default_factory=dict)
    source: str = "csv"
    options: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, ColumnOptions] = field(default_factory=dict)
    label: str = ""


def png(width: int, height: int, rows: bytes | None = None, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"\0" * (height * (width + 1)) if rows is None else rows
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    data = b"Comment\0\0" + zlib.compress(b"a" * 2**28, 9)
    return (
        struct.pack(">I", len(data))
        + b"zTXt"
        + data
        + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    )


def idx(shape: tuple[int, ...], held: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(held)


def parquet(table: dict[str, Any], cut: int | None = None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(table), path)
        path.write_bytes(path.read_bytes()[:cut])

    return make


def npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def lying_npz(path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", buffer.getvalue() + b"\0" * 80)


def lying_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
        )
        file.write(b"\0" * 80)


def picture(
    mode: str, size: tuple[int, int] = (3, 2), colour: Any = None, **save: Any
) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        from PIL import Image

        Image.new(mode, size, colour).save(path, **save)

    return make


def turned(path: Path) -> None:
    """A photograph with the orientation 6 (turn by 90 degrees), left half black, right half white
    before turning."""
    from PIL import Image

    image = Image.new("L", (4, 2))
    image.paste(255, (2, 0, 4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def folder(**inside: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        for name, content in inside.items():
            target = path / name.replace("__", "/").replace("_dot_", ".")
            target.parent.mkdir(parents=True, exist_ok=True)
            content(target) if callable(content) else target.write_bytes(content)
        path.mkdir(exist_ok=True)

    return make


def loop(path: Path) -> None:
    path.symlink_to(path.with_name("other" + path.suffix))
    path.with_name("other" + path.suffix).symlink_to(path)


def folder_loop(path: Path) -> None:
    (path / "cat").mkdir(parents=True)
    picture("L")(path / "cat" / "1.png")
    (path / "cat" / "again").symlink_to(path / "cat")


def beside(name: str, content: str) -> Callable[[Path], None]:
    return lambda path: (path.with_name(name).write_text(content), None)[1]


def two(content: str, other: str, other_content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)
        path.with_name(other).write_text(other_content)

    return make


def lazily(content: Callable[[], bytes]) -> Callable[[Path], None]:
    """For what is too large to be made before it is asked for."""
    return lambda path: (path.write_bytes(content()), None)[1]


def dimmed(content: bytes) -> bytes:
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 0x55
    return bytes(packed)


noise = np.random.default_rng(0).bytes
ROWS = "age,city\n31,Rome\n27,Oslo\n55,Rome\n"
READ = {"age": [31.0, 27.0, 55.0], "city": ["Rome", "Oslo", "Rome"]}
BIG = "x" * 2**20
MISSING = ColumnOptions(on_error="missing")
NUMBER = ColumnOptions(kind="number")
ACCENTS = "name,town\nJosé,Málaga\nZoë,Köln\nIñaki,Besançon\nRené,Zürich\n"
CHINESE = "姓名,城市\n王小明,北京市朝阳区\n李雷,上海市浦东新区\n韩梅梅,广州市天河区\n"
HAN = {
    "姓名": ["王小明", "李雷", "韩梅梅"],
    "城市": ["北京市朝阳区", "上海市浦东新区", "广州市天河区"],
}

# fmt: off
CASES = [
    # --- not there, or not a file ---
    Hostile("data.csv", b"", ("data.csv", "empty")),
    Hostile("blank.csv", b"\n\r\n  \n", ("blank.csv", "blank")),
    Hostile("bom.csv", b"\xef\xbb\xbf", ("bom.csv", "blank lines")),
    Hostile("adlut.csv", beside("adult.csv", ROWS), ("adlut.csv", "no such file", "adult.csv")),
    Hostile("no/where/x.csv", beside("adult.csv", ROWS) and (lambda path: None), ("x.csv", "no such file", "folder")),
    Hostile("folder.csv", folder(), ("folder.csv", "holds no file")),
    Hostile("loop.csv", loop, ("loop.csv", "loop")),
    Hostile("gone.csv", lambda path: path.symlink_to("nowhere.csv"), ("gone.csv", "no such file")),
    Hostile("pipe.csv", lambda path: os.mkfifo(path), ("pipe.csv", "pipe")),
    Hostile("socket.jsonl", lambda path: os.mkfifo(path), ("socket.jsonl", "pipe"), source="jsonl"),
    Hostile("zero.csv", lambda path: path.symlink_to("/dev/zero"), ("zero.csv", "device")),
    Hostile("x" * 300 + ".csv", lambda path: None, ("xxx", "cannot be read")),
    Hostile("a\0b.csv", lambda path: None, ("a", "cannot be read")),
    Hostile("*.csv", lambda path: None, ("*.csv", "no file matches")),
    # --- compressed ---
    Hostile("cut.csv.gz", gzip.compress(ROWS.encode() * 50)[:-30], ("cut.csv.gz", "too early")),
    Hostile("bare.csv.gz", b"\x1f\x8b", ("bare.csv.gz", "too early")),
    Hostile("bad.csv.gz", dimmed(ROWS.encode() * 50), ("bad.csv.gz", "damaged")),
    Hostile("bomb.csv.gz", lazily(lambda: gzip.compress(b"0,0\n" * 2**25 + b"0,0\n", 1)), ("bomb.csv.gz", "bomb")),
    Hostile("tail.csv.gz", gzip.compress(ROWS.encode()) + b"garbage", ("tail.csv.gz", "follow")),
    Hostile("two.csv.gz", gzip.compress(ROWS.encode()) + gzip.compress(b"8,Rome\n"), reads={"age": [31.0, 27.0, 55.0, 8.0]}),
    Hostile("padded.csv.gz", gzip.compress(ROWS.encode()) + b"\0" * 512, reads=READ),
    Hostile("hidden.csv", gzip.compress(ROWS.encode()), reads=READ),
    # --- other formats ---
    Hostile("book.xlsx", b"PK\x03\x04" + b"\0" * 60, ("book.xlsx", "Excel", "CSV")),
    Hostile("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 60, ("old.xls", "Excel", "CSV")),
    Hostile("zip.csv", b"PK\x03\x04" + b"\0" * 60, ("zip.csv", "zip archive")),
    Hostile("table.csv", parquet({"a": [1, 2]}), ("table.csv", "Parquet")),
    Hostile("page.csv", "<!DOCTYPE html><html>404</html>", ("page.csv", "web page")),
    Hostile("photo.csv", png(2, 2), ("photo.csv", "image")),
    # --- encodings ---
    Hostile("nul.csv", b"a,b\n1,2\n3,\x004\n", ("nul.csv row 3", "NUL")),
    Hostile("latin.csv", ACCENTS.encode("cp1252"), ("latin.csv", "line 2", "utf-8"), options={"encoding": "utf-8"}),
    Hostile("latin.csv", ACCENTS.encode("cp1252"), reads={"name": ["José", "Zoë", "Iñaki", "René"]}, label="cp1252 found"),
    Hostile("gbk.csv", CHINESE.encode("gb18030"), reads=HAN),
    Hostile("gbk.csv", CHINESE.encode("gb18030"), reads=HAN, options={"encoding": "gbk"}, label="gbk asked"),
    Hostile("mark16le.csv", b"\xff\xfe" + CHINESE.encode("utf-16-le"), reads=HAN),
    Hostile("mark16be.csv", b"\xfe\xff" + CHINESE.encode("utf-16-be"), reads=HAN),
    Hostile("mark32.csv", b"\xff\xfe\0\0" + CHINESE.encode("utf-32-le"), reads=HAN),
    Hostile("bare16le.csv", ROWS.encode("utf-16-le"), reads=READ),
    Hostile("bare16be.csv", ROWS.encode("utf-16-be"), reads=READ),
    Hostile("bare32be.csv", ROWS.encode("utf-32-be"), reads=READ),
    Hostile("odd16.csv", (b"\xff\xfe" + ROWS.encode("utf-16-le"))[:-1], ("odd16.csv", "not utf-16")),
    Hostile("mark8.csv", b'\xef\xbb\xbf"age","city"\n31,Rome\n27,Oslo\n55,Rome\n', reads=READ),
    Hostile("noise.csv", b"a,b\n\x81\x8d,\x8f\x90\n\xff\xfe,\x9d\x81\n", ("noise.csv", "not UTF-8")),
    # --- records ---
    Hostile("header.csv", "age,city\n", ("header.csv row 1", "one row")),
    Hostile("asked.csv", "age,city\n", ("asked.csv row 1", "no row below"), options={"header": True}),
    Hostile("one.csv", "31\n27\n55\n", reads={"column_1": [31.0, 27.0, 55.0]}),
    Hostile("named.csv", "age\n31\n27\n55\n", reads={"age": [31.0, 27.0, 55.0]}),
    Hostile("short.csv", "a,b,c\n1,2,3\n4,5\n6,7,8\n", ("short.csv row 3", "2 fields", "3")),
    Hostile("long.csv", "a,b\n1,2\n4,5\n6,7,8\n9,9\n", ("long.csv row 4", "3 fields", "2")),
    Hostile("cut.csv", "a,b,c\n1,2,3\n4,5,6\n7,8", ("cut.csv row 4", "2 fields", "cut off")),
    Hostile("lines.csv", 'a,b\n"x\ny",1\n"z",2,3\n"w",4\n', ("lines.csv row 3 (line 4)", "3 fields")),
    Hostile("quoted.csv", 'a,b\n"x\ny",1\n"say ""hi""",2\n", ",3\n', reads={"a": ["x\ny", 'say "hi"', ","], "b": [1.0, 2.0, 3.0]}),
    Hostile("open.csv", 'a,b\n1,2\n"3,4\n5,6\n', ("open.csv row 3", "never closed")),
    Hostile("after.csv", 'a,b\n1,2\n"3"x,4\n', ("after.csv row 3", "closing quote", "'x,4'")),
    Hostile("inside.csv", 'a,b\n5" pipe,2\n7" pipe,4\n', reads={"a": ['5" pipe', '7" pipe'], "b": [2.0, 4.0]}),
    Hostile("space.csv", 'a, b\n1, "2,5"\n3, "4"\n', reads={"a": [1.0, 3.0], "b": [2.5, 4.0]}),
    Hostile("escape.csv", 'a,b\n"x\\"y",1\n"z",2\n', reads={"a": ['x"y', "z"]}, options={"escape": "\\"}),
    Hostile("plain.tsv", 'a\tb\n"x" y\t1\nz\t2\n', reads={"a": ['"x" y', "z"], "b": [1.0, 2.0]}),
    Hostile("cr.csv", ROWS.replace("\n", "\r"), reads=READ),
    Hostile("crlf.csv", ROWS.replace("\n", "\r\n"), reads=READ),
    Hostile("mixed.csv", "age,city\r\n31,Rome\n27,Oslo\r55,Rome", reads=READ),
    Hostile("gap.csv", "age,city\n31,Rome\n\n27,Oslo\n,\n55,Rome\n\n\n", reads=READ),
    Hostile("field.csv", f"a,b\n{BIG},1\ny,2\n", reads={"a": [BIG, "y"], "b": [1.0, 2.0]}),
    Hostile("fields.csv", f'a,b\n"{BIG}\n{BIG}",1\ny,2\n', reads={"a": [f"{BIG}\n{BIG}", "y"]}),
    Hostile("wide.csv", ",".join(f"c{n}" for n in range(500)) + "\n" + ",".join("1" * 500) + "\n", reads={"c499": [1.0]}),
    Hostile("ends.csv", "a,b,\n1,2,\n3,4,\n", reads={"a": [1.0, 3.0], "b": [2.0, 4.0]}),
    Hostile("sep.csv", "sep=;\na;b\n1,5;x\n2,5;y\n", reads={"a": [1.5, 2.5], "b": ["x", "y"]}),
    Hostile("title.csv", "Report of 2011\n\na,b,c,d\n1,2,3,x\n4,5,6,y\n", reads={"a": [1.0, 4.0], "d": ["x", "y"]}),
    Hostile("notes.csv", "a,b\n1,x\n2,y\n\nSource: somewhere\n", reads={"a": [1.0, 2.0], "b": ["x", "y"]}),
    Hostile("comments.csv", "# made by hand\na,b\n1,x\n# half way\n2,y\n", reads={"a": [1.0, 2.0], "b": ["x", "y"]}),
    Hostile("repeats.csv", ROWS + "age,city\n8,Rome\n", reads={"age": [31.0, 27.0, 55.0, 8.0]}),
    Hostile("spaces.data", " 0.1   2.0  3.5\n 1.1  12.0  4.5\n", reads={"column_1": [0.1, 1.1], "column_2": [2.0, 12.0]}),
    Hostile("commas.csv", "review\ngood\nwell, fine\nbad\n", ("commas.csv row 3", "2 fields", "none")),
    Hostile("commas.csv", "review\ngood\nwell, fine\n", reads={"review": ["good", "well, fine"]}, options={"delimiter": "none"}, label="none"),
    # --- headers ---
    Hostile("twice.csv", "a,b,a\n1,2,3\n4,5,6\n", ("twice.csv row 1", "'a'", "1 and 3")),
    Hostile("padded.csv", "  age , city \n31,Rome\n27,Oslo\n55,Rome\n", reads=READ),
    Hostile("nameless.csv", ",,,x\n1,2,3,4\n5,6,7,8\n", ("nameless.csv row 1", "1 of 4")),
    Hostile("fewer.csv", "1,2,3\n4,5,6\n", ("fewer.csv row 1", "3 fields", "2 columns"), options={"header": ["a", "b"]}),
    Hostile("rownames.csv", "a,b\nr1,1,2\nr2,3,4\nr3,5,6\n", ("rownames.csv row 1", "2 fields", "3")),
    Hostile("years.csv", "who,1990,2000,2010\nann,3,4,5\nbob,6,7,9\n", reads={"who": ["ann", "bob"], "2010": [5.0, 9.0]}),
    Hostile("train.csv", two(ROWS, "test.csv", "age\n3\n4\n"), ("test.csv", "no column city"), options={"test": "test.csv"}),
    # --- values ---
    Hostile("word.csv", "age,x\n" + "3,a\n" * 20 + "thirty,a\n", ("word.csv row 22, column age", '"thirty"', "20 of 21", "on_error")),
    Hostile("word.csv", "age,x\n" + "3,a\n" * 20 + "thirty,a\n", reads={"age": [3.0] * 20 + [None]}, columns={"age": MISSING}, label="missing"),
    Hostile("huge.csv", "age,x\n1e999,a\n2,b\n" + "3,c\n" * 20, ("huge.csv row 2, column age", "1e999")),
    Hostile("inf.csv", "age,x\ninf,a\n2,b\n" + "3,c\n" * 20, ("inf.csv row 2, column age", "inf")),
    Hostile("tiny.csv", "age,x\n1e-999,a\n2,b\n" + "3,c\n" * 20, ("tiny.csv row 2, column age", "1e-999")),
    Hostile("digits.csv", f"id,x\n{'9' * 5000},a\n2,b\n", reads={"id": ["9" * 5000, "2"]}),
    Hostile("ids.csv", "id,x\n9007199254740993,a\n9007199254740992,b\n", reads={"id": ["9007199254740993", "9007199254740992"]}),
    Hostile("zip.csv", "zip,x\n01234,1\n98765,2\n", reads={"zip": ["01234", "98765"]}, label="postcodes"),
    Hostile("euro.csv", "p;q\n1.234,5;x\n2,25;y\n", reads={"p": [1234.5, 2.25]}),
    Hostile("dates.csv", "d,x\n03/04/2011,1\n05/06/2011,2\n", reads={"d": ["03/04/2011", "05/06/2011"]}),
    Hostile("dates.csv", "d,x\n03/04/2011,1\n", ("dates.csv row 2, column d", "day first"),
            columns={"d": ColumnOptions(kind="datetime")}, label="asked"),
    Hostile("feb.csv", "d,x\n2011-02-30,1\n" + "2011-02-27,2\n" * 12, ("feb.csv row 2, column d", "2011-02-30", "12 of 13")),
    Hostile("asked.csv", "age,x\none,1\ntwo,2\n", ("asked.csv row 2, column age", '"one"'), columns={"age": NUMBER}, label="kind"),
    # --- Parquet ---
    Hostile("empty.parquet", b"", ("empty.parquet", "empty"), source="parquet"),
    Hostile("cut.parquet", parquet({"a": [1, 2, 3]}, cut=-20), ("cut.parquet", "no Parquet"), source="parquet"),
    Hostile("noise.parquet", noise(1000), ("noise.parquet", "no Parquet"), source="parquet"),
    Hostile("marks.parquet", b"PAR1" + b"\xff" * 90 + b"PAR1", ("marks.parquet", "no Parquet"), source="parquet"),
    Hostile("none.parquet", parquet({"a": np.zeros(0)}), ("none.parquet", "no row"), source="parquet"),
    Hostile("nested.parquet", parquet({"a": [{"b": 1}], "c": [1]}), ("nested.parquet", "column a", "struct"), source="parquet"),
    Hostile("unused.parquet", parquet({"a": [{"b": 1}], "c": [1.5]}), reads={"c": [1.5]}, source="parquet",
            columns={"a": ColumnOptions(use=False)}),
    Hostile("lists.parquet", parquet({"a": [[1, 2], [3]]}), ("lists.parquet row 2, column a", "1 number"), source="parquet"),
    Hostile("bytes.parquet", parquet({"a": [b"\xff", b"x"]}), ("bytes.parquet", "column a", "bytes"), source="parquet"),
    Hostile("strings.parquet", parquet({"a": ["01", "2"]}), reads={"a": ["01", "2"]}, source="parquet"),
    # --- JSON Lines ---
    Hostile("bad.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n', ("bad.jsonl row 2", "not JSON"), source="jsonl"),
    Hostile("cut.jsonl", '{"a": 1}\n{"a": 2}\n{"a', ("cut.jsonl row 3", "not JSON"), source="jsonl"),
    Hostile("deep.jsonl", '{"a": 1}\n{"a": ' + "[" * 100_000 + "}\n", ("deep.jsonl row 2", "deep"), source="jsonl"),
    Hostile("twice.jsonl", '{"a": 1}\n{"a": 2, "a": 3}\n', ("twice.jsonl row 2", "'a'", "twice"), source="jsonl"),
    Hostile("digits.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}\n", ("digits.jsonl row 2", "5,000 digits"), source="jsonl"),
    Hostile("array.jsonl", '{"a": 1}\n[1, 2]\n', ("array.jsonl row 2", "array"), source="jsonl"),
    Hostile("arrays.jsonl", "[1, 2]\n[3, 4]\n", ("arrays.jsonl row 1", "array"), source="jsonl"),
    Hostile("scalar.jsonl", "1\n2\n", ("scalar.jsonl row 1", "number"), source="jsonl"),
    Hostile("infinity.jsonl", '{"a": 1}\n{"a": Infinity}\n', ("infinity.jsonl row 2, column a", "finite"), source="jsonl"),
    Hostile("nan.jsonl", '{"a": 1}\n{"a": NaN}\n', reads={"a": [1.0, None]}, source="jsonl"),
    Hostile("half.jsonl", '{"a": "x"}\n{"a": "\\ud800"}\n', ("half.jsonl row 2, column a", "surrogate"), source="jsonl"),
    Hostile("object.jsonl", '{"a": 1}\n{"a": {"b": 2}}\n', ("object.jsonl row 2, column a", "object"), source="jsonl"),
    Hostile("big.jsonl", '{"a": 9007199254740993}\n{"a": 2}\n', reads={"a": ["9007199254740993", "2"]}, source="jsonl"),
    Hostile("mixed.jsonl", '{"a": "01"}\n{"a": 2}\n{"b": true}\n', reads={"a": ["01", "2", None], "b": [None, None, True]}, source="jsonl"),
    Hostile("blank.jsonl", "\n\n", ("blank.jsonl", "empty"), source="jsonl"),
    # --- IDX ---
    Hostile("x-ubyte", idx((3, 4, 5), 60), reads={}, source="idx", label="right"),
    Hostile("more-ubyte", idx((3, 4, 5), 59), ("more-ubyte", "60", "59"), source="idx"),
    Hostile("less-ubyte", idx((3, 4, 5), 61), ("less-ubyte", "60", "61"), source="idx"),
    Hostile("lie-ubyte", idx((2**32 - 1, 2**32 - 1, 2**32 - 1), 60), ("lie-ubyte", "declares"), source="idx"),
    Hostile("type-ubyte", idx((3, 4, 5), 60, kind=7), ("type-ubyte", "no IDX"), source="idx"),
    Hostile("head-ubyte", idx((3, 4, 5), 0)[:9], ("head-ubyte", "cut off"), source="idx"),
    Hostile("float-ubyte", idx((3, 4, 5), 240, kind=0x0D), ("float-ubyte", "float32"), source="idx"),
    Hostile("bomb-ubyte.gz", lazily(lambda: gzip.compress(idx((2**17 + 1, 32, 32), 2**27 + 1024), 1)), ("bomb-ubyte.gz", "bomb"), source="idx"),
    Hostile("mnist", folder(**{"train-images-idx3-ubyte": idx((3, 4, 5), 60), "train-labels-idx1-ubyte": idx((2,), 2)}),
            ("train-labels-idx1-ubyte", "2 labels for 3 images"), source="idx"),
    Hostile("nothing", folder(readme=b"x"), ("nothing", "train-images"), source="idx"),
    # --- images ---
    Hostile("bomb.png", lazily(lambda: png(12_000, 12_000)), ("bomb.png", "pixels"), source="images"),
    Hostile("small_bomb.png", lazily(lambda: png(7_000, 7_000)), ("small_bomb.png", "bomb"), source="images"),
    Hostile("lie.png", png(40_000, 40_000, rows=b"\0" * 100), ("lie.png", "pixels"), source="images"),
    Hostile("short.png", png(30, 30, rows=b"\0" * 100), ("short.png", "damaged"), source="images"),
    Hostile("cut.png", png(30, 30, rows=noise(930))[:-500], ("cut.png", "too early"), source="images"),
    Hostile("empty.png", b"", ("empty.png", "empty"), source="images"),
    Hostile("text.png", b"this is no image", ("text.png", "no image"), source="images"),
    Hostile("words.png", lazily(lambda: png(3, 2, extra=text_bomb())), ("words.png", "damaged"), source="images"),
    Hostile("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ("script.png", "no image"), source="images"),
    Hostile("half.jpg", lambda path: (picture("RGB", (64, 64))(path), path.write_bytes(path.read_bytes()[:400]), None)[-1],
            ("half.jpg", "damaged"), source="images"),
    Hostile("float.tif", picture("F"), ("float.tif", "floating-point"), source="images"),
    Hostile("sizes", folder(a__1_dot_png=png(3, 2), a__2_dot_png=png(2, 3)), ("a/2.png", "3 x 2", "size"), source="images"),
    Hostile("bare", folder(a__1_dot_png=png(3, 2), **{"2_dot_png": png(3, 2)}), ("2.png", "no class folder"), source="images"),
    Hostile("around", folder_loop, ("around", "loop"), source="images"),
    Hostile("void", folder(), ("void", "no image"), source="images"),
    # --- numpy ---
    Hostile("object.npy", lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True), ("object.npy", "unpickled"), source="numpy"),
    Hostile("object.npz", lambda path: npz(path, x=np.array([{}], dtype=object)), ("object.npz", "unpickled"), source="numpy"),
    Hostile("lie.npy", lying_npy, ("lie.npy", "no numpy file"), source="numpy"),
    Hostile("lie.npz", lying_npz, ("lie.npz", "declares"), source="numpy"),
    Hostile("bomb.npz", lambda path: npz(path, x=np.zeros((2**17 + 1, 128))), ("bomb.npz", "bomb"), source="numpy"),
    Hostile("noise.npy", noise(200), ("noise.npy", "no numpy file"), source="numpy"),
    Hostile("noise.npz", noise(200), ("noise.npz", "no numpy file"), source="numpy"),
    Hostile("single.npy", lambda path: np.save(path, np.array(3.0)), ("single.npy", "single value"), source="numpy"),
    Hostile("uneven.npz", lambda path: npz(path, x=np.zeros(3), y=np.zeros(4)), ("uneven.npz", "x has 3, y has 4"), source="numpy"),
    Hostile("inf.npz", lambda path: npz(path, x=np.array([1.0, np.inf])), ("inf.npz row 2, column x", "finite"), source="numpy"),
    Hostile("float.npy", lambda path: np.save(path, np.zeros((3, 4, 5))), ("float.npy", "float64", "uint8"), source="numpy"),
    # --- text ---
    Hostile("empty.txt", b"", ("empty.txt", "empty"), source="text"),
    Hostile("nul.txt", b"a\nb\0c\n", ("nul.txt row 2", "NUL"), source="text"),
    Hostile("gbk.txt", "红楼梦\n第一回 甄士隐梦幻识通灵\n".encode("gb18030"), reads={"text": ["红楼梦", "第一回 甄士隐梦幻识通灵"]}, source="text"),
]
# fmt: on


def path_options(case: Hostile, path: Path) -> dict[str, Any]:
    given = {
        key: str(path.with_name(value)) if key == "test" else value
        for key, value in case.options.items()
    }
    return {"path": str(path), **given}


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda case: f"{case.source}-{case.name[:20]}-{case.label}".strip("-").replace("\0", "0"),
)
def test_a_hostile_file_is_read_rightly_or_refused_by_name(case: Hostile, tmp_path: Path) -> None:
    path = tmp_path / case.name
    if callable(case.make):
        case.make(path)
    else:
        path.write_bytes(case.make.encode() if isinstance(case.make, str) else case.make)
    if not case.says:
        table = read(case.source, case.columns, **path_options(case, path))
        for name, values in case.reads.items():
            assert [table.columns[name].python_value(row) for row in range(len(table))] == values
        return
    with pytest.raises(DataError) as caught:
        read(case.source, case.columns, **path_options(case, path))
    for words in case.says:
        assert words in str(caught.value)
    assert caught.value.problem.where, "every message says where"
    assert caught.value.problem.hint, "every message says the remedy"


def test_there_are_more_than_sixty_hostile_files() -> None:
    assert len(CASES) > 60


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secret.csv"
    path.write_text(ROWS)
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything: be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"secret\.csv: permission to read it is denied"):
            read("csv", path=str(path))
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


BOMBS = {
    "png": ("images", lambda path: path.write_bytes(png(12_000, 12_000))),
    "gz": ("csv", lambda path: path.write_bytes(gzip.compress(b"0,0\n" * 2**26, 1))),
    "npz": ("numpy", lambda path: npz(path, x=np.zeros((2**17 + 1, 128)))),
}


@pytest.mark.parametrize("ending", BOMBS)
def test_a_decompression_bomb_takes_little_memory(ending: str, tmp_path: Path) -> None:
    source, make = BOMBS[ending]
    path = tmp_path / f"bomb.{'csv.' if ending == 'gz' else ''}{ending}"
    make(path)
    script = (
        "import resource, sys\n"
        "from danlu.data import cache; from danlu import registry\nfrom danlu.errors import DataError\nfrom danlu.recipe import Part\n"
        "source, path = sys.argv[1:]\n"
        "if source == 'images': import PIL.Image\n"
        "part = Part(source, registry.config('sources', source)(path=path))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: cache.load_table(part, {}, False)\n"
        "except DataError as error: print(error, file=sys.stderr)\n"
        "else: sys.exit('it was read')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 128 MiB of a gzip file come out before its ratio is judged; the others are refused by what
    # they declare
    most = 200_000 if ending == "gz" else 50_000
    assert int(done.stdout) < most, f"{int(done.stdout):,} KiB"


@pytest.mark.parametrize(("source", "name"), [("csv", "data.csv"), ("parquet", "data.parquet")])
def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    parquet({"a": list(range(1000))})(tmp_path / name) if source == "parquet" else (
        tmp_path / name
    ).write_text(ROWS)
    memory = psutil.virtual_memory()._replace(available=30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(DataError, match=rf"{name}.*GiB of memory free"):
        read(source, path=str(tmp_path / name))


# --- images that are odd, not bad -------------------------------------------------------------------------------------------


def test_the_orientation_a_camera_recorded_is_followed(tmp_path: Path) -> None:
    turned(tmp_path / "a.png")
    pixels = read("images", path=str(tmp_path / "a.png")).columns["image"].values[0, :, :, 0]
    assert pixels.tolist() == [[0, 0], [0, 0], [255, 255], [255, 255]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)).save(tmp_path / "a.png")
    pixels = read("images", path=str(tmp_path / "a.png")).columns["image"].values
    assert pixels.reshape(-1).tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("LA", (100, 255), (100,)),
        ("LA", (100, 0), (255,)),
        ("1", 1, (255,)),
        ("L", 77, (77,)),
    ],
)
def test_transparency_lies_over_white_and_grey_stays_grey(
    mode: str, colour: Any, expected: tuple[int, ...], tmp_path: Path
) -> None:
    picture(mode, colour=colour)(tmp_path / "a.png")
    pixels = read("images", path=str(tmp_path / "a.png")).columns["image"].values
    assert pixels.shape == (1, 2, 3, len(expected))
    assert tuple(pixels[0, 0, 0].tolist()) == expected


def test_the_first_bad_image_by_name_is_the_one_named(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.png").write_bytes(b"bad" if number in (11, 30) else png(3, 2))
    with pytest.raises(DataError, match=r"^11\.png"):
        read("images", path=str(tmp_path))


# --- real messy files -------------------------------------------------------------------------------------------------------

# What an independent reading needs to be told: encoding, delimiter, lines above the rows (header
# included; None: there is no header), rows.
INDEPENDENT: dict[str, tuple[str, str, int, int | None]] = {
    "gbk/test.csv": ("gbk", ",", 0, 9),
    "gbk/train.csv": ("gbk", ",", 0, 168),
    "gbk/二手房.csv": ("gbk", ",", 0, 210),
    "gbk/租房.csv": ("gbk", ",", 0, 778),
    "gbk/综合.csv": ("gbk", ",", 0, 177),
    "handson/gdp_per_capita.csv": ("cp1252", "\t", 1, 189),
    "handson/oecd_bli_2015.csv": ("utf-8-sig", ",", 1, 3292),
    "horror/characters.csv": ("big5", ",", 1, 382),
    "horror/complex.csv": ("utf-8", ",", 1, 3),
    "horror/excel_pasting.csv": ("utf-8", ",", 4, 14),
    "horror/long.csv": ("utf-8", ",", 0, 4000),
    "horror/null.csv": ("utf-8", ",", 0, 10),
    "horror/skip_initials.csv": ("utf-8", ",", 1, 2),
    "horror/spanish_chars.csv": ("cp1252", ",", 1, 114),
    "horror/sparse_with_column_errors.csv": ("cp1252", ",", 1, None),
    "horror/utf-16le_encoded.csv": ("utf-16", ",", 1, 327),
    "lianjia/lianjia.csv": ("utf-8", ",", 1, None),
}
REFUSED = {
    "horror/211.csv": "211.csv: line 77",
    "horror/begrotingsanalyse-2011.csv": "begrotingsanalyse-2011.csv row 1",
    "horror/mixedGLB.csv": "mixedGLB.csv row 137, column Jun",
    "horror/simple.xlsx": "simple.xlsx: this is an Excel workbook",
    "horror/utf8bom.csv": "utf8bom.csv row 1",
    "horror/weird_head_padding.csv": "weird_head_padding.csv row 74",
}
MESSY_FILES = sorted([*INDEPENDENT, *REFUSED])
LOST = {
    "",
    "?",
    "NA",
    "N/A",
    "NaN",
    "null",
    "None",
    "-",
    "n/a",
    "na",
    "nan",
    "NAN",
    "NULL",
    "none",
    "#N/A",
}


def independently(name: str) -> tuple[list[str], list[list[str]]]:
    """(header, rows) by the standard library, with blank and empty rows, repeated headers and notes
    below the table taken out by hand."""
    encoding, delimiter, above, count = INDEPENDENT[name]
    text = (MESSY / name).read_bytes().decode(encoding)
    rows = list(
        stdlib_csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            skipinitialspace=name.endswith("complex.csv"),
        )
    )
    header = (
        [cell.strip() for cell in rows[above - 1]]
        if above
        else [f"column_{n}" for n in range(1, len(rows[0]) + 1)]
    )
    body = [row for row in rows[above:] if any(row) and row != rows[above - 1]] if above else rows
    return header, body[:count]


def as_written(cell: str, kind: str) -> Any:
    """A cell as the value it means, by a way of its own."""
    import datetime

    trimmed = cell.strip()
    if kind == "text":
        return cell if trimmed else None
    if trimmed in LOST:
        return None
    if kind == "category":
        return trimmed
    if kind == "number":
        return float(trimmed.replace(",", ""))
    for form in ("%Y-%m-%d", "%Y/%m/%d %H:%M:%S", "%d %B %Y"):
        try:
            return datetime.datetime.strptime(trimmed, form).isoformat() + ".000000"
        except ValueError:
            continue
    raise AssertionError(f"{cell!r} is no {kind}")


@pytest.mark.skipif(not MESSY.is_dir(), reason=f"there is no {MESSY}: set DANLU_DATA")
@pytest.mark.parametrize("name", MESSY_FILES)
def test_every_value_of_a_messy_file_is_what_an_independent_reading_finds(name: str) -> None:
    if name in REFUSED:
        with pytest.raises(DataError) as caught:
            read("csv", path=str(MESSY / name))
        assert REFUSED[name] in str(caught.value)
        assert caught.value.problem.hint
        return
    table = read("csv", path=str(MESSY / name))
    header, rows = independently(name)
    assert [each if each else f"column_{n}" for n, each in enumerate(header, start=1)] == list(
        table.columns
    )
    assert len(table) == len(rows)
    for number, column in enumerate(table.columns.values()):
        expected = [as_written(row[number], column.kind) for row in rows]
        assert [column.python_value(row) for row in range(len(table))] == expected, column.name


@pytest.mark.skipif(not MESSY.is_dir(), reason=f"there is no {MESSY}: set DANLU_DATA")
def test_every_messy_file_is_looked_at() -> None:
    there = {path.relative_to(MESSY).as_posix() for path in MESSY.rglob("*") if path.is_file()}
    assert there == set(MESSY_FILES)


@pytest.mark.skipif(not MESSY.is_dir(), reason=f"there is no {MESSY}: set DANLU_DATA")
@pytest.mark.parametrize(
    ("name", "options", "columns", "rows"),
    [
        ("horror/mixedGLB.csv", {"missing": ["****", "*****"]}, {}, 133),
        (
            "horror/begrotingsanalyse-2011.csv",
            {"skip_rows": 7, "header": ["nr", "cluster", *(f"p{n}" for n in range(18))]},
            {f"p{n}": MISSING for n in range(18)},
            36,
        ),
        ("horror/utf8bom.csv", {"header": False}, {}, 1),
    ],
)
def test_what_a_refusal_of_a_messy_file_asks_for_mends_it(
    name: str, options: dict[str, Any], columns: dict[str, ColumnOptions], rows: int
) -> None:
    table = read("csv", columns, path=str(MESSY / name), **options)
    assert len(table) == rows, json.dumps(table.notices)
