"""Names of files and folders that are no UTF-8: used where they can be, else refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = os.fsdecode(b"b\xffad")


def danlu(home: Path, *words: str, code: int = 0) -> str:
    """The stderr of a command."""
    command = [sys.executable, "-m", "danlu", *words]
    ended = subprocess.run(command, cwd=home, capture_output=True, check=False, timeout=120)
    err = ended.stderr.decode("utf-8")
    assert ended.returncode == code and "Traceback" not in err, err
    return err


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("names") / NAME
    home.mkdir()
    rows = "".join(f"{n % 7},{'ab'[n % 2]}\n" for n in range(60))
    for name in ("rows.csv", f"{NAME}.csv"):
        (home / name).write_text(f"x,y\n{rows}")
    recipe = {
        "task": "classification",
        "model": "linear",
        "data": {"source": "rows.csv", "target": "y"},
        "train": {"steps": 3},
        "tune": {
            "space": {"optimizer.learning_rate": [0.1, 0.2]},
            "trials": 1,
            "on": "one_by_one",
            "sampler": "random",
        },
    }
    (home / f"{NAME}.json").write_text(json.dumps(recipe))
    danlu(home, "train", f"{NAME}.json", "--run", NAME)
    return home


def test_rows_and_runs_of_any_name_are_used(home: Path) -> None:
    danlu(home, "predict", NAME, f"{NAME}.csv", "--out", f"answers-{NAME}.csv")
    assert (home / f"answers-{NAME}.csv").is_file()
    danlu(home, "evaluate", NAME, f"{NAME}.csv", "--json")


def test_a_study_of_any_name_runs_and_is_reported(home: Path) -> None:
    danlu(home, "tune", f"{NAME}.json", "--study", f"study-{NAME}")
    danlu(home, "report", f"study-{NAME}", "--no-plots")
    best = (home / f"study-{NAME}" / "best.yaml").read_text("utf-8")
    assert "b\\xffad" in best


@pytest.mark.parametrize(
    "words",
    [("new", f"{NAME}.csv", "--target", "y"), ("check", f"{NAME}.json", f"data.source={NAME}")],
)
def test_a_recipe_cannot_hold_such_a_name(home: Path, words: tuple[str, ...]) -> None:
    err = danlu(home, *words, code=2)
    assert "b\\xffad" in err and "not UTF-8" in err and "hint: rename the file" in err
