"""The values of a checkpoint's config.json: which are read, and within which bounds.

Anybody may have written the file. So each value that a network is built of must have the type and
range of its key, and every other key is left out: one could name code, a file or a kernel to
fetch. Sizes are bounded before anything is allocated; whether they are those of the weights is
checked against the header of their file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from danlu.errors import DataError

MOST_LAYERS = 1024
MOST_CODES = 1 << 22
_WIDTH, _PLACES, _EDGE = 1 << 18, 1 << 24, 8192
_LARGEST_NUMBER = 1e12
_MOST_STAGES = 64
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_HINT = "give the config.json that save_pretrained wrote"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# by key: the largest value; the smallest is 1
_LAYERS = _words(
    "num_hidden_layers n_layers n_layer num_layers num_decoder_layers encoder_layers "
    "decoder_layers num_stages"
)
_HEADS = _words(
    "num_attention_heads n_heads n_head num_heads num_key_value_heads encoder_attention_heads "
    "decoder_attention_heads"
)
_WIDTHS = _words(
    "hidden_size intermediate_size dim hidden_dim n_embd n_inner d_model d_kv d_ff head_dim "
    "encoder_ffn_dim decoder_ffn_dim embedding_size pooler_output_size type_vocab_size "
    "relative_attention_num_buckets encoder_stride pretraining_tp"
)
SIZES: dict[str, int] = {
    **dict.fromkeys(_LAYERS, MOST_LAYERS),
    **dict.fromkeys(_HEADS, 4096),
    **dict.fromkeys(_WIDTHS, _WIDTH),
    **dict.fromkeys(("vocab_size", "decoder_vocab_size"), MOST_CODES),
    **dict.fromkeys(
        _words("max_position_embeddings n_positions n_ctx relative_attention_max_distance"), _PLACES
    ),
    "num_channels": 1024,
}
_PAIRS = {"image_size": _EDGE, "patch_size": 1024}  # a number, or [height, width]
_LISTS = {"depths": MOST_LAYERS, "hidden_sizes": _WIDTH}
_CODES = _words(
    "pad_token_id bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id "
    "decoder_start_token_id forced_bos_token_id forced_eos_token_id"
)
_SHARES = _words(
    "hidden_dropout_prob attention_probs_dropout_prob dropout attention_dropout qa_dropout "
    "seq_classif_dropout classifier_dropout resid_pdrop embd_pdrop attn_pdrop "
    "summary_first_dropout activation_dropout encoder_layerdrop decoder_layerdrop dropout_rate "
    "drop_path_rate layer_norm_eps layer_norm_epsilon rms_norm_eps"
)
_NUMBERS = _words("initializer_range init_std initializer_factor layer_scale_init_value rope_theta")
_SWITCHES = _words(
    "is_decoder add_cross_attention tie_word_embeddings tie_encoder_decoder is_encoder_decoder "
    "scale_embedding sinusoidal_pos_embds summary_use_proj summary_proj_to_labels "
    "scale_attn_weights scale_attn_by_inverse_layer_idx reorder_and_upcast_attn attention_bias "
    "mlp_bias qkv_bias share_encoder_decoder_embeddings downsample_in_first_stage "
    "downsample_in_bottleneck is_gated_act scale_decoder_outputs"
)
_NAMES = _words(
    "model_type hidden_act activation activation_function summary_type summary_activation "
    "feed_forward_proj dense_act_fn position_embedding_type pooler_act layer_type"
)
_ROTARY = _words("rope_parameters rope_scaling")


def checked_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys of a config.json that describe the network. Raises DataError naming the key whose
    value no network can have; `where` is what the message calls the file.

    >>> checked_config({"model_type": "bert", "hidden_size": 16, "auto_map": {}}, "config.json")
    {'model_type': 'bert', 'hidden_size': 16}
    >>> checked_config({"num_hidden_layers": 10**9}, "config.json")
    Traceback (most recent call last):
    danlu.errors.DataError: config.json: num_hidden_layers must be a whole number from 1 to 1,024...
    """
    kept = {key: value for key, value in config.items() if key in _RULES}
    for key, value in kept.items():
        rule, test = _RULES[key]
        if value is not None and not test(value):
            raise DataError(
                f"{key} must be {rule}, and is {_shown(value)}.", where=where, hint=_HINT
            )
    _check_codes(kept, where)
    _check_heads(kept, where)
    return kept


def check_layers(config: Mapping[str, Any], tensors: int, where: str) -> None:
    """Raise DataError where a config describes more layers than its weights have tensors.

    >>> check_layers({"num_hidden_layers": 1000}, 40, "config.json")
    Traceback (most recent call last):
    danlu.errors.DataError: config.json: num_hidden_layers is 1,000, and the weights are 40...
    """
    for key in sorted(_LAYERS & config.keys()):
        if config[key] is not None and config[key] > tensors:
            raise DataError(
                f"{key} is {config[key]:,}, and the weights are {tensors:,} tensors.",
                where=where,
                hint="give the config.json and the weights of one checkpoint",
            )


