"""A folder in the layout of Hugging Face: a gpt as a Llama, an encoder as a BERT.

It holds tokenizer.json too. transformers, vLLM, text-generation-inference and llama.cpp's own
converter read it. The parity check compares logits as danlu reads the folder, and as transformers
does where it is installed. A gpt must be built as a Llama is (positions: rotary, normalization:
rms, feed_forward: swiglu, no bias, no qk_norm). Special tokens that a borrowed tokenizer lacks are
left out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError, DanluError
from danlu.exporting.exporters._base import Run, RunInfo
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel

NEEDS = (("tokenizers",), "huggingface")
TORCH_FREE = False
ANSWERS = {
    "language_modeling": "logits",
    "masked_language_modeling": "logits",
    "classification": "probabilities",
}


class Config(Options):
    """It has no options."""


def refusal(config: Config, artifact: Artifact) -> str:
    """Why an artifact has no such layout; "" where it has one."""
    model, task = artifact.recipe.model.name, artifact.recipe.task.name
    if model not in ("gpt", "encoder"):
        return (
            f"its model is {model}, and Hugging Face's layout holds a gpt (as Llama) or an encoder "
            "(as BERT)."
        )
    if task not in ANSWERS:
        return (
            f"its task is {task}; danlu.write_hugging_face in Python writes such a folder without "
            "a parity check."
        )
    return ""


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write the folder's files."""
    from danlu.artifact import hugging_face

    files, tokenizer = hugging_face.files_of(artifact)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    task = artifact.recipe.task.name
    (tokens,) = model.inputs
    run_info: dict[str, Any] = {
        "input": tokens,
        "output": ANSWERS[task],
        "codes": tokenizer.rows.tolist(),
        "causal": task == "language_modeling",
    }
    missing = sorted(set(range(int(tokenizer.rows.max()) + 1)) - set(tokenizer.rows.tolist()))
    return {
        **run_info,
        **({"left_out": {"logits": missing}} if missing and ANSWERS[task] == "logits" else {}),
    }


def start(folder: Path, run_info: RunInfo) -> Run:
    """Opens the folder as danlu reads it."""
    from danlu.artifact import hugging_face

    try:
        module = hugging_face.read(folder)
    except DanluError as error:
        raise ArtifactError(
            error.problem.message, where=str(folder), hint=error.problem.hint
        ) from None
    name = next(iter(_names(module)), "tokens")
    return _run(lambda tokens: module({name: tokens}), run_info)


def other_runtimes(folder: Path, run_info: RunInfo) -> dict[str, Run]:
    """The folder as transformers reads it, where it is installed: of a gpt alone, whose answers do
    not depend on padding."""
    if not run_info["causal"] or importlib.util.find_spec("transformers") is None:
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
    return {"transformers": _run(lambda tokens: model(tokens).logits, run_info)}


def _names(module: Any) -> list[str]:
    from danlu.artifact.hugging_face.folder import names_read

    return list(names_read(module))


def _run(forward: Callable[[Tensor], Tensor], run_info: RunInfo) -> Run:
    """A Run: tokens in danlu's codes to answers in danlu's codes, by `forward` on the file's."""
    import torch

    danlu_code = torch.tensor(
        run_info["codes"], dtype=torch.int64
    )  # of each of the file's codes, -1 where danlu has none
    file_codes = torch.nonzero(danlu_code >= 0).flatten()
    size = int(danlu_code.max()) + 1
    code_of = torch.zeros(size, dtype=torch.int64)
    code_of[danlu_code[file_codes]] = file_codes
    name, output = str(run_info["input"]), str(run_info["output"])

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = forward(code_of[torch.from_numpy(np.ascontiguousarray(arrays[name]))]).float()
        if output == "probabilities":
            return {output: outputs.double().softmax(dim=1).numpy()}
        logits = torch.zeros(*outputs.shape[:-1], size)
        logits[..., danlu_code[file_codes]] = outputs[..., file_codes]
        return {output: logits.numpy()}

    return run


def card(run_info: RunInfo) -> list[str]:
    """How another program reads the folder."""
    kind = "AutoModelForCausalLM" if run_info["causal"] else "AutoModel"
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
