"""The watcher that keeps what generative models make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.parts.watchers._base import RunInfo
from danlu.recipe import Part
from danlu.terms import Sample, TrainingEvent

RED = np.full((5, 4, 3), (255, 0, 0), dtype=np.uint8)


def watcher(folder: Path, **options: Any) -> Any:
    part = Part("samples", registry.config("watchers", "samples")(**options))
    return registry.build_watcher(part, RunInfo(folder, None, 40, 7, "loss", "lower"))  # type: ignore[arg-type]


def test_texts_are_kept_whole_and_told_briefly(tmp_path: Path) -> None:
    made = watcher(tmp_path, shown=20)
    poem = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n"
    made.hear(
        TrainingEvent("validation", 12, samples=(Sample("text 1", poem), Sample("text 2", "more")))
    )
    kept = (tmp_path / "samples" / "00000012.txt").read_text("utf-8")
    assert poem in kept
    assert "more" in kept
    (told,) = made.notices
    assert told.startswith("text 1: 床前明月光")
    assert "\n" not in told
    assert len(told) <= len("text 1: ") + 20


def test_images_become_one_picture(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    watcher(tmp_path).hear(
        TrainingEvent("validation", 3, samples=tuple(Sample(str(n), RED) for n in range(4)))
    )
    with pillow.open(tmp_path / "samples" / "00000003.png") as picture:
        assert picture.mode == "RGB"
        assert picture.getpixel((0, 0)) == (255, 0, 0)
        assert picture.size[0] >= 8


def test_a_run_without_samples_has_no_folder_of_them(tmp_path: Path) -> None:
    watcher(tmp_path).hear(TrainingEvent("validation", 3, values={"loss": 1.0}))
    assert not (tmp_path / "samples").exists()


def test_what_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("in the way")
    made = watcher(tmp_path, shown=0)
    for step in (1, 2):
        made.hear(TrainingEvent("validation", step, samples=(Sample("text 1", "a"),)))
    assert len(made.notices) == 1
    assert "no longer written" in made.notices[0]
