"""Artifacts and exports made to do harm, through every verb that reads one.

    python tests/faults/hostile_artifacts.py [--only WORD] [--few] [--show]

Each case is a sound folder in which one thing is made hostile. Its checksums are made right again,
since whoever writes the folder can write them too. Every verb runs in a process of its own, under
an audit hook and a limit on memory; the kernel watches the folder `outside` (inotify), so that
files opened by C libraries are noticed too. No verb may execute code, open a socket, read or write
another folder, hang, or print a traceback. It must end with 0 (the hostile part was not used), or
with a message and exit code 2 or 4."""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import ctypes.util
import hashlib
import io
import json
import os
import pickle
import random
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

MARK = "HOSTILE_PAYLOAD"
CONTROL = "nothing hostile"
MEMORY = 6 << 30  # bytes of address space beyond what importing takes
RESIDENT = 2500  # MiB, of which importing takes some 500
SECONDS = 60
READERS = {
    "table": ("predict", "evaluate", "serve", "export", "compress", "sign", "encrypt"),
    "text": ("predict", "evaluate", "serve", "generate", "weights", "sign"),
    "export": ("serve", "verify", "sign", "encrypt"),
}
IRIS = """
task: classification
data: {source: {name: csv, path: rows.csv}, target: kind, checks: off}
model: {name: mlp, hidden: [8]}
train: {steps: 4, batch_size: 16}
"""
WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
SLOW = {"type": "Split", "pattern": {"Regex": "(a+)+$"}}
POET = """
task: {name: language_modeling, context: 16, samples: 0}
data: {source: {name: text, path: poem.txt}, transforms: {text: [{name: tokenize, kind: KIND}]}, checks: off}
model: {name: gpt, size: tiny, width: 16}
train: {steps: 2, batch_size: 4}
"""


# --- sound folders


