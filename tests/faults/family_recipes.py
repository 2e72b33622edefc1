"""One small recipe for every family of models and kind of data, with what could break exact resume turned on. Each trains in seconds.

The data is made here, with a fixed seed, so that the proof needs nothing but danlu. A family is a
name and a function from a folder (for the files) to a recipe; tests/parts/test_families.py
holds that every task and every model stands in some of them."""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Recipe = dict[str, Any]

NOUNS = ["cat", "dog", "fox", "owl", "hen", "bee"]
VERBS = ["sees", "hears", "finds", "likes"]
ENGLISH = dict(
    zip(
        ["Katze", "Hund", "Fuchs", "Eule", "Henne", "Biene", "sieht", "hört", "findet", "mag"],
        [*NOUNS, *VERBS],
    )
)


def draw() -> np.random.Generator:
    return np.random.default_rng(11)


def sentences(count: int) -> list[str]:
    """Sentences of three to seven words, some of them Chinese."""
    random, found = draw(), []
    for number in range(count):
        words = ["the", random.choice(NOUNS), random.choice(VERBS), "the", random.choice(NOUNS)]
        if number % 3 == 0:
            words += ["and", random.choice(VERBS)]
        found.append("我看见一只猫。" if number % 7 == 3 else " ".join(words))
    return found


def training(steps: int = 24, **more: Any) -> dict[str, Any]:
    return {
        "threads": 1, "steps": steps, "batch_size": 8, "seed": 3, "report_every": 2, "evaluate_every": 6, "save_every": 1, "keep": 3,
        **more,
    }  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_text(folder: Path, count: int = 400) -> str:
    path = folder / "corpus.txt"
    path.write_text("\n".join(sentences(count)) + "\n", "utf-8")
    return str(path)


# --- text ---------------------------------------------------------------------------------------------------------------


def language(folder: Path) -> Recipe:
    return {
        "task": {"name": "language_modeling", "context": 16, "sample_tokens": 8},
        "data": {
            "source": write_text(folder),
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
        },
        "model": {"name": "gpt", "num_layers": 2, "num_heads": 2, "width": 32, "dropout": 0.1},
        "optimizer": {"name": "muon", "learning_rate": 0.01},
        "regularization": {"ema_decay": 0.9},
        "train": training(clip_norm=1.0),
    }


def byte_pairs(folder: Path) -> Recipe:
    return {
        **language(folder),
        "data": {
            "source": write_text(folder),
            "transforms": {"text": [{"name": "tokenize", "kind": "bpe", "vocabulary": 300}]},
        },
        "model": {"name": "rnn", "cell": "gru", "width": 24},
        "optimizer": "adamw",
    }


def masked_language(folder: Path) -> Recipe:
    return {
        "task": {"name": "masked_language_modeling", "context": 16},
        "data": {
            "source": write_text(folder),
            "transforms": {"text": [{"name": "tokenize", "kind": "words"}]},
        },
        "model": {"name": "encoder", "num_layers": 2, "num_heads": 2, "width": 32, "dropout": 0.1},
        "train": training(micro_batch=3),
    }


def instructions(folder: Path, times: int = 1) -> Recipe:
    path = folder / "talks.jsonl"
    lines = [
        json.dumps({"prompt": f"What does the {noun} do?", "response": f"It {verb}."})
        for noun in NOUNS
        for verb in VERBS
    ] * times
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return {
        "task": {"name": "instruction_tuning", "context": 64, "answer_tokens": 4},
        "data": {
            "source": str(path),
            "checks": "off",
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
        },
        "model": {"name": "gpt", "num_layers": 1, "num_heads": 2, "width": 32},
        "train": training(12),
    }


def text_table(folder: Path, rows: int = 160) -> str:
    random = draw()
    table = []
    for text in sentences(rows):
        good = "likes" in text or "finds" in text
        price = random.normal(5 if good else 3, 1)
        table.append(
            {
                "text": text,
                "price": f"{price:.2f}",
                "shop": random.choice(["a", "b", "c"]),
                "mood": "good" if good else "bad",
            }
        )
    return write_rows(folder / "moods.csv", table)


def of_text(model: dict[str, Any]) -> Callable[[Path], Recipe]:
    def recipe(folder: Path) -> Recipe:
        return {
            "task": "classification",
            "data": {
                "source": text_table(folder),
                "target": "mood",
                "checks": "off",
                "columns": {
                    "text": {
                        "kind": "text",
                        "transforms": [{"name": "tokenize", "kind": "words", "min_count": 1}],
                    }
                },
            },
            "model": model,
            "regularization": {"ema_decay": 0.9},
            "train": training(),
        }

    return recipe


