"""Recipes made to do harm, through every verb that reads one, without any permission: python tests/faults/hostile_recipes.py [--only WORD] [--share 1]

Each names an address, a database, a path, a link, code or a size that its author chose. Every verb
runs in a process of its own, under an audit hook and bounds on time and memory; real listeners
count who connects to them, and the kernel (inotify) watches the folder `outside`, so that what a C
library does is seen too. Nothing may be connected to, executed, read or written outside of the
working folder and the data that the recipe names; each verb ends with 0 (the hostile part was never
used), or with a message and exit code 2, 3 or 4, within 2 s of processor time and 200 MiB."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hostile_artifacts
from hostile_artifacts import live_in, waited, watched

VERBS = ("check", "train", "tune", "compare", "verify-resume")
CPU_SECONDS = 2.0
MEBIBYTES = 200
_BOUND = 60.0  # seconds of a clock; on a busy machine much longer than the processor's
_BASE: dict[str, Any] = {
    "task": "classification",
    "data": {"source": {"name": "csv", "path": "rows.csv"}, "target": "kind", "checks": "off"},
    "model": {"name": "mlp", "hidden": [4]},
    "train": {"steps": 2, "batch_size": 16, "threads": 1, "least_steps": 0},
    "metrics": ["accuracy"],
}
_SPACE = {"optimizer.learning_rate": [0.01, 0.1]}
_TUNE = {"space": _SPACE, "trials": 1, "sampler": "random", "on": "one_by_one"}


@dataclass(frozen=True)
class Hostile:
    """A recipe's text; `verbs` are those that it goes through."""

    name: str
    text: str
    verbs: tuple[str, ...] = VERBS


@dataclass
class Found:
    """What a verb did with a recipe. `wrong` is empty where nothing was."""

    name: str
    verb: str
    code: int
    said: str
    wrong: list[str]
    cpu: float
    mebibytes: int


# --- the recipes


def recipe(**sections: Any) -> str:
    return json.dumps({**_BASE, "tune": _TUNE, **sections})


def tuned(**tune: Any) -> str:
    return recipe(tune={**_TUNE, **tune})


def hostile_recipes(outside: Path, port: int) -> list[Hostile]:
    """All of them. `port` is that of the listener; `outside` holds what nobody may touch."""
    made = [
        *_clusters(port),
        *_servers(port, outside),
        *_files(outside),
        *_paths(outside, port),
        *_code(outside),
        *_names(outside),
        *_sizes(),
    ]
    assert len({each.name for each in made}) == len(made)
    return made


def _clusters(port: int) -> Iterator[Hostile]:
    hosts = (
        f"127.0.0.1:{port}",
        f"localhost:{port}",
        f"[::1]:{port}",
        "192.0.2.1:6379",
        f"0:{port}",
    )
    forms = ("{}", "ray://{}", "http://{}", "https://{}", "grpc://{}", "ray:////{}", "os://{}")
    for host, form, on in itertools.product(hosts, forms, ("ray", "auto")):
        address = form.format(host)
        yield Hostile(f"cluster {address} on {on}", tuned(address=address, on=on))
    for address in (
        "auto",
        "anyscale://x",
        "evil_module://x",
        "ray://",
        "../x",
        "/tmp/ray",
        "x" * 9000,
    ):
        yield Hostile(f"cluster {address[:40]}", tuned(address=address, on="ray"))


