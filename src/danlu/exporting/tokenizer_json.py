"""tokenizer.json beside an export: the codes that its graph takes, made of texts by the tokenizers library, for runtimes that are not danlu.

Only what the file was seen to do is released: it is read back and must give the codes of held-out
rows as the artifact's own preprocessing does. Tokenizers of words, and files that came with codes
of their own, are not written: danlu.exporting.loader makes those codes itself."""

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
    from danlu.artifact.prediction import Artifact

FILE = "tokenizer.json"
_KINDS = ("bpe", "characters", "bytes")
_ROWS = 64  # held-out rows whose codes are compared


def write_tokenizer(folder: Path, artifact: Artifact, table: Table) -> bool:
    """Whether `folder` now holds a tokenizer.json for the artifact's one text input. ExportError
    where its codes of `table` are others."""
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
    if (
        len(chain.steps) > 1 or chain.name not in table.columns
    ):  # what other transforms do before it, the file cannot do
        return False
    options: Any = step.options
    frame = [code for code, wanted in ((BEGINNING, options.beginning), (END, options.end)) if wanted]
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
    _compare(tokenizer, artifact, chain.input_kind, chain.name, table.take(np.arange(min(len(table), _ROWS))))
    (folder / FILE).write_text(tokenizer.to_str(), "utf-8")
    return True


def _compare(tokenizer: Any, artifact: Artifact, to: str, column: str, table: Table) -> None:
    wanted = artifact.preprocessor.apply(table)[to]
    assert isinstance(wanted, Ragged)
    texts = table.columns[column]
    for row in range(len(table)):
        text = texts.text(row)
        ours = wanted.row(row).tolist()
        theirs = [] if text is None else tokenizer.encode(text).ids
        if ours != theirs:
            position = next(
                (at for at, (a, b) in enumerate(zip(ours, theirs)) if a != b),
                min(len(ours), len(theirs)),
            )
            raise ExportError(
                f"{FILE} reads {table.where(row)} otherwise than the artifact: from token {position + 1} on.",
                hint="nothing was kept; please report this recipe",
            )
