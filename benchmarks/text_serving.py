"""Tokens per second with continuous batching: one text alone, and 8 and 32 texts of unequal length
that arrive one after another.

    python benchmarks/text_serving.py            a gpt of 10.8 M weights (small: 6 layers, 384 wide); about 3 minutes of one core
    python benchmarks/text_serving.py --size nano --tokens 100
    python benchmarks/text_serving.py --json

The model is not trained, because the cost of a token does not depend on its value. Prompts have 8 to
128 tokens, texts a quarter to the whole of --tokens. The engine is compared with two servers without
it: `danlu.generate` for one text after another, and one fixed batch of all texts, in which short
texts wait for the longest and no text can join. The speed of one request is its tokens divided by
the time from its arrival to its end. Seconds are processor seconds of this process on one thread,
which depend little on the load of the machine."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import Neighbours, machine, machine_line, table

AT_ONCE = (1, 8, 32)
RECIPE = """
task: {{name: language_modeling, context: {context}, samples: 0}}
data:
  source: {{name: text, path: text.txt}}
  transforms: {{text: [{{name: tokenize, kind: bytes}}]}}
  checks: off
model: {{name: gpt, size: {size}}}
train: {{steps: 1, batch_size: 2, threads: 1, precision: float32}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--size", choices=("tiny", "nano", "small"), default="small")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=160, help="tokens of the longest text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory(prefix="danlu-texts-") as folder, contextlib.chdir(folder):
        os.environ["DANLU_CACHE"] = str(Path(folder) / "cache")
        artifact = _model(arguments)
        measurements = [
            _measured(artifact, count, arguments)
            for _ in range(arguments.repeats)
            for count in AT_ONCE
        ]
    rows = [
        _row(
            count, [measurement for measurement in measurements if measurement["at_once"] == count]
        )
        for count in AT_ONCE
    ]
    result = {
        "machine": machine(), "cores_used_by_others": neighbours.cores(), "size": arguments.size, "context": arguments.context,
        "tokens": arguments.tokens, "repeats": arguments.repeats, "rows": rows,
    }  # fmt: skip
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _model(arguments: argparse.Namespace) -> Any:
    import torch

    import danlu

    torch.set_num_threads(1)
    Path("text.txt").write_text("And the moon was bright. " * 2000, "utf-8")
    Path("texts.yaml").write_text(
        RECIPE.format(size=arguments.size, context=arguments.context), "utf-8"
    )
    with contextlib.redirect_stderr(io.StringIO()):
        return danlu.train("texts.yaml")


def _requests(count: int, arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    chance = random.Random(count)
    return [
        (
            "".join(
                chance.choices("abcdefgh ", k=chance.randint(8, min(128, arguments.context // 2)))
            ),
            {"max_tokens": chance.randint(arguments.tokens // 4, arguments.tokens), "seed": number},
        )
        for number in range(count)
    ]


def _measured(artifact: Any, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    requests = _requests(count, arguments)
    engine, shares = _by_engine(artifact, requests)
    measured = {
        "at_once": count,
        "engine": engine,
        "share": shares,
        "one_by_one": _one_by_one(artifact, requests),
        "batch": _as_batch(artifact, requests),
    }
    print(f"{count} at once: {measured}", file=sys.stderr)
    return measured


def _by_engine(artifact: Any, requests: list[tuple[str, dict[str, Any]]]) -> tuple[float, float]:
    """(tokens a second of all, median of each request's own)."""
    from danlu.serving.text.engine import Engine

    engine = Engine(artifact)
    began, tokens, shares = time.process_time(), 0, []
    for number, (prompt, options) in enumerate(requests):
        engine.submit(number, engine.encode({"prompt": prompt}), options)
    while engine.busy:
        for event in engine.step():
            tokens += len(event.codes)
            if event.ended:
                shares.append(event.tokens / (time.process_time() - began))
    return tokens / (time.process_time() - began), statistics.median(shares)


def _one_by_one(artifact: Any, requests: list[tuple[str, dict[str, Any]]]) -> float:
    import danlu

    requests = requests[:8]  # of more the speed is the same
    began = time.process_time()
    tokens = sum(
        danlu.generate(artifact, prompt, **options)[0].tokens for prompt, options in requests
    )
    return tokens / (time.process_time() - began)


def _as_batch(artifact: Any, requests: list[tuple[str, dict[str, Any]]]) -> float:
    """All prompts to the length of the longest; only what was asked counts."""
    import danlu

    most = max(options["max_tokens"] for _, options in requests)
    began = time.process_time()
    texts = danlu.generate(artifact, [prompt for prompt, _ in requests], max_tokens=most)
    seconds = time.process_time() - began
    return (
        sum(
            min(text.tokens, options["max_tokens"])
            for text, (_, options) in zip(texts, requests, strict=True)
        )
        / seconds
    )


def _row(count: int, repetitions: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {
        name: statistics.median(repetition[name] for repetition in repetitions)
        for name in ("engine", "share", "one_by_one", "batch")
    }
    return {"at_once": count, **medians, "times": medians["engine"] / medians["one_by_one"]}


def _report(result: dict[str, Any]) -> str:
    lines = [
        [
            str(row["at_once"]),
            *(f"{row[name]:,.0f}" for name in ("engine", "share", "batch", "one_by_one")),
            f"{row['times']:.2f}",
        ]
        for row in result["rows"]
    ]
    heads = [
        "texts at once",
        "engine, tokens/s",
        "one request gets",
        "one fixed batch",
        "one by one",
        "engine / one by one",
    ]
    return "\n".join(
        [
            "# Texts at once",
            "",
            machine_line(result["machine"], result["cores_used_by_others"]),
            "",
            f"gpt {result['size']}, context {result['context']}, one thread, float32, seconds of the processor;"
            f" texts of up to {result['tokens']} tokens, prompts of 8 to 128;"
            f" median of {result['repeats']}.",
            "",
            table(heads, lines),
        ]
    )


if __name__ == "__main__":
    main()
