"""A row of numbers, categories, a text and an image: read from a table, joined in one network, each branch heard."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import danlu
from danlu import registry
from danlu.data import cache
from danlu.errors import DataError
from danlu.layers.text.summary import TokenSummary
from danlu.recipe import ColumnOptions, Part
from danlu.terms import InputSpec, OutputSpec

ROWS = 240
INPUTS = {
    "numbers": InputSpec("numbers", (4,)),
    "categories": InputSpec("categories", (2,), cardinalities=(3, 5)),
    "tokens": InputSpec("tokens", (9,), cardinalities=(17,)),
    "image": InputSpec("image", (3, 8, 8)),
}


def write_table(folder: Path, rows: int = ROWS) -> Path:
    """shop.csv with photos beside it: good where two of price, review and photo say so; the color
    says nothing."""
    generator = np.random.default_rng(4)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["price", "color", "review", "photo", "good"])
        for row in range(rows):
            says = generator.integers(2, size=3).astype(bool)
            good = says.sum() >= 2
            light = 200 if says[2] else 40
            pixels = np.clip(generator.normal(light, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{row}.png")
            words = "what a lovely thing to have" if says[1] else "this broke on the very day"
            price = generator.normal(3 if says[0] else -3)
            color = ("red", "blue")[generator.integers(2)]
            writer.writerow(
                [f"{price:.3f}", color, words, f"photos/{row}.png", "yes" if good else "no"]
            )
    return folder / "shop.csv"


def recipe(path: Path, model: str = "cnn", **options: object) -> dict[str, object]:
    return {
        "task": "classification",
        "data": {
            "source": str(path),
            "target": "good",
            "columns": {"photo": {"kind": "image", "size": 8}, "review": {"kind": "text"}},
            "split": {"name": "random", "validation": 0.1, "test": 0.2},
        },
        "model": {"name": model, **options},
        "train": {"epochs": 25, "batch_size": 32, "threads": 1},
        "metrics": ["accuracy"],
        "watchers": [],
    }


def test_a_table_with_numbers_categories_a_text_and_images_is_learnt_from_all_of_them(tmp_path):
    path = write_table(tmp_path)
    artifact = danlu.train(recipe(path, width=4), run=tmp_path / "run")
    assert set(artifact.preprocessor.inputs) == {"numbers", "categories", "tokens", "image"}
    # who hears one or two of the three is right in 0.75, with a standard error of 0.06 over 48 rows
    assert artifact.scores["test"]["accuracy"] > 0.9
    rows = {
        "price": [2.0, -2.0],
        "color": ["red", "blue"],
        "review": ["what a lovely thing to have", "this broke on the very day"],
        "photo": [np.full((8, 8, 3), 200, np.uint8), np.full((8, 8, 3), 40, np.uint8)],
    }
    assert [answer["prediction"] for answer in artifact.predict(rows)] == ["yes", "no"]
    # the same file, its paths read from its own folder, wherever the process stands
    answers = danlu.load(tmp_path / "run").predict(str(path))
    assert len(answers) == ROWS


def test_paths_of_images_lead_from_the_folder_of_their_file(tmp_path, monkeypatch):
    path = write_table(tmp_path / "elsewhere", rows=6)
    monkeypatch.chdir(tmp_path)
    asked = {"photo": ColumnOptions(kind="image", size=[4, 6])}
    table, digest = cache.load_table(source(path), asked, True)
    assert table.columns["photo"].values.shape == (6, 4, 6, 3)
    assert cache.load_table(source(path), asked, True)[1] == digest
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "elsewhere" / "photos" / "2.png")
    changed, other = cache.load_table(source(path), asked, True)
    assert other != digest  # the table is the same, a photo it names is not
    assert not changed.columns["photo"].values[2].any()


def test_an_image_that_is_not_there_is_named_with_row_and_column(tmp_path):
    path = write_table(tmp_path, rows=6)
    (tmp_path / "photos" / "3.png").unlink()
    with pytest.raises(DataError, match=r"shop.csv row 5, column photo") as caught:
        cache.load_table(source(path), {"photo": ColumnOptions(kind="image")}, False)
    assert "3.png" in str(caught.value) or "no such file" in str(caught.value)


def test_an_empty_cell_is_no_image(tmp_path):
    path = write_table(tmp_path, rows=3)
    path.write_text(path.read_text().replace("photos/1.png", ""))
    with pytest.raises(DataError, match=r"row 3, column photo: there is no image"):
        cache.load_table(source(path), {"photo": ColumnOptions(kind="image")}, False)


def test_a_size_is_for_images_alone():
    with pytest.raises(ValueError, match="size needs kind image"):
        ColumnOptions(kind="number", size=3)
    with pytest.raises(ValueError, match=r"one number or \[height, width\]"):
        ColumnOptions(kind="image", size=[1, 2, 3])


def source(path: Path) -> Part:
    return Part("csv", registry.config("sources", "csv")(path=str(path)))


@pytest.mark.parametrize("model", ["cnn", "wide_resnet", "resnet", "vit", "mlp_mixer", "mlp"])
def test_every_branch_moves_the_output(model):
    torch.manual_seed(0)
    module = registry.build_model(
        Part(model, registry.config("models", model)()), INPUTS, OutputSpec(2)
    ).eval()
    generator = torch.Generator().manual_seed(1)
    batch = {
        "numbers": torch.randn(3, 4, generator=generator),
        "categories": torch.ones(3, 2, dtype=torch.int64),
        "tokens": torch.randint(1, 17, (3, 9), generator=generator),
        "image": torch.randn(3, 3, 8, 8, generator=generator),
    }
    before = module(batch)
    other = {
        "numbers": -batch["numbers"],
        "categories": batch["categories"] * 2,
        "tokens": batch["tokens"].flip(1) % 16 + 1,
        "image": -batch["image"],
    }
    for name, changed in other.items():
        assert not torch.allclose(module({**batch, name: changed}), before, atol=1e-6), name


@pytest.mark.parametrize("codes", [(), (4,)])
def test_padding_changes_nothing_of_a_text_summed_up(codes):
    torch.manual_seed(0)
    names = ("word", "letter", "letter", "letter") if codes else ()
    described = InputSpec(
        "tokens", (7, *codes), names=names, cardinalities=(11, 5, 5, 5) if codes else (11,)
    )
    summary = TokenSummary(described).eval()
    tokens = torch.randint(1, 5, (3, 7, *codes), generator=torch.Generator().manual_seed(2))
    longer = torch.cat([tokens, torch.zeros(3, 4, *codes, dtype=torch.int64)], dim=1)
    # 1e-6: the mean is divided by the same count, sums of zeros add nothing but the order of adding
    torch.testing.assert_close(summary(longer), summary(tokens), rtol=1e-5, atol=1e-6)
    nothing = summary(torch.zeros(2, 3, *codes, dtype=torch.int64))
    assert torch.equal(nothing, torch.zeros_like(nothing))
