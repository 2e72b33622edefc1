"""Encrypt, decrypt, sign and verify artifacts and exports.

    danlu.encrypt("runs/digits", key_file="model.key")      replaces every file of the artifact
    danlu.sign("runs/digits", "signing.key")                writes signature.json beside them
    danlu.verify_signature("runs/digits", "signing.key.pub")

A signature covers the plain contents of the files, so it stays valid when the folder is encrypted
or decrypted. Ed25519 (RFC 8032); danlu.system.encryption describes the format of an encrypted file.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from danlu.errors import ArtifactError, DataError
from danlu.system import encryption
from danlu.system.atomic_files import (
    LARGEST_FILE,
    atomic_folder,
    create_file,
    not_found,
    read_regular,
    recover,
    remove_leftovers,
    replace_file,
    require_inside,
    sha256,
    write_file,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

MANIFESTS = ("artifact.json", "export.json")
SIGNATURE = "signature.json"
_FORMAT = 1
_MOST_FILES = 10_000
_LARGEST_SIGNATURE = 4 << 20


def encrypt(
    path: str | Path,
    out: str | Path | None = None,
    *,
    key_file: str | Path | None = None,
    passphrase_file: str | Path | None = None,
) -> Path:
    """Encrypt every file of an artifact or export, in place or into a new folder; returns the
    folder.

    path             the folder of an artifact or export, or of a run
    out              the new folder (None: the encrypted files replace the plain ones)
    key_file         the key, as danlu.system.encryption.new_key writes it
    passphrase_file  a file whose first line is the passphrase, instead of a key. Without either the
                     current key is used (danlu.system.encryption)

    All files are encrypted or none: what was written is decrypted again and compared first.
    Raises DataError where there is no key, or `out` exists; ArtifactError where the folder is not
    an artifact, or is encrypted already.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> from danlu.system.encryption import new_key
    >>> path = new_key("encrypting.key")
    >>> danlu.encrypt("runs/iris", "runs/iris-encrypted", key_file="encrypting.key").name
    'iris-encrypted'
    """
    folder = find_folder(path)
    key = _required_key(key_file, passphrase_file)
    finished = _finish_interrupted(folder, out)
    files = {name: _read_bytes(folder / name) for name in file_names(folder)}
    if finished and all(encryption.is_encrypted(data) for data in files.values()):
        return folder
    if any(encryption.is_encrypted(data) for data in files.values()):
        raise ArtifactError("it is encrypted already.", where=str(folder))
    shared = encryption.EncryptedFolder.new(key)
    with encryption.override_key(key):
        return _write_folder(
            folder,
            out,
            {name: shared.encrypt_file(name, data, key) for name, data in files.items()},
            files,
        )


def decrypt(
    path: str | Path,
    out: str | Path | None = None,
    *,
    key_file: str | Path | None = None,
    passphrase_file: str | Path | None = None,
) -> Path:
    """Decrypt an artifact or export, in place or into a new folder; returns the folder.

    The arguments are those of `encrypt`. Raises DataError where there is no key, or `out` exists;
    ArtifactError where the key does not fit, a file was changed, or some files were not encrypted
    together with the others.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> from danlu.system.encryption import new_key
    >>> path = new_key("secret.key")
    >>> path = danlu.encrypt("runs/iris", "runs/iris-secret", key_file="secret.key")
    >>> danlu.decrypt("runs/iris-secret", "runs/iris-plain", key_file="secret.key").name
    'iris-plain'
    """
    folder = find_folder(path)
    key = _required_key(key_file, passphrase_file)
    finished = _finish_interrupted(folder, out)
    files = {name: _read_bytes(folder / name) for name in file_names(folder)}
    bare = [name for name, data in files.items() if not encryption.is_encrypted(data)]
    if finished and len(bare) == len(files):
        return folder
    if len(bare) == len(files):
        raise ArtifactError("it is not encrypted.", where=str(folder))
    if bare:
        raise ArtifactError(
            "this file is not encrypted, and others of the folder are.", where=str(folder / bare[0])
        )
    shared = {
        encryption.read_header(str(folder / name), data).folder.id for name, data in files.items()
    }
    if len(shared) > 1:
        raise ArtifactError(
            "its files were not encrypted together: some come from another folder.",
            where=str(folder),
        )
    with encryption.override_key(key):
        plain = {name: encryption.decrypt_file(folder / name, data) for name, data in files.items()}
        return _write_folder(folder, out, plain, plain)


def sign(path: str | Path, signing_key: str | Path) -> Path:
    """Write signature.json into an artifact or export; returns the path of that file.

    `signing_key` is a file of `new_signing_key`, or any private Ed25519 key as PEM.
    Raises DataError where the file holds no such key, ArtifactError where the folder is not an
    artifact or export.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> from danlu.system.signing import new_signing_key
    >>> public_key = new_signing_key("signing.key")
    >>> danlu.sign("runs/iris", "signing.key").name
    'signature.json'
    """
    folder = find_folder(path)
    private = _private_key(signing_key)
    remove_leftovers(folder)
    hashes = _file_hashes(folder)
    public = _raw_bytes(private.public_key())
    values = {
        "format": _FORMAT,
        "algorithm": "ed25519",
        "public_key": b64encode(public).decode(),
        "files": hashes,
        "signature": b64encode(private.sign(_message(hashes))).decode(),
    }
    target = folder / SIGNATURE
    data = json.dumps(values, indent=1).encode()
    first = _read_bytes(folder / file_names(folder)[0])
    if encryption.is_encrypted(first):
        key = encryption.current_key()
        assert key is not None, "the files were decrypted with it"
        data = encryption.read_header(str(folder), first).folder.encrypt_file(SIGNATURE, data, key)
    try:
        replace_file(target, data)
    except OSError as error:
        raise _unwritable(target, error) from None
    return target


@dataclass(frozen=True)
class Signed:
    """A valid signature.

    folder  the folder that was signed
    signer  the fingerprint of the key that signed it: 16 hexadecimal digits
    files   how many files the signature covers
    """

    folder: Path
    signer: str
    files: int


def verify_signature(path: str | Path, public_key: str | Path) -> Signed:
    """Check that an artifact or export is, file by file, what the owner of a public key signed.

    `public_key` is a file with the expected signer's public Ed25519 key (PEM); the key in
    signature.json is not trusted. Raises ArtifactError where a file is missing, added or changed,
    and where somebody else signed the folder; DataError where `public_key` holds no such key.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> from danlu.system.signing import new_signing_key
    >>> public_key = new_signing_key("expected.key")
    >>> path = danlu.sign("runs/iris", "expected.key")
    >>> danlu.verify_signature("runs/iris", public_key).files
    4
    """
    encryption.require_cryptography()
    from cryptography.exceptions import InvalidSignature

    folder = find_folder(path)
    where = folder / SIGNATURE
    public = _public_key(public_key)
    try:
        values = json.loads(read_regular(where, _LARGEST_SIGNATURE))
        files, signature = values["files"], b64decode(values["signature"], validate=True)
        signer = b64decode(values["public_key"], validate=True)
        if (
            values["format"] != _FORMAT
            or values["algorithm"] != "ed25519"
            or not isinstance(files, dict)
        ):
            raise ValueError("its format is not known")
        message = _message(files)
    except FileNotFoundError:
        raise ArtifactError(
            "it is not signed.", where=str(folder), hint="danlu sign signs it"
        ) from None
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror or error}.", where=str(where)
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"this signature is damaged: {error}.", where=str(where)) from None
    if signer != _raw_bytes(public):
        raise ArtifactError(
            f"somebody else signed it: key {sha256(signer)[:16]}, not "
            f"{sha256(_raw_bytes(public))[:16]}.",
            where=str(where),
        )
    try:
        public.verify(signature, message)
    except InvalidSignature:
        raise ArtifactError(
            "the signature does not belong to this list of files.", where=str(where)
        ) from None
    _compare(folder, files, _file_hashes(folder))
    return Signed(folder, sha256(signer)[:16], len(files))


def new_signing_key(path: str | Path) -> Path:
    """Write a new Ed25519 key pair: the private key to `path` (PEM, mode 0600), the public key to
    `path`.pub. Returns the path of the public key. Raises DataError where one of both exists."""
    encryption.require_cryptography()
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = Path(f"{path}.pub")
    if os.path.lexists(public):
        raise DataError(
            "there is already a file of this name, and keys are not overwritten.",
            where=str(public),
        )
    encryption.write_secret(
        path,
        private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()),
    )
    try:
        create_file(
            public,
            private.public_key().public_bytes(
                forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo
            ),
        )
    except OSError as error:  # a private key alone would bar the same command
        Path(path).unlink(missing_ok=True)
        raise _unwritable(public, error) from None
    return public


# --- folders


def find_folder(path: str | Path) -> Path:
    """The folder of the artifact or export at a path, which may be a run's. Raises ArtifactError
    where there is none."""
    start = Path(path)
    for folder in (start, start / "artifact"):
        if not folder.exists():
            recover(folder)
        if any((folder / name).is_file() for name in MANIFESTS):
            return require_inside(start, folder)
    if not start.exists():
        raise not_found(start, "there is no such artifact, run or export.")
    raise ArtifactError(
        "there is no artifact or export.",
        where=str(start),
        hint="name the folder of an artifact, a run or an export",
    )


def file_names(folder: Path) -> list[str]:
    """The paths of all files below a folder, with slashes, sorted. Raises ArtifactError where one
    of them is a link or a device, where there are too many, and where a folder cannot be listed."""
    names: list[str] = []

    def refuse(error: OSError) -> None:  # else a folder that cannot be listed would seem empty
        raise ArtifactError(
            f"cannot be read: {error.strerror or error}.", where=str(error.filename or folder)
        )

    for here, below, files in os.walk(folder, onerror=refuse):
        for name in [*files, *below]:
            path = Path(here) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ArtifactError("this is a link or a device, not a file.", where=str(path))
        names += [(Path(here) / name).relative_to(folder).as_posix() for name in files]
        if len(names) > _MOST_FILES:
            raise ArtifactError(f"there are more than {_MOST_FILES:,} files.", where=str(folder))
    return sorted(names)


def _required_key(
    key_file: str | Path | None, passphrase_file: str | Path | None
) -> encryption.Key:
    key = encryption.read_key(key_file, passphrase_file) or encryption.current_key()
    if key is None:
        raise DataError(
            "no key is given.",
            hint="give --key-file or --passphrase-file; danlu encrypt --new-key FILE writes a key",
        )
    return key


def _read_bytes(path: Path) -> bytes:
    """The bytes of a file, still encrypted."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror or error}.", where=str(path)
        ) from None


