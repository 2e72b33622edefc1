"""Arguments and options that several verbs share, each declared once."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from danlu.errors import DanluError

Parameters = ParamSpec("Parameters")

RecipeFile = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file (YAML or JSON).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]",
        help="Changes to the recipe: optimizer.learning_rate=0.01",
        show_default=False,
    ),
]
ArtifactFolder = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT", help="An artifact folder, or the folder of its run.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress, only print the result.")
]

# How texts are generated: generate and chat.
MaxTokens = Annotated[int, typer.Option(min=1, help="The most tokens of a text.")]
Temperature = Annotated[
    float,
    typer.Option(
        min=0,
        help="Below 1 likely tokens are drawn more often; 0: always the likeliest token.",
    ),
]
TopK = Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest tokens only.")]
TopP = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Draw from the likeliest tokens that together have this probability.",
    ),
]
MinP = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Draw from tokens at least this share as likely as the likeliest one.",
    ),
]
RepetitionPenalty = Annotated[
    float, typer.Option(min=0, help="Above 1 tokens that occurred already are drawn less often.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed gives other texts.")]


# --- the key of an encrypted artifact


def _use_key_file(
    context: typer.Context, option: typer.CallbackParam, value: str | None
) -> str | None:
    """Note the key in the environment, where this process and those it starts look for it."""
    if value is not None:
        this, other = ("KEY", "PASSPHRASE") if option.name == "key_file" else ("PASSPHRASE", "KEY")
        if context.params.get(f"{other.lower()}_file") is not None:
            raise DanluError(
                "both a key file and a passphrase file are given.", hint="name one of them"
            )
        os.environ.pop(f"DANLU_{other}_FILE", None)
        os.environ[f"DANLU_{this}_FILE"] = str(Path(value).absolute())
    return value


KeyFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", callback=_use_key_file, help="The key of an encrypted artifact."),
]
PassphraseFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", callback=_use_key_file, help="A file with the passphrase, instead of a key."
    ),
]


# --- permission to run the user's own code


def _allow_code(allowed: bool) -> bool:
    if allowed:
        from danlu.system.trust import allow_code

        sys.path.insert(0, str(Path.cwd()))  # the folder that holds the user's own package
        allow_code()
    return allowed


AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        help="Let model: {name: python} import and run your own code.",
    ),
]


# --- permission to use what a recipe names outside its own run


def _allow_remote(allowed: bool) -> bool:
    if allowed:
        from danlu.system.trust import allow_remote

        allow_remote()
    return allowed


AllowRemote = Annotated[
    bool,
    typer.Option(
        "--allow-remote",
        callback=_allow_remote,
        help="Use the Ray cluster, the database or the download that the recipe names.",
    ),
]


# --- options whose callback does all there is to do


def _with_options(
    verb: Callable[Parameters, None], annotations: dict[str, object], default: object
) -> Callable[Parameters, None]:
    """The verb with further options behind its own; it does not receive their values."""

    @functools.wraps(verb)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        for name in annotations:
            options.pop(name, None)
        verb(*arguments, **options)

    signature = inspect.signature(verb, eval_str=True)
    further = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=default,
            annotation=annotation,
        )
        for name, annotation in annotations.items()
    ]
    # typer reads a verb's options from these two
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *further]
    )
    run.__annotations__ = {**verb.__annotations__, **annotations}
    return run


def with_allow_code(verb: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Give a verb --allow-code."""
    return _with_options(verb, {"allow_code": AllowCode}, default=False)


def with_allow_remote(verb: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Give a verb --allow-remote."""
    return _with_options(verb, {"allow_remote": AllowRemote}, default=False)


def with_key(verb: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Give a verb --key-file and --passphrase-file, for encrypted artifacts."""
    return _with_options(
        verb, {"key_file": KeyFile, "passphrase_file": PassphraseFile}, default=None
    )
