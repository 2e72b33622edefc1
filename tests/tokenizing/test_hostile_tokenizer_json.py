"""A tokenizer.json that would do harm is refused, by its text or by a trial in another process."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'")

from danlu.errors import DataError
from danlu.tokenizing import pattern_cost, tokenizer_trial
from danlu.tokenizing.pattern_cost import check_pattern
from danlu.tokenizing.tokenizer_file import FileTokenizer
from danlu.tokenizing.tokenizer_json import check_tokenizer

WORDS = {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "likes": 2}, "unk_token": "[UNK]"}
SOUND: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": WORDS,
}  # fmt: skip


def split(pattern: str) -> dict[str, Any]:
    return {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
    }


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def character_map(data: bytes) -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": text}}


def written(folder: Path, changes: dict[str, Any]) -> str:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**SOUND, **changes}))
    return str(path)


@pytest.mark.parametrize("pattern", sorted(pattern_cost.KNOWN))
def test_the_expressions_of_published_tokenizers_are_cheap(pattern: str) -> None:
    assert check_pattern(pattern)
    pattern_cost._Parser(pattern).read()  # also without the list


@pytest.mark.parametrize(
    "pattern",
    [
        r"[一-龥ࠀ-一가-퟿]+", r"(?:\r\n)+", r"[[:alpha:]&&[^a]]+x", r"(?i:'s|'t)?\p{L}{2,5}",
        r"\p{Han}|[^\r\n]?\p{L}+(?!\S)", "a{2}b{,3}", r"\{+", "[]a]+", "a{b",
    ],
)  # fmt: skip
def test_other_harmless_expressions_are_tried(pattern: str) -> None:
    assert not check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$", "(l+i*k*)+$", "(a|a)*b", "(?:a|aa)+$", "(.*a){25}", r"(x+x+)+y", "(a?){30}a{30}",
        "a?" * 30 + "a" * 30, r"(\w+)\1", r"(?<n>a)\g<n>", "(?~abc)", "(*FAIL)", "(?x)a#(", "((((",
        "a)", "[a", r"\p{L", r"\s*\s*\s*x", "(a{0,70}){0,70}", "(" * 40 + ")" * 40, "a" * 5000,
        "(?:(?:a{1,10}){1,10}){1,10}", "(?(1)a|b)",
    ],
)  # fmt: skip
def test_an_expression_that_may_take_exponential_time_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^(repeats|has|leaves|closes|is|refers|calls)"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (split("(l+)+$"), r"pre_tokenizer\.pattern\.Regex repeats a group"),
        ({"normalizer": {"type": "Sequence", "normalizers": [replace("e", "e" * 1000)] * 3}},
         "normalizer makes up to 1,000,000,000 letters of one"),
        ({"normalizer": replace("", "x")}, "a String or a Regex that is not empty"),
        ({"normalizer": replace("e", "e" * 5000)}, r"normalizer\.content has 5,000 letters"),
        ({"model": {**WORDS, "vocab": {"a": 10**9}}}, "gives 'a' the code 1000000000"),
        ({"model": {**WORDS, "vocab": {"a": True}}}, "gives 'a' the code True"),
        ({"model": {**WORDS, "vocab": {"a": 1, "b": 1}}}, "two tokens the same code"),
        ({"model": {**WORDS, "vocab": {"a" * 9000: 1}}}, "more than 8,192 letters"),
        ({"model": {**WORDS, "vocab": 5}}, r"model\.vocab must be a mapping"),
        ({"model": None}, "model must be a mapping"),
        ({"model": {**WORDS, "unk_token": 5}}, r"model\.unk_token must be a text"),
        ({"model": {**WORDS, "max_input_chars_per_word": 10**12}}, "max_input_chars_per_word"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}}, "dropout"),
        ({"model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}}, r"model\.unk_id"),
        ({"model": {"type": "Unigram", "vocab": [["a", "x"]]}}, "pieces and their scores"),
        ({"added_tokens": [{"id": 10**9, "content": "x"}]}, r"added_tokens\.0\.id"),
        ({"added_tokens": [{"id": 3, "content": ""}]}, r"added_tokens\.0\.content"),
        ({"added_tokens": [5]}, r"added_tokens\.0 must be a mapping"),
        (character_map(bytes(6)), "no map of characters"),
        (character_map(b"\xff" * 40), "no map of characters"),
        (character_map(bytes(8) + b"y" * 999), "makes 999 bytes of one character"),
        ({"decoder": {"type": "Strip", "content": "a", "start": 10**9, "stop": 0}}, "start"),
    ],
)  # fmt: skip
def test_a_file_that_does_harm_is_refused_with_its_key(changes, message, tmp_path) -> None:
    with pytest.raises(DataError, match=rf"tokenizer\.json: this is no tokenizer.*{message}"):
        FileTokenizer.read(written(tmp_path, changes))


def test_steps_inside_each_other_are_bounded(tmp_path) -> None:
    step: dict[str, Any] = {"type": "NFC"}
    for _ in range(90):
        step = {"type": "Sequence", "normalizers": [step]}
    with pytest.raises(DataError, match="normalizer is nested too deeply"):
        FileTokenizer.read(written(tmp_path, {"normalizer": step}))


def test_a_file_of_known_steps_starts_no_process(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert check_tokenizer(SOUND)
    assert FileTokenizer.read(written(tmp_path, {})).size == 8


def test_a_file_that_ends_the_process_that_reads_it_ends_a_trial(tmp_path) -> None:
    """The first four bytes say that the trie has 16, whose offsets lead far beyond it."""
    trie = struct.pack("<5I", 16, *[0xFFFFFFFF] * 4) + b"ab\0"
    path = written(tmp_path, character_map(trie))
    try:
        FileTokenizer.read(path)
    except DataError as error:
        assert "this is no tokenizer that can be read" in str(error)


def test_a_trial_ends_at_its_limit_of_memory(monkeypatch) -> None:
    vocabulary = {f"{'x' * 4000}{number}": number for number in range(200)}
    harmful = {
        **SOUND,
        "normalizer": {"type": "Sequence", "normalizers": [replace("a", "a" * 1000)] * 4},
        "model": {**WORDS, "vocab": {**vocabulary, "[UNK]": 900}},
    }
    with pytest.raises(ValueError, match=r"ended the process that read it|takes|too long|memory"):
        tokenizer_trial.refuse_harmful(json.dumps(harmful))


def test_a_file_that_passed_a_trial_is_not_tried_again(tmp_path, monkeypatch) -> None:
    path = written(tmp_path, split("[a-z]+x?"))
    assert FileTokenizer.read(path).size == 8
    monkeypatch.setattr(subprocess, "Popen", None)
    assert FileTokenizer.read(path).size == 8


def test_tokens_around_a_text_are_none_of_the_file(tmp_path) -> None:
    from danlu.tokenizing.tokenizer import as_column

    twice = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
        "pair": [],
        "special_tokens": {},
    }
    tokenizer = FileTokenizer.read(written(tmp_path, {"post_processor": twice}))
    codes, _ = tokenizer.encode(as_column(["a likes a"]))
    assert len(codes) == 3
