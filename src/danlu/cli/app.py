"""The danlu command: every verb in this folder, and one message and exit code for every error."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pkgutil import iter_modules

import typer
from typer.models import CommandInfo

from danlu import cli
from danlu.cli.output import print_note
from danlu.errors import DanluError
from danlu.system.signals import Interruption

INTERRUPTED = 130  # the exit code that typer makes of a KeyboardInterrupt
NOT_VERBS = {"answer_files", "app", "options", "output", "render"}
# The order of `danlu --help`: the way of a model. A verb that is not named here comes last.
ORDER = (
    "new", "check", "train", "tune", "report", "compare", "compress", "evaluate", "predict",
    "export", "verify", "generate", "chat", "serve", "encrypt", "decrypt", "sign",
    "verify-signature", "verify-resume", "list", "show", "schema", "doctor",
)  # fmt: skip


def name_of(command: CommandInfo) -> str:
    """What a verb is called on the command line."""
    if command.name is not None:
        return command.name
    assert command.callback is not None
    return command.callback.__name__.replace("_", "-")


def find_verbs() -> list[CommandInfo]:
    """The verbs of all files in this folder, in the order of `danlu --help`.

    Each file holds `verbs`, a Typer app with one command or a family of commands."""
    commands: list[CommandInfo] = []
    for module in iter_modules(cli.__path__):
        if module.name not in NOT_VERBS:
            commands += import_module(f"danlu.cli.{module.name}").verbs.registered_commands
    rank = {name: number for number, name in enumerate(ORDER)}
    return sorted(commands, key=lambda command: rank.get(name_of(command), len(ORDER)))


app = typer.Typer(
    name="danlu",
    help="danlu: data and a recipe in; a trained, checked and provably resumable model out.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.registered_commands.extend(find_verbs())


def main() -> None:
    """Run a verb; every DanluError, and every signal that asks to stop, becomes one message and its
    exit code."""
    # OpenMP reads this when torch is imported, so placement would come too late: threads that wait
    # for each other sleep instead of spinning. On a machine with other work to do, two spinning
    # threads are six times as slow as one. The results are the same, bit for bit.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    interruption = Interruption()
    try:
        with interruption:
            app(standalone_mode=True)
    except DanluError as error:
        print_note(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        # typer does not know which signal it was
        print_note(f"{interruption.name or 'interrupted'}: stopped.")
        sys.exit(interruption.exit_code or INTERRUPTED)
    except BrokenPipeError:  # `danlu predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        print_note(
            "out of memory: this does not fit into the memory of this machine.\n"
            "hint: lower train.batch_size or train.micro_batch, or use less data"
        )
        sys.exit(2)
    except OSError as error:
        print_note(f"{error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(2)
