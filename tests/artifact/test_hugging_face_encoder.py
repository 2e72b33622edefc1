"""An encoder in the layout of BERT: equal codes, equal logits; and back."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
from danlu.artifact import hugging_face
from danlu.errors import ArtifactError, DataError

pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
)
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'")

import transformers

import tiny_checkpoints as tiny

BERT = {
    "positions": "learned", "context": 32, "norm_position": "after", "head": "dense", "pooling": "first",
    "num_layers": 2, "num_heads": 4, "width": 32,
}  # fmt: skip
# 1e-4: the same float32 sums in kernels of other shapes, on logits of about 10; measured 5e-6
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
TRAIN = {"steps": 6, "batch_size": 8}


def pretrained(home: Path, tokenize: dict[str, Any], **model: Any) -> danlu.Artifact:
    home.mkdir(exist_ok=True)
    (home / "text.txt").write_text(
        "\n".join(row["text"] for row in tiny.sentences(300)), encoding="utf-8"
    )
    return danlu.train(
        {
            "name": "reader", "task": {"name": "masked_language_modeling", "context": 24}, "watchers": [],
            "data": {"source": str(home / "text.txt"), "transforms": {"text": [{"name": "tokenize", **tokenize}]}},
            "model": {"name": "encoder", **BERT, **model}, "train": TRAIN,
        },
        home / "reader",
    )  # fmt: skip


def classifier(home: Path, **tokenize: Any) -> danlu.Artifact:
    tiny.write_rows(home / "rows.jsonl", tiny.sentences())
    return danlu.train(
        {
            "name": "moods", "task": "classification", "watchers": [], "model": {"name": "encoder", **BERT}, "train": TRAIN,
            "data": {
                "source": str(home / "rows.jsonl"), "target": "label", "columns": {"text": {"kind": "text"}},
                "transforms": {"text": [{"name": "tokenize", "kind": "bpe", "vocabulary": 300, **tokenize}]},
            },
        },
        home / "moods",
    )  # fmt: skip


def tagger(home: Path) -> danlu.Artifact:
    draw = random.Random(0)
    rows = []
    for _ in range(80):
        words = [
            draw.choice(["the", "Film", "of", "1984", "is", "good"])
            for _ in range(draw.randint(2, 9))
        ]
        rows.append({"words": words, "tags": ["B-X" if word == "Film" else "O" for word in words]})
    tiny.write_rows(home / "words.jsonl", rows)
    return danlu.train(
        {
            "name": "tags", "task": "token_classification", "watchers": [],
            "model": {"name": "encoder", **BERT, "head": "linear", "pooling": "mean"}, "train": TRAIN,
            "data": {
                "source": str(home / "words.jsonl"), "target": "tags",
                "columns": {"words": {"transforms": [{"name": "vocabulary", "codes": []}]}},
            },
        },
        home / "tags",
    )  # fmt: skip


def both(
    artifact: danlu.Artifact, target: Path, kind: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(what danlu answers, what transformers answers, what danlu answers once it has read the
    folder back), rows with padding."""
    hugging_face.write(artifact, target)
    other = kind.from_pretrained(target, local_files_only=True).eval()
    reader = next(
        each.encoder.reader for each in artifact.module.modules() if hasattr(each, "encoder")
    )
    codes = torch.randint(
        5, other.config.vocab_size, (3, 6), generator=torch.Generator().manual_seed(0)
    )
    codes[1, 4:] = 0
    mask = (codes != 0).long()
    with torch.inference_mode():
        ours = artifact.module.eval()({reader.names[0]: codes})
        theirs = other(input_ids=codes, attention_mask=mask).logits
        back = hugging_face.read(target)({"tokens": codes})
    if ours.ndim == 3:  # nothing is promised of places after a row's end
        ours, theirs, back = (each[mask.bool()] for each in (ours, theirs, back))
    return ours, theirs, back


@pytest.mark.parametrize(
    "tokenize", [{"kind": "bpe", "vocabulary": 300}, {"kind": "characters", "lower": True}]
)
def test_hidden_words_have_the_logits_of_transformers_and_come_back(tokenize, tmp_path) -> None:
    ours, theirs, back = both(
        pretrained(tmp_path, tokenize), tmp_path / "bert", transformers.BertForMaskedLM
    )
    torch.testing.assert_close(theirs, ours, **CLOSE)
    torch.testing.assert_close(back, ours, **CLOSE)


