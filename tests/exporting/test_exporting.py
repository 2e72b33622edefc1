"""Exports: every transform inside the graph, answers equal to the artifact's, and what an opened export refuses."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import danlu
from danlu.errors import ArtifactError, DanluError, DataError
from danlu.system.atomic_files import parse_checked, sha256, with_checksum

pytest.importorskip("onnxruntime", reason="pip install 'danlu[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'danlu[onnx]'")

ROWS = 400


def write_table(path: Path) -> None:
    """Every kind of column, with gaps, rare names, flags, long tails, and dates before 1970."""
    random = np.random.default_rng(5)
    rows = []
    for number in range(ROWS):
        age, income = random.normal(40, 12), np.exp(random.normal(8, 2))
        town = (
            random.choice(["Paris", "Roma", "Köln", "北京"]) if number % 40 else f"village {number}"
        )
        moment = np.datetime64("1961-03-01T00:00:00") + np.timedelta64(
            int(random.integers(0, 2_000_000_000)), "s"
        )
        rows.append(
            {
                "age": "" if number % 11 == 3 else f"{age:.3f}",
                "income": f"{income:.4f}",
                "score": f"{random.integers(0, 12)}",
                "town": "?" if number % 17 == 5 else town,
                "size": random.choice(["small", "medium", "large"]),
                "member": "" if number % 13 == 2 else random.choice(["true", "false"]),
                "when": "" if number % 19 == 4 else str(moment).replace("T", " "),
                "label": "yes" if age + 5 * (town == "Roma") + random.normal(0, 3) > 41 else "no",
            }
        )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


COLUMNS = {
    "usual": {},
    "quantile": {
        "age": {"transforms": ["impute", {"name": "scale", "by": "quantile"}]},
        "income": {"transforms": ["log", {"name": "scale", "by": "robust"}]},
        "score": {"transforms": [{"name": "scale", "by": "quantile", "distribution": "uniform"}]},
        "town": {
            "transforms": [
                {"name": "impute", "strategy": "constant", "value": "nowhere"},
                "one_hot",
            ]
        },
        "size": {
            "transforms": [{"name": "ordinal", "order": ["small", "medium", "large"]}, "scale"]
        },
        "when": {
            "transforms": [
                {
                    "name": "date_parts",
                    "parts": [
                        "year",
                        "month",
                        "day",
                        "day_of_year",
                        "weekday",
                        "hour",
                        "minute",
                        "second",
                        "days",
                    ],
                },
                "impute",
                "scale",
            ]
        },
    },
    "pieces": {
        "age": {
            "transforms": [
                {"name": "impute", "strategy": "mean", "indicator": True},
                {"name": "piecewise_linear", "bins": 6},
            ]
        },
        "income": {
            "transforms": [
                {"name": "clip_outliers", "by": "interquartile_range"},
                {"name": "scale", "by": "min_max"},
            ]
        },
        "score": {"transforms": [{"name": "log", "when": "always"}, "clip_outliers", "scale"]},
        "town": {"transforms": [{"name": "group_rare", "minimum": 5}, "encode"]},
        "member": {
            "transforms": [{"name": "impute", "strategy": "most_frequent"}, "boolean_to_number"]
        },
        "when": {
            "transforms": [
                {"name": "impute", "strategy": "median"},
                {"name": "date_parts", "parts": ["month", "day_of_year", "hour"], "cyclic": False},
                "scale",
            ]
        },
    },
}
STRANGE = [  # what no training row held
    {
        "age": None,
        "income": 0.0,
        "score": -3,
        "town": "Atlantis",
        "size": "large",
        "member": None,
        "when": None,
    },
    {
        "age": "1,234.5",
        "income": "1e7",
        "score": "4",
        "town": " Roma ",
        "size": "small",
        "member": "yes",
        "when": "1899-12-31 23:59:59",
    },
    {
        "age": 1e9,
        "income": 1e-9,
        "score": 11.5,
        "town": None,
        "size": "medium",
        "member": False,
        "when": "2096-02-29T12:00:00",
    },
    {
        "age": "NA",
        "income": 5,
        "score": 5,
        "town": "北京",
        "size": "large",
        "member": True,
        "when": "1 March 2000",
    },
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    write_table(folder / "people.csv")
    return folder


def trained(home: Path, name: str, model: Any = "mlp") -> Any:
    run = home / name
    if not (run / "artifact").is_dir():
        danlu.train(
            {
                "task": "classification",
                "data": {
                    "source": str(home / "people.csv"),
                    "target": "label",
                    "checks": "off",
                    "cache": False,
                    "columns": COLUMNS[name],
                },
                "model": model,
                "train": {"steps": 30, "threads": 1, "seed": 2},
            },
            run=run,
        )
    return danlu.load(run)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_is_answered_as_by_its_artifact_with_the_transforms_in_the_graph(
    name: str, home: Path
) -> None:
    artifact = trained(home, name)
    export = danlu.export(
        artifact, "onnx", home / f"{name}.onnx", rows=str(home / "people.csv"), least_rows=ROWS
    )
    assert set(export.raw_columns) == set(artifact.inputs), "every column enters the graph raw"
    assert not any(chain.steps for chain in export.raw_columns.values())
    assert export.manifest["proof"]["rows"] == ROWS
    assert export.manifest["proof"]["largest_difference"] < 1e-5  # float32 sums of a small network
    wanted, found = artifact.predict(STRANGE), export.predict(STRANGE)
    for one, other in zip(wanted, found, strict=True):
        assert one["prediction"] == other["prediction"]
        assert list(one["probabilities"]) == list(other["probabilities"])
        np.testing.assert_allclose(
            list(one["probabilities"].values()), list(other["probabilities"].values()), atol=1e-5
        )


FREE = """
    import json, sys

    class Refusing:
        blocked = ("torch", "pyarrow", "sklearn", "pandas", "scipy", "onnx", "onnxscript", "tensorboard", "typer", "rich")

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in self.blocked:
                raise ImportError(f"{name} is not installed")

    sys.meta_path.insert(0, Refusing())
    from danlu.exporting.loader import open_export

    export = open_export(sys.argv[1])
    print(json.dumps(export.predict(json.loads(sys.stdin.read()))))
    strange = {name.partition(".")[0] for name in sys.modules} & {*Refusing.blocked}
    assert not strange, strange
