"""MODEL_CARD.md of an export: inputs, scores, data, how to run it, and what is not known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from danlu.training.evaluation import without_nonfinite

if TYPE_CHECKING:
    from danlu.exporting.exporters._base import Exporter
    from danlu.exporting.loader import Manifest

_SHORT = 60  # characters of an example


def model_card(manifest: Manifest, exporter: Exporter) -> str:
    """MODEL_CARD.md of an export with this manifest. Source of the headings: Mitchell et al., 2019,
    arXiv:1810.03993."""
    lines = [
        f"# {manifest['name']}",
        "",
        f"{manifest['task']['said'][0].upper()}{manifest['task']['said'][1:]}.",
        "",
    ]
    lines += [
        f"A danlu model of the family `{manifest['model']}`, exported to "
        f"`{manifest['exporter']['name']}`.",
        "",
    ]
    lines += ["## Inputs", "", *_inputs(manifest["inputs"]), ""]
    lines += ["## Scores", "", *_scores(manifest["scores"]), ""]
    lines += ["## Data", "", *_data(manifest["provenance"]), ""]
    lines += [
        "## Proof",
        "",
        f"{parity_in_words(manifest['proof'])} `danlu verify FOLDER --against ARTIFACT` compares "
        "again.",
        "",
    ]
    lines += ["## How to run it", "", *_usage(manifest, exporter), ""]
    lines += ["## Licence and limits", "", *_limits()]
    return "\n".join(lines) + "\n"


def _inputs(fields: list[dict[str, Any]]) -> list[str]:
    lines = ["| column | kind | may be missing | values | example |", "|---|---|---|---|---|"]
    for field in fields:
        if "categories" in field:
            categories = field["categories"]
            listed = ", ".join([*map(str, categories[:6]), *["..."][: len(categories) > 6]])
            values = f"{len(categories):,}: {listed}"
        elif "minimum" in field:
            values = f"{field['minimum']:g} to {field['maximum']:g} in training"
        elif "shape" in field:
            values = "x".join(map(str, field["shape"]))
        else:
            values = f"{field['rate']:,} samples a second" if "rate" in field else ""
        example = json.dumps(field["example"], ensure_ascii=False)
        shown = example if len(example) <= _SHORT else f"{example[: _SHORT - 3]}..."
        lines.append(
            f"| {_cell(field['name'])} | {field['kind']} | {'no' if field['required'] else 'yes'} "
            f"| {_cell(values)} | `{_cell(shown)}` |"
        )
    return lines


def _cell(text: object) -> str:
    """A value as text of one table cell."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("`", "'")


def _scores(scores: Mapping[str, Any]) -> list[str]:
    splits = {
        name: split_scores
        for name, split_scores in scores.items()
        if isinstance(split_scores, Mapping) and name in ("train", "validation", "test")
    }
    names = list(
        dict.fromkeys(
            key
            for split_scores in splits.values()
            for key, value in split_scores.items()
            if isinstance(value, int | float | None)
        )
    )
    if not splits:
        return ["None are recorded."]
    lines = [f"| score | {' | '.join(splits)} |", f"|---|{'---|' * len(splits)}"]
    for name in names:
        cells = [split_scores.get(name) for split_scores in splits.values()]
        lines.append(
            f"| {_cell(name)} | "
            f"{' | '.join('' if cell is None else f'{cell:,.6g}' for cell in cells)} |"
        )
    return lines


def _data(provenance: Mapping[str, Any]) -> list[str]:
    """What it was trained on and with, one line each; what is not known is left out. export.json
    holds the whole provenance."""
    # JSON of a stored artifact, whose runs may be of an older version
    plain: dict[str, Any] = without_nonfinite(dict(provenance))
    data = plain.get("data") or {}
    rows, versions, placement = (
        data.get("rows") or {},
        plain.get("versions") or {},
        plain.get("placement") or {},
    )
    facts = {
        "Source": data.get("origin"),
        "Digest of its content": data.get("digest"),
        "Rows": ", ".join(
            f"{count:,} {split}" for split, count in rows.items() if isinstance(count, int)
        ),
        "Parameters": f"{plain['parameters']:,}"
        if isinstance(plain.get("parameters"), int)
        else None,
        "Updates": f"{plain['step']:,}, weights of update {plain.get('best_step', plain['step']):,}"
        if plain.get("step")
        else None,
        "Trained on": ", ".join(
            str(placement[name]) for name in ("device", "precision") if name in placement
        ),
        "With": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [f"- {name}: {_cell(value)}" for name, value in facts.items() if value] or [
        "Nothing is recorded."
    ]


def parity_in_words(proof: Mapping[str, Any]) -> str:
    """A parity report (danlu.exporting.parity.ParityReport.as_dict) as a sentence.

    >>> parity_in_words({"rows": 150, "of": "all rows", "allowed": 1e-4, "largest_difference": 0.0})
    '150 rows compared (all rows); largest difference 0 (allowed: 0.0001).'
    """
    rows = f"{proof['rows']:,} rows compared ({proof['of']})"
    if proof.get("accuracy"):
        before, after = proof["accuracy"]
        return (
            f"{rows}; accuracy {before:.4f} before, {after:.4f} after (allowed to fall by: "
            f"{proof['allowed']:g})."
        )
    difference = proof["largest_difference"]
    return f"{rows}; largest difference {difference:.3g} (allowed: {proof['allowed']:g})."


def _usage(manifest: Manifest, exporter: Exporter) -> list[str]:
    lines: list[str] = []
    if exporter.card is not None:
        lines += [*exporter.card(manifest["runs"]), ""]
    if "tokenizer.json" in manifest.get("files", ()):
        lines += [
            "`tokenizer.json` makes the codes that the graph takes of texts, by the tokenizers "
            "library.",
            "",
        ]
    row = ", ".join(f"{field['name']!r}: ..." for field in manifest["inputs"][:4]) + (
        ", ..." if len(manifest["inputs"]) > 4 else ""
    )
    return [
        *lines,
        "```python",
        "from danlu.exporting.loader import open_export",
        "",
        f'open_export("FOLDER").predict([{{{row}}}])',
        "```",
    ]


def _limits() -> list[str]:
    return [
        "- Licence: not stated. Whoever trained the model decides, within the licence of its data.",
        "- The scores hold for data like the data it was trained on; nothing is known of other "
        "data.",
        "- Nobody has examined whether its answers are fair to groups of people.",
    ]