def _finish_interrupted(folder: Path, out: str | Path | None) -> bool:
    """Finish what a killed command left in a folder, or of it where it is to be replaced; whether
    it is of the latter."""
    remove_leftovers(folder)
    return out is None and recover(folder.resolve())


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot be written: {error.strerror or error}.", where=str(path))


def _write_folder(
    folder: Path, out: str | Path | None, files: dict[str, bytes], plain: dict[str, bytes]
) -> Path:
    """Write files to `out`, or in place of those of `folder`, after reading them again: their plain
    bytes must be those of `plain`."""
    # of a folder that a link leads to, the folder itself is replaced
    target = Path(out) if out is not None else folder.resolve()
    if out is not None and os.path.lexists(target):
        raise DataError(
            "there is something of this name already.",
            where=str(target),
            hint="choose another --out",
        )
    try:
        with atomic_folder(target) as beside:
            for name, data in files.items():
                path = beside / name
                path.parent.mkdir(parents=True, exist_ok=True)  # synced with all of the folder
                write_file(path, data)
                if read_regular(path, LARGEST_FILE) != plain[name]:
                    raise ArtifactError(
                        "what was written cannot be read again; nothing was changed.",
                        where=str(folder / name),
                    )
    except OSError as error:
        raise _unwritable(target, error) from None
    return target if out is not None else folder


