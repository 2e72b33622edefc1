"""How texts are continued: caches, sliding windows, stop strings, whole characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu import registry, tokenizing
from danlu.artifact.generation import TextDecoder
from danlu.layers.generation.autoregressive import Continuation
from danlu.layers.generation.sampling import Sampling
from danlu.terms import END, FIRST_TOKEN, Column, InputSpec, OutputSpec

CODES = 41
PROMPTS = [[END], [END, 7, 8, 9, 10, 11], [END, *range(6, 25)], [END, 30, 31]]


def model(**options: Any) -> nn.Module:
    torch.manual_seed(2)
    inputs = {"tokens": InputSpec("tokens", (16,), cardinalities=(CODES,))}
    config = registry.config("models", "gpt")(size="tiny", width=32, **options)
    module = (
        registry.take("models", "gpt").build(config, inputs, OutputSpec(CODES, per="token")).eval()
    )
    with torch.no_grad():
        for each in (
            module.parameters()
        ):  # sharper than a fresh model: what is drawn then depends on what was read
            each.mul_(3 if each.ndim > 1 else 1)
    return module


class Whole(nn.Module):
    """The same model without a cache."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.inner(inputs)


def written(
    module: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    steps: int = 40,
    **more: Any,
) -> list[list[int]]:
    going = Continuation(module, prompts, 16, sampling, 5, **more)
    for _ in range(steps):
        if not going.step():
            break
    return going.codes


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(0), Sampling(0.7, 9, 0.9, 0.01, 1.2)],
    ids=["plain", "likeliest", "filtered"],
)
def test_a_cache_changes_nothing_even_where_the_window_slides(
    positions: str, sampling: Sampling
) -> None:
    module = model(positions=positions)
    assert written(module, PROMPTS, sampling) == written(Whole(module), PROMPTS, sampling)


def test_a_text_does_not_depend_on_what_is_written_beside_it() -> None:
    module = model()
    together = written(module, PROMPTS, Sampling())
    alone = [
        written(module, [prompt], Sampling(), numbers=[number])[0]
        for number, prompt in enumerate(PROMPTS)
    ]
    assert together == alone


def test_another_seed_or_number_draws_another_text() -> None:
    first, second = written(model(), [PROMPTS[1], PROMPTS[1]], Sampling())
    assert first != second


def test_special_tokens_are_never_drawn_and_the_end_ends() -> None:
    codes = written(model(), PROMPTS, Sampling(temperature=5.0), steps=300)
    for row, prompt in zip(codes, PROMPTS, strict=True):
        drawn = row[len(prompt) :]
        assert (
            drawn[-1] == END
        )  # 41 codes, all about equally likely: 300 draws without END come once in 2,000
        assert all(code >= FIRST_TOKEN for code in drawn[:-1])


def test_the_model_sees_no_more_than_its_context() -> None:
    seen: list[int] = []

    class Watched(Whole):
        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            seen.append(inputs["tokens"].shape[1])
            return super().forward(inputs)

    written(Watched(model()), [[END, *[9] * 50]], Sampling(), steps=60)
    assert max(seen) == 16
    assert min(seen) == 12  # a full row lets go of its first quarter


def test_a_stopped_row_is_left_alone() -> None:
    going = Continuation(model(), PROMPTS, 16, Sampling(0.5, 3), 5)
    going.step()
    going.stop(1)
    length = len(going.codes[1])
    for _ in range(5):
        assert 1 not in going.step()
    assert len(going.codes[1]) == length
    assert written(model(), PROMPTS[:1], Sampling(0.5, 3), steps=6)[0] == going.codes[0]


# --- tokens to text

MIXED = "红楼梦：满纸荒唐言，一把辛酸泪！ “quoted” — naïve 🙂\n\nUSER: done"


def tokenizer(kind: Any) -> Any:
    data = MIXED.encode()
    given = Column(
        "text", "text", np.frombuffer(data, dtype=np.uint8), offsets=np.array([0, len(data)])
    )
    if kind == "bpe":
        pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    return tokenizing.fit(kind, given, 280 if kind == "bpe" else None, min_count=1)


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
def test_pieces_are_whole_characters_and_together_the_text(kind: str) -> None:
    made = tokenizer(kind)
    pen = TextDecoder(made, [END], [])
    pieces = [pen.add(token) for token in made.encode([MIXED])[0].tolist()]
    assert "".join(pieces) + pen.finish("length") == MIXED == pen.written
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_dropped() -> None:
    made = tokenizer("bytes")
    pen = TextDecoder(made, [], [])
    for token in made.encode(["好泪"])[0].tolist()[:-1]:
        pen.add(token)
    pen.finish("length")
    assert pen.written == "好"


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
@pytest.mark.parametrize("stop", ["，一把", "\n\nUSER:", "泪！", "🙂", "满纸", "红"])
def test_a_stop_string_ends_the_text_across_the_borders_of_tokens(kind: str, stop: str) -> None:
    made = tokenizer(kind)
    pen = TextDecoder(made, [], ["never there", stop])
    told = ""
    for token in made.encode([MIXED])[0].tolist():
        told += pen.add(token)
        assert stop not in told
        if pen.ended:
            break
    assert pen.ended == "stop"
    assert told == pen.written == MIXED[: MIXED.index(stop)]


def test_what_only_began_like_a_stop_string_is_told() -> None:
    made = tokenizer("characters")
    pen = TextDecoder(made, [], ["USER: gone"])
    told = "".join(pen.add(token) for token in made.encode([MIXED])[0].tolist())
    assert told == MIXED.removesuffix("USER: done") + "USER: done"
    pen = TextDecoder(made, [], ["done for"])
    told = "".join(pen.add(token) for token in made.encode([MIXED])[0].tolist())
    assert told == MIXED.removesuffix("done")
    assert pen.finish("length") == "done"


def test_words_keep_their_spaces_behind_the_prompt() -> None:
    text = "the cat sat on the mat"
    data = text.encode()
    given = Column(
        "text", "text", np.frombuffer(data, dtype=np.uint8), offsets=np.array([0, len(data)])
    )
    made = tokenizing.fit("words", given, min_count=1)
    codes = made.encode([text])[0].tolist()
    pen = TextDecoder(made, codes[:2], [])
    assert made.decode(codes[:2]) + "".join(pen.add(token) for token in codes[2:]) == made.decode(
        codes
    )
