"""tokenizer.json beside an export: the tokens of a text, by the tokenizers library.

The file is kept only if, read back, it gives the tokens of held-out rows that the artifact's own
preprocessing gives. Tokenizers of words, and those that were trained elsewhere, are not written:
danlu.exporting.loader makes their tokens itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu import tokenizing
from danlu.artifact.hugging_face.tokenizer import tokenizer_file
from danlu.data.examples import Ragged
from danlu.errors import ArtifactError, ExportError, MissingExtra
from danlu.terms import BEGINNING, END, Table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from danlu.artifact.prediction import Artifact

FILE = "tokenizer.json"
_KINDS = ("bpe", "characters", "bytes")
_ROWS = 64  # held-out rows whose tokens are compared


def write_tokenizer(folder: Path, artifact: Artifact, table: Table) -> bool:
    """Write tokenizer.json into `folder` for the artifact's one text input, where the file can
    express how that input is made; gives whether it was written. Raises ExportError where its
    tokens of the rows of `table` are others than the artifact's.
    """
    steps = [
        (chain, step, state)
        for chain in artifact.preprocessor.pipelines
        for step, state in chain.steps
        if step.name == "tokenize"
    ]
    if (
        len(steps) != 1
        or steps[0][2]["tokenizer"]["kind"] not in _KINDS
        or (folder / FILE).exists()
    ):
        return False
    chain, step, state = steps[0]
    if len(chain.steps) > 1 or chain.name not in table.columns:
        return False  # the file cannot express other transforms before it
    options: Any = step.options
    frame = [
        code for code, wanted in ((BEGINNING, options.beginning), (END, options.end)) if wanted
    ]
    if frame == [END]:
        return False
    try:
        text = tokenizer_file(tokenizing.restore(state["tokenizer"]), FILE, tuple(frame)).text
    except (ArtifactError, MissingExtra):
        return False
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(text)
    if options.max_length is not None:
        tokenizer.enable_truncation(options.max_length)
    _compare(
        tokenizer,
        artifact,
        chain.input_kind,
        chain.name,
        table.take(np.arange(min(len(table), _ROWS))),
    )
    (folder / FILE).write_text(tokenizer.to_str(), "utf-8")
    return True


def _compare(tokenizer: Tokenizer, artifact: Artifact, to: str, column: str, table: Table) -> None:
    expected = artifact.preprocessor.apply(table)[to]
    assert isinstance(expected, Ragged)
    texts = table.columns[column]
    for row in range(len(table)):
        text = texts.text(row)
        expected_tokens = expected.row(row).tolist()
        tokens = [] if text is None else tokenizer.encode(text).ids
        if tokens != expected_tokens:
            position = next(
                (at for at, (a, b) in enumerate(zip(expected_tokens, tokens)) if a != b),
                min(len(expected_tokens), len(tokens)),
            )
            raise ExportError(
                f"{FILE} makes other tokens of {table.where(row)} than the artifact does, from "
                f"token {position + 1} on.",
                hint="nothing was kept; please report this recipe",
            )
