"""Writes docs/reference/parts.md from the parts themselves: what `danlu show` prints, shelf by shelf. Run: python docs/generate.py"""

from __future__ import annotations

import ast
from pathlib import Path

from danlu import registry

PAGE = Path(__file__).parent / "reference" / "parts.md"


def page() -> str:
    """The whole reference as Markdown."""
    lines = [
        "# The parts",
        "",
        "Made by `python docs/generate.py` from the parts themselves; `danlu show PART` prints the same.",
        "",
    ]
    for name in registry.shelves():
        promise = (
            ast.get_docstring(ast.parse((registry.folder(name) / "__init__.py").read_text("utf-8")))
            or ""
        )
        lines += [f"## {name}", "", promise.split("\n", 1)[0], ""]
        for part in registry.names(name):
            lines += [
                f"### {name}/{part}",
                "",
                "```",
                registry.describe(name, part).split("\n", 2)[2],
                "```",
                "",
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
