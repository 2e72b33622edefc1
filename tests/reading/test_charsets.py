"""Which encoding a file is in: marks, zeros, UTF-8, and the older encodings by their characters."""

from __future__ import annotations

import codecs

import pytest
from pydantic import TypeAdapter, ValidationError

from danlu.errors import DataError
from danlu.reading.charsets import Encoding, declared_encoding, decode_text, guess_encoding

CHINESE = "名称,城市\n炼丹炉,北京市朝阳区\n深度学习框架,上海市浦东新区\n训练模型的火候,广州\n" * 4
RUSSIAN = "имя,город\nПривет мир,Москва\nнейронная сеть,Санкт-Петербург\n" * 4
FRENCH = "nom,ville\nréseau entraîné,Orléans\ngarçon très âgé,Besançon\n" * 4
JAPANESE = "なまえ,まち\nこれはニューラルネットワークです,とうきょう\nきょうはさむい,おおさか\n" * 4


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(CHINESE, "gb18030"), (RUSSIAN, "cp1251"), (FRENCH, "cp1252"), (JAPANESE, "cp932")],
)
def test_an_old_encoding_is_recognised_by_its_characters(text: str, encoding: str) -> None:
    decoded = decode_text(text.encode(encoding), "a.csv")
    assert (decoded.encoding, decoded.content.decode()) == (encoding, text)
    assert f"the characters fit {encoding} best" in decoded.reason


@pytest.mark.parametrize(
    "encoding",
    ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
def test_unicode_is_recognised_with_and_without_a_mark(encoding: str) -> None:
    text = "name,city\nfurnace,Orléans\n" * 8
    assert decode_text(text.encode(encoding), "a.csv").content.decode() == text


def test_plain_utf_8_needs_no_reason() -> None:
    decoded = decode_text(CHINESE.encode(), "a.csv")
    assert (decoded.encoding, decoded.reason) == ("utf-8", "")


def test_a_mark_is_cut_off_also_where_the_recipe_names_the_encoding() -> None:
    head = codecs.BOM_UTF16_BE + "ab".encode("utf-16-be")
    assert declared_encoding(head, "utf-16") == ("utf-16-be", 2, "the recipe says so")
    assert decode_text(head, "a.csv", "utf-16").content == b"ab"


def test_bytes_that_the_named_encoding_does_not_allow_are_named_by_line() -> None:
    with pytest.raises(DataError, match=r"a\.csv: line 2 \(byte 4: e9 62\) is not utf-8"):
        decode_text(b"ab\n\xe9b", "a.csv", "utf-8")


def test_where_two_encodings_are_too_close_none_is_guessed() -> None:
    with pytest.raises(DataError, match=r"line 1 .*not UTF-8.*\n.*data\.source\.encoding"):
        guess_encoding(b"x\xa4y", 1, "a.csv")


@pytest.mark.parametrize("name", ["klingon", "hex", "idna", "undefined"])
def test_an_encoding_that_is_none_is_refused_in_the_recipe(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Encoding).validate_python(name)
    assert TypeAdapter(Encoding).validate_python("GBK") == "GBK"
