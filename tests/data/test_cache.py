"""Tables are laid out once, found again by content, and never read wrongly."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.data import cache, user_key
from danlu.errors import DataError
from danlu.recipe import ColumnOptions, Part
from danlu.system import private_files
from danlu.terms import Column, Table

CSV = "age,city,when,note,ok\n" + "".join(
    f"{n},{'Rome' if n % 3 else ''},2016-07-{n % 28 + 1:02},a note of some length numbered {n},{'true' if n % 2 else 'false'}\n"
    for n in range(1, 60)
)
LONG_AGO = 1_500_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were really read, in order."""
    seen: list[str] = []
    build = registry.build_source
    monkeypatch.setattr(
        registry,
        "build_source",
        lambda part, columns: (seen.append(part.name), build(part, columns))[1],
    )
    return seen


def part(path: Path, source: str = "csv", **options: Any) -> Part:
    return Part(
        source, registry.config("sources", source).model_validate({"path": str(path), **options})
    )


def rested(path: Path, text: str = CSV) -> Path:
    """A file that has been left alone for years, so that its times prove its content (but for its
    ctime, see settled)."""
    path.write_text(text)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the memo trust files at once: ctime cannot be set back."""
    monkeypatch.setattr(cache, "_SETTLED", -1)


def assert_equal(one: Table, other: Table) -> None:
    assert list(one.columns) == list(other.columns)
    for a, b in zip(one.columns.values(), other.columns.values()):
        assert (a.name, a.kind, a.categories, a.reason, a.names) == (
            b.name,
            b.kind,
            b.categories,
            b.reason,
            b.names,
        )
        assert (a.cardinalities, a.rate) == (b.cardinalities, b.rate)
        for x, y in ((a.values, b.values), (a.offsets, b.offsets), (a.missing, b.missing)):
            assert (x is None) == (y is None)
            if x is not None and y is not None:
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
    assert (one.origin, one.files, one.notices, one.joined_by) == (
        other.origin,
        other.files,
        other.notices,
        other.joined_by,
    )
    for name in ("row_numbers", "file_numbers", "split", "continues"):
        x, y = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(x, y)  # type: ignore[arg-type]
    assert [one.where(row) for row in range(len(one))] == [
        other.where(row) for row in range(len(other))
    ]


def test_the_second_start_gives_the_same_table_without_reading_the_source(
    home: Path, builds: list[str], tmp_path: Path
) -> None:
    source = part(rested(tmp_path / "a.csv"), test=str(rested(tmp_path / "b.csv")))
    plain, digest = cache.load_table(source, {}, use_cache=False)
    first, second = (
        cache.load_table(source, {}, use_cache=True),
        cache.load_table(source, {}, use_cache=True),
    )
    assert builds == ["csv", "csv"]
    assert first[1] == second[1] == digest
    assert_equal(plain, first[0])
    assert_equal(plain, second[0])


def test_without_the_cache_nothing_is_written(home: Path, tmp_path: Path) -> None:
    cache.load_table(part(rested(tmp_path / "a.csv")), {}, use_cache=False)
    assert not home.exists()


def test_images_come_back_with_the_names_of_their_rows(home: Path, tmp_path: Path) -> None:
    from PIL import Image

    for label, number in itertools.product("ab", range(3)):
        path = tmp_path / "images" / label / f"{number}é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number, 7, 9)).save(path)
    source = part(tmp_path / "images", "images")
    first, second = cache.load_table(source, {}, True)[0], cache.load_table(source, {}, True)[0]
    assert_equal(first, second)
    assert second.where(4) == "b/1é.png"
    assert second.row_names is not None
    assert list(second.row_names[:2]) == ["a/0é.png", "a/1é.png"]
    assert second.take(np.array([5, 0])).where(0) == "b/2é.png"


def test_every_kind_comes_back_with_its_type_and_what_belongs_to_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = np.array([0, 3, 3, 4])
    lost = np.array([False, True, False])
    columns = [
        Column(
            "words", "sequence", np.array([0, -1, 1, 0], dtype=np.int32), ("a", "好"), offsets, lost
        ),
        Column(
            "short",
            "sequence",
            np.array([5, 6, 5, 1], dtype=np.uint16),
            offsets=offsets,
            cardinalities=(7,),
        ),
        Column(
            "long",
            "sequence",
            np.full((4, 2), 70_000, dtype=np.uint32),
            offsets=offsets,
            cardinalities=(70_001, 70_002),
        ),
        Column(
            "frames",
            "frames",
            np.ones((4, 5), dtype=np.float32),
            offsets=offsets,
            missing=lost,
            names=tuple("abcde"),
        ),
        Column(
            "audio",
            "audio",
            np.array([-32768, 0, 1, 32767], dtype=np.int16),
            offsets=offsets,
            rate=16_000,
        ),
        Column("state", "number", np.ones((3, 2), dtype=np.float32)),
    ]
    made = Table(
        {each.name: each for each in columns},
        "made",
        continues=np.array([True, False, False]),
        joined_by="\n",
    )
    monkeypatch.setattr(registry, "build_source", lambda part, columns: made)
    source = part(rested(tmp_path / "a.csv"))
    assert_equal(made, cache.load_table(source, {}, True)[0])
    monkeypatch.delattr(registry, "build_source")  # the second time from disk alone
    assert_equal(made, cache.load_table(source, {}, True)[0])


def test_an_empty_array_comes_back(home: Path, tmp_path: Path) -> None:
    source = part(rested(tmp_path / "a.txt", "\n\n"), "text")
    table = [cache.load_table(source, {}, True)[0] for _ in range(2)][1]
    assert [table.columns["text"].text(row) for row in range(len(table))] == ["", ""]


def test_a_table_from_the_cache_can_be_written_without_changing_the_file(
    home: Path, tmp_path: Path
) -> None:
    source = part(rested(tmp_path / "a.csv"))
    cache.load_table(source, {}, True)
    table, _ = cache.load_table(source, {}, True)
    table.columns["age"].values[:] = 0
    assert cache.load_table(source, {}, True)[0].columns["age"].values[0] == 1


# --- what makes another table -----------------------------------------------------------------------------------------------


def test_every_change_of_content_or_reading_is_another_table(home: Path, tmp_path: Path) -> None:
    path = rested(tmp_path / "a.csv")
    digests = [cache.load_table(part(path), {}, True)[1]]
    digests.append(cache.load_table(part(path, missing=["1"]), {}, True)[1])
    digests.append(cache.load_table(part(path), {"age": ColumnOptions(kind="category")}, True)[1])
    digests.append(
        cache.load_table(part(path), {"age": ColumnOptions(on_error="missing")}, True)[1]
    )
    path.write_text(CSV.replace("Rome", "Oslo", 1))
    digests.append(cache.load_table(part(path), {}, True)[1])
    assert len(set(digests)) == 5
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in digests)


def test_a_column_option_that_does_not_change_reading_is_the_same_table(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    source = part(rested(tmp_path / "a.csv"))
    one = cache.load_table(source, {"age": ColumnOptions(kind="number")}, True)[1]
    other = cache.load_table(source, {"age": ColumnOptions(kind="number", transforms=[])}, True)[1]
    assert one == other


def test_a_change_that_keeps_size_and_time_is_noticed(home: Path, tmp_path: Path) -> None:
    path = rested(tmp_path / "a.csv")
    assert cache.load_table(part(path), {}, True)[0].columns["age"].values[0] == 1
    rested(path, CSV.replace("\n1,", "\n9,", 1))
    assert cache.load_table(part(path), {}, True)[0].columns["age"].values[0] == 9


def test_a_file_replaced_by_another_of_equal_size_and_time_is_noticed(
    home: Path, tmp_path: Path, settled: None
) -> None:
    path, other = (
        rested(tmp_path / "a.csv"),
        rested(tmp_path / "b.csv", CSV.replace("\n1,", "\n9,", 1)),
    )
    cache.load_table(part(path), {}, True)
    other.replace(path)
    assert cache.load_table(part(path), {}, True)[0].columns["age"].values[0] == 9


def test_same_size_edits_in_quick_succession_are_all_noticed(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for number in range(10, 20):
        path.write_text(CSV.replace("\n1,", f"\n{number},", 1))
        assert cache.load_table(part(path), {}, True)[0].columns["age"].values[0] == number


def test_files_that_rested_are_not_read_again(
    home: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rested(tmp_path / "a.csv")
    digest = cache.load_table(part(path), {}, True)[1]
    monkeypatch.setattr(
        cache.hashlib, "file_digest", lambda *given: pytest.fail("the file was read again")
    )
    assert cache.load_table(part(path), {}, True)[1] == digest


def test_a_file_changed_within_two_seconds_is_hashed_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    cache.load_table(part(path), {}, True)
    assert not (home / "memo").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    build = registry.build_source
    counter = itertools.count(100)

    def growing(source: Part, columns: Any) -> Table:
        table = build(source, columns)
        path.write_text(CSV + f"{next(counter)},Rome,2016-07-01,more,true\n" * next(counter))
        return table

    monkeypatch.setattr(registry, "build_source", growing)
    with pytest.raises(DataError, match="change while they are read"):
        cache.load_table(part(path), {}, True)


# --- damage -----------------------------------------------------------------------------------------------------------------


def entry(home: Path) -> Path:
    [found] = [each for each in (home / "tables").iterdir() if not each.name.startswith(".")]
    return found


def test_every_damaged_byte_of_a_small_table_is_noticed(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    source = part(rested(tmp_path / "a.csv"))
    expected, _ = cache.load_table(source, {}, True)
    expected = cache.load_table(source, {}, False)[0]
    rng = np.random.default_rng(0)
    for file in sorted(entry(home).iterdir()):
        for place in {0, file.stat().st_size - 1, int(rng.integers(file.stat().st_size))}:
            data = bytearray(file.read_bytes())
            data[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            before = len(builds)
            assert_equal(cache.load_table(source, {}, True)[0], expected)
            assert len(builds) == before + 1, (
                f"{file.name} byte {place} was read although it is damaged"
            )


@pytest.mark.parametrize(
    "damage",
    ["cut", "longer", "gone", "folder", "manifest gone", "manifest empty", "manifest of another"],
)
def test_a_damaged_table_is_laid_out_again(
    damage: str, home: Path, tmp_path: Path, builds: list[str]
) -> None:
    source = part(rested(tmp_path / "a.csv"))
    cache.load_table(source, {}, True)
    file, manifest = entry(home) / "0.values.bin", entry(home) / "manifest.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "longer":
        file.write_bytes(file.read_bytes() + b"\0")
    elif damage == "gone":
        file.unlink()
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "manifest gone":
        manifest.unlink()
    elif damage == "manifest empty":
        manifest.write_bytes(b"")
    else:
        other = manifest.read_bytes()
        manifest.write_bytes(other.replace(b"age", b"egg"))
    for _ in range(2):
        assert cache.load_table(source, {}, True)[0].columns["age"].values[0] == 1
    assert len(builds) == 2


def test_every_byte_of_a_large_array_is_proven(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    np.save(
        tmp_path / "a.npy", np.arange(3 * 2**19 + 5, dtype=np.float64)
    )  # three blocks and a bit
    source = part(tmp_path / "a.npy", "numpy")
    cache.load_table(source, {}, True)
    expected = cache.load_table(source, {}, False)[0].columns
    size = (entry(home) / "0.values.bin").stat().st_size
    assert size > 3 * cache._BLOCK
    rng = np.random.default_rng(0)
    for place in [0, size - 1, cache._BLOCK, *rng.integers(size, size=12).tolist()]:
        file = entry(home) / "0.values.bin"
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        with file.open("r+b") as handle:
            handle.seek(place)
            byte = handle.read(1)[0]
            handle.seek(place)
            handle.write(bytes([byte ^ 1]))
        os.utime(file, ns=times)
        before = len(builds)
        table, _ = cache.load_table(source, {}, True)
        assert len(builds) == before + 1, f"byte {place} was read although it has changed"
        for name, column in table.columns.items():
            np.testing.assert_array_equal(column.values, expected[name].values)


def test_the_checksum_is_the_same_for_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = np.random.default_rng(0).integers(0, 256, 2 * cache._BLOCK + 9, dtype=np.uint8)
    sums = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(cache.machine, "threads", lambda threads=threads: threads)
        sums.add(cache._sha256(data))
    assert len(sums) == 1
    data[cache._BLOCK + 1] ^= 1
    assert cache._sha256(data) not in sums


def test_a_damaged_memo_is_not_believed(home: Path, tmp_path: Path, settled: None) -> None:
    source = part(rested(tmp_path / "a.csv"))
    digest = cache.load_table(source, {}, True)[1]
    [memo] = (home / "memo").iterdir()
    memo.write_bytes(memo.read_bytes()[:-3])
    assert cache.load_table(source, {}, True)[1] == digest


# --- who wrote it ---------------------------------------------------------------------------------------------------------


def changed(manifest: dict[str, Any], folder: Path) -> None:
    """What somebody does who knows the format: swap the values of a column, and write its checksum
    anew."""
    file = folder / "0.values.bin"
    values = np.frombuffer(file.read_bytes(), dtype=manifest["arrays"]["0.values"]["type"])
    file.write_bytes(np.ascontiguousarray(values[::-1]).tobytes())
    manifest["arrays"]["0.values"]["sha256"] = cache._sha256(
        np.frombuffer(file.read_bytes(), dtype=np.uint8)
    )


@pytest.mark.parametrize("sealed", ["as before", "by another key", "by a checksum"])
def test_a_manifest_that_danlu_did_not_write_for_this_user_is_not_believed(
    sealed: str, home: Path, tmp_path: Path, builds: list[str]
) -> None:
    from danlu.system import atomic_files

    source = part(rested(tmp_path / "a.csv"))
    expected = cache.load_table(source, {}, True)[0]
    expected = cache.load_table(source, {}, False)[0]
    manifest = entry(home) / "manifest.json"
    line, seal, _ = manifest.read_bytes().split(b"\n")
    value = json.loads(line)
    changed(value, entry(home))
    if sealed == "as before":
        manifest.write_bytes(json.dumps(value).encode() + b"\n" + seal + b"\n")
    elif sealed == "by another key":
        manifest.write_bytes(user_key.seal(value, b"the key of somebody else"))
    else:
        manifest.write_bytes(atomic_files.with_checksum(value))
    before = len(builds)
    assert_equal(cache.load_table(source, {}, True)[0], expected)
    assert len(builds) == before + 1


def test_the_table_of_other_data_is_not_believed(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    """Both are sealed by this user; one is copied to the other's place."""
    one, two = (
        part(rested(tmp_path / "a.csv")),
        part(rested(tmp_path / "b.csv", CSV.replace("Rome", "Oslo"))),
    )
    cache.load_table(one, {}, True)
    first = entry(home)
    cache.load_table(two, {}, True)
    [second] = [path for path in (home / "tables").iterdir() if path != first]
    for file in second.iterdir():
        file.unlink()
    for file in first.iterdir():
        shutil.copy2(file, second / file.name)
    table = cache.load_table(two, {}, True)[0]
    assert "Oslo" in table.columns["city"].categories and builds == ["csv"] * 3


