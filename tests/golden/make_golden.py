"""Writes the golden folder anew, as the danlu that is installed (or on PYTHONPATH) makes it.

    python tests/golden/make_golden.py

Run it with the code that later code is to be compared with, on a machine that is not busy with
anything else. It takes about two minutes, and needs the extras tune, onnx, text and crypto.
Everything but recipes/ is removed and written again:

    data/, questions/            what the recipes read, and rows to be answered (sheets.py)
    curves/NAME.json             of a training: every report by step, the SHA-256 of its weights
    stored/artifacts/NAME/       artifact/ as danlu train wrote it, and expected.json: its answers
                                 to questions/NAME.json
    stored/unfinished/killed/    the run folder of recipes/table.yaml, ended by SIGKILL part-way
    stored/unfinished/signalled/ that of recipes/text.yaml, ended by SIGTERM
    stored/studies/one_by_one/   the study of recipes/search.yaml, killed with some trials left, and
                                 how it goes on
    stored/studies/together/     that of recipes/search_together.yaml (many trials as one program),
                                 complete, and how it goes on with two trials more
    stored/export/               ONNX of table
    stored/compressed/           reviews, its linear layers in 8 bits
    stored/safe/                 table encrypted, denoise signed
    made_on.json                 the machine: another one may compute other last bits (golden.py)

Folders are stored just as danlu left them, but for the plots of studies and the event files of
TensorBoard, which nothing reads back and which carry the name of the machine. torch writes into an
ONNX file where the sources of the layers lie: to keep that out of the stored one, let PYTHONPATH
and the virtual environment be reached by links with neutral names.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sheets

import golden
from golden import HERE, STORED, TRAININGS, curve, read, typed, write

PROMPTS = ("The owl", "A sailor ")
PICTURES = """
import danlu, json, sys
print(json.dumps(danlu.picture(sys.argv[1], 2, ["0", "7"], seed=5).tolist()))
"""
ANSWERS = """
import danlu, json, pathlib, sys
rows = json.loads(pathlib.Path(sys.argv[2]).read_text("utf-8"))
print(json.dumps(danlu.open_export(sys.argv[1]).predict(rows)))
"""
TRIES = 30  # for what must be killed at the right moment


def main() -> None:
    """All of it, in order."""
    for name in ("data", "questions", "curves", "stored"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    sheets.write_data(HERE / "data")
    sheets.write_questions(HERE / "questions")
    golden.write(HERE / "made_on.json", golden.machine())
    with tempfile.TemporaryDirectory() as temporary:
        home = golden.prepared_home(Path(temporary) / "home")
        print("danlu of", typed_python("import danlu; print(danlu.__file__)", home).strip())
        for name in TRAININGS:
            train(home, name)
        unfinished(home, "killed", "table", signal.SIGKILL, "step-0000000024")
        unfinished(home, "signalled", "text", signal.SIGTERM, "step-0000000020")
        killed_study(home)
        study_as_one_program(home)
        export(home)
        compress(home)
        keep_safe(home)
    size = sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file())
    print(f"stored/ holds {size / 1e6:.2f} MB")


def train(home: Path, name: str) -> None:
    """The curve of a recipe, its artifact and the answers of that."""
    print("training", name)
    typed("train", f"recipes/{name}.yaml", "--run", f"out/{name}", "--json", home=home)
    write(HERE / "curves" / f"{name}.json", curve(home / "out" / name))
    kept = STORED / "artifacts" / name
    shutil.copytree(home / "out" / name / "artifact", kept / "artifact")
    write(kept / "expected.json", answers_of(home, name))


def answers_of(home: Path, name: str) -> dict[str, Any]:
    """What a trained artifact answers."""
    run = f"out/{name}"
    expected: dict[str, Any] = {"answers": predicted(home, run, name)}
    if name == "gan":
        expected["pictures"] = json.loads(typed_python(PICTURES, home, run))
    if name == "text":
        prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
        for key, temperature in (("likeliest", "0"), ("drawn", "0.9")):
            words = ("--temperature", temperature, "--seed", "7", "--max-tokens", "24", "--json")
            expected[key] = json.loads(typed("generate", run, *prompts, *words, home=home))
    return expected


def predicted(home: Path, artifact: str, name: str) -> list[dict[str, Any]]:
    """The answers of `danlu predict` to the questions of a recipe."""
    rows = "\n".join(json.dumps(row) for row in read(home / "questions" / f"{name}.json"))
    lines = typed("predict", artifact, "-", "--json", home=home, stdin=rows + "\n").splitlines()
    return [json.loads(line) for line in lines]


def unfinished(home: Path, name: str, recipe: str, ending: signal.Signals, after: str) -> None:
    """The folder of a run that was ended early, and the weights of the unbroken one."""
    print("ending a training of", recipe)
    run = home / name
    words = ("train", f"recipes/{recipe}.yaml", "--run", name)
    end_early(home, words, ending, run / "checkpoints" / after, run / "artifact")
    kept = STORED / "unfinished" / name
    store(run, kept / "run")
    unbroken = curve(home / "out" / recipe)["weights"]
    write(kept / "expected.json", {"recipe": recipe, "unbroken": unbroken})


def killed_study(home: Path) -> None:
    """A study killed in its fifth trial, its trials then, and all of them once it has gone on."""
    print("killing a study")
    study = home / "study"
    words = ("tune", "recipes/search.yaml", "--study", "study", "--quiet")
    fifth = study / "trials" / "0004" / "checkpoints"
    end_early(home, words, signal.SIGKILL, fifth, study / "trials.csv")
    store_study(home, "one_by_one", ())


def study_as_one_program(home: Path) -> None:
    """A study of eight trials that were trained together, and how it goes on to ten."""
    print("searching with many trials as one program")
    typed("tune", "recipes/search_together.yaml", "--study", "study", "--quiet", home=home)
    store_study(home, "together", ("tune.trials=10",))


def store_study(home: Path, name: str, changes: tuple[str, ...]) -> None:
    """Keep the study as it is; then let it go on, for what is to be expected of it."""
    study, kept = home / "study", STORED / "studies" / name
    store(study, kept / "study")
    recipe = "recipes/search.yaml" if name == "one_by_one" else "recipes/search_together.yaml"
    typed("report", "study", "--no-plots", home=home)
    before = (study / "trials.csv").read_text("utf-8")
    shown = json.loads(typed("tune", recipe, *changes, "--study", "study", "--json", home=home))
    expected = {
        "recipe": recipe,
        "changes": list(changes),
        "before": before,
        "trials": golden.trials_of(shown),
    }
    write(kept / "expected.json", expected)
    shutil.rmtree(study)


def export(home: Path) -> None:
    """ONNX of the table's model, and what it answers."""
    print("exporting")
    typed("export", "out/table", "--to", "onnx", "--out", "table.onnx", "--json", home=home)
    store(home / "table.onnx", STORED / "export" / "table.onnx")
    answers = json.loads(typed_python(ANSWERS, home, "table.onnx", "questions/table.json"))
    write(STORED / "export" / "expected.json", {"answers": answers})


