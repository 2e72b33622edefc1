"""What danlu's dependencies look up, connect to and write into the home folder, in a network of their own.

    python tests/faults/telemetry.py            every library, a table (2 minutes)

Each library runs through danlu's own verbs, in a network namespace whose only resolver writes down every name that is
asked for and answers 127.0.0.1, and whose only interface is watched packet by packet. The home folder is an empty one.
The controls import a library without danlu: they show that the recorder records.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEW_NETWORK, NEW_MOUNTS, NEW_USER = 0x40000000, 0x00020000, 0x10000000
PRIVATE, RECURSIVE, BIND = 1 << 18, 1 << 14, 1 << 12
NO_NAMESPACE = 77  # the exit code where the system allows none
# Ports that a program asks strangers on; any other port of this machine is its own business (Ray's processes).
PUBLIC_PORTS = (53, 80, 443, 853, 8080)
# Set by continuous integration and by careful users: libraries that are silent because of them prove nothing.
UNSET = (
    "CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "BUILD_ID", "BUILD_NUMBER", "TRAVIS", "GITLAB_CI", "CIRCLECI",
    "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "RAY_USAGE_STATS_ENABLED", "KERAS_HOME", "MPLCONFIGDIR",
    "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
)  # fmt: skip
SECONDS = (
    3  # that a process stays after its work, so that what reports in the background gets its turn
)

TRAIN = """
import danlu
recipe = {"task": "classification", "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"},
          "model": {"name": "mlp", "hidden": [4]}, "train": {"steps": 4}}
danlu.train({**recipe, "watchers": ["tensorboard"]}, run="run")
"""
EXPORT = """
import danlu
danlu.export("run", to="{form}", out="export-{form}")
print(danlu.open_export("export-{form}").predict([{row}]))
"""
ROW = '{"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}'
TUNE = """
import danlu
recipe = {"task": "classification", "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"},
          "model": {"name": "mlp", "hidden": [4]}, "train": {"steps": 4},
          "tune": {"trials": 3, "on": "{on}", "space": {"optimizer.learning_rate": {"low": 0.001, "high": 0.1}}}}
