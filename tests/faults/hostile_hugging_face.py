"""Hugging Face folders made to do harm, through every verb that reads one.

    python tests/faults/hostile_hugging_face.py [--only WORD] [--few] [--show]

Each case is a sound folder in which one thing is hostile: a value of config.json, a header of
safetensors, a tokenizer, a link, a pipe. Artifacts and exports made from such folders are attacked
too; their checksums are made good again, as whoever writes the folder can do. Every verb runs in a
process of its own, with limits on memory and time, under an audit hook; the folder `outside` is
watched by the kernel. Printed are outcome, processor time and memory of each folder. Wrong are: a
traceback, a process that dies or hangs, a file read or written elsewhere, an unknown process, a
socket, no message, and a message that does not name the folder."""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hostile_artifacts as artifacts

CONTROL = "nothing hostile"
SECONDS, CPU_SECONDS = 60.0, 20.0  # of a run, wall clock and processor
MEMORY = 4 << 30  # bytes of address space beyond what importing takes
RESIDENT = 2000  # MiB, of which importing takes some 700
ENDINGS = (0, 2, 3, 4)  # exit codes: done, refused, stopped by a check of the training, unsound
VERBS: dict[str, tuple[str, ...]] = {
    "bert": ("train", "read"),
    "folder": (
        "check",
        "predict",
        "evaluate",
        "serve",
        "generate",
        "export",
        "compress",
        "weights",
    ),
    "llama": ("train", "read", "tokenizer"),
    "gpt2": ("train",),
    "t5": ("train",),
    "vit": ("train",),
    "teacher": ("distil",),
    "artifact": ("predict", "evaluate", "serve", "export", "compress"),
    "writer": ("generate", "serve", "weights"),
    "export": ("verify", "serve", "read"),
}
BASES = {"folder": "bert", "teacher": "bert"}  # folders that several kinds of cases begin with

Spoil = Callable[[Path, Path], object]  # changes a copy of the folder; the other one is `outside`


@dataclass(frozen=True)
class Case:
    """A hostile folder: the kind of folder that it begins with, and what is done to it."""

    name: str
    kind: str
    spoil: Spoil


@dataclass
class Outcome:
    """What a verb did with a hostile folder. `wrong` is empty where nothing was."""

    case: str
    verb: str
    code: int
    message: str
    wrong: list[str]
    cpu_seconds: float
    mebibytes: int


CASES: list[Case] = []


def add(kinds: str, name: str, spoil: Spoil) -> None:
    """Add a case for each of the kinds of folders."""
    CASES.extend(Case(f"{kind}: {name}", kind, spoil) for kind in kinds.split())


# --- what is made hostile -------------------------------------------------------------------------


