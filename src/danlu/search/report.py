"""The report of a study, as files: trials.csv, trials.parquet, report.html, plots/*.png.

A study writes study.json with what its report needs beside the trials. So the report needs neither
the recipe nor the data, and can be written while the study runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from danlu.errors import RunError
from danlu.recipe import Dimension
from danlu.reporting import Objective, StudyData, write_study_report
from danlu.reporting.study_data import Bilingual
from danlu.search.storage import TrialStorage, sqlite_file
from danlu.search.study import Study, to_record
from danlu.search.suggest import import_optuna
from danlu.system.atomic_files import replace_file

STUDY_FILE = "study.json"
_FACT_LABELS = {
    "sampler": Bilingual("sampler", "采样器"),
    "pruner": Bilingual("pruner", "剪枝器"),
    "executor": Bilingual("trials run", "试验的运行方式"),
    "folds": Bilingual("folds of a trial", "每个试验的折数"),
    "seed": Bilingual("seed", "种子"),
}


def note_study(study: Study, executor: str) -> None:
    """Write study.json into the study's folder."""
    tune = study.tune
    description = {
        "name": study.recipe.name,
        "storage": _without_password(study.url) if tune.storage else None,
        "objectives": [
            {"metric": metric, "direction": direction} for metric, direction in study.objectives
        ],
        "space": [dimension.as_dict() for dimension in study.space],
        "facts": {
            "sampler": tune.sampler.name if tune.sampler else "",
            "pruner": tune.pruner.name if tune.pruner else "none",
            "executor": executor.replace("_", " "),
            **({"folds": str(tune.folds)} if tune.folds else {}),
            "seed": str(tune.seed),
        },
    }
    replace_file(
        study.folder / STUDY_FILE, json.dumps(description, ensure_ascii=False, indent=1).encode()
    )


def report(
    study: str | Path, *, storage: str | None = None, plots: bool | None = None
) -> list[Path]:
    """Write the report of the study in a folder; the files written, report.html first.

    `storage` is the URL of the study's database: give it where it needs a password, which
    study.json does not hold. `plots`: whether PNG files are drawn; None: where matplotlib is
    installed. Raises RunError where there is no study, MissingExtra.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> recipe["tune"] = {"space": {"optimizer.learning_rate": [0.01, 0.1]}, "sampler": "random",
    ...                   "trials": 2, "on": "one_by_one"}
    >>> study = danlu.tune(recipe, "studies/iris")
    >>> [path.name for path in danlu.report("studies/iris", plots=False)]
    ['report.html', 'trials.csv', 'trials.parquet']
    """
    folder = Path(study)
    description = _read_study_file(folder)
    url = storage or description["storage"] or f"sqlite:///{folder / 'study.sqlite'}"
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        raise RunError(
            "the trials of this study are not there.",
            where=str(file),
            hint="give its storage: --storage URL",
        )
    objectives = [Objective(**objective) for objective in description["objectives"]]
    space = [_dimension(dimension) for dimension in description["space"]]
    import_optuna()
    trial_storage = TrialStorage(
        url, folder.resolve().name, [objective.direction for objective in objectives], tuple(space)
    )
    try:
        records = [
            to_record(entry)
            for entry in sorted(trial_storage.read(), key=lambda entry: entry.number)
        ]
    finally:
        trial_storage.close()
    best = folder / "best.yaml"
    facts = [
        (_FACT_LABELS[name], value)
        for name, value in description["facts"].items()
        if name in _FACT_LABELS
    ]
    facts.append(
        (
            Bilingual("training time, all trials", "全部试验的训练用时"),
            _duration(sum(record.seconds for record in records)),
        )
    )
    data = StudyData(
        description["name"],
        objectives,
        space,
        records,
        facts,
        best.read_text("utf-8") if best.is_file() else "",
    )
    return write_study_report(folder, data, plots=plots)


def _read_study_file(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / STUDY_FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(
            "there is no study in this folder.",
            where=str(folder),
            hint="danlu tune RECIPE --study FOLDER begins one",
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"what is noted of this study cannot be read: {error}.",
            where=str(folder / STUDY_FILE),
            hint="run danlu tune again with the same recipe and --study: it writes it anew",
        ) from None


def _dimension(description: Mapping[str, Any]) -> Dimension:
    names = {field.name for field in fields(Dimension)}
    arguments = {name: value for name, value in description.items() if name in names}
    arguments["choices"] = tuple(arguments.get("choices", ()))
    arguments["when"] = {name: tuple(values) for name, values in arguments.get("when", {}).items()}
    return Dimension(**arguments)


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