def _servers(port: int, outside: Path) -> Iterator[Hostile]:
    secret = outside / "secret.txt"
    options = {
        "postgresql": (
            "", "?sslmode=disable", "?service=evil", f"?passfile={secret}", f"?sslkey={secret}",
            f"?sslcert={secret}", f"?sslrootcert={secret}", "?options=-c%20x", "?hostaddr=127.0.0.1",
            f"?host=127.0.0.1&port={port}", "?plugin=evil_module", f"?servicefile={secret}",
            f"?host={outside}", "?gsslib=x", "?requiressl=1", f"?sslcrl={secret}",
        ),
        "mysql": (
            "", "?local_infile=1", f"?read_default_file={secret}", "?init_command=DROP", f"?ssl_ca={secret}",
            f"?ssl_key={secret}", f"?unix_socket={outside}/socket", "?charset=utf8&local_infile=1",
            "?client_flag=128", "?plugin=evil_module", "?auth_plugin_map=x", f"?ssl_capath={outside}",
            "?LOCAL_INFILE=1", "?%6cocal_infile=1", "?conv=x", "?binary_prefix=1",
        ),
    }  # fmt: skip
    for kind, tails in options.items():
        for number, tail in enumerate(tails):
            url = f"{kind}://u:p@127.0.0.1:{port}/x{tail}"
            yield Hostile(f"server {number} {url}", tuned(storage=url))
    drivers = ("psycopg", "psycopg2", "asyncpg", "pg8000", "pymysql", "mysqldb", "aiomysql", "evil")
    for kind, driver in itertools.product(options, drivers):
        url = f"{kind}+{driver}://u:p@127.0.0.1:{port}/x"
        yield Hostile(f"driver {url}", tuned(storage=url))
    for url in (
        f"redis://127.0.0.1:{port}", f"oracle://127.0.0.1:{port}/x", f"mssql+pyodbc://127.0.0.1:{port}/x",
        f"postgres://127.0.0.1:{port}/x", f"mariadb://127.0.0.1:{port}/x", f"http://127.0.0.1:{port}/x",
        f"grpc://127.0.0.1:{port}", f"journal://{outside}/x", f"postgresql://127.0.0.1:{port},[::1]:{port}/x",
        f"postgresql://[::1]:{port}/x", f"mysql://localhost:{port}/x", f"POSTGRESQL://127.0.0.1:{port}/x",
        f"postgresql:///host=127.0.0.1 port={port}", f"mysql://127.0.0.1:{port}/a\u2028b", "mysql://u:p@/x",
        f"postgresql://127.0.0.1:{port}/" + "{0.__class__}", "postgresql://" + "a" * 50_000,
    ):  # fmt: skip
        yield Hostile(f"url {url[:60]}", tuned(storage=url))


def _files(outside: Path) -> Iterator[Hostile]:
    for number, file in enumerate(
        (
            f"{outside}/study.sqlite", f"{outside}/new/deep/study.sqlite", f"{outside}/victim.sqlite",
            "../outside/victim.sqlite", "../outside/new.sqlite", "studies/r/../../../outside/x.sqlite",
            "studies/r/link.sqlite", "studies/r/dangling.sqlite", "studies/r/folder/x.sqlite",
            "studies/r/loop/x.sqlite", "elsewhere.sqlite", "/proc/self/mem", "/dev/full", "/dev/shm/x.sqlite",
            f"file:{outside}/x.sqlite", f"file:{outside}/x.sqlite?mode=rwc&uri=true", ":memory:", "",
            f"{outside}/x.sqlite?uri=true", f"{outside}/pipe", "a\0b", "~/x.sqlite", f"{outside}/secret.txt",
            "studies/r/./../s/x.sqlite", "%2e%2e/outside/x.sqlite", "{0.__class__}", "studies/r/" + "a" * 5000,
            "/" * 9000 + "x",
        )
    ):  # fmt: skip
        yield Hostile(f"sqlite {number} {file[:50]!r}", tuned(storage=f"sqlite:///{file}"))
    for form in (
        "sqlite://",
        "sqlite+aiosqlite:///",
        "sqlite+pysqlcipher:///",
        "sqlite:",
        "SQLITE:///",
    ):
        yield Hostile(f"sqlite form {form}", tuned(storage=f"{form}{outside}/x.sqlite"))


