"""What a generative model generates at each evaluation: RUN/samples/STEP.txt or STEP.png.

A resumed run writes the same files again, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from danlu.parts.watchers._base import RunInfo, SpeakingWatcher
from danlu.recipe import Options
from danlu.system.atomic_files import replace_file
from danlu.system.own_folder import make_subfolder
from danlu.terms import Sample, TrainingEvent


class Config(Options):
    """How much of a text is shown."""

    shown: int = Field(
        120,
        ge=0,
        le=10_000,
        description="Characters of the first text that are shown as a notice; 0: none.",
    )


class Samples(SpeakingWatcher):
    """Writes the files. After one that cannot be written it gives a notice and writes no more."""

    def __init__(self, config: Config, run: RunInfo) -> None:
        self.folder: Path = run.folder / "samples"
        self.shown = config.shown
        super().__init__()
        self.broken = False

    def hear(self, report: TrainingEvent) -> None:
        if not report.samples:
            return
        texts = [sample for sample in report.samples if isinstance(sample.value, str)]
        images = [sample for sample in report.samples if not isinstance(sample.value, str)]
        if texts:
            self._write(f"{report.step:08d}.txt", _page(texts))
            if self.shown:
                self.notices.append(f"{texts[0].name}: {_brief(str(texts[0].value), self.shown)}")
        if images:
            self._write(f"{report.step:08d}.png", _picture(images))

    def _write(self, name: str, data: bytes) -> None:
        if self.broken:
            return
        try:
            make_subfolder(self.folder)
            replace_file(self.folder / name, data)
        except OSError as error:
            self.broken = True
            self.notices.append(f"samples are no longer written: {error.strerror or error}.")


def _page(texts: Sequence[Sample]) -> bytes:
    return "\n".join(f"--- {sample.name}\n{sample.value}\n" for sample in texts).encode(
        "utf-8", "replace"
    )


def _brief(text: str, most: int) -> str:
    """A text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _picture(images: Sequence[Sample]) -> bytes:
    """One PNG; several images of one size side by side, else the first alone."""
    import numpy as np

    from danlu.system.image_grid import encode_png, image_grid

    pixels = [np.asarray(sample.value) for sample in images]
    same = len({image.shape for image in pixels}) == 1 and len(pixels) > 1 and pixels[0].ndim == 3
    return encode_png(image_grid(np.stack(pixels)) if same else pixels[0])


def build(config: Config, run: RunInfo) -> Samples:
    """A writer of samples."""
    return Samples(config, run)
