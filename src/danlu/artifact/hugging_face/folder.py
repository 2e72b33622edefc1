"""The folder of a Hugging Face checkpoint: written from an artifact whose model is a gpt or an
encoder, and read as one of these models."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from danlu.artifact.artifact import Contents
from danlu.artifact.hugging_face import bert, llama
from danlu.artifact.hugging_face.tokenizer import TokenizerFile, tokenizer_file, word_tokenizer_file
from danlu.artifact.memory_limit import AllocationLimit
from danlu.errors import ArtifactError, DataError
from danlu.layers.tensors import from_array
from danlu.layers.transformer.language_model import LanguageModel
from danlu.parts.tasks._base import ReadsRunningText
from danlu.reading import hugging_face
from danlu.reading.hugging_face_config import check_layers, checked_config
from danlu.reading.safetensors_header import FLOATS, StoredTensor
from danlu.system.atomic_files import atomic_folder, write_file
from danlu.terms import BEGINNING, END, FIRST_TOKEN

# the largest difference of logits that is accepted, relative to the largest logit where that is
# above 1
FARTHEST = 1e-4
# the memory that a network may take: bytes for each byte of its weights in float32, and beside
_UNPACKED, _BESIDE = 4, 64 << 20
_FLOAT32 = 4
_COMPARED = (2, 24)  # rows and positions of the tokens that logits are compared for


def write_hugging_face(artifact: Contents, path: str | Path) -> list[Path]:
    """Write a model as a checkpoint of Hugging Face; returns the paths of the files.

    A `gpt` becomes a Llama: train it with positions: rotary, normalization: rms, feed_forward:
    swiglu, qk_norm: false and bias: false. An `encoder` becomes a BERT: train it with positions:
    learned and norm_position: after, and for classification also head: dense and pooling: first.
    `path` is a folder that does not exist yet; it appears whole or not at all. Where the library
    transformers is installed, it reads the folder and its logits are compared with the model's.

    Raises ArtifactError for a model with other options (the message names them), and where the
    logits differ.

    >>> import danlu, pathlib
    >>> _ = pathlib.Path("verse.txt").write_text("so much depends upon a red wheel barrow\\n" * 60)
    >>> recipe = {"task": "language_modeling", "train": {"steps": 2},
    ...           "data": {"source": "verse.txt", "split": "random"},
    ...           "model": {"name": "gpt", "width": 16, "num_layers": 1, "num_heads": 2,
    ...                     "feed_forward": "swiglu", "qk_norm": False}}
    >>> files = danlu.write_hugging_face(danlu.train(recipe, "runs/llama"), "llama")
    >>> sorted(file.name for file in files)[0]
    'config.json'
    """
    where = str(artifact.path or artifact.recipe.name)
    files, tokenizer = files_of(artifact)
    gpt = artifact.recipe.model.name == "gpt"
    if Path(path).exists():
        raise ArtifactError(
            "there is already a file or folder of this name.",
            where=str(path),
            hint="choose another name",
        )
    with atomic_folder(Path(path)) as folder:
        for name, data in files.items():
            write_file(folder / name, data)
        if importlib.util.find_spec("transformers") is not None:
            _refuse_different(
                artifact.module,
                folder,
                tokenizer,
                where,
                kind="causal" if gpt else bert.TASKS[artifact.recipe.task.name],
            )
    return [Path(path) / name for name in files]


def files_of(artifact: Contents) -> tuple[dict[str, bytes], TokenizerFile]:
    """(the bytes of each file of the checkpoint by its name, its tokenizer). Raises ArtifactError
    for a model that is neither a Llama nor a BERT."""
    where = str(artifact.path or artifact.recipe.name)
    name = artifact.recipe.model.name
    if name not in ("gpt", "encoder"):
        raise ArtifactError(
            "only a gpt or an encoder can be written in the layout of Hugging Face, "
            f"and this model is {name}.",
            where=where,
            hint="danlu predict and danlu generate use it as it is",
        )
    return _of_gpt(artifact, where) if name == "gpt" else _of_encoder(artifact, where)


def read_hugging_face(path: str | Path) -> nn.Module:
    """A Llama checkpoint as danlu's gpt, or a BERT checkpoint as its encoder, in evaluation mode.

    The module maps {"tokens": int64 (rows, positions)} to logits. The token codes are those of the
    checkpoint's tokenizer.json. A BERT has the head that its config.json names: the logits of
    BertForMaskedLM and BertForTokenClassification are (rows, positions, outputs), those of
    BertForSequenceClassification (rows, classes). Anybody may have written the folder: files are
    read only inside it, its values are checked, and no code in it is run.

    Raises DataError where a file is missing or unsound, the config.json does not fit the weights,
    or the network has a part that danlu's does not have.

    >>> import danlu
    >>> danlu.read_hugging_face("nowhere")
    Traceback (most recent call last):
    danlu.errors.DataError: nowhere/config.json: there is no such file...
    """
    folder = Path(path)
    architecture = hugging_face.architecture(folder)
    where = str(folder)
    config = checked_config(architecture["config"], str(folder / "config.json"))
    stored = hugging_face.stored_tensors(folder)
    check_layers(config, len(stored), str(folder / "config.json"))
    numbers = sum(tensor.numbers for tensor in stored.values())
    try:
        with AllocationLimit(_UNPACKED * _FLOAT32 * numbers + _BESIDE):
            if config["model_type"] == "bert":
                labels = architecture["labels"]
                return bert.module_of(
                    cast("bert.BertConfig", config),
                    _kind_of_bert(folder),
                    max(len(labels), 1) if labels else 2,
                    _weights(folder, stored),
                    where,
                )
            return llama.module_of(
                cast("llama.LlamaConfig", config), _weights(folder, stored), where
            )
    except MemoryError as error:
        cause = str(error)
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        cause = f"it lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
    raise DataError(
        f"its config.json makes no network: {cause[:300].rstrip('.')}.",
        where=where,
        hint="give the config.json and the weights of one checkpoint",
    )


def _weights(folder: Path, stored: Mapping[str, StoredTensor]) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint. Raises DataError where one holds other than finite numbers."""
    weights = hugging_face.read_weights(folder)
    for name, tensor in weights.items():
        if stored[name].dtype in FLOATS and not bool(tensor.isfinite().all()):
            raise DataError(
                f"the tensor {name} has entries that are no finite numbers.",
                where=str(folder),
                hint="download the checkpoint again",
            )
    return weights


