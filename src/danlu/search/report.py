"""What a study found, as files in its folder: trials.csv, trials.parquet, report.html, plots/*.png.

A study notes in study.json what its report needs beside the trials, so that neither the recipe nor
the data must be there to tell of it, and a study that runs at this moment can be looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from danlu.errors import RunError
from danlu.recipe import Dimension
from danlu.reporting import Objective, StudyTold, write_study_report
from danlu.reporting.told import Words
from danlu.search.storage import Ledger, sqlite_file
from danlu.search.study import Study, record_of
from danlu.search.suggest import imported
from danlu.system.atomic_files import replace_file

ABOUT = "study.json"
_FACTS = {
    "sampler": Words("sampler", "采样器"),
    "pruner": Words("pruner", "剪枝器"),
    "executor": Words("trials run", "试验的运行方式"),
    "folds": Words("folds of a trial", "每个试验的折数"),
    "seed": Words("seed", "种子"),
}


def note_study(study: Study, executor: str) -> None:
    """Write study.json into the study's folder."""
    tune = study.tune
    told = {
        "name": study.recipe.name,
        "storage": _without_password(study.url) if tune.storage else None,
        "objectives": [
            {"metric": metric, "direction": direction} for metric, direction in study.objectives
        ],
        "space": [each.as_dict() for each in study.space],
        "facts": {
            "sampler": tune.sampler.name if tune.sampler else "",
            "pruner": tune.pruner.name if tune.pruner else "none",
            "executor": executor.replace("_", " "),
            **({"folds": str(tune.folds)} if tune.folds else {}),
            "seed": str(tune.seed),
        },
    }
    replace_file(study.folder / ABOUT, json.dumps(told, ensure_ascii=False, indent=1).encode())


def report(
    study: str | Path, *, storage: str | None = None, plots: bool | None = None
) -> list[Path]:
    """Write the report of the study in a folder; the files written, report.html first.

    `storage` is the URL of a server's database, where the noted one needs a password. `plots`:
    whether PNGs are drawn too; None: where matplotlib is installed. Raises RunError where there is
    no study, MissingExtra."""
    folder = Path(study)
    about = _about(folder)
    url = storage or about["storage"] or f"sqlite:///{folder / 'study.sqlite'}"
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        raise RunError(
            "the trials of this study are not there.",
            where=str(file),
            hint="give its storage: --storage URL",
        )
    objectives = [Objective(**each) for each in about["objectives"]]
    space = [_dimension(each) for each in about["space"]]
    imported()
    ledger = Ledger(
        url, folder.resolve().name, [each.direction for each in objectives], tuple(space)
    )
    try:
        records = [
            record_of(entry) for entry in sorted(ledger.read(), key=lambda entry: entry.number)
        ]
    finally:
        ledger.close()
    best = folder / "best.yaml"
    facts = [(_FACTS[name], value) for name, value in about["facts"].items() if name in _FACTS]
    facts.append(
        (
            Words("training time, all trials", "全部试验的训练用时"),
            _duration(sum(each.seconds for each in records)),
        )
    )
    told = StudyTold(
        about["name"],
        objectives,
        space,
        records,
        facts,
        best.read_text("utf-8") if best.is_file() else "",
    )
    return write_study_report(folder, told, plots=plots)


def _about(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / ABOUT).read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(
            "there is no study in this folder.",
            where=str(folder),
            hint="danlu tune RECIPE --study FOLDER begins one",
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"what is noted of this study cannot be read: {error}.",
            where=str(folder / ABOUT),
            hint="run danlu tune again with the same recipe and --study: it writes it anew",
        ) from None


def _dimension(told: Mapping[str, Any]) -> Dimension:
    known = {each.name for each in fields(Dimension)}
    about = {name: value for name, value in told.items() if name in known}
    about["choices"] = tuple(about.get("choices", ()))
    about["when"] = {name: tuple(each) for name, each in about.get("when", {}).items()}
    return Dimension(**about)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@")))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{seconds:.1f} s"
    )