"""


def answered_elsewhere(export: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of a process in which neither torch nor pyarrow can be imported."""
    command = [sys.executable, "-c", textwrap.dedent(FREE), str(export)]
    made = subprocess.run(
        command, input=json.dumps(rows), capture_output=True, text=True, timeout=120, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return json.loads(made.stdout)


def test_an_export_of_a_table_answers_where_torch_and_pyarrow_are_not_installed(home: Path) -> None:
    artifact = trained(home, "usual")
    export = danlu.export(artifact, "onnx", home / "free.onnx")
    for one, other in zip(
        artifact.predict(STRANGE), answered_elsewhere(export.path, STRANGE), strict=True
    ):
        assert one["prediction"] == other["prediction"]
        assert one["probabilities"] == pytest.approx(
            other["probabilities"], abs=1e-5
        )  # float32 sums


def test_an_export_of_words_answers_where_torch_and_pyarrow_are_not_installed(
    tmp_path: Path,
) -> None:
    lines = [
        {
            "text": f"{word} day, don\u2019t {word}!" if word else None,
            "mood": word in ("fine", "good"),
        }
        for word in ("fine", "sad", "good", "bad", None)
    ]
    path = tmp_path / "moods.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in lines * 12), "utf-8")
    columns = {
        "text": {
            "kind": "text",
            "transforms": [{"name": "tokenize", "kind": "words", "min_count": 1}],
        }
    }
    artifact = danlu.train(
        {
            "task": "classification",
            "data": {
                "source": str(path),
                "target": "mood",
                "checks": "off",
                "cache": False,
                "columns": columns,
            },
            "model": {"name": "bag_of_embeddings", "embedding": 8, "buckets": 50},
            "train": {"steps": 10, "threads": 1},
        },
        run=tmp_path / "run",
    )
    export = danlu.export(artifact, "onnx", tmp_path / "words")
    rows = [
        {"text": text}
        for text in (
            "a fine day",
            "",
            None,
            "\u5317\u4eac fine! sad?",
            "unheard of words only",
            "fine " * 300,
        )
    ]
    for one, other in zip(
        artifact.predict(rows), answered_elsewhere(export.path, rows), strict=True
    ):
        assert one["prediction"] == other["prediction"]
        assert list(one["probabilities"].values()) == pytest.approx(
            list(other["probabilities"].values()), abs=1e-5
        )


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_used_is_named_with_its_row_and_column(home: Path) -> None:
    export = danlu.open_export(
        danlu.export(trained(home, "usual"), "onnx", home / "named.onnx").path
    )
    good = STRANGE[0]
    with pytest.raises(DataError, match=r"row 2, column age: .*thirty.* is not a number"):
        export.predict([good, {**good, "age": "thirty"}])
    with pytest.raises(
        DataError, match=r"row 2, column income: the value is too large for a float32"
    ):
        export.predict([good, {**good, "income": 1e300}])
    with pytest.raises(DataError, match="there is no column income"):
        export.predict([{name: value for name, value in good.items() if name != "income"}])
    with pytest.raises(DataError, match=r"row 1, column when: .*30 February.* is not a date"):
        export.predict([{**good, "when": "30 February 2020"}])


def test_a_place_that_holds_something_else_is_never_replaced(home: Path) -> None:
    taken = home / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("keep me", "utf-8")
    with pytest.raises(DanluError, match="is no export, so it is not replaced"):
        danlu.export(trained(home, "usual"), "onnx", taken)
    assert (taken / "notes.txt").read_text("utf-8") == "keep me"


@pytest.fixture()
def sound(home: Path, tmp_path: Path) -> Path:
    if not (home / "sound.onnx").is_dir():
        danlu.export(trained(home, "usual"), "onnx", home / "sound.onnx")
    return Path(shutil.copytree(home / "sound.onnx", tmp_path / "copy"))


def rewritten(folder: Path, change: Any) -> None:
    """The export with another manifest, sealed as it should be."""
    about = parse_checked((folder / "export.json").read_bytes())
    change(about)
    (folder / "export.json").write_bytes(with_checksum(about))


def test_a_file_that_is_a_link_is_refused(sound: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    (sound / "model.onnx").rename(outside)
    (sound / "model.onnx").symlink_to(outside)
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        danlu.open_export(sound)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", ".hidden", ""])
def test_a_name_that_leaves_the_folder_is_refused(name: str, sound: Path) -> None:
    rewritten(sound, lambda about: about["files"].update({name: {"size": 1, "sha256": "0" * 64}}))
    with pytest.raises(ArtifactError, match="is no file of an export"):
        danlu.open_export(sound)


@pytest.mark.parametrize("change", [
    lambda about: about["files"]["model.onnx"].update(size=10**18),
    lambda about: about["exporter"].update(name="os"),
    lambda about: about["exporter"].update(name="../serving/worker"),
    lambda about: about["task"]["part"].update(name="../cli"),
    lambda about: about["entering"][0]["steps"].append({"part": {"name": "../cli"}, "state": {}, "arrays": {}}),
    lambda about: about["reads"].clear(),
    lambda about: about.update(format=99),
    lambda about: about.pop("runs"),
    lambda about: about.update(task=[]),
])  # fmt: skip
def test_a_manifest_that_says_nonsense_is_refused(change: Any, sound: Path) -> None:
    rewritten(sound, change)
    with pytest.raises(ArtifactError):
        danlu.open_export(sound)


def test_tensors_in_other_files_are_never_followed(sound: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    model = onnx.load(sound / "model.onnx")
    tensor = next(
        each for each in model.graph.initializer if each.data_type == 1 and len(each.raw_data) > 8
    )
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="../secret.bin")
    data = model.SerializeToString()
    (sound / "model.onnx").write_bytes(data)
    rewritten(
        sound,
        lambda about: about["files"]["model.onnx"].update(size=len(data), sha256=sha256(data)),
    )
    with pytest.raises(ArtifactError, match="another file"):
        danlu.open_export(sound)


def test_bytes_that_are_no_graph_are_refused(sound: Path) -> None:
    for data in (b"", b"\x80\x04K\x01.", b"\xff" * 64, bytes([0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F])):
        (sound / "model.onnx").write_bytes(data)
        rewritten(
            sound,
            lambda about, data=data: about["files"]["model.onnx"].update(
                size=len(data), sha256=sha256(data)
            ),
        )
        with pytest.raises(ArtifactError):
            danlu.open_export(sound)


def test_the_checksums_are_those_that_sha256sum_reads(sound: Path) -> None:
    lines = (sound / "SHA256SUMS").read_text("utf-8").splitlines()
    told = dict(reversed(line.split("  ")) for line in lines)
    assert set(told) == {each.name for each in sound.iterdir()} - {"SHA256SUMS"}
    assert all(sha256((sound / name).read_bytes()) == digest for name, digest in told.items())


def test_a_stranger_in_the_folder_is_told_by_verify(sound: Path, home: Path) -> None:
    danlu.verify(sound, trained(home, "usual"))
    (sound / "extra.py").write_text("print('hello')", "utf-8")
    with pytest.raises(ArtifactError, match=r"extra\.py is no file of this export"):
        danlu.verify(sound, trained(home, "usual"))


def test_int8_is_released_by_its_accuracy_and_refused_where_it_costs_too_much(home: Path) -> None:
    artifact = trained(home, "usual")
    options = {"precision": "int8", "calibration_rows": 64, "max_drop": 0.2}
    export = danlu.export(artifact, "onnx", home / "int8.onnx", options=options)
    before, after = export.manifest["proof"]["accuracy"]
    assert before - after <= 0.2
    assert 0 < export.manifest["proof"]["largest_difference"] < 0.5, "it is not the float32 graph"
    assert danlu.verify(export.path, artifact).accuracy == (before, after)