def test_a_memo_of_somebody_else_is_not_believed(home: Path, tmp_path: Path, settled: None) -> None:
    from danlu.system import atomic_files

    source = part(rested(tmp_path / "a.csv"))
    digest = cache.load_table(source, {}, True)[1]
    [memo] = (home / "memo").iterdir()
    for value in ({"content": "0" * 64}, {"content": "0" * 64, "signature": memo.name}):
        memo.write_bytes(atomic_files.with_checksum(value))
        assert cache.load_table(source, {}, True)[1] == digest
    other = rested(tmp_path / "b.csv", CSV.replace("Rome", "Oslo"))
    cache.load_table(part(other), {}, True)
    [second] = [path for path in (home / "memo").iterdir() if path != memo]
    memo.write_bytes(second.read_bytes())  # sealed by this user, for other files
    assert cache.load_table(source, {}, True)[1] == digest


def test_the_cache_and_its_key_are_open_to_this_user_alone(
    home: Path, tmp_path: Path, settled: None
) -> None:
    column = Column("x", "sequence", np.arange(5, dtype=np.uint16), offsets=np.array([0, 2, 5]))
    for umask in (0o000, 0o022, 0o077):
        before = os.umask(umask)
        try:
            cache.load_table(part(rested_again(tmp_path, f"{umask}.csv")), {}, True)
            cache.cached_column({"umask": umask}, lambda: column)
        finally:
            os.umask(before)
    paths = [home, *home.rglob("*"), *private_files.config_folder().rglob("*")]
    assert len([path for path in paths if path.is_file()]) > 20
    modes = {(path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in paths}
    assert modes == {(True, 0o700), (False, 0o600)}


def rested_again(folder: Path, name: str) -> Path:
    """A file whose own permissions do not depend on the umask."""
    path = folder / name
    before = os.umask(0o022)
    try:
        return rested(path, CSV.replace("Rome", name))
    finally:
        os.umask(before)


def told(table: Table) -> list[str]:
    return [notice for notice in table.notices if "cache" in notice]


def test_a_cache_that_others_could_read_is_closed_and_its_tables_are_written_again(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    source = part(rested(tmp_path / "a.csv"))
    cache.load_table(source, {}, True)
    (home / "columns").mkdir()
    for path in (home, home / "tables", home / "columns"):
        path.chmod(0o755)
    for path in (entry(home), *entry(home).iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o666)
    table = cache.load_table(source, {}, True)[0]
    assert len(table) == 59 and builds == ["csv", "csv"] and not told(table)
    for path in (home, *home.rglob("*")):
        assert not path.stat().st_mode & 0o077, path


def test_a_folder_of_the_user_is_not_closed_and_nothing_in_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DANLU_CACHE may name a folder with other things in it, even below `tables`."""
    home = tmp_path / "project"
    (home / "tables" / "of mine").mkdir(parents=True)
    (home / "tables" / ".git").mkdir()
    (home / "tables" / "of mine" / "a.txt").write_text("mine")
    (home / "notes.txt").write_text("mine")
    for path in (home / "tables" / ".git", home / "tables" / "of mine"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    home.chmod(0o755)
    monkeypatch.setenv("DANLU_CACHE", str(home))
    monkeypatch.setattr(cache, "LIMIT", 0)
    cache.load_table(part(rested(tmp_path / "a.csv")), {}, True)
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert (home / "tables" / ".git").is_dir()
    assert (home / "tables" / "of mine" / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["home", "tables", "entry", "array"])
def test_links_in_the_cache_are_not_followed(
    place: str, home: Path, tmp_path: Path, builds: list[str]
) -> None:
    """But the folder that DANLU_CACHE names may be a link of this user."""
    source = part(rested(tmp_path / "a.csv"))
    cache.load_table(source, {}, True)
    path = {
        "home": home,
        "tables": home / "tables",
        "entry": entry(home),
        "array": entry(home) / "0.values.bin",
    }[place]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    table = cache.load_table(source, {}, True)[0]
    assert len(table) == 59
    assert builds == ["csv"] if place == "home" else builds == ["csv", "csv"]
    if place == "tables":
        assert "is no folder" in table.notices[-1] and "DANLU_CACHE" in table.notices[-1]


def test_a_key_that_others_could_read_is_replaced(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    source = part(rested(tmp_path / "a.csv"))
    cache.load_table(source, {}, True)
    key = private_files.config_folder() / "cache.key"
    old = key.read_bytes()
    key.chmod(0o644)
    cache.load_table(source, {}, True)
    assert key.read_bytes() != old and builds == ["csv", "csv"]
    key.write_text("no key\n")
    cache.load_table(source, {}, True)
    assert builds == ["csv"] * 3 and user_key.user_key() == user_key.user_key()


def test_without_a_key_the_cache_is_done_without_and_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    table, digest = cache.load_table(part(rested(tmp_path / "a.csv")), {}, True)
    assert digest == cache.load_table(part(tmp_path / "a.csv"), {}, False)[1]
    assert "XDG_CONFIG_HOME" in table.notices[-1]


# --- other users: real processes of the user nobody ---------------------------------------------------------------------

NOBODY = 65_534
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can start another user's process",
)


def as_nobody(work: Callable[[], object]) -> Any:
    """What a function returns, as JSON, in a process of the user nobody."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(sink, json.dumps(work()).encode())
            code = 0
        except BaseException as error:
            os.write(sink, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(code)
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        said = json.loads(pipe.read() or b"null")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said
    return said


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which every user may write, and remove what is his own, like /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="danlu-public-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@root_only
def test_the_cache_of_another_user_is_neither_believed_nor_written(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[str]
) -> None:
    data = rested(public / "a.csv")
    data.chmod(0o644)

    def plant() -> None:
        os.umask(0)
        (public / "cache" / "tables").mkdir(parents=True)
        (public / "cache" / "memo").mkdir()

    as_nobody(plant)
    monkeypatch.setenv("DANLU_CACHE", str(public / "cache"))
    table, digest = cache.load_table(part(data), {}, True)
    assert "belongs to the user" in table.notices[-1] and "DANLU_CACHE" in table.notices[-1]
    assert list((public / "cache" / "tables").iterdir()) == []
    assert digest == cache.load_table(part(data), {}, False)[1]


@root_only
@pytest.mark.parametrize("what", ["tables", "entry", "array", "manifest", "memo"])
def test_what_another_user_put_into_the_cache_is_not_believed(
    what: str, home: Path, tmp_path: Path, settled: None, builds: list[str]
) -> None:
    """Bytes that are right in every other way: only their owner is another."""
    source = part(rested(tmp_path / "a.csv"))
    digest = cache.load_table(source, {}, True)[1]
    path = {
        "tables": home / "tables",
        "entry": entry(home),
        "array": entry(home) / "0.values.bin",
        "manifest": entry(home) / "manifest.json",
        "memo": next((home / "memo").iterdir()),
    }[what]
    os.chown(path, NOBODY, NOBODY)
    table, again = cache.load_table(source, {}, True)
    assert again == digest and len(table) == 59
    assert len(builds) == (1 if what == "memo" else 2)
    assert ("belongs to the user" in "".join(table.notices)) == (what == "tables")


@root_only
def test_two_users_share_a_public_folder_without_reading_each_other(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DANLU_CACHE=/tmp: the first user has its cache there, the second one is told."""
    data = rested(public / "a.csv")
    data.chmod(0o644)
    monkeypatch.setenv("DANLU_CACHE", str(public))
    table = cache.load_table(part(data), {}, True)[0]
    assert not told(table)
    (public / "config").mkdir()
    (public / "config").chmod(0o777)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(public / "config"))

    def load() -> list[str]:
        return told(cache.load_table(part(data), {}, True)[0])

    [notice] = as_nobody(load)
    assert "belongs to the user root" in notice and "DANLU_CACHE" in notice

    def look() -> list[str]:
        return [path.name for path in (public / "tables").iterdir()]

    with pytest.raises(AssertionError, match="PermissionError"):
        as_nobody(look)
    shutil.rmtree(public / "tables")
    assert as_nobody(load) == []
    assert told(cache.load_table(part(data), {}, True)[0]) != []


# --- other processes --------------------------------------------------------------------------------------------------------

LOAD = """
import sys
from danlu.data import cache; from danlu import registry
from danlu.recipe import Part
part = Part("csv", registry.config("sources", "csv")(path=sys.argv[1]))
table, digest = cache.load_table(part, {}, True)
print(digest, table.columns["age"].values.sum())
"""


def test_several_processes_at_once_agree(home: Path, tmp_path: Path) -> None:
    rested(tmp_path / "a.csv", CSV + "".join(CSV.split("\n", 1)[1] for _ in range(50)))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, str(tmp_path / "a.csv")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    assert len([each for each in (home / "tables").iterdir() if not each.name.startswith(".")]) == 1


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_process_killed_while_writing_leaves_no_bad_table(
    home: Path, tmp_path: Path, builds: list[str]
) -> None:
    rested(tmp_path / "a.csv", CSV + "".join(CSV.split("\n", 1)[1] for _ in range(200)))
    stopped = LOAD.replace(
        "part =",
        "import os, signal\nfrom danlu.system import atomic_files\nwrite = atomic_files.write_file\n"
        "def dying(path, data):\n"
        "    if path.name == 'manifest.json': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, data)\n"
        "atomic_files.write_file = dying\npart =",
    )
    done = subprocess.run([sys.executable, "-c", stopped, str(tmp_path / "a.csv")], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = (home / "tables").iterdir()
    assert left.name.startswith("."), "what is half written has a name that is never opened"
    source = part(tmp_path / "a.csv")
    assert_equal(cache.load_table(source, {}, True)[0], cache.load_table(source, {}, False)[0])
    assert not left.exists(), "the next writer clears it away"


# --- room and rights --------------------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_done_without_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "file" / "cache"))
    table, digest = cache.load_table(part(rested(tmp_path / "a.csv")), {}, True)
    assert len(table) == 59
    assert digest == cache.load_table(part(tmp_path / "a.csv"), {}, False)[1]
    assert "cannot be written" in table.notices[-1]
    assert "DANLU_CACHE" in table.notices[-1]


def test_a_full_disk_leaves_no_bad_table(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: Any) -> None:
        if path.name.endswith("2.values.bin"):
            path.write_bytes(bytes(data)[:100])
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(cache.atomic_files, "write_file", full)
        table, _ = cache.load_table(part(rested(tmp_path / "a.csv")), {}, True)
    assert len(table) == 59
    assert "No space left" in table.notices[-1]
    assert list((home / "tables").iterdir()) == []


def test_the_tables_used_least_recently_go_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [rested(tmp_path / f"{name}.csv") for name in "abc"]
    for number, path in enumerate(paths[:2]):
        cache.load_table(part(path), {}, True)
        for each in (home / "tables").iterdir():
            if each.stat().st_mtime > LONG_AGO + 10:
                os.utime(each / "manifest.json", (LONG_AGO + number, LONG_AGO + number))
                os.utime(each, (LONG_AGO, LONG_AGO))
    cache.load_table(part(paths[0]), {}, True)  # used again: b is now the oldest
    one = sum(file.stat().st_size for file in next((home / "tables").iterdir()).iterdir())
    monkeypatch.setattr(cache, "LIMIT", int(2.5 * one))
    cache.load_table(part(paths[2]), {}, True)
    seen: list[str] = []
    build = registry.build_source
    monkeypatch.setattr(
        registry,
        "build_source",
        lambda part, columns: (seen.append(part.options.path), build(part, columns))[1],
    )
    for path in (paths[2], paths[0]):
        cache.load_table(part(path), {}, True)
    assert seen == []
    cache.load_table(part(paths[1]), {}, True)
    assert seen == [str(paths[1])]


def test_sixty_thousand_images_are_mapped_and_not_read_again(
    home: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8)
    header = bytes([0, 0, 8, 3]) + np.array(pixels.shape, dtype=">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    source = part(tmp_path, "idx")
    cache.load_table(source, {}, True)
    monkeypatch.setattr(
        registry, "build_source", lambda part, columns: pytest.fail("the source was read again")
    )
    table, _ = cache.load_table(source, {}, True)
    np.testing.assert_array_equal(table.columns["image"].values[::1000, ..., 0], pixels[::1000])


def test_what_a_library_brings_is_named_by_its_version(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Part("sklearn", registry.config("sources", "sklearn").model_validate({"set": "iris"}))
    digest = cache.load_table(source, {}, True)[1]
    module = registry.take("sources", "sklearn")
    monkeypatch.setattr(module, "version", lambda config: "scikit-learn 99")
    assert cache.load_table(source, {}, True)[1] != digest


def test_the_errors_of_a_source_are_passed_on(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        cache.load_table(part(tmp_path / "nowhere.csv"), {}, True)


def test_the_same_files_in_another_place_are_the_same_data_and_keep_their_own_names(
    home: Path, tmp_path: Path
) -> None:
    digests = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "rows.csv").write_text("a,b\n1,x\n2,y\n")
        digests.append(cache.load_table(part(tmp_path / place / "rows.csv"), {}, True)[1])
    assert digests[0] == digests[1], "moving the data must not bar its runs"
    (tmp_path / "there" / "rows.csv").write_text("a,b\n1,x\n2,z\n")
    assert cache.load_table(part(tmp_path / "there" / "rows.csv"), {}, True)[1] != digests[0]
