"""Many texts at once, each as `danlu generate` writes it alone."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
from danlu.errors import ArtifactError, DataError, ServerBusy
from danlu.serving.text.engine import Engine, Event

POEM = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。\nAnd the moon was bright.\n\n"
RECIPE = """
task: {name: language_modeling, context: 24, samples: 0}
data:
  source: {name: text, path: poem.txt}
  transforms: {text: [{name: tokenize, kind: KIND}]}
model: {name: MODEL}
train: {steps: 70, batch_size: 16}
"""
# (prompt, options): of unequal length, some longer than the context, greedy and drawn, with stop
# strings that come and that do not
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("白日", {"temperature": 0, "max_tokens": 50}),
    ("And the moon", {"seed": 1, "temperature": 1.5, "max_tokens": 31}),
    ("", {"seed": 2, "temperature": 1.1, "top_p": 0.9, "max_tokens": 12}),
    ("欲穷千里目，\nAnd", {"seed": 3, "top_k": 5, "max_tokens": 40}),
    ("更", {"seed": 4, "temperature": 1.2, "repetition_penalty": 1.3, "max_tokens": 33}),
    ("m", {"temperature": 0, "stop": ["。", "bright."], "max_tokens": 60}),
    (
        "And",
        {
            "seed": 2**63 - 1,
            "temperature": 0.9,
            "min_p": 0.02,
            "stop": ["not there"],
            "max_tokens": 28,
        },
    ),
    ("白日依山尽", {"seed": 1, "temperature": 1.5, "max_tokens": 1}),
]


def train(folder: Path, model: str, kind: str) -> Any:
    (folder / "poem.txt").write_text(POEM * 120, "utf-8")
    text = RECIPE.replace("MODEL", model).replace("KIND", kind)
    (folder / f"{model[:3]}.yaml").write_text(text)
    with (
        contextlib.chdir(folder),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        patch.setenv("DANLU_CACHE", str(folder / "cache"))
        return danlu.train(f"{model[:3]}.yaml")


@pytest.fixture(scope="module")
def poet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(tmp_path_factory.mktemp("poet"), "gpt, size: tiny, width: 32", "bytes")


@pytest.fixture(scope="module")
def singer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(tmp_path_factory.mktemp("singer"), "rnn, width: 48", "characters")


def finish(engine: Engine) -> list[Event]:
    found = []
    while engine.busy:
        found += engine.step()
    return found


def joined(events: list[Event]) -> dict[Any, tuple[str, str | None, int]]:
    """id -> (text, ended, tokens)."""
    found: dict[Any, tuple[str, str | None, int]] = {}
    for each in events:
        assert found.get(each.id, ("", None, 0))[1] is None, "a text went on after its end"
        found[each.id] = (
            found.get(each.id, ("", None, 0))[0] + each.piece,
            each.ended,
            each.tokens,
        )
    return found


def alone(artifact: Any) -> dict[Any, tuple[str, str | None, int]]:
    texts = [danlu.generate(artifact, prompt, **options)[0] for prompt, options in ASKED]
    return {number: (text.text, text.ended, text.tokens) for number, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("slots", "apart", "piece"), [(32, 0, 128), (3, 0, 5), (2, 3, 7), (1, 1, 1)]
)
def test_a_text_is_as_if_written_alone_whatever_comes_and_goes_beside_it(
    poet: Any, slots: int, apart: int, piece: int
) -> None:
    engine, events = Engine(poet, slots=slots, piece=piece), []
    for number, (prompt, options) in enumerate(ASKED):
        engine.submit(number, engine.encode({"prompt": prompt}), options)
        for _ in range(apart):
            events += engine.step()
    assert joined(events + finish(engine)) == alone(poet)


def test_a_recurrent_network_writes_many_texts_too(singer: Any) -> None:
    engine = Engine(singer, slots=3, piece=4)
    for number, (prompt, options) in enumerate(ASKED):
        engine.submit(number, engine.encode({"prompt": prompt}), options)
    assert joined(finish(engine)) == alone(singer)


class Whole(torch.nn.Module):
    """A model without a cache."""

    def __init__(self, inside: torch.nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, inputs: Any) -> torch.Tensor:
        return self.inside(inputs)


def test_a_model_without_a_cache_reads_its_texts_anew(poet: Any) -> None:
    from dataclasses import replace

    engine = Engine(replace(poet, module=Whole(poet.module)), slots=3)
    assert not engine.has_cache
    for number, (prompt, options) in enumerate(ASKED):
        engine.submit(number, engine.encode({"prompt": prompt}), options)
    assert joined(finish(engine)) == alone(poet)


@pytest.mark.parametrize("after", [1, 13, 30])
def test_another_engine_goes_on_where_one_died_without_a_seam(poet: Any, after: int) -> None:
    first, events = Engine(poet, slots=8), []
    prompts = [first.encode({"prompt": prompt}) for prompt, _ in ASKED]
    for number, (_, options) in enumerate(ASKED):
        first.submit(number, prompts[number], options)
    for _ in range(after):
        events += first.step()
    written: dict[Any, list[int]] = {number: [] for number in range(len(ASKED))}
    for each in events:
        written[each.id] += each.codes
    ended = {each.id for each in events if each.ended}
    second = Engine(poet, slots=2, piece=6)
    for number, (_, options) in enumerate(ASKED):
        if number not in ended:
            second.submit(number, prompts[number], options, written=written[number])
    assert joined(events + finish(second)) == alone(poet)


def test_a_text_of_which_only_the_end_was_not_told_ends_at_once(poet: Any) -> None:
    engine = Engine(poet)
    engine.submit("a", engine.encode({"prompt": "And"}), {"max_tokens": 3}, written=[70, 71, 72])
    (event,) = engine.step()
    assert (event.ended, event.codes, event.tokens) == ("length", (), 3)
    assert not engine.busy


def test_texts_of_one_prompt_and_seed_with_other_numbers_are_those_of_many_prompts(
    poet: Any,
) -> None:
    options = {"temperature": 1.5, "seed": 5, "max_tokens": 20}
    engine = Engine(poet)
    for number in range(3):
        engine.submit(number, engine.encode({"prompt": "And"}), options, number)
    texts = {key: found[0] for key, found in joined(finish(engine)).items()}
    assert texts == {
        number: text.text
        for number, text in enumerate(danlu.generate(poet, ["And"] * 3, **options))
    }
    assert len(set(texts.values())) == 3


def test_a_text_that_is_cancelled_leaves_its_slot_to_the_next(poet: Any) -> None:
    engine = Engine(poet, slots=1)
    for key in ("first", "second", "third"):
        engine.submit(key, engine.encode({"prompt": "白日"}), {"temperature": 0, "max_tokens": 9})
    assert {each.id for each in engine.step()} == {"first"}
    assert engine.cancel("first")
    assert engine.cancel("second")
    assert not engine.cancel("first")
    assert {each.id for each in finish(engine)} == {"third"}


def test_a_long_prompt_does_not_hold_up_the_others(poet: Any) -> None:
    engine = Engine(poet, slots=4, piece=4)
    engine.submit("going", engine.encode({"prompt": "And"}), {"temperature": 0, "max_tokens": 30})
    engine.step()
    engine.submit(
        "long", engine.encode({"prompt": "欲穷千里目，"}), {"temperature": 0, "max_tokens": 3}
    )  # 18 bytes: five pieces
    steps = [{each.id for each in engine.step()} for _ in range(6)]
    assert all("going" in each for each in steps)
    assert "long" not in steps[0] | steps[1] | steps[2]
    assert "long" in steps[5]


def test_the_cache_is_as_large_as_told_and_does_not_grow(poet: Any) -> None:
    engine = Engine(poet, slots=5)
    assert (
        engine.memory == 5 * 24 * 32 * 4 * 2 * 2
    )  # slots, context, width, bytes of a float32, keys and values, layers
    places = [each.data_ptr() for layer in engine.cache.layers for each in layer.values()]
    for number in range(9):
        engine.submit(number, engine.encode({"prompt": "And"}), {"max_tokens": 70})
    finish(engine)
    assert [each.data_ptr() for layer in engine.cache.layers for each in layer.values()] == places
    assert engine.memory == sum(
        each.untyped_storage().nbytes() for layer in engine.cache.layers for each in layer.values()
    )
    assert Engine(poet, memory=3 * engine.memory // 5).slots == 3


def test_what_cannot_fit_is_refused_and_says_why(poet: Any) -> None:
    with pytest.raises(ArtifactError, match="bytes of cache"):
        Engine(poet, slots=5, memory=1000)
    engine = Engine(poet, slots=1, waiting=1, longest=100)
    with pytest.raises(DataError, match="the prompt has 25 tokens, and the model sees 24"):
        engine.encode({"prompt": "a" * 24})
    with pytest.raises(DataError, match="101 tokens are more than the 100 allowed"):
        engine.submit("a", [2], {"max_tokens": 101})
    with pytest.raises(DataError, match=r"top_p"):
        engine.submit("a", [2], {"max_tokens": 2, "top_p": 7.0})
    with pytest.raises(DataError, match="no text"):
        engine.encode({"prompt": ["a"]})
    with pytest.raises(DataError, match="lone surrogate"):
        engine.encode({"prompt": "a\ud800"})
    with pytest.raises(DataError, match="not tuned on conversations"):
        engine.encode({"messages": [{"role": "user", "content": "hi"}]})
    for key in ("a", "b"):
        engine.submit(key, engine.encode({"prompt": "a"}), {"max_tokens": 9})
        engine.step()
    with pytest.raises(ServerBusy, match="texts wait"):
        engine.submit("c", engine.encode({"prompt": "a"}), {"max_tokens": 2})
    assert {each.id for each in finish(engine)} == {"a", "b"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoint_of_hugging_face_writes_many_texts_too(family: str, tmp_path: Path) -> None:
    pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
    )
    pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'"
    )
    import tiny_checkpoints as tiny

    told: dict[str, Any] = {
        "task": {"name": "language_modeling", "context": 24, "samples": 0},
        "data": {
            "source": str(tiny.write_rows(tmp_path / "reviews.jsonl", tiny.sentences())),
            "checks": "off",
        },
        "model": {"name": "pretrained", "path": str(getattr(tiny, family)(tmp_path / family))},
        "train": {"steps": 1, "batch_size": 4},
    }
    with contextlib.redirect_stderr(io.StringIO()):
        artifact = danlu.train(told, tmp_path / "run")
    prompts = [("the film is", 9), ("a", 30), ("", 12), ("dull dull dull film", 25)]
    options = {"temperature": 1.1, "seed": 5}
    want = [
        danlu.generate(artifact, prompt, max_tokens=most, **options)[0].text
        for prompt, most in prompts
    ]
    engine, events = Engine(artifact, slots=3, piece=3), []
    for number, (prompt, most) in enumerate(prompts):
        engine.submit(number, engine.encode({"prompt": prompt}), {**options, "max_tokens": most})
        events += engine.step()
    found = joined(events + finish(engine))
    assert [found[number][0] for number in range(len(prompts))] == want
