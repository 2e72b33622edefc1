"""Recipe to answer, as a user types it: real processes, real files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DIGITS = """
task: classification
data:
  source: {name: sklearn, set: digits}
  target: label
model: {name: mlp, hidden: [32]}
train: {epochs: 4}
"""


def danlu(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DANLU_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "danlu", *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run of digits, and a table of iris flowers as CSV."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "digits.yaml").write_text(DIGITS)
    from sklearn.datasets import load_iris

    iris = load_iris()
    with (folder / "iris.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sepal length", "sepal width", "petal length", "petal width", "species"])
        writer.writerows(
            [*values, iris.target_names[label]]
            for values, label in zip(iris.data.tolist(), iris.target)
        )
    return folder


def test_digits_train_evaluate_and_say_what_comes_next(home: Path) -> None:
    trained = danlu("train", "digits.yaml", cwd=home)
    assert trained.returncode == 0, trained.stderr
    assert "accuracy" in trained.stdout and "danlu predict runs/digits DATA" in trained.stderr
    run = home / "runs" / "digits"
    assert {"recipe.lock.yaml", "metrics.jsonl", "checkpoints", "artifact", "environment.json"} <= {
        path.name for path in run.iterdir()
    }
    assert list(run.glob("events*"))
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all("step" in report for report in reports)
    assert [report["split"] for report in reports][-1] == "test"
    scored = danlu("evaluate", "runs/digits", "--json", cwd=home)
    assert json.loads(scored.stdout)["scores"]["accuracy"] == reports[-1]["accuracy"], (
        "the artifact must score what training reported"
    )

    again = danlu("train", "digits.yaml", cwd=home)
    assert again.returncode == 0 and "finished already" in again.stderr
    other = danlu("train", "digits.yaml", "optimizer.learning_rate=0.5", cwd=home)
    assert (
        other.returncode == 2
        and "another recipe" in other.stderr
        and "optimizer.learning_rate: 0.002 -> 0.5" in other.stderr
    )


def test_a_newcomer_goes_from_a_csv_file_to_answers(home: Path) -> None:
    written = danlu("new", "iris.csv", "--target", "species", cwd=home)
    assert written.returncode == 0, written.stderr
    assert written.stdout.strip() == "iris.yaml"
    assert danlu("new", "iris.csv", "--target", "species", cwd=home).returncode == 2, (
        "a recipe that is there is not overwritten"
    )
    trained = danlu("train", "iris.yaml", "--json", cwd=home)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["scores"]["test"]["rows"] == 15
    answered = danlu("predict", "runs/iris", "iris.csv", "--out", "answers.csv", cwd=home)
    assert answered.returncode == 0, answered.stderr
    with (home / "answers.csv").open() as file:
        answers = list(csv.DictReader(file))
    with (home / "iris.csv").open() as file:
        truth = [row["species"] for row in csv.DictReader(file)]
    assert len(answers) == 150
    right = sum(answer["prediction"] == species for answer, species in zip(answers, truth))
    assert right >= 120
    line = json.dumps(
        {"sepal length": 5.1, "sepal width": 3.5, "petal length": 1.4, "petal width": 0.2}
    )
    piped = danlu("predict", "runs/iris", "-", "--json", cwd=home, stdin=line + "\n")
    assert json.loads(piped.stdout)["prediction"] == "setosa", piped.stderr
    wrong = danlu(
        "predict", "runs/iris", "-", cwd=home, stdin='{"sepal length": 5.1, "sepal widht": 3.5}\n'
    )
    assert (
        wrong.returncode == 2 and "sepal width" in wrong.stderr and "Traceback" not in wrong.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "absent.yaml"], 2, "no such recipe"),
        (["train", "digits.yaml", "optimizer.lerning_rate=1"], 2, "did you mean learning_rate"),
        (["evaluate", "nowhere"], 4, "no such artifact"),
        (["show", "mpl"], 2, "did you mean mlp"),
        (["list", "model"], 2, "did you mean models"),
        (["trian", "digits.yaml"], 2, "train"),
    ],
)
def test_wrong_use_gets_one_message_and_its_exit_code(
    home: Path, arguments: list[str], code: int, said: str
) -> None:
    ended = danlu(*arguments, cwd=home)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr and "Traceback" not in ended.stderr


def test_help_lists_and_checks_answer_without_importing_torch() -> None:
    for line in ("['--help']", "['list', 'models']", "['show', 'mlp']", "['schema']"):
        program = (
            f"import sys; sys.argv = ['danlu'] + {line}\nfrom danlu.cli.app import main\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\nassert 'torch' not in sys.modules"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, (line, ended.stderr)
