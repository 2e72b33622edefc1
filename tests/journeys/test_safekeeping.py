"""Artifacts encrypted and signed at rest: with the key everything works and gives the same bits, without it one sentence says what to give."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import danlu
from danlu.errors import ArtifactError, DataError
from danlu.system import encryption, signing

pytest.importorskip("cryptography", reason="pip install 'danlu[crypto]'")

RECIPE = """
task: classification
data: {source: {name: sklearn, set: iris}, target: target}
model: {name: mlp, hidden: [8]}
train: {steps: 12, batch_size: 16}
"""
ROWS = [
    {
        "sepal length (cm)": 5.1,
        "sepal width (cm)": 3.5,
        "petal length (cm)": 1.4,
        "petal width (cm)": 0.2,
    }
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact, a key file, another one, and a passphrase file."""
    home = tmp_path_factory.mktemp("kept")
    (home / "iris.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANLU_CACHE", str(home / "cache"))
        patch.chdir(home)
        danlu.train("iris.yaml")
    shutil.copytree(home / "runs" / "iris" / "artifact", home / "artifact")
    encryption.new_key(home / "key")
    encryption.new_key(home / "other")
    for name, said in (
        ("words", b"correct horse battery\n"),
        ("wrong", b"correct horse cattery\n"),
    ):
        encryption.write_secret(home / name, said)
    signing.new_signing_key(home / "signer")
    signing.new_signing_key(home / "stranger")
    return home


@pytest.fixture(autouse=True)
def no_key() -> Iterator[None]:
    """No test leaves a key in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DANLU_KEY_FILE", "DANLU_PASSPHRASE_FILE"):
            patch.setenv(name, "")
        yield


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy of the artifact, encrypted with the key file."""
    shutil.copytree(plain / "artifact", tmp_path / "artifact")
    return danlu.encrypt(tmp_path / "artifact", key_file=plain / "key")


