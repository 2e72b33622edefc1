"""Flip bits in, and cut off, every file of a checkpoint and of an artifact: python tests/faults/flips.py --flips 2000 --cuts 500

No damage may go unnoticed. If the newer of two checkpoints is damaged, the older one must be loaded,
bit for bit, and a message must name the damaged file. If the only checkpoint or an artifact is
damaged, an error with exit code 4 must name the file."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hard_recipes import RECIPES
from lives import Lives, last_checkpoint, lives, write_recipe

from danlu.errors import ArtifactError, CheckpointError
from danlu.training.checkpoint import Checkpoints


def run_folder(home: Path, found: Lives) -> Path:
    """A finished run with several checkpoints."""
    recipe = RECIPES["tabular"](home)
    recipe["train"] |= {"steps": 8}
    found.run("train", write_recipe(home / "tabular.json", recipe), "--run", home / "run")
    return home / "run"


def damaged(data: bytes, draw: random.Random, cut: bool) -> bytes:
    """The bytes with one bit flipped, or cut off at a random place."""
    if cut:
        return data[: draw.randrange(len(data))]
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def over_every_file(
    folder: Path, trials: int, draw: random.Random, cut: bool, verdict: Callable[[Path], str]
) -> Counter[str]:
    """Damage the files of a folder in turn, ask for the verdict, mend; how often each verdict was
    heard."""
    heard: Counter[str] = Counter()
    files = sorted(folder.iterdir())
    for trial in range(trials):
        path = files[trial % len(files)]
        data = path.read_bytes()
        path.write_bytes(damaged(data, draw, cut))
        try:
            heard[verdict(path)] += 1
        finally:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    return heard


def verdict_on_checkpoints(checkpoints: Path, run_id: str, previous: Any) -> Callable[[Path], str]:
    """What becomes of a run whose newest checkpoint has a damaged file; a verdict that begins with
    SILENT is a fault of danlu."""

    def judge(path: Path) -> str:
        found = Checkpoints(checkpoints, run_id, 2)
        try:
            loaded = found.newest()
        except CheckpointError as error:
            return (
                "exit code 4, file named"
                if error.exit_code == 4 and path.name in str(error)
                else f"SILENT about the file: {error}"
            )
        aside = path.parent.with_name(f"{path.parent.name}.damaged")
        if aside.is_dir():
            aside.rename(path.parent)  # mended by the caller
        if previous is None or loaded is None or not same(loaded, previous):
            return "SILENT load"
        return (
            "the one before it, file named"
            if any(path.name in each for each in found.notices)
            else "SILENT about the file"
        )

    return judge


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints hold the same bits."""
    names = set(one[0])
    equal = names == set(other[0]) and all(
        torch.equal(one[0][name], other[0][name]) for name in names
    )
    return equal and one[1] == other[1]


def verdict_on_artifact(path: Path) -> str:
    """What becomes of an artifact with a damaged file."""
    from danlu import load

    try:
        load(path.parent)
    except ArtifactError as error:
        return (
            "exit code 4, file named"
            if error.exit_code == 4 and path.name in str(error)
            else f"SILENT about the file: {error}"
        )
    return "SILENT load"


def proof(
    run: Path, flips: int, cuts: int, artifact_flips: int, seed: int = 0
) -> dict[str, Counter[str]]:
    """The verdicts on a run folder, by kind of damage."""
    draw = random.Random(seed)
    newest = last_checkpoint(run)
    run_id = json.loads((newest / "checkpoint.json").read_bytes().splitlines()[0])["run"]
    checkpoints = Checkpoints(run / "checkpoints", run_id, 2)
    *_, before, last = checkpoints.steps()
    judge = verdict_on_checkpoints(run / "checkpoints", run_id, checkpoints.read(before))
    result = {
        "flips, one checkpoint before it": over_every_file(newest, flips // 2, draw, False, judge),
        "cuts, one checkpoint before it": over_every_file(newest, cuts // 2, draw, True, judge),
    }
    for step in checkpoints.steps()[:-1]:
        shutil.rmtree(run / "checkpoints" / f"step-{step:010d}")
    alone = verdict_on_checkpoints(run / "checkpoints", run_id, None)
    result |= {
        "flips, the only checkpoint": over_every_file(
            newest, flips - flips // 2, draw, False, alone
        ),
        "cuts, the only checkpoint": over_every_file(newest, cuts - cuts // 2, draw, True, alone),
        "flips, artifact": over_every_file(
            run / "artifact", artifact_flips, draw, False, verdict_on_artifact
        ),
        "cuts, artifact": over_every_file(
            run / "artifact", artifact_flips // 4, draw, True, verdict_on_artifact
        ),
    }
    assert same(checkpoints.read(last), Checkpoints(run / "checkpoints", run_id, 2).newest()), (
        "the mended one loads again"
    )
    return result


def main() -> int:
    """The full proof; exit code 0 where nothing loads in silence."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--artifact-flips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    wish = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="danlu-flips-"))
    with lives(home / "lives") as found:
        run = run_folder(home, found)
    result = proof(run, wish.flips, wish.cuts, wish.artifact_flips, wish.seed)
    shutil.rmtree(home)
    for kind, heard in result.items():
        print(
            f"{kind}: {', '.join(f'{number:,} x {verdict}' for verdict, number in heard.items())}"
        )
    silent = sum(
        number
        for heard in result.values()
        for verdict, number in heard.items()
        if "SILENT" in verdict
    )
    print(
        json.dumps(
            {"damaged": sum(sum(heard.values()) for heard in result.values()), "silent": silent}
        )
    )
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
