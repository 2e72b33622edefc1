"""Write plain data as YAML 1.2, in block style, so that readers of YAML 1.1 read the same.

PyYAML's writer decides how each text is written. Words that need no thought are written directly:
a recipe of ten thousand columns has a hundred thousand of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from danlu.errors import escape_controls
from danlu.recipe.yaml12 import TAG, set_scalars

_WIDTH = 120
_SHORT = 60  # letters of a text that is written on one line
_MOST_ALONE = 1000  # texts that are written one by one, each as slowly as five by PyYAML
_FLOATS = yaml.representer.SafeRepresenter()
_OLD_READER = yaml.resolver.Resolver()  # YAML 1.1, as most other tools read it
_WORD = re.compile(r"(?!(?:null|true|false|yes|no|on|off|y|n)\Z)[a-z_][\w./-]*", re.I | re.A)
# PyYAML folds these line breaks away, and leaves the controls of writing direction as they are,
# unless they are written as escapes
_ESCAPED = re.compile("[\x85\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class _Writer(yaml.SafeDumper):
    """Writes texts in quotes where YAML 1.2 or 1.1 would read something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return (
            _OLD_READER.resolve(kind, value, implicit)
            if tag == TAG + "str" and kind is yaml.ScalarNode
            else tag
        )

    def text(self, value: str) -> yaml.Node:
        return self.represent_scalar(
            TAG + "str", value, style='"' if _ESCAPED.search(value) else None
        )


set_scalars(_Writer)
_Writer.add_representer(str, _Writer.text)


def write_yaml(value: Any) -> str:
    """Plain data as a YAML 1.2 text, keys in their order.

    >>> write_yaml({"answer": "no", "rate": 0.1})
    "answer: 'no'\\nrate: 0.1\\n"
    """
    if not isinstance(value, dict | list) or not value:
        return _dump(value)
    block = _Block(value)
    if block.alone > _MOST_ALONE:
        return _dump(value)
    return "".join(f"{line}\n" for line in block.lines(value, 0))


def _dump(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return escape_controls(text)  # inside double quotes, where YAML has the same escapes


class _Block:
    """The lines of a document, equal to those of PyYAML."""

    def __init__(self, document: Any) -> None:
        others = [text for text in _texts(document) if not _is_word(text)]
        on_one_line = sorted(
            {text for text in others if len(text) <= _SHORT and text.isprintable()}
        )
        lines = _dump(on_one_line).split("\n")[:-1] if on_one_line else []
        self.written = dict(zip(on_one_line, (line[2:] for line in lines), strict=True))
        self.alone = sum(text not in self.written for text in others)

    def scalar(self, value: Any) -> str | None:
        """A scalar, or an empty list or mapping, as it is written on its line; None where that
        depends on what stands around it."""
        if isinstance(value, str):
            return value if _is_word(value) else self.written.get(value)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, dict | list):
            return "{}" if isinstance(value, dict) else "[]"
        if isinstance(value, float):
            return str(_FLOATS.represent_float(value).value)
        return str(value) if isinstance(value, int) else _dump(value).removesuffix("\n...\n")

    def lines(self, value: Any, indent: int) -> Iterator[str]:
        """The lines of a mapping or list that is not empty."""
        if isinstance(value, dict):
            for key, child in value.items():
                yield from self.pair(key, child, indent)
        else:
            for child in value:
                yield from self.item(child, indent)

    def pair(self, key: Any, value: Any, indent: int) -> Iterator[str]:
        """The lines of a key and its value."""
        margin, name = " " * indent, self.scalar(key) if key else None
        nested = isinstance(value, dict | list) and bool(value)
        text = None if nested else self.scalar(value)
        if name is None or (text is None and not nested):
            yield from _alone({key: value}, indent // 2)
        elif nested:
            yield f"{margin}{name}:"
            yield from self.lines(value, indent + 2 if isinstance(value, dict) else indent)
        else:
            yield f"{margin}{name}: {text}"

    def item(self, value: Any, indent: int) -> Iterator[str]:
        """The lines of an entry of a list."""
        margin = " " * indent
        if isinstance(value, dict | list) and value:
            inner = self.lines(value, indent + 2)
            yield f"{margin}- {next(inner)[indent + 2 :]}"
            yield from inner
            return
        text = self.scalar(value)
        if text is None:
            yield from _alone([value], indent // 2 + 1)
        else:
            yield f"{margin}- {text}"


def _is_word(text: str) -> bool:
    return len(text) <= _SHORT and _WORD.fullmatch(text) is not None


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data, the keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (key for key in value if isinstance(key, str))
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)


def _alone(value: Any, levels: int) -> Iterator[str]:
    """The lines that PyYAML writes for `value` inside as many mappings."""
    for _ in range(levels):
        value = {"k": value}
    yield from _dump(value).removesuffix("\n").split("\n")[levels:]
