"""A GGUF file of a gpt, for llama.cpp and Ollama: metadata, tokenizer, weights in one file.

The gpt must be built as a Llama is (positions: rotary, normalization: rms, feed_forward: swiglu, no
bias, no qk_norm).

type        f32; f16; q8_0 (8 bits, one scale for every 32 numbers; a matrix whose rows are no
            multiple of 32 stays in f32). The parity check reads the file back, and allows logits to
            differ by 1e-4 in f32, by 0.02 in f16 and by 0.25 in q8_0
tokenizer   bpe and bytes are stored as byte-level BPE, characters too where all of them are ASCII
            (characters that training never saw are then dropped; in danlu they are unknown).
            llama.cpp splits a text into words by rules of its own, none of which is danlu's: the
            file names the nearest (poro-chat), and the export is refused where more than one token
            of a hundred of held-out text is then read differently. A tokenizer of words, one that
            lower-cases and one that was trained elsewhere cannot be stored: --to huggingface, then
            llama.cpp's converter
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import Field

from danlu.errors import ArtifactError, DanluError
from danlu.exporting.exporters._base import Run, RunInfo, Tolerances
from danlu.parts.tasks._base import ReadsRunningText
from danlu.recipe import Options
from danlu.terms import END, FIRST_TOKEN, PADDING, SPECIAL_TOKENS, UNKNOWN

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel
    from danlu.layers.transformer.language_model import LanguageModel

NEEDS = (("gguf",), "gguf")
TORCH_FREE = False
FILE = "model.gguf"
LARGEST = 64 << 30  # bytes
ALLOWED = {"f32": 1e-4, "f16": 0.02, "q8_0": 0.25}  # differences of logits
ALIKE = 0.99  # least share of held-out tokens that llama.cpp reads as danlu does
RULES = "poro-chat"  # of llama.cpp's rules for words, the one that lets all pieces of danlu's form
_WORDS = re.compile(
    r" ?[^(\s|.,!?…。，、।۔،)]+"
)  # that rule; the text between words is split off too
_NO_MERGE = "Ā Ā"  # a merge into no token: llama.cpp takes no empty list of merges
# llama.cpp's name of each entry of a Llama's config.json, and of each tensor of a layer
_METADATA = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class Config(Options):
    """The precision of the weights."""

    type: Literal["f32", "f16", "q8_0"] = Field(
        "f32", description="The precision of matrices; norms stay in f32."
    )


def refusal(config: Config, artifact: Artifact) -> str:
    """Why an artifact cannot be such a file; "" where it can."""
    from danlu.tokenizing.bpe import BytePairs
    from danlu.tokenizing.bytes import Bytes
    from danlu.tokenizing.characters import Characters

    family, task = artifact.recipe.model.name, artifact.recipe.task.name
    if family != "gpt" or task not in ("language_modeling", "instruction_tuning"):
        return f"it is a {family} for {task}, and a GGUF holds a gpt for language_modeling."
    tokenizer = artifact.preprocessor.tokenizer
    if not isinstance(tokenizer, BytePairs | Bytes | Characters):
        kind = "none" if tokenizer is None else tokenizer.kind
        return (
            f"its tokenizer is {kind}, and llama.cpp stores bpe, bytes and characters (of one that "
            "was trained elsewhere: --to huggingface)."
        )
    if tokenizer.lower:
        return "its tokenizer lower-cases, and llama.cpp has no rule for that."
    if isinstance(tokenizer, Characters) and not tokenizer.alphabet.isascii():
        return (
            "its tokenizer has characters beyond ASCII, which llama.cpp builds of bytes; train "
            "with bpe or bytes."
        )
    return ""


def tolerances(config: Config) -> Tolerances:
    """The difference of logits that the precision costs."""
    return {"difference": ALLOWED[config.type]}


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write model.gguf. Raises ArtifactError for a gpt that is built otherwise than a Llama, and
    where llama.cpp would read too much of a text differently."""
    import gguf

    from danlu.artifact.hugging_face import llama

    where = str(artifact.path or artifact.recipe.name)
    llama.refuse_others(artifact.recipe.model.options, where)
    tokenizer: Any = artifact.preprocessor.tokenizer
    alike = share_read_alike(tokenizer, model.examples[next(iter(model.inputs))].numpy())
    if alike < ALIKE:
        raise ArtifactError(
            f"llama.cpp would read {1 - alike:.1%} of the tokens of held-out text differently than "
            "danlu does.",
            where=where,
            hint="train with a tokenizer of bytes, or take --to huggingface or danlu serve",
        )
    module: Any = artifact.module
    task = artifact.task
    limit = task.context if isinstance(task, ReadsRunningText) else 0
    context = int(limit or module.context)
    config_json: dict[str, Any] = llama.config(
        module, context, tokenizer.size, {code: code for code in range(FIRST_TOKEN)}
    )
    writer = gguf.GGUFWriter(folder / FILE, "llama")
    writer.add_name(artifact.recipe.name)
    writer.add_file_type({"f32": 0, "f16": 1, "q8_0": 7}[config.type])
    for name, config_name in _METADATA.items():
        value = config_json[config_name]
        if isinstance(value, float):
            writer.add_float32(f"llama.{name}", value)
        else:
            writer.add_uint32(f"llama.{name}", int(value))
    writer.add_rope_dimension_count(config_json["head_dim"])
    _tokens(writer, tokenizer)
    for name, tensor in llama.tensors(module, np.arange(tokenizer.size)).items():
        _add_tensor(
            gguf,
            writer,
            _gguf_name(name),
            _reordered_heads(name, tensor.numpy(), config_json),
            config.type,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {
        "input": next(iter(model.inputs)),
        "output": next(iter(model.outputs)),
        "type": config.type,
        "read_alike": alike,
    }


def _tokens(writer: Any, tokenizer: Any) -> None:
    """Write the tokenizer as byte-level BPE: its pieces, and its merges in their order."""
    import gguf

    pieces, merges = pieces_and_merges(tokenizer)
    kinds = [
        gguf.TokenType.UNKNOWN if code == UNKNOWN else gguf.TokenType.CONTROL
        for code in range(FIRST_TOKEN)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(RULES)
    writer.add_token_list([*SPECIAL_TOKENS, *pieces])
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * len(pieces)])
    writer.add_token_merges(merges or [_NO_MERGE])
    writer.add_bos_token_id(END)  # in training a text begins where another ends
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_pad_token_id(PADDING)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def pieces_and_merges(tokenizer: Any) -> tuple[list[str], list[str]]:
    """(the pieces after the special tokens, every byte written as a printable letter; the
    merges)."""
    from danlu.tokenizing.bpe import byte_letters

    letters = byte_letters()
    if tokenizer.kind == "bpe":
        return list(tokenizer.pieces), list(tokenizer.merges)
    return (
        letters
        if tokenizer.kind == "bytes"
        else [letters[ord(letter)] for letter in tokenizer.alphabet]
    ), []


