"""Read YAML 1.2 (and so JSON) with the line of every value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from danlu.errors import Problem, RecipeError
from danlu.recipe.messages import dotted_name, format_value
from danlu.recipe.tree import DEEPEST

LARGEST_RECIPE = 100_000  # bytes; a recipe is a page, and a byte takes some 10 microseconds
# After aliases are followed, so that an alias bomb stops here.
MOST_NODES = 20_000  # values and keys
MOST_LETTERS = 200_000  # of all texts and keys together
_LONGEST_NUMBER = 400  # digits
_LONGEST_NAME = 255  # letters of what messages call the text; each line has it


class _Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars: 1e-3 is a number, `no` and 12:30 are texts.

    It stops at a document too large or too deep as soon as it has read that far."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name_of_file = name
        self.nodes = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        line = f"{self.name_of_file}:{self.peek_event().start_mark.line + 1}"
        if self.nodes > MOST_NODES:
            raise _too_many(line)
        if self.depth > DEEPEST + 1:  # the whole document is depth 1, and level 0
            raise _too_deep(line)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _too_many(line: str) -> RecipeError:
    return RecipeError([Problem(line, f"the recipe holds more than {MOST_NODES:,} values.")])


def _too_deep(line: str) -> RecipeError:
    return RecipeError([Problem(line, f"the recipe is nested deeper than {DEEPEST} levels.")])


TAG = "tag:yaml.org,2002:"
_SCALARS: list[tuple[str, str, str]] = [
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
]
_FORMS = {kind: re.compile(pattern) for kind, pattern, _ in _SCALARS}


def set_scalars(reader: type[yaml.resolver.BaseResolver]) -> None:
    """Make a class of PyYAML resolve plain scalars as YAML 1.2 does."""
    reader.yaml_implicit_resolvers = {}
    for kind, pattern, first in _SCALARS:
        letters = ["" if letter == "\0" else letter for letter in first]
        reader.add_implicit_resolver(TAG + kind, re.compile(pattern), letters)


set_scalars(_Yaml12)


def read_page(path: Path) -> str:
    """The text of a YAML file. Raises RecipeError where it has more than LARGEST_RECIPE bytes,
    UnicodeDecodeError where it is not UTF-8, OSError where it cannot be read."""
    with path.open("rb") as file:
        data = file.read(LARGEST_RECIPE + 1)  # not what stat says: a device has no size
    if len(data) > LARGEST_RECIPE:
        size = max(path.stat().st_size, len(data))
        message = f"the file has {size:,} bytes; a recipe has at most {LARGEST_RECIPE:,}."
        raise RecipeError([Problem(str(path), message)])
    return data.decode("utf-8-sig")


def read_yaml(text: str, name: str) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """(value, where) of a YAML 1.2 (or JSON) text; `where` maps each path of keys to "name:line".

    Raises RecipeError for what is not YAML, duplicate keys, tags, alias bombs and documents too
    deep."""
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    tree = _Tree(name)
    node = _compose(_without_tabs(text), name)
    value = None if node is None else tree.value(node, ())
    if tree.problems:
        raise RecipeError(tree.problems)
    return value, tree.where


def _without_tabs(text: str) -> str:
    """JSON may be indented with tabs and YAML may not: a valid JSON text has its tabs replaced by
    spaces. (Inside strings JSON allows no tabs.)"""
    if "\t" in text and text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text.replace("\t", " ")
    return text


def _compose(text: str, name: str) -> yaml.Node | None:
    """The YAML nodes of a text. Raises RecipeError with the line of its first mistake."""
    try:
        loader = _Yaml12(text, name)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        message = ", ".join(filter(None, [error.context, error.problem])) or str(error)
        raise RecipeError(
            [
                Problem(
                    f"{name}:{line + 1}",
                    f"this is not YAML: {message.strip()}.",
                    _yaml_hint(text, line),
                )
            ]
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        sign = (
            error.character
            if isinstance(error.character, int)
            else ord(str(error.character)[:1] or "\0")
        )
        raise RecipeError(
            [
                Problem(
                    f"{name}:{line}",
                    f"the character U+{sign:04X} is not allowed in a recipe.",
                    "delete it",
                )
            ]
        ) from None
    except yaml.YAMLError as error:
        raise RecipeError(
            [Problem(f"{name}:1", f"this is not YAML: {str(error).splitlines()[0]}.")]
        ) from None
    except RecursionError:
        raise _too_deep(f"{name}:1") from None
    except (ValueError, OverflowError) as error:  # \U00110000, a %YAML of 5,000 digits
        raise RecipeError([Problem(f"{name}:1", f"this is not YAML: {error}.")]) from None


def _yaml_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    near = lines[max(line - 1, 0) : line + 1]
    if any("\t" in line_text[: len(line_text) - len(line_text.lstrip())] for line_text in near):
        return "YAML is indented with spaces, not tabs"
    if lines[line : line + 1] and re.search(r"(^|[:\s-])[@`%*&!]", lines[line]):
        return "put text that begins with a special character in quotes"
    return "look at the colon, the indentation and the brackets of this line and the one before"


class _Tree:
    """Turns YAML nodes into plain data, and collects the line of each value and every problem."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.where: dict[tuple[Any, ...], str] = {(): f"{name}:1"}
        self.problems: list[Problem] = []
        self.count = self.letters = 0
        self.lines: dict[int, str] = {}

    def value(self, node: yaml.Node, path: tuple[Any, ...]) -> Any:
        """The plain data of a node."""
        self.count += 1
        line = self.line(node)
        if len(path) > DEEPEST:
            raise _too_deep(line)
        if self.count > MOST_NODES:
            raise _too_many(line)
        self.where.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            self.refuse_tag(node, "map")
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self.refuse_tag(node, "seq")
            return [self.value(child, (*path, number)) for number, child in enumerate(node.value)]
        return self.scalar(node)

    def line(self, node: yaml.Node) -> str:
        number = node.start_mark.line + 1
        return self.lines.setdefault(number, f"{self.name}:{number}")

    def mapping(self, node: yaml.MappingNode, path: tuple[Any, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            line = self.line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(
                    Problem(line, "a key must be a word.", "put text with brackets in quotes")
                )
                continue
            self.scalar(key_node)  # checks its tag; the key itself is the text as it is written
            key = self.text(key_node)
            if key in result:
                first = self.where[(*path, key)].rpartition(":")[2]
                self.problems.append(
                    Problem(
                        line,
                        f"{dotted_name((*path, key))} is given twice (first on line {first}).",
                        "keep one of the two",
                    )
                )
                self.value(child, (*path, key))  # notes the problems inside it too
                continue
            if key == "<<" and key_node.style is None:
                self.problems.append(
                    Problem(line, "merge keys (<<) are no part of YAML 1.2.", "write the keys out")
                )
            self.where[(*path, key)] = line
            result[key] = self.value(child, (*path, key))
        return result

    def refuse_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag != TAG + expected:
            self.problems.append(
                Problem(
                    self.line(node),
                    f"the tag {_short_tag(node.tag)} is not allowed.",
                    "a recipe is plain data",
                )
            )

    def text(self, node: yaml.Node) -> str:
        """The text of a scalar; JSON's surrogate pairs become the character that they stand for."""
        text = str(node.value)
        self.letters += len(text)
        if self.letters > MOST_LETTERS:
            raise RecipeError(
                [
                    Problem(
                        self.line(node),
                        f"the recipe's texts have more than {MOST_LETTERS:,} letters together.",
                        "write fewer aliases (*name)",
                    )
                ]
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self.problems.append(
                    Problem(self.line(node), "this text holds half a character (a lone surrogate).")
                )
                return ""
        return text

    def scalar(self, node: yaml.Node) -> Any:
        """The value of a scalar: None, a boolean, a number or a text."""
        text, kind = self.text(node), node.tag.removeprefix(TAG)
        if kind == "str":
            return text
        if kind not in _FORMS:
            self.refuse_tag(node, "str")
            return None
        if not _FORMS[kind].match(text):  # an explicit tag on something else: !!int twelve
            self.problems.append(
                Problem(
                    self.line(node),
                    f"the tag says {kind}, and {format_value(text)} is of another type.",
                    "leave the tag out",
                )
            )
            return None
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if len(text) > _LONGEST_NUMBER:
            self.problems.append(
                Problem(self.line(node), f"a number of {len(text):,} digits is too long.")
            )
            return None
        if kind == "int":
            return int(text, 0) if text.lower().startswith(("0x", "0o")) else int(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _short_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(TAG) if tag.startswith(TAG) else tag