def message(folder: Path) -> str:
    with pytest.raises(ArtifactError) as found:
        danlu.load(folder)
    assert "\n" not in found.value.problem.message
    return str(found.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_encrypted_artifact_answers_as_the_plain_one_to_the_last_bit(
    plain: Path, folder: Path
) -> None:
    want = danlu.load(plain / "artifact").predict(ROWS)
    with encryption.use_key(key_file=plain / "key"):
        assert danlu.load(folder).predict(ROWS) == want
    danlu.decrypt(folder, key_file=plain / "key")
    assert contents(folder) == contents(plain / "artifact")


def test_nothing_of_the_plain_text_can_be_seen(plain: Path, folder: Path) -> None:
    words = [b"petal", b"mlp", b"weight", b"safetensors", b"classification"]
    assert all(
        any(word in data for data in contents(plain / "artifact").values()) for word in words[:3]
    )
    for name, data in contents(folder).items():
        assert not any(word in data.replace(name.encode(), b"") for word in words)


def test_two_encryptions_of_one_artifact_have_nothing_in_common(
    plain: Path, folder: Path, tmp_path: Path
) -> None:
    other = danlu.encrypt(plain / "artifact", tmp_path / "again", key_file=plain / "key")
    for name, data in contents(folder).items():
        again = contents(other)[name]
        assert len(again) == len(data)
        assert (
            sum(a == b for a, b in zip(again[-64:], data[-64:])) < 16
        )  # one byte in 256 by chance


def test_a_passphrase_is_as_good_as_a_key(plain: Path, tmp_path: Path) -> None:
    found = danlu.encrypt(
        plain / "artifact", tmp_path / "artifact", passphrase_file=plain / "words"
    )
    with encryption.use_key(passphrase_file=plain / "words"):
        assert danlu.load(found).predict(ROWS) == danlu.load(plain / "artifact").predict(ROWS)
    with encryption.use_key(passphrase_file=plain / "wrong"):
        assert "the passphrase does not fit" in message(found)
    with encryption.use_key(key_file=plain / "key"):
        assert "was encrypted with a passphrase" in message(found)


def test_without_a_key_or_with_another_the_message_says_what_to_give(
    plain: Path, folder: Path
) -> None:
    assert "is encrypted, and no key was given" in message(folder)
    assert "--key-file" in message(folder)
    with encryption.use_key(key_file=plain / "other"):
        assert "the key does not fit" in message(folder)
    with encryption.use_key(passphrase_file=plain / "words"):
        assert "was encrypted with a key file" in message(folder)


def test_the_environment_names_the_key_too(
    plain: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_KEY_FILE", str(plain / "key"))
    assert danlu.load(folder).predict(ROWS)
    monkeypatch.setenv("DANLU_PASSPHRASE_FILE", str(plain / "words"))
    with pytest.raises(DataError, match="both a key file and a passphrase file"):
        danlu.load(folder)


def test_a_bit_flipped_anywhere_is_noticed(plain: Path, folder: Path) -> None:
    with encryption.use_key(key_file=plain / "key"):
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            for place in {
                *range(0, 320, 7),
                *range(0, len(data), max(1, len(data) // 60)),
                len(data) - 1,
            }:
                if place >= len(data):
                    continue
                changed = bytearray(data)
                changed[place] ^= 1 << (place % 8)
                path.write_bytes(changed)
                message(folder)
            path.write_bytes(data)
        assert danlu.load(folder).predict(ROWS)


def test_a_file_cut_off_or_lengthened_is_noticed(plain: Path, folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = path.read_bytes()
    with encryption.use_key(key_file=plain / "key"):
        for changed in (
            data[:-1],
            data[:-16],
            data[: len(data) // 2],
            data[:20],
            data[:9],
            data + b"\0",
            data + data[-40:],
        ):
            path.write_bytes(changed)
            assert "damaged" in message(folder)


def test_files_that_change_places_and_files_of_another_folder_are_noticed(
    plain: Path, folder: Path, tmp_path: Path
) -> None:
    with encryption.use_key(key_file=plain / "key"):
        one, other = folder / "weights.safetensors", folder / "preprocessing.safetensors"
        held = one.read_bytes()
        one.write_bytes(other.read_bytes())
        assert "and has another name now" in message(folder)
        one.write_bytes(held)
        again = danlu.encrypt(plain / "artifact", tmp_path / "again")
        shutil.copy(again / "weights.safetensors", one)
        with pytest.raises(ArtifactError, match="not encrypted together"):
            danlu.decrypt(folder)
        one.write_bytes((plain / "artifact" / one.name).read_bytes())
        with pytest.raises(ArtifactError, match="is not encrypted, and others"):
            danlu.decrypt(folder)


def test_pieces_that_change_places_or_are_missing_are_noticed(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encryption, "PIECE", 64)
    key = encryption.read_key(plain / "key", None)
    assert key is not None
    data = os.urandom(64 * 3 + 10)
    closed = encryption.EncryptedFolder.new(key).encrypt_file("a/b.bin", data, key)
    header = encryption.read_header("", closed)
    path, step = Path("somewhere/a/b.bin"), 64 + 16
    with encryption.override_key(key):
        assert encryption.decrypt_file(path, closed) == data
        pieces = [closed[at : at + step] for at in range(header.end, len(closed), step)]
        swapped = closed[: header.end] + b"".join([pieces[1], pieces[0], *pieces[2:]])
        with pytest.raises(ArtifactError, match="piece 1 of 4"):
            encryption.decrypt_file(path, swapped)
        with pytest.raises(ArtifactError, match="cut off"):
            encryption.decrypt_file(path, closed[: header.end] + b"".join(pieces[:3]))
        shorter = closed.replace(
            b'"size":202', b'"size":192'
        )  # of three pieces, none of which says that it is the last
        with pytest.raises(ArtifactError, match="was changed"):
            encryption.decrypt_file(path, shorter[: header.end] + b"".join(pieces[:3]))


@pytest.mark.parametrize(
    "cost", ['"n":1073741824', '"n":131071', '"n":true', '"n":-1', '"n":1e9', '"n":2']
)
def test_a_cost_that_is_declared_is_believed_within_bounds_only(
    plain: Path, tmp_path: Path, cost: str
) -> None:
    found = danlu.encrypt(
        plain / "artifact", tmp_path / "artifact", passphrase_file=plain / "words"
    )
    path = found / "artifact.json"
    data = path.read_bytes()
    size = int.from_bytes(data[8:12], "big")
    header = data[12 : 12 + size].replace(b'"n":131072', cost.encode())
    path.write_bytes(data[:8] + len(header).to_bytes(4, "big") + header + data[12 + size :])
    with encryption.use_key(passphrase_file=plain / "words"):
        assert "cost of scrypt" in message(found)


def test_what_cannot_be_encrypted_is_refused_and_left_as_it_was(
    plain: Path, folder: Path, tmp_path: Path
) -> None:
    before = contents(folder)
    with pytest.raises(ArtifactError, match="encrypted already"):
        danlu.encrypt(folder, key_file=plain / "key")
    with pytest.raises(DataError, match="no key is given"):
        danlu.encrypt(plain / "artifact")
    with pytest.raises(ArtifactError, match="does not fit"):
        danlu.decrypt(folder, key_file=plain / "other")
    with pytest.raises(ArtifactError, match="not encrypted"):
        danlu.decrypt(plain / "artifact", key_file=plain / "key")
    with pytest.raises(DataError, match="of this name"):
        danlu.decrypt(folder, plain / "artifact", key_file=plain / "key")
    with pytest.raises(DataError, match="not overwritten"):
        encryption.new_key(plain / "key")
    (folder / "link").symlink_to(plain / "key")
    with pytest.raises(ArtifactError, match="a link or a device"):
        danlu.decrypt(folder, key_file=plain / "key")
    (folder / "link").unlink()
    assert contents(folder) == before


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_secret_that_everybody_may_read_is_refused(plain: Path, tmp_path: Path) -> None:
    assert (plain / "key").stat().st_mode & 0o777 == 0o600
    shutil.copy(plain / "key", tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(DataError, match="every user of this machine"):
        encryption.use_key(key_file=tmp_path / "key")


def test_a_signature_holds_for_the_plain_and_for_the_encrypted_folder(
    plain: Path, folder: Path
) -> None:
    danlu.decrypt(folder, key_file=plain / "key")
    danlu.sign(folder, plain / "signer")
    assert danlu.verify_signature(folder, plain / "signer.pub").files == 4
    with encryption.use_key(key_file=plain / "key"):
        danlu.encrypt(folder)
        assert danlu.verify_signature(folder, plain / "signer.pub").files == 4
        assert danlu.load(folder).predict(ROWS)
        danlu.sign(folder, plain / "stranger")
        with pytest.raises(ArtifactError, match="somebody else signed it"):
            danlu.verify_signature(folder, plain / "signer.pub")
    with pytest.raises(ArtifactError, match="no key was given"):
        danlu.verify_signature(folder, plain / "signer.pub")


def test_what_was_changed_after_it_was_signed_is_named(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain / "artifact", tmp_path / "artifact"))
    with pytest.raises(ArtifactError, match="not signed"):
        danlu.verify_signature(folder, plain / "signer.pub")
    said = danlu.sign(folder, plain / "signer")
    (folder / "recipe.lock.yaml").write_text("changed")
    with pytest.raises(ArtifactError, match=r"recipe.lock.yaml: this file is not the one"):
        danlu.verify_signature(folder, plain / "signer.pub")
    (folder / "recipe.lock.yaml").unlink()
    with pytest.raises(ArtifactError, match=r"recipe.lock.yaml: a file that was signed is missing"):
        danlu.verify_signature(folder, plain / "signer.pub")
    shutil.copy(plain / "artifact" / "recipe.lock.yaml", folder)
    (folder / "more").write_text("x")
    with pytest.raises(ArtifactError, match=r"more: this file was added"):
        danlu.verify_signature(folder, plain / "signer.pub")
    (folder / "more").unlink()
    about = json.loads(said.read_text())
    about["files"]["weights.safetensors"]["size"] += 1
    said.write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match="does not belong to this list"):
        danlu.verify_signature(folder, plain / "signer.pub")
    for broken in ("{", "[]", "{}", '{"files":1}', "[" * 100_000):
        said.write_text(broken)
        with pytest.raises(ArtifactError, match="signature is damaged"):
            danlu.verify_signature(folder, plain / "signer.pub")
    with pytest.raises(DataError, match="not a public Ed25519 key"):
        danlu.verify_signature(folder, plain / "signer")
    with pytest.raises(DataError, match="not a private Ed25519 key"):
        danlu.sign(folder, plain / "words")


def command(words: str, home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from danlu.cli.app import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("DANLU_CACHE", str(home / "cache"))
        for name in ("DANLU_KEY_FILE", "DANLU_PASSPHRASE_FILE"):
            patch.setenv(name, "")
        patch.setattr(sys, "argv", ["danlu", *words.split()])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verbs_read_what_is_encrypted_with_the_key(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(plain / "runs", tmp_path / "runs")
    shutil.copy(plain / "iris.yaml", tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")

    def told(words: str, code: int = 0) -> tuple[str, str]:
        found, out, err = command(words, tmp_path, capsys)
        assert found == code, (words, out, err)
        assert "Traceback" not in err
        return out, err

    before = [
        told(words)[0] for words in ("predict runs/iris rows.jsonl", "evaluate runs/iris --json")
    ]
    assert told("encrypt --new-key key")[0] == "key\n"
    assert "checkpoints of this run" in told("encrypt runs/iris --key-file key")[1]
    after = [
        told(f"{words} --key-file key")[0]
        for words in ("predict runs/iris rows.jsonl", "evaluate runs/iris --json")
    ]
    assert after == before
    assert "no key was given" in told("predict runs/iris rows.jsonl", 4)[1]
    assert (
        "both a key file and a passphrase file"
        in told("predict runs/iris rows.jsonl --key-file key --passphrase-file key", 2)[1]
    )
    told("sign --new-key me")
    assert "no key to sign with" in told("sign runs/iris", 2)[1]
    told("sign runs/iris --signing-key me --key-file key")
    assert (
        "4 files are as key"
        in told("verify-signature runs/iris --public-key me.pub --key-file key")[0]
    )
    told("decrypt runs/iris --key-file key")
    assert told("predict runs/iris rows.jsonl")[0] == before[0]


def test_an_encrypted_export_is_verified_and_answers_with_the_key(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="pip install 'danlu[onnx]'")
    with_key = f"--key-file {plain / 'key'}"
    assert (
        command(f"export {plain / 'runs' / 'iris'} --to onnx --out graph", tmp_path, capsys)[0] == 0
    )
    before = danlu.open_export(tmp_path / "graph").predict(ROWS)
    assert command(f"encrypt graph {with_key}", tmp_path, capsys)[0] == 0
    assert b"sepal" not in (tmp_path / "graph" / "model.onnx").read_bytes()
    code, _, said = command(f"verify graph --against {plain / 'runs' / 'iris'}", tmp_path, capsys)
    assert code == 4 and "no key was given" in said
    code, out, said = command(
        f"verify graph --against {plain / 'runs' / 'iris'} {with_key}", tmp_path, capsys
    )
    assert code == 0 and "30 rows compared" in out, said
    with encryption.use_key(key_file=plain / "key"):
        assert danlu.open_export(tmp_path / "graph").predict(ROWS) == before


WRITER = """
task: {name: language_modeling, context: 8, samples: 0}
data: {source: {name: text, path: text.txt}, transforms: {text: [{name: tokenize, kind: bytes}]}}
model: {name: gpt, size: tiny, width: 16}
train: {steps: 2, batch_size: 2}
"""


def test_a_model_goes_on_from_encrypted_weights(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("And the moon was bright.\n" * 40)
    (tmp_path / "writer.yaml").write_text(WRITER)
    danlu.train("writer.yaml")
    text = danlu.generate("runs/writer", "And", max_tokens=9)
    danlu.encrypt("runs/writer", "closed", key_file=plain / "key")
    on = danlu.read_recipe("writer.yaml", ["model.weights=closed", "name=on"])
    with pytest.raises(ArtifactError, match="no key was given"):
        danlu.train(on)
    with encryption.use_key(key_file=plain / "key"):
        assert danlu.generate("closed", "And", max_tokens=9) == text
        assert danlu.train(on).provenance