def share_read_alike(tokenizer: Any, codes: np.ndarray) -> float:
    """The share of tokens of `codes` (rows, T) that llama.cpp's rule for words gives as well; 1 for
    tokenizers without merges."""
    if tokenizer.kind != "bpe":
        return 1.0
    from danlu.tokenizing.bpe import bpe_library

    joins = bpe_library(tokenizer.pieces, tokenizer.merges, divides=False)
    whole = bpe_library(tokenizer.pieces, tokenizer.merges)
    same = total = 0
    for row in codes:
        text = tokenizer.decode(row[row >= FIRST_TOKEN])
        tokens = whole.encode(text, add_special_tokens=False).ids
        llama_tokens = [
            code
            for part in _parts(text)
            for code in joins.encode(part, add_special_tokens=False).ids
        ]
        total += len(tokens)
        same += len(tokens) - _unmatched(tokens, llama_tokens)
    return max(0.0, same / max(total, 1))


def _parts(text: str) -> list[str]:
    """A text split by llama.cpp's rule for words."""
    parts, at = [], 0
    for word in _WORDS.finditer(text):
        parts += [text[at : word.start()], word.group()]
        at = word.end()
    return [part for part in [*parts, text[at:]] if part]


def _unmatched(tokens: Sequence[int], other: Sequence[int]) -> int:
    """How many of `tokens` are in no common block of both sequences."""
    from difflib import SequenceMatcher

    matcher = SequenceMatcher(a=tokens, b=other, autojunk=False)
    return len(tokens) - sum(block.size for block in matcher.get_matching_blocks())