def tagging(folder: Path, count: int = 120) -> Recipe:
    blocks = []
    for text in sentences(count):
        lines = []
        for word in text.split():
            tag = "B-NOUN" if word in NOUNS else "I-NOUN" if word == "and" else "O"
            lines.append(f"{word} {'N' if word in NOUNS else 'X'} {tag}")
        blocks.append("\n".join(lines))
    path = folder / "chunks.conll"
    path.write_text("\n\n".join(blocks) + "\n", "utf-8")
    return {
        "task": "token_classification",
        "data": {
            "source": {"name": "conll", "path": str(path), "columns": ["word", "part", "tag"]},
            "target": "tag",
            "checks": "off",
        },
        "model": {"name": "rnn", "cell": "lstm", "width": 16, "dropout": 0.3, "crf": True},
        "train": training(),
    }


def translation(folder: Path, count: int = 120) -> Recipe:
    random, rows = draw(), []
    for _ in range(count):
        words = random.choice(list(ENGLISH), random.integers(2, 5))
        rows.append({"de": " ".join(words), "en": " ".join(ENGLISH[word] for word in words)})
    return {
        "task": {"name": "sequence_to_sequence", "kind": "words", "num_beams": 2, "max_tokens": 6},
        "data": {
            "source": write_rows(folder / "pairs.csv", rows),
            "target": "en",
            "checks": "off",
            "columns": {
                "de": {
                    "kind": "text",
                    "transforms": [{"name": "tokenize", "kind": "words", "min_count": 1}],
                },
                "en": "text",
            },
        },
        "model": {
            "name": "seq2seq",
            "encoder_layers": 1,
            "decoder_layers": 1,
            "num_heads": 2,
            "width": 32,
            "dropout": 0.1,
        },
        "metrics": ["accuracy", "rouge"],
        "train": training(micro_batch=3),
    }


# --- series -------------------------------------------------------------------------------------------------------------


def series_table(folder: Path) -> str:
    random, rows = draw(), []
    for hour in range(420):
        wave_ = np.sin(2 * np.pi * hour / 24)
        rows.append(
            {
                "time": f"2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00:00",
                "load": "" if hour % 50 == 7 else f"{10 + 3 * wave_ + random.normal(0, 0.3):.3f}",
                "heat": f"{20 - 2 * wave_ + random.normal(0, 0.3):.3f}",
                "holiday": int(hour % 168 >= 144),
            }
        )
    return write_rows(folder / "hours.csv", rows)


def of_series(model: dict[str, Any], loss: Any = "mse", **task: Any) -> Callable[[Path], Recipe]:
    def recipe(folder: Path) -> Recipe:
        return {
            "task": {
                "name": "forecasting",
                "horizon": 6,
                "context": 24,
                "time": "time",
                "known": ["holiday"],
                **task,
            },
            "data": {"source": series_table(folder), "target": ["load", "heat"], "checks": "off"},
            "model": model,
            "loss": loss,
            "regularization": {"ema_decay": 0.9},
            "train": training(),
        }

    return recipe


def anomalies(folder: Path) -> Recipe:
    return {
        "task": {"name": "anomaly_detection", "time": "time"},
        "data": {"source": series_table(folder), "target": ["load", "heat"], "checks": "off"},
        "model": "linear_forecaster",
        "train": training(),
    }


# --- images, audio, tables ------------------------------------------------------------------------------------------------


def of_images(model: dict[str, Any], **more: Any) -> Callable[[Path], Recipe]:
    def recipe(folder: Path) -> Recipe:
        return {
            "task": "classification",
            "data": {
                "source": {"name": "sklearn", "set": "digits"},
                "target": "label",
                "checks": "off",
                "augmentations": ["flip"],
            },
            "model": model,
            "regularization": {"ema_decay": 0.9},
            "train": training(10, evaluate_every=5, **more),
        }

    return recipe


def gan(folder: Path) -> Recipe:
    return {
        "task": "image_generation",
        "data": {
            "source": {"name": "sklearn", "set": "digits"},
            "target": "label",
            "checks": "off",
        },
        "model": {"name": "gan", "width": 8, "latent": 8},
        "metrics": [],
        "train": training(16, evaluate_every=8),
    }


def autoencoder(folder: Path) -> Recipe:
    return {
        "task": "autoencoding",
        "data": {
            "source": {"name": "sklearn", "set": "digits"},
            "checks": "off",
            "columns": {"label": {"use": False}},
        },
        "model": {"name": "autoencoder"},
        "train": training(12, evaluate_every=6),
    }


