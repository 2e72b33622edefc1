"""What text_cnn and bag_of_embeddings see of a text, and what joins it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from danlu import registry
from danlu.errors import PartError
from danlu.layers.text.pooled import BagOfWords, ConvolvedText
from danlu.recipe import Part
from danlu.terms import InputSpec, OutputSpec

TOKENS = InputSpec("tokens", (9,), cardinalities=(50,))


def built(name: str, inputs: dict[str, InputSpec] | None = None, **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = registry.config("models", name).model_validate(options)
    return registry.build_model(
        Part(name, config), inputs or {"tokens": TOKENS}, OutputSpec(2, ("a", "b"))
    ).eval()


def outputs(module: torch.nn.Module, *rows: list[int]) -> torch.Tensor:
    longest = max(map(len, rows))
    with torch.no_grad():
        return module(
            {
                "tokens": torch.tensor(
                    [[*row, *[0] * (longest - len(row))] for row in rows]
                ).reshape(len(rows), longest)
            }
        )


def test_a_bag_of_words_does_not_see_their_order_and_one_of_runs_does() -> None:
    words, pairs = built("bag_of_embeddings", longest=1), built("bag_of_embeddings", longest=2)
    one, other = [7, 8, 9, 10], [10, 8, 7, 9]
    a, b = outputs(words, one, other)
    torch.testing.assert_close(a, b)  # sums in another order
    a, b = outputs(pairs, one, other)
    assert (a - b).abs().max() > 1e-3


def test_runs_of_words_are_hashed_alike_wherever_they_stand_and_never_reach_beyond_a_row() -> None:
    bag = next(
        module
        for module in built("bag_of_embeddings", longest=3, buckets=1000).modules()
        if isinstance(module, BagOfWords)
    )
    found = bag._hashed(torch.tensor([[7, 8, 9, 0], [5, 7, 8, 9]]))
    pairs, triples = found[:, :4], found[:, 4:]
    assert (
        pairs[0].tolist()[2:] == [0, 0]
        and pairs[1, 3] == 0
        and triples[0].tolist()[1:] == [0, 0, 0]
    )
    assert (
        pairs[0, 0] == pairs[1, 1] and pairs[0, 1] == pairs[1, 2] and triples[0, 0] == triples[1, 1]
    )
    every = bag._hashed(torch.randint(1, 50_000, (200, 50)))
    assert int(every[every != 0].min()) >= 1 and int(every.max()) <= 999
    counts = torch.bincount(every[every != 0], minlength=1000)[1:].float()
    assert counts.std() < 1.5 * counts.mean().sqrt(), (
        "as even as chance: Poisson's deviation is the root of the mean"
    )


def test_filters_find_a_phrase_wherever_it_stands_and_in_rows_shorter_than_they_are() -> None:
    text = next(
        module
        for module in built("text_cnn", widths=[3]).modules()
        if isinstance(module, ConvolvedText)
    )
    with torch.no_grad():
        alone, early, late = text(
            torch.tensor([[0, 0, 0, 0, 0, 0], [7, 8, 9, 5, 5, 5], [5, 5, 7, 8, 9, 5]])
        )
        assert text(torch.tensor([[7]])).abs().sum() > 0
    assert not alone.any()
    strongest = early > 0
    assert (
        torch.equal(early[strongest & (early == late)], late[strongest & (early == late)])
        and (early == late).float().mean() > 0.3
    )


@pytest.mark.parametrize("name", ["text_cnn", "bag_of_embeddings"])
def test_texts_are_read_apart_and_joined_with_numbers_categories_and_an_image(name: str) -> None:
    inputs = {
        "numbers": InputSpec("numbers", (3,)),
        "categories": InputSpec("categories", (2,), cardinalities=(4, 5)),
        "image": InputSpec("image", (3, 13, 17)),
        "tokens.title": TOKENS,
        "tokens.body": InputSpec("tokens", (30,), cardinalities=(90,)),
    }
    module = built(name, inputs)
    kind = ConvolvedText if name == "text_cnn" else BagOfWords
    assert sum(isinstance(each, kind) for each in module.modules()) == 2
    batch = {
        "numbers": torch.randn(4, 3), "categories": torch.randint(0, 4, (4, 2)), "image": torch.randn(4, 3, 13, 17),
        "tokens.title": torch.randint(1, 50, (4, 5)), "tokens.body": torch.randint(1, 90, (4, 0)),
    }  # fmt: skip
    with torch.no_grad():
        before = module(batch)
        for key in list(inputs)[:4]:
            changed = {**batch, key: batch[key].roll(1, 0)}
            assert (module(changed) - before).abs().max() > 0, key


@pytest.mark.parametrize("name", ["text_cnn", "bag_of_embeddings"])
def test_without_a_text_there_is_nothing_to_read(name: str) -> None:
    with pytest.raises(PartError, match="reads tokens"):
        built(name, {"numbers": InputSpec("numbers", (3,))})
