"""danlu's tokenizers as a tokenizer.json, with which the library tokenizers gives the same tokens.

danlu's tokenizer       in the file
bytes                   BPE without merges: one token for each byte
bpe                     BPE
characters              WordLevel: one token for each character
file                    the file that it was read from, with the file's codes; the rows of the
                        embedding are reordered
transform vocabulary    WordLevel: one token for each word of a list of words
                        (is_split_into_words=True in transformers)

With `lower`, tokens can differ for the few letters whose lower case is several letters (İ). A
tokenizer of the kind words cannot be written: the library has no rule that ends words as danlu
does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from danlu.errors import ArtifactError, MissingExtra
from danlu.terms import BEGINNING, END, FIRST_TOKEN, MASK, PADDING, SPECIAL_TOKENS, UNKNOWN
from danlu.tokenizing.bpe import BytePairs, byte_letters
from danlu.tokenizing.bytes import Bytes
from danlu.tokenizing.characters import Characters
from danlu.tokenizing.tokenizer import Tokenizer
from danlu.tokenizing.tokenizer_file import FileTokenizer

_ROLES = {PADDING: "pad_token", UNKNOWN: "unk_token", MASK: "mask_token"}


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json.

    text    its content
    rows    int64 (V,): for each code of the file, danlu's code of the same token, or -1
    codes   the file's code of each of danlu's special tokens
    names   how the file spells each of danlu's special tokens
    """

    text: str
    rows: np.ndarray
    codes: dict[int, int]
    names: dict[int, str]

    def config(self, context: int, *, encoder: bool = False) -> dict[str, object]:
        """The content of tokenizer_config.json. In a language model the end of a text stands before
        the next one too; an `encoder` has a token for the beginning."""
        roles = {role: self.names[code] for code, role in _ROLES.items() if code in self.names}
        end = self.names[END]
        begin = self.names.get(BEGINNING, end) if encoder else end
        if encoder:
            roles |= {"cls_token": begin, "sep_token": end}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": begin,
            "eos_token": end,
            **roles,
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
            "padding_side": "right",
        }

    @property
    def suppressed_codes(self) -> list[int]:
        """The file's codes of special tokens that danlu never generates: padding, unknown,
        beginning, mask."""
        return sorted(
            self.codes[code] for code in (PADDING, UNKNOWN, BEGINNING, MASK) if code in self.codes
        )


def tokenizer_file(
    tokenizer: Tokenizer, where: str, frame: Sequence[int] = (END,)
) -> TokenizerFile:
    """The tokenizer as a file. Raises ArtifactError for a kind that cannot be written.

    `frame` holds danlu's codes of the special tokens that the file adds to a text: (END,) puts END
    before it, as a language model needs; an encoder has BEGINNING before and END after it, as far
    as it was trained with them."""
    if isinstance(tokenizer, FileTokenizer):
        return _from_file(tokenizer, frame)
    if isinstance(tokenizer, BytePairs):
        file = _parsed(tokenizer.tokenizer_json())
    elif isinstance(tokenizer, Bytes):
        file = _of_bytes()
    elif isinstance(tokenizer, Characters):
        file = _of_characters(tokenizer.alphabet)
    else:
        raise ArtifactError(
            f"a tokenizer of {tokenizer.kind} cannot be written as a tokenizer.json.",
            where=where,
            hint="train with bpe, characters or bytes "
            "(data.transforms.text: [{name: tokenize, kind: bpe}])",
        )
    if tokenizer.lower:
        file.normalizer = _library().normalizers.Lowercase()
    own: dict[int, str] = dict(enumerate(SPECIAL_TOKENS))
    file.add_special_tokens(list(SPECIAL_TOKENS))
    _frame(file, frame, own, {code: code for code in own})
    return TokenizerFile(
        file.to_str(), np.arange(tokenizer.size), {code: code for code in own}, own
    )


def word_tokenizer_file(words: Sequence[str], lower: bool, digits: bool) -> TokenizerFile:
    """The words of the transform vocabulary as a file. With `lower` the file lower-cases words,
    with `digits` it turns every digit into 0, as the transform does."""
    tokenizers = _library()
    normalizers = tokenizers.normalizers
    file = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {name: code for code, name in enumerate((*SPECIAL_TOKENS, *words))},
            unk_token=SPECIAL_TOKENS[UNKNOWN],
        )
    )
    steps = [
        *([normalizers.Lowercase()] if lower else []),
        *([normalizers.Replace(tokenizers.Regex(r"[\p{Nd}\p{No}]"), "0")] if digits else []),
    ]
    if steps:
        file.normalizer = normalizers.Sequence(steps)
    file.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    own: dict[int, str] = dict(enumerate(SPECIAL_TOKENS))
    file.add_special_tokens(list(SPECIAL_TOKENS))
    return TokenizerFile(
        file.to_str(), np.arange(FIRST_TOKEN + len(words)), {code: code for code in own}, own
    )


def _from_file(tokenizer: FileTokenizer, frame: Sequence[int]) -> TokenizerFile:
    file = _parsed(tokenizer.text)
    rows = tokenizer.codes
    codes = {
        code: int(own)
        for code, own in enumerate(tokenizer.file_codes[:FIRST_TOKEN].tolist())
        if own >= 0
    }
    if END not in codes:  # a file without an end of text gets one, after all others
        file.add_special_tokens([SPECIAL_TOKENS[END]])
        codes[END] = file.token_to_id(SPECIAL_TOKENS[END])
        rows = np.append(rows, np.full(codes[END] + 1 - len(rows), -1))
        rows[codes[END]] = END
    names = {code: file.id_to_token(own) for code, own in codes.items()}
    file.no_padding()
    file.no_truncation()
    _frame(file, frame, names, codes)
    return TokenizerFile(file.to_str(), rows, codes, names)


def _of_bytes() -> Any:
    tokenizers = _library()
    vocabulary = {name: code for code, name in enumerate(SPECIAL_TOKENS)}
    vocabulary |= {letter: FIRST_TOKEN + value for value, letter in enumerate(byte_letters())}
    file = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    file.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    file.decoder = tokenizers.decoders.ByteLevel()
    return file


def _of_characters(alphabet: str) -> Any:
    tokenizers = _library()
    vocabulary = {name: code for code, name in enumerate((*SPECIAL_TOKENS, *alphabet))}
    file = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN])
    )
    file.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    file.decoder = tokenizers.decoders.Fuse()
    return file


def _frame(
    file: Any, frame: Sequence[int], names: Mapping[int, str], codes: Mapping[int, int]
) -> None:
    """Let the file add special tokens to a text: END before it where `frame` is (END,), else those
    of BEGINNING before it and END after it that `frame` holds. add_special_tokens=False in
    transformers leaves them out."""
    if not frame:
        file.post_processor = None
        return
    before = [names[code] for code in frame if code == BEGINNING or frame == (END,)]
    after = [names[code] for code in frame if code == END and frame != (END,)]
    single, pair = (
        " ".join([*before, "$A", *after]),
        " ".join([*before, "$A", *after, "$B", *after]),
    )
    added = [(names[code], codes[code]) for code in frame]
    file.post_processor = _library().processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=added
    )


def _parsed(text: str) -> Any:
    json.loads(text)
    return _library().Tokenizer.from_str(text)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("the library tokenizers", "text", "a tokenizer.json") from None
    return tokenizers
