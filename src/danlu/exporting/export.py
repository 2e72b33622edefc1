"""An artifact as a folder that another runtime reads, released only when it answers as the artifact does.

    export.json                 what it is, task, inputs, scores, provenance, the proof; size and SHA-256 of every file; sealed
    model.onnx, ...             the exporter's files
    preprocessing.safetensors   what transforms outside of the runtime learnt, where there are such
    tokenizer.json              how texts become the codes that the graph takes, for the tokenizers library, where it can say so
    MODEL_CARD.md               the same for people
    SHA256SUMS                  for sha256sum -c

The folder is written beside its place, opened again from its files, run on raw rows that were held
out, compared with the artifact, and only then given its name: where the proof fails nothing is
left."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from danlu import registry
from danlu.artifact.prediction import Artifact, load
from danlu.artifact.row_schema import row_fields
from danlu.errors import ArtifactError, DanluError, ExportError, MissingExtra
from danlu.exporting.card import model_card
from danlu.exporting.loader import ARRAYS, FORMAT, MANIFEST, Export, is_export, open_export
from danlu.exporting.parity import (
    LEAST_ROWS,
    TOLERANCE,
    Held,
    Proof,
    examples_of,
    held_out,
    prove,
    prove_score,
    training_rows,
)
from danlu.exporting.tokenizer_json import write_tokenizer
from danlu.exporting.traceable import Program, program_of
from danlu.recipe import Part
from danlu.recipe.yaml12 import read_yaml
from danlu.registry_options import part_of
from danlu.system.atomic_files import atomic_folder, sha256, sync_folder, with_checksum, write_file

CARD, SUMS = "MODEL_CARD.md", "SHA256SUMS"
MOST_LOST = 0.01  # accuracy that an export of a model in few bits may lose, where nobody says
_LAST = (MANIFEST, SUMS)  # written once everything else is known


def export(
    artifact: Artifact | str | Path,
    to: str,
    out: str | Path | None = None,
    rows: str | None = None,
    *,
    tolerance: float | None = None,
    least_rows: int = LEAST_ROWS,
    options: Mapping[str, Any] | Sequence[str] = (),
    changed: Callable[[Path], None] | None = None,
) -> Export:
    """Export an artifact by the exporter `to` into the folder `out`, prove it, and give it opened.

    rows         a data file for the proof (None: the recipe's own test split, read anew)
    tolerance    largest difference allowed (None: 1e-4, or what the exporter's options allow); in lower precision, also where the artifact
                 was compressed to 8 bits, the largest drop of accuracy (None: 0.01)
    options      options of the exporter
    changed      called with the folder before the proof, on its way out; for tests of the proof
    Raises ExportError where the export does not answer as the artifact does, saying where they
    part; nothing is left then. ArtifactError where the exporter cannot export such an artifact,
    MissingExtra where a library is missing."""
    part = part_of_exporter(to, options)
    exporter = registry.take("exporters", part.name)
    require(exporter)
    original = artifact if isinstance(artifact, Artifact) else load(artifact)
    unfit = exporter.fits(part.options, original) if hasattr(exporter, "fits") else ""
    if unfit:
        raise ArtifactError(
            f"{part.name} cannot export this artifact: {unfit}", hint="danlu list exporters"
        )
    place = Path(out) if out is not None else usual_place(original, part.name)
    refuse_taken(place)
    held = held_out(original, rows, least_rows)
    lets = exporter.lets(part.options) if hasattr(exporter, "lets") else {}
    if "drop" not in lets and _rounds(original):
        lets = {**lets, "drop": MOST_LOST}
    allowed = tolerance if tolerance is not None else lets.get("difference", TOLERANCE)
    program = program_of(original, examples_of(original, held))
    program.training = lambda count: training_rows(original, count)
    try:
        with atomic_folder(place) as folder:
            about = _written(folder, part, original, program)
            write_tokenizer(folder, original, held.table)
            if changed is not None:
                changed(folder)
            _sealed(folder, about)
            opened = open_export(folder)
            if "drop" in lets:
                fresh = load(original.path) if original.path is not None else original
                proof = prove_score(
                    fresh, opened, rows, tolerance if tolerance is not None else lets["drop"]
                )
            else:
                proof = _proof(exporter, part, original, opened, held, allowed)
            about["proof"] = proof.as_dict()
            write_file(folder / CARD, model_card(about, exporter).encode())
            _sealed(folder, about)
    except OSError as error:
        raise ExportError(
            f"cannot be written: {error.strerror or error}.", where=str(place)
        ) from None
    return open_export(place)


def verify(
    path: str | Path,
    against: Artifact | str | Path,
    rows: str | None = None,
    *,
    tolerance: float | None = None,
) -> Proof:
    """Prove an export anew against an artifact. ArtifactError where its files are not those
    written, ExportError where they part."""
    opened = open_export(path)
    refuse_strangers(Path(path), opened.about)
    original = against if isinstance(against, Artifact) else load(against)
    part = part_of("exporters", opened.about["exporter"])
    allowed = tolerance if tolerance is not None else float(opened.about["proof"]["allowed"])
    if opened.about["proof"].get("accuracy") is not None:
        return prove_score(original, opened, rows, allowed)
    held = held_out(original, rows)
    return _proof(registry.take("exporters", part.name), part, original, opened, held, allowed)


def part_of_exporter(name: str, options: Mapping[str, Any] | Sequence[str]) -> Part:
    """The exporter and its checked options, a mapping or "key=value" each. PartError or DanluError
    naming what is wrong."""
    registry.take("exporters", name)
    if not isinstance(options, Mapping):
        pairs = [each.partition("=") for each in options]
        wrong = next((each for each, (_, mark, _) in zip(options, pairs) if not mark), None)
        if wrong is not None:
            raise DanluError(f"{wrong} is no option: options are written as key=value.")
        options = {key: read_yaml(value, key)[0] for key, _, value in pairs}
    try:
        return part_of("exporters", {"name": name, **options})
    except ValueError as error:
        raise DanluError(f"exporter {name} {error}.") from None


def _rounds(artifact: Artifact) -> bool:
    """Whether the artifact itself computes in few bits: a difference in the last digit then becomes
    one of a whole step."""
    return any(
        getattr(registry.facts("compressors", each["name"]), "ROUNDS", False)
        for each in artifact.changes
    )


def require(exporter: Any) -> None:
    """MissingExtra where a library that an exporter needs is not installed."""
    said, extra = exporter.NEEDS
    for library in [each.strip() for each in said.replace(" and ", ",").split(",") if each.strip()]:
        if importlib.util.find_spec(library.replace("-", "_")) is None:
            raise MissingExtra(
                f"the library {library}",
                extra,
                f"an export to {exporter.__name__.rpartition('.')[2]}",
            )


def usual_place(artifact: Artifact, to: str) -> Path:
    """Where an export goes that no place is named for: beside the artifact."""
    home = artifact.path.parent if artifact.path is not None else Path()
    return home / f"export-{to}"


def refuse_taken(place: Path) -> None:
    """DanluError where a place holds something that is no export: it is never replaced."""
    if place.exists() and not is_export(place) and (not place.is_dir() or any(place.iterdir())):
        raise DanluError(
            "there is something else at this place.", where=str(place), hint="choose another --out"
        )


def refuse_strangers(folder: Path, about: Mapping[str, Any]) -> None:
    """ArtifactError for a file in the folder that the manifest does not know."""
    strange = sorted({each.name for each in folder.iterdir()} - {*about["files"], *_LAST})
    if strange:
        raise ArtifactError(
            f"{strange[0]} is no file of this export.",
            where=str(folder),
            hint="remove it, or take another copy",
        )


# --- what stands in the folder ------------------------------------------------------------------------------------------


def _written(folder: Path, part: Part, artifact: Artifact, program: Program) -> dict[str, Any]:
    """Let the exporter write its files; gives the manifest without files and proof."""
    runs = registry.take("exporters", part.name).export(part.options, artifact, program, folder)
    columns = runs.get("columns", {})
    arrays: dict[str, np.ndarray] = {}
    whole = artifact.preprocessor
    rest = whole.only([name for name in whole.schema if name not in columns])
    rest.also = whole.also
    prepared, learnt = rest.state()
    arrays |= learnt
    begun = [chain.head(columns[chain.name]) for chain in whole.chains if chain.name in columns]
    entering = [chain.state(f"entering {number}.", arrays) for number, chain in enumerate(begun)]
    if arrays:
        from safetensors.numpy import save

        (folder / ARRAYS).write_bytes(
            save({name: np.ascontiguousarray(each) for name, each in arrays.items()})
        )
    task = artifact.recipe.task
    return {
        "format": FORMAT,
        "name": artifact.recipe.name,
        "exporter": part.as_dict(),
        "kind": "text" if hasattr(artifact.task, "ahead") else "rows",
        "task": {
            "part": task.as_dict(),
            "state": artifact.task.state(),
            "said": artifact.task.describe(),
        },
        "inputs": row_fields(artifact),
        "reads": artifact.task.asked() if hasattr(artifact.task, "asked") else whole.reads,
        "feeds": {
            name: slot.as_json()
            for name, slot in program.inputs.items()
            if "columns" not in runs or _fed_prepared(name, whole, columns)
        },
        "outputs": {name: slot.as_json() for name, slot in program.outputs.items()},
        "preprocessing": prepared,
        "entering": entering,
        "runs": runs,
        "model": artifact.recipe.model.name,
        "scores": artifact.scores,
        "provenance": artifact.provenance,
        "proof": {"allowed": TOLERANCE},
    }


def _fed_prepared(name: str, preprocessor: Any, columns: Mapping[str, int]) -> bool:
    """Whether an input of the network is made outside of the runtime."""
    return not any(chain.to == name and chain.name in columns for chain in preprocessor.chains)


def _sealed(folder: Path, about: dict[str, Any]) -> None:
    """Write the manifest and the checksums over what the folder holds now."""
    data = {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in _LAST
    }
    about["files"] = {
        name: {"size": len(each), "sha256": sha256(each)} for name, each in data.items()
    }
    manifest = with_checksum(about)
    write_file(folder / MANIFEST, manifest)
    sums = {
        **{name: said["sha256"] for name, said in about["files"].items()},
        MANIFEST: sha256(manifest),
    }
    write_file(
        folder / SUMS, "".join(f"{each}  {name}\n" for name, each in sorted(sums.items())).encode()
    )
    sync_folder(folder)


def _proof(
    exporter: Any, part: Part, artifact: Artifact, opened: Export, held: Held, allowed: float
) -> Proof:
    """The proof, against the artifact as it lies on disk where it does."""
    fresh = load(artifact.path) if artifact.path is not None else artifact
    proof = prove(fresh, opened, held, allowed)
    others = (
        exporter.elsewhere(opened.path, opened.about["runs"])
        if hasattr(exporter, "elsewhere")
        else {}
    )
    for name, run in others.items():
        again = prove(fresh, replace(opened, run=run), held, allowed)
        proof.by_output |= {f"{output} on {name}": each for output, each in again.by_output.items()}
        if again.difference > proof.difference:
            proof.difference, proof.where = again.difference, f"{again.where} on {name}"
    return proof