def compress(home: Path) -> None:
    """The reviews' model with its linear layers in 8 bits."""
    print("compressing")
    words = ("--with", "int8_dynamic:smallest=256", "--out", "smaller", "--quiet")
    typed("compress", "out/reviews", *words, home=home)
    kept = STORED / "compressed"
    store(home / "smaller", kept / "artifact")
    write(kept / "expected.json", {"answers": predicted(home, "smaller", "reviews")})


def keep_safe(home: Path) -> None:
    """An artifact encrypted with a passphrase for everybody, and one signed by a forgotten key."""
    print("encrypting and signing")
    safe = STORED / "safe"
    safe.mkdir(parents=True)
    (safe / "passphrase.txt").write_text("four words that everybody may read\n")
    shutil.copy(safe / "passphrase.txt", home)
    (home / "passphrase.txt").chmod(0o600)  # danlu takes no secret that everybody may read
    words = ("--out", "encrypted", "--passphrase-file", "passphrase.txt")
    typed("encrypt", "out/table/artifact", *words, home=home)
    store(home / "encrypted", safe / "encrypted")
    shutil.copytree(home / "out" / "denoise" / "artifact", home / "signed")
    typed("sign", "--new-key", "signing.pem", home=home)
    typed("sign", "signed", "--signing-key", "signing.pem", home=home)
    store(home / "signed", safe / "signed")
    (public,) = home.glob("signing.pem*.pub")
    shutil.copy(public, safe / "signing.pub")


def end_early(
    home: Path, words: tuple[str, ...], ending: signal.Signals, early: Path, late: Path
) -> None:
    """Start a command and end it as soon as `early` is there; anew where `late` was there too."""
    folder = home / early.relative_to(home).parts[0]
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "danlu", *words]
        with subprocess.Popen(
            command,
            cwd=home,
            env=golden.environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None and not early.exists():
                time.sleep(0.0005)
            process.send_signal(ending)
            process.wait(60)
        if early.exists() and not late.exists():
            return
    raise SystemExit(f"danlu {' '.join(words)} could not be ended in time")


def store(folder: Path, kept: Path) -> None:
    """Copy what danlu wrote, but for what make_golden.py says is left out."""
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("plots", "events.out.tfevents.*"))


def typed_python(code: str, home: Path, *words: str) -> str:
    """What a line of Python prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=home,
        env=golden.environment(home),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


if __name__ == "__main__":
    main()
