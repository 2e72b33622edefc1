"""A program of torch.export (.pt2) without anything that could run when it is read: numbers, and a graph of torch's own operators.

What torch.export.save writes is a zip: the graph as JSON, weights and constants as raw bytes, and
example inputs as a pickle. When it is read back, torch unpickles (the examples, and what a payload
declares so), evaluates expressions of sizes, runs guards that are Python code, and takes any name
under `torch` as an operator. `cleaned` gives the same program without pickles, guards and traces of
source files, and refuses what is no plain program; danlu reads no other. So a file that danlu wrote
holds no pickle at all."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

MOST_GRAPH = 512 << 20  # bytes of the graph
DEEPEST = 200
_MEMBER = re.compile(r"[\w.-]{1,100}/(?P<inner>[\w./-]{1,200})")
_KEPT = (
    re.compile(r"data/(weights/weight|constants/tensor)_\d+"),
    re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json"),
    re.compile(r"models/model\.json"),
    re.compile(r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"),
)
EXAMPLES = "data/sample_inputs/model.pt"
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|higher_order)\.\w+(\.\w+)?|torch\.sym_(float|int|ite|max|min|not|sqrt|sum)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|getitem|and_|or_|pos)|math\.(ceil|floor|sqrt|trunc)"
)
_EXPRESSION = re.compile(r"[\w\s'=,()*+/<>.-]{1,2000}")
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = frozenset(
    _WORD.findall(
        """
        Symbol Integer Rational Add Mul Pow Max Min Mod FloorDiv CeilDiv CleanDiv PythonMod IntTrueDiv FloatTrueDiv
        ModularIndexing Where CeilToInt FloorToInt RoundToInt TruncToInt ToFloat Abs Eq Ne Lt Le Gt Ge And Or Not true false
        True False positive integer nonnegative real StrictLessThan LessThan StrictGreaterThan GreaterThan Equality
        Unequality
        """
    )
)
_SYMBOL = re.compile(r"[suzf]\d{1,9}|u\d{1,9}")


def cleaned(data: bytes) -> bytes:
    """The program in the bytes of a .pt2, rewritten. Raises ValueError naming what is no part of a
    plain program."""
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as target:
            seen: set[str] = set()
            for each in archive.infolist():
                inner = _inner(each, seen)
                if inner == EXAMPLES:
                    content = b""  # a pickle
                else:
                    content = archive.read(each)
                    if inner.endswith(".json"):
                        content = _json(inner, content)
                target.writestr(
                    zipfile.ZipInfo(each.filename), content
                )  # at one date: equal programs are equal files
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        RecursionError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"it is no program of torch.export ({type(error).__name__})") from None
    return made.getvalue()


def _inner(each: zipfile.ZipInfo, seen: set[str]) -> str:
    """The name of a member behind the archive's own name."""
    found = _MEMBER.fullmatch(each.filename)
    inner = found["inner"] if found else ""
    if ".." in inner or not (inner == EXAMPLES or any(kind.fullmatch(inner) for kind in _KEPT)):
        raise ValueError(f"it holds {each.filename[:80]!r}, which is no part of a plain program")
    if (
        inner in seen
        or each.compress_type != zipfile.ZIP_STORED
        or each.file_size != each.compress_size
    ):
        raise ValueError(f"{inner} is there twice, or packed")
    if inner.endswith(".json") and each.file_size > MOST_GRAPH:
        raise ValueError(f"{inner} has {each.file_size:,} bytes")
    seen.add(inner)
    return inner


def _json(name: str, content: bytes) -> bytes:
    value = json.loads(content)
    if name.startswith("data/"):
        for key, each in value["config"].items():
            if each.get("use_pickle") is not False or not re.fullmatch(
                r"(weight|tensor)_\d+", str(each.get("path_name"))
            ):
                raise ValueError(f"{str(key)[:80]} is kept as a pickle")
    else:
        value["guards_code"] = []
        if value["graph_module"].get("treespec_namedtuple_fields"):
            raise ValueError("its arguments are of types of somebody else")
        _check(value, 0)
    return json.dumps(value).encode()


def _check(value: Any, depth: int) -> None:
    """Refuse what torch would run while it reads or runs the graph; leave out what tells of source
    files."""
    if depth > DEEPEST:
        raise ValueError(f"its graph goes more than {DEEPEST} levels deep")
    if isinstance(value, list):
        for each in value:
            _check(each, depth + 1)
    if not isinstance(value, Mapping):
        return
    for key, each in value.items():
        if key in ("as_custom_obj", "as_operator", "custom_obj") and each:
            raise ValueError("it holds an object of a class")
        if key == "expr_str":
            _check_expression(each)
        elif key in ("in_spec", "out_spec"):
            _check_types(json.loads(each), 0)
        elif key == "target" and "outputs" in value and "inputs" in value:
            if not isinstance(each, str) or not _OPERATOR.fullmatch(each):
                raise ValueError(f"it calls {str(each)[:80]!r}, which is none of torch's operators")
        else:
            _check(each, depth + 1)
    if "target" in value and "metadata" in value:
        value["metadata"] = {}  # type: ignore[index]


def _check_expression(text: Any) -> None:
    """An expression of sizes: torch evaluates it as Python."""
    sound = (
        isinstance(text, str)
        and _EXPRESSION.fullmatch(text)
        and not re.search(r"__|\.\s*[A-Za-z_]", text)
    )
    odd = (
        []
        if not sound
        else [
            word
            for word in _WORD.findall(text)
            if word not in _WORDS and not _SYMBOL.fullmatch(word)
        ]
    )
    if not sound or odd:
        raise ValueError(f"it holds the size {str(text)[:80]!r}, which is no expression of sizes")


def _check_types(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"its arguments go more than {DEEPEST} levels deep")
    if isinstance(value, list):
        for each in value:
            _check_types(each, depth + 1)
    if isinstance(value, Mapping):
        if value.get("type") not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
            raise ValueError(f"its arguments are of the type {str(value.get('type'))[:80]!r}")
        _check_types(value.get("children_spec", []), depth + 1)
