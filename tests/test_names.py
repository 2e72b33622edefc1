"""Names say the thing: words that say nothing of it are hardly used as identifiers.

python tests/test_names.py      every such name, with file, line and function, and the share
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / "src" / "danlu"
EMPTY_WORDS = frozenset(
    ["each", "found", "said", "told", "asked", "made", "given", "held", "known", "about", "place"]
)
MOST = 0.01  # of all names


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(name, line) of what a file binds: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def counted() -> tuple[list[str], int]:
    """(where names that say nothing are bound, how many names there are in all)."""
    empty, total = [], 0
    for path in sorted(HOME.rglob("*.py")):
        for name, line in names(ast.parse(path.read_text("utf-8"))):
            total += 1
            if name.strip("_") in EMPTY_WORDS:
                empty.append(f"{path.relative_to(HOME)}:{line} {name}")
    return empty, total


def test_names_say_the_thing() -> None:
    empty, total = counted()
    assert len(empty) <= MOST * total, "\n".join(empty)


if __name__ == "__main__":
    lines, count = counted()
    print(*lines, sep="\n")
    print(f"{len(lines)} of {count} names ({100 * len(lines) / count:.2f} %)")