def _gguf_name(name: str) -> str:
    plain = name.removesuffix(".weight")
    if plain in _OUTER:
        return f"{_OUTER[plain]}.weight"
    number, _, inner = plain.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{_LAYER[inner]}.weight"


def _reordered_heads(
    name: str, weight: np.ndarray, config_json: Mapping[str, Any], back: bool = False
) -> np.ndarray:
    """Queries and keys in llama.cpp's order (`back`: in Llama's): llama.cpp rotates neighbouring
    numbers of a head together, Llama's own code the two halves of a head."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(
        name.split(".")[-2]
    )
    if heads is None:
        return weight
    count = int(config_json[heads])
    shape = (
        (count, weight.shape[0] // count // 2, 2)
        if back
        else (count, 2, weight.shape[0] // count // 2)
    )
    return weight.reshape(*shape, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _add_tensor(gguf: Any, writer: Any, name: str, weight: np.ndarray, kind: str) -> None:
    kinds = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    chosen = (
        kinds[kind]
        if weight.ndim > 1 and not (kind == "q8_0" and weight.shape[-1] % 32)
        else kinds["f32"]
    )
    weight = np.ascontiguousarray(weight, dtype=np.float32)
    if chosen == kinds["f32"]:
        writer.add_tensor(name, weight)
    elif chosen == kinds["f16"]:
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(weight, chosen), raw_dtype=chosen)


def start(folder: Path, run_info: RunInfo) -> Run:
    """Opens the network of the file, its weights brought back to float32."""
    import torch

    from danlu.system.atomic_files import read_regular

    try:
        module = network(read_regular(folder / FILE, LARGEST))
    except DanluError as error:
        raise ArtifactError(error.problem.message, where=FILE, hint=error.problem.hint) from None
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"it is no GGUF of a gpt: {type(error).__name__}: {error}.", where=FILE
        ) from None
    name, output = str(run_info["input"]), str(run_info["output"])

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {
                output: module({"tokens": torch.from_numpy(np.ascontiguousarray(arrays[name]))})
                .float()
                .numpy()
            }

    return run


def network(data: bytes) -> LanguageModel:
    """The gpt that the bytes of a file hold. Raises ValueError or KeyError where they hold none."""
    import gguf
    import torch

    from danlu.artifact.hugging_face import llama
    from danlu.exporting.exporters import _gguf_file as gguf_file

    metadata, tensors = gguf_file.read(data)
    if metadata.get("general.architecture") != "llama":
        raise ValueError(f"its architecture is {metadata.get('general.architecture')!r}")
    config_json: dict[str, Any] = {
        key: metadata[f"llama.{name}"] for name, key in _METADATA.items()
    }
    config_json |= {
        "model_type": "llama",
        "rms_norm_eps": round(config_json["rms_norm_eps"], 9),
        "tie_word_embeddings": True,
    }
    inner = {gguf_name: name for name, gguf_name in _LAYER.items()}
    outer = {gguf_name: name for name, gguf_name in _OUTER.items()}
    weights = {}
    for tensor in tensors:
        _, block, size = gguf_file.BLOCKS[tensor.kind]
        rows = np.frombuffer(tensor.data, dtype=np.uint8).reshape(
            *tensor.shape[:-1], tensor.shape[-1] // block * size
        )
        numbers = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(tensor.kind)).reshape(
            tensor.shape
        )
        plain = tensor.name.removesuffix(".weight")
        head, _, rest = plain.partition(".")
        number, _, layer = rest.partition(".")
        name = f"model.layers.{number}.{inner[layer]}" if head == "blk" else outer[plain]
        config_json["tie_word_embeddings"] = (
            config_json["tie_word_embeddings"] and name != "lm_head"
        )
        weights[f"{name}.weight"] = torch.from_numpy(
            np.array(
                _reordered_heads(f"{name}.weight", numbers, config_json, back=True),
                dtype=np.float32,
            )
        )
    # its keys are those that _METADATA names
    return llama.module_of(cast("llama.LlamaConfig", config_json), weights, FILE)


def card(run_info: RunInfo) -> list[str]:
    """How another program runs the file."""
    sentence = (
        f"`model.gguf` holds weights as {run_info['type']} and the tokenizer; llama.cpp reads "
        f"{run_info['read_alike']:.2%} of held-out tokens as danlu."
    )
    return [sentence, "", "```sh", "llama-cli -m model.gguf -p 'Once upon a time'", "```"]
