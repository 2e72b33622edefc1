"""Every source on the shelf keeps the promise of danlu/sources, and each reads what its format holds."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from danlu import registry
from danlu.data import cache
from danlu.errors import DataError
from danlu.recipe import ColumnOptions, Options, Part
from danlu.terms import MISSING_DATETIME, Table

DATA = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SOURCES = registry.names("sources")
ROWS = 7  # odd, and no other size below


def config(source: str, **options: Any) -> Options:
    return registry.config("sources", source).model_validate(options)


def build(source: str, columns: dict[str, ColumnOptions] | None = None, **options: Any) -> Table:
    return registry.build_source(Part(source, config(source, **options)), columns or {})


def values(table: Table, name: str) -> list[Any]:
    return [table.columns[name].python_value(row) for row in range(len(table))]


# --- an example of every format, found by the endings a source claims --------------------------------------------------------

RECORDS = [
    {"age": 20 + n, "city": ["Rome", "Oslo", "Lima"][n % 3], "note": f"row {n}"}
    for n in range(ROWS)
]


def write_csv(path: Path) -> None:
    lines = ["age,city,note", *(f"{each['age']},{each['city']},{each['note']}" for each in RECORDS)]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(RECORDS), path)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in RECORDS))


def write_idx(path: Path) -> None:
    path.write_bytes(
        bytes([0, 0, 8, 3])
        + np.array([ROWS, 5, 3], dtype=">u4").tobytes()
        + bytes(range(ROWS * 15))
    )


def write_image(path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(5, 3)).save(path)


def write_text(path: Path) -> None:
    path.write_text("".join(f"{each['note']}\n" for each in RECORDS))


def write_npy(path: Path) -> None:
    np.save(path, np.arange(ROWS * 3.0).reshape(ROWS, 3))


WRITERS: dict[str, tuple[Callable[[Path], None], int]] = {
    ".csv": (write_csv, ROWS), ".parquet": (write_parquet, ROWS), ".jsonl": (write_jsonl, ROWS), "-ubyte": (write_idx, ROWS),
    ".png": (write_image, 1), ".txt": (write_text, ROWS), ".npy": (write_npy, ROWS),
}  # fmt: skip


def example(source: str, folder: Path) -> Part:
    """A source with options that work: its defaults, or a file of an ending it claims."""
    try:
        return Part(source, config(source))
    except ValidationError:
        pass
    suffixes = getattr(registry.take("sources", source), "SUFFIXES", ())
    suffix = next((each for each in suffixes if each in WRITERS), None)
    if suffix is None:
        pytest.skip(f"{source} needs options, and WRITERS has no file for its endings {suffixes}")
    path = folder / f"example{suffix}"
    WRITERS[suffix][0](path)
    return Part(source, config(source, path=str(path)))


# --- the promise --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_says_what_it_is_and_describes_every_option(source: str) -> None:
    assert registry.summary("sources", source).endswith(".")
    for name, info in registry.config("sources", source).model_fields.items():
        assert info.description, f"{source}.{name} has no description"


def test_checking_a_recipe_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom danlu import registry\n"
        "[registry.config('sources', name) for name in registry.names('sources')]\n"
        "print(sorted({'torch', 'pyarrow', 'sklearn', 'scipy', 'PIL', 'pandas', 'psutil'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_no_two_sources_claim_one_ending() -> None:
    claimed: dict[str, str] = {}
    for source in SOURCES:
        for suffix in getattr(registry.take("sources", source), "SUFFIXES", ()):
            assert suffix == suffix.lower()
            assert claimed.setdefault(suffix, source) == source


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_gives_a_table_of_typed_columns_of_one_length(source: str, tmp_path: Path) -> None:
    part = example(source, tmp_path)
    table = registry.build_source(part, {})
    dtypes = {
        "number": "f",
        "category": "i",
        "boolean": "i",
        "datetime": "i",
        "text": "u",
        "image": "u",
    }
    assert len(table) > 0
    for name, column in table.columns.items():
        assert column.name == name
        assert len(column) == len(table)
        assert column.values.dtype.kind == dtypes[column.kind]
        assert column.values.flags.writeable, "torch warns of arrays that cannot be written"
        assert column.reason.startswith(column.kind)
        if column.kind == "image":
            assert column.values.ndim == 4
            assert column.values.shape[3] in (1, 3)
        if column.kind == "text":
            assert column.offsets is not None
            assert column.offsets.dtype == np.int64
            assert column.offsets[-1] == len(column.values)
            assert column.text(len(table) - 1) is not None
        if column.kind == "category":
            assert column.values.max() < len(column.categories)
    assert table.where(len(table) - 1)


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_files_give_the_same_table(source: str, tmp_path: Path) -> None:
    part = example(source, tmp_path)
    one, other = registry.build_source(part, {}), registry.build_source(part, {})
    assert list(one.columns) == list(other.columns)
    for name in one.columns:
        np.testing.assert_array_equal(one.columns[name].values, other.columns[name].values)
        assert one.columns[name].categories == other.columns[name].categories


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_names_its_files_or_its_version(source: str, tmp_path: Path) -> None:
    part = example(source, tmp_path)
    module = registry.take("sources", source)
    paths = module.files(part.options)
    if paths:
        assert all(isinstance(path, Path) and path.is_file() for path in paths)
        assert paths == module.files(part.options)
    else:
        assert module.version(part.options)


@pytest.mark.parametrize("source", SOURCES)
def test_a_path_that_is_not_there_is_refused_by_name(source: str, tmp_path: Path) -> None:
    if "path" not in registry.config("sources", source).model_fields:
        return
    part = Part(source, config(source, path=str(tmp_path / "nowhere.xyz")))
    with pytest.raises(DataError, match=r"nowhere\.xyz.*no such file"):
        cache.load_table(part, {}, use_cache=False)
    with pytest.raises(DataError, match=r"nowhere\.xyz.*no such file"):
        registry.build_source(part, {})


@pytest.mark.parametrize("source", SOURCES)
def test_an_option_that_is_not_there_is_refused(source: str) -> None:
    with pytest.raises(ValidationError):
        config(source, path="x", no_such_option=1)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_bare_path_finds_its_source(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"example{suffix}"
    WRITERS[suffix][0](path)
    source = registry.source_for(str(path))
    assert source is not None
    assert len(build(source, path=str(path))) == WRITERS[suffix][1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".txt"])
def test_a_folder_a_pattern_and_a_list_read_several_files_in_order(
    suffix: str, tmp_path: Path
) -> None:
    for name in ("b", "a", "c"):
        WRITERS[suffix][0](tmp_path / f"{name}{suffix}")
    source = registry.source_for(f"x{suffix}")
    assert source is not None
    names = [str(tmp_path / f"{name}{suffix}") for name in ("c", "a")]
    for path, files in (
        (str(tmp_path), "abc"),
        (str(tmp_path / f"[ab]{suffix}"), "ab"),
        (names, "ca"),
    ):
        table = build(source, path=path)
        assert table.files == tuple(f"{name}{suffix}" for name in files)
        assert len(table) == ROWS * len(files)
        assert table.where(ROWS).startswith(f"{files[1]}{suffix} row")
    split = build(
        source, path=names[0], validation=names[1], test=str(tmp_path / f"b{suffix}")
    ).split
    assert split is not None
    assert split.tolist() == [0] * ROWS + [1] * ROWS + [2] * ROWS
    assert build(source, path=names).split is None


# --- the other formats ----------------------------------------------------------------------------------------------------------


def test_parquet_keeps_the_types_of_the_file(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    from pyarrow import parquet

    moment = datetime.datetime(2016, 7, 1, 12, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "small": pa.array([1, None, 3], pa.int8()),
            "exact": pa.array([1, 2, 3]).cast(pa.decimal128(25, 2)),
            "flag": [True, None, False],
            "when": pa.array([moment, None, moment], pa.timestamp("ns", tz="UTC")),
            "code": ["01", "02", None],
            "coded": pa.array(["u", "v", "u"]).dictionary_encode(),
            "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "nothing": pa.nulls(3),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    read = build("parquet", path=str(tmp_path / "a.parquet"))
    assert {name: column.kind for name, column in read.columns.items()} == {
        "small": "number", "exact": "number", "flag": "boolean", "when": "datetime", "code": "category", "coded": "category",
        "vector": "number", "nothing": "category",
    }  # fmt: skip
    assert values(read, "small") == [1.0, None, 3.0]
    assert values(read, "code") == ["01", "02", None]
    assert values(read, "when") == [
        "2016-07-01T12:30:00.000000",
        None,
        "2016-07-01T12:30:00.000000",
    ]
    assert read.columns["when"].values[1] == MISSING_DATETIME
    assert read.columns["vector"].values.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert list(
        build("parquet", path=str(tmp_path / "a.parquet"), only=["code", "small"]).columns
    ) == ["code", "small"]
    with pytest.raises(DataError, match="did you mean small"):
        build("parquet", path=str(tmp_path / "a.parquet"), only=["smal"])


def test_jsonl_fills_keys_that_an_object_lacks_and_keeps_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"a": 1, "v": [1, 2]}\n\n{"a": 2.5, "b": "01", "v": [3, 4]}\n'
    )
    table = build("jsonl", path=str(tmp_path / "a.jsonl"))
    assert (values(table, "a"), values(table, "b"), values(table, "v")) == (
        [1.0, 2.5],
        [None, "01"],
        [[1.0, 2.0], [3.0, 4.0]],
    )
    assert table.where(1) == "a.jsonl row 3"
    (tmp_path / "a.json").write_text(json.dumps([{"a": 1}, {"a": 2}], indent=2))
    assert values(build("jsonl", path=str(tmp_path / "a.json")), "a") == [1.0, 2.0]


def write_mnist(folder: Path, zipped: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    images, labels = (
        rng.integers(0, 256, (9, 4, 5), dtype=np.uint8),
        rng.integers(0, 3, 9, dtype=np.uint8),
    )
    for name, part in (("train", slice(0, 6)), ("t10k", slice(6, 9))):
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            content = (
                bytes([0, 0, 8, array.ndim])
                + np.array(array.shape, dtype=">u4").tobytes()
                + array.tobytes()
            )
            path = folder / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_reads_a_folder_with_the_usual_names(zipped: bool, tmp_path: Path) -> None:
    images, labels = write_mnist(tmp_path, zipped)
    assert registry.source_for(str(tmp_path)) == "idx"
    table = build("idx", path=str(tmp_path))
    np.testing.assert_array_equal(table.columns["image"].values[..., 0], images)
    assert values(table, "label") == [str(label) for label in labels]
    assert table.split is not None
    assert table.split.tolist() == [0] * 6 + [2] * 3
    assert table.where(6).startswith("t10k-images-idx3-ubyte")
    named = {
        "images": "train-images-idx3", "labels": "train-labels-idx1", "test_images": "t10k-images-idx3", "test_labels": "t10k-labels-idx1",
    }  # fmt: skip
    again = build(
        "idx",
        **{
            role: str(tmp_path / f"{name}-ubyte{'.gz' if zipped else ''}")
            for role, name in named.items()
        },
    )
    np.testing.assert_array_equal(again.columns["image"].values, table.columns["image"].values)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"path": "a", "images": "b"},
        {"path": "a", "labels": "b"},
        {"images": "a", "test_labels": "b"},
    ],
)
def test_idx_refuses_options_that_contradict_each_other(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        config("idx", **options)


@pytest.mark.skipif(
    not (DATA / "fashion_mnist").is_dir(),
    reason=f"there is no {DATA / 'fashion_mnist'}: set DANLU_DATA",
)
def test_fashion_mnist_is_read_whole() -> None:
    table = build("idx", path=str(DATA / "fashion_mnist"))
    assert table.columns["image"].values.shape == (70_000, 28, 28, 1)
    assert np.bincount(table.columns["label"].values).tolist() == [7_000] * 10
    assert (
        round(float(table.columns["image"].values[:60_000].mean()), 2) == 72.94
    )  # 0.2860 of 255, as everybody's mean


def write_images(folder: Path, tops: tuple[str, ...] = ("",)) -> None:
    from PIL import Image

    for top in tops:
        for label in ("cat", "dog"):
            (folder / top / label).mkdir(parents=True)
            for number in range(2):
                grey = len(top) * 16 + 10 * (label == "dog") + number
                Image.new("RGB", (5, 4), (grey, 1, 2)).save(folder / top / label / f"{number}.png")


def test_a_folder_of_classes_is_labelled_by_its_folders(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert registry.source_for(str(tmp_path)) == "images"
    table = build("images", path=str(tmp_path))
    assert table.columns["image"].values.shape == (4, 4, 5, 3)
    assert table.columns["image"].values[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert values(table, "label") == ["cat", "cat", "dog", "dog"]
    assert table.where(3) == "dog/1.png"
    assert table.split is None
    assert list(build("images", path=str(tmp_path / "cat")).columns) == ["image"]


def test_a_level_of_splits_above_the_classes_is_followed(tmp_path: Path) -> None:
    write_images(tmp_path, ("train", "val", "test"))
    table = build("images", path=str(tmp_path))
    assert table.columns["label"].categories == ("cat", "dog")
    assert table.split is not None
    assert dict(
        zip((str(table.where(row)).split("/")[0] for row in range(12)), table.split.tolist())
    ) == {
        "test": 2,
        "train": 0,
        "val": 1,
    }


def test_images_are_resized_and_turned_grey_as_asked(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert build("images", path=str(tmp_path), size=[8, 6], channels=1).columns[
        "image"
    ].values.shape == (4, 8, 6, 1)
    assert build("images", path=str(tmp_path), size=3).columns["image"].values.shape == (4, 3, 3, 3)
    with pytest.raises(ValidationError):
        config("images", path="x", size=[1, 2, 3])


def test_images_that_exceed_memory_are_decoded_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images")
    expected = build("images", path=str(tmp_path / "images")).columns["image"].values
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry.take("sources", "images"), "IN_MEMORY", 10)
    np.testing.assert_array_equal(
        build("images", path=str(tmp_path / "images")).columns["image"].values, expected
    )
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == []


def test_text_lines_joined_are_the_file_again(tmp_path: Path) -> None:
    text = "first\n\n  third, indented\nvierte Zeile: größer\n最后一行"
    (tmp_path / "a.txt").write_text(text, "utf-8")
    table = build("text", path=str(tmp_path / "a.txt"))
    assert "\n".join(values(table, "text")) == text
    assert values(build("text", path=str(tmp_path / "a.txt"), unit="document"), "text") == [text]
    (tmp_path / "a.txt").write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    assert values(build("text", path=str(tmp_path / "a.txt")), "text") == text.split("\n")


def test_numpy_gives_columns_images_and_splits(tmp_path: Path) -> None:
    matrix = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "m.npy", matrix)
    assert (
        build("numpy", path=str(tmp_path / "m.npy")).columns["features"].values.tolist()
        == matrix.tolist()
    )
    assert values(build("numpy", path=str(tmp_path / "m.npy"), names=["a", "b", "c"]), "c") == [
        2.0,
        5.0,
        8.0,
        11.0,
    ]
    np.savez_compressed(
        tmp_path / "f.npz", x=np.asfortranarray(matrix), y=np.array(["u", "v", "u", "v"])
    )
    table = build("numpy", path=str(tmp_path / "f.npz"))
    assert table.columns["x"].values.tolist() == matrix.tolist()
    assert values(table, "y") == ["u", "v", "u", "v"]
    pixels = np.arange(6 * 20, dtype=np.uint8).reshape(6, 4, 5)
    np.savez(
        tmp_path / "k.npz",
        x_train=pixels[:4],
        x_test=pixels[4:],
        y_train=np.arange(4),
        y_test=np.arange(2),
    )
    table = build("numpy", {"y": ColumnOptions(kind="category")}, path=str(tmp_path / "k.npz"))
    np.testing.assert_array_equal(table.columns["x"].values[..., 0], pixels)
    assert values(table, "y") == ["0", "1", "2", "3", "0", "1"]
    assert table.split is not None
    assert table.split.tolist() == [0, 0, 0, 0, 2, 2]
    np.save(tmp_path / "s.npy", np.array([(1, "u"), (2, "v")], dtype=[("a", "i4"), ("b", "U1")]))
    table = build("numpy", path=str(tmp_path / "s.npy"))
    assert (values(table, "a"), values(table, "b")) == ([1.0, 2.0], ["u", "v"])


@pytest.mark.parametrize(
    ("name", "rows", "target", "classes"),
    [
        ("digits", 1797, "label", 10), ("iris", 150, "target", 3), ("wine", 178, "target", 3), ("breast_cancer", 569, "target", 2),
        ("diabetes", 442, "target", 0), ("linnerud", 20, "Weight", 0),
    ],
)  # fmt: skip
def test_a_bundled_set_is_whole(name: str, rows: int, target: str, classes: int) -> None:
    table = build("sklearn", set=name)
    assert len(table) == rows
    assert len(table.columns[target].categories) == classes
    assert not any(column.is_missing().any() for column in table.columns.values())


def test_digits_are_scaled_from_sixteen_to_two_hundred_and_fifty_five() -> None:
    from sklearn.datasets import load_digits

    pixels = build("sklearn", set="digits").columns["image"].values
    given = load_digits().images
    assert pixels.max() == 255
    np.testing.assert_array_equal(np.rint(pixels[..., 0] / 255 * 16), given)


def test_the_standard_library_is_the_running_pythons(tmp_path: Path) -> None:
    import json.decoder

    table = build("python_stdlib")
    paths = values(table, "path")
    assert paths == sorted(paths)
    assert len(paths) > 300
    assert not [path for path in paths if "site-packages" in path or "/test" in path]
    row = paths.index("json/decoder.py")
    assert table.columns["text"].text(row) == Path(json.decoder.__file__).read_text("utf-8")
