"""What an earlier danlu stored is read by this one, and leads to the same.

Artifacts, unfinished runs and studies, exports, safekeeping: make_golden.py says what lies where.
Everything is used in a copy of its folder, since reading may write beside it.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("optuna")
pytest.importorskip("onnxruntime")
pytest.importorskip("cryptography")

import danlu
import golden

STORED = golden.STORED


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to be in, with the recipes, their data and the questions."""
    folder = golden.prepared_home(tmp_path / "home")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    return folder


def questions(name: str) -> list[dict[str, Any]]:
    """The rows that an artifact answers."""
    return golden.read(golden.HERE / "questions" / f"{name}.json")


def stored(path: str, home: Path) -> Path:
    """A copy of a stored folder."""
    return Path(shutil.copytree(STORED / path, home / Path(path).name))


def refuse_other_answers(now: list[dict[str, Any]], then: list[dict[str, Any]], name: str) -> None:
    """Equal to the last bit on the machine that wrote them; elsewhere near, as golden.py says."""
    if name.startswith("gan"):  # a PNG's bytes are those of the library that writes it
        most = 0 if golden.is_the_same_machine() else 1  # shades are rounded to one of 256
        for one, other in zip(now, then, strict=True):
            shades = zip(pixels(one["prediction"]), pixels(other["prediction"]), strict=True)
            assert max(abs(a - b) for a, b in shades) <= most
    elif golden.is_the_same_machine():
        golden.refuse_differences(now, then)
    elif name == "text":  # one other letter, and all that follows are others
        golden.refuse_differences(
            [sorted(answer) for answer in now], [sorted(answer) for answer in then]
        )
    else:
        golden.refuse_differences(now, then, golden.COARSE.get(name, golden.ANSWERS))


