"""A gpt in the layout of Hugging Face: equal codes, equal logits, equal texts; and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import danlu
from danlu import tokenizing
from danlu.artifact import hugging_face
from danlu.artifact.hugging_face import folder as folders
from danlu.artifact.hugging_face.tokenizer import tokenizer_file
from danlu.errors import ArtifactError, DataError

pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
)
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'")

import transformers

import tiny_checkpoints as tiny

LLAMA = {"size": "tiny", "width": 32, "num_heads": 4, "feed_forward": "swiglu", "qk_norm": False}
TEXTS = [row["text"] + "\n" for row in tiny.sentences(400)]
ODD = ["", " ", "the film  is\n\n dull", "Ünïcode — 中文 🙂 don't", "tabs\tand 1234.5", "</s><s>"]
KINDS: dict[str, dict[str, Any]] = {
    "characters": {"kind": "characters"},
    "small": {"kind": "characters", "lower": True},
    "bytes": {"kind": "bytes"},
    "bpe": {"kind": "bpe", "vocabulary": 300},
}
# 1e-5: the same float32 sums, in kernels of other shapes; measured 5e-7
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def trained(home: Path, tokenize: dict[str, Any], **model: Any) -> danlu.Artifact:
    home.mkdir(exist_ok=True)
    (home / "text.txt").write_text("".join(TEXTS), encoding="utf-8")
    return danlu.train(
        {
            "name": "writer", "task": {"name": "language_modeling", "context": 24, "samples": 0}, "watchers": [],
            "data": {"source": str(home / "text.txt"), "transforms": {"text": [{"name": "tokenize", **tokenize}]}},
            "model": {"name": "gpt", **LLAMA, **model}, "train": {"steps": 8, "batch_size": 8},
        },
        home / "run",
    )  # fmt: skip


@pytest.fixture(scope="session")
def writer(tmp_path_factory) -> danlu.Artifact:
    return trained(tmp_path_factory.mktemp("writer"), KINDS["bpe"])


@pytest.fixture(scope="session")
def exported(writer, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "llama"
    hugging_face.write(writer, target)
    return target


def tokens(size: int) -> torch.Tensor:
    return torch.randint(5, size, (3, 20), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_the_logits_are_those_of_transformers(writer, exported) -> None:
    codes = tokens(writer.module.embedding.num_embeddings)
    other = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    torch.testing.assert_close(other(codes).logits, writer.module({"tokens": codes}), **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {"tied": True},
        {"num_key_value_heads": 2, "rotary_theta": 5000.0, "feed_forward_width": 40, "width": 48},
        {"num_key_value_heads": 1, "num_layers": 1},
    ],
)
def test_every_form_that_a_llama_has_gives_its_logits_and_comes_back(options, tmp_path) -> None:
    artifact = trained(tmp_path, KINDS["characters"], **options)
    hugging_face.write(artifact, tmp_path / "llama")
    codes = tokens(artifact.module.embedding.num_embeddings)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llama").eval()
    back = hugging_face.read(tmp_path / "llama")
    with torch.inference_mode():
        wanted = artifact.module({"tokens": codes})
        torch.testing.assert_close(other(codes).logits, wanted, **CLOSE)
        assert torch.equal(back({"tokens": codes}), wanted)


@torch.inference_mode()
def test_a_llama_of_transformers_becomes_a_gpt_with_its_logits(tmp_path) -> None:
    folder = tiny.llama(tmp_path / "llama")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "rms_norm_eps": 1e-5}))
    codes = tokens(200)
    wanted = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(codes).logits
    torch.testing.assert_close(
        hugging_face.read(folder)({"tokens": codes}), wanted, rtol=1e-4, atol=1e-4
    )  # logits of about 50


@pytest.mark.parametrize("kind", list(KINDS))
def test_codes_are_the_same(kind, tmp_path) -> None:
    options = {"vocabulary": None, "lower": False, **KINDS[kind]}
    tokenizer = tokenizing.fit(
        options["kind"],
        tokenizing.tokenizer.as_column(TEXTS),
        options["vocabulary"],
        options["lower"],
    )
    told = tokenizer_file(tokenizer, "here")
    (tmp_path / "tokenizer.json").write_text(told.text, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told.config(24)), encoding="utf-8")
    library = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS[:20], *ODD[:-1]]:
        found = library(text, add_special_tokens=False)["input_ids"]
        assert told.rows[found].tolist() == tokenizer.encode([text])[0].tolist(), text
        assert library(text)["input_ids"] == [
            told.codes[3],
            *found,
        ]  # with the mark of a beginning that danlu generate gives
    codes = tokenizer.encode([TEXTS[0]])[0]
    assert library.decode(codes) == tokenizer.decode(codes)


def test_a_given_tokenizer_goes_back_with_its_own_codes(tmp_path) -> None:
    tiny.byte_pairs(tmp_path, ["<unk>", "<|endoftext|>"])
    artifact = trained(tmp_path, {"kind": "file", "tokenizer": str(tmp_path / "tokenizer.json")})
    hugging_face.write(artifact, tmp_path / "llama")
    library = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")
    plain = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ids = library(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert ids == plain(TEXTS[0])["input_ids"]
    assert library.eos_token == "<|endoftext|>"
    ours = artifact.preprocessor.tokenizer.encode([TEXTS[0]])[0].astype(np.int64)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llama").eval()
    with torch.inference_mode():
        wanted = artifact.module({"tokens": torch.from_numpy(ours)[None]})
        found = other(torch.tensor([ids])).logits
    torch.testing.assert_close(
        found[..., artifact.preprocessor.tokenizer.file_codes[5:]], wanted[..., 5:], **CLOSE
    )


def test_transformers_writes_the_text_that_danlu_writes(writer, exported) -> None:
    (text,) = danlu.generate(writer, "the film", temperature=0, max_tokens=16)
    library = transformers.AutoTokenizer.from_pretrained(exported)
    other = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    asked = library("the film", return_tensors="pt", return_token_type_ids=False)
    found = other.generate(**asked, max_new_tokens=16, do_sample=False, temperature=None)
    assert (
        library.decode(found[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        == text.text
    )


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_a_gpt_of_other_parts_is_refused_with_the_options_to_set(tmp_path) -> None:
    artifact = trained(tmp_path, KINDS["bytes"], feed_forward="relu_squared", qk_norm=True)
    with pytest.raises(
        ArtifactError,
        match=r"(?s)feed_forward: relu_squared, qk_norm: True.*feed_forward: swiglu, qk_norm: false",
    ):
        hugging_face.write(artifact, tmp_path / "llama")
    assert not (tmp_path / "llama").exists()


def test_words_cannot_be_written(tmp_path) -> None:
    artifact = trained(tmp_path, {"kind": "words"})
    with pytest.raises(ArtifactError, match="tokenizer of words cannot be written"):
        hugging_face.write(artifact, tmp_path / "llama")


def test_a_folder_that_is_there_is_not_replaced(writer, exported) -> None:
    with pytest.raises(ArtifactError, match="already a file or folder"):
        hugging_face.write(writer, exported)


def test_a_folder_that_answers_otherwise_is_not_released(writer, tmp_path, monkeypatch) -> None:
    from danlu.artifact.hugging_face import llama

    right = llama.tensors
    monkeypatch.setattr(
        llama, "tensors", lambda *given: {name: each * 1.01 for name, each in right(*given).items()}
    )
    assert folders.llama is llama
    with pytest.raises(ArtifactError, match="the logits that transformers computes"):
        hugging_face.write(writer, tmp_path / "llama")
    assert not (tmp_path / "llama").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-05"),
        ({"attention_bias": True}, "attention_bias and mlp_bias are false"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}},
            "rope_scaling is off",
        ),
        ({"num_hidden_layers": 3}, r"model\.layers\.2\.input_layernorm\.weight is missing"),
        ({"vocab_size": 7}, r"model\.embed_tokens\.weight has shape"),
    ],
)
def test_what_a_gpt_is_not_is_refused(change, message, exported, tmp_path) -> None:
    about = json.loads((exported / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, **change}))
    (tmp_path / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match=message):
        hugging_face.read(tmp_path)
