"""A Keras 3 file in danlu: the same outputs as Keras gives, trained, resumed, released whole; nothing that stands in the file is run."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import danlu
from danlu.errors import ArtifactError, DanluError, DataError, Interrupted, PartError
from danlu.parts.models.keras import Config, begin, build
from danlu.parts.watchers._base import Watcher
from danlu.reading import keras_file
from danlu.terms import InputSpec, OutputSpec

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed: pip install 'danlu[keras]'", allow_module_level=True)

from danlu.layers.keras.network import library

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of Keras, where it writes a file

keras = library()
layers = keras.layers
OUTPUT = OutputSpec(3, ("a", "b", "c"), means=(("classes", 3),))
NUMBERS = {"numbers": InputSpec("numbers", (5,), names=tuple("vwxyz"))}
IMAGE = {"image": InputSpec("image", (1, 9, 8), mean=(0.3,), std=(0.2,))}
# 1e-5: the same float32 sums by the same kernels, but for the order of pixels
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def image_network(*, end: str = "softmax") -> Any:
    pixels = keras.Input((9, 8, 1), name="pixels")
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(6, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3))(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    return shaken(keras.Model(pixels, layers.Dense(3, activation=end)(x)))


def number_network() -> Any:
    numbers = keras.Input((5,), name="numbers")
    x = layers.Dropout(0.2)(
        layers.BatchNormalization(momentum=0.9)(layers.Dense(7, activation="tanh")(numbers))
    )
    return shaken(keras.Model(numbers, layers.Dense(3, activation="softmax")(x)))


def shaken(network: Any, seed: int = 0) -> Any:
    draw = np.random.default_rng(seed)
    for each in network.weights:
        each.assign(
            each.value.detach()
            + torch.from_numpy(draw.uniform(0.05, 0.3, tuple(each.shape))).to(each.value.dtype)
        )
    return network


def saved(network: Any, path: Path) -> Path:
    network.save(path)
    return path


def taken(
    path: Path, inputs: dict[str, InputSpec], output: OutputSpec = OUTPUT, **more: Any
) -> torch.nn.Module:
    config = Config.model_validate({"path": str(path), **more})
    module = build(config, inputs, output)
    begin(config, module)
    return module


def rewritten(path: Path, target: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            after.writestr(name, files.pop(name, before.read(name)))
        for name, data in files.items():
            after.writestr(name, data)
    return target


def with_config(path: Path, target: Path, change: Any) -> Path:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    change(config)
    return rewritten(path, target, **{"config.json": json.dumps(config).encode()})


def test_an_image_network_answers_as_keras_does_with_its_softmax_left_out(tmp_path) -> None:
    network = image_network()
    module = taken(saved(network, tmp_path / "n.keras"), IMAGE).eval()
    pixels = torch.randint(0, 256, (6, 1, 9, 8)).float()
    with torch.no_grad():
        logits = module({"image": (pixels / 255 - 0.3) / 0.2})
        wanted = network(pixels.permute(0, 2, 3, 1), training=False)
    torch.testing.assert_close(logits.softmax(1), wanted, **CLOSE)


def test_a_softmax_layer_at_the_end_is_left_out_too(tmp_path) -> None:
    numbers = keras.Input((5,), name="numbers")
    network = shaken(keras.Model(numbers, layers.Softmax()(layers.Dense(3)(numbers))))
    rows = torch.randn(4, 5)
    with torch.no_grad():
        logits = taken(saved(network, tmp_path / "n.keras"), NUMBERS).eval()({"numbers": rows})
        torch.testing.assert_close(logits.softmax(1), network(rows), **CLOSE)
        assert not torch.allclose(logits, network(rows))


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_a_text_is_brought_to_the_length_of_the_network(cell, tmp_path) -> None:
    read = layers.Bidirectional(getattr(layers, cell)(3, dropout=0.1))
    answer = layers.Dense(1, activation="sigmoid")
    network = keras.Sequential(
        [keras.Input((7,)), layers.Embedding(20, 4, mask_zero=True), read, answer]
    )
    output = OutputSpec(2, ("no", "yes"), means=(("classes", 2),))
    module = taken(
        saved(shaken(network), tmp_path / "n.keras"),
        {"tokens": InputSpec("tokens", (7,), cardinalities=(20,))},
        output,
    )
    tokens = torch.randint(1, 20, (4, 5))
    module.eval()
    with torch.no_grad():
        found = module({"tokens": tokens}).softmax(1)[:, 1:]
        wanted = network(torch.nn.functional.pad(tokens, (0, 2)), training=False)
        longer = module({"tokens": torch.nn.functional.pad(tokens, (0, 6))}).softmax(1)[:, 1:]
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert torch.equal(found, longer)
    module.train()({"tokens": tokens}).sum().backward()
    assert all(each.grad is not None for each in module.parameters())


def test_training_mode_drops_and_moves_statistics_by_the_seed_and_evaluation_does_neither(
    tmp_path,
) -> None:
    module = taken(saved(number_network(), tmp_path / "n.keras"), NUMBERS)
    rows = {"numbers": torch.randn(8, 5)}
    before = {name: each.clone() for name, each in module.state_dict().items()}
    torch.manual_seed(3)
    first = module.train()(rows)
    moved = {
        name for name, each in module.state_dict().items() if not torch.equal(each, before[name])
    }
    assert {name.rpartition(".")[2] for name in moved} == {"moving_mean", "moving_variance"}
    torch.manual_seed(3)
    assert torch.equal(module(rows), first)
    assert not torch.equal(module(rows), first)
    module.eval()
    state = {name: each.clone() for name, each in module.state_dict().items()}
    assert torch.equal(module(rows), module(rows))
    assert all(torch.equal(each, state[name]) for name, each in module.state_dict().items())


def test_several_inputs_go_by_their_names(tmp_path) -> None:
    numbers, codes = (
        keras.Input((5,), name="numbers"),
        keras.Input((2,), name="categories", dtype="int32"),
    )
    x = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(4, 3)(codes))])
    network = shaken(keras.Model([codes, numbers], layers.Dense(3)(x)))
    inputs = {
        **NUMBERS,
        "categories": InputSpec("categories", (2,), names=("k", "m"), cardinalities=(4, 4)),
    }
    module = taken(saved(network, tmp_path / "n.keras"), inputs).eval()
    batch = {"numbers": torch.randn(3, 5), "categories": torch.randint(0, 4, (3, 2))}
    with torch.no_grad():
        torch.testing.assert_close(
            module(batch), network([batch["categories"], batch["numbers"]]), **CLOSE
        )
    with pytest.raises(
        PartError, match="its inputs are categories, numbers, and the data gives numbers"
    ):
        taken(tmp_path / "n.keras", NUMBERS)


def test_a_frozen_layer_stays_frozen_and_its_normalization_keeps_its_statistics(tmp_path) -> None:
    network = number_network()
    for layer in network.layers[1:3]:
        layer.trainable = False
    module = taken(saved(network, tmp_path / "n.keras"), NUMBERS).train()
    still = {name for name, each in module.named_parameters() if not each.requires_grad}
    assert sorted(name.rpartition(".")[2] for name in still) == ["beta", "bias", "gamma", "kernel"]
    before = {name: each.clone() for name, each in module.state_dict().items()}
    module({"numbers": torch.randn(8, 5)})
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())


def test_a_normalization_of_given_numbers_is_kept_and_one_that_was_adapted_refused(
    tmp_path,
) -> None:
    numbers = keras.Input((5,), name="numbers")
    given = layers.Normalization(mean=[1.0, 2, 3, 4, 5], variance=[4.0, 4, 4, 9, 9])
    network = shaken(keras.Model(numbers, layers.Dense(3)(given(numbers))))
    module = taken(saved(network, tmp_path / "n.keras"), NUMBERS).eval()
    rows = torch.randn(4, 5)
    with torch.no_grad():
        torch.testing.assert_close(module({"numbers": rows}), network(rows), **CLOSE)
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(size=(9, 5)))
    with pytest.raises(PartError, match="adapted to data"):
        taken(
            saved(keras.Model(numbers, layers.Dense(3)(adapted(numbers))), tmp_path / "m.keras"),
            NUMBERS,
        )


def test_a_copy_has_weights_of_its_own(tmp_path) -> None:
    module = taken(saved(number_network(), tmp_path / "n.keras"), NUMBERS).eval()
    rows = {"numbers": torch.randn(4, 5)}
    copied = copy.deepcopy(module)
    assert torch.equal(copied(rows), module(rows))
    with torch.no_grad():
        next(copied.parameters()).add_(1)
    assert not torch.equal(copied(rows), module(rows))


def test_names_do_not_depend_on_what_was_built_before(tmp_path) -> None:
    path = saved(
        keras.Sequential(
            [keras.Input((7,)), layers.Embedding(9, 2), layers.LSTM(3), layers.Dense(3)]
        ),
        tmp_path / "n.keras",
    )
    tokens = {"tokens": InputSpec("tokens", (7,), cardinalities=(9,))}
    first = list(taken(path, tokens).state_dict())
    layers.LSTM(2)(keras.Input((4, 2)))
    assert list(taken(path, tokens).state_dict()) == first


class Stop(Watcher):
    """A watcher that interrupts at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def hear(self, report: Any) -> str:
        if report.kind == "train" and report.step >= self.step:
            raise KeyboardInterrupt
        return ""


