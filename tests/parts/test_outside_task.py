"""A task of another package, installed by pip, serves every verb of the command line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import make

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "danlu-grading"
version = "1.0"

[project.entry-points."danlu.tasks"]
grading = "danlu_grading"
nonsense = "danlu_grading_nonsense"

[tool.setuptools]
py-modules = ["danlu_grading", "danlu_grading_nonsense"]
"""

TASK = '''"""One grade of several in order for each row: how likely it is above each but the last."""

from __future__ import annotations

import numpy as np

from danlu.errors import DataError
from danlu.parts.tasks._base import LabelsRows, RowTask
from danlu.recipe import Options
from danlu.terms import OutputSpec

ASKS = "labels"
TARGETS = (1, 1)
DEFAULTS = {"loss": "binary_cross_entropy", "metrics": ["accuracy", "auroc"]}


class Config(Options):
    """No options."""


class Grading(LabelsRows, RowTask[np.ndarray]):
    """The grades of one column of numbers, ascending."""

    score_order = ("loss", "lower")
    usage = "predict {} PUPILS.csv"

    def __init__(self, target, grades):
        self.target_names = (target,)
        self.classes = tuple(grades)
        names = tuple(f"above {grade:g}" for grade in grades[:-1])
        self.output = OutputSpec(len(names), names, means=(("labels", len(names)),))

    def state(self):
        return {"target": self.target_names[0], "grades": list(self.classes)}

    def describe(self):
        return f"grading of {self.target_names[0]}: {len(self.classes)} grades"

    def encode(self, targets):
        values = targets[self.target_names[0]].values
        strange = ~np.isin(values, self.classes)
        if strange.any():
            raise DataError(f"{values[strange][0]:g} is no grade.")
        return (values[:, None] > np.array(self.classes[:-1])).astype(np.float32)

    def positive_weights(self, chosen):
        return None

    def probabilities(self, outputs):
        return outputs.double().sigmoid()

    def predicted(self, outputs):
        return self.probabilities(outputs) >= 0.5

    def finish(self, module, inputs, outputs):
        return {"above": self.probabilities(outputs)}

    def answers_from_arrays(self, arrays, beside):
        grades = (arrays["above"] >= 0.5).sum(axis=1)
        return [{"prediction": self.classes[grade]} for grade in grades]

    def answers(self, outputs):
        return self.answers_from_arrays({"above": self.probabilities(outputs).numpy()}, {})

    def baseline(self, train_target, target):
        return {}


def build(config, targets):
    ((name, column),) = targets.items()
    return Grading(name, np.unique(column.values).tolist())


def restore(config, state):
    return Grading(state["target"], state["grades"])
'''

NONSENSE = '''"""A task that keeps no promise."""

from danlu.recipe import Options

ASKS = "classes"
DEFAULTS = {"loss": "cross_entropy", "metrics": ["accuracy"]}


class Config(Options):
    """No options."""


def build(config, targets):
    return object()
'''

RECIPE = """
name: {name}
task: {task}
data: {{source: pupils.csv, target: grade}}
model: linear
train: {{steps: 40, threads: 1}}
"""


def verb(home: Path, *arguments: str) -> Any:
    """The JSON that a command printed."""
    done = make.command(*arguments, "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with recipes and data, in an environment that has the package."""
    package, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    (package / "pyproject.toml").write_text(PYPROJECT)
    (package / "danlu_grading.py").write_text(TASK)
    (package / "danlu_grading_nonsense.py").write_text(NONSENSE)
    # fmt: off
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-build-isolation", "--no-deps", "--no-index", "--target", site, package],
        check=True, capture_output=True, timeout=120,
    )
    # fmt: on
    folder = tmp_path_factory.mktemp("home")
    hours, sleep = np.random.default_rng(0).normal(size=(2, 120))
    grades = np.digitize(2 * hours + sleep, [-2, 0, 2]) + 1
    columns: Mapping[str, Any] = {
        "hours": hours.tolist(),
        "sleep": sleep.tolist(),
        "grade": grades.tolist(),
    }
    make.csv_file(folder / "pupils.csv", columns)
    for name, task in (("pupils", "grading"), ("nobody", "nonsense")):
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, task=task))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(site), prepend=":")
        trained = make.command("train", "pupils.yaml", cwd=folder)
        assert trained.returncode == 0, trained.stderr
        assert "danlu predict runs/pupils PUPILS.csv" in trained.stderr
        yield folder


def test_it_is_shown_like_the_others(home: Path) -> None:
    shown = make.command("show", "tasks/grading", cwd=home)
    assert "One grade of several in order for each row" in shown.stdout, shown.stderr


def test_it_is_evaluated_and_answers_rows(home: Path) -> None:
    scores = verb(home, "evaluate", "runs/pupils")["scores"]
    assert scores["auroc"] > 0.9
    answers = make.command("predict", "runs/pupils", "pupils.csv", "--json", cwd=home)
    grades = {json.loads(line)["prediction"] for line in answers.stdout.splitlines()}
    assert grades <= {1, 2, 3, 4} and len(grades) > 1, answers.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="needs danlu[onnx]: pip install 'danlu[onnx]'"
)
def test_it_is_exported_and_the_export_answers_alike(home: Path) -> None:
    exported = verb(home, "export", "runs/pupils", "--to", "onnx", "--out", "pupils.onnx")
    assert exported["proof"]["rows"] > 0
    verified = verb(home, "verify", "pupils.onnx", "--against", "runs/pupils")
    assert verified["largest_difference"] <= 1e-4


def test_it_is_compressed(home: Path) -> None:
    report = verb(home, "compress", "runs/pupils", "--with", "prune:share=0.25,epochs=1")
    assert report["after"]["scores"]["auroc"] > 0.8


def test_an_object_that_is_no_task_is_refused_by_name_of_its_class(home: Path) -> None:
    refused = make.command("train", "nobody.yaml", cwd=home)
    assert refused.returncode == 2
    assert "tasks/nonsense builds a object, which is no Task" in refused.stderr
    assert "derive its class from Task of danlu.parts.tasks._base" in refused.stderr
