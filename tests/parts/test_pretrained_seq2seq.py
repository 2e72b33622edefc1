"""Encoder-decoders of Hugging Face: their logits, what they write, and the artifact that needs them no more."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
from danlu import registry
from danlu.errors import PartError
from danlu.layers.tensors import unique_tensors
from danlu.recipe import read
from danlu.terms import BEGINNING, END, PADDING
from danlu.training.setup import build_training

pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
)
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'")

import transformers

import tiny_checkpoints as tiny

# 1e-4: the same float32 sums in kernels of other shapes, on logits of about 10; measured 5e-6
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
FAMILIES = ["t5", "bart", "marian"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("seq2seq")
    for family in FAMILIES:
        getattr(tiny, family)(home / family)
    draw = random.Random(0)
    rows = []
    for _ in range(60):
        words = draw.choices(["the", "film", "is", "a", "great", "story"], k=draw.randint(2, 6))
        rows.append({"said": " ".join(words), "back": " ".join(reversed(words))})
    tiny.write_rows(home / "pairs.jsonl", rows)
    return home


def recipe(home: Path, family: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "pairs", "task": {"name": "sequence_to_sequence", "num_beams": 3, "max_tokens": 12}, "watchers": [],
        "data": {
            "source": str(home / "pairs.jsonl"), "target": "back", "split": "random",
            "columns": {"said": {"kind": "text"}, "back": {"kind": "text"}},
        },
        "model": {"name": "pretrained", "path": str(home / family)}, "train": {"steps": 4, "batch_size": 8}, **more,
    }  # fmt: skip


def of_transformers(home: Path, family: str) -> Any:
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(
        home / family, local_files_only=True
    ).eval()


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_the_logits_are_those_of_transformers(family, home) -> None:
    built = build_training(read(recipe(home, family), registry))
    module = built.state.module.eval()
    batch = built.rows.gather(torch.arange(5))
    source, target = batch.inputs["tokens"], batch.inputs["decoder"]
    assert int((source == PADDING).sum()) and int((target == PADDING).sum()), (
        "rows of unequal length"
    )
    codes = module.file_codes
    config = module.body.config
    labels = torch.where(batch.target >= 0, codes[batch.target.clamp(min=0)], -100)
    if family == "bart":  # its labels begin with the beginning of a text
        labels = torch.cat([labels.new_full((len(labels), 1), config.bos_token_id), labels], dim=1)
    theirs = of_transformers(home, family)(
        input_ids=torch.where(source == PADDING, config.pad_token_id, codes[source.clamp(min=0)]),
        attention_mask=(source != PADDING).long(), labels=labels,
    )  # fmt: skip
    logits = theirs.logits[:, int(family == "bart") :]
    asked = batch.target >= 0
    there = codes >= 0
    ours = module(batch.inputs)
    torch.testing.assert_close(ours[asked][:, there], logits[asked][:, codes[there]], **CLOSE)
    assert bool((ours[asked][:, ~there] < -1000).all())
    framed = source[0][source[0] != PADDING]
    assert framed[-1] == END and (framed[0] == BEGINNING) == (family == "bart")


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_tokens_that_come_one_by_one_have_the_logits_of_the_whole(family, home) -> None:
    built = build_training(read(recipe(home, family), registry))
    module = built.state.module.eval()
    batch = built.rows.gather(torch.tensor([3, 9, 4]))
    wanted = module(batch.inputs)
    rows = torch.tensor([2, 0, 0, 1])  # as the beams of a search: turned about, doubled
    begun = module.begin(batch.inputs, 4).keep(torch.arange(3))
    found = [module.extend(batch.inputs["decoder"][:, :1], begun)]
    begun = begun.keep(rows)
    found[0] = found[0][rows]
    for place in range(1, batch.inputs["decoder"].shape[1]):
        found.append(module.extend(batch.inputs["decoder"][rows, place : place + 1], begun))
    asked = batch.target[rows] >= 0
    torch.testing.assert_close(torch.cat(found, dim=1)[asked], wanted[rows][asked], **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_beam_writes_what_transformers_writes(family, home, tmp_path) -> None:
    task = {"name": "sequence_to_sequence", "num_beams": 1, "max_tokens": 12}
    # a step too small to change anything: the artifact is the checkpoint
    artifact = danlu.train(
        recipe(
            home,
            family,
            task=task,
            optimizer={"name": "sgd", "learning_rate": 1e-12},
            train={"steps": 1},
        ),
        tmp_path / "run",
    )
    library = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(home / family / "tokenizer.json")
    )
    other = of_transformers(home, family)
    config = other.config
    beginning = getattr(config, "bos_token_id", None)
    for text in ("the film is a great story", "a story"):
        ids = library(text, add_special_tokens=False)["input_ids"]
        ids = [*([beginning] if family == "bart" else []), *ids, config.eos_token_id]
        never = [
            library.convert_tokens_to_ids(each) for each in ("<pad>", "<unk>", "<s>", "<mask>")
        ]
        opening = {"forced_bos_token_id": beginning} if family == "bart" else {}
        with torch.inference_mode():
            said = other.generate(
                torch.tensor([ids]), num_beams=1, do_sample=False, max_new_tokens=12 + len(opening), forced_eos_token_id=None,
                suppress_tokens=[each for each in never if each is not None and each != beginning], **opening,
            )[0]  # fmt: skip
        wanted = library.decode(said, skip_special_tokens=True).strip()
        (answer,) = artifact.predict([{"said": text}])
        assert answer["prediction"] == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_trained_released_and_answers_without_the_folder(family, home, tmp_path) -> None:
    artifact = danlu.train(recipe(home, family), tmp_path / "run")
    (home / family).rename(home / "away")
    try:
        again = danlu.load(tmp_path / "run")
        assert again.predict([{"said": "the film"}]) == artifact.predict([{"said": "the film"}])
        assert danlu.evaluate(again).values["loss"] == pytest.approx(
            artifact.scores["test"]["loss"], abs=0
        )
        goes_on = recipe(
            home, family, model={"name": "pretrained", "weights": str(tmp_path / "run")}
        )
        built = build_training(read(goes_on, registry))
        assert built.start is not None and not built.start.fresh
        ours, theirs = unique_tensors(built.state.module), unique_tensors(again.module)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    finally:
        (home / "away").rename(home / family)


def test_low_rank_paths_over_four_bits_stand_in_both_networks(home, tmp_path) -> None:
    artifact = danlu.train(
        recipe(home, "t5", finetune={"lora": {"rank": 2, "base": "nf4"}}), tmp_path / "run"
    )
    assert not [
        name
        for name in artifact.module.state_dict()
        if "low_rank" in name or name.endswith(".codes")
    ]
    built = build_training(
        read(recipe(home, "t5", finetune={"lora": {"rank": 2, "base": "nf4"}}), registry)
    )
    moving = {
        name.split(".")[1]
        for name, each in built.state.module.named_parameters()
        if each.requires_grad
    }
    assert moving == {"encoder", "decoder"}


def test_what_an_encoder_decoder_cannot_do_is_said(home) -> None:
    wrong = recipe(home, "t5", task="classification")
    wrong["data"]["target"] = "length"
    rows = [
        {"said": "one" if n % 2 else "two three", "length": ["short", "long"][n % 2]}
        for n in range(60)
    ]
    wrong["data"] |= {
        "source": str(tiny.write_rows(home / "lengths.jsonl", rows)),
        "columns": {"said": {"kind": "text"}},
    }
    with pytest.raises(PartError, match="reads one text and writes another"):
        build_training(read(wrong, registry))
    tiny.bert(home / "bert")
    with pytest.raises(PartError, match=r"writes no text of another(?s:.*)t5, bart, marian"):
        build_training(read(recipe(home, "bert"), registry))
