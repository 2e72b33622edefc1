"""Time of a search with many trials: danlu's vectorised program and danlu trial by trial, beside
Optuna with a hand-written loop, Lightning, KerasTuner and Ray Tune.

    python benchmarks/tuning.py                                  all tables; about half an hour on 2 cores
    python benchmarks/tuning.py --tables fashion --against hand --rounds 3
    python benchmarks/tuning.py --optimizer adamw
    python benchmarks/tuning.py --device cuda                    the same on a GPU
    python benchmarks/tuning.py --json

All contestants try the same values of learning rate, weight decay and dropout, drawn at random by
danlu's sampler with a fixed seed. Rows, network, optimizer, batch size and number of epochs are the
same, and each trial is scored after every epoch on the same rows. Each contestant runs in a process
of its own. Slow contestants run fewer trials (--peer-trials); their time for all trials is
extrapolated, which the table marks with ~."""

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
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--tables", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument(
        "--against",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        help="contestants of the table fashion",
    )
    parser.add_argument(
        "--on",
        nargs="*",
        choices=("vectorised", "auto", "one_by_one", "processes"),
        help="how danlu runs the trials; default: two ways per table",
    )
    parser.add_argument("--optimizer", choices=("momentum", "adamw"), default="momentum")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--trials", type=int, help="number of trials, for a quick try; default: those of the table"
    )
    parser.add_argument("--rows", type=int, help="number of images, for a quick try; default: all")
    parser.add_argument(
        "--peer-trials", type=int, default=4, help="trials of Lightning, KerasTuner and Ray Tune"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="measurements of each contestant, in turn; the table gives medians",
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
    measurements, missing, neighbours = [], [], Neighbours()
    with tempfile.TemporaryDirectory(prefix="danlu-tuning-") as folder:
        for name in arguments.tables:
            contestants = _contestants(name, arguments, missing)
            for number in range(arguments.rounds):
                for tuner, style in contestants:
                    _say(f"{name}: {tuner} ({style}), round {number + 1} of {arguments.rounds}")
                    measurements.append(_in_a_process(name, tuner, style, Path(folder), arguments))
                    _say(
                        f"    {measurements[-1]['seconds']:.1f} s for {len(measurements[-1]['scores'])} trials, best {max(measurements[-1]['scores']):.4f}"
                    )
    result = {
        "machine": machine(),
        "device": arguments.device,
        "cores_used_by_others": neighbours.cores(),
        "measured": measurements,
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
        absent = [library for library in tuner.NEEDS if not _installed(library)]
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
    record = {
        "table": name, "description": search.description, "trials": search.trials, "epochs": search.epochs, "batch_size": search.batch_size,
        "optimizer": search.optimizer, "tuner": tuner, "name": contestant.NAME, "style": style, "style_description": contestant.STYLES[style],
        "version": metadata.version(contestant.NEEDS[-1] if tuner == "lightning" else contestant.NEEDS[0]), **asdict(tuned),
    }  # fmt: skip
    (arguments.folder / "one.json").write_text(json.dumps(record))


def _tiny(work: Work) -> Work:
    """The same on a few rows."""
    tiny = Work(work.search, work.folder, work.device)
    tiny.tensors = tuple(tensor[: 2 * work.batch_size] for tensor in work.tensors)  # type: ignore[assignment]
    return tiny


# --- the table


def _report(result: dict[str, Any]) -> str:
    lines = ["# Tuning", "", machine_line(result["machine"], result["cores_used_by_others"]), ""]
    if result["device"] != "cpu":
        lines[-1:] = [f"Trained on {_graphics()}.", ""]
    for name in dict.fromkeys(run["table"] for run in result["measured"]):
        lines += _table([run for run in result["measured"] if run["table"] == name])
    styles = [
        f"* {run['name']} {run['version']}, {run['style']}: {run['style_description']}"
        for run in result["measured"]
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
        run for run in measured if (run["tuner"], run["style"]) == (first["tuner"], first["style"])
    ]
    rows = []
    for tuner, style in dict.fromkeys((run["tuner"], run["style"]) for run in measured):
        rows.append(
            _row(
                [run for run in measured if (run["tuner"], run["style"]) == (tuner, style)],
                ours,
            )
        )
    head = [
        "who", "trials measured", "seconds a trial", "seconds for all", "trials a minute", "its time / first row's", "its CPU time / first row's",
        "best validation accuracy", "first row's best of these",
    ]  # fmt: skip
    caption = (
        f"{first['trials']} trials of (learning rate, weight decay, dropout), {first['optimizer']}, {first['epochs']} "
        f"epoch{'s' if first['epochs'] > 1 else ''} each, batches of {first['batch_size']}, {len(ours)} round{'s' if len(ours) > 1 else ''}."
    )
    return [f"## {first['table']}: {first['description']}", "", caption, "", table(head, rows), ""]


def _row(mine: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    """Of one contestant: all its rounds beside those of the first row."""
    one = mine[0]
    trials, measured = one["trials"], len(one["scores"])
    mark = "~" if measured < trials else ""
    seconds = statistics.median(map(_wall, mine))
    cpu = [_cpu(run) for run in mine]
    best, same = max(map(_best, mine)), max(max(_known(run["scores"][:measured])) for run in ours)
    return [
        f"{one['name']}, {one['style'].replace('_', ' ')}", str(measured), f"{seconds / trials:.3f}", f"{mark}{seconds:.1f}",
        f"{mark}{trials * 60 / seconds:.1f}", _ratio([_wall(run) / _wall(own) for run, own in zip(mine, ours)]),
        "-" if None in cpu else _ratio([run / (_cpu(own) or math.nan) for run, own in zip(cpu, ours)]),  # type: ignore[operator]
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


def _ratio(ratios: list[float]) -> str:
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}..{max(ratios):.2f})"


if __name__ == "__main__":
    main()