def _paths(outside: Path, port: int) -> Iterator[Hostile]:
    web = f"127.0.0.1:{port}"
    for scheme in (
        "http",
        "https",
        "ftp",
        "s3",
        "gs",
        "hdfs",
        "hf",
        "file",
        "jar",
        "sftp",
        "abfs",
        "memory",
    ):
        for suffix in ("csv", "parquet"):
            source = f"{scheme}://{web}/rows.{suffix}"
            yield Hostile(f"source {source}", recipe(data={**_BASE["data"], "source": source}))
    for name in ("jsonl", "images", "audio", "idx", "numpy", "text", "conll", "parallel_text"):
        source = {"name": name, "path": f"http://{web}/x"}
        yield Hostile(f"source {name} by http", recipe(data={**_BASE["data"], "source": source}))
    for path in (
        f"http://{web}/m",
        "someone/evil",
        "../outside",
        f"//{web}/x",
        "hf://someone/evil",
    ):
        for download in (True, False):
            model = {"name": "pretrained", "path": path, "download": download}
            yield Hostile(f"pretrained {path} {download}", recipe(model=model))
    for key, model in {
        "weights": {"name": "mlp", "hidden": [4], "weights": f"http://{web}/w"},
        "keras": {"name": "keras", "path": f"http://{web}/m.keras"},
        "keras file": {"name": "keras", "path": "smb://x/m.keras"},
        "weights of the Hub": {"name": "pretrained", "weights": "someone/evil"},
    }.items():
        yield Hostile(f"model {key}", recipe(model=model))
    tokenizer = {"name": "tokenize", "kind": "file", "tokenizer": f"http://{web}/t.json"}
    yield Hostile("tokenizer", recipe(data={**_BASE["data"], "transforms": {"text": [tokenizer]}}))
    for student in (f"http://{web}/r.yaml", "s3://x/r.yaml", "no/such.yaml"):
        steps = [{"name": "distill", "student": student}]
        yield Hostile(f"student {student}", recipe(compress=steps), ("check", "tune"))


def _code(outside: Path) -> Iterator[Hostile]:
    for target in (
        "os:system", "evil_module:Evil", "subprocess:Popen", "builtins:exec", "evil_module.sub:Evil", "pty:spawn",
        "../evil:x", "evil_module", "__main__:x", "torch:load",
    ):  # fmt: skip
        model = {"name": "python", "object": target, "options": {"args": "touch PWNED"}}
        yield Hostile(f"object {target}", recipe(model=model))
        yield Hostile(f"searched object {target}", tuned(space={"model": [model, "mlp"]}))
    for key, _shelf in (
        ("model", ""),
        ("loss", ""),
        ("optimizer", ""),
        ("schedule", ""),
        ("task", ""),
    ):
        for name in ("evil_module", "../../evil_module", "os.system", "__init__", "_base"):
            yield Hostile(f"{key} named {name}", recipe(**{key: name}))
    text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in _BASE.items())
    payload = f"touch {outside}/PWNED"
    for number, tag in enumerate(
        (
            f'!!python/object/apply:os.system ["{payload}"]', "!!python/name:os.system", "!!python/module:evil_module",
            f'!!python/object/new:os.system ["{payload}"]', "!!python/object:evil_module.Evil {}", "!evil {}",
            f"!include {outside}/secret.txt", f"!!binary {outside}", "!!js/function x", "${jndi:ldap://127.0.0.1/x}",
            "{{7*7}}", "$(touch PWNED)", "`touch PWNED`", "%TAG ! tag:evil", "<<: *x",
        )
    ):  # fmt: skip
        yield Hostile(f"tag {number} {tag[:30]}", f"{text}\nname: {tag}\n")


def _names(outside: Path) -> Iterator[Hostile]:
    for name in (
        "../outside", "..", ".", "/tmp/x", str(outside), "a/../../outside", "-rf", "a\0b", "a\nb", "con", "r\u202ex",
        "x" * 200, "", " ", "~", "$HOME", "%00", "..\\outside",
    ):  # fmt: skip
        yield Hostile(f"name {name[:30]!r}", recipe(name=name))
    for key in (
        "run",
        "out",
        "logs",
        "storage",
        "address",
        "env",
        "include",
        "extends",
        "hooks",
        "working_dir",
    ):
        yield Hostile(f"key {key}", recipe(**{key: f"{outside}/x"}))
    for watcher in ("tensorboard", "samples", "jsonl"):
        for option in ("path", "folder", "url", "address"):
            watchers = [{"name": watcher, option: f"{outside}/x"}]
            yield Hostile(f"watcher {watcher}.{option}", recipe(watchers=watchers))


