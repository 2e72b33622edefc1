"""Where a verb prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from danlu.training.loop import Output


def print_json(value: object) -> None:
    """Print a result as JSON, to stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=1))


def print_note(text: str = "") -> None:
    """Print what is no result (advice, a note, an error), to stderr."""
    with contextlib.suppress(OSError):  # a closed stderr does not make finished work fail
        print(text, file=sys.stderr, flush=True)


def progress_output(as_json: bool, quiet: bool) -> Output:
    """How a verb shows its progress: "json", "quiet", or what the terminal allows."""
    if as_json:
        return "json"
    if quiet:
        return "quiet"
    from danlu.training.loop import default_output

    return default_output()