def difference(
    module: nn.Module, folder: Path, tokenizer: TokenizerFile, kind: str = "causal"
) -> tuple[float, float]:
    """(largest difference of logits, largest logit) between a model and the network that
    transformers reads from its folder.

    `kind` is "causal" for a gpt; for an encoder a value of danlu.artifact.hugging_face.bert.TASKS.
    """
    from danlu.layers.pretrained.network import library, quiet_transformers

    ours = from_array(tokenizer.rows)
    rows_with_code = torch.nonzero(ours >= FIRST_TOKEN).flatten()
    with quiet_transformers(), torch.inference_mode():
        network = (
            library().LlamaForCausalLM if kind == "causal" else getattr(library(), f"Bert{kind}")
        )
        other = network.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32
        ).eval()
        places = min(_COMPARED[1], int(other.config.max_position_embeddings))
        picked = torch.randint(
            len(rows_with_code), (_COMPARED[0], places), generator=torch.Generator().manual_seed(0)
        )
        codes = rows_with_code[picked]
        inputs = dict.fromkeys(names_read(module), ours[codes])
        logits, other_logits = module.eval().to("cpu")(inputs), other(codes).logits
        if kind in ("causal", "ForMaskedLM"):
            logits = logits[..., ours[rows_with_code]]
            other_logits = other_logits[..., rows_with_code]
    return float((logits - other_logits).abs().max()), float(logits.abs().max())


def names_read(module: nn.Module) -> tuple[str, ...]:
    """The names of the module's token inputs."""
    readers = [
        layer.encoder.reader.names
        for layer in module.modules()
        if isinstance(layer, bert.EncodedPlaces | bert.EncodedRow)
    ]
    return readers[0] if readers else ("tokens",)