def _sizes() -> Iterator[Hostile]:
    text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in _BASE.items())
    yield Hostile("90,000 digits", f"{text}\nname: {'9' * 90_000}\n")
    yield Hostile("a long number", f"{text}\nloss: {{name: focal, gamma: {'9' * 80_000}}}\n")
    yield Hostile("a long key", f"{text}\n{'k' * 80_000}: 1\n")
    yield Hostile("deep lists", f"{text}\nname: {'[' * 30_000}{']' * 30_000}\n")
    yield Hostile("deep mappings", f"{text}\nname: {'{a: ' * 9000}1{'}' * 9000}\n")
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    yield Hostile("a bomb of aliases", f"{bomb}{text}\n")
    yield Hostile("3,000 unknown keys", text + "\n" + "".join(f"key{n}: 1\n" for n in range(3000)))
    yield Hostile("6,000 choices", tuned(space={"optimizer.learning_rate": list(range(1, 6001))}))
    yield Hostile("2,000 dimensions", tuned(space={f"model.x{n}": [1, 2] for n in range(2000)}))
    yield Hostile("a million bytes", text + "\n#" + "x" * 1_000_000)
    yield Hostile("too many trials", tuned(trials=10**9))
    yield Hostile("too many workers", tuned(workers=10**9, on="processes"), ("check", "train"))
    for name, model in {
        "wide": {"name": "mlp", "hidden": [10**9]},
        "wide pair": {"name": "mlp", "hidden": [1_000_000, 1_000_000]},
        "deep": {"name": "mlp", "hidden": [1] * 20_000},
    }.items():
        yield Hostile(f"model {name}", recipe(model=model), ("check",))
    for option, value in {
        "batch_size": 10**18, "steps": 10**30, "epochs": 1e300, "threads": 10**9, "micro_batch": -1, "keep": 10**9,
        "seed": 2**70, "folds": 10**6, "clip_norm": 1e999, "device": "cuda:9" * 1000,
    }.items():  # fmt: skip
        yield Hostile(
            f"train.{option}", recipe(train={**_BASE["train"], option: value}), ("check",)
        )


# --- a verb in a process of its own


def act(verb: str, file: str) -> None:
    """What the command line does; the name of the recipe is r."""
    from danlu.cli import app

    more = {"compare": ["--rates", "1", "--seeds", "1"], "verify-resume": ["--kills", "1"]}
    sys.argv = ["danlu", verb, file, *more.get(verb, [])]
    app.main()


def prepare(home: Path) -> None:
    """The data, and the folder `outside` that nobody may touch."""
    rows = [f"{n % 7},{n % 5},{'ab'[n % 2]}" for n in range(60)]
    (home / "rows.csv").write_text("x,y,kind\n" + "\n".join(rows) + "\n")
    outside = home / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (outside / "victim.sqlite").write_bytes(b"")
    os.mkfifo(outside / "pipe")


def readable(home: Path) -> list[str]:
    """Where a verb may read: Python and its libraries, and the machine's own facts."""
    return [*hostile_artifacts.allowed(home), str(home / "cache"), "/etc/passwd"]


def sandbox_of(home: Path) -> Path:
    """A working folder with data, and with links that lead out of it."""
    sandbox = Path(tempfile.mkdtemp(prefix="sandbox-", dir=home))
    shutil.copy(home / "rows.csv", sandbox)
    (sandbox / "evil_module.py").write_text(f"{hostile_artifacts.MARK} = open('PWNED', 'w')\n")
    study = sandbox / "studies" / "r"
    (study / ".owners").mkdir(parents=True)  # as danlu's own study has it
    (study / "link.sqlite").symlink_to(home / "outside" / "victim.sqlite")
    (study / "dangling.sqlite").symlink_to(home / "outside" / "new.sqlite")
    (study / "folder").symlink_to(home / "outside")
    (study / "loop").symlink_to(study / "loop")
    return sandbox


def run(hostile: Hostile, verb: str, home: Path) -> Found:
    """A verb in a forked process."""
    sandbox = sandbox_of(home)
    (sandbox / "r.yaml").write_text(hostile.text, "utf-8", "surrogatepass")
    log, events = sandbox / "log", sandbox / "events"
    process = os.fork()
    if process == 0:
        _child(verb, home, sandbox)
    code, usage = waited(process, _BOUND)
    wrong: list[str] = json.loads(events.read_text()) if events.exists() else ["it died"]
    wrong, facts = wrong[:-1], wrong[-1:]
    grown = int(facts[0]) if facts and facts[0].isdigit() else 0
    text = log.read_text("utf-8", "replace")
    cpu = usage.ru_utime + usage.ru_stime
    wrong += facts if not grown and facts != ["0"] else []
    wrong += ["a traceback"] if "Traceback" in text else []
    wrong += [f"exit code {code}"] if code not in (0, 2, 3, 4) else []
    wrong += ["no message"] if code and not text.strip() else []
    wrong += [f"{cpu:.1f} s of the processor"] if cpu > CPU_SECONDS else []
    wrong += [f"{grown} MiB"] if grown > MEBIBYTES else []
    wrong += ["the payload ran"] if list(sandbox.rglob("PWNED")) else []
    shutil.rmtree(sandbox, ignore_errors=True)
    return Found(hostile.name, verb, code, text.strip()[-300:], wrong, cpu, grown)


