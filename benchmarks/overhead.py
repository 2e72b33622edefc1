"""Time of danlu's training loop beside a hand-written loop, Lightning, the HF Trainer and Keras.

    python benchmarks/overhead.py                            all cases; about half an hour on 2 cores
    python benchmarks/overhead.py --cases mlp_small --against hand --rounds 9
    python benchmarks/overhead.py --json

Every contestant trains the same network from the same weights on the same batches. Each opponent
has a process of its own, in which danlu and the opponent train in turn: danlu is first in even
rounds and second in odd ones, and an additional first round only warms up. Each ratio compares two
trainings of one round, so that a machine that slows down slows both. Printed are the median and the
range over the rounds."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from cases import CASES, Work, write_images
from measuring import Neighbours, machine, machine_line, spread, table

OPPONENTS = ("hand", "lightning", "transformers", "keras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--against", nargs="+", choices=OPPONENTS, default=list(OPPONENTS))
    parser.add_argument("--styles", nargs="+", choices=("bare", "usual"), default=["bare", "usual"])
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured rounds, without the one that warms up"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads of all contestants; default: as danlu chooses for the case",
    )
    parser.add_argument(
        "--rows", type=int, help="number of training rows, for a quick try; default: all"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--pair", nargs=3, metavar=("CASE", "OPPONENT", "STYLE"), help=argparse.SUPPRESS
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pair:
        _measure(*arguments.pair, arguments)
        return
    pairs, missing, neighbours = [], [], Neighbours()
    with tempfile.TemporaryDirectory(prefix="danlu-overhead-") as folder:
        for case in arguments.cases:
            for opponent, style in _opponents(arguments, missing):
                _say(f"{case}: danlu and {opponent} ({style}), {arguments.rounds} rounds")
                pairs.append(_in_a_process(case, opponent, style, Path(folder), arguments))
    result = {
        "data": pairs[0]["data"] if pairs else "",
        "machine": machine(),
        "cores_used_by_others": neighbours.cores(),
        "pairs": pairs,
        "skipped": missing,
    }
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _opponents(arguments: argparse.Namespace, missing: list[str]) -> list[tuple[str, str]]:
    chosen = []
    for name in arguments.against:
        contestant = import_module(f"contestants.{name}")
        absent = [library for library in contestant.NEEDS if not _installed(library)]
        if absent:
            message = f"{contestant.NAME} is skipped: {' and '.join(absent)} not installed (pip install -c constraints.txt -e '.[peers]')"
            if message not in missing:
                missing.append(message)
                _say(message)
            continue
        chosen += [
            (name, style)
            for style in contestant.STYLES
            if style in arguments.styles or len(contestant.STYLES) == 1
        ]
    return chosen


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _in_a_process(
    case: str, opponent: str, style: str, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--pair",
        case,
        opponent,
        style,
        "--folder",
        str(folder),
        "--rounds",
        str(arguments.rounds),
    ]
    for option in ("threads", "rows"):
        if getattr(arguments, option):
            command += [f"--{option}", str(getattr(arguments, option))]
    result = folder / "pair.json"
    result.unlink(missing_ok=True)
    # danlu's command line lets waiting threads sleep, which helps everyone on a busy machine: so
    # everyone has it
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ, "DANLU_CACHE": str(folder / "cache")}
    ended = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        check=False,
    )
    if ended.returncode or not result.is_file():
        sys.exit(f"{' '.join(command)} failed:\n{ended.stdout[-4000:]}")
    return json.loads(result.read_text())


# --- inside the process of one pair


def _measure(case: str, opponent: str, style: str, arguments: argparse.Namespace) -> None:
    import torch

    chosen = CASES[case]
    chosen = replace(chosen, rows=arguments.rows or chosen.rows)
    data = write_images(arguments.folder / case, chosen.rows)
    work = Work(chosen, arguments.folder / case)
    if arguments.threads:
        work.recipe["train"]["threads"] = arguments.threads
    danlu, other = import_module("contestants.danlu"), import_module(f"contestants.{opponent}")
    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds + 1):
        measured: dict[str, Any] = {}
        for name in ("other", "danlu") if number % 2 else ("danlu", "other"):
            if name == "danlu":
                ours, our_weights = danlu.run(
                    work, "usual"
                )  # leaves torch with the number of threads that danlu chose
                measured["danlu"] = asdict(ours)
            else:
                theirs, their_weights = other.run(work, style)
                measured["other"] = asdict(theirs)
        rounds.append(measured)
    differ = max(
        float((one - another).abs().max())
        for one, another in zip(our_weights, their_weights, strict=True)
    )
    record = {
        "case": case, "description": chosen.description, "opponent": other.NAME, "style": style, "style_description": other.STYLES[style], "data": data,
        "version": metadata.version(other.NEEDS[0]), "threads": torch.get_num_threads(), "steps": work.steps, "epochs": work.epochs,
        "largest_difference_of_weights": differ, "rounds": rounds[1:],
    }  # fmt: skip
    (arguments.folder / "pair.json").write_text(json.dumps(record))


# --- the table


def _report(result: dict[str, Any]) -> str:
    pairs = result["pairs"]
    lines = [
        "# Overhead of the training loop",
        "",
        machine_line(result["machine"], result["cores_used_by_others"]),
        "",
    ]
    for case in dict.fromkeys(pair["case"] for pair in pairs):
        chosen = [pair for pair in pairs if pair["case"] == case]
        first = chosen[0]
        lines += [
            f"## {case}: {first['description']}", "",
            f"{result['data']}, batches of 64, {first['steps']:,} steps in {first['epochs']} epochs a timing, {first['threads']} CPU "
            f"thread{'s' if first['threads'] > 1 else ''}, {len(first['rounds'])} pairs each. danlu logs and saves; see the styles below.", "",
            table(
                ["against", "its ms a step", "danlu's", "its wall time / danlu's", "its CPU time / danlu's", "danlu's overhead, us a step",
                 "in %", "weights differ by"],
                [_row(pair) for pair in chosen],
            ),
            "",
        ]  # fmt: skip
    styles = [
        f"* {pair['opponent']} {pair['version']}, {pair['style']}: {pair['style_description']}"
        for pair in pairs
    ]
    lines += [*dict.fromkeys(styles), ""]
    lines += [
        "Wall time unless it says CPU; medians over the pairs, in brackets the lowest and highest pair. A ratio above 1 means that danlu is faster.",
        *result["skipped"],
    ]
    return "\n".join(lines)


def _row(pair: dict[str, Any]) -> list[str]:
    ours, theirs = ([round_[name] for round_ in pair["rounds"]] for name in ("danlu", "other"))
    steps = pair["steps"]

    def per_step(timings: list[dict[str, Any]]) -> str:
        return f"{spread([each['wall'] / steps * 1e3 for each in timings])[0]:.3f}"

    def ratio(kind: str) -> str:
        middle, low, high = spread([other[kind] / own[kind] for own, other in zip(ours, theirs)])
        return f"{middle:.3f} ({low:.3f}..{high:.3f})"

    extra = spread(
        [(own["wall"] - other["wall"]) / steps * 1e6 for own, other in zip(ours, theirs)]
    )
    share = spread([own["wall"] / other["wall"] - 1 for own, other in zip(ours, theirs)])
    return [
        f"{pair['opponent']} ({pair['style']})", per_step(theirs), per_step(ours), ratio("wall"), ratio("cpu"),
        f"{extra[0]:+.1f} ({extra[1]:+.1f}..{extra[2]:+.1f})", f"{share[0]:+.1%}", f"{pair['largest_difference_of_weights']:.1e}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
