"""Closed and full standard streams, and data that would steer a terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import danlu

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
NAMES = {"age": f"age{ESCAPE}", "city": "city\u202e", "y": "y"}
CLASSES = (f"yes{ESCAPE}", "no\x9b31m")
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose names, cells and classes hold terminal escapes, and a run on it."""
    home = tmp_path_factory.mktemp("escapes")
    rows = [f"{n % 7},{('a' + ESCAPE, 'b')[n % 3 == 0]},{CLASSES[n % 2]}" for n in range(60)]
    (home / "rows.csv").write_text("\n".join([",".join(NAMES.values()), *rows]) + "\n", "utf-8")
    recipe = {
        "task": "classification",
        "model": "linear",
        "data": {"source": str(home / "rows.csv"), "target": "y"},
        "train": {"steps": 3, "save_every": 3},
    }
    (home / "recipe.json").write_text(json.dumps(recipe))
    danlu.train(home / "recipe.json", home / "run")
    return home


def shell(home: Path, line: str, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of `danlu ...` in a shell, with its redirections."""
    command = line.replace("danlu", f"{sys.executable} -m danlu", 1)
    ended = subprocess.run(
        ["bash", "-c", command], cwd=home, capture_output=True, check=False, timeout=120
    )
    out, err = ended.stdout.decode("utf-8"), ended.stderr.decode("utf-8")
    assert ended.returncode == code, (line, out, err)
    assert "Traceback" not in err and "Exception ignored" not in err, err
    return out, err


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("danlu predict run rows.csv", 0),
        ("danlu predict run rows.csv --json", 0),
        ("danlu evaluate run", 0),
        ("danlu evaluate run --json", 0),
        ("danlu train recipe.json --run run", 0),
        ("danlu check recipe.json name=$'\\e[31m'", 2),
        ("danlu check recipe.json data.columns.$'\\e[31m'=number", 0),
        ("danlu check recipe.json data.columns.$'\\e[31m'=number --json", 0),
        ("danlu check $'\\e[31m\\xff.yaml'", 2),
        ("danlu check recipe.json $'--\\e[31m'", 2),
        ("danlu new rows.csv --target $'zz\\e[31m' --out new.yaml", 2),
    ],
)
def test_nothing_that_steers_a_terminal_is_printed(home: Path, line: str, code: int) -> None:
    out, err = shell(home, line, code)
    assert not STEERING.search(out) and not STEERING.search(err), (out, err)
    if "--json" in line and "predict" in line:
        answers = [json.loads(answer)["prediction"] for answer in out.splitlines()]
        assert set(answers) <= set(CLASSES), "JSON's own escapes: the same value when it is read"


@pytest.mark.parametrize(
    "line",
    ["danlu train recipe.json --run %s 2>&-", "danlu train recipe.json --run %s <&- >&- 2>&-"],
)
def test_closed_streams_are_no_reason_to_stop(home: Path, line: str) -> None:
    run = f"run-{len(line)}"
    out, _ = shell(home, line % run)
    assert (home / run / "artifact" / "artifact.json").is_file()
    weights = Path("artifact") / "weights.safetensors"
    assert (home / run / weights).read_bytes() == (home / "run" / weights).read_bytes()
    assert "step" not in out, "what belongs to stderr"


def test_a_closed_stdin_is_told(home: Path) -> None:
    _, err = shell(home, "danlu predict run - <&-", 2)
    assert err.startswith("stdin: stdin is closed") and "hint: name a file" in err


def test_a_closed_stdout_is_told_where_it_is_the_only_result(home: Path) -> None:
    _, err = shell(home, "danlu predict run rows.csv >&-", 2)
    assert err.startswith("stdout is closed") and "--out FILE" in err
    shell(home, "danlu predict run rows.csv --out answers.csv >&-")
    assert (home / "answers.csv").is_file()
    shell(home, "danlu check recipe.json >&-")


def test_a_full_stdout_is_told_once(home: Path) -> None:
    _, err = shell(home, "danlu predict run rows.csv > /dev/full", 2)
    assert err == "stdout: the result cannot be printed: No space left on device.\n"


def test_bytes_that_are_no_text_are_named_by_line(home: Path) -> None:
    _, err = shell(home, 'printf \'{}\\n{"a": "\\xff"}\\n\' | danlu predict run -', 2)
    assert err.startswith("stdin line 2: byte 8 of this line is not UTF-8.")
