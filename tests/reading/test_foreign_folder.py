"""Files of a folder that somebody else wrote are opened only inside it, and only regular ones."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from danlu.errors import DataError
from danlu.reading.foreign_folder import is_plain_name, open_inside, read_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("nobody may read this")
    return tmp_path / "folder"


def test_a_regular_file_is_read(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert read_inside(folder, "config.json", 100) == b"{}"


def test_a_link_inside_the_folder_is_followed(folder: Path) -> None:
    (folder / "weights").mkdir()
    (folder / "weights" / "a").write_text("a")
    (folder / "b").symlink_to("weights/a")
    assert read_inside(folder, "b", 100) == b"a"


@pytest.mark.parametrize("target", ["../secret", "{}/secret", "/dev/zero"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder / "config.json").symlink_to(target.format(folder.parent))
    with pytest.raises(DataError, match=r"config\.json: it is a link that leads out"):
        open_inside(folder, "config.json")


def test_a_snapshot_of_the_hub_leads_to_the_blobs_of_its_checkpoint_alone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "models--a--b"
    snapshot = checkpoint / "snapshots" / "1f3c"
    snapshot.mkdir(parents=True)
    (checkpoint / "blobs").mkdir()
    (checkpoint / "blobs" / "ab12").write_text("{}")
    (checkpoint / "refs").write_text("x")
    (snapshot / "config.json").symlink_to("../../blobs/ab12")
    (snapshot / "other.json").symlink_to("../../refs")
    assert read_inside(snapshot, "config.json", 100) == b"{}"
    with pytest.raises(DataError, match="leads out of the folder"):
        read_inside(snapshot, "other.json", 100)


def test_what_is_no_regular_file_is_refused_at_once(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)  # the path of a socket is short
    os.mkfifo("pipe")
    Path("inner").mkdir()
    Path("circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
        for name, reason in (
            ("pipe", "a pipe"),
            ("inner", "a folder"),
            ("socket", "a socket"),
            ("circle", "a loop of symbolic links"),
            ("missing", "no such file"),
        ):
            with pytest.raises(DataError, match=f"{name}: .*{reason}"):
                open_inside(folder, name)


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"it has 1,099,511,627,776 bytes, and at most 100"):
        read_inside(folder, "config.json", 100)


def test_a_plain_name_has_no_path() -> None:
    for name in ("", ".", "..", "../a", "a/b", "a\\b", "/a", "a\0", "C:a", "a\n", "x" * 300, 5):
        assert not is_plain_name(name)
