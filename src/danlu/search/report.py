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

from danlu.errors import RunError
from danlu.recipe import DatabaseAddress, Dimension
from danlu.recipe.database_address import lies_inside
from danlu.reporting import Objective, StudyData, write_study_report
from danlu.reporting.study_data import Bilingual
from danlu.search.storage import TrialStorage, refuse_address
from danlu.search.study import Study, to_record
from danlu.search.suggest import import_optuna
from danlu.system.atomic_files import replace_file
from danlu.system.trust import remote_is_allowed

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
        "storage": study.address.without_password() if tune.storage else None,
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
        study.folder / STUDY_FILE,
        json.dumps(description, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"),
    )


def report(
    study: str | Path, *, storage: str | None = None, plots: bool | None = None
) -> list[Path]:
    """Write the report of the study in a folder; the files written, report.html first.

    `storage` is the URL of the study's database: give it where it needs a password, which
    study.json does not hold. A database outside of the folder that study.json names needs
    danlu.system.trust.allow_remote(). `plots`: whether PNG files are drawn; None: where matplotlib
    is installed. Raises RunError where there is no study, MissingExtra.

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
    address = _database_of(folder, storage, description["storage"])
    file = address.file
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
        address,
        folder.resolve().name,
        [objective.direction for objective in objectives],
        tuple(space),
        folder,
        begin=None,
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


def _database_of(folder: Path, chosen: str | None, noted: str | None) -> DatabaseAddress:
    """The database of a study: the one that the caller has chosen, or the one that study.json
    names. Raises RunError for one outside of the folder that nobody has chosen or permitted."""
    if chosen is not None:
        return refuse_address(chosen)
    file = folder / "study.sqlite"
    address = DatabaseAddress("sqlite", file) if noted is None else refuse_address(noted)
    inside = address.file is not None and lies_inside(address.file, folder)
    if inside or remote_is_allowed():
        return address
    raise RunError(
        f"the study's database is not in its folder: {address}.",
        where=str(folder / STUDY_FILE),
        hint="if you trust it, give it as --storage URL, or add --allow-remote",
    )


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
