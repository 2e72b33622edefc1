"""Cut the power at any moment of what danlu writes, and look what is left: python tests/faults/power_loss.py --states 60

The system calls of a command are recorded by strace. From them the states are made in which a disk
could be if the power were cut after any of them (disk.py): what is not synced is dropped or kept, in
part or as a whole. In each state

* an artifact that was being replaced opens, as it was or as it is to be;
* the same command ends well, and what it leaves has the bytes that an unbroken one leaves."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from disk import NAMES, Disk, cuts, lay_out
from hard_recipes import RECIPES
from in_place_kills import ALREADY, WITHOUT_EXCHANGE, Operation, copies, operations
from lives import Lives, differing, fingerprint, lives, write_recipe
from syscalls import WHY_NOT, danlu, record

IN_PLACE = ("encrypt", "decrypt", "sign", "compress", "export")
WHOLE = ("-xx", "-s", "100000000")  # every byte that is written


def after_training(home: Path, found: Lives, states: int, draw: random.Random) -> list[str]:
    """What is wrong after power cuts in a training."""
    home.mkdir(parents=True)
    recipe = RECIPES["tabular"](home)
    recipe["train"] |= {"steps": 12, "save_every": 3, "keep": 2}
    path, disk_home = write_recipe(home / "recipe.json", recipe), home / "disk"
    disk_home.mkdir()
    disk = Disk(disk_home).load()
    environment = {"DANLU_CACHE": str(home / "cache")}
    done, made = record(
        danlu("train", path, "--run", disk_home / "run", "--quiet"),
        disk_home,
        NAMES,
        WHOLE,
        environment,
    )
    assert done.returncode == 0, done.stderr
    wanted, wrong = fingerprint(disk_home / "run"), list[str]()
    for text, tree in cuts(disk.follow(made), 0, states, draw):
        copy = home / "state"
        lay_out(tree, copy)
        life = found.run("train", path, "--run", copy / "run", "--quiet", code=None)
        if code := life.wait():
            wrong.append(f"train, {text}: the same command ends with {code}: {life.err[-300:]}")
        elif differs := differing(wanted, fingerprint(copy / "run")):
            wrong.append(f"train, {text}: {', '.join(differs)} differ")
        shutil.rmtree(copy)
    return wrong


def after_operation(
    operation: Operation, exchange: bool, home: Path, found: Lives, states: int, draw: random.Random
) -> list[str]:
    """What is wrong after power cuts in what changes an artifact in place."""
    whole, copy = home / f"{operation.name}-disk", home / f"{operation.name}-state"
    shutil.copytree(operation.template, whole)
    disk = Disk(whole).load()
    options = [*WHOLE, *([] if exchange else WITHOUT_EXCHANGE)]
    done, made = record(danlu(*operation.command(whole)), whole, NAMES, options)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(whole)
    wrong: list[str] = []
    for text, tree in cuts(disk.follow(made), 0, states, draw):
        lay_out(tree, copy)
        for secret in copy.glob("*"):
            if secret.is_file():
                secret.chmod(0o600)
        where = f"{operation.name}, exchange={exchange}, {text}"
        if (copy / operation.folder).exists():
            if (state := operation.state(copy)) not in ("old", "new"):
                wrong.append(f"{where}: {state}")
        elif exchange:
            wrong.append(f"{where}: the artifact has no name")
        life = found.run(*operation.command(copy), code=None)
        code = life.wait()
        if code and not any(already in life.err for already in ALREADY):
            wrong.append(f"{where}: the same command ends with {code}: {life.err[-300:]}")
        elif (state := operation.state(copy)) != "new":
            wrong.append(f"{where}: after the same command: {state}")
        elif (left := copies(copy, operation)) and any(
            (copy / name / "mark").stat().st_size for name in left
        ):
            wrong.append(f"{where}: after the same command these are left: {left}")
        shutil.rmtree(copy)
    return wrong


def prove(
    home: Path, found: Lives, states: int, names: Sequence[str], seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:  # fmt: skip
    """So many states of each command of `names`; what is wrong with them."""
    draw, wrong = random.Random(seed), list[str]()
    if "train" in names:
        wrong += after_training(home / "train", found, states, draw)
        say(f"train: {states} states, {len(wrong)} wrong")
    for operation in operations(
        home / "in-place", found, [name for name in IN_PLACE if name in names]
    ):
        for exchange in (True, False):
            wrong += after_operation(operation, exchange, home, found, states // 2, draw)
        say(f"{operation.name}: {states} states, {len(wrong)} wrong so far")
    return wrong


def main() -> int:
    """The full proof; exit code 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--states", type=int, default=60, help="states of each command")
    parser.add_argument("--commands", nargs="+", default=["train", *IN_PLACE])
    parser.add_argument("--seed", type=int, default=0)
    wish = parser.parse_args()
    if WHY_NOT:
        raise SystemExit(WHY_NOT)
    home, began = Path(tempfile.mkdtemp(prefix="danlu-power-")).resolve(), time.monotonic()
    with lives(home / "lives") as found:
        wrong = prove(
            home / "home", found, wish.states, wish.commands, wish.seed,
            lambda text: print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True),
        )  # fmt: skip
    for text in wrong:
        print(f"WRONG {text}")
    print(
        json.dumps(
            {
                "states": wish.states * len(wish.commands),
                "wrong": len(wrong),
                "seconds": round(time.monotonic() - began),
            }
        )
    )
    shutil.rmtree(home)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
