"""A language model as a folder of Hugging Face and as a GGUF of llama.cpp: proven on held-out text; tokenizers that cannot be held are named."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import danlu
from danlu.errors import ArtifactError
from danlu.exporting.export import export, verify
from danlu.exporting.exporters import _gguf_file as gguf_file

TEXT = "".join(
    f"The {number}. furnace (of {number * 7}) melts gold, and it's hot.\n\nWho's there?  Nobody:\n"
    for number in range(60)
)
LLAMA = {
    "name": "gpt",
    "width": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "qk_norm": False,
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANLU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def trained(
    home: Path, name: str, text: str = TEXT, model: dict[str, Any] = LLAMA, **tokenize: Any
) -> danlu.Artifact:
    (home / name).mkdir()
    (home / name / "input.txt").write_text(text)
    recipe = {
        "name": name,
        "task": {"name": "language_modeling", "context": 16},
        "data": {
            "source": {"name": "text", "path": str(home / name)},
            "transforms": {"text": [{"name": "tokenize", **tokenize}]},
        },
        "model": model,
        "train": {"steps": 3, "batch_size": 4},
    }
    return danlu.train(recipe, home / name / "run")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> dict[str, danlu.Artifact]:
    pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'"
    )
    home = tmp_path_factory.mktemp("texts")
    kinds: dict[str, dict[str, Any]] = {"bpe": {"vocabulary": 290}, "bytes": {}, "characters": {}}
    return {kind: trained(home, kind, kind=kind, **more) for kind, more in kinds.items()}


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_a_folder_of_hugging_face_answers_as_its_artifact_does(kind, artifacts, tmp_path) -> None:
    made = export(artifacts[kind], "huggingface", tmp_path / "llama", least_rows=24)
    assert made.manifest["proof"]["largest_difference"] < 1e-5
    if importlib.util.find_spec("transformers") is not None:
        assert made.manifest["proof"]["by_output"]["logits on transformers"] < 1e-5
    verify(tmp_path / "llama", artifacts[kind])


# --- GGUF ---------------------------------------------------------------------------------------------------------------


def need_gguf() -> Any:
    return pytest.importorskip("gguf", reason="gguf is not installed: pip install 'danlu[gguf]'")


@pytest.mark.parametrize("kind", ["bpe", "bytes", "characters"])
def test_a_gguf_answers_as_its_artifact_does(kind, artifacts, tmp_path) -> None:
    gguf = need_gguf()
    made = export(artifacts[kind], "gguf", tmp_path / "gguf", least_rows=24)
    assert made.manifest["proof"]["largest_difference"] <= 1e-6  # the same numbers, turned twice
    verify(tmp_path / "gguf", artifacts[kind])
    reader = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf")  # llama.cpp's own
    facts, tensors = gguf_file.read((tmp_path / "gguf" / "model.gguf").read_bytes())
    assert {each.name: tuple(each.shape[::-1].tolist()) for each in reader.tensors} == {
        each.name: each.shape for each in tensors
    }
    tokenizer = artifacts[kind].preprocessor.tokenizer
    assert (
        tokenizer is not None
        and len(facts["tokenizer.ggml.tokens"]) == tokenizer.size == facts["llama.vocab_size"]
    )
    assert facts["tokenizer.ggml.tokens"][:5] == ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]


@pytest.mark.parametrize(("kind", "least", "most"), [("f16", 0.0, 0.02), ("q8_0", 1e-4, 0.25)])
def test_fewer_bits_are_proven_within_what_they_allow(
    kind, least, most, artifacts, tmp_path
) -> None:
    need_gguf()
    made = export(
        artifacts["bytes"], "gguf", tmp_path / kind, least_rows=24, options={"type": kind}
    )
    assert least < made.manifest["proof"]["largest_difference"] <= most
    whole = export(artifacts["bytes"], "gguf", tmp_path / "whole", least_rows=24)
    assert (tmp_path / kind / "model.gguf").stat().st_size < 0.8 * (
        whole.path / "model.gguf"
    ).stat().st_size


def test_pieces_are_those_that_the_tokenizer_writes(artifacts) -> None:
    from danlu.exporting.exporters.gguf import pieces_and_merges
    from danlu.tokenizing.bpe import byte_letters

    value_of = {letter: value for value, letter in enumerate(byte_letters())}
    for artifact in artifacts.values():
        tokenizer = artifact.preprocessor.tokenizer
        assert tokenizer is not None
        pieces, _ = pieces_and_merges(tokenizer)
        for code in range(0, len(pieces), 7):
            written = bytes(value_of[letter] for letter in pieces[code])
            assert tokenizer.decode([5 + code]) == written.decode("utf-8", "replace")


def test_a_text_that_llama_cpp_would_read_otherwise_is_counted() -> None:
    pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'"
    )
    from danlu.exporting.exporters.gguf import share_read_alike
    from danlu.tokenizing.bpe import BytePairs

    plain = BytePairs(["t h", "th e", "Ġ the"])
    across = BytePairs(
        ["Ċ Ċ", "Ċ Ġ"]
    )  # danlu ends a part behind a newline, llama.cpp's rule goes on

    def codes(tokenizer: BytePairs, text: str) -> np.ndarray:
        from danlu.tokenizing.bpe import bpe_library

        return np.array(
            [
                bpe_library(tokenizer.pieces, tokenizer.merges)
                .encode(text, add_special_tokens=False)
                .ids
            ]
        )

    assert share_read_alike(plain, codes(plain, "the the\n\nthe 12 (the)")) == 1.0
    assert share_read_alike(across, codes(across, "a\n  b\n  c")) < 1.0


@pytest.mark.parametrize(
    ("tokenize", "text", "said"),
    [
        ({"kind": "characters"}, "炼丹炉" * 20 + TEXT, "beyond ASCII"),
        ({"kind": "bytes", "lower": True}, TEXT, "lower-cases"),
        ({"kind": "words"}, TEXT, "its tokenizer is words"),
    ],
)
def test_a_tokenizer_that_llama_cpp_cannot_hold_is_refused_by_name(
    tokenize, text, said, tmp_path
) -> None:
    need_gguf()
    artifact = trained(tmp_path, "odd", text, **tokenize)
    with pytest.raises(ArtifactError, match=said):
        export(artifact, "gguf", tmp_path / "gguf", least_rows=8)


def test_a_gpt_that_is_no_llama_is_refused_by_name(tmp_path) -> None:
    need_gguf()
    artifact = trained(tmp_path, "odd", model={**LLAMA, "qk_norm": True}, kind="bytes")
    with pytest.raises(ArtifactError, match="qk_norm: false"):
        export(artifact, "gguf", tmp_path / "gguf", least_rows=8)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


HOSTILE = {
    "no GGUF": b"PK\x03\x04",
    "cut": b"GGUF" + struct.pack("<IQQ", 3, 1, 1),
    "tensors without end": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
    "facts without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
    "a list without end": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + text("a")
    + struct.pack("<IIQ", 9, 4, 2**60),
    "lists of lists": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + text("a")
    + struct.pack("<IIQ", 9, 9, 1),
    "a text without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62),
    "a tensor without end": b"GGUF"
    + struct.pack("<IQQ", 3, 1, 0)
    + text("a")
    + struct.pack("<IQQIQ", 2, 2**31, 2**31, 0, 0),
    "a tensor elsewhere": b"GGUF"
    + struct.pack("<IQQ", 3, 1, 0)
    + text("a")
    + struct.pack("<IQIQ", 1, 4, 0, 2**62),
    "another type": b"GGUF"
    + struct.pack("<IQQ", 3, 1, 0)
    + text("a")
    + struct.pack("<IQIQ", 1, 4, 99, 0),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_gguf_that_declares_more_than_it_holds_is_refused(what) -> None:
    with pytest.raises(ValueError):
        gguf_file.read(HOSTILE[what])
