"""Checkpoints of Hugging Face in danlu: the same outputs as transformers gives, trained, resumed, released whole."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import danlu
from danlu import registry
from danlu.errors import ArtifactError, DanluError, DataError, Interrupted, PartError, RunError
from danlu.recipe import read
from danlu.system.image_grid import encode_png
from danlu.training.setup import build_training

pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
)
pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'")

import transformers

import tiny_checkpoints as tiny

# 1e-4: both sum the same float32 products in kernels of other shapes; measured 1e-6 and below
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
MAKERS = {
    "bert": tiny.bert,
    "gpt2": tiny.gpt2,
    "llama": tiny.llama,
    "vit": tiny.vit,
    "resnet": tiny.resnet,
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("checkpoints")
    return {name: make(home / name) for name, make in MAKERS.items()} | {
        "labelled": tiny.bert(home / "labelled", {0: "good", 1: "bad"})
    }


@pytest.fixture
def texts(tmp_path) -> Path:
    return tiny.write_rows(tmp_path / "reviews.jsonl", tiny.sentences())


@pytest.fixture
def images(tmp_path) -> Path:
    draw = np.random.default_rng(0)
    for colour, name in enumerate(("blue", "green", "red")):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(0, 90, (16, 16, 3), dtype=np.uint8)
            pixels[..., 2 - colour] += 150
            (folder / f"{number}.png").write_bytes(encode_png(pixels))
    return tmp_path / "images"


def recipe(
    source: Path, checkpoint: Path, task: Any = "classification", **more: Any
) -> dict[str, Any]:
    data: dict[str, Any] = {"source": str(source)}
    if task == "classification":
        data |= {"target": "label"} | (
            {"columns": {"text": {"kind": "text"}}} if source.suffix else {}
        )
    return {
        "name": "tuned", "task": task, "data": data, "model": {"name": "pretrained", "path": str(checkpoint)},
        "train": {"steps": 2, "batch_size": 8}, "watchers": [], **more,
    }  # fmt: skip


def begun(told: dict[str, Any]) -> Any:
    """The apparatus of a recipe, its weights those of the checkpoint."""
    return build_training(read(told, registry))


def asked(built: Any, count: int) -> dict[str, torch.Tensor]:
    return built.rows.gather(torch.arange(count)).inputs


def theirs(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder).eval()


# --- the same numbers ---------------------------------------------------------------------------------------------------


def test_a_bert_with_the_same_classes_answers_as_transformers_does(checkpoints, texts) -> None:
    folder = checkpoints["labelled"]
    built = begun(recipe(texts, folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = theirs(transformers.BertForSequenceClassification, folder)
    rows = [row["text"] for row in tiny.sentences()[:9]]
    encoded = [tokenizer(row, return_tensors="pt")["input_ids"] for row in rows]
    with torch.no_grad():
        wanted = torch.cat([module(each).logits for each in encoded])
        found = built.state.module.eval()(asked(built, 9))
    torch.testing.assert_close(
        found, wanted[:, [1, 0]], **CLOSE
    )  # danlu's classes stand in the order of the alphabet


def test_a_head_for_other_classes_is_drawn_anew_and_told(checkpoints, texts, tmp_path) -> None:
    folder = tiny.bert(tmp_path / "other", {0: "cat", 1: "dog"})
    built = begun(recipe(texts, folder))
    assert built.start.fresh == ("body.classifier.bias", "body.classifier.weight")
    assert any(
        "initialized at random are body.classifier" in notice for notice in built.data.notices
    )
    assert "body.bert.pooler.dense.weight" in begun(recipe(texts, checkpoints["bert"])).start.fresh


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_language_model_gives_the_logits_of_transformers(family, checkpoints, texts) -> None:
    folder = checkpoints[family]
    built = begun(recipe(texts, folder, {"name": "language_modeling", "context": 24}))
    module, body = built.state.module.eval(), theirs(transformers.AutoModelForCausalLM, folder)
    library = built.data.preprocessor.tokenizer._library
    ids = library.encode("the film is lovely and a dull play", add_special_tokens=False).ids
    codes = built.data.preprocessor.tokenizer.codes
    beginning = body.config.bos_token_id
    with torch.no_grad():
        wanted = body(torch.tensor([[beginning, *ids]])).logits
        found = module({"tokens": torch.tensor([[3, *codes[ids]]])})
    known = codes >= 0
    torch.testing.assert_close(
        found[..., codes[known]], wanted[..., np.flatnonzero(known)], **CLOSE
    )
    silent = module.file_codes < 0
    assert silent.any()
    assert (found[..., silent] == -1e4).all()


def test_masked_words_have_the_logits_of_transformers(checkpoints, texts) -> None:
    folder = checkpoints["bert"]
    built = begun(recipe(texts, folder, {"name": "masked_language_modeling", "context": 20}))
    codes = built.data.preprocessor.tokenizer.codes
    ids = [3, 20, 5, 40, 41, 4]  # [CLS] .. [MASK] .. [SEP] as the file numbers them
    with torch.no_grad():
        wanted = theirs(transformers.BertForMaskedLM, folder)(torch.tensor([ids])).logits
        found = built.state.module.eval()({"tokens": torch.from_numpy(codes[ids])[None]})
    torch.testing.assert_close(found[..., codes], wanted, **CLOSE)


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_images_have_the_logits_of_transformers(family, checkpoints, images) -> None:
    built = begun(recipe(images, checkpoints[family]))
    kind = (
        transformers.ViTForImageClassification
        if family == "vit"
        else transformers.ResNetForImageClassification
    )
    pixels = (
        torch.from_numpy(np.asarray(built.data.table.columns["image"].values[:7])).permute(
            0, 3, 1, 2
        )
        / 255
    )
    mean, std = (
        torch.tensor(each)[:, None, None] for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    with torch.no_grad():
        wanted = theirs(kind, checkpoints[family])((pixels - mean) / std).logits
        found = built.state.module.eval()(asked(built, 7))
    torch.testing.assert_close(found, wanted[:, [2, 1, 0]], **CLOSE)  # blue, green, red


@pytest.mark.parametrize("family", ["labelled", "gpt2", "llama"])
def test_padding_and_the_rows_beside_a_text_change_nothing(family, checkpoints, texts) -> None:
    module = begun(recipe(texts, checkpoints[family])).state.module.eval()
    tokens = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((9, 4, 1, 0)):
        tokens[row, length:] = 0
    with torch.no_grad():
        together = module(
            {"tokens": torch.nn.functional.pad(tokens, (0, 50))}
        )  # also where padding goes beyond the network's reach
        alone = torch.cat(
            [
                module({"tokens": tokens[row : row + 1, :length]})
                for row, length in enumerate((9, 4, 1, 0))
            ]
        )
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, **CLOSE)


def tagged(folder: Path) -> Path:
    """Sentences with a tag for each word: praise and blame of films."""
    rows = []
    for row in tiny.sentences(60):
        words = row["text"].split()
        rows.append(
            {
                "words": words,
                "tags": [
                    "B-view" if word in ("great", "lovely", "awful", "dull") else "O"
                    for word in words
                ],
            }
        )
    return tiny.write_rows(folder / "tagged.jsonl", rows)


def tagging(rows: Path, checkpoint: Path) -> dict[str, Any]:
    return {
        **recipe(rows, checkpoint, "token_classification"),
        "data": {"source": str(rows), "target": "tags"},
    }


def test_words_have_the_logits_of_their_first_pieces_in_transformers(checkpoints, tmp_path) -> None:
    built = begun(tagging(tagged(tmp_path), checkpoints["bert"]))
    module = built.state.module.eval()
    library = transformers.AutoTokenizer.from_pretrained(checkpoints["bert"])
    for row in (0, 1, 2):
        words = list(built.data.table.columns["words"].python_value(row))
        encoded = library(words, is_split_into_words=True, return_tensors="pt")
        first = [encoded.word_ids().index(number) for number in range(len(words))]
        with torch.no_grad():
            wanted = module.body(**encoded).logits[0, first]
            found = module(asked(built, 3))[row, : len(words)]
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_words_are_tagged_without_the_folder(checkpoints, tmp_path) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "folder")
    trained = danlu.train(tagging(tagged(tmp_path), folder), tmp_path / "run")
    shutil.rmtree(folder)
    asked = [{"words": ["the", "zzz", "is", "lovely"]}, {"words": []}]
    answers = danlu.load(tmp_path / "run").predict(asked)
    assert answers == trained.predict(asked)
    assert [len(answer["prediction"]) for answer in answers] == [4, 0]


# --- writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_tokens_that_come_piece_by_piece_have_the_logits_of_the_whole(
    family, checkpoints, texts
) -> None:
    module = begun(
        recipe(texts, checkpoints[family], {"name": "language_modeling", "context": 24})
    ).state.module.eval()
    tokens = torch.randint(5, 200, (3, 20), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = 3
    with torch.no_grad():
        whole = module({"tokens": tokens})
        cache = module.cache(3, 8)
        first = module.extend(
            tokens[:, :7], cache, torch.tensor([7, 5, 2])
        )  # rows of unequal length
        torch.testing.assert_close(first[1, :5], whole[1, :5], **CLOSE)
        few = cache.keep([2, 0]).join(cache.keep([1]))
        rows, at = [2, 0, 1], [2, 7, 5]
        more = torch.stack([tokens[row, start : start + 4] for row, start in zip(rows, at)])
        second = module.extend(more, few)
        for place, (row, start) in enumerate(zip(rows, at)):
            torch.testing.assert_close(second[place], whole[row, start : start + 4], **CLOSE)
        third = module.extend(
            torch.stack([tokens[row, start + 4 : start + 5] for row, start in zip(rows, at)]), few
        )
        torch.testing.assert_close(third[1, 0], whole[0, 11], **CLOSE)


def test_what_a_gpt2_writes_is_what_transformers_writes(checkpoints, texts, tmp_path) -> None:
    told = recipe(
        texts, checkpoints["gpt2"], {"name": "language_modeling", "context": 40, "samples": 0}
    )
    told |= {"optimizer": {"name": "adamw", "learning_rate": 0.0, "weight_decay": 0.0}}
    artifact = danlu.train(told, tmp_path / "run")
    (text,) = danlu.generate(artifact, "the film is", temperature=0, max_tokens=12)
    body = theirs(transformers.GPT2LMHeadModel, checkpoints["gpt2"])
    tokenizer = artifact.preprocessor.tokenizer
    ids = [0, *tokenizer._library.encode("the film is").ids]
    asked = torch.tensor([ids])
    written = body.generate(
        asked,
        attention_mask=torch.ones_like(asked),
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=None,
    )
    written = written[0, len(ids) :].tolist()
    assert text.text == tokenizer.decode(tokenizer.codes[[each for each in written if each != 0]])


# --- from recipe to answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_text_model_is_trained_released_and_answers_without_the_folder(
    family, checkpoints, texts, tmp_path
) -> None:
    folder = shutil.copytree(checkpoints[family], tmp_path / "folder")
    told = recipe(texts, folder)
    trained = danlu.train(told, tmp_path / "run")
    shutil.rmtree(folder)
    artifact = danlu.load(tmp_path / "run")
    asked = [{"text": "a lovely film"}, {"text": ""}, {"text": "dull " * 200}]
    assert artifact.predict(asked) == trained.predict(asked)
    assert artifact.recipe.model.options.path is None
    scores = danlu.evaluate(artifact)
    assert scores.values["loss"] == pytest.approx(artifact.scores["test"]["loss"], abs=0)
    assert len(artifact.provenance["weights"]) == 64


def test_a_model_goes_on_from_the_artifact_of_another_task(checkpoints, texts, tmp_path) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "folder")
    masked = danlu.train(
        recipe(
            texts, folder, {"name": "masked_language_modeling", "context": 20, "column": "text"}
        ),
        tmp_path / "masked",
    )
    shutil.rmtree(folder)
    told = recipe(texts, folder)
    told["model"] = {"name": "pretrained", "weights": str(tmp_path / "masked")}
    built = begun(told)
    name = "body.bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(built.state.module.state_dict()[name], masked.module.state_dict()[name])
    assert torch.equal(built.state.module.file_codes, masked.module.file_codes)
    assert set(built.start.fresh) == {
        f"body.{name}"
        for name in (
            "bert.pooler.dense.weight",
            "bert.pooler.dense.bias",
            "classifier.weight",
            "classifier.bias",
        )
    }
    first = asked(built, 1)["tokens"][0].tolist()
    assert (first[0], [code for code in first if code][-1]) == (
        2,
        3,
    )  # between beginning and end, as BERT reads a text
    danlu.train(told, tmp_path / "tuned")
    shutil.rmtree(tmp_path / "masked")
    assert danlu.load(tmp_path / "tuned").predict([{"text": "a dull play"}])


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_an_image_model_is_trained_released_and_answers_without_the_folder(
    family, checkpoints, images, tmp_path
) -> None:
    folder = shutil.copytree(checkpoints[family], tmp_path / "folder")
    trained = danlu.train(recipe(images, folder), tmp_path / "run")
    shutil.rmtree(folder)
    artifact = danlu.load(tmp_path / "run")
    pictures = [{"image": np.full((16, 16, 3), shade, dtype=np.uint8)} for shade in (0, 200)]
    assert artifact.predict(pictures) == trained.predict(pictures)
    assert len(artifact.predict(images)) == 24
    assert danlu.evaluate(artifact).values["loss"] == pytest.approx(
        artifact.scores["test"]["loss"], abs=0
    )


def test_images_of_unequal_sizes_come_in_the_size_of_the_checkpoint(
    checkpoints, images, tmp_path
) -> None:
    (images / "red" / "large.png").write_bytes(
        encode_png(np.full((31, 20, 3), 200, dtype=np.uint8))
    )
    artifact = danlu.train(recipe(images, checkpoints["resnet"]), tmp_path / "run")
    assert artifact.described["image"].shape == (3, 16, 16)
    assert danlu.evaluate(artifact).rows == artifact.scores["test"]["rows"]


@pytest.mark.parametrize("finetune", [{}, {"lora": {"rank": 3, "dropout": 0.1}}])
def test_a_run_that_was_cut_off_ends_in_the_weights_of_the_unbroken_one(
    finetune, checkpoints, texts, tmp_path, monkeypatch
) -> None:
    told = recipe(texts, checkpoints["bert"], finetune=finetune)
    told["train"] = {"steps": 4, "batch_size": 8, "save_every": 2, "evaluate_every": 2}
    whole = danlu.train(told, tmp_path / "whole")
    from danlu.training.loop import Training

    saves = Training._save

    def cut(self: Training) -> None:
        saves(self)
        self.checkpoints.wait()
        raise Interrupted("cut off", exit_code=130)

    monkeypatch.setattr(Training, "_save", cut)
    with pytest.raises(Interrupted):
        danlu.train(told, tmp_path / "cut")
    monkeypatch.undo()
    resumed = danlu.train(told, tmp_path / "cut")
    one, other = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not [name for name in one if "low_rank" in name]


def test_another_checkpoint_in_the_folder_is_refused_by_a_run_that_began(
    checkpoints, texts, tmp_path, monkeypatch
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "folder")
    told = recipe(texts, folder)
    from danlu.training.loop import Training

    monkeypatch.setattr(Training, "_release", lambda self: None)
    danlu.train(told, tmp_path / "run")
    (folder / "model.safetensors").write_bytes(
        (checkpoints["labelled"] / "model.safetensors").read_bytes()
    )
    with pytest.raises(RunError, match="holds other weights than when this run began"):
        danlu.train(told, tmp_path / "run")


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_pickled_weights_are_never_read(checkpoints, texts, tmp_path) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "folder")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no \.safetensors file \(pytorch_model\.bin is a pickle"):
        begun(recipe(texts, folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: there is no such file"),
        (
            lambda folder: (folder / "config.json").write_text("[1]"),
            "no such file of a checkpoint: it holds no mapping",
        ),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "mamba"}'),
            "family mamba, which danlu does not know",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                '{"model_type": "bert", "quantization_config": {"bits": 4}}'
            ),
            "its weights are quantised",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"),
            "no safetensors file that can be read",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    change, message, checkpoints, texts, tmp_path
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "folder")
    change(folder)
    with pytest.raises(DanluError, match=message):
        begun(recipe(texts, folder))


def test_a_place_that_is_none_is_refused_without_the_network(texts, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="no such folder"):
        begun(recipe(texts, tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"no such checkpoint is in the local cache"):
        begun(recipe(texts, Path("nobody-at-all/no-model")))
    with pytest.raises(PartError, match="needs a checkpoint"):
        begun({**recipe(texts, tmp_path), "model": "pretrained"})


def test_what_a_checkpoint_cannot_do_is_said(checkpoints, texts, images) -> None:
    with pytest.raises(PartError, match=r"bert cannot do what this task asks\."):
        begun(recipe(texts, checkpoints["bert"], {"name": "language_modeling", "context": 16}))
    with pytest.raises(PartError, match=r"reads at most 48 positions, and task\.context is 64"):
        begun(recipe(texts, checkpoints["gpt2"], {"name": "language_modeling", "context": 64}))
    with pytest.raises(PartError, match=r"reads one text, and the inputs are image"):
        begun(recipe(images, checkpoints["bert"]))
    with pytest.raises(PartError, match=r"\(vit\) answers one image, and the inputs are tokens"):
        begun(
            recipe(
                texts,
                checkpoints["vit"],
                data={
                    "source": str(texts),
                    "target": "label",
                    "columns": {"text": {"kind": "text"}},
                },
            )
        )


def test_a_damaged_artifact_names_no_code(checkpoints, texts, tmp_path) -> None:
    danlu.train(recipe(texts, checkpoints["bert"]), tmp_path / "run")
    from danlu.system.atomic_files import read_checked_json, with_checksum

    manifest = tmp_path / "run" / "artifact" / "artifact.json"
    about = read_checked_json(manifest)
    about["recipe"]["model"]["architecture"]["config"]["model_type"] = "somebody_elses"
    manifest.write_bytes(with_checksum(about))
    with pytest.raises(ArtifactError, match="family somebody_elses, which danlu does not know"):
        danlu.load(tmp_path / "run")


def test_a_library_that_is_not_installed_is_named(checkpoints, texts, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        DanluError,
        match=r"(?s)transformers, which is not installed.*pip install 'danlu\[huggingface\]'",
    ):
        begun(recipe(texts, checkpoints["bert"]))
