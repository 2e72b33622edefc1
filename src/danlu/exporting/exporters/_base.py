"""The contract of an exporter: what its module offers beside `Config`.

`exporter(name)` reads it; no other code looks into an exporter's module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from danlu import registry

if TYPE_CHECKING:
    import numpy as np

    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel
    from danlu.recipe import Options

# Arrays by name: prepared inputs or raw columns in, finished answers out.
Run: TypeAlias = "Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]"

# What `start` must know of the files, JSON values stored in export.json as "runs". Each exporter
# has keys of its own; danlu.exporting.exporters lists those that every reader understands.
RunInfo: TypeAlias = Mapping[str, Any]


class Tolerances(TypedDict, total=False):
    """What the parity check of an export allows; the defaults hold where a key is missing.

    difference   the largest difference of an output (default 1e-4)
    drop         the largest drop of accuracy, 0 to 1; with it, differences are not limited: for
                 exports in a lower precision
    """

    difference: float
    drop: float


@dataclass(frozen=True)
class Exporter:
    """What an exporter's module offers; each field is a module-level name of its file."""

    # (libraries, extra): the libraries that `export` imports, and the extra of danlu that installs
    # them; ((), "") where danlu's own dependencies suffice.
    needs: tuple[tuple[str, ...], str] = field(metadata={"name": "NEEDS"})

    # Whether `start` and its `Run` import neither torch nor pyarrow.
    torch_free: bool = field(metadata={"name": "TORCH_FREE"})

    # export(config, artifact, model, folder) -> RunInfo: writes files of its own names into
    # `folder`, no folders inside. ArtifactError for a network that the format cannot hold.
    export: Callable[[Options, Artifact, TraceableModel, Path], dict[str, Any]]

    # start(folder, run_info) -> Run: opens these files. ArtifactError naming a file that is damaged
    # or holds more than the format needs.
    start: Callable[[Path, RunInfo], Run]

    # refusal(config, artifact) -> str: "" where the artifact can be exported, else a sentence that
    # says why not. Asked before anything is written.
    refusal: Callable[[Options, Artifact], str] | None = None

    # tolerances(config) -> Tolerances: where these options need others than the defaults.
    tolerances: Callable[[Options], Tolerances] | None = None

    # other_runtimes(folder, run_info) -> {name: Run}: other installed programs that read the same
    # files; their answers are compared too.
    other_runtimes: Callable[[Path, RunInfo], dict[str, Run]] | None = None

    # preprocessing_run(folder, run_info) -> Run: like `start`, but gives the network's inputs by
    # name, to tell whether answers differ because of the preprocessing or of the network.
    preprocessing_run: Callable[[Path, RunInfo], Run] | None = None

    # card(run_info) -> lines of Markdown for the model card: how another program runs the files.
    card: Callable[[RunInfo], list[str]] | None = None


def exporter(name: str) -> Exporter:
    """What the exporter called `name` offers. Raises PartError where there is none of that name.

    >>> exporter("onnx").torch_free
    True
    """
    return registry.read_facts(Exporter, "exporters", name)