def of_tables(model: dict[str, Any]) -> Callable[[Path], Recipe]:
    def recipe(folder: Path) -> Recipe:
        return {
            "task": "classification",
            "data": {
                "source": text_table(folder), "target": "mood", "checks": "off", "columns": {"text": {"use": False}, "shop": "category"},
            },
            "model": model,
            "train": training(),
        }  # fmt: skip

    return recipe


def write_recordings(folder: Path, count: int = 48) -> str:
    """Tones of three heights and several lengths, in folders by class; a CSV of files with what is
    said in them."""
    random, home, rows = draw(), folder / "tones", []
    for number in range(count):
        name = ("low", "middle", "high")[number % 3]
        seconds = random.uniform(0.2, 0.5)
        moments = np.arange(int(8000 * seconds)) / 8000
        tone = 8000 * np.sin(2 * np.pi * (300, 700, 1500)[number % 3] * moments) + random.normal(
            0, 200, len(moments)
        )
        path = home / name / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(tone.astype("<i2").tobytes())
        rows.append({"file": f"{name}/{number}.wav", "said": name})
    write_rows(home / "said.csv", rows)
    return str(home)


def of_recordings(model: dict[str, Any]) -> Callable[[Path], Recipe]:
    def recipe(folder: Path) -> Recipe:
        return {
            "task": "classification",
            "data": {
                "source": write_recordings(folder),
                "target": "label",
                "checks": "off",
                "transforms": {"audio": [SMALL_MEL]},
            },
            "model": model,
            "train": training(12),
        }

    return recipe


def speech(folder: Path) -> Recipe:
    source = {"name": "audio", "path": write_recordings(folder), "table": "said.csv"}
    return {
        "task": "speech_recognition",
        "data": {
            "source": source,
            "target": "said",
            "checks": "off",
            "transforms": {"audio": [SMALL_MEL]},
        },
        "model": {
            "name": "conformer",
            "width": 16,
            "num_heads": 2,
            "num_layers": 1,
            "kernel": 5,
            "halvings": 1,
        },
        "train": training(12, micro_batch=3),
    }


SMALL_MEL = {"name": "log_mel", "bands": 12}
FAMILIES: dict[str, Callable[[Path], Recipe]] = {
    "language": language,
    "byte_pairs": byte_pairs,
    "masked_language": masked_language,
    "instructions": instructions,
    "bag_of_embeddings": of_text({"name": "bag_of_embeddings"}),
    "text_cnn": of_text({"name": "text_cnn", "filters": 8}),
    "text_rnn": of_text({"name": "rnn", "cell": "lstm", "width": 12}),
    "text_encoder": of_text(
        {"name": "encoder", "num_layers": 1, "num_heads": 2, "width": 16, "dropout": 0.1}
    ),
    "tagging": tagging,
    "translation": translation,
    "linear_forecaster": of_series({"name": "linear_forecaster"}),
    "patch_transformer": of_series(
        {"name": "patch_transformer", "width": 16, "num_heads": 2, "num_layers": 1},
        calendar=["hour"],
    ),
    "temporal_convolution": of_series(
        {"name": "temporal_convolution", "width": 8}, loss="quantile", quantiles=[0.1, 0.5, 0.9]
    ),
    "anomalies": anomalies,
    "wide_resnet": of_images({"name": "wide_resnet", "depth": 10, "width": 1}),
    "resnet": of_images({"name": "resnet", "width": 8}),
    "vit": of_images({"name": "vit", "width": 16, "num_heads": 2, "num_layers": 1}),
    "mlp_mixer": of_images({"name": "mlp_mixer", "width": 16, "num_layers": 1}),
    "audio_cnn": of_recordings({"name": "audio_cnn", "widths": [4, 8]}),
    "audio_rnn": of_recordings({"name": "rnn", "width": 8}),
    "conformer": of_recordings(
        {"name": "conformer", "width": 16, "num_heads": 2, "num_layers": 1, "kernel": 5}
    ),
    "speech": speech,
    "gan": gan,
    "autoencoder": autoencoder,
    "tabm": of_tables({"name": "tabm", "hidden": [16], "members": 4}),
    "realmlp": of_tables({"name": "realmlp", "hidden": [16], "members": 4}),
    "ft_transformer": of_tables(
        {"name": "ft_transformer", "width": 16, "num_heads": 2, "num_layers": 1}
    ),
}
