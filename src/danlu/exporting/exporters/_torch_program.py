"""A program of torch.export (.pt2) without anything that could run when it is read.

What torch.export.save writes is a zip: the graph as JSON, weights and constants as raw bytes, and
example inputs as a pickle. When torch reads it back it unpickles the examples and all that is
declared a pickle, evaluates expressions of sizes, runs guards that are Python code, and accepts any
name under `torch` as an operator. `plain_program` gives the same program without pickles, guards
and traces of source files, and refuses what is no plain program. danlu writes and reads nothing
else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

MOST_GRAPH = 512 << 20  # bytes of the graph
MAX_DEPTH = 200
_MEMBER = re.compile(r"[\w.-]{1,100}/(?P<inner>[\w./-]{1,200})")
_KEPT = (
    re.compile(r"data/(weights/weight|constants/tensor)_\d+"),
    re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json"),
    re.compile(r"models/model\.json"),
    re.compile(r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"),
)
EXAMPLES = "data/sample_inputs/model.pt"
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?"
    r"|torch\.sym_(float|int|ite|max|min|not|sqrt|sum)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|getitem)"
    r"|_operator\.(and_|or_|pos)|math\.(ceil|floor|sqrt|trunc)"
)
_EXPRESSION = re.compile(r"[\w\s'=,()*+/<>.-]{1,2000}")
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = frozenset(
    _WORD.findall(
        """
        Symbol Integer Rational Add Mul Pow Max Min Mod FloorDiv CeilDiv CleanDiv PythonMod
        IntTrueDiv FloatTrueDiv ModularIndexing Where CeilToInt FloorToInt RoundToInt TruncToInt
        ToFloat Abs Eq Ne Lt Le Gt Ge And Or Not true false True False positive integer nonnegative
        real StrictLessThan LessThan StrictGreaterThan GreaterThan Equality Unequality
        """
    )
)
_SYMBOL = re.compile(r"[suzf]\d{1,9}|u\d{1,9}")


def plain_program(data: bytes) -> bytes:
    """The bytes of a .pt2, rewritten without what could run. Raises ValueError naming what is no
    part of a plain program."""
    rewritten = io.BytesIO()
    try:
        with (
            zipfile.ZipFile(io.BytesIO(data)) as archive,
            zipfile.ZipFile(rewritten, "w") as target,
        ):
            seen: set[str] = set()
            for member in archive.infolist():
                inner = _member_name(member, seen)
                if inner == EXAMPLES:
                    content = b""  # a pickle
                else:
                    content = archive.read(member)
                    if inner.endswith(".json"):
                        content = _checked_json(inner, content)
                target.writestr(
                    zipfile.ZipInfo(member.filename), content
                )  # without a date, so that equal programs are equal files
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        RecursionError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"it is no program of torch.export ({type(error).__name__})") from None
    return rewritten.getvalue()


def _member_name(member: zipfile.ZipInfo, seen: set[str]) -> str:
    """The name of a zip member, without the archive's own name before it."""
    match = _MEMBER.fullmatch(member.filename)
    inner = match["inner"] if match else ""
    if ".." in inner or not (inner == EXAMPLES or any(kind.fullmatch(inner) for kind in _KEPT)):
        raise ValueError(f"it holds {member.filename[:80]!r}, which is no part of a plain program")
    if (
        inner in seen
        or member.compress_type != zipfile.ZIP_STORED
        or member.file_size != member.compress_size
    ):
        raise ValueError(f"{inner} is there twice, or compressed")
    if inner.endswith(".json") and member.file_size > MOST_GRAPH:
        raise ValueError(f"{inner} has {member.file_size:,} bytes")
    seen.add(inner)
    return inner


def _checked_json(name: str, content: bytes) -> bytes:
    value = json.loads(content)
    if name.startswith("data/"):
        for key, entry in value["config"].items():
            if entry.get("use_pickle") is not False or not re.fullmatch(
                r"(weight|tensor)_\d+", str(entry.get("path_name"))
            ):
                raise ValueError(f"{str(key)[:80]} is stored as a pickle")
    else:
        value["guards_code"] = []
        if value["graph_module"].get("treespec_namedtuple_fields"):
            raise ValueError("its arguments are of named tuples")
        _check(value, 0)
    return json.dumps(value).encode()


def _check(value: Any, depth: int) -> None:
    """Raise ValueError for what torch would run while it reads or runs the graph; remove, in place,
    traces of source files."""
    if depth > MAX_DEPTH:
        raise ValueError(f"its graph goes more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        for child in value:
            _check(child, depth + 1)
    if not isinstance(value, Mapping):
        return
    for key, child in value.items():
        if key in ("as_custom_obj", "as_operator", "custom_obj") and child:
            raise ValueError("it holds an object of a class")
        if key == "expr_str":
            _check_expression(child)
        elif key in ("in_spec", "out_spec"):
            _check_types(json.loads(child), 0)
        elif key == "target" and "outputs" in value and "inputs" in value:
            if not isinstance(child, str) or not _OPERATOR.fullmatch(child):
                raise ValueError(f"it calls {str(child)[:80]!r}, which is no operator of torch")
        else:
            _check(child, depth + 1)
    if "target" in value and "metadata" in value:
        value["metadata"] = {}  # type: ignore[index]


def _check_expression(text: Any) -> None:
    """Raise ValueError for what is no expression of sizes: torch evaluates it as Python."""
    sound = (
        isinstance(text, str)
        and _EXPRESSION.fullmatch(text)
        and not re.search(r"__|\.\s*[A-Za-z_]", text)
    )
    unknown = (
        []
        if not sound
        else [
            word
            for word in _WORD.findall(text)
            if word not in _WORDS and not _SYMBOL.fullmatch(word)
        ]
    )
    if not sound or unknown:
        raise ValueError(f"it holds the size {str(text)[:80]!r}, which is no expression of sizes")


def _check_types(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"its arguments go more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        for child in value:
            _check_types(child, depth + 1)
    if isinstance(value, Mapping):
        if value.get("type") not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
            raise ValueError(f"its arguments are of the type {str(value.get('type'))[:80]!r}")
        _check_types(value.get("children_spec", []), depth + 1)
