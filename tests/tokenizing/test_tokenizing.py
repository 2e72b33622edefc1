"""Text becomes codes and codes become text, whatever the text spells and however it is cut into blocks."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from danlu import tokenizing
from danlu.errors import DataError, MissingExtra
from danlu.terms import BEGINNING, END, FIRST_TOKEN, MASK, PADDING, SPECIAL_TOKENS, UNKNOWN, Column
from danlu.tokenizing import bpe, pretokenize
from danlu.tokenizing import tokenizer_file as given_module
from danlu.tokenizing.bpe import BytePairs
from danlu.tokenizing.tokenizer import Tokenizer, as_column
from danlu.tokenizing.tokenizer_file import FileTokenizer

TEXTS = [
    "It's a test: don't stop!  Well-known 3.14\n\nand\tmore   spaces ",
    "道生一，一生二；二生三。三生萬物！（2023年）",
    "",
    "Mixed 中文English混合，ÀÉÎ ß İ ﬁ 👍🏽 \u0301x a\u0301b",
    "<pad> <unk> <s> </s> <mask> <|endoftext|>",
    "\r\n\r\n \u3000全角　空格 \x85\u2028 \x1c",
    "word " * 30 + "词" * 30,
]
KINDS = [kind for kind in tokenizing.KINDS if kind != "file"]


def column(*texts: str) -> Column:
    return as_column(texts)


def fitted(kind: str, *texts: str, size: int | None = None, lower: bool = False) -> Tokenizer:
    return tokenizing.fit(kind, column(*(texts or TEXTS)), size, lower, min_count=1)  # type: ignore[arg-type]


def rows(tokenizer: Tokenizer, texts: object) -> list[list[int]]:
    codes, offsets = tokenizer.encode(texts)  # type: ignore[arg-type]
    return [codes[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


# --- what all kinds promise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_tokenizer_gives_the_same_codes(kind: str, lower: bool) -> None:
    tokenizer = fitted(kind, lower=lower)
    state = tokenizer.state()
    again = tokenizing.restore(json.loads(json.dumps(state, allow_nan=False)))
    assert again.size == tokenizer.size and again.state() == state
    assert rows(again, TEXTS) == rows(tokenizer, TEXTS)
    lengths, other = tokenizer.byte_lengths, again.byte_lengths
    assert (lengths is None) == (other is None) and (lengths is None or (lengths == other).all())


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_of_the_smallest_type_and_never_danlus_own(kind: str) -> None:
    tokenizer = fitted(kind)
    codes, offsets = tokenizer.encode([*TEXTS, *SPECIAL_TOKENS, "never seen ☃"])
    assert codes.dtype == np.uint16 and offsets.dtype == np.int64 and len(offsets) == len(TEXTS) + 7
    assert not np.isin(codes, [PADDING, BEGINNING, END, MASK]).any(), (
        "no text may spell a special token"
    )
    assert codes.max() < tokenizer.size
    assert ((codes >= FIRST_TOKEN) | (codes == UNKNOWN)).all()


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_text_comes_back_as_it_was(kind: str) -> None:
    tokenizer = fitted(kind)
    for text, codes in zip(TEXTS, rows(tokenizer, TEXTS), strict=True):
        assert tokenizer.decode(codes) == text
        assert tokenizer.decode_bytes(codes) == text.encode()
        assert tokenizer.byte_lengths is not None
        assert tokenizer.byte_lengths[codes].sum() == len(text.encode())


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@settings(deadline=None, max_examples=60)
@given(text=st.text())
def test_no_text_is_lost_to_bytes_and_byte_pairs(kind: str, text: str) -> None:
    tokenizer = _SHARED.setdefault(kind, fitted(kind))
    assert tokenizer.decode(rows(tokenizer, [text])[0]) == text.encode("utf-8", "replace").decode()


_SHARED: dict[str, Tokenizer] = {}


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("block", [1, 3, 50, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_do_not_depend_on_how_text_is_cut_into_blocks(
    kind: str, block: int, lower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*TEXTS, "".join(TEXTS), "\n".join(TEXTS * 3)]
    tokenizer = fitted(kind, lower=lower)
    whole = rows(tokenizer, texts)
    monkeypatch.setattr(type(tokenizer), "block", block)
    monkeypatch.setattr(bpe, "_PIECE", max(block, 5))
    assert rows(tokenizer, texts) == whole
    assert [rows(tokenizer, [text])[0] for text in texts] == whole
    if kind != "bpe":
        assert fitted(kind, *texts, lower=lower).state() == _fitted_in_one(
            kind, texts, lower, monkeypatch
        )


def _fitted_in_one(
    kind: str, texts: list[str], lower: bool, monkeypatch: pytest.MonkeyPatch
) -> object:
    tokenizer = fitted(kind, lower=lower)
    monkeypatch.setattr(type(tokenizer), "block", 1 << 22)
    return fitted(kind, *texts, lower=lower).state()


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_empty_rows_have_no_code(kind: str) -> None:
    tokenizer = fitted(kind)
    plain = column("ab", "", "cd")
    lost = Column(
        "x", "text", plain.values, offsets=plain.offsets, missing=np.array([True, False, False])
    )
    assert [len(each) > 0 for each in rows(tokenizer, lost)] == [False, False, True]
    assert rows(tokenizer, []) == []
    assert rows(tokenizer, [""]) == [[]]


@pytest.mark.parametrize("kind", KINDS)
def test_lower_case_is_read_alike(kind: str) -> None:
    tokenizer = fitted(kind, lower=True)
    shouted, spoken = rows(tokenizer, ["STRASSE ÉTÉ ⱯΣ", "strasse été ɐσ"])
    assert shouted == spoken


def test_bytes_that_are_no_text_are_mended_or_kept() -> None:
    assert fitted("bytes").decode_bytes(rows(fitted("bytes"), [b"a\xff"])[0]) == b"a\xff"
    assert (
        fitted("characters", "a\ufffd").decode(rows(fitted("characters", "a\ufffd"), [b"a\xff"])[0])
        == "a\ufffd"
    )
    assert fitted("bpe").decode(rows(fitted("bpe"), ["a\ud800"])[0]) == "a?"


def test_half_a_character_is_told_apart_as_bytes() -> None:
    tokenizer = fitted("bytes")
    codes = rows(tokenizer, ["好"])[0]
    assert (
        tokenizer.decode(codes[:2]) == "\ufffd"
        and tokenizer.decode_bytes(codes[:2]) == "好".encode()[:2]
    )


def test_more_than_65536_codes_are_uint32() -> None:
    alphabet = "".join(map(chr, [*range(32, 0xD800), *range(0x10000, 0x14000)]))
    tokenizer = fitted("characters", alphabet)
    codes, _ = tokenizer.encode([alphabet])
    assert (
        tokenizer.size > 1 << 16
        and codes.dtype == np.uint32
        and tokenizer.decode(codes) == alphabet
    )


# --- characters and words -----------------------------------------------------------------------------------------------------


def test_rare_characters_are_unknown() -> None:
    tokenizer = tokenizing.fit("characters", column("aaab", "aac你"), min_count=2)
    assert tokenizer.state()["alphabet"] == "a"
    assert rows(tokenizer, ["ab你"]) == [[FIRST_TOKEN, UNKNOWN, UNKNOWN]]
    assert tokenizer.decode([FIRST_TOKEN, UNKNOWN, END, PADDING]) == "a\ufffd"
    assert (
        tokenizing.fit("characters", column("cabbcc"), size=FIRST_TOKEN + 2).state()["alphabet"]
        == "bc"
    )


def words(text: str, lower: bool = False) -> list[str]:
    tokenizer = fitted("words", text, lower=lower)
    vocabulary = tokenizer.state()["vocabulary"]
    return [vocabulary[code - FIRST_TOKEN] for code in rows(tokenizer, [text])[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's a well-known fact.", ["It's", "a", "well", "-", "known", "fact", "."]),
        ("don’t 'quote' n't", ["don’t", "'", "quote", "'", "n't"]),
        ("味道 很好!!", ["味", "道", "很", "好", "!", "!"]),
        ("a中b 3.14€", ["a", "中", "b", "3", ".", "14", "€"]),
        ("cafe\u0301 ΑΒγ 👍 x", ["cafe\u0301", "ΑΒγ", "👍", "x"]),
        ("' 'a' '", ["'", "'", "a", "'", "'"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_words_are_runs_of_letters_chinese_characters_and_marks(
    text: str, expected: list[str]
) -> None:
    assert words(text) == expected


def test_words_end_with_their_row() -> None:
    tokenizer = fitted("words", "ab c", "a", "b")
    vocabulary = tokenizer.state()["vocabulary"]
    found = [
        [vocabulary[code - FIRST_TOKEN] for code in each]
        for each in rows(tokenizer, ["a", "b", "c", "ab"])
    ]
    assert found == [["a"], ["b"], ["c"], ["ab"]]
    assert rows(fitted("words", "a", "'", "a'a"), ["a", "'", "a"]) == rows(
        fitted("words", "a", "'", "a'a"), ["a", "'", "a"]
    )
    apart = fitted("words", "a", "'", "b", "a'b")
    assert len(np.concatenate(rows(apart, ["a", "'", "b"]))) == 3, (
        "an apostrophe does not join rows"
    )


def test_words_are_counted_and_the_commonest_come_first() -> None:
    tokenizer = tokenizing.fit("words", column("b a b c", "a b d"), min_count=2)
    assert tokenizer.state()["vocabulary"] == ["b", "a"]
    assert tokenizing.fit("words", column("b a b c", "a b d"), size=FIRST_TOKEN + 1).state()[
        "vocabulary"
    ] == ["b"]
    assert rows(tokenizer, ["d b"]) == [[UNKNOWN, FIRST_TOKEN]]


def test_words_are_joined_as_they_are_written() -> None:
    text = "Well, that's (almost) done: 好吃，3 个人。Yes!"
    tokenizer = fitted("words", text)
    assert (
        tokenizer.decode(rows(tokenizer, [text])[0])
        == "Well, that's (almost) done:好吃，3个人。Yes!"
    )
    assert tokenizer.decode([]) == "" and tokenizer.byte_lengths is None


# --- byte pairs ------------------------------------------------------------------------------------------------------------------

DRAW = np.random.default_rng(0)
# Many pairs are seen equally often: which is joined first must not be left to chance.
EVEN = [
    " ".join("".join(DRAW.choice(list("abcdefgh你好"), 5)) for _ in range(8)) for _ in range(60)
]
CORPUS = [f"the cat number {n} sat on mat 第{n}回，猫坐在垫子上。" for n in range(300)]


def test_byte_pairs_are_the_same_each_time_whatever_the_threads_and_the_order() -> None:
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import test_tokenizing as t\n"
        "print(json.dumps(t.tokenizing.fit('bpe', t.column(*t.EVEN), 900).state()))"
    )
    states = []
    for threads in ("1", "4"):
        environment = {"RAYON_NUM_THREADS": threads, "PATH": "", "OMP_NUM_THREADS": "1"}
        made = subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        states.append(json.loads(made.stdout))
    here = tokenizing.fit("bpe", column(*reversed(EVEN)), 900).state()
    assert states[0] == states[1] == here and len(here["merges"]) > 150


def test_byte_pairs_do_not_join_digits_punctuation_or_scripts() -> None:
    tokenizer = fitted("bpe", *["2023，好好！好好！iPhone手机 well-known\n\n" * 50], size=2000)
    pieces = {tokenizer.decode([code]) for code in range(FIRST_TOKEN, tokenizer.size)}
    assert {"iPhone", "手机", "好好"} <= pieces
    for piece in pieces:
        assert sum(letter.isdigit() for letter in piece) <= 1
        assert not ("，" in piece and len(piece) > 1) and not ("-" in piece and len(piece) > 1)
        assert not (piece.isalnum() and any(map(str.isascii, piece)) and not piece.isascii())


SIGNS = st.text(
    st.sampled_from("aé中好あ한1٣〇。，'-.  \u3000\n\r\t\x85\x1c👍\u0301\u0600\U00020000"),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@example(texts=["〇〇", "〇一", "〡 〇1", "　〇"])
@given(texts=st.lists(SIGNS | st.text(max_size=20), min_size=1, max_size=8))
def test_parts_found_by_array_operations_are_those_of_the_regular_expression(
    texts: list[str],
) -> None:
    from tokenizers import Regex, pre_tokenizers

    made = column(*texts)
    assert made.offsets is not None
    good, kind, ends = pretokenize.classify(made.values, made.offsets)
    starts = pretokenize.pretoken_starts(made.values, kind, ends)
    split = pre_tokenizers.Split(Regex(pretokenize.PRETOKEN_PATTERN), "isolated")
    for row, text in enumerate(made.text(row) or "" for row in range(len(made))):
        if good[row]:
            expected = np.zeros(len(text), dtype=bool)
            expected[[start for _, (start, _) in split.pre_tokenize_str(text)]] = True
            assert starts[ends[row] : ends[row + 1]].tolist() == expected.tolist(), ascii(text)


def test_every_character_that_array_operations_are_sure_of_is_of_the_class_of_the_regular_expression() -> (
    None
):
    from tokenizers import Regex, pre_tokenizers

    known = np.flatnonzero(pretokenize._class_of())
    letters = [
        chr(code)
        for code in known.tolist()
        if code in (0x3400, 0x4DB5, 0x4E00, 0x9FA5, 0xAC00, 0xD7A3) or not 0x3400 <= code < 0xD800
    ]
    made = column(
        *(f"a{each}中{each}1{each}.{each} {each}\n{each}{each}é {each}" for each in letters)
    )
    assert made.offsets is not None and len(letters) > 5000
    good, kind, ends = pretokenize.classify(made.values, made.offsets)
    starts = pretokenize.pretoken_starts(made.values, kind, ends)
    split = pre_tokenizers.Split(Regex(pretokenize.PRETOKEN_PATTERN), "isolated")
    assert good.all()
    for row, letter in enumerate(letters):
        expected = [start for _, (start, _) in split.pre_tokenize_str(made.text(row) or "")]
        assert np.flatnonzero(starts[ends[row] : ends[row + 1]]).tolist() == expected, ascii(letter)


def test_much_text_gives_the_codes_that_its_rows_give_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [*TEXTS, *CORPUS, "rare 𠀀 letters \u0600", "", "a\n\n b", *TEXTS]
    tokenizer = fitted("bpe", *CORPUS, *TEXTS, size=700)
    whole = rows(tokenizer, texts)
    for together in (1 << 20, 100):
        monkeypatch.setattr(bpe, "_TOGETHER", together)
        monkeypatch.setattr(bpe, "_FEW", 1)
        assert rows(tokenizer, texts) == whole
        monkeypatch.setattr(bpe, "_FEW", 1 << 60)
        assert rows(tokenizer, texts) == whole


def test_byte_pairs_have_the_size_asked_for_and_bytes_for_the_rest() -> None:
    tokenizer = fitted("bpe", *CORPUS, size=bpe.LEAST + 40)
    assert tokenizer.size == bpe.LEAST + 40
    assert fitted("bpe", "", size=5000).size == bpe.LEAST
    assert fitted("bpe", *CORPUS, size=10).size == bpe.LEAST


def test_byte_pairs_are_written_as_a_tokenizer_json_with_the_same_codes() -> None:
    tokenizer = fitted("bpe", *CORPUS, size=700)
    assert isinstance(tokenizer, BytePairs)
    import tokenizers

    peer = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json())
    for text in [*CORPUS[:3], "unseen ☃ text"]:
        assert peer.encode(text, add_special_tokens=False).ids == rows(tokenizer, [text])[0]
    assert [peer.token_to_id(name) for name in SPECIAL_TOKENS] == [
        PADDING,
        UNKNOWN,
        BEGINNING,
        END,
        MASK,
    ]
    assert peer.get_vocab_size() == tokenizer.size


# --- a given tokenizer -------------------------------------------------------------------------------------------------------------


def word_piece(path: Path) -> Path:
    """A tokenizer.json as BERT's: [PAD] 0, [CLS] 101 and so on among its words, codes with gaps
    between."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {
        "[PAD]": 0,
        "[UNK]": 7,
        "the": 8,
        "cat": 9,
        "##s": 12,
        "[CLS]": 20,
        "[SEP]": 21,
        "[MASK]": 22,
        "[extra]": 23,
    }
    made = tokenizers.Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 20), ("[SEP]", 21)]
    )
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[extra]"])
    made.enable_padding(length=50)
    made.enable_truncation(2)
    path.write_text(made.to_str())
    return path