def _child(verb: str, home: Path, sandbox: Path) -> NoReturn:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def grown() -> list[str]:
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return [str(max(now - before, 0) // 1024)]

    live_in(
        sandbox,
        lambda: act(verb, "r.yaml"),
        memory=4 << 30,
        may_read=readable(home),
        cpu_seconds=20,
        facts=grown,
    )


@contextlib.contextmanager
def listener() -> Iterator[tuple[int, Any]]:
    """(port, a function that counts the connections so far) of listeners on 127.0.0.1 and ::1."""
    sockets = [socket.socket(socket.AF_INET), socket.socket(socket.AF_INET6)]
    sockets[0].bind(("127.0.0.1", 0))
    port = sockets[0].getsockname()[1]
    with contextlib.suppress(OSError):  # a machine without IPv6
        sockets[1].bind(("::1", port))
    for each in sockets:
        with contextlib.suppress(OSError):
            each.listen(64)
            each.setblocking(False)

    def count() -> int:
        found = 0
        for each in sockets:
            with contextlib.suppress(OSError):
                while True:
                    each.accept()[0].close()
                    found += 1
        return found

    try:
        yield port, count
    finally:
        for each in sockets:
            each.close()


def warm(home: Path) -> None:
    """Import what the verbs need, and use it once, so that each process begins with it."""
    import torch

    torch.set_num_threads(1)
    sandbox = sandbox_of(home)
    (sandbox / "r.yaml").write_text(recipe(name="warm"))
    out = io.StringIO()
    with (
        contextlib.chdir(sandbox),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        os.environ["DANLU_CACHE"] = str(home / "cache")
        for verb in ("check", "train", "tune", "compare"):
            with contextlib.suppress(SystemExit):
                act(verb, "r.yaml")
    shutil.rmtree(sandbox, ignore_errors=True)


def attack(hostile: Hostile, home: Path, connections: Any) -> list[Found]:
    """Every verb that reads the recipe; one that trains several times only where it is refused."""
    found: list[Found] = []
    for verb in hostile.verbs:
        if verb == "verify-resume" and found and found[0].code == 0:
            continue
        with watched(home / "outside") as asked:
            each = run(hostile, verb, home)
            each.wrong += asked()
        each.wrong += [f"{count} connections"] if (count := connections()) else []
        found.append(each)
    return found


def main() -> int:
    """All recipes; exit code 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--only", default="", help="recipes whose name holds this word")
    parser.add_argument("--share", type=int, default=1, help="every so many recipes only")
    wish = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="danlu-hostile-recipes-"))
    prepare(home)
    warm(home)
    began, found = time.monotonic(), []
    with listener() as (port, connections):
        chosen = [
            each for each in hostile_recipes(home / "outside", port) if wish.only in each.name
        ][:: wish.share]
        for hostile in chosen:
            for each in attack(hostile, home, connections):
                found.append(each)
                if each.wrong:
                    print(
                        f"{each.verb} {each.name}: {'; '.join(each.wrong)}: {each.said}", flush=True
                    )
    print(_summary(len(chosen), found, time.monotonic() - began))
    shutil.rmtree(home, ignore_errors=True)
    return 1 if any(each.wrong for each in found) else 0


def _summary(recipes: int, found: Sequence[Found], seconds: float) -> str:
    codes = ", ".join(
        f"{count} x {code}" for code, count in sorted(Counter(each.code for each in found).items())
    )
    wrong = sum(bool(each.wrong) for each in found)
    return (
        f"{recipes} recipes, {len(found)} runs in {seconds:.0f} s: {wrong} wrong; exit codes {codes}; at most "
        f"{max((each.cpu for each in found), default=0):.2f} s of the processor, "
        f"{max((each.mebibytes for each in found), default=0)} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
