"""typer: the base class of its errors about the command line.

typer brings its own copy of click, or uses the library, as its version has it; only the errors that
derive from this class have public names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO, cast

import typer

if TYPE_CHECKING:

    class CommandLineError(Exception):
        """A command line that is refused."""

        exit_code: int

        def show(self, file: TextIO) -> None:
            """Print what is wrong with it, and how it is used."""


_names = {base.__name__: base for base in typer.BadParameter.__mro__}
CommandLineError = cast("type[CommandLineError]", _names["ClickException"])