def test_codes_of_a_given_tokenizer_stand_beside_danlus_own_and_can_be_taken_back(
    tmp_path: Path,
) -> None:
    tokenizer = FileTokenizer.read(str(word_piece(tmp_path / "tokenizer.json")))
    assert tokenizer.file_codes.tolist() == [0, 7, 20, 21, 22, 8, 9, 12, 23]
    assert tokenizer.size == 9 and tokenizer.byte_lengths is None
    assert tokenizer.codes[tokenizer.file_codes].tolist() == list(range(9))
    assert tokenizer.codes[[1, 2, 10, 19]].tolist() == [-1] * 4
    codes = rows(tokenizer, ["The cats", "the zebra the cat"])
    assert codes == [[5, 6, 7], [5, UNKNOWN, 5, 6]], "neither padded nor cut nor framed"
    assert tokenizer.decode(codes[0]) == "the cats"
    again = tokenizing.restore(json.loads(json.dumps(tokenizer.state())))
    assert rows(again, ["The cats", ""]) == [[5, 6, 7], []]


def test_text_that_spells_a_special_token_of_a_given_tokenizer_is_text(tmp_path: Path) -> None:
    tokenizer = FileTokenizer.read(str(word_piece(tmp_path / "tokenizer.json")))
    codes = rows(tokenizer, ["the [SEP] cat [PAD] [extra]"])[0]
    assert set(codes) <= {UNKNOWN, 5, 6, 7}
    own = tmp_path / "own.json"
    made = fitted("bpe", *CORPUS, size=600)
    assert isinstance(made, BytePairs)
    own.write_text(made.tokenizer_json())
    again = FileTokenizer.read(str(own))
    assert again.file_codes.tolist() == list(range(made.size)), (
        "danlu's own tokenizer keeps its codes"
    )
    assert rows(again, [*TEXTS, *CORPUS[:4]]) == rows(made, [*TEXTS, *CORPUS[:4]])
    assert [again.decode(each) for each in rows(again, TEXTS)] == TEXTS
    assert (
        again.byte_lengths is not None
        and made.byte_lengths is not None
        and (again.byte_lengths == made.byte_lengths).all()
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no tokenizer"),
        (b"\xff\xfe", "no tokenizer"),
        (b"[]", "no tokenizer"),
        (b"[" * 100_000, "no tokenizer"),
        (b'{"version": "1.0"}', "no tokenizer"),
        (
            b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}, "added_tokens": []}',
            "no tokenizer",
        ),
        (
            b'{"model": {"type": "WordLevel", "vocab": {"a": 4000000000}, "unk_token": "a"}, "added_tokens": []}',
            "no tokenizer",
        ),
        (
            b'{"model": {"type": "WordLevel", "vocab": {}, "unk_token": "a"}, "added_tokens": []}',
            "no tokenizer",
        ),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        tokenizing.fit("file", column("a"), path=str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_module, "LARGEST", 100)
    with pytest.raises(DataError, match="at most 100 are read"):
        FileTokenizer.read(str(word_piece(tmp_path / "tokenizer.json")))
    with pytest.raises(DataError, match="no such file"):
        FileTokenizer.read(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    "state",
    [
        {"kind": "words", "lower": False, "vocabulary": ["a", "a"]},
        {"kind": "words", "lower": False, "vocabulary": ["a", 3]},
        {"kind": "words", "lower": False},
        {"kind": "characters", "lower": False, "alphabet": "aa"},
        {"kind": "characters", "lower": False, "alphabet": "\ud800"},
        {"kind": "characters", "lower": False, "alphabet": ["a"]},
        {"kind": "bpe", "lower": False, "merges": ["a zz"]},
        {"kind": "bpe", "lower": False, "merges": "a b"},
        {"kind": "file", "text": "{}"},
        {"kind": "spells"},
        {},
    ],
)
def test_a_state_that_is_none_is_refused(state: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        tokenizing.restore(state)


@pytest.mark.parametrize("kind", ["bpe", "file"])
def test_without_the_library_the_extra_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = word_piece(tmp_path / "tokenizer.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"danlu\[text\]"):
        tokenizing.fit(kind, column("a"), path=str(path))  # type: ignore[arg-type]


def test_no_kind_imports_the_library_before_it_is_used() -> None:
    script = (
        "import sys\nfrom danlu import tokenizing\nfrom danlu.tokenizing.tokenizer import as_column\n"
        "tokenizing.fit('words', as_column(['a b'])).encode(['a'])\n"
        "print(sorted({'tokenizers', 'torch'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
