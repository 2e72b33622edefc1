"""Many trials: danlu's vectorised program beside one training after another, Optuna with a hand-written loop, Lightning, KerasTuner, Ray.

    python benchmarks/tuning.py                                  all tables; about half an hour on 2 cores
    python benchmarks/tuning.py --tables fashion --against hand --rounds 3
    python benchmarks/tuning.py --optimizer adamw
    python benchmarks/tuning.py --device cuda                    the same on a GPU
    python benchmarks/tuning.py --json

Everyone tries the same values of (learning rate, weight decay, dropout), drawn at random by danlu's
sampler with a fixed seed, on the same rows, with the same network, optimizer, batch size and number
of epochs, and scores each trial after every epoch on the same rows. Each contestant runs in a
process of its own. Slow peers try fewer values (--peer-trials) and their time for all is reckoned
from these, which the table says."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from measuring import Neighbours, machine, machine_line, table
from searches import DATA, SEARCHES, Search, Work

PEERS = ("hand", "lightning", "keras", "ray")
FEW = ("lightning", "keras", "ray")  # too slow to be measured on all trials
OURS = {
    "fashion": ("vectorised", "one_by_one"),
    "adult": ("vectorised", "one_by_one"),
    "width": ("auto", "one_by_one"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tables", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument(
        "--against",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        help="peers of the table fashion",
    )
    parser.add_argument(
        "--on",
        nargs="*",
        choices=("vectorised", "auto", "one_by_one", "processes"),
        help="danlu's own ways; default: two a table",
    )
    parser.add_argument("--optimizer", choices=("momentum", "adamw"), default="momentum")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--trials", type=int, help="fewer trials than a table has: a try, not a measurement"
    )
    parser.add_argument(
        "--rows", type=int, help="fewer rows than the images have: a try, not a measurement"
    )
    parser.add_argument(
        "--peer-trials", type=int, default=4, help="trials of Lightning, KerasTuner and Ray Tune"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="times everyone is measured, in turn; the table gives medians",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--one", nargs=3, metavar=("TABLE", "TUNER", "STYLE"), help=argparse.SUPPRESS
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure(*arguments.one, arguments)
        return
    found, missing, neighbours = [], [], Neighbours()
    with tempfile.TemporaryDirectory(prefix="danlu-tuning-") as folder:
        for name in arguments.tables:
            contestants = _contestants(name, arguments, missing)
            for number in range(arguments.rounds):
                for tuner, style in contestants:
                    _say(f"{name}: {tuner} ({style}), round {number + 1} of {arguments.rounds}")
                    found.append(_in_a_process(name, tuner, style, Path(folder), arguments))
                    _say(
                        f"    {found[-1]['seconds']:.1f} s for {len(found[-1]['scores'])} trials, best {max(found[-1]['scores']):.4f}"
                    )
    result = {
        "machine": machine(),
        "device": arguments.device,
        "cores_used_by_others": neighbours.cores(),
        "measured": found,
        "skipped": missing,
    }
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _search(name: str, arguments: argparse.Namespace) -> Search:
    search = replace(SEARCHES[name], optimizer=arguments.optimizer)
    search = replace(search, trials=arguments.trials or search.trials)
    return (
        replace(search, rows=min(arguments.rows or search.rows, search.rows))
        if search.rows
        else search
    )


def _contestants(
    name: str, arguments: argparse.Namespace, missing: list[str]
) -> list[tuple[str, str]]:
    if name == "adult" and not (DATA / "adult").is_dir():
        missing.append(f"The table adult is skipped: no {DATA / 'adult'}")
        return []
    chosen = [("danlu", on) for on in (OURS[name] if arguments.on is None else arguments.on)]
    for peer in arguments.against if name == "fashion" else ():
        tuner = import_module(f"tuners.{peer}")
        absent = [each for each in tuner.NEEDS if not _installed(each)]
        if absent:
            missing.append(
                f"{tuner.NAME} is skipped: {' and '.join(absent)} not installed (pip install -c constraints.txt -e '.[peers]')"
            )
            _say(missing[-1])
            continue
        chosen += [(peer, style) for style in tuner.STYLES]
    return chosen


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _in_a_process(
    name: str, tuner: str, style: str, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, tuner, style, "--folder", str(folder)]
    for option in ("optimizer", "device", "trials", "rows", "peer_trials"):
        if getattr(arguments, option):
            command += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    result = folder / "one.json"
    result.unlink(missing_ok=True)
    # waiting threads sleep, for everyone: on a machine that others use as well, spinning costs them
    # all Ray's workers import `searches` and `tuners` from here
    here = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {
        "OMP_WAIT_POLICY": "passive",
        **os.environ,
        "DANLU_CACHE": str(folder / "cache"),
        "PYTHONPATH": here,
    }
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


# --- inside the process of one contestant


def _measure(name: str, tuner: str, style: str, arguments: argparse.Namespace) -> None:
    from tuners.danlu import values_of

    search, contestant = _search(name, arguments), import_module(f"tuners.{tuner}")
    few = tuner in FEW
    trials = min(arguments.peer_trials, search.trials) if few else search.trials
    home = arguments.folder / name
    work = Work(search, home, arguments.device)
    values = values_of(work)[:trials]
    if tuner != "danlu":
        _ = work.tensors
    if few and tuner != "ray":  # what only the first trial pays would weigh too much in four
        contestant.run(_tiny(work), style, values[:1])
    tuned = contestant.run(work, style, values)
    told = {
        "table": name, "said": search.said, "trials": search.trials, "epochs": search.epochs, "batch_size": search.batch_size,
        "optimizer": search.optimizer, "tuner": tuner, "name": contestant.NAME, "style": style, "style_said": contestant.STYLES[style],
        "version": metadata.version(contestant.NEEDS[-1] if tuner == "lightning" else contestant.NEEDS[0]), **asdict(tuned),
    }  # fmt: skip
    (arguments.folder / "one.json").write_text(json.dumps(told))


def _tiny(work: Work) -> Work:
    """The same on a few rows."""
    tiny = Work(work.search, work.folder, work.device)
    tiny.tensors = tuple(each[: 2 * work.batch_size] for each in work.tensors)  # type: ignore[assignment]
    return tiny


# --- the table


def _report(result: dict[str, Any]) -> str:
    lines = ["# Tuning", "", machine_line(result["machine"], result["cores_used_by_others"]), ""]
    if result["device"] != "cpu":
        lines[-1:] = [f"Trained on {_graphics()}.", ""]
    for name in dict.fromkeys(each["table"] for each in result["measured"]):
        lines += _table([each for each in result["measured"] if each["table"] == name])
    styles = [
        f"* {each['name']} {each['version']}, {each['style']}: {each['style_said']}"
        for each in result["measured"]
    ]
    lines += [*dict.fromkeys(styles), ""]
    lines += [
        "~: reckoned from the trials measured (a start, and so many seconds a trial). A ratio above 1 means that the first row is faster; medians",
        "over the rounds, in brackets the lowest and highest. CPU seconds count all processes of the contestant (those of Ray's cluster cannot be",
        "counted). First row's best of these: its best validation accuracy among the trials that this row tried.",
        *result["skipped"],
    ]
    return "\n".join(lines)


def _graphics() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a GPU"


def _table(measured: list[dict[str, Any]]) -> list[str]:
    first = measured[0]
    ours = [
        each
        for each in measured
        if (each["tuner"], each["style"]) == (first["tuner"], first["style"])
    ]
    rows = []
    for tuner, style in dict.fromkeys((each["tuner"], each["style"]) for each in measured):
        rows.append(
            _row(
                [each for each in measured if (each["tuner"], each["style"]) == (tuner, style)],
                ours,
            )
        )
    head = [
        "who", "trials measured", "seconds a trial", "seconds for all", "trials a minute", "its time / first row's", "its CPU time / first row's",
        "best validation accuracy", "first row's best of these",
    ]  # fmt: skip
    said = (
        f"{first['trials']} trials of (learning rate, weight decay, dropout), {first['optimizer']}, {first['epochs']} "
        f"epoch{'s' if first['epochs'] > 1 else ''} each, batches of {first['batch_size']}, {len(ours)} round{'s' if len(ours) > 1 else ''}."
    )
    return [f"## {first['table']}: {first['said']}", "", said, "", table(head, rows), ""]


def _row(mine: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    """Of one contestant: all its rounds beside those of the first row."""
    one = mine[0]
    trials, measured = one["trials"], len(one["scores"])
    about = "~" if measured < trials else ""
    seconds = statistics.median(map(_wall, mine))
    cpu = [_cpu(each) for each in mine]
    best, same = max(map(_best, mine)), max(max(_known(each["scores"][:measured])) for each in ours)
    return [
        f"{one['name']}, {one['style'].replace('_', ' ')}", str(measured), f"{seconds / trials:.3f}", f"{about}{seconds:.1f}",
        f"{about}{trials * 60 / seconds:.1f}", _ratio([_wall(each) / _wall(own) for each, own in zip(mine, ours)]),
        "-" if None in cpu else _ratio([each / (_cpu(own) or math.nan) for each, own in zip(cpu, ours)]),  # type: ignore[operator]
        f"{best:.4f}", f"{same:.4f}",
    ]  # fmt: skip


def _known(scores: list[float | None]) -> list[float]:
    return [score for score in scores if score is not None] or [math.nan]


def _best(one: dict[str, Any]) -> float:
    return max(_known(one["scores"]))


def _for_all(one: dict[str, Any], took: float) -> float:
    """What all trials take, from what those measured took."""
    return one["start"] + (took - one["start"]) * one["trials"] / len(one["scores"])


def _wall(one: dict[str, Any]) -> float:
    return _for_all(one, one["seconds"])


def _cpu(one: dict[str, Any]) -> float | None:
    return None if one["cpu"] is None else _for_all({**one, "start": 0.0}, one["cpu"])


def _ratio(found: list[float]) -> str:
    middle = f"{statistics.median(found):.2f}"
    return middle if len(found) == 1 else f"{middle} ({min(found):.2f}..{max(found):.2f})"


if __name__ == "__main__":
    main()
