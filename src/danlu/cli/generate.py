"""danlu generate: write texts, or make images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import (
    ArtifactFolder,
    AsJson,
    MaxTokens,
    MinP,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    with_key,
)
from danlu.cli.output import print_json, print_note, print_result
from danlu.errors import DanluError
from danlu.system.standard_streams import require_stdout

if TYPE_CHECKING:
    from danlu import Artifact
    from danlu.artifact.generation import TextGenerator

verbs = typer.Typer()


@verbs.command()
@with_key
def generate(
    artifact: ArtifactFolder,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="How a text begins; may be given several times."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with one prompt per line; - reads stdin."),
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A text ends before the first of these (\\n: a new line); may be given several"
            " times."
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            min=1, max=100_000, help="Images to make; of each class, where there are classes."
        ),
    ] = 16,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class to make images of; may be given several times."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The PNG file that images are written to, side by side."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write texts with a language model, printed while they are generated; or make images with an
    image generator, as one PNG file."""
    from danlu.artifact.generate_images import can_generate_images
    from danlu.artifact.generation import TextGenerator, read_prompts

    model = danlu.load(artifact)
    if can_generate_images(model):
        _make_images(model, count, classes, Path(out or "generated.png"), seed, as_json)
        return
    require_stdout()
    beginnings = [*(prompt or ()), *(read_prompts(prompts) if prompts else ())] or [""]
    generator = TextGenerator(
        model,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=[text.replace("\\n", "\n") for text in stop or ()],
        seed=seed,
    )
    _write_texts(generator, beginnings, as_json)


def _write_texts(generator: TextGenerator, prompts: list[str], as_json: bool) -> None:
    """One text is printed piece by piece; several once all are complete."""
    stream = len(prompts) == 1 and not as_json
    if stream and generator.continues_prompt:
        print_result(prompts[0], end="", flush=True)
    for _, piece in generator.write(prompts):
        if stream:
            print_result(piece, end="", flush=True)
    if stream:
        print_result()
    for text in generator.texts:
        if text.unknown:
            print_note(
                f"note: {text.unknown} tokens of the prompt {text.prompt[:40]!r} did not occur in"
                " training; the model does not know them."
            )
    if as_json:
        print_json([text.as_dict() for text in generator.texts])
    elif not stream:
        print_result(
            render.texts(
                (text.prompt if generator.continues_prompt else "") + text.text
                for text in generator.texts
            )
        )


def _make_images(
    model: Artifact, count: int, classes: list[str] | None, out: Path, seed: int, as_json: bool
) -> None:
    """Images side by side in one picture: one row per class."""
    from danlu.system.atomic_files import replace_file
    from danlu.system.image_grid import encode_png, image_grid

    images = danlu.picture(model, count, classes, seed)
    try:
        replace_file(out, encode_png(image_grid(images, count if model.task.classes else None)))
    except OSError as error:
        raise DanluError(f"cannot be written: {error.strerror or error}.", where=str(out)) from None
    if as_json:
        print_json(
            {
                "out": str(out),
                "images": len(images),
                "classes": classes or list(model.task.classes),
            }
        )
    else:
        print_result(out)
