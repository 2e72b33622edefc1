"""tokenizer.json beside an export: the codes that its graph takes."""

from __future__ import annotations

from pathlib import Path

import pytest

import danlu
from danlu import tokenizing
from danlu.exporting.export import export
from danlu.tokenizing.bpe import BytePairs

pytest.importorskip("onnxruntime")
tokenizers = pytest.importorskip("tokenizers")

SAID = [
    "good film, 好看!",
    "bad",
    "a very very long story about nothing at all",
    "just so",
    "quite good — really",
    "MIXED Case 12",
]


def trained(folder: Path, tokenize: dict[str, object]) -> danlu.Artifact:
    rows = [f'"{SAID[n % 6]} {n}",{"yes" if n % 3 else "no"}' for n in range(90)]
    (folder / "said.csv").write_text("text,label\n" + "\n".join(rows) + "\n", "utf-8")
    recipe = {
        "task": "classification",
        "data": {
            "source": str(folder / "said.csv"),
            "target": "label",
            "columns": {"text": "text"},
            "transforms": {"text": [{"name": "tokenize", **tokenize}]},
            "checks": "off",
        },
        "model": {"name": "bag_of_embeddings", "embedding": 4},
        "train": {"steps": 2},
    }
    return danlu.train(recipe, folder / "run")


@pytest.mark.filterwarnings("ignore")  # of the converters
@pytest.mark.parametrize(
    "tokenize",
    [
        {"kind": "bpe", "vocabulary": 300},
        {"kind": "characters", "max_length": 9, "lower": True},
        {"kind": "bytes", "beginning": True, "end": True, "max_length": 12},
    ],
    ids=lambda tokenize: str(tokenize["kind"]),
)
def test_the_file_reads_texts_as_the_artifact_does(
    tokenize: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    artifact = trained(tmp_path, tokenize)
    made = export(artifact, "onnx", tmp_path / "onnx", least_rows=10)
    read = tokenizers.Tokenizer.from_file(str(made.path / "tokenizer.json"))
    rows = [{"text": text} for text in SAID]
    tokens = artifact.preprocessor.apply(artifact.table(rows))["tokens"]
    assert [read.encode(text).ids for text in SAID] == [
        tokens.row(number).tolist() for number in range(len(SAID))
    ]
    assert "tokenizer.json" in made.manifest["files"]
    assert "tokenizer.json" in (made.path / "MODEL_CARD.md").read_text()


@pytest.mark.filterwarnings("ignore")  # of the converters
def test_words_are_left_to_danlu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    made = export(trained(tmp_path, {"kind": "words"}), "onnx", tmp_path / "onnx", least_rows=10)
    assert not (made.path / "tokenizer.json").exists()


def test_a_file_that_reads_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    artifact = trained(tmp_path, {"kind": "bpe", "vocabulary": 300})
    whole = tokenizing.restore

    def without_a_merge(state: dict[str, object]) -> object:
        found = whole(state)
        assert isinstance(found, BytePairs)
        return BytePairs(found.merges[:3], found.lower)

    monkeypatch.setattr("danlu.exporting.tokenizer_json.tokenizing.restore", without_a_merge)
    with pytest.raises(danlu.DanluError, match="makes other tokens of"):
        export(artifact, "onnx", tmp_path / "onnx", least_rows=10)
    assert not (tmp_path / "onnx").exists()