def test_classes_of_a_text_have_the_logits_of_transformers_and_come_back(tmp_path) -> None:
    artifact = classifier(tmp_path, beginning=True, end=True)
    ours, theirs, back = both(
        artifact, tmp_path / "bert", transformers.BertForSequenceClassification
    )
    torch.testing.assert_close(theirs, ours, **CLOSE)
    torch.testing.assert_close(back, ours, **CLOSE)
    pipe = transformers.pipeline(
        "text-classification", model=str(tmp_path / "bert"), device="cpu", top_k=None
    )
    for text in ("the film is lovely", "a dull story"):
        told = {each["label"]: each["score"] for each in pipe([text])[0]}
        (answer,) = artifact.predict([{"text": text}])
        assert told == pytest.approx(
            answer["probabilities"], abs=1e-4
        )  # the tokenizer of the folder frames the text as in training


def test_tags_of_words_have_the_logits_of_transformers_and_come_back(tmp_path) -> None:
    artifact = tagger(tmp_path)
    ours, theirs, back = both(artifact, tmp_path / "bert", transformers.BertForTokenClassification)
    torch.testing.assert_close(theirs, ours, **CLOSE)
    torch.testing.assert_close(back, ours, **CLOSE)
    library = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")
    words = ["The", "FILM", "of", "2007", "never"]
    (chain,) = artifact.preprocessor.pipelines
    table = {word: code for code, word in enumerate(chain.steps[0][1]["words"], 5)}
    wanted = [table["the"], table["film"], table["of"], table["0000"], 1]
    assert library(words, is_split_into_words=True)["input_ids"] == wanted


def test_a_bert_of_transformers_becomes_an_encoder_with_its_logits(tmp_path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=40,
        id2label={0: "a", 1: "b", 2: "c"},
    )  # fmt: skip
    for kind in (
        transformers.BertForMaskedLM,
        transformers.BertForSequenceClassification,
        transformers.BertForTokenClassification,
    ):
        folder = tmp_path / kind.__name__
        made = kind(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        made.eval().save_pretrained(folder)
        codes = torch.randint(1, 60, (3, 12), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            wanted, found = made(codes).logits, hugging_face.read(folder)({"tokens": codes})
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_weights_learnt_on_hidden_words_start_a_classifier_of_the_same_parts(tmp_path) -> None:
    reader = pretrained(tmp_path, {"kind": "bpe", "vocabulary": 300})
    tiny.write_rows(tmp_path / "rows.jsonl", tiny.sentences())
    recipe = {
        "name": "moods", "task": "classification", "train": TRAIN, "watchers": ["jsonl"],
        "model": {"name": "encoder", **BERT, "weights": str(reader.path)},
        "data": {"source": str(tmp_path / "rows.jsonl"), "target": "label", "columns": {"text": {"kind": "text"}}},
    }  # fmt: skip
    from danlu import registry
    from danlu.recipe import read
    from danlu.training.setup import build_training

    built = build_training(read(recipe, registry))
    assert built.start is not None
    assert {name.split(".")[-2] for name in built.start.fresh} == {
        "dense",
        "2",
    }  # the pooler, and what tells the classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "rotary", "context": None}, "positions: learned"),
        (
            {"norm_position": "before", "feed_forward": "swiglu"},
            "norm_position: after, feed_forward: gelu",
        ),
        ({"head": "linear"}, "head: dense"),
    ],
)
def test_an_encoder_of_other_parts_is_refused_with_the_options_to_set(
    options, message, tmp_path
) -> None:
    artifact = pretrained(tmp_path, {"kind": "characters"}, **options)
    with pytest.raises(ArtifactError, match=f"train one with .*{message}"):
        hugging_face.write(artifact, tmp_path / "bert")
    assert not (tmp_path / "bert").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is gelu"),
        ({"pad_token_id": 3}, "pad_token_id is 0"),
        ({"architectures": ["BertModel"]}, "names BertModel"),
        ({"hidden_size": 16}, "the tensor bert.embeddings.word_embeddings.weight has shape"),
    ],
)
def test_what_an_encoder_is_not_is_refused(change, message, tmp_path) -> None:
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(DataError, match=message):
        hugging_face.read(tmp_path)