def _of_gpt(artifact: Contents, where: str) -> tuple[dict[str, bytes], TokenizerFile]:
    from safetensors.torch import save

    module = artifact.module
    assert isinstance(module, LanguageModel)
    llama.refuse_others(artifact.recipe.model.options, where)
    tokenizer = artifact.preprocessor.tokenizer
    if tokenizer is None:
        raise ArtifactError("this artifact has not exactly one tokenizer.", where=where)
    file = tokenizer_file(tokenizer, where)
    task = artifact.task
    limit = task.context if isinstance(task, ReadsRunningText) else 0
    context = int(limit or module.context)
    config = llama.config(module, context, len(file.rows), file.codes)
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation |= {
        "suppress_tokens": file.suppressed_codes or None,
        "do_sample": True,
        "temperature": 0.8,
    }
    return {
        "config.json": _json(config),
        "generation_config.json": _json(generation),
        "model.safetensors": save(llama.tensors(module, file.rows), metadata={"format": "pt"}),
        "tokenizer.json": file.text.encode(),
        "tokenizer_config.json": _json(file.config(context)),
    }, file


def _of_encoder(artifact: Contents, where: str) -> tuple[dict[str, bytes], TokenizerFile]:
    from safetensors.torch import save

    task = artifact.recipe.task.name
    parts = bert.bert_parts(artifact.module, artifact.recipe.model.options, task, where)
    file = _tokenizer_of_encoder(artifact, where)
    labels = () if task == "masked_language_modeling" else artifact.task.output.names
    config = bert.config(parts, task, len(file.rows), file.codes, labels)
    assert parts.encoder.positions is not None
    return {
        "config.json": _json(config),
        "model.safetensors": save(bert.tensors(parts, task, file.rows), metadata={"format": "pt"}),
        "tokenizer.json": file.text.encode(),
        "tokenizer_config.json": _json(
            file.config(parts.encoder.positions.num_embeddings, encoder=True)
        ),
    }, file


def _tokenizer_of_encoder(artifact: Contents, where: str) -> TokenizerFile:
    """The tokenizer of an encoder's text, as a file."""
    tokenizer = artifact.preprocessor.tokenizer
    steps = [step for chain in artifact.preprocessor.pipelines for step in chain.steps]
    if tokenizer is not None:
        options = next(part.options for part, state in steps if "tokenizer" in state).model_dump()
        return tokenizer_file(
            tokenizer,
            where,
            tuple(
                code for code, option in ((BEGINNING, "beginning"), (END, "end")) if options[option]
            ),
        )
    words = [(part.options, state) for part, state in steps if part.name == "vocabulary"]
    if len(words) != 1:
        raise ArtifactError("this artifact has not exactly one tokenizer.", where=where)
    options, state = words[0][0].model_dump(), words[0][1]
    plain = state["labels"]
    return word_tokenizer_file(
        state["words"], not plain and options["lower"], not plain and options["digits"]
    )  # type: ignore[attr-defined]


def _kind_of_bert(folder: Path) -> str:
    """The value of bert.TASKS that config.json names. Raises DataError where it names none."""
    classes = hugging_face.model_classes(folder)
    kind = next((kind for kind in bert.TASKS.values() if f"Bert{kind}" in classes), None)
    if kind is None:
        wanted = " or ".join(f"Bert{kind}" for kind in bert.TASKS.values())
        raise DataError(
            f"its config.json names {', '.join(classes) or 'no architecture'}, "
            f"and danlu's encoder is one of {wanted}.",
            where=str(folder),
            hint="use it as it is: model: pretrained",
        )
    return kind


def _json(data: dict[str, object]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _refuse_different(
    module: nn.Module, folder: Path, tokenizer: TokenizerFile, where: str, kind: str
) -> None:
    farthest, largest = difference(module, folder, tokenizer, kind)
    if not farthest <= FARTHEST * max(largest, 1.0):
        raise ArtifactError(
            f"the logits that transformers computes from this folder differ from the model's by "
            f"{farthest:.2g}, so the folder is not written.",
            where=where,
            hint="report this: it is a bug in danlu",
        )