danlu.tune(recipe, study="study-{on}")
danlu.report("study-{on}")
"""


def cases(whole: bool) -> dict[str, str]:
    """The programs, by the name of what they run: those that would report, in one process; or all, one by one."""
    exports = {
        name: EXPORT.replace("{form}", name).replace("{row}", ROW)
        for name in ("onnx", "openvino", "keras")
        if find_spec(name) is not None
    }
    pretrained = (
        "import danlu.layers.pretrained.network, danlu.reading.hugging_face\nimport transformers\n"
    )
    if find_spec("transformers") is None:
        pretrained = ""
    if not whole:
        return {"train, export, answer": "\n".join([TRAIN, *exports.values(), pretrained])}
    return {
        "train (torch, scikit-learn, tensorboard)": TRAIN,
        **exports,
        "transformers": pretrained,
        "tune on processes": TUNE.replace("{on}", "processes"),
        "tune on ray": TUNE.replace("{on}", "ray"),
        "gguf, sacrebleu, soundfile, cryptography": "import danlu, gguf, sacrebleu, soundfile, cryptography",
        "serving": "import danlu.serving.http.app",
    }


CONTROLS = {
    "openvino alone": "import openvino",
    "keras alone": "import os; os.environ['KERAS_BACKEND'] = 'torch'; import keras",
}


@dataclass(frozen=True)
class Record:
    """What one program did: the names it looked up, where it connected to, what lies in its home folder afterwards."""

    code: int
    output: str
    names: list[str]
    addresses: list[str]
    home: list[str]


def record(programs: Mapping[str, str], work: Path) -> dict[str, Record] | None:
    """Run Python programs one after the other in a network of their own, in the folder `work`; None where this system
    allows no such network."""
    asked = work / "programs.json"
    asked.write_text(json.dumps(dict(programs)))
    done = subprocess.run(
        [sys.executable, __file__, "--inside", str(work)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NO_NAMESPACE:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return {
        name: Record(**each)
        for name, each in json.loads((work / "record.json").read_text()).items()
    }


# --- inside the namespace ---------------------------------------------------------------------------------------------


def _enter(work: Path) -> None:
    """Leave the network and the mounts of the system, take loopback up and a resolver of our own."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_NETWORK | NEW_MOUNTS) != 0:
        if libc.unshare(NEW_USER | NEW_NETWORK | NEW_MOUNTS) != 0:
            sys.exit(NO_NAMESPACE)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")

    def mount(source: str, target: str, flags: int) -> None:
        if libc.mount(source.encode(), target.encode(), None, flags, None) != 0:
            sys.exit(NO_NAMESPACE)

    mount("none", "/", RECURSIVE | PRIVATE)
    (work / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (work / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n::1 localhost\n")
    for name in ("resolv.conf", "hosts"):
        mount(str(work / name), os.path.realpath(f"/etc/{name}"), BIND)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        flags = struct.pack("16sH22x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(handle, 0x8914, flags)  # SIOCSIFFLAGS
        # default route by loopback (SIOCADDRT): a packet to any address is sent, and seen
        address = struct.pack("HH4s8x", socket.AF_INET, 0, b"\0" * 4)
        device = ctypes.create_string_buffer(b"lo")
        nothing = (0,) * 8  # up to the metric
        route = struct.pack("L16s16s16sHhLBB3hhPLLH", 0, address, bytes(16), address, 1, *nothing,
                            ctypes.addressof(device), 0, 0, 0)  # fmt: skip
        with contextlib.suppress(OSError):  # names are still recorded
            fcntl.ioctl(handle, 0x890B, route)


class Recorder:
    """A resolver that answers 127.0.0.1 and remembers the names; a listener to all packets of the interface."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.resolver.bind(("127.0.0.1", 53))
        self.packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self.packets.bind(("lo", 0))
        for work in (self._resolve, self._listen):
            threading.Thread(target=work, daemon=True).start()

    def _resolve(self) -> None:
        while True:
            query, asker = self.resolver.recvfrom(4096)
            name, place = _name(query)
            self.names.append(name)
            kind = query[place : place + 2]
            answer = b"\xc0\x0c" + kind + b"\0\1\0\0\0\1\0\4\x7f\0\0\1" if kind == b"\0\1" else b""
            head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
            self.resolver.sendto(head + query[12 : place + 4] + answer, asker)

    def _listen(self) -> None:
        while True:
            packet, (_, _, direction, *_) = self.packets.recvfrom(65_535)
            frame = packet[14:]
            if direction != socket.PACKET_OUTGOING or len(frame) < 40 or frame[0] >> 4 != 4:
                continue
            transport = frame[(frame[0] & 15) * 4 :]
            target, port = socket.inet_ntoa(frame[16:20]), int.from_bytes(transport[2:4], "big")
            starts = frame[9] == 17 or (
                frame[9] == 6 and transport[13] & 0x12 == 0x02
            )  # UDP, or a TCP SYN
            here = target.startswith("127.")
            if starts and port != 53 and (not here or port in PUBLIC_PORTS):
                self.addresses.append(f"{target}:{port}")


def _name(query: bytes) -> tuple[str, int]:
    """(the name that a DNS query asks for, the place behind it)."""
    labels, place = [], 12
    while query[place]:
        labels.append(query[place + 1 : place + 1 + query[place]].decode("ascii", "replace"))
        place += 1 + query[place]
    return ".".join(labels), place + 1


def _inside(work: Path) -> None:
    _enter(work)
    recorder = Recorder()
    (work / "folder").mkdir()
    results: dict[str, dict[str, Any]] = {}
    for number, (name, program) in enumerate(
        json.loads((work / "programs.json").read_text()).items()
    ):
        home = work / f"home-{number}"
        home.mkdir()
        places = {
            "DANLU_CACHE": work / "cache",
            "XDG_CONFIG_HOME": work / "config",
            "TMPDIR": work / "folder",
        }
        kept = {key: value for key, value in os.environ.items() if key not in UNSET}
        del recorder.names[:], recorder.addresses[:]
        done = subprocess.run(
            [sys.executable, "-c", f"{program}\nimport time; time.sleep({SECONDS})"],
            cwd=work / "folder",
            env={**kept, "HOME": str(home), **{key: str(value) for key, value in places.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        time.sleep(0.2)  # the last packet
        results[name] = {
            "code": done.returncode,
            "output": done.stdout[-2000:],
            "names": sorted(set(recorder.names)),
            "addresses": sorted(set(recorder.addresses)),
            "home": sorted(str(path.relative_to(home)) for path in home.rglob("*")),
        }
    (work / "record.json").write_text(json.dumps(results))


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["--inside"]:
        return _inside(Path(arguments[1]))
    work = Path(tempfile.mkdtemp(prefix="danlu-telemetry-"))
    try:
        found = record({**CONTROLS, **cases(whole=True)}, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if found is None:
        sys.exit("this system allows no network namespace")
    for name, each in found.items():
        print(
            f"{name:45} rc {each.code}  names {each.names}  addresses {each.addresses}  home {each.home}"
        )
        if each.code:
            print(each.output)
    quiet = all(
        not (each.names or each.addresses or each.home)
        for name, each in found.items()
        if name not in CONTROLS
    )
    sys.exit(0 if quiet else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