def rewrite(folder: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change a JSON file of a folder; `change` may return another content."""
    path = folder / name
    content = json.loads(path.read_text("utf-8"))
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed), "utf-8")


def config(kinds: str, **values: object) -> None:
    """A case: config.json has these values."""
    shown = ", ".join(f"{key}={value!r:.40}" for key, value in values.items())
    add(
        kinds,
        f"config {shown}",
        lambda folder, outside: rewrite(
            folder, "config.json", lambda content: content.update(values)
        ),
    )


def tokenizer(name: str, change: Callable[[dict[str, Any]], object], kinds: str = "bert") -> None:
    """A case: tokenizer.json is changed."""
    add(
        kinds,
        f"tokenizer {name}",
        lambda folder, outside: rewrite(folder, "tokenizer.json", change),
    )


def instead(name: str, place: Callable[[Path, Path], object]) -> Spoil:
    """Something else stands in the place of a file."""

    def spoil(folder: Path, outside: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        place(folder / name, outside)

    return spoil


def header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(the header of a safetensors file, the bytes after it)."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def reheader(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The header of model.safetensors is changed."""

    def spoil(folder: Path, outside: Path) -> None:
        path = folder / "model.safetensors"
        tensors, rest = header(path.read_bytes())
        change(tensors)
        path.write_bytes(artifacts.tensors(tensors, rest))

    return spoil


def shards(change: Callable[[dict[str, str], Path], object]) -> Spoil:
    """The weights in two files with an index, whose map is changed (map, folder)."""

    def spoil(folder: Path, outside: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(weights)
        halves = names[::2], names[1::2]
        files = [f"model-{number}-of-2.safetensors" for number in (1, 2)]
        for file, half in zip(files, halves, strict=True):
            save_file({name: weights[name] for name in half}, folder / file)
        places = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        changed = change(places, folder)
        index = {"metadata": {}, "weight_map": places if changed is None else changed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def nothing(folder: Path, outside: Path) -> None:
    """What every verb does with a sound folder, or no case would show anything."""


add(" ".join(VERBS), CONTROL, nothing)

# config.json: sizes
for _value in (10**9, 10**400, 0, -16, "16", 16.0, 1e300, True, None, [16], {"x": 16}, 1 << 17):
    config("bert", hidden_size=_value)
for _value in (10**9, 1000, 0, "2", -1):
    config("bert llama", num_hidden_layers=_value)
for _value in (10**12, 1 << 22, 0, -1):
    config("bert llama", vocab_size=_value)
for _value in (10**10, 1 << 24, 1, 0):
    config("bert", max_position_embeddings=_value)
for _value in (0, 3, 1 << 30, 4096):
    config("bert", num_attention_heads=_value)
config("bert", intermediate_size=1 << 18)
config("bert", type_vocab_size=10**9)
config("bert", type_vocab_size=0)
config("bert", num_labels=10**9)
config("bert", pad_token_id=10**6)
config("bert", pad_token_id=-5)
config("llama", num_key_value_heads=3)
config("llama", num_key_value_heads=0)
config("llama", head_dim=1 << 18)
config("llama", intermediate_size=1 << 18, num_hidden_layers=1024)
config("llama", rope_parameters={"rope_type": "default", "rope_theta": float("nan")})
config("llama", rope_parameters={"rope_type": "../evil", "rope_theta": 1e4})
config("llama", rope_parameters={"rope_type": "longrope", "short_factor": [0.0] * 10**6})
config("llama", rope_scaling={"type": "linear", "factor": 0})
config("llama", rope_scaling=["x"])
config("gpt2", n_layer=10**9)
config("gpt2", n_positions=1 << 24)
config("gpt2", n_inner=1 << 18)
config("gpt2", n_head=0)
config("t5", num_layers=10**9, num_decoder_layers=10**9)
config("t5", d_kv=1 << 18)
config("t5", relative_attention_num_buckets=10**9)
config("t5", decoder_start_token_id=10**6)
config("t5", decoder_start_token_id=[1, 2])
config("t5", feed_forward_proj="gated-gated-__import__")
config("vit", image_size=10**9)
config("vit", image_size=[8192, 8192], patch_size=1)
config("vit", patch_size=0)
config("vit", num_channels=10**6)
config("vit", num_hidden_layers=1 << 40)

# config.json: other values
config("bert", hidden_act="__import__('os').system")
config("bert", layer_norm_eps=float("nan"))
config("bert", layer_norm_eps=-1)
config("bert", initializer_range=float("inf"))
config("bert", hidden_dropout_prob=7)
config("bert", model_type="../bert")
config("bert", model_type=["bert"])
config("bert", model_type="vit")
config("bert", architectures=["Evil", "../x", 5])
config("bert", architectures="BertModel" * 100_000)
config("bert", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
config("bert", attn_implementation="evil/kernel", _attn_implementation="evil/kernel:x")
config("bert", _attn_implementation_internal="evil/kernel", experts_implementation="evil/kernel")
config("bert", encoder={"model_type": "bert"}, text_config={"model_type": "evil"}, base_config=5)
config("bert", transformers_weights="../outside/other/model.safetensors")
config("bert", per_layer_config={"0": {"hidden_size": 10**9}}, fusion_config={"x": True})
config("bert", quantization_config={"quant_method": "evil", "modules": ["os"]})
config("bert", return_dict=False, output_attentions=True, chunk_size_feed_forward=7)
config("bert", pruned_heads={"0": list(range(10**5))}, torchscript=True)
config("bert", dtype="os", torch_dtype="__class__", use_cache="x")
config("bert", is_decoder="yes")
config("bert", is_encoder_decoder=True)
config("bert", id2label={str(number): "x" for number in range(300_000)})
config("bert", id2label={"a": "good", "b": "bad"})
config("bert", id2label={"0": {"x": 1}, "1": "\x1b[2J"})
config("bert", id2label=["good", "bad"], label2id=5)
for _name, _text in {
    "empty": b"",
    "a list": b"[1]",
    "nested 100,000 deep": b'{"model_type":' + b"[" * 100_000,
    "70 MB": b'{"model_type": "bert", "x": "' + b"a" * (70 << 20) + b'"}',
    "not UTF-8": b'{"model_type": "\xff"}',
    "UTF-16": '{"model_type": "bert"}'.encode("utf-16"),
    "half a character": b'{"model_type": "\\ud800"}',
    "a number of 90,000 digits": b'{"model_type": "bert", "hidden_size": ' + b"9" * 90_000 + b"}",
    "a pickle": pickle.dumps({"model_type": "bert"}),
}.items():
    add(
        "bert",
        f"config.json is {_name}",
        lambda folder, outside, text=_text: (folder / "config.json").write_bytes(text),
    )

# something else in the place of a file
for _file in ("config.json", "model.safetensors", "tokenizer.json"):
    for _name, _place in {
        "a link out of the folder": lambda path, outside: path.symlink_to(
            outside / "other" / path.name
        ),
        "a link to /dev/zero": lambda path, outside: path.symlink_to("/dev/zero"),
        "a link in a circle": lambda path, outside: path.symlink_to(path.name),
        "a pipe": lambda path, outside: os.mkfifo(path),
        "a folder": lambda path, outside: path.mkdir(),
        "a socket": lambda path, outside: artifacts.bind(path),
        "a terabyte of nothing": lambda path, outside: artifacts.sparse(path, 1 << 40),
    }.items():
        add("bert", f"{_file} is {_name}", instead(_file, _place))
add("bert", "a pipe beside the weights", lambda folder, _: os.mkfifo(folder / "x.safetensors"))
add("vit", "preprocessor_config.json is a pipe", instead("preprocessor_config.json", lambda path, _: os.mkfifo(path)))  # fmt: skip
for _values in (
    {"size": {"height": 10**9, "width": 10**9}},
    {"image_mean": "abc"},
    {"image_mean": [float("nan")] * 3},
    {"image_std": [0.0] * 3},
    {"image_std": [1.0] * 2},
    {"image_processor_type": "evil.Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}},
):
    add(
        "vit",
        f"preprocessor {_values!r:.60}",
        lambda folder, _, values=_values: rewrite(
            folder, "preprocessor_config.json", lambda content: content.update(values)
        ),
    )


def _unread_pipes(folder: Path, outside: Path) -> None:
    for name in (
        "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
        "merges.txt", "vocab.json", "spiece.model", "chat_template.jinja", "adapter_config.json",
        "added_tokens.json", "pytorch_model.bin", "README.md", "modeling_evil.py",
        "model.safetensors.index.json",
    ):  # fmt: skip
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)


def _unread_code(folder: Path, outside: Path) -> None:
    code = artifacts.payload(outside)
    for name in ("modeling_evil", "evil", "__init__", "sitecustomize", "danlu", "torch", "hubconf"):
        (folder / f"{name}.py").write_text(code)
    template = "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    settings = {
        "chat_template": template,
        "tokenizer_class": "evil.Evil",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    generation = {"max_length": 10**12, "num_beams": 10**9, "custom_generate": "evil/x"}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(artifacts.Evil(outside)))


def _only_pickles(folder: Path, outside: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(artifacts.Evil(outside)))


def _adapter(folder: Path, outside: Path) -> None:
    settings = {
        "base_model_name_or_path": str(outside / "other"),
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["query"],
        "auto_mapping": {"base_model_class": "X", "parent_library": "evil"},
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    shutil.copy(outside / "other" / "model.safetensors", folder / "adapter_model.safetensors")


add("bert llama", "pipes where danlu reads nothing", _unread_pipes)
add("bert llama", "code, templates and pickles", _unread_code)
add("bert llama", "nothing but pickles for weights", _only_pickles)
add("bert", "an adapter for a model elsewhere", _adapter)

# the weights
for _name, _data in {
    "a header of 2**63 bytes": artifacts.tensors(b"{}", length=2**63 - 1),
    "a header longer than the file": artifacts.tensors(b"{}", length=1 << 30),
    "a header nested 100,000 deep": artifacts.tensors(b"[" * 100_000),
    "a header that is a list": artifacts.tensors(b"[]"),
    "nothing": b"",
    "seven bytes": b"1234567",
    "a pickle": pickle.dumps({"x": 1}),
}.items():
    add(
        "bert",
        f"weights: {_name}",
        lambda folder, _, data=_data: (folder / "model.safetensors").write_bytes(data),
    )


def _entry(**values: object) -> Callable[[dict[str, Any]], object]:
    def change(tensors: dict[str, Any]) -> None:
        name = min(name for name in tensors if name != "__metadata__")
        tensors[name].update(values)

    return change


def _overlap(tensors: dict[str, Any]) -> None:
    entries = [entry for name, entry in tensors.items() if name != "__metadata__"]
    for entry in entries:
        same = next(other for other in entries if other["shape"] == entry["shape"])
        entry["data_offsets"] = same["data_offsets"]


def _as_integers(tensors: dict[str, Any]) -> None:
    for name, entry in tensors.items():
        if name != "__metadata__":
            entry["dtype"] = "I32"


for _name, _change in {
    "tensors that overlap": _overlap,
    "a tensor beyond the end": _entry(data_offsets=[0, 1 << 40]),
    "a tensor that ends before it begins": _entry(data_offsets=[16, 0]),
    "a shape whose product overflows": _entry(shape=[2**33, 2**33]),
    "a negative shape": _entry(shape=[-4]),
    "a shape of texts": _entry(shape=["4"]),
    "an unknown type": _entry(dtype="O"),
    "integers for numbers": _as_integers,
    "200,000 empty tensors": lambda tensors: tensors.update(
        {
            f"x{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
            for number in range(200_000)
        }
    ),
    "a name of 10 MB": lambda tensors: tensors.update({"x" * (10 << 20): {}}),
    "19,000 empty tensors": lambda tensors: tensors.update(
        {
            f"x{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
            for number in range(19_000)
        }
    ),
}.items():
    add("bert llama", f"weights: {_name}", reheader(_change))


def _not_numbers(folder: Path, outside: Path) -> None:
    path = folder / "model.safetensors"
    tensors, rest = header(path.read_bytes())
    path.write_bytes(artifacts.tensors(tensors, struct.pack("<f", float("nan")) * (len(rest) // 4)))


add("bert llama", "weights: no numbers", _not_numbers)
for _name, _change in {
    "sound": lambda places, folder: None,
    "in ../outside": lambda places, folder: dict.fromkeys(
        places, "../outside/other/model.safetensors"
    ),
    "at an absolute path": lambda places, folder: dict.fromkeys(places, "/etc/passwd"),
    "in a folder inside": lambda places, folder: dict.fromkeys(places, "x/model.safetensors"),
    "in a file that is missing": lambda places, folder: (
        folder / "model-2-of-2.safetensors"
    ).unlink(),
    "in the other file": lambda places, folder: {
        name: f"model-{3 - int(file[6])}-of-2.safetensors" for name, file in places.items()
    },
    "twice": lambda places, folder: (
        shutil.copy(folder / "model-1-of-2.safetensors", folder / "model-2-of-2.safetensors")
        and None
    ),
    "in a list": lambda places, folder: list(places),
    "in numbers": lambda places, folder: dict.fromkeys(places, 5),
    "in pickles": lambda places, folder: dict.fromkeys(places, "pytorch_model.bin"),
    "in 100,000 files": lambda places, folder: {
        f"x{number}": f"{number}.safetensors" for number in range(100_000)
    },
}.items():
    add("bert llama", f"an index with the tensors {_name}", shards(_change))

# the tokenizer


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


for _pattern in (
    "(l+i*k*)+$", "(a|a)*b", "(?:a|aa)+$", r"(\w+\s?)+!", "((((", "a" * 100_000, "(a{0,500}){0,500}",
    "((a{1000}){1000}){1000}", r"(\w+)\1+", "(?<x>a\\g<x>?)", "(?i)" * 5000, "[" * 5000,
    "a?" * 40 + "a" * 40, r"\s*\s*\s*\s*x", "(?~a)", "(*FAIL)", "",
):  # fmt: skip
    tokenizer(
        f"splits at {_pattern[:30]!r}",
        lambda content, pattern=_pattern: content.update(pre_tokenizer=_split(pattern)),
    )
for _map in (
    b"AAAAAAAA",
    b"\xff" * 11,
    b"\x04\0\0\0" + b"\xff" * 4 + b"x",
    b"\0\0\0\0" + b"y" * (1 << 20),
    struct.pack("<I", 1024) + bytes(range(256)) * 4 + b"zz\0" * 9,
    struct.pack("<I", 4096) + struct.pack("<I", 0x400) * 1024 + b"q\0",
):
    tokenizer(
        f"maps letters by {_map[:6]!r} ({len(_map):,})",
        lambda content, data=_map: content.update(
            normalizer={
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(data).decode(),
            }
        ),
    )


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _in_sequence(step: dict[str, Any], depth: int) -> dict[str, Any]:
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


for _name, _normalizer in {
    "a letter by 1,000, three times": {
        "type": "Sequence",
        "normalizers": [_replace({"String": "e"}, "e" * 1000)] * 3,
    },
    "nothing by x": _replace({"String": ""}, "x"),
    "any by 1,000": _replace({"Regex": "x*"}, "y" * 1000),
    "100,000 letters": _replace({"String": "e"}, "e" * 100_000),
}.items():
    tokenizer(
        f"replaces {_name}",
        lambda content, normalizer=_normalizer: content.update(normalizer=normalizer),
    )
for _name, _change in {
    "with steps 90 deep": lambda content: content.update(
        normalizer=_in_sequence({"type": "NFC"}, 90)
    ),
    "with 100,000 steps": lambda content: content.update(
        normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 100_000}
    ),
    "with an unknown step": lambda content: content.update(pre_tokenizer={"type": "Evil"}),
    "with pieces of no length": lambda content: content.update(
        pre_tokenizer={"type": "FixedLength", "length": 0}
    ),
    "with a code of 10**9": lambda content: content["model"]["vocab"].update(zz=10**9),
    "with a code of -1": lambda content: content["model"]["vocab"].update(zz=-1),
    "with a code of 1.5": lambda content: content["model"]["vocab"].update(zz=1.5),
    "with a code twice": lambda content: content["model"]["vocab"].update(zz=7),
    "with an added code of 10**9": lambda content: content["added_tokens"].append(
        {"id": 10**9, "content": "likes", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ),
    "with added tokens that are none": lambda content: content.update(added_tokens=[5, None]),
    "with 300,000 added tokens": lambda content: content.update(
        added_tokens=[{"id": 200 + number, "content": f"x{number}"} for number in range(300_000)]
    ),
    "padded to 10**9": lambda content: content.update(
        padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    ),
    "cut to nothing": lambda content: content.update(
        truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5}
    ),
    "that repeats a text": lambda content: content.update(
        post_processor={"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2, "pair": [], "special_tokens": {}}
    ),
    "that repeats a text 100,000 times": lambda content: content.update(
        post_processor={"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 100_000, "pair": [], "special_tokens": {}}
    ),
    "of pieces without an unknown one": lambda content: content.update(
        model={"type": "Unigram", "unk_id": 99, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
    ),
    "of pieces without any": lambda content: content.update(
        model={"type": "Unigram", "unk_id": None, "vocab": []}
    ),
    "of pairs that are none": lambda content: content.update(
        model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"] * 10}
    ),
    "of pairs that are dropped": lambda content: content.update(
        model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [], "dropout": 0.5}
    ),
    "of words of 10**12 letters": lambda content: content["model"].update(
        max_input_chars_per_word=10**12
    ),
    "of an unknown model": lambda content: content.update(model={"type": "Evil"}),
    "of no model": lambda content: content.update(model=None),
    "that is a list": lambda content: [content],
    "with a letter of 10 MB": lambda content: content["model"]["vocab"].update(
        {"x" * (10 << 20): 90}
    ),
}.items():  # fmt: skip
    tokenizer(_name, _change)
for _name, _text in {
    "nested 100,000 deep": b"[" * 100_000,
    "not UTF-8": b'{"model": "\xff"}',
    "70 MB": b'{"model": "' + b"a" * (70 << 20) + b'"}',
}.items():
    add(
        "bert llama",
        f"tokenizer.json is {_name}",
        lambda folder, _, text=_text: (folder / "tokenizer.json").write_bytes(text),
    )
tokenizer("splits at '(l+i*k*)+$'", lambda content: content.update(pre_tokenizer=_split("(l+)+$")), "llama t5")  # fmt: skip

# a teacher for distillation
config("teacher", num_hidden_layers=10**9)
config("teacher", hidden_size=1 << 17)
add("teacher", "config.json is a pipe", instead("config.json", lambda path, _: os.mkfifo(path)))

# a folder in the place of an artifact
config("folder", num_hidden_layers=10**9)
for _file in ("artifact.json", "export.json", "config.json", "recipe.lock.yaml", "signature.json"):
    add("folder", f"{_file} is a pipe", instead(_file, lambda path, _: os.mkfifo(path)))

# artifacts and exports that were made from such folders
for _kind, _place in (("artifact", "recipe.model.architecture.config"),) * 1:
    for _key, _value in (
        ("num_hidden_layers", 10**9), ("num_hidden_layers", 1000), ("hidden_size", 1 << 17),
        ("vocab_size", 10**12), ("num_attention_heads", 0), ("hidden_act", "os.system"),
        ("model_type", "../evil"), ("max_position_embeddings", 1 << 24), ("pad_token_id", 10**6),
        ("auto_map", {"AutoModel": "evil.Evil"}), ("transformers_weights", "../x"),
        ("attn_implementation", "evil/kernel"), ("layer_norm_eps", "x"),
    ):  # fmt: skip
        add(
            _kind,
            f"architecture {_key}={_value!r:.30}",
            lambda folder, _, place=f"{_place}.{_key}", value=_value: artifacts.change(
                folder, lambda manifest: artifacts.at(manifest, place, value)
            ),
        )


def _stored_tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The tokenizer.json inside an artifact is changed."""

    def spoil(folder: Path, outside: Path) -> None:
        def spoil_manifest(manifest: dict[str, Any]) -> None:
            for column in manifest["preprocessing"]["columns"]:
                for step in column["steps"]:
                    state = step["state"].get("tokenizer") or {}
                    if "text" in state:
                        content = json.loads(state["text"])
                        change(content)
                        state["text"] = json.dumps(content)

        artifacts.change(folder, spoil_manifest)

    return spoil


for _name, _change in {
    "splits at (l+)+$": lambda content: content.update(pre_tokenizer=_split("(l+)+$")),
    "splits at a{0,9}": lambda content: content.update(pre_tokenizer=_split("a{0,9}b")),
    "maps letters wrongly": lambda content: content.update(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "/////////////w=="}
    ),
    "replaces e by 10**9": lambda content: content.update(
        normalizer={
            "type": "Sequence",
            "normalizers": [_replace({"String": "e"}, "e" * 1000)] * 3,
        }
    ),
    "has a code of 10**9": lambda content: content["model"]["vocab"].update(zz=10**9),
}.items():
    add("artifact", f"its tokenizer {_name}", _stored_tokenizer(_change))


def _exported(**values: object) -> Spoil:
    """config.json of an export is changed, its checksum made good."""

    def spoil(folder: Path, outside: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        content.update(values)
        artifacts.put(folder, "config.json", json.dumps(content).encode())

    return spoil


for _values in (
    {"num_hidden_layers": 10**9},
    {"num_hidden_layers": 900},
    {"hidden_size": 1 << 17, "head_dim": 1 << 15},
    {"vocab_size": 1 << 22},
    {"num_attention_heads": 0},
    {"rope_parameters": {"rope_theta": "x"}},
    {"rope_theta": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 0}},
    {"max_position_embeddings": 1 << 24},
    {"quantization_config": {"quant_method": "x"}},
):
    add("export", f"config {_values!r:.60}", _exported(**_values))
add(
    "export",
    "weights are a link out of it",
    instead(
        "model.safetensors",
        lambda path, outside: path.symlink_to(outside / "other" / "model.safetensors"),
    ),
)
add("export", "its weights have a header of 2**63 bytes", lambda folder, _: artifacts.put(folder, "model.safetensors", artifacts.tensors(b"{}", length=2**63 - 1)))  # fmt: skip


# --- sound folders --------------------------------------------------------------------------------


def recipe(kind: str, folder: Path, home: Path) -> dict[str, Any]:
    """The recipe of a short training that starts from a folder."""
    source = str(home / ("images" if kind == "vit" else "rows.jsonl"))
    data: dict[str, Any] = {"source": source, "checks": "off"}
    task: Any = "classification"
    if kind in ("llama", "gpt2"):
        task = {"name": "language_modeling", "context": 16, "samples": 0}
        data["source"] = str(home / "poem.txt")
    elif kind == "t5":
        task = "sequence_to_sequence"
        data |= {"source": str(home / "pairs.jsonl"), "target": "answer"}
        data["columns"] = {"text": {"kind": "text"}, "answer": {"kind": "text"}}
    elif kind == "bert":
        data |= {"target": "label", "columns": {"text": {"kind": "text"}}}
    else:
        data["target"] = "label"
    return {
        "name": "begun",
        "task": task,
        "data": data,
        "model": {"name": "pretrained", "path": str(folder)},
        "train": {"steps": 1, "batch_size": 4},
        "watchers": [],
    }


def prepare(home: Path) -> None:
    """Write sound folders, the rows that verbs are given, and what lies outside."""
    sys.path.append(str(Path(__file__).parents[1]))
    import numpy as np
    import transformers

    import danlu
    import tiny_checkpoints as tiny
    from danlu.system.image_grid import encode_png

    transformers.utils.logging.disable_progress_bar()
    os.environ["DANLU_CACHE"] = str(home / "cache")
    rows = tiny.sentences(60)
    tiny.write_rows(home / "rows.jsonl", rows)
    pairs = [{"text": row["text"], "answer": row["label"]} for row in rows]
    tiny.write_rows(home / "pairs.jsonl", pairs)
    tiny.write_rows(home / "texts.jsonl", [{"text": "the film is great"}])
    (home / "poem.txt").write_text("the film is a play and a story\n" * 60)
    draw = np.random.default_rng(0)
    for colour in ("red", "green", "blue"):
        (home / "images" / colour).mkdir(parents=True)
        for number in range(6):
            pixels = draw.integers(0, 250, (16, 16, 3), dtype=np.uint8)
            (home / "images" / colour / f"{number}.png").write_bytes(encode_png(pixels))
    tiny.bert(home / "bert", {0: "bad", 1: "good"})
    for name in ("llama", "gpt2", "t5", "vit"):
        (getattr(tiny, name))(home / name)
    # as danlu's own networks need them
    rewrite(home / "bert", "config.json", lambda content: content.update(pad_token_id=0))
    rewrite(home / "llama", "config.json", lambda content: content.update(rms_norm_eps=1e-5))
    outside = home / "outside"
    outside.mkdir()
    tiny.bert(outside / "other", {0: "bad", 1: "good"})
    (outside / "secret.txt").write_text("nobody may read this")
    writer = {
        **recipe("llama", home / "llama", home),
        "model": {"name": "gpt", "size": "tiny", "width": 32, "num_heads": 4,
                  "feed_forward": "swiglu", "qk_norm": False},
    }  # fmt: skip
    tokens = {"kind": "file", "tokenizer": str(home / "llama" / "tokenizer.json")}
    writer["data"]["transforms"] = {"text": [{"name": "tokenize", **tokens}]}
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        danlu.train(recipe("bert", home / "bert", home), home / "runs" / "bert")
        danlu.train(writer, home / "runs" / "writer")
        writer["data"] = {
            **writer["data"],
            "transforms": {"text": [{"name": "tokenize", "kind": "bytes"}]},
        }
        exported = danlu.train(writer, home / "runs" / "exported")
        danlu.export(exported, "huggingface", home / "export", rows=str(home / "poem.txt"))
    for name, run in (("artifact", "bert"), ("writer", "writer"), ("bytes", "exported")):
        shutil.copytree(home / "runs" / run / "artifact", home / name)


# --- a verb in a process of its own ---------------------------------------------------------------


def words(verb: str, folder: Path, kind: str, home: Path) -> list[str]:
    """The command line of a verb."""
    path = str(folder)
    text = kind in ("writer", "export", "llama")
    rows = str(home / ("poem.txt" if text else "rows.jsonl"))
    own = ["train", "begun.json", "--run", "begun"]
    return {
        "check": ["check", "begun.json"],
        "train": own,
        "tokenizer": ["train", "tokens.json", "--run", "begun"],
        "weights": ["train", "weights.json", "--run", "begun"],
        "distil": [
            "compress", str(home / "artifact"), "--with", f"distil:teacher={path},student=small.json",
            "--out", "small",
        ],
        "predict": ["predict", path, str(home / "texts.jsonl")],
        "evaluate": ["evaluate", path, rows],
        "generate": ["generate", path, "--prompt", "the film", "--max-tokens", "3"],
        "export": ["export", path, "--to", "safetensors", "--out", "made", "--rows", rows],
        "compress": ["compress", path, "--with", "int8_weight_only:smallest=1", "--out", "small"],
        "verify": ["verify", path, "--against", str(home / "bytes"), "--rows", rows],
    }[verb]  # fmt: skip


def write_recipes(folder: Path, kind: str, home: Path) -> None:
    """The recipes that verbs name, in the working folder."""
    base = BASES.get(kind, kind)
    own = recipe(base, folder, home)
    tokens = {"name": "tokenize", "kind": "file", "tokenizer": str(folder / "tokenizer.json")}
    gpt = {"name": "gpt", "size": "tiny", "width": 16, "num_heads": 2}
    text = recipe("llama", folder, home)
    tokenized = {**text["data"], "transforms": {"text": [tokens]}}
    small = {**recipe("bert", home / "bert", home), "model": {"name": "encoder", "width": 16}}
    like = {"name": "gpt", "size": "tiny", "width": 32, "num_heads": 4, "feed_forward": "swiglu",
            "qk_norm": False, "weights": str(folder)}  # fmt: skip
    kept = {"name": "tokenize", "kind": "file", "tokenizer": str(folder)}
    continued = {**text["data"], "transforms": {"text": [kept]}}
    for name, content in {
        "begun": own,
        "tokens": {**text, "data": tokenized, "model": gpt},
        "weights": {**text, "data": continued, "model": like},
        "small": small,
    }.items():
        Path(f"{name}.json").write_text(json.dumps(content))


def act(verb: str, folder: Path, kind: str, home: Path) -> None:
    """Run a verb in this process."""
    from danlu.errors import DanluError

    write_recipes(folder, kind, home)
    if verb == "read":
        import danlu

        try:
            danlu.read_hugging_face(folder)
        except DanluError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
        return
    if verb == "serve":
        artifacts.act("serve", folder, "text" if kind != "artifact" else "table", home)
        return
    from danlu.cli.app import main

    sys.argv = ["danlu", *words(verb, folder, kind, home)]
    main()


def run(case: Case, verb: str, folder: Path, home: Path) -> Outcome:
    """A verb in a forked process, with what was wrong in it."""
    sandbox = Path(tempfile.mkdtemp(prefix="sandbox-", dir=home))
    log, events = sandbox / "log", sandbox / "events"
    process = os.fork()
    if process == 0:
        _child(case, verb, folder, home, sandbox)
    code, usage = artifacts.waited(process, SECONDS)
    wrong = json.loads(events.read_text()) if events.exists() else ["the process died"]
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    cpu_seconds = usage.ru_utime + usage.ru_stime
    mebibytes = usage.ru_maxrss // 1024
    endings = (0,) if CONTROL in case.name and verb in SOUND.get(case.kind, ()) else ENDINGS
    wrong += ["a traceback"] if "Traceback" in text else []
    wrong += [f"exit code {code}"] if code not in endings else []
    wrong += [f"{cpu_seconds:.0f} s of processor time"] if cpu_seconds > CPU_SECONDS else []
    wrong += [f"{mebibytes} MiB"] if mebibytes > RESIDENT else []
    wrong += ["no message"] if code in (2, 4) and not text.strip() else []
    shutil.rmtree(sandbox, ignore_errors=True)
    return Outcome(case.name, verb, code, text.strip()[-400:], wrong, cpu_seconds, mebibytes)


# the verbs that succeed with a sound folder of a kind; the others refuse it
SOUND = {
    "bert": ("train", "read"),
    "folder": ("check",),
    "teacher": ("distil",),
    "llama": ("train", "read", "tokenizer"),
    "gpt2": ("train",),
    "t5": ("train",),
    "vit": ("train",),
    "artifact": ("predict", "evaluate", "serve", "export", "compress"),
    "writer": ("generate", "serve", "weights"),
    "export": ("verify", "serve", "read"),
}


def _child(case: Case, verb: str, folder: Path, home: Path, sandbox: Path) -> NoReturn:
    inputs = ("images", "pairs.jsonl", "bert", "llama", "artifact", "bytes")
    artifacts.live_in(
        sandbox,
        lambda: act(verb, folder, case.kind, home),
        memory=MEMORY,
        may_read=[*artifacts.allowed(home), str(folder), *(str(home / name) for name in inputs)],
        environment={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        programs=("tokenizer_trial.py",),
    )


# --- all of it ------------------------------------------------------------------------------------


def warm(home: Path) -> None:
    """Import what the verbs need, so that each process begins with it."""
    import importlib

    import torch

    torch.set_num_threads(1)
    names = (
        "cli.app", "training.loop", "exporting.export", "compression.compress", "artifact.prediction",
        "artifact.hugging_face", "serving.worker.models", "serving.text.engine",
        "serving.worker.text_handler", "layers.pretrained.network",
    )  # fmt: skip
    for name in names:
        importlib.import_module(f"danlu.{name}")
    import tokenizers  # noqa: F401
    import transformers

    for name in ("Bert", "Llama", "GPT2", "T5", "ViT"):
        getattr(transformers, f"{name}Config")
    for name in ("SequenceClassification", "CausalLM", "Seq2SeqLM", "ImageClassification"):
        getattr(transformers, f"AutoModelFor{name}")


def attack(case: Case, home: Path, verbs: Sequence[str] = ()) -> list[Outcome]:
    """Every verb that reads such a folder (or those named), one after the other."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-", dir=home)) / "folder"
    shutil.copytree(home / BASES.get(case.kind, case.kind), folder)
    case.spoil(folder, home / "outside")
    outcomes = []
    for verb in VERBS[case.kind]:
        if verbs and verb not in verbs:
            continue
        with artifacts.watched(home / "outside") as events:
            outcome = run(case, verb, folder, home)
            outcomes.append(dataclasses.replace(outcome, wrong=[*outcome.wrong, *events()]))
    shutil.rmtree(folder.parent, ignore_errors=True)
    return outcomes


def _in_another_process(work: Callable[[Path], None], home: Path) -> None:
    """A process that has trained has threads, and cannot be forked soundly."""
    process = os.fork()
    if process == 0:
        try:
            work(home)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        raise RuntimeError("the sound folders could not be made")


def main() -> None:
    """Attack, print a line for each folder and what was wrong, and exit with 1 where anything
    was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument(
        "--few", action="store_true", help="every tenth case with one verb (for the test suite)"
    )
    parser.add_argument("--show", action="store_true", help="print the messages too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="danlu-hostile-") as folder:
        home = Path(folder).resolve()
        _in_another_process(prepare, home)
        warm(home)
        chosen = [case for case in CASES if arguments.only in case.name]
        chosen = chosen[::10] if arguments.few else chosen
        outcomes = []
        for case in chosen:
            verbs = VERBS[case.kind][-1:] if arguments.few and case.kind != "bert" else ()
            verbs = ("train",) if arguments.few and case.kind == "bert" else verbs
            runs = attack(case, home, verbs)
            outcomes += runs
            ends = " ".join(f"{one.verb}:{one.code}" for one in runs)
            cpu = max(one.cpu_seconds for one in runs)
            print(
                f"{case.name} | {ends} | {cpu:.1f} s | {max(one.mebibytes for one in runs)} MiB",
                flush=True,
            )
            for one in runs:
                if one.wrong or arguments.show:
                    print(f"    {one.verb}: {one.wrong} {one.message!r}", flush=True)
    wrong = [one for one in outcomes if one.wrong]
    print(f"{len(chosen)} hostile folders, {len(outcomes)} runs of verbs: {len(wrong)} wrong")
    print(
        f"at most {max(one.mebibytes for one in outcomes)} MiB and "
        f"{max(one.cpu_seconds for one in outcomes):.1f} s of processor time"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
