"""Where a verb prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from danlu.errors import CONTROLS
from danlu.system.standard_streams import print_line, print_result

__all__ = ["json_text", "print_json", "print_note", "print_result", "progress_output"]

if TYPE_CHECKING:
    from danlu.training.loop import Output


def print_json(value: object) -> None:
    """Print a result as JSON, to stdout."""
    print_result(json_text(value, indent=1))


def json_text(value: object, indent: int | None = None) -> str:
    r"""JSON in which every control character is an escape of JSON, so that it reads as the same.

    >>> print(json_text(["\x9b", "\u202e", "é"]))
    ["\u009b", "\u202e", "é"]
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def print_note(text: str = "") -> None:
    """Print what is no result (advice, a note, an error), to stderr."""
    print_line(text)


def progress_output(as_json: bool, quiet: bool) -> Output:
    """How a verb shows its progress: "json", "quiet", or what the terminal allows."""
    if as_json:
        return "json"
    if quiet:
        return "quiet"
    from danlu.training.loop import default_output

    return default_output()