def _shown(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, TypeError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def _size(largest: int) -> tuple[str, Callable[[Any], bool]]:
    return (
        f"a whole number from 1 to {largest:,}",
        lambda value: type(value) is int and 1 <= value <= largest,
    )


def _is_number(value: object, largest: float) -> bool:
    return type(value) in (int, float) and 0 <= value <= largest  # type: ignore[operator]


def _is_pair(value: object, largest: int) -> bool:
    sizes = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(size) is int and 1 <= size <= largest for size in sizes)


def _is_list(value: object, largest: int) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_STAGES
        and all(type(size) is int and 1 <= size <= largest for size in value)
    )


def _are_codes(value: object) -> bool:
    codes = value if isinstance(value, list) and len(value) <= 1000 else [value]
    return all(type(code) is int and -1 <= code < MOST_CODES for code in codes)


def _is_rotary(value: object) -> bool:
    """Whether a value describes rotary positions: a mapping of names to numbers, words or lists of
    numbers."""
    if not isinstance(value, Mapping) or len(value) > 32:
        return False
    settings = cast("Mapping[str, object]", value).values()
    return all(map(_is_rotary_setting, settings))


def _is_rotary_setting(setting: object) -> bool:
    if setting is None or isinstance(setting, str):
        return setting is None or bool(_WORD.fullmatch(setting))
    numbers = cast("list[object]", setting) if isinstance(setting, list) else [setting]
    return len(numbers) <= _WIDTH and all(
        isinstance(number, int | float) and abs(number) <= _LARGEST_NUMBER for number in numbers
    )


def _rules() -> dict[str, tuple[str, Callable[[Any], bool]]]:
    """By key: the rule in words, and whether a value obeys it."""
    rules = {key: _size(largest) for key, largest in SIZES.items()}
    for key, largest in _PAIRS.items():
        rules[key] = (
            f"a whole number from 1 to {largest:,}, or two",
            lambda value, largest=largest: _is_pair(value, largest),
        )
    for key, largest in _LISTS.items():
        rules[key] = (
            f"1 to {_MOST_STAGES} whole numbers from 1 to {largest:,}",
            lambda value, largest=largest: _is_list(value, largest),
        )
    for keys, rule, test in (
        (_CODES, f"a code below {MOST_CODES:,}, or several", _are_codes),
        (_SHARES, "a number from 0 to 1", lambda value: _is_number(value, 1.0)),
        (
            _NUMBERS,
            f"a number from 0 to {_LARGEST_NUMBER:g}",
            lambda value: _is_number(value, _LARGEST_NUMBER),
        ),
        (_SWITCHES, "true or false", lambda value: type(value) is bool),
        (
            _NAMES,
            "a word of at most 64 letters",
            lambda value: isinstance(value, str) and bool(_WORD.fullmatch(value)),
        ),
        (_ROTARY, "a mapping of names to numbers", _is_rotary),
    ):
        rules |= dict.fromkeys(keys, (rule, test))
    return rules


_RULES = _rules()


def _check_codes(config: Mapping[str, Any], where: str) -> None:
    """Raise DataError where a code that the network reads is not one of its vocabulary."""
    sizes = [config[key] for key in ("vocab_size", "decoder_vocab_size") if config.get(key)]
    for key in ("decoder_start_token_id", "pad_token_id"):
        code = config.get(key)
        least = -1 if key == "pad_token_id" else 0  # -1: older Llamas have no token of padding
        if isinstance(code, list):
            raise DataError(
                f"{key} must be one code, and is {_shown(code)}.", where=where, hint=_HINT
            )
        if code is not None and (code < least or (sizes and code >= max(sizes))):
            among = f" of {max(sizes):,} tokens" if sizes else ""
            raise DataError(
                f"{key} must be a code of the vocabulary{among}, and is {code:,}.",
                where=where,
                hint=_HINT,
            )


def _check_heads(config: Mapping[str, Any], where: str) -> None:
    """Raise DataError where the width cannot be divided among the heads."""
    for width, heads in (
        ("hidden_size", "num_attention_heads"),
        ("dim", "n_heads"),
        ("n_embd", "n_head"),
        ("d_model", "encoder_attention_heads"),
        ("d_model", "decoder_attention_heads"),
    ):
        size, count = config.get(width), config.get(heads)
        if size and count and size % count and not config.get("head_dim"):
            raise DataError(
                f"{width} must be a multiple of {heads} ({count:,}), and is {size:,}.",
                where=where,
                hint=_HINT,
            )


__all__ = ["MOST_LAYERS", "SIZES", "check_layers", "checked_config"]
