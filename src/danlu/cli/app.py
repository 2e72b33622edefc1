"""The danlu command: every verb in this folder, and one message and exit code for every error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from importlib import import_module
from pkgutil import iter_modules

import typer
from typer.models import CommandInfo

from danlu import cli
from danlu.cli import memory_guard
from danlu.cli.output import print_note
from danlu.compat.typer import CommandLineError
from danlu.errors import DanluError
from danlu.system.signals import Interruption
from danlu.system.standard_streams import flush_stdout, open_closed_streams

INTERRUPTED = 130  # the exit code that typer makes of a KeyboardInterrupt
NOT_VERBS = {"answer_files", "app", "memory_guard", "options", "output", "render"}
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
    open_closed_streams()
    code = _run()
    try:
        flush_stdout()
    except DanluError as error:
        print_note(str(error))
        code = code or error.exit_code
    except BrokenPipeError:  # `danlu list | head -1`
        pass
    sys.exit(code)


def _run() -> int:
    """The exit code of the verb that the command line names, once its message is printed."""
    interruption = Interruption()
    try:
        with interruption, _memory_guard():
            code = app(standalone_mode=False) or 0
    except DanluError as error:
        print_note(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except CommandLineError as error:
        return _refuse_command_line(error)
    except typer.Abort:
        print_note("Aborted!")
        return 1
    except BrokenPipeError:  # `danlu predict ... | head`
        return 0
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _tells_of_memory(error):
            raise
        # Python's own says nothing; torch's begins with a place in its source
        reason = str(error).strip().rpartition("] ")[2].partition("\n")[0]
        print_note(
            f"out of memory: {reason or 'this does not fit into the memory of this machine.'}\n"
            "hint: lower train.batch_size or train.micro_batch, make the model smaller, or use "
            "less data"
        )
        return 2
    except OSError as error:
        print_note(str(DanluError(f"{error.strerror or error}", where=_culprit(error))))
        return 2
    if code == INTERRUPTED:
        # typer does not know which signal it was
        print_note(f"{interruption.name or 'interrupted'}: stopped.")
        return interruption.exit_code or INTERRUPTED
    return code


def _memory_guard() -> contextlib.AbstractContextManager[None]:
    """A message before a container's limit on memory ends this process; not for verbs whose work is
    done by other processes, which are replaced."""
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return contextlib.nullcontext() if verb in ("serve", "tune") else memory_guard.guarded()


def _tells_of_memory(error: RuntimeError) -> bool:
    """Whether torch says with it that memory is short."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "size calculation over")
    return any(part in str(error) for part in words)


def _culprit(error: OSError) -> str:
    """The file that an error of the system is about."""
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the system"


def _refuse_command_line(error: CommandLineError) -> int:
    """Print what is wrong with the command line, which may hold any file name; its exit code."""
    text = io.StringIO()
    error.show(text)
    print_note(text.getvalue().rstrip("\n"))
    return error.exit_code