def pixels(url: str) -> list[int]:
    """The shades in a data URL of a PNG."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return list(image.tobytes())


@pytest.mark.parametrize("name", golden.TRAININGS)
def test_a_stored_artifact_answers_as_before(home: Path, name: str) -> None:
    artifact = danlu.load(stored(f"artifacts/{name}/artifact", home))
    expected = golden.read(STORED / "artifacts" / name / "expected.json")
    refuse_other_answers(artifact.predict(questions(name)), expected["answers"], name)


@pytest.mark.parametrize("name", golden.TRAININGS)
def test_a_stored_artifact_knows_its_own_test_rows_and_scores_as_before(
    home: Path, name: str
) -> None:
    artifact = danlu.load(stored(f"artifacts/{name}/artifact", home))
    now, then = danlu.evaluate(artifact), artifact.scores["test"]
    assert now.rows == then["rows"]
    if golden.is_the_same_machine():
        golden.refuse_differences(now.values, {key: then[key] for key in now.values})
    elif "loss" in then:
        tolerance = golden.COARSE.get(name, golden.LOSSES)
        golden.refuse_differences(now.values["loss"], then["loss"], tolerance)


def test_a_stored_artifact_is_refused_with_one_byte_changed(home: Path) -> None:
    artifact = stored("artifacts/table/artifact", home)
    for path in sorted(artifact.iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        with pytest.raises(danlu.DanluError, match=path.name):
            danlu.load(artifact)
        path.write_bytes(data)
    danlu.load(artifact)


def test_the_command_line_answers_as_before(home: Path) -> None:
    artifact = stored("artifacts/table/artifact", home)
    lines = golden.typed(
        "predict", artifact, "questions/table.csv", "--json", home=home
    ).splitlines()
    expected = golden.read(STORED / "artifacts" / "table" / "expected.json")["answers"]
    refuse_other_answers([json.loads(line) for line in lines], expected, "table")


@pytest.mark.parametrize(("key", "temperature"), [("likeliest", 0.0), ("drawn", 0.9)])
def test_a_stored_language_model_writes_as_before(home: Path, key: str, temperature: float) -> None:
    expected = golden.read(STORED / "artifacts" / "text" / "expected.json")[key]
    prompts = [text["prompt"] for text in expected]
    artifact = stored("artifacts/text/artifact", home)
    texts = danlu.generate(artifact, prompts, temperature=temperature, seed=7, max_tokens=24)
    written = [text.as_dict() for text in texts]
    if golden.is_the_same_machine():
        golden.refuse_differences(written, expected)
    assert [text["prompt"] for text in written] == prompts


def test_a_stored_generator_makes_the_same_pictures(home: Path) -> None:
    artifact = stored("artifacts/gan/artifact", home)
    pictures = danlu.picture(artifact, 2, ["0", "7"], seed=5)
    expected = golden.read(STORED / "artifacts" / "gan" / "expected.json")["pictures"]
    apart = 0 if golden.is_the_same_machine() else 1
    assert abs(pictures.astype(int) - expected).max() <= apart


@pytest.mark.parametrize("name", ["killed", "signalled"])
def test_a_run_that_was_cut_off_ends_in_the_bytes_of_the_unbroken_one(
    home: Path, name: str
) -> None:
    expected = golden.read(STORED / "unfinished" / name / "expected.json")
    recipe = expected["recipe"]
    run = stored(f"unfinished/{name}/run", home)
    begun = max(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*"))
    before = len((run / "timings.jsonl").read_text("utf-8").splitlines())
    golden.typed("train", f"recipes/{recipe}.yaml", "--run", "run", "--json", home=home)
    timings = (run / "timings.jsonl").read_text("utf-8").splitlines()
    assert json.loads(timings[before])["step"] == begun + 1, "it went on from the last checkpoint"
    now, then = golden.curve(run), golden.read(golden.CURVES / f"{recipe}.json")
    assert then["weights"] == expected["unbroken"]
    if golden.is_the_same_machine():
        golden.refuse_differences(now, then)
    else:
        reports = (golden.comparable(now["metrics"]), golden.comparable(then["metrics"]))
        golden.refuse_differences(*reports, golden.LOSSES)


def test_a_run_folder_refuses_another_recipe(home: Path) -> None:
    run = stored("unfinished/killed/run", home)
    with pytest.raises(danlu.DanluError, match=r"train\.seed: 0 -> 1"):
        danlu.train("recipes/table.yaml", run, {"train.seed": 1})


@pytest.mark.parametrize("name", ["one_by_one", "together"])
def test_a_stored_study_is_reported_as_before(home: Path, name: str) -> None:
    study = stored(f"studies/{name}/study", home)
    written = danlu.report(study, plots=False)
    assert study / "trials.csv" in written
    expected = golden.read(STORED / "studies" / name / "expected.json")
    assert (study / "trials.csv").read_text("utf-8") == expected["before"]


@pytest.mark.parametrize("name", ["one_by_one", "together"])
def test_a_stored_study_goes_on_and_keeps_the_trials_that_it_has(home: Path, name: str) -> None:
    expected = golden.read(STORED / "studies" / name / "expected.json")
    recipe, changes = expected["recipe"], expected["changes"]
    stored(f"studies/{name}/study", home)
    shown = json.loads(
        golden.typed("tune", recipe, *changes, "--study", "study", "--json", home=home)
    )
    rows = csv.DictReader(io.StringIO(expected["before"]))
    kept = {int(row["number"]): row["seconds"] for row in rows if row["state"] == "complete"}
    assert len(kept) >= 3
    seconds = {number: str(shown["trials"][number]["seconds"]) for number in kept}
    assert seconds == kept, "none was trained again"
    now, then = golden.trials_of(shown), expected["trials"]
    assert shown["states"]["running"] == 0
    if golden.is_the_same_machine():
        golden.refuse_differences(now, then)
    else:  # what comes next depends on scores: only the trials that were there are sure to be equal
        assert len(now) == len(then)
        for number in kept:
            golden.refuse_differences(now[number], then[number])
    best = min if recipe == "recipes/search.yaml" else max
    assert shown["best"]["scores"][0] == best(
        trial["scores"][0] for trial in now if trial["state"] == "complete"
    )


def test_a_study_refuses_another_search(home: Path) -> None:
    study = stored("studies/one_by_one/study", home)
    with pytest.raises(danlu.DanluError, match=r"tune\.seed: 3 -> 4"):
        danlu.tune("recipes/search.yaml", study, {"tune.seed": 4})


def test_a_stored_export_answers_as_before_and_is_proven_anew(home: Path) -> None:
    folder = stored("export/table.onnx", home)
    expected = golden.read(STORED / "export" / "expected.json")["answers"]
    refuse_other_answers(danlu.open_export(folder).predict(questions("table")), expected, "export")
    proof = danlu.verify(folder, STORED / "artifacts" / "table" / "artifact").as_dict()
    assert proof["rows"] == 60 + 36, "those of validation and test"
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(danlu.DanluError, match=r"model\.onnx"):
        danlu.open_export(folder)


def test_a_compressed_artifact_answers_as_before(home: Path) -> None:
    artifact = danlu.load(stored("compressed/artifact", home))
    expected = golden.read(STORED / "compressed" / "expected.json")["answers"]
    refuse_other_answers(artifact.predict(questions("reviews")), expected, "compressed")
    whole = golden.read(STORED / "artifacts" / "reviews" / "expected.json")["answers"]
    assert expected != whole, "what is stored is rounded"


def test_an_encrypted_artifact_opens_with_its_passphrase_and_no_other(home: Path) -> None:
    folder = stored("safe/encrypted", home)
    passphrase = home / "passphrase.txt"
    passphrase.write_text("four words that nobody wrote\n")
    passphrase.chmod(0o600)
    with pytest.raises(danlu.DanluError):
        danlu.decrypt(folder, home / "plain", passphrase_file=passphrase)
    shutil.copyfile(STORED / "safe" / "passphrase.txt", passphrase)
    plain = danlu.decrypt(folder, home / "plain", passphrase_file=passphrase)
    for path in (STORED / "artifacts" / "table" / "artifact").iterdir():
        assert (plain / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_signed_artifact_is_what_its_owner_signed(home: Path) -> None:
    folder = stored("safe/signed", home)
    assert danlu.verify_signature(folder, STORED / "safe" / "signing.pub").files == 4
    (folder / "recipe.lock.yaml").write_text("task: another\n")
    with pytest.raises(danlu.DanluError):
        danlu.verify_signature(folder, STORED / "safe" / "signing.pub")
