"""The model card of an export: what it is, what it takes and gives, how well, from what data, how to run it, and what nobody has said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from danlu.training.evaluation import without_nonfinite

_SHORT = 60


def model_card(about: Mapping[str, Any], exporter: Any) -> str:
    """MODEL_CARD.md of a manifest. Source of the headings: Mitchell et al., 2019,
    arXiv:1810.03993."""
    lines = [
        f"# {about['name']}",
        "",
        f"{about['task']['said'][0].upper()}{about['task']['said'][1:]}.",
        "",
    ]
    lines += [
        f"A danlu model of the family `{about['model']}`, exported to `{about['exporter']['name']}`.",
        "",
    ]
    lines += ["## Inputs", "", *_inputs(about["inputs"]), ""]
    lines += ["## Scores", "", *_scores(about["scores"]), ""]
    lines += ["## Data", "", *_data(about["provenance"]), ""]
    lines += [
        "## Proof",
        "",
        f"{proof_in_words(about['proof'])} `danlu verify FOLDER --against ARTIFACT` compares again.",
        "",
    ]
    lines += ["## How to run it", "", *_usage(about, exporter), ""]
    lines += ["## Licence and limits", "", *_limits()]
    return "\n".join(lines) + "\n"


def _inputs(fields: list[dict[str, Any]]) -> list[str]:
    lines = ["| column | kind | may be missing | values | example |", "|---|---|---|---|---|"]
    for each in fields:
        if "categories" in each:
            said = f"{len(each['categories']):,}: {', '.join(map(str, each['categories'][:6]))}{', ...' if len(each['categories']) > 6 else ''}"
        elif "minimum" in each:
            said = f"{each['minimum']:g} to {each['maximum']:g} in training"
        elif "shape" in each:
            said = "x".join(map(str, each["shape"]))
        else:
            said = f"{each['rate']:,} samples a second" if "rate" in each else ""
        example = json.dumps(each["example"], ensure_ascii=False)
        shown = example if len(example) <= _SHORT else f"{example[: _SHORT - 3]}..."
        lines.append(
            f"| {_cell(each['name'])} | {each['kind']} | {'no' if each['required'] else 'yes'} | {_cell(said)} | `{_cell(shown)}` |"
        )
    return lines


def _cell(text: Any) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("`", "'")


def _scores(scores: Mapping[str, Any]) -> list[str]:
    splits = {
        name: each
        for name, each in scores.items()
        if isinstance(each, Mapping) and name in ("train", "validation", "test")
    }
    names = list(
        dict.fromkeys(
            key
            for each in splits.values()
            for key, value in each.items()
            if isinstance(value, int | float | None)
        )
    )
    if not splits:
        return ["None are recorded."]
    lines = [f"| score | {' | '.join(splits)} |", f"|---|{'---|' * len(splits)}"]
    for name in names:
        cells = [each.get(name) for each in splits.values()]
        lines.append(
            f"| {_cell(name)} | {' | '.join('' if cell is None else f'{cell:,.6g}' for cell in cells)} |"
        )
    return lines


def _data(provenance: Mapping[str, Any]) -> list[str]:
    """What it was trained on and with, a line each; what is not known is left out. export.json
    holds all of it."""
    plain = without_nonfinite(dict(provenance))
    data = plain.get("data") or {}
    rows, versions, place = (
        data.get("rows") or {},
        plain.get("versions") or {},
        plain.get("placement") or {},
    )
    told = {
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
            str(place[name]) for name in ("device", "precision") if name in place
        ),
        "With": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [f"- {name}: {_cell(value)}" for name, value in told.items() if value] or [
        "Nothing is recorded."
    ]


def proof_in_words(proof: Mapping[str, Any]) -> str:
    """What a proof (danlu.exporting.parity.Proof.as_dict) compared and found: the largest
    difference, or, of a lower precision, accuracy."""
    rows = f"{proof['rows']:,} rows compared ({proof['of']})"
    if proof.get("accuracy"):
        before, after = proof["accuracy"]
        return f"{rows}; accuracy {before:.4f} before, {after:.4f} after (allowed to fall by: {proof['allowed']:g})."
    return f"{rows}; largest difference {proof['largest_difference']:.3g} (allowed: {proof['allowed']:g})."


def _usage(about: Mapping[str, Any], exporter: Any) -> list[str]:
    lines: list[str] = []
    if hasattr(exporter, "card"):
        lines += [*exporter.card(about["runs"]), ""]
    if "tokenizer.json" in about.get("files", ()):
        lines += [
            "`tokenizer.json` makes the codes that the graph takes of texts, by the tokenizers library.",
            "",
        ]
    row = ", ".join(f"{each['name']!r}: ..." for each in about["inputs"][:4]) + (
        ", ..." if len(about["inputs"]) > 4 else ""
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
        "- The scores hold for data like the data it was trained on; nothing is known of other data.",
        "- Nobody has examined whether its answers are fair to groups of people.",
    ]
