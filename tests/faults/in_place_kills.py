"""Kill what changes an artifact in place at its system calls, and let them fail: python tests/faults/in_place_kills.py --kills 200 --errors 60

Encrypt, decrypt, sign, and compress and export over an older result: each is run once under strace,
which shows its system calls on the folder. Then it is run again and again, and is killed before one
of them, or one of them fails with ENOSPC, EIO or EACCES; every second time on a system that cannot
exchange two names in one step (renameat2 fails with ENOSYS). After each,

* the artifact is there, as it was or as it is to be, or the next start of danlu finds it again;
* an error was reported, or the work is done and no other copy is left;
* the same command ends well, and no copy is left."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lives import Lives, lives
from syscalls import CHANGING, WHY_NOT, Call, danlu, record, run, touching

from danlu.errors import DanluError
from danlu.system import encryption, signing
from danlu.system.atomic_files import LARGEST_FILE, read_regular, sha256

RECIPE = {
    "task": "classification",
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"},
    "train": {"steps": 2},
}
ERRORS = ("ENOSPC", "EIO", "EACCES")
FAILING = [name for name in CHANGING if name != "flock"]
WITHOUT_EXCHANGE = ("-e", "inject=renameat2:error=ENOSYS")
ALREADY = ("it is encrypted already", "it is not encrypted")


@dataclass
class Operation:
    """A command that changes `folder`, in a home that `template` is copied to. `state` gives what
    the folder is: "old", "new", or what is wrong with it."""

    name: str
    template: Path
    arguments: Sequence[str]  # @ stands for the home
    folder: str
    state: Callable[[Path], str]
    calls: list[Call] = field(default_factory=list[Call])

    def command(self, home: Path) -> list[str]:
        return in_home(self.arguments, home)


@dataclass
class Count:
    """What happened so far. `wrong` must stay empty."""

    kills: int = 0
    errors: int = 0
    missed: int = 0
    undone: int = 0  # the artifact had no name until the next start
    empty: int = 0  # folders without a copy that a kill left
    by_operation: dict[str, int] = field(default_factory=dict[str, int])
    wrong: list[str] = field(default_factory=list[str])


def in_home(arguments: Sequence[str], home: Path) -> list[str]:
    """Arguments with a home in place of each @."""
    return [argument.replace("@", f"{home}/") for argument in arguments]


# --- the operations


def operations(home: Path, found: Lives, names: Sequence[str]) -> list[Operation]:
    """The operations of these names, with artifacts to work on."""
    base = home / "base"
    base.mkdir(parents=True)
    recipe = base / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    found.run("train", recipe, "--run", base / "run", "--quiet")
    shutil.rmtree(base / "run" / "checkpoints")
    encryption.new_key(base / "key")
    signing.new_signing_key(base / "signer")
    return [getattr(sys.modules[__name__], f"_{name}")(home, base, found) for name in names]


def _encrypt(home: Path, base: Path, found: Lives) -> Operation:
    plain = contents(base / "run" / "artifact", base / "key")
    return Operation(
        "encrypt", base, ("encrypt", "@run", "--key-file", "@key"), "run/artifact",
        partial(_encrypted_state, plain=plain[1], before=False),
    )  # fmt: skip


def _decrypt(home: Path, base: Path, found: Lives) -> Operation:
    template = home / "encrypted"
    shutil.copytree(base, template)
    found.run("encrypt", template / "run", "--key-file", template / "key")
    plain = contents(template / "run" / "artifact", template / "key")
    return Operation(
        "decrypt", template, ("decrypt", "@run", "--key-file", "@key"), "run/artifact",
        partial(_encrypted_state, plain=plain[1], before=True),
    )  # fmt: skip


def _sign(home: Path, base: Path, found: Lives) -> Operation:
    template = home / "signed"
    shutil.copytree(base, template)
    signing.new_signing_key(template / "earlier")
    found.run("sign", template / "run", "--signing-key", template / "earlier")

    def state(home: Path) -> str:
        for name, key in (("new", "signer.pub"), ("old", "earlier.pub")):
            try:
                signing.verify_signature(home / "run", home / key)
                return name
            except DanluError as error:
                said = str(error)
                if "was added after the folder was signed" in said and "signature.json" in said:
                    return "old"  # what a killed writer left in the folder; the same command removes it
        return f"the signature is lost: {said}"

    return Operation(
        "sign", template, ("sign", "@run", "--signing-key", "@signer"), "run/artifact", state
    )


def _compress(home: Path, base: Path, found: Lives) -> Operation:
    return _written_again(
        home, base, found, "compress",
        ("compress", "@run", "--with", "int8_weight_only:smallest=1", "--out", "@out", "--quiet"),
        ("compress", "@run", "--with", "prune:share=0.5,epochs=0.5", "--out", "@out", "--quiet"),
    )  # fmt: skip


def _export(home: Path, base: Path, found: Lives) -> Operation:
    return _written_again(
        home, base, found, "export",
        ("export", "@run", "--to", "safetensors", "--out", "@out"),
        ("export", "@run", "--to", "torch_export", "--out", "@out"),
    )  # fmt: skip


def _written_again(
    home: Path, base: Path, found: Lives, name: str, command: Sequence[str], earlier: Sequence[str]
) -> Operation:
    """A result that is written over an earlier one. Two exports by safetensors differ in the order
    of their metadata, so they are told apart by their exporter, and proven by their checksums."""
    template = home / name
    shutil.copytree(base, template)
    hashes = []
    for arguments in (command, earlier):
        found.run(*in_home(arguments, template))
        hashes.append(contents(template / "out", template / "key")[1])

    def state(home: Path) -> str:
        now = contents(home / "out", home / "key")[1]
        if name == "export":
            return _export_state(home / "out", now)
        return "new" if now == hashes[0] else "old" if now == hashes[1] else "the result is lost"

    return Operation(name, template, command, "out", state)


def _export_state(folder: Path, hashes: dict[str, str]) -> str:
    sums = dict(
        reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    if sums != {file: value for file, value in hashes.items() if file != "SHA256SUMS"}:
        return "files of the export are lost"
    return "new" if "model.safetensors" in hashes else "old"


def contents(folder: Path, key: Path) -> tuple[bool, dict[str, str]]:
    """(whether the files are encrypted, the SHA-256 of each one's plain bytes)."""
    hashes, encrypted = {}, False
    with encryption.override_key(encryption.read_key(key, None) or encryption.Key(b"")):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                encrypted |= encryption.is_encrypted(path.read_bytes()[:64])
                hashes[str(path.relative_to(folder))] = sha256(read_regular(path, LARGEST_FILE))
    return encrypted, hashes


def _encrypted_state(home: Path, plain: dict[str, str], before: bool) -> str:
    encrypted, hashes = contents(home / "run" / "artifact", home / "key")
    if hashes != plain:
        return f"files are lost or changed: {sorted(hashes)}"
    return "old" if encrypted == before else "new"


# --- a life


def copies(home: Path, operation: Operation) -> list[str]:
    """Names beside and in the folder that no operation has to leave, but for empty ones."""
    folder = home / operation.folder
    return [
        str(path.relative_to(home))
        for place in (folder.parent, folder)
        if place.is_dir()
        for path in place.iterdir()
        if path.name.startswith(".") and path.name != ".held" and _holds_data(path)
    ]


def _holds_data(path: Path) -> bool:
    return any(inner.is_file() and inner.name != "mark" for inner in path.rglob("*"))


def points(operation: Operation, home: Path, found: Lives) -> list[Call]:
    """The system calls of one unbroken life on the folder that is changed."""
    copy = home / f"{operation.name}-whole"
    shutil.copytree(operation.template, copy)
    for _ in range(2):  # the first one may write Python's own cache
        shutil.rmtree(copy)
        shutil.copytree(operation.template, copy)
        done, made = record(danlu(*operation.command(copy)), home, environment=found.environment)
    assert done.returncode == 0, done.stderr
    assert operation.state(copy) == "new" and not copies(copy, operation)
    folder = (copy / operation.folder).parent
    first = touching(made, folder)
    [main] = {call.pid for call in first if call.name.startswith("rename")}
    shutil.rmtree(copy)
    return [call for call in first if call.pid == main]


def one_life(
    operation: Operation,
    call: Call,
    error: str,
    exchange: bool,
    home: Path,
    found: Lives,
    count: Count,
) -> None:
    """Kill the operation before a call, or let the call fail with `error`; look; run it again."""
    copy = home / f"{operation.name}-life"
    shutil.copytree(operation.template, copy)
    what = f"error={error}" if error else "signal=KILL"
    options = [
        "-e",
        f"trace={','.join(CHANGING)}",
        "-e",
        f"inject={call.name}:{what}:when={call.ordinal}",
    ]
    if not exchange and call.name != "renameat2":
        options += WITHOUT_EXCHANGE
    done = run(danlu(*operation.command(copy)), *options, cwd=home, environment=found.environment)
    where = f"{operation.name} {call.name} {call.ordinal} {error or 'KILL'} exchange={exchange}"

    def wrong(text: str) -> None:
        count.wrong.append(f"{where}: {text}")

    if not error and done.returncode not in (-9, 137):
        count.missed += 1
        if done.returncode:
            wrong(f"exit code {done.returncode}: {done.stderr[-300:]}")
        shutil.rmtree(copy)
        return
    count.kills += not error
    count.errors += bool(error)
    count.by_operation[operation.name] = count.by_operation.get(operation.name, 0) + 1
    if "Traceback" in done.stderr:
        wrong(f"a traceback: {done.stderr[-600:]}")
    if not (copy / operation.folder).exists():
        if exchange or error:
            wrong("the artifact has no name")
        count.undone += 1
    elif (state := operation.state(copy)) not in ("old", "new"):
        wrong(state)
    elif error:
        if done.returncode == 0 and (state != "new" or copies(copy, operation)):
            wrong(f"silent: {state}, {copies(copy, operation)}")
        if done.returncode and not done.stderr.strip():
            wrong("an exit code without a word")
    again = found.run(*operation.command(copy), code=None)
    ended = again.wait()
    if ended and not any(text in again.err for text in ALREADY):
        wrong(f"the same command ends with {ended}: {again.err[-300:]}")
    elif operation.state(copy) != "new":
        wrong(f"after the same command: {operation.state(copy)}")
    elif left := copies(copy, operation):
        wrong(f"after the same command these are left: {left}")
    count.empty += sum(
        path.is_dir() and path.name.startswith(".") for path in (copy / operation.folder).parent.iterdir()
    )  # fmt: skip
    shutil.rmtree(copy)


def chosen(
    subjects: Sequence[Operation], draw: random.Random, failing: bool
) -> Iterator[tuple[Operation, Call, bool]]:
    """Operations and calls, without end: each call of an operation once before any is repeated.
    What takes a tenth of the time is taken ten times as often."""
    rest: dict[str, list[Call]] = {}
    turn = 0
    while True:
        heavy = [each for each in subjects if each.name in ("compress", "export")]
        quick = [each for each in subjects if each not in heavy]
        operation = draw.choice(heavy if heavy and (turn % 10 == 9 or not quick) else quick)
        if not rest.get(operation.name):
            rest[operation.name] = [
                call for call in operation.calls if not failing or call.name in FAILING
            ]
            draw.shuffle(rest[operation.name])
        yield operation, rest[operation.name].pop(), turn % 2 == 0
        turn += 1


def prove(
    home: Path, found: Lives, kills: int, errors: int, names: Sequence[str], seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Count:  # fmt: skip
    """So many kills and errors over the operations."""
    subjects = operations(home, found, names)
    for subject in subjects:
        subject.calls = points(subject, home, found)
        say(f"{subject.name}: {len(subject.calls)} system calls on its folder")
    count, draw = Count(), random.Random(seed)
    for operation, call, exchange in chosen(subjects, draw, failing=False):
        if count.kills >= kills or count.missed > 20 + kills // 4:
            break
        one_life(operation, call, "", exchange, home, found, count)
        if count.kills % 20 == 0:
            say(f"{count.kills} kills, {len(count.wrong)} wrong")
    for number, (operation, call, exchange) in enumerate(chosen(subjects, draw, failing=True)):
        if count.errors >= errors:
            break
        one_life(operation, call, ERRORS[number % 3], exchange, home, found, count)
    return count


def main() -> int:
    """The full proof; exit code 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--errors", type=int, default=60)
    parser.add_argument(
        "--operations", nargs="+", default=["encrypt", "decrypt", "sign", "compress", "export"]
    )
    parser.add_argument("--seed", type=int, default=0)
    wish = parser.parse_args()
    if WHY_NOT:
        raise SystemExit(WHY_NOT)
    home, began = Path(tempfile.mkdtemp(prefix="danlu-in-place-")), time.monotonic()
    with lives(home / "lives") as found:
        count = prove(
            home, found, wish.kills, wish.errors, wish.operations, wish.seed,
            lambda text: print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True),
        )  # fmt: skip
    for text in count.wrong:
        print(f"WRONG {text}")
    print(
        json.dumps(
            {**vars(count), "wrong": len(count.wrong), "seconds": round(time.monotonic() - began)}
        )
    )
    shutil.rmtree(home)
    return 1 if count.wrong or count.kills < wish.kills else 0


if __name__ == "__main__":
    sys.exit(main())
