"""The other families of pretrained checkpoints, RoBERTa, DistilBERT, DeiT and ConvNeXt: the logits of transformers, artifacts of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import danlu
from danlu import registry
from danlu.recipe import read
from danlu.system.image_grid import encode_png
from danlu.training.setup import build_training

pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
)
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'")

import transformers

import tiny_checkpoints as tiny

# 1e-4: both sum the same float32 products in kernels of other shapes; measured 1e-6 and below
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
TEXTS, IMAGES = ["roberta", "distilbert"], ["deit", "convnext"]
FRAME = {"roberta": ("<s>", "</s>"), "distilbert": ("[CLS]", "[SEP]")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("families")
    for family in TEXTS:
        getattr(tiny, family)(home / family)
        getattr(tiny, family)(home / f"{family}_labelled", {0: "good", 1: "bad"})
    for family in IMAGES:
        getattr(tiny, family)(home / family)
    tiny.write_rows(home / "rows.jsonl", tiny.sentences())
    draw = np.random.default_rng(0)
    for colour, name in enumerate(("blue", "green", "red")):
        (home / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(0, 90, (16, 16, 3), dtype=np.uint8)
            pixels[..., 2 - colour] += 150
            (home / "images" / name / f"{number}.png").write_bytes(encode_png(pixels))
    return home


def recipe(
    home: Path, checkpoint: str, task: Any = "classification", **more: Any
) -> dict[str, Any]:
    data: dict[str, Any] = {"source": str(home / "rows.jsonl")}
    if checkpoint in IMAGES:
        data = {"source": str(home / "images"), "target": "label"}
    elif task == "classification":
        data |= {"target": "label", "columns": {"text": {"kind": "text"}}}
    return {
        "name": "tuned", "task": task, "data": data, "model": {"name": "pretrained", "path": str(home / checkpoint)},
        "train": {"steps": 2, "batch_size": 8}, "watchers": [], **more,
    }  # fmt: skip


def encoded(home: Path, family: str, text: str) -> torch.Tensor:
    """The codes of a text between its beginning and its end, as the library has them."""
    library = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(home / family / "tokenizer.json")
    )
    first, last = (library.convert_tokens_to_ids(each) for each in FRAME[family])
    return torch.tensor([[first, *library(text, add_special_tokens=False)["input_ids"], last]])


@pytest.mark.parametrize("family", TEXTS)
def test_classes_of_texts_have_the_logits_of_transformers(family: str, home: Path) -> None:
    built = build_training(read(recipe(home, f"{family}_labelled"), registry))
    assert built.start is not None and not built.start.fresh
    module = transformers.AutoModelForSequenceClassification.from_pretrained(
        home / f"{family}_labelled"
    ).eval()
    rows = [row["text"] for row in tiny.sentences()[:9]]
    with torch.no_grad():
        wanted = torch.cat([module(encoded(home, family, row)).logits for row in rows])
        found = built.state.module.eval()(
            built.rows.gather(torch.arange(9)).inputs
        )  # together, and padded
    torch.testing.assert_close(
        found, wanted[:, [1, 0]], **CLOSE
    )  # danlu's classes stand in the order of the alphabet


@pytest.mark.parametrize("family", TEXTS)
def test_masked_words_have_the_logits_of_transformers(family: str, home: Path) -> None:
    told = recipe(
        home, family, {"name": "masked_language_modeling", "context": 20, "column": "text"}
    )
    built = build_training(read(told, registry))
    codes = built.data.preprocessor.tokenizer.codes
    ids = encoded(home, family, "the film is a play")
    with torch.no_grad():
        wanted = transformers.AutoModelForMaskedLM.from_pretrained(home / family).eval()(ids).logits
        found = built.state.module.eval()({"tokens": torch.from_numpy(codes)[ids]})
    known = codes >= 0
    torch.testing.assert_close(
        found[..., codes[known]], wanted[..., np.flatnonzero(known)], **CLOSE
    )


@pytest.mark.parametrize("family", TEXTS)
def test_words_are_tagged_and_answered_without_the_folder(
    family: str, home: Path, tmp_path: Path
) -> None:
    views = ("great", "lovely", "awful", "dull")
    rows = [{"words": row["text"].split()} for row in tiny.sentences(60)]
    rows = [
        {**row, "tags": ["B-view" if word in views else "O" for word in row["words"]]}
        for row in rows
    ]
    folder = shutil.copytree(home / family, tmp_path / "folder")
    told = recipe(
        home, family, "token_classification", model={"name": "pretrained", "path": str(folder)}
    )
    told["data"] = {
        "source": str(tiny.write_rows(tmp_path / "tagged.jsonl", rows)),
        "target": "tags",
    }
    trained = danlu.train(told, tmp_path / "run")
    shutil.rmtree(folder)
    asked = [{"words": ["a", "lovely", "film"]}, {"words": ["dull"]}]
    assert danlu.load(tmp_path / "run").predict(asked) == trained.predict(asked)


@pytest.mark.parametrize("family", TEXTS)
def test_texts_of_any_length_are_answered_without_the_folder(
    family: str, home: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(home / family, tmp_path / "folder")
    trained = danlu.train(
        recipe(home, family, model={"name": "pretrained", "path": str(folder)}), tmp_path / "run"
    )
    shutil.rmtree(folder)
    artifact = danlu.load(tmp_path / "run")
    asked = [
        {"text": "a lovely film"},
        {"text": ""},
        {"text": "dull " * 200},
    ]  # RoBERTa's last places are the code of padding fewer
    assert artifact.predict(asked) == trained.predict(asked)
    assert danlu.evaluate(artifact).values["loss"] == pytest.approx(
        artifact.scores["test"]["loss"], abs=0
    )


@pytest.mark.parametrize("family", IMAGES)
def test_images_have_the_logits_of_transformers_and_need_no_folder(
    family: str, home: Path, tmp_path: Path
) -> None:
    built = build_training(read(recipe(home, family), registry))
    pixels = (
        torch.from_numpy(np.asarray(built.data.table.columns["image"].values[:7])).permute(
            0, 3, 1, 2
        )
        / 255
    )
    mean, std = (
        torch.tensor(each)[:, None, None] for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    module = transformers.AutoModelForImageClassification.from_pretrained(home / family).eval()
    with torch.no_grad():
        wanted = module((pixels - mean) / std).logits
        found = built.state.module.eval()(built.rows.gather(torch.arange(7)).inputs)
    torch.testing.assert_close(found, wanted[:, [2, 1, 0]], **CLOSE)  # blue, green, red
    folder = shutil.copytree(home / family, tmp_path / "folder")
    trained = danlu.train(
        recipe(home, family, model={"name": "pretrained", "path": str(folder)}), tmp_path / "run"
    )
    shutil.rmtree(folder)
    pictures = [{"image": np.full((16, 16, 3), shade, dtype=np.uint8)} for shade in (0, 200)]
    assert danlu.load(tmp_path / "run").predict(pictures) == trained.predict(pictures)


@pytest.mark.parametrize("family", [*TEXTS, "deit"])
def test_low_rank_paths_find_the_blocks_of_every_transformer(family: str, home: Path) -> None:
    built = build_training(
        read(recipe(home, family, finetune={"lora": {"rank": 2, "base": "nf4"}}), registry)
    )
    assert any("in 12 layers" in notice and "nf4" in notice for notice in built.data.notices)