def prepare(home: Path) -> None:
    """Train and export the sound folders, and write the rows, keys and decoys that the verbs
    read."""
    import danlu
    from danlu.system import encryption, signing

    draw = random.Random(0)
    rows = [
        (draw.gauss(n % 3, 1), draw.gauss(-(n % 3), 1), draw.choice(["red", "green"]), "xyz"[n % 3])
        for n in range(300)
    ]
    (home / "rows.csv").write_text(
        "a,b,colour,kind\n" + "".join(f"{a:.3f},{b:.3f},{c},{k}\n" for a, b, c, k in rows)
    )
    (home / "rows.jsonl").write_text('{"a": 1.5, "b": 0, "colour": "red"}\n')
    (home / "texts.jsonl").write_text('{"text": "And the"}\n')
    (home / "poem.txt").write_text("And the moon was bright.\nThe river ran on.\n" * 60)
    (home / "iris.yaml").write_text(IRIS)
    for kind in ("bytes", "bpe, vocabulary: 300"):
        (home / f"poet{kind[:3]}.yaml").write_text(POET.replace("KIND", kind))
    with (
        contextlib.chdir(home),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        os.environ["DANLU_CACHE"] = str(home / "cache")
        danlu.train("iris.yaml")
        danlu.train("poetbyt.yaml")
        danlu.train("poetbpe.yaml")
        with contextlib.suppress(danlu.DanluError):
            danlu.export("runs/iris", to="onnx", out="export", rows="rows.csv")
    for name, run in (("table", "iris"), ("text", "poetbyt"), ("bpe", "poetbpe")):
        shutil.copytree(home / "runs" / run / "artifact", home / name)
    encryption.new_key(home / "key")
    encryption.write_secret(home / "words", b"correct horse battery\n")
    signing.new_signing_key(home / "signer")
    outside = home / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("nobody may read this")
    shutil.copytree(home / "table", outside / "artifact")
    (outside / "evil.py").write_text(payload(outside))
    (outside / "tensor.bin").write_bytes(bytes(4096))


def prepare_apart(home: Path) -> None:
    """`prepare` in another process: a process that has trained has threads and cannot be forked
    safely."""
    process = os.fork()
    if process == 0:
        try:
            prepare(home)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        raise RuntimeError("the sound folders could not be made")


def payload(outside: Path) -> str:
    """Python code that writes a file, as a trace that it was run."""
    return f"open({str(outside / 'EXECUTED')!r}, 'w').write('{MARK}')\n"


# --- how they are made hostile


@dataclass(frozen=True)
class Hostile:
    """A case: the sound folder it begins with, and a function (folder, outside) that changes a copy
    of it."""

    name: str
    base: str
    spoil: Callable[[Path, Path], None]

    @property
    def kind(self) -> str:
        """Which verbs read it."""
        return {"bpe": "text"}.get(self.base, self.base)


CASES: list[Hostile] = []


def case(
    name: str, *bases: str
) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    """Adds a case, of every base named."""

    def add(spoil: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        for base in bases or ("table",):
            CASES.append(Hostile(f"{base}: {name}", base, spoil))
        return spoil

    return add


def manifest(folder: Path) -> Path:
    return folder / ("export.json" if (folder / "export.json").exists() else "artifact.json")


def sealed(text: bytes) -> bytes:
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def change(folder: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest, and make its checksum right."""
    path = manifest(folder)
    content = json.loads(path.read_bytes().partition(b"\n")[0])
    changed = spoil(content)
    path.write_bytes(sealed(json.dumps(content if changed is None else changed).encode()))


def put(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and its checksum in the manifest."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(data)
    change(
        folder,
        lambda content: content["files"].update(
            {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        ),
    )


def at(content: Any, path: str, value: Any) -> None:
    """Set about["a"]["b"][0] by "a.b.0"."""
    *steps, last = path.split("/" if "/" in path else ".")
    for step in steps:
        content = content[int(step)] if isinstance(content, list) else content[step]
    content[int(last) if isinstance(content, list) else last] = value


def setting(base: str, path: str, value: Any) -> None:
    """Add a case in which one value of the manifest is changed."""
    shown = repr(value)
    shown = shown if len(shown) < 40 else f"{shown[:30]}... ({len(shown):,})"
    case(f"{path} = {shown}", base)(
        lambda folder, outside: change(folder, lambda content: at(content, path, value))
    )


def tensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Evil:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, outside: Path) -> None:
        self.outside = outside

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.outside / 'EXECUTED'}",)


@case(CONTROL, "table", "text", "bpe", "export")
def _(folder: Path, outside: Path) -> None:
    """The control: every verb must succeed with a sound folder."""


@case("a pickle for the weights", "table", "text")
def _(folder: Path, outside: Path) -> None:
    put(folder, "weights.safetensors", pickle.dumps(Evil(outside)))


@case("a pickle for learnt arrays")
def _(folder: Path, outside: Path) -> None:
    put(folder, "preprocessing.safetensors", pickle.dumps(Evil(outside)))


@case("a zip of torch.save for the weights")
def _(folder: Path, outside: Path) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save({"x": Evil(outside)}, buffer)
    put(folder, "weights.safetensors", buffer.getvalue())


@case("a pickle for the manifest", "table", "export")
def _(folder: Path, outside: Path) -> None:
    manifest(folder).write_bytes(sealed(pickle.dumps(Evil(outside), 0).replace(b"\n", b" ")))


@case("modules of Python beside the files", "table", "export")
def _(folder: Path, outside: Path) -> None:
    for name in (
        "__init__",
        "sitecustomize",
        "danlu",
        "torch",
        "conftest",
        "evil",
        "modeling_evil",
    ):
        (folder / f"{name}.py").write_text(payload(outside))


@case("tags of Python in the recipe's YAML")
def _(folder: Path, outside: Path) -> None:
    put(
        folder,
        "recipe.lock.yaml",
        f"!!python/object/apply:os.system ['touch {outside / 'EXECUTED'}']\n".encode(),
    )


def _replaced(name: str, how: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def spoil(folder: Path, outside: Path) -> None:
        path = manifest(folder) if name == "manifest" else folder / name
        path.unlink()
        how(path, outside)

    return spoil


def bind(path: Path) -> None:
    """A socket in the place of a file."""
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


def sparse(path: Path, size: int) -> None:
    """A file of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)


for _base, _name in (
    ("table", "weights.safetensors"),
    ("table", "preprocessing.safetensors"),
    ("table", "recipe.lock.yaml"),
    ("table", "manifest"),
    ("export", "model.onnx"),
    ("export", "manifest"),
):
    case(f"{_name} is a link to a secret", _base)(
        _replaced(_name, lambda path, outside: path.symlink_to(outside / "secret.txt"))
    )
    case(f"{_name} is a pipe", _base)(_replaced(_name, lambda path, outside: os.mkfifo(path)))
for _name in ("weights.safetensors", "manifest"):
    case(f"{_name} is a link to /dev/zero")(
        _replaced(_name, lambda path, outside: path.symlink_to("/dev/zero"))
    )
    case(f"{_name} is a folder")(_replaced(_name, lambda path, outside: path.mkdir()))
    case(f"{_name} is a socket")(_replaced(_name, lambda path, outside: bind(path)))
    case(f"{_name} is a hard link to a secret")(
        _replaced(_name, lambda path, outside: path.hardlink_to(outside / "secret.txt"))
    )
    case(f"{_name} is a terabyte of nothing")(
        _replaced(_name, lambda path, outside: sparse(path, 1 << 40))
    )
    case(f"{_name} is a link in a circle")(
        _replaced(_name, lambda path, outside: path.symlink_to(path.name))
    )
case("the manifest is a link to a sound one outside")(
    _replaced(
        "manifest", lambda path, outside: path.symlink_to(outside / "artifact" / "artifact.json")
    )
)


@case("the artifact of a run is a link out of it")
def _(folder: Path, outside: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "artifact").symlink_to(outside / "artifact", target_is_directory=True)


@case("a terabyte of weights that the manifest declares")
def _(folder: Path, outside: Path) -> None:
    sparse(folder / "weights.safetensors", 1 << 40)
    change(folder, lambda content: content["files"]["weights.safetensors"].update(size=1 << 40))


for _size in (-1, 2**63, 1e300, "748", None, True, float("nan"), [748]):
    setting("table", "files/weights.safetensors", {"size": _size, "sha256": "0" * 64})
    setting("export", "files/model.onnx", {"size": _size, "sha256": "0" * 64})
for _name in (
    "../outside/secret.txt",
    "/etc/passwd",
    "a/../../x",
    "x\0y",
    "con",
    "",
    ".",
    "model.onnx/../x",
    "\\\\host\\x",
):
    case(f"the manifest lists {_name!r}", "table", "export")(
        lambda folder, outside, name=_name: change(
            folder,
            lambda content: content["files"].update({name: {"size": 20, "sha256": "0" * 64}}),
        )
    )

# safetensors
for _title, _data in {
    "a header of 2**63 bytes": tensors(b"{}", length=2**63 - 1),
    "a header longer than the file": tensors(b"{}", length=1 << 30),
    "a header nested 100,000 deep": tensors(b"[" * 100_000),
    "a tensor beyond the end": tensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}, bytes(16)),
    "a tensor that ends before it begins": tensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, bytes(16)),
    "a shape whose product overflows": tensors({"w": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 16]}}, bytes(16)),
    "a negative shape": tensors({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)),
    "an unknown dtype": tensors({"w": {"dtype": "O", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "2**40 numbers of no bytes": tensors({"w": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}}),
    "one name twice": tensors(b'{"w":ONE,"w":ONE}'.replace(b"ONE", b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'), bytes(4)),
    "nothing": b"",
    "seven bytes": b"1234567",
}.items():  # fmt: skip
    case(f"weights with {_title}")(
        lambda folder, outside, data=_data: put(folder, "weights.safetensors", data)
    )
    case(f"arrays with {_title}")(
        lambda folder, outside, data=_data: put(folder, "preprocessing.safetensors", data)
    )


@case("weights that are no numbers", "table", "text")
def _(folder: Path, outside: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    size = 8 + struct.unpack("<Q", data[:8])[0]
    put(
        folder,
        "weights.safetensors",
        data[:size] + struct.pack("<f", float("nan")) * ((len(data) - size) // 4),
    )


# what is no JSON one would expect
for _title, _text in {
    "nested 100,000 deep": b'{"format":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5,000 digits": b'{"format":' + b"9" * 5000 + b"}",
    "NaN": b'{"format":NaN}',
    "a list": b"[]",
    "null": b"null",
    "half a character": b'{"format":1,"name":"\\ud800"}',
    "not UTF-8": b'{"format":"\xff"}',
    "UTF-16": '{"format":1}'.encode("utf-16"),
    "every name twice": b'{"format":1,"format":1,"recipe":1,"recipe":{}}',
    "nothing but a format": b'{"format":1}',
    "another format": b'{"format":2}',
    "a format that is true": b'{"format":true}',
}.items():
    case(f"the manifest is {_title}", "table", "export")(
        lambda folder, outside, text=_text: manifest(folder).write_bytes(sealed(text)) and None
    )
case("the manifest has 70 MB", "table", "export")(
    lambda folder, outside: (
        manifest(folder).write_bytes(sealed(b'{"format":1,"x":"' + b"a" * (70 << 20) + b'"}'))
        and None
    )
)

# the recipe
for _path, _value in (
    ("recipe.model", {"name": "python", "path": "evil.py", "object": "evil:make"}),
    ("recipe.model", {"name": "python", "build": "os:system"}),
    ("recipe.model", {"name": "../../../outside/evil"}),
    ("recipe.model", {"name": "os"}),
    ("recipe.model", {"name": "__init__"}),
    ("recipe.model", {"name": "mlp", "hidden": [2**31, 2**31]}),
    ("recipe.model", {"name": "mlp", "hidden": [60_000, 60_000]}),
    ("recipe.model", {"name": "mlp", "hidden": [1024] * 5000}),
    ("recipe.model", {"name": "mlp", "hidden": [-1]}),
    ("recipe.model", {"name": "ft_transformer", "width": 65536, "num_layers": 100}),
    ("recipe.model", {"name": "pretrained", "path": "/etc"}),
    ("recipe.model", {"name": "pretrained", "path": "someone/evil", "download": True}),
    ("recipe.model", {"name": "keras", "path": "/etc/passwd"}),
    ("recipe.model.name", {"$ref": "x"}),
    ("recipe.task", {"name": "../tasks/classification"}),
    ("recipe.task", {"name": "language_modeling"}),
    ("recipe.task", "os.system"),
    ("recipe.loss", {"name": "python", "object": "os:system"}),
    ("recipe.watchers", [{"name": "tensorboard", "path": "/tmp/x"}]),
    ("recipe.data.source", {"name": "csv", "path": "/dev/zero"}),
    ("recipe.data.test_time_augmentation", [{"name": "../x"}] * 10),
    ("recipe", "a recipe"),
    ("recipe", []),
    ("recipe.name", "../../../outside/name"),
    ("recipe.name", "a" * 1_000_000),
    ("recipe.name", "\x1b]0;title\x07\x1b[2J{{7*7}}<script>alert(1)</script>"),
    ("name", "../../../outside/name"),
    ("name", 5),
    ("changes", [{"name": "../../outside/evil", "options": {}, "state": {}}]),
    ("changes", [{"name": "prune", "options": {}, "state": {}}]),
    (
        "changes",
        [
            {
                "name": "int8_weight_only",
                "options": {"smallest": -1},
                "state": {"layers": ["__class__"]},
            }
        ],
    ),
    ("changes", [{"name": "low_rank", "options": {}, "state": {"ranks": {"0": 2**40}}}]),
    ("changes", 5),
    ("stored", {"../x": "int8"}),
    ("inputs.numbers.shape", [2**30]),
    ("inputs.numbers.shape", [2**62, 2**62]),
    ("inputs.numbers.shape", [-2]),
    ("inputs.numbers.shape", [1e300]),
    ("inputs.numbers.kind", "__class__"),
    ("inputs.categories.cardinalities", [2**30]),
    ("inputs.categories.cardinalities", ["4"]),
    ("inputs", {}),
    ("inputs", {"x" * 100_000: {}}),
    ("task.classes", ["x"] * 2_000_000),
    ("task.classes", []),
    ("task.classes", [["x"], {"y": 1}, None]),
    ("task.target", "../x"),
    ("task", []),
    ("scores", "<script>alert(1)</script>"),
    ("scores", {"test": {"accuracy": "\x1b[2J"}}),
    ("provenance", {"data": "../../x", "x": "{{config}}"}),
    ("provenance", []),
    ("preprocessing.columns", []),
    ("preprocessing.columns.0.steps.0.part.name", "../../outside/evil"),
    ("preprocessing.columns.0.steps.0.part.name", "os"),
    ("preprocessing.columns.0.steps.0.arrays.fill.shape", [2**50]),
    ("preprocessing.columns.0.steps.0.arrays.fill.dtype", "object"),
    ("preprocessing.columns.0.steps.0.state", {"__class__": "os.system"}),
    ("preprocessing.columns.0.name", "nobody"),
    ("preprocessing.columns.2.cardinality", 2**40),
    ("preprocessing.columns.2.steps.1.state.known", ["red"] * 1_000_000),
    ("preprocessing.columns.2.steps.1.state.known", [["red"]]),
    ("preprocessing.schema.a.kind", "image"),
    ("preprocessing.schema.a", {"kind": "image", "shape": [2**20, 2**20, 3]}),
    ("preprocessing.schema", {"../x": {"kind": "number"}}),
    ("preprocessing.also", {"x": {"from": "/etc/passwd"}}),
):
    setting("table", _path, _value)
for _path, _value in (
    ("recipe.model", {"name": "gpt", "width": 65536, "num_layers": 1000, "num_heads": 1024}),
    ("recipe.model", {"name": "gpt", "width": 16, "num_heads": 4, "num_layers": 2, "context": 1_048_576, "positions": "learned"}),
    ("recipe.model", {"name": "gpt", "weights": "../../outside/artifact"}),
    ("recipe.task.context", 1_048_576),
    ("task.context", 2**62),
    ("task.size", 2**31 - 1),
    ("task.size", -1),
    ("task.template", {"turn": "{{ ''.__class__.__mro__[1].__subclasses__() }}", "roles": ["{{x}}"]}),
    ("inputs.tokens.cardinalities", [2**31 - 1]),
    ("preprocessing.columns.0.steps.0.state.tokenizer", {"kind": "../../outside/evil"}),
    ("preprocessing.columns.0.steps.0.state.tokenizer", {"kind": "file", "text": '{"model": {"type": "BPE"}}'}),
    ("preprocessing.columns.0.steps.0.state.tokenizer", {"kind": "file", "text": json.dumps({"model": WORDS, "pre_tokenizer": SLOW})}),
    ("preprocessing.columns.0.steps.0.state.tokenizer", {"kind": "words", "words": ["a"] * 1_000_000}),
    ("preprocessing.columns.0.steps.0.state.tokenizer", {"kind": "characters", "alphabet": 5}),
    ("preprocessing.columns.0.steps.0.state.tokenizer", None),
    ("preprocessing.columns.0.steps.0.state.longest", 2**60),
    ("preprocessing.columns.0.steps.0.part.tokenizer", "../../outside/secret.txt"),
):  # fmt: skip
    setting("text", _path, _value)
for _path, _value in (
    ("preprocessing.columns.0.steps.0.state.tokenizer.merges", [[2**40, -1]] * 5),
    ("preprocessing.columns.0.steps.0.state.tokenizer.merges", [[256, 256]] * 40),
    ("preprocessing.columns.0.steps.0.state.tokenizer.json", "{"),
    ("preprocessing.columns.0.steps.0.state.tokenizer.vocabulary", {"a": 2**40}),
    ("preprocessing.columns.0.steps.0.state.tokenizer.pattern", "(a+)+$"),
):
    setting("bpe", _path, _value)

# exports
for _path, _value in (
    ("exporter.name", "../../outside/evil"),
    ("exporter.name", "os"),
    ("exporter", []),
    ("task.part.name", "../x"),
    ("task.state.classes", ["x"] * 2_000_000),
    ("reads.a.kind", "image"),
    ("reads", {}),
    ("feeds", {"numbers": {"dtype": "object"}}),
    ("feeds", {"../x": {"dtype": "float32"}}),
    (
        "entering",
        [
            {
                "name": "a",
                "to": "numbers",
                "names": ["a"],
                "cardinality": 2**40,
                "steps": [{"part": {"name": "os"}}],
            }
        ],
    ),
    ("entering.0.name", "../x"),
    ("runs.features", 5),
    ("runs.longest", {"a": 2**50}),
    (
        "inputs",
        [
            {
                "name": "<script>",
                "kind": "number",
                "required": False,
                "example": {"$ref": "/etc/passwd"},
            }
        ],
    ),
    ("inputs", "x"),
    ("kind", "text"),
    ("preprocessing.columns", [{"name": "a"}]),
    ("name", "../../outside/name"),
    ("format", "1"),
):
    setting("export", _path, _value)


def _graph(make: Callable[[Any, Any], Any]) -> Callable[[Path, Path], None]:
    """A change of the ONNX graph by `make` (helper of onnx, model)."""

    def spoil(folder: Path, outside: Path) -> None:
        import onnx
        from onnx import helper

        model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
        changed = make(helper, model)
        put(folder, "model.onnx", (model if changed is None else changed).SerializeToString())

    return spoil


def _lies_in(path: str) -> Callable[[Any, Any], Any]:
    def spoil(helper: Any, model: Any) -> None:
        import onnx

        tensor = onnx.TensorProto(name="outside", data_type=1, dims=[4], data_location=1)
        for key, value in (("location", path), ("offset", "0"), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)

    return spoil


def _with(*nodes: tuple[Any, ...], domain: str = "") -> Callable[[Any, Any], Any]:
    """Insert nodes before the others; the output of the last becomes an output of the graph."""

    def spoil(helper: Any, model: Any) -> None:
        inserted = [
            helper.make_node(kind, ins, outs, domain=domain, **options)
            for kind, ins, outs, options in nodes
        ]
        for index, node in enumerate(inserted):
            model.graph.node.insert(index, node)
        model.graph.output.append(helper.make_tensor_value_info(inserted[-1].output[0], 1, None))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return spoil


def _endless(helper: Any, model: Any) -> None:
    import numpy as np
    from onnx import numpy_helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info(*spec)
            for spec in (("i", 7, []), ("go", 9, []), ("x", 1, [1]))
        ],
        [helper.make_tensor_value_info(*spec) for spec in (("on", 9, []), ("y", 1, [1]))],
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ]
    )
    model.graph.node.insert(0, helper.make_node("Loop", ["", "yes", "one"], ["endless"], body=body))
    model.graph.output.append(helper.make_tensor_value_info("endless", 1, [1]))


def _huge(helper: Any, model: Any) -> None:
    import numpy as np
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "large"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["large"], ["filled"]))
    model.graph.output.append(helper.make_tensor_value_info("filled", 1, None))


def _calls_itself(helper: Any, model: Any) -> None:
    node = helper.make_node("Round", ["x"], ["y"], domain="own")
    model.functions.append(
        helper.make_function("own", "Round", ["x"], ["y"], [node], [helper.make_opsetid("own", 1)])
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(
        0, helper.make_node("Round", [model.graph.input[0].name], ["round"], domain="own")
    )
    model.graph.output.append(helper.make_tensor_value_info("round", 1, None))


def _many(helper: Any, model: Any) -> None:
    model.graph.output.extend(
        helper.make_tensor_value_info(f"o{n}", 1, None) for n in range(50_000)
    )


for _title, _make in {
    "a tensor in ../outside": _lies_in("../outside/tensor.bin"),
    "a tensor in /etc/passwd": _lies_in("/etc/passwd"),
    "a tensor in a file of the folder": _lies_in("export.json"),
    "an operator of somebody's own": _with(
        ("Evil", [], ["evil"], {"library": "evil.so"}), domain="evil"
    ),
    "an operator that runs Python": _with(
        ("PyOp", [], ["evil"], {"module": "evil", "class_name": "Evil"}), domain="ai.onnx.contrib"
    ),
    "an operator of ATen": _with(
        ("ATen", [], ["evil"], {"operator": "system"}), domain="org.pytorch.aten"
    ),
    "a loop without an end": _endless,
    "a tensor of four terabytes": _huge,
    "a function that calls itself": _calls_itself,
    "50,000 outputs that are none": _many,
    "no node": lambda helper, model: model.graph.ClearField("node"),
    "no output": lambda helper, model: model.graph.ClearField("output"),
    "an opset of the future": lambda helper, model: setattr(
        model.opset_import[0], "version", 2**40
    ),
    "a format of the future": lambda helper, model: setattr(model, "ir_version", 2**40),
}.items():
    case(f"a graph with {_title}", "export")(_graph(_make))
for _title, _data in {
    "nothing": b"",
    "a pickle": pickle.dumps({"x": 1}),
    "a zip": b"PK\x03\x04" + bytes(100),
    "fields that nest": b"\x3a\x7f" * 5000,
    "a varint without an end": b"\xff" * 100,
    "a field of 2**60 bytes": b"\x3a" + b"\xff" * 8 + b"\x0f" + bytes(20),
}.items():
    case(f"a graph that is {_title}", "export")(
        lambda folder, outside, data=_data: put(folder, "model.onnx", data)
    )


# encrypted


def _closed(spoil: Callable[[bytes], bytes], by: str) -> Callable[[Path, Path], None]:
    def close(folder: Path, outside: Path) -> None:
        import danlu

        danlu.encrypt(
            folder, **{f"{by}_file": outside.parent / {"key": "key", "passphrase": "words"}[by]}
        )
        path = manifest(folder)
        path.write_bytes(spoil(path.read_bytes()))

    return close


def _header(**changed: Any) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        size = int.from_bytes(data[8:12], "big")
        content = json.loads(data[12 : 12 + size])
        for name, value in changed.items():
            at(content, name.replace("__", "."), value)
        text = json.dumps(content).encode()
        return data[:8] + len(text).to_bytes(4, "big") + text + data[12 + size :]

    return spoil


for _name, _value in (
    ("n", 2**40),
    ("n", 2**24),
    ("r", 2**20),
    ("p", 2**30),
    ("salt", "00" * 1_000),
    ("n", "x"),
):
    case(f"encrypted, scrypt {_name} = {_value!r:.20}")(
        _closed(_header(**{f"scrypt__{_name}": _value}), "passphrase")
    )
for _name, _value in (
    ("name", "../../outside/secret.txt"), ("size", 2**60), ("size", -1), ("folder", "zz"), ("check", ""), ("format", 9), ("scrypt", []),
):  # fmt: skip
    case(f"encrypted, {_name} = {_value!r:.30}")(_closed(_header(**{_name: _value}), "key"))
case("encrypted, a header of 4 GB")(_closed(lambda data: data[:8] + b"\xff" * 4 + data[12:], "key"))
case("encrypted, cut off")(_closed(lambda data: data[:40], "key"))
case("encrypted, nothing but its first bytes")(_closed(lambda data: data[:8], "key"))

# signatures
for _title, _text in {
    "no JSON": "{",
    "nested deep": "[" * 100_000,
    "a list": "[]",
    "names that lead out": json.dumps(
        {
            "format": 1, "algorithm": "ed25519", "public_key": base64.b64encode(bytes(32)).decode(), "signature": "AAAA",
            "files": {"../outside/secret.txt": {}},
        }
    ),
}.items():  # fmt: skip
    case(f"a signature that is {_title}")(
        lambda folder, outside, text=_text: (folder / "signature.json").write_text(text) and None
    )
case("a signature that is a link")(
    lambda folder, outside: (folder / "signature.json").symlink_to(outside / "secret.txt")
)


# --- a verb in a process of its own


@dataclass
class Outcome:
    """What a verb did with a hostile folder. `wrong` lists the rules that it broke."""

    name: str
    verb: str
    code: int
    message: str
    wrong: list[str]
    seconds: float
    mebibytes: int


def words(verb: str, folder: Path, kind: str, home: Path) -> list[str]:
    """The command line of a verb; nothing it writes is outside of the working folder."""
    path, rows = str(folder), str(home / ("rows.csv" if kind == "table" else "poem.txt"))
    return {
        "predict": ["predict", path, str(home / ("rows.jsonl" if kind == "table" else "texts.jsonl"))],
        "evaluate": ["evaluate", path, rows],
        "export": ["export", path, "--to", "onnx", "--out", "made", "--rows", rows],
        "compress": ["compress", path, "--with", "int8_weight_only:smallest=1", "--out", "small"],
        "generate": ["generate", path, "--prompt", "And", "--max-tokens", "3"],
        "weights": ["train", str(home / "poetbyt.yaml"), f"model.weights={path}", f"data.source.path={home / 'poem.txt'}", "--run", "begun"],
        "sign": ["verify-signature", path, "--public-key", str(home / "signer.pub")],
        "encrypt": ["encrypt", path, "--out", "closed", "--key-file", str(home / "key")],
        "verify": ["verify", path, "--against", str(home / "table"), "--rows", str(home / "rows.csv")],
        "serve": [],
    }[verb]  # fmt: skip


def act(verb: str, folder: Path, kind: str, home: Path) -> None:
    """Run a verb in this process."""
    if verb != "serve":
        from danlu.cli.app import main

        sys.argv = ["danlu", *words(verb, folder, kind, home)]
        return main()
    from danlu.errors import DanluError
    from danlu.serving.worker import models

    try:
        handler: Any = models.open_handler(
            {"do": "open", "path": str(folder), "name": "hostile", "threads": 1, "options": {}}
        )
        if handler.description["kind"] == "text":
            request = {"prompt": "And", "max_tokens": 3}
            handler.take(
                {"do": "write", "id": 1, "request": request, "before": time.monotonic() + 9}, b""
            )
        else:
            body = b'{"row":{"a":1.5,"b":0,"colour":"red"}}'
            list(
                handler.take(
                    {
                        "do": "answer",
                        "id": 1,
                        "kind": "application/json",
                        "before": time.monotonic() + 9,
                    },
                    body,
                )
            )
        while handler.busy:
            list(handler.step())
    except DanluError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    return None


def watch_this_process(
    wrong: list[str], may_read: list[str], may_write: list[str], programs: tuple[str, ...] = ()
) -> None:
    """Add an audit hook that appends to `wrong` what no reader of an artifact needs to do. The
    process may start danlu's own `programs` (file names)."""
    never = {
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "pty.spawn",
        "pickle.find_class",
        "code.__new__",
    }
    moves = {
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.truncate",
        "shutil.rmtree",
    }
    inside = tuple(may_read), tuple(may_write)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if arguments[:1] == ("uname",):  # of the standard library's platform
            return
        if event == "subprocess.Popen" and _is_own(arguments, programs):
            return
        if event in never or event.startswith("socket."):
            wrong.append(f"{event} {arguments!r:.100}")
        elif event == "compile" and MARK.encode() in (
            arguments[0] if isinstance(arguments[0], bytes) else str(arguments[0]).encode()
        ):
            wrong.append(f"compiled the payload {arguments[1]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            writes = (
                bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
                if isinstance(arguments[2], int)
                else False
            )
            link = (
                isinstance(arguments[2], int)
                and bool(arguments[2] & os.O_NOFOLLOW)
                and Path(os.fsdecode(arguments[0])).is_symlink()
            )
            if not link and not path.startswith(
                inside[writes]
            ):  # a link that is not followed is refused by the kernel
                wrong.append(f"{'wrote' if writes else 'read'} {path}")
        elif event in moves:
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(inside[1]):
                wrong.append(f"{event} {path}")

    sys.addaudithook(heard)


def _is_own(arguments: tuple[Any, ...], programs: tuple[str, ...]) -> bool:
    """Whether a process is one of danlu's own programs (event subprocess.Popen)."""
    words = list(map(os.fsdecode, arguments[1])) if isinstance(arguments[1], list | tuple) else []
    return any(
        word.endswith(f"/{name}") and "/danlu/" in word for word in words[:5] for name in programs
    )


def allowed(home: Path) -> list[str]:
    """Where a verb may read: Python and its libraries, facts of the machine, and the rows and keys
    on its command line."""
    import danlu

    places = {
        sys.prefix,
        sys.base_prefix,
        str(Path(danlu.__file__).parents[2]),
        "/usr/lib",
        "/usr/share",
        "/lib",
        "/proc",
        "/sys",
    }
    places |= {
        str(Path(__import__(name).__file__ or "").parent) for name in ("numpy", "torch", "pyarrow")
    }
    inputs = [
        "rows.csv",
        "rows.jsonl",
        "texts.jsonl",
        "poem.txt",
        "poetbyt.yaml",
        "key",
        "words",
        "signer",
        "signer.pub",
        "table",
        "cache",
    ]
    devices = [
        "/dev/null",
        "/dev/urandom",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/ssl",
        "/etc/os-release",
    ]
    return [
        *(os.path.realpath(path) for path in places),
        *(str(home / path) for path in inputs),
        *devices,
    ]


def run(hostile: Hostile, verb: str, folder: Path, home: Path) -> Outcome:
    """A verb in a forked process."""
    sandbox = Path(tempfile.mkdtemp(prefix="sandbox-", dir=home))
    log, events = sandbox / "log", sandbox / "events"
    began = time.monotonic()
    for name in ("rows.csv", "poem.txt"):  # where the recipe looks for its own data
        shutil.copy(home / name, sandbox)
    process = os.fork()
    if process == 0:
        _child(hostile, verb, folder, home, sandbox)
    code, usage = waited(process, SECONDS)
    wrong = (
        json.loads(events.read_text())
        if events.exists()
        else ["the process died without a report"]
        if code >= 0
        else []
    )
    text = log.read_text("utf-8", "replace")
    peak = usage.ru_maxrss // 1024
    wrong += ["a traceback"] if "Traceback" in text else []
    right = (0,) if CONTROL in hostile.name and verb != "sign" else (0, 2, 4)
    right = (*right, 3) if verb == "weights" else right  # a training that stops itself at a NaN
    wrong += [f"exit code {code}"] if code not in right else []
    wrong += [f"{peak} MiB"] if peak > RESIDENT else []
    wrong += ["no message"] if code in (2, 4) and not text.strip() else []
    shutil.rmtree(sandbox, ignore_errors=True)
    return Outcome(
        hostile.name, verb, code, text.strip()[-400:], wrong, time.monotonic() - began, peak
    )


def _child(hostile: Hostile, verb: str, folder: Path, home: Path, sandbox: Path) -> NoReturn:
    key = {"DANLU_KEY_FILE": ""}
    if "encrypted" in hostile.name and verb != "encrypt":
        key = (
            {"DANLU_KEY_FILE": "", "DANLU_PASSPHRASE_FILE": str(home / "words")}
            if "scrypt " in hostile.name
            else {"DANLU_KEY_FILE": str(home / "key")}
        )
    live_in(
        sandbox,
        lambda: act(verb, folder, hostile.kind, home),
        memory=MEMORY,
        may_read=[*allowed(home), str(folder)],
        environment={"OMP_NUM_THREADS": "1", **key},
    )


def live_in(
    sandbox: Path,
    act: Callable[[], None],
    *,
    memory: int,
    may_read: Sequence[str],
    cpu_seconds: int | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    programs: tuple[str, ...] = (),
    facts: Callable[[], Sequence[str]] = tuple,
) -> NoReturn:
    """Spend the life of a forked process in `act`, watched and limited.

    What it prints goes to sandbox/log, and what it should not have done, with `facts()` at the end,
    to sandbox/events. It may write to the sandbox alone, take `memory` bytes of address space, and
    read `may_read` too. An empty value of `environment` removes the variable."""
    code, wrong = 70, list[str]()
    try:
        os.setsid()
        out = os.open(sandbox / "log", os.O_WRONLY | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for standard, end in ((0, nothing), (1, out), (2, out)):
            os.dup2(end, standard)
        # pytest has put others in their place
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
        os.chdir(sandbox)
        for name, value in environment.items():
            if value:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)
        places = dict.fromkeys(("HOME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR"), str(sandbox))
        os.environ.update({**places, "DANLU_CACHE": str(sandbox / "cache")})
        tempfile.tempdir = str(sandbox)
        limit = address_space() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if cpu_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        watch_this_process(
            wrong, [*may_read, str(sandbox)], [str(sandbox), "/dev/null"], programs=programs
        )
        try:
            act()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        (sandbox / "events").write_text(json.dumps([*wrong, *facts()]))
        os._exit(code)


def waited(process: int, seconds: float) -> tuple[int, resource.struct_rusage]:
    """(exit code, -signal, or 124 after too many seconds; the resources that a process used)."""
    until, late = time.monotonic() + seconds, False
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return (124 if late else os.waitstatus_to_exitcode(status)), usage
        if time.monotonic() > until and not late:
            late = True
            os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def address_space() -> int:
    """Bytes of address space that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# --- what the kernel sees

_OPEN, _ACCESS, _MODIFY, _CREATE, _DELETE = 0x20, 0x1, 0x2, 0x100, 0x200


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Callable[[], list[str]]]:
    """Gives a function that returns what any process opened, changed or created in a folder since
    the last call."""
    libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    places = {}
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        number = libc.inotify_add_watch(
            handle, str(inner).encode(), _OPEN | _ACCESS | _MODIFY | _CREATE | _DELETE
        )
        places[number] = inner

    def events() -> list[str]:
        paths = set()
        while select.select([handle], [], [], 0)[0]:
            data = os.read(handle, 1 << 16)
            while data:
                number, mask, _, size = struct.unpack_from("iIII", data)
                name = data[16 : 16 + size].rstrip(b"\0").decode()
                if name:  # that the folder itself was listed says nothing
                    paths.add(
                        f"{places[number] / name}: {'opened' if mask & (_OPEN | _ACCESS) else 'changed or made'}"
                    )
                data = data[16 + size :]
        return sorted(paths)

    try:
        yield events
    finally:
        os.close(handle)


# --- all of it


def warm(home: Path) -> None:
    """Import and use what the verbs need, without training, so that every forked process begins
    with it."""
    import importlib

    import torch

    torch.set_num_threads(1)
    for name in (
        "cli.app",
        "training.loop",
        "exporting.export",
        "compression.compress",
        "serving.worker.models",
        "serving.text.engine",
        "serving.worker.text_handler",
        "system.signing",
    ):
        importlib.import_module(f"danlu.{name}")
    for name in (
        "onnxruntime",
        "onnx",
        "cryptography.hazmat.primitives.kdf.scrypt",
        "tokenizers",
        "safetensors.numpy",
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for base, verbs in (
        ("table", ("predict", "evaluate", "serve", "compress")),
        ("text", ("predict", "generate", "serve")),
    ):
        for verb in verbs:
            with (
                contextlib.chdir(home),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                os.environ["DANLU_CACHE"] = str(home / "cache")
                with contextlib.suppress(SystemExit):
                    act(verb, home / base, base, home)


def attack(hostile: Hostile, home: Path, verbs: Sequence[str] | None = None) -> list[Outcome]:
    """Run every verb that reads such a folder, or those of them that `verbs` names."""
    base = home / hostile.base
    if not base.is_dir():
        return []
    folder = Path(tempfile.mkdtemp(prefix="hostile-", dir=home)) / "folder"
    shutil.copytree(base, folder)
    hostile.spoil(folder, home / "outside")
    outcomes = []
    for verb in READERS[hostile.kind]:
        if verbs and verb not in verbs:
            continue
        with watched(home / "outside") as events:
            outcome = run(hostile, verb, folder, home)
            outcome.wrong += events()
        outcomes.append(outcome)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument(
        "--few",
        action="store_true",
        help="every sixteenth case and the controls, each with two verbs (for the test suite)",
    )
    parser.add_argument("--verbs", nargs="*", help="only these verbs")
    parser.add_argument("--show", action="store_true", help="print the message of every verb")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="danlu-hostile-") as folder:
        home = Path(folder).resolve()
        prepare_apart(home)
        warm(home)
        chosen = [case_ for case_ in CASES if arguments.only in case_.name]
        if arguments.few:
            chosen = [
                case_
                for index, case_ in enumerate(chosen)
                if index % 16 == 0 or CONTROL in case_.name
            ]
            arguments.verbs = ["serve", "encrypt"]
        outcomes = []
        for case_ in chosen:
            runs = attack(case_, home, arguments.verbs)
            outcomes += runs
            for one in runs:
                if one.wrong or arguments.show:
                    print(
                        f"{one.name} | {one.verb} | {one.code} | {one.wrong} | {one.seconds:.1f} s {one.mebibytes} MiB | {one.message!r}",
                        flush=True,
                    )
    wrong = [case_ for case_ in outcomes if case_.wrong]
    print(f"{len(chosen)} hostile folders, {len(outcomes)} runs of verbs: {len(wrong)} wrong")
    print(
        f"at most {max((case_.mebibytes for case_ in outcomes), default=0)} MiB and {max((case_.seconds for case_ in outcomes), default=0):.1f} s"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
