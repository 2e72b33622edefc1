"""BLEU, chrF and ROUGE: the numbers of the libraries that define them."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.errors import MissingExtra, RecipeError
from danlu.parts.metrics.rouge import words
from danlu.parts.tasks._base import HasReferences
from danlu.recipe import Part
from danlu.terms import Batch


class _TaskOfTexts(HasReferences):
    def references(self, batch: Batch) -> list[str]:
        return []


TASK = _TaskOfTexts()
DRAW = np.random.default_rng(5)
WORDS = ["The", "cat", "sat", "on", "a", "mat", "re-read", "it's", "3.5", "dogs", "dog", "x_y"]


def sentences(count: int) -> list[str]:
    return [
        " ".join(DRAW.choice(WORDS, int(size))) + "." * int(size % 2)
        for size in DRAW.integers(0, 15, count)
    ]


PREDICTIONS, REFERENCES = sentences(31), sentences(31)


def compare(
    name: str, predictions: list[str], references: list[str], **options: Any
) -> dict[str, Any]:
    part = Part(name, registry.config("metrics", name)(**options))
    return registry.build_metric(part, TASK).compare(predictions, references)


def test_rouge_is_that_of_the_library_rouge_score() -> None:
    scorers = pytest.importorskip("rouge_score.rouge_scorer")
    logging.getLogger("absl").setLevel(logging.ERROR)
    scorer = scorers.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    rows = [scorer.score(meant, said) for said, meant in zip(PREDICTIONS, REFERENCES)]
    found = compare("rouge", PREDICTIONS, REFERENCES)
    for name in ("rouge1", "rouge2", "rougeL"):
        # both are means of 31 quotients of small whole numbers: equal but for the order of the sum
        assert found[name] == pytest.approx(
            np.mean([row[name].fmeasure for row in rows]), abs=1e-12
        )


def test_rouge_takes_chinese_by_characters() -> None:
    assert words("我爱GPU 3台, très bien") == ["我", "爱", "gpu", "3", "台", "très", "bien"]
    found = compare("rouge", ["我爱北京"], ["我爱南京"])
    assert found["rouge1"] == pytest.approx(3 / 4)
    assert found["rouge2"] == pytest.approx(1 / 3)
    assert found["rougeL"] == pytest.approx(3 / 4)


def test_rouge_of_text_longer_than_a_machine_word() -> None:
    long = [f"w{number}" for number in range(200)]
    found = compare("rouge", [" ".join(long[::2])], [" ".join(long)])
    assert found["rougeL"] == pytest.approx(2 * 100 / 300)


def test_rouge_of_nothing() -> None:
    assert compare("rouge", [""], ["a"]) == {"rouge1": 0, "rouge2": 0, "rougeL": 0}
    assert compare("rouge", [], []) == {"rouge1": None, "rouge2": None, "rougeL": None}


def test_bleu_is_of_the_whole_split_and_carries_its_signature() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    found = compare("bleu", PREDICTIONS, REFERENCES)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES]).score)
    assert found["bleu_signature"].startswith(
        "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    )
    assert compare("bleu", REFERENCES, REFERENCES)["bleu"] == pytest.approx(100)
    assert "case:lc" in compare("bleu", PREDICTIONS, REFERENCES, lowercase=True)["bleu_signature"]


def test_bleu_of_chinese_counts_characters() -> None:
    pytest.importorskip("sacrebleu")
    one, other = ["我们今天去北京的大学"], ["我们今天去南京的大学"]
    assert compare("bleu", one, other, tokenize="13a")["bleu"] < 10
    found = compare("bleu", one, other)
    assert found["bleu"] > 50
    assert "tok:zh" in found["bleu_signature"]


def test_chrf_and_chrf_with_words() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    plain, with_words = (
        compare("chrf", PREDICTIONS, REFERENCES),
        compare("chrf", PREDICTIONS, REFERENCES, word_order=2),
    )
    assert plain["chrf"] == pytest.approx(sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score)
    assert with_words["chrf"] != plain["chrf"]
    assert "nw:2" in with_words["chrf_signature"]


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge"])
def test_a_task_without_text_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="the task has no reference texts"):
        registry.build_metric(Part(name, registry.config("metrics", name)()), SimpleNamespace())


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_missing_library_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, f"sacrebleu.metrics.{name}", None)
    with pytest.raises(MissingExtra, match=r"needs sacrebleu(.|\n)*danlu\[translation\]"):
        compare(name, ["a"], ["a"])
