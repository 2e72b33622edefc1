"""danlu chat: talk to a model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from danlu.cli.options import (
    ArtifactFolder,
    MaxTokens,
    MinP,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    with_key,
)
from danlu.cli.output import print_note, print_result
from danlu.system.signals import Interruption
from danlu.system.standard_streams import read_stdin, require_stdout

if TYPE_CHECKING:
    from danlu.artifact.generation import Chat

verbs = typer.Typer()


@verbs.command()
@with_key
def chat(
    artifact: ArtifactFolder,
    system: Annotated[
        str | None, typer.Option(help="Instructions to the model, before the conversation.")
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.7,
    top_k: TopK = None,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = 0,
) -> None:
    """Talk to a model that was tuned on conversations."""
    from danlu.artifact.generation import Chat

    require_stdout()
    conversation = Chat(
        artifact,
        system,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    print_note(
        "Type a message and Enter. /new starts a new conversation; Ctrl-C stops an answer;"
        " Ctrl-D (or Ctrl-C at the prompt) ends."
    )
    with Interruption() as interruption:
        try:
            _converse(conversation, interruption)
        except (EOFError, KeyboardInterrupt):
            if interruption.name not in ("", "SIGINT"):
                raise
            print_result()


def _converse(conversation: Chat, interruption: Interruption) -> None:
    """Answer line after line, until the input ends."""
    on_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    lines = read_stdin()
    while True:
        line = input("> ") if on_terminal else next(lines, "")
        if not on_terminal and not line:
            return
        message = line.strip()
        if message == "/new":
            conversation.restart()
        elif message:
            try:
                for piece in conversation.answer(message):
                    print_result(piece, end="", flush=True)
            except KeyboardInterrupt:
                if interruption.name != "SIGINT":
                    raise
                interruption.exit_code = 0  # the next Ctrl-C counts as the first one again
            print_result()
