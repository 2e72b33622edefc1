"""An artifact exported as a folder for another runtime, kept only if its answers are equal.

    export.json                 task, inputs, scores, provenance and the parity report; size and
                                SHA-256 of every file; sealed with its own checksum
    model.onnx, ...             the exporter's files
    preprocessing.safetensors   what transforms outside of the runtime learnt, where there are any
    tokenizer.json              how texts become tokens, for the tokenizers library, where it can
                                express that
    MODEL_CARD.md               the model card, for people
    SHA256SUMS                  for sha256sum -c

The folder is written under another name, opened again from its files, run on held-out raw rows and
compared with the artifact. Only then does it get its name; where answers differ nothing is kept.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from danlu import registry
from danlu.artifact.prediction import Artifact, load
from danlu.artifact.row_schema import row_fields
from danlu.data.preprocessing import Preprocessor
from danlu.errors import ArtifactError, DanluError, ExportError, MissingExtra
from danlu.exporting.card import model_card
from danlu.exporting.exporters._base import Exporter, Tolerances, exporter
from danlu.exporting.held_out import (
    LEAST_ROWS,
    HeldOutRows,
    example_inputs,
    select_held_out,
    training_inputs,
)
from danlu.exporting.loader import (
    ARRAYS,
    FORMAT,
    MANIFEST,
    Export,
    Manifest,
    is_export,
    open_export,
)
from danlu.exporting.parity import TOLERANCE, ParityReport, check_accuracy, check_parity
from danlu.exporting.tokenizer_json import write_tokenizer
from danlu.exporting.traceable import TraceableModel, traceable_model
from danlu.parts.tasks._base import ExportsGenerator, ReadsRunningText
from danlu.recipe import Part
from danlu.recipe.yaml12 import read_yaml
from danlu.registry_options import part_of
from danlu.system.atomic_files import atomic_folder, sha256, sync_folder, with_checksum, write_file

CARD, SUMS = "MODEL_CARD.md", "SHA256SUMS"
MAX_DROP = 0.01  # accuracy that an export of a model in few bits may lose by default
_LAST = (MANIFEST, SUMS)  # written after all other files


def export(
    artifact: Artifact | str | Path,
    to: str,
    out: str | Path | None = None,
    rows: str | None = None,
    *,
    tolerance: float | None = None,
    least_rows: int = LEAST_ROWS,
    options: Mapping[str, object] | Sequence[str] = (),
    changed: Callable[[Path], None] | None = None,
) -> Export:
    """Export an artifact by the exporter `to`, check it against the artifact, and open it.

    out          the export's folder (None: beside the artifact)
    rows         a data file to compare on (None: the recipe's own test split, read anew)
    tolerance    the largest difference allowed (None: 1e-4, or what the exporter's options allow);
                 for a lower precision, also that of an artifact compressed to 8 bits, the largest
                 drop of accuracy (None: 0.01)
    least_rows   how many rows are compared, where there are so many
    options      options of the exporter: a mapping, or strings "key=value"
    changed      called with the folder before the check; for tests of the check

    Raises ExportError where the export does not answer as the artifact does, saying where they
    differ; nothing is kept then. ArtifactError where the exporter cannot export such an artifact,
    MissingExtra where a library is missing, DanluError where `out` holds something else.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> exported = danlu.export(artifact, "safetensors", "runs/iris-export")
    >>> exported.predict([dict.fromkeys(artifact.inputs, 1.0)])[0]["prediction"]
    'setosa'
    """
    part = exporter_part(to, options)
    offered = exporter(part.name)
    require_libraries(part.name, offered)
    original = artifact if isinstance(artifact, Artifact) else load(artifact)
    refusal = offered.refusal(part.options, original) if offered.refusal is not None else ""
    if refusal:
        raise ArtifactError(
            f"{part.name} cannot export this artifact: {refusal}", hint="danlu list exporters"
        )
    target = Path(out) if out is not None else default_folder(original, part.name)
    refuse_occupied(target)
    held_out = select_held_out(original, rows, least_rows)
    in_few_bits, allowed = _tolerance(offered, part, original, tolerance)
    model = traceable_model(original, example_inputs(original, held_out))
    model.training = lambda count: training_inputs(original, count)
    try:
        with atomic_folder(target) as folder:
            manifest = _write_files(folder, part, original, model)
            write_tokenizer(folder, original, held_out.table)
            if changed is not None:
                changed(folder)
            _write_manifest(folder, manifest)
            opened = open_export(folder)
            if in_few_bits:
                report = check_accuracy(_from_disk(original), opened, rows, allowed)
            else:
                report = _check_all_runtimes(original, opened, held_out, allowed)
            manifest["proof"] = report.as_dict()
            write_file(folder / CARD, model_card(manifest, offered).encode())
            _write_manifest(folder, manifest)
    except OSError as error:
        raise ExportError(
            f"cannot be written: {error.strerror or error}.", where=str(target)
        ) from None
    return open_export(target)


def verify(
    path: str | Path,
    against: Artifact | str | Path,
    rows: str | None = None,
    *,
    tolerance: float | None = None,
) -> ParityReport:
    """Compare an export once more with an artifact; arguments as for `export`.

    Raises ArtifactError where its files are not those that were written, ExportError where the
    answers differ.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> exported = danlu.export(artifact, "safetensors", "runs/iris-verified")
    >>> danlu.verify("runs/iris-verified", artifact).as_dict()["rows"]
    30
    """
    opened = open_export(path)
    refuse_unlisted_files(Path(path), opened.manifest)
    original = against if isinstance(against, Artifact) else load(against)
    proof = opened.manifest["proof"]
    allowed = tolerance if tolerance is not None else float(proof["allowed"])
    if proof.get("accuracy") is not None:
        return check_accuracy(original, opened, rows, allowed)
    return _check_all_runtimes(original, opened, select_held_out(original, rows), allowed)


def exporter_part(name: str, options: Mapping[str, object] | Sequence[str]) -> Part:
    """The exporter `name` with its checked options: a mapping, or strings "key=value".

    Raises PartError where there is no such exporter, DanluError naming an option that is wrong.

    >>> exporter_part("onnx", ["precision=int8"]).options.precision
    'int8'
    """
    registry.take("exporters", name)
    if not isinstance(options, Mapping):
        pairs = [option.partition("=") for option in options]
        wrong = next((option for option, (_, mark, _) in zip(options, pairs) if not mark), None)
        if wrong is not None:
            raise DanluError(f"{wrong} is no option: options are written as key=value.")
        options = {key: read_yaml(value, key)[0] for key, _, value in pairs}
    try:
        return part_of("exporters", {"name": name, **options})
    except ValueError as error:
        raise DanluError(f"exporter {name} {error}.") from None


def _tolerance(
    offered: Exporter, part: Part, artifact: Artifact, tolerance: float | None
) -> tuple[bool, float]:
    """(whether accuracy is compared in place of differences, the largest drop or difference
    allowed)."""
    own = offered.tolerances(part.options) if offered.tolerances is not None else Tolerances()
    if "drop" in own or _computes_in_few_bits(artifact):
        return True, tolerance if tolerance is not None else own.get("drop", MAX_DROP)
    return False, tolerance if tolerance is not None else own.get("difference", TOLERANCE)


def _computes_in_few_bits(artifact: Artifact) -> bool:
    """Whether the artifact itself rounds numbers while it answers: a difference in the last digit
    can then become one of a whole step of the rounding."""
    return any(registry.compressor(change["name"]).rounds for change in artifact.changes)


def require_libraries(name: str, offered: Exporter) -> None:
    """Raises MissingExtra where a library that the exporter `name` needs is not installed."""
    libraries, extra = offered.needs
    for library in libraries:
        if importlib.util.find_spec(library.replace("-", "_")) is None:
            raise MissingExtra(f"the library {library}", extra, f"an export to {name}")


def default_folder(artifact: Artifact, to: str) -> Path:
    """The folder of an export that is given none: beside the artifact's folder."""
    home = artifact.path.parent if artifact.path is not None else Path()
    return home / f"export-{to}"


def refuse_occupied(folder: Path) -> None:
    """Raises DanluError where the folder holds something that is no export: only an export is
    replaced."""
    if folder.exists() and not is_export(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DanluError(
            "this path exists and is no export, so it is not replaced.",
            where=str(folder),
            hint="choose another --out",
        )


def refuse_unlisted_files(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError for a file in the folder that the manifest does not list."""
    unlisted = sorted({path.name for path in folder.iterdir()} - {*manifest["files"], *_LAST})
    if unlisted:
        raise ArtifactError(
            f"{unlisted[0]} is no file of this export.",
            where=str(folder),
            hint="remove it, or take another copy",
        )


# --- the files of the folder


def _write_files(folder: Path, part: Part, artifact: Artifact, model: TraceableModel) -> Manifest:
    """Let the exporter write its files; gives the manifest without "files"."""
    task, preprocessor = artifact.task, artifact.preprocessor
    run_info = exporter(part.name).export(part.options, artifact, model, folder)
    columns = run_info.get("columns", {})
    outside = preprocessor.only([name for name in preprocessor.schema if name not in columns])
    outside.task_schema = preprocessor.task_schema
    preprocessing, learnt = outside.state()
    arrays: dict[str, np.ndarray] = {**learnt}
    # of raw columns, the transforms that stay outside of the runtime
    heads = [
        pipeline.first_steps(columns[pipeline.name])
        for pipeline in preprocessor.pipelines
        if pipeline.name in columns
    ]
    entering = [head.state(f"entering {number}.", arrays) for number, head in enumerate(heads)]
    if arrays:
        from safetensors.numpy import save

        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        (folder / ARRAYS).write_bytes(save(contiguous))
    return {
        "format": FORMAT,
        "name": artifact.recipe.name,
        "exporter": part.as_dict(),
        "kind": "text" if isinstance(task, ReadsRunningText) else "rows",
        "task": {
            "part": artifact.recipe.task.as_dict(),
            "state": task.state(),
            "said": task.describe(),
        },
        "inputs": row_fields(artifact),
        "reads": (
            task.row_schema() if isinstance(task, ExportsGenerator) else preprocessor.row_schema
        ),
        "feeds": {
            name: spec.as_json()
            for name, spec in model.inputs.items()
            if "columns" not in run_info or _is_prepared_outside(name, preprocessor, columns)
        },
        "outputs": {name: spec.as_json() for name, spec in model.outputs.items()},
        "preprocessing": preprocessing,
        "entering": entering,
        "runs": run_info,
        "model": artifact.recipe.model.name,
        "scores": artifact.scores,
        "provenance": artifact.provenance,
        "proof": {"allowed": TOLERANCE},
    }


def _is_prepared_outside(name: str, preprocessor: Preprocessor, columns: Mapping[str, int]) -> bool:
    """Whether an input of the network is prepared outside of the runtime."""
    return not any(
        pipeline.input_kind == name and pipeline.name in columns
        for pipeline in preprocessor.pipelines
    )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and the checksums of all files that the folder holds now."""
    contents = {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in _LAST
    }
    manifest["files"] = {
        name: {"size": len(content), "sha256": sha256(content)}
        for name, content in contents.items()
    }
    sealed = with_checksum(manifest)
    write_file(folder / MANIFEST, sealed)
    sums = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    sums[MANIFEST] = sha256(sealed)
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(sums.items()))
    write_file(folder / SUMS, lines.encode())
    sync_folder(folder)


# --- the check


def _from_disk(artifact: Artifact) -> Artifact:
    """The artifact read anew from its folder; itself where it has none."""
    return load(artifact.path) if artifact.path is not None else artifact


def _check_all_runtimes(
    artifact: Artifact, opened: Export, rows: HeldOutRows, allowed: float
) -> ParityReport:
    """The parity report of the runtime that the export is for, and of all other installed ones that
    read its files."""
    fresh = _from_disk(artifact)
    report = check_parity(fresh, opened, rows, allowed)
    other_runtimes = exporter(opened.exporter_name).other_runtimes
    if other_runtimes is None:
        return report
    for name, run in other_runtimes(opened.path, opened.manifest["runs"]).items():
        other = check_parity(fresh, replace(opened, run=run), rows, allowed)
        report.by_output |= {
            f"{output} on {name}": difference for output, difference in other.by_output.items()
        }
        if other.difference > report.difference:
            report.difference, report.where = other.difference, f"{other.where} on {name}"
    return report