# --- signatures


class FileHash(TypedDict):
    """What a signature notes of a file: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def _file_hashes(folder: Path) -> dict[str, FileHash]:
    """Size and SHA-256 of the plain bytes of each file, without signature.json."""
    hashes = {}
    for name in file_names(folder):
        if name == SIGNATURE:
            continue
        try:
            data = read_regular(folder / name, LARGEST_FILE)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"cannot be read: {error}.", where=str(folder / name)) from None
        hashes[name] = {"size": len(data), "sha256": sha256(data)}
    return hashes


def _message(files: Mapping[str, object]) -> bytes:
    return (
        b"danlu artifact signature 1\n"
        + json.dumps(files, sort_keys=True, separators=(",", ":")).encode()
    )


def _compare(folder: Path, signed: Mapping[str, object], current: Mapping[str, object]) -> None:
    for name in sorted(signed.keys() | current.keys()):
        if name not in current:
            raise ArtifactError("a file that was signed is missing.", where=str(folder / name))
        if name not in signed:
            raise ArtifactError(
                "this file was added after the folder was signed.", where=str(folder / name)
            )
        if signed[name] != current[name]:
            raise ArtifactError(
                "this file is not the one that was signed.", where=str(folder / name)
            )


def _private_key(path: str | Path) -> Ed25519PrivateKey:
    encryption.require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = encryption.read_secret(path, 1 << 16)
    try:
        key = load_pem_private_key(data, None)
    except Exception:  # cryptography raises errors of many kinds, depending on the file
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        hint = "danlu sign --new-key FILE writes one"
        raise DataError(
            "this is not a private Ed25519 key (PEM, without a passphrase).",
            where=str(path),
            hint=hint,
        )
    return key


def _public_key(path: str | Path) -> Ed25519PublicKey:
    encryption.require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with Path(path).open("rb") as file:
            data = file.read(1 << 16)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}.", where=str(path)) from None
    try:
        key = load_pem_public_key(data)
    except Exception:  # as above
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise DataError(
            "this is not a public Ed25519 key (PEM).",
            where=str(path),
            hint="danlu sign --new-key FILE writes FILE.pub",
        )
    return key


def _raw_bytes(public: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