def recipe(path: Path, **train: Any) -> dict[str, Any]:
    train = {
        "steps": 24,
        "save_every": 6,
        "report_every": 4,
        "evaluate_every": 12,
        "batch_size": 16,
        **train,
    }
    data = {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}
    return {
        "name": "networks",
        "task": "classification",
        "data": data,
        "model": {"name": "keras", "path": str(path)},
        "train": train,
    }


def iris_network(path: Path) -> Path:
    numbers = keras.Input((4,), name="numbers")
    x = layers.Dropout(0.2)(
        layers.BatchNormalization(momentum=0.9)(
            layers.Dense(16, activation="relu", **drawn(1))(numbers)
        )
    )
    return saved(keras.Model(numbers, layers.Dense(3, activation="softmax", **drawn(2))(x)), path)


def drawn(seed: int) -> dict[str, Any]:
    return {"kernel_initializer": keras.initializers.GlorotUniform(seed)}


def test_it_trains_resumes_to_the_same_bytes_and_its_artifact_needs_the_file_no_more(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    path = iris_network(tmp_path / "n.keras")
    whole = danlu.train(recipe(path), tmp_path / "whole")
    with pytest.raises(Interrupted):
        danlu.train(recipe(path), tmp_path / "cut", beside=Stop(14))
    danlu.train(recipe(path), tmp_path / "cut")
    weights = [
        (tmp_path / name / "artifact" / "weights.safetensors").read_bytes()
        for name in ("whole", "cut")
    ]
    assert weights[0] == weights[1]
    rows = [{name: float(number) for number, name in enumerate(whole.inputs)}]
    wanted = whole.predict(rows)
    path.unlink()
    read = danlu.load(tmp_path / "whole")
    assert read.predict(rows) == wanted
    assert read.recipe.model.options.path is None  # type: ignore[attr-defined]


def test_it_trains_in_half_precision_and_learns(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    path = iris_network(tmp_path / "n.keras")
    told = {
        **recipe(path, steps=150, precision="bfloat16"),
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
    }
    artifact = danlu.train(told, tmp_path / "half")
    assert artifact.scores["test"]["accuracy"] > 0.6  # a network that learns nothing has a third


# --- what is refused ----------------------------------------------------------------------------------------------------


def first_dense(config: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in config["config"]["layers"] if each["class_name"] == "Dense")


HOSTILE: dict[str, Any] = {
    "a Lambda": lambda config: first_dense(config).update(class_name="Lambda"),
    "a class of the standard library": lambda config: first_dense(config).update(
        module="os", class_name="system"
    ),
    "a function that fetches": lambda config: first_dense(config).update(
        module="keras.utils", class_name="get_file"
    ),
    "a pickled module": lambda config: first_dense(config).update(class_name="TorchModuleWrapper"),
    "a saved TensorFlow model": lambda config: first_dense(config).update(class_name="TFSMLayer"),
    "an activation from elsewhere": lambda config: first_dense(config)["config"].update(
        activation="os.system"
    ),
    "a function as an activation": lambda config: first_dense(config)["config"].update(
        activation={
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "function",
        }
    ),
    "a lambda as an argument": lambda config: first_dense(config)["config"].update(
        bias_regularizer={"class_name": "__lambda__", "config": {"value": ["", None, None]}}
    ),
    "a vocabulary file": lambda config: first_dense(config).update(class_name="StringLookup"),
    "a size beyond reason": lambda config: first_dense(config)["config"].update(units=2**40),
    "half precision": lambda config: first_dense(config)["config"]["dtype"]["config"].update(
        name="mixed_float16"
    ),
    "a config without end": lambda config: first_dense(config)["config"].update(
        bias_regularizer=_nested(200)
    ),
    "no layers": lambda config: config["config"].pop("layers"),
}


def _nested(depth: int) -> Any:
    return {} if not depth else {"a": _nested(depth - 1)}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_could_run_or_burst_is_refused_by_name(what, tmp_path) -> None:
    path = with_config(
        saved(number_network(), tmp_path / "n.keras"), tmp_path / "bad.keras", HOSTILE[what]
    )
    with pytest.raises(PartError):
        taken(path, NUMBERS)
    with zipfile.ZipFile(path) as archive, pytest.raises(PartError):
        keras_file.checked_architecture(
            json.loads(archive.read("config.json"))
        )  # an artifact's config goes the same way


@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/x", "assets/layers/lookup/vocabulary.txt", "model.weights.npz"]
)
def test_a_file_with_anything_else_in_it_is_refused(name, tmp_path) -> None:
    path = rewritten(
        saved(number_network(), tmp_path / "n.keras"), tmp_path / "bad.keras", **{name: b"x"}
    )
    with pytest.raises(DataError, match="danlu reads"):
        taken(path, NUMBERS)


def test_a_bomb_is_not_unpacked(tmp_path) -> None:
    path = saved(number_network(), tmp_path / "n.keras")
    with (
        zipfile.ZipFile(path) as before,
        zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as after,
    ):
        after.writestr("config.json", before.read("config.json"))
        after.writestr("model.weights.h5", bytes(50 << 20))
    with pytest.raises(DataError, match="unpacks to"):
        taken(tmp_path / "bomb.keras", NUMBERS)


@pytest.mark.parametrize(
    "how", ["a link out", "a soft link", "an array without end", "no HDF5", "NaN"]
)
def test_weights_that_are_not_sound_are_refused(how, tmp_path) -> None:
    import h5py

    path = saved(number_network(), tmp_path / "n.keras")
    with zipfile.ZipFile(path) as archive:
        held = io.BytesIO(archive.read("model.weights.h5"))
    if how == "no HDF5":
        held = io.BytesIO(b"no such file")
    else:
        with h5py.File(held, "r+") as file:
            (name,) = (each for each in file["layers"] if each == "dense")
            place = file[f"layers/{name}/vars"]
            if how == "NaN":
                place["0"][0, 0] = np.nan
            else:
                del place["0"]
            if how == "a link out":
                place["0"] = h5py.ExternalLink("/etc/passwd", "/")
            elif how == "a soft link":
                place["0"] = h5py.SoftLink("/layers")
            elif how == "an array without end":
                place.create_dataset("0", (1 << 40, 7), dtype="f4", chunks=(1 << 10, 7))
    bad = rewritten(path, tmp_path / "bad.keras", **{"model.weights.h5": held.getvalue()})
    with pytest.raises(DataError, match=r"not sound|NaN"):
        taken(bad, NUMBERS)


def test_a_network_for_other_inputs_or_classes_is_refused_by_name(tmp_path) -> None:
    path = saved(number_network(), tmp_path / "n.keras")
    with pytest.raises(PartError, match="takes 5, and numbers is 6"):
        taken(path, {"numbers": InputSpec("numbers", (6,))})
    with pytest.raises(PartError, match="gives 3 numbers a row, and the task needs 4"):
        taken(path, NUMBERS, OutputSpec(4, tuple("abcd"), means=(("classes", 4),)))
    (tmp_path / "cut.keras").write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="no Keras 3 file"):
        taken(tmp_path / "cut.keras", NUMBERS)
    with pytest.raises(DanluError, match="cannot be read"):
        taken(tmp_path / "none.keras", NUMBERS)


def test_an_artifact_whose_architecture_was_changed_is_refused(tmp_path, monkeypatch) -> None:
    from danlu.system.atomic_files import read_checked_json, with_checksum

    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    danlu.train(recipe(iris_network(tmp_path / "n.keras"), steps=4), tmp_path / "run")
    manifest = tmp_path / "run" / "artifact" / "artifact.json"
    about = read_checked_json(manifest)
    first_dense(about["recipe"]["model"]["architecture"]).update(class_name="Lambda")
    manifest.write_bytes(with_checksum(about))
    with pytest.raises(ArtifactError, match="Lambda"):
        danlu.load(tmp_path / "run")
