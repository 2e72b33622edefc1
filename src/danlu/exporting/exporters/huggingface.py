"""A folder in the layout of Hugging Face: a gpt of Llama's parts as a Llama, an encoder as a BERT, with its tokenizer.json.

transformers, vLLM, text-generation-inference and llama.cpp's own converter read it. Equal logits
are proven by danlu's reader, and by transformers where it is installed. A gpt must be built as a
Llama is (positions: rotary, normalization: rms, feed_forward: swiglu, no bias, no qk_norm). Marks
that a borrowed tokenizer has not are left out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError, DanluError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import Program

NEEDS = ("tokenizers", "huggingface")
TORCH_FREE = False
ANSWERS = {
    "language_modeling": "logits",
    "masked_language_modeling": "logits",
    "classification": "probabilities",
}

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Config(Options):
    """It has no options."""


def fits(config: Config, artifact: Artifact) -> str:
    """Why an artifact has no such layout; "" where it has."""
    model, task = artifact.recipe.model.name, artifact.recipe.task.name
    if model not in ("gpt", "encoder"):
        return f"its model is {model}, and Hugging Face's layout holds a gpt (as Llama) or an encoder (as BERT)."
    if task not in ANSWERS:
        return f"its task is {task}; danlu.artifact.hugging_face.write in Python writes such a folder without a proof."
    return ""


def export(config: Config, artifact: Artifact, program: Program, folder: Path) -> dict[str, Any]:
    """Write the folder's files; gives what `start` must know."""
    from danlu.artifact import hugging_face

    files, told = hugging_face.files_of(artifact)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    task = artifact.recipe.task.name
    (tokens,) = program.inputs
    about: dict[str, Any] = {
        "input": tokens,
        "output": ANSWERS[task],
        "codes": told.rows.tolist(),
        "causal": task == "language_modeling",
    }
    missing = sorted(set(range(int(told.rows.max()) + 1)) - set(told.rows.tolist()))
    return {
        **about,
        **({"left_out": {"logits": missing}} if missing and ANSWERS[task] == "logits" else {}),
    }


def start(folder: Path, about: Mapping[str, Any]) -> Run:
    """What runs the folder as danlu reads it."""
    from danlu.artifact import hugging_face

    try:
        module = hugging_face.read(folder)
    except DanluError as error:
        raise ArtifactError(
            error.problem.message, where=str(folder), hint=error.problem.hint
        ) from None
    name = next(iter(_names(module)), "tokens")
    return _run(lambda tokens: module({name: tokens}), about)


def elsewhere(folder: Path, about: Mapping[str, Any]) -> dict[str, Run]:
    """The folder as transformers reads it, where it is installed; of a gpt, whose padding says
    nothing."""
    if not about["causal"] or importlib.util.find_spec("transformers") is None:
        return {}
    import torch

    from danlu.layers.pretrained.network import library, quiet_transformers

    with quiet_transformers():
        model = library().LlamaForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    model.eval()
    return {"transformers": _run(lambda tokens: model(tokens).logits, about)}


def _names(module: Any) -> list[str]:
    from danlu.artifact.hugging_face.folder import names_read

    return list(names_read(module))


def _run(forward: Callable[[Tensor], Tensor], about: Mapping[str, Any]) -> Run:
    """Prepared tokens in danlu's codes to answers in danlu's codes."""
    import torch

    theirs = torch.tensor(
        about["codes"], dtype=torch.int64
    )  # danlu's code of each of the file's, -1 for none
    known = torch.nonzero(theirs >= 0).flatten()
    size = int(theirs.max()) + 1
    code_of = torch.zeros(size, dtype=torch.int64)
    code_of[theirs[known]] = known
    name, output = str(about["input"]), str(about["output"])

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = forward(code_of[torch.from_numpy(np.ascontiguousarray(arrays[name]))]).float()
        if output == "probabilities":
            return {output: found.double().softmax(dim=1).numpy()}
        logits = torch.zeros(*found.shape[:-1], size)
        logits[..., theirs[known]] = found[..., known]
        return {output: logits.numpy()}

    return run


def card(about: Mapping[str, Any]) -> list[str]:
    """How another program reads the folder."""
    kind = "AutoModelForCausalLM" if about["causal"] else "AutoModel"
    code = [
        f"from transformers import AutoTokenizer, {kind}",
        f'model = {kind}.from_pretrained("FOLDER")',
    ]
    return [
        "The folder is a checkpoint of Hugging Face (safetensors).",
        "",
        "```python",
        *code,
        "```",
    ]
