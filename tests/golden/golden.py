"""What make_golden.py and the tests of this folder share: paths, running danlu, comparing results.

Sums of floats depend on the processor (the width of its vector units) and on the versions of the
libraries. So results are equal to the last bit where this machine computes as the one does that
wrote the folder (made_on.json), and close elsewhere:

    answers         1e-4 relative            a compressed model's, whose roundings jump: 2e-2
    loss curves     1e-3 relative            in bfloat16: 5e-2

Elsewhere, scores that count rows (accuracy, ...) are not compared, nor texts, since one row or
one letter may tip over, and all that follows it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPES, CURVES, STORED = HERE / "recipes", HERE / "curves", HERE / "stored"
SEARCHES = ("search", "search_together")
TRAININGS = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem not in SEARCHES)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
VECTORS = ("sse", "avx", "fma", "amx")  # how flags of vector units begin
ANSWERS, LOSSES = 1e-4, 1e-3
COARSE = {"ensemble": 5e-2, "compressed": 2e-2}  # tolerances of what rounds on its way, by name
# of a report, what is compared on every machine
MEASURED = ("step", "epoch", "split", "loss", "generator_loss", "learning_rate")


# --- which machine


def machine() -> dict[str, Any]:
    """All that decides the last bits of a sum."""
    import torch

    facts = _cpuinfo()
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "kind": [facts.get(name, "") for name in ("cpu family", "model", "cache size")],
        "vectors": sorted(flag for flag in flags if flag.startswith(VECTORS)),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "versions": {name: _version(name) for name in ("torch", "numpy", "onnxruntime")},
    }


def _cpuinfo() -> dict[str, str]:
    """What Linux knows of its first processor; {} elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def is_the_same_machine() -> bool:
    """Whether the last bits of what danlu computes here must be those that are stored."""
    return machine() == read(HERE / "made_on.json")


# --- running danlu


def prepared_home(folder: Path) -> Path:
    """A folder to run commands in: recipes, their data and the questions, all by relative paths."""
    for name in ("recipes", "data", "questions"):
        shutil.copytree(HERE / name, folder / name)
    return folder


def environment(home: Path) -> dict[str, str]:
    """The environment of a command, with a cache of its own."""
    return {**os.environ, **ONE_THREAD, "DANLU_CACHE": str(home / "cache")}


def typed(*words: str | Path, home: Path, stdin: str = "") -> str:
    """What a danlu command that succeeds prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "danlu", *map(str, words)],
        cwd=home,
        env=environment(home),
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, (
        f"danlu {' '.join(map(str, words))} ended with {ended.returncode}:\n{ended.stderr}"
    )
    return ended.stdout


def curve(run: Path) -> dict[str, Any]:
    """What a finished run is judged by: every report of metrics.jsonl, the hash of its weights."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return {
        "weights": sha256(run / "artifact" / "weights.safetensors"),
        "metrics": [json.loads(line) for line in lines],
    }


def trials_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials in what `danlu tune --json` prints, without the seconds they took."""
    own = ("number", "values", "state", "scores", "steps", "curve", "cause")
    facts = ("best_step", "parameters", "scores")
    return [
        {
            **{name: trial[name] for name in own},
            "facts": {name: trial["facts"][name] for name in facts if name in trial["facts"]},
        }
        for trial in result["trials"]
    ]


# --- comparing


def differences(now: Any, then: Any, tolerance: float = 0.0, path: str = "") -> Iterator[str]:
    """What differs between two trees of plain data.

    Numbers may differ by `tolerance`: relative, and absolute where they are below 1.
    """
    if isinstance(now, dict) and isinstance(then, dict):
        if now.keys() != then.keys():
            yield f"{path}: the names are {sorted(now)}, and were {sorted(then)}"
        for name in now.keys() & then.keys():
            yield from differences(now[name], then[name], tolerance, f"{path}.{name}")
    elif isinstance(now, list | tuple) and isinstance(then, list | tuple):
        if len(now) != len(then):
            yield f"{path}: there are {len(now)}, and were {len(then)}"
        for number, (one, other) in enumerate(zip(now, then)):
            yield from differences(one, other, tolerance, f"{path}[{number}]")
    elif not _equal(now, then, tolerance):
        yield f"{path}: {now!r}, and was {then!r}"


def _equal(now: Any, then: Any, tolerance: float) -> bool:
    numbers = [
        isinstance(value, int | float) and not isinstance(value, bool) for value in (now, then)
    ]
    if tolerance and all(numbers):
        return math.isclose(now, then, rel_tol=tolerance, abs_tol=tolerance)
    return now == then and type(now) is type(then)


def refuse_differences(now: Any, then: Any, tolerance: float = 0.0) -> None:
    """AssertionError that names the first of what differs."""
    lines = list(differences(now, then, tolerance))
    assert not lines, f"{len(lines)} differences, the first: " + "\n".join(lines[:8])


def comparable(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the reports of a training, what another machine must come near to."""
    return [
        {name: value for name, value in report.items() if name in MEASURED} for report in metrics
    ]


def sha256(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text("utf-8"))


def write(path: Path, value: Any) -> None:
    """A JSON file; lists of its first level stand one entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(name)}: {_laid_out(entry)}" for name, entry in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")


def _laid_out(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)
