"""Encrypted artifacts and exports: keys, and the format of an encrypted file.

    with danlu.system.encryption.use_key(key_file="model.key"):
        artifact = danlu.load("runs/digits")

Every reader (danlu.system.atomic_files) recognises an encrypted file by its first bytes and
decrypts it in memory with the current key: that of `use_key`, else the one that the environment
names in DANLU_KEY_FILE or DANLU_PASSPHRASE_FILE (both name files, never the secret itself).

An encrypted file is

    DANLUENC                8 bytes
    length of the header    4 bytes, big-endian
    header                  JSON: format, folder (the id that files encrypted together share), name,
                            size, scrypt (salt and cost, of a passphrase), check (of the key)
    pieces                  of 1 MiB, the last one shorter: AES-256-GCM, each with a tag of 16 bytes

Each file has its own key, derived by HKDF-SHA256 from the folder's key, the folder's id and the
file's name. So no file can take the place of another one, of the same folder or of another. The
nonce of a piece is its number and whether it is the last; its authenticated data is the hash of the
header. So pieces cannot be reordered or left out. A passphrase becomes a key by scrypt, whose cost
is taken from the header within fixed bounds. One attack is not noticed: replacing the whole folder
by an older version of itself.
Sources: NIST SP 800-38D; RFC 5869 (HKDF); RFC 7914 (scrypt); Hoang et al., 2015 (STREAM: nonces
that count and mark the end)."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

from danlu.errors import ArtifactError, DataError, MissingExtra
from danlu.system.staging import create_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"DANLUENC"
KEY_BYTES = 32
PIECE = 1 << 20
_TAG = 16
_LONGEST_HEADER = 4096
_N_WRITTEN, _R, _P = 1 << 17, 8, 1  # the cost of scrypt: 128 MiB and about half a second
_N = range(1 << 14, (1 << 18) + 1)  # costs that are accepted: at most 256 MiB
_LONGEST_PASSPHRASE = 4096
_FORMAT = 1
_HINT = "give --key-file (or --passphrase-file), or set DANLU_KEY_FILE (or DANLU_PASSPHRASE_FILE)"


@dataclass(frozen=True)
class Key:
    """A secret: 32 bytes, or a passphrase. Its repr does not show it."""

    secret: bytes
    passphrase: bool = False

    def __repr__(self) -> str:
        return "Key(passphrase)" if self.passphrase else "Key(file)"


_current: ContextVar[Key | None] = ContextVar("key_in_use", default=None)


class use_key:  # noqa: N801 - called like a function
    """Read encrypted artifacts with this key from now on; as `with use_key(...):`, until the end of
    the block. It holds for this thread and its tasks.

    key_file          a file of 32 bytes, as `new_key` writes it
    passphrase_file   a file whose first line is the passphrase

    Raises DataError where the file holds no key, or where others may read it.
    """

    def __init__(
        self, key_file: str | Path | None = None, passphrase_file: str | Path | None = None
    ) -> None:
        self._before: Token[Key | None] = _current.set(read_key(key_file, passphrase_file))

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.reset(self._before)


@contextmanager
def override_key(key: Key) -> Iterator[None]:
    """Make `key` the current key until the end of the block."""
    before = _current.set(key)
    try:
        yield
    finally:
        _current.reset(before)


def current_key() -> Key | None:
    """The current key, None where there is none. Raises DataError where the environment names a
    file that holds no key."""
    key = _current.get()
    if key is not None:
        return key
    return read_key(
        os.environ.get("DANLU_KEY_FILE") or None, os.environ.get("DANLU_PASSPHRASE_FILE") or None
    )


def read_key(key_file: str | Path | None, passphrase_file: str | Path | None) -> Key | None:
    """The key of a key file or of a passphrase file; None where neither is named. Raises DataError
    where both are named, or where the file holds no key."""
    if key_file is not None and passphrase_file is not None:
        raise DataError("both a key file and a passphrase file are given.", hint="name one of them")
    if key_file is not None:
        data = read_secret(key_file, KEY_BYTES + 1)
        if len(data) != KEY_BYTES:
            hint = "danlu encrypt --new-key FILE writes one"
            raise DataError(
                f"this is not a key file: a key file has {KEY_BYTES} bytes.",
                where=str(key_file),
                hint=hint,
            )
        return Key(data)
    if passphrase_file is not None:
        line = read_secret(passphrase_file, _LONGEST_PASSPHRASE).partition(b"\n")[0].rstrip(b"\r")
        if len(line) < 8:
            raise DataError(
                "the passphrase has fewer than 8 bytes.",
                where=str(passphrase_file),
                hint="use several words",
            )
        return Key(line, passphrase=True)
    return None


def read_secret(path: str | Path, most: int) -> bytes:
    """At most `most` bytes of a file. Raises DataError where it cannot be read, and where every
    user of this machine may read it."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise DataError("this is not a regular file.", where=str(path))
            if os.name == "posix" and mode & 0o007:
                hint = f"chmod 600 {path} (a mounted secret: defaultMode or mode 0400)"
                raise DataError(
                    "every user of this machine may read this secret.", where=str(path), hint=hint
                )
            return file.read(most)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}.", where=str(path)) from None


def write_secret(path: str | Path, data: bytes) -> None:
    """Write a new file that only its owner may read, all or nothing. Raises DataError where the
    name is taken."""
    try:
        create_file(Path(path), data, 0o600)
    except FileExistsError:
        raise DataError(
            "there is already a file of this name, and keys are not overwritten.", where=str(path)
        ) from None
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}.", where=str(path)) from None


def new_key(path: str | Path) -> None:
    """Write a new key file: 32 random bytes, mode 0600. Raises DataError where the name is
    taken."""
    write_secret(path, os.urandom(KEY_BYTES))


# --- files


def is_encrypted(data: bytes | memoryview) -> bool:
    """Whether these are the first bytes of an encrypted file.

    >>> is_encrypted(b"DANLUENC..."), is_encrypted(b"{}")
    (True, False)
    """
    return bytes(data[: len(MAGIC)]) == MAGIC


def encrypted_size(size: int) -> int:
    """The most bytes that a file of `size` bytes takes when it is encrypted."""
    return len(MAGIC) + 4 + _LONGEST_HEADER + size + _TAG * _pieces(size)


class Scrypt(TypedDict):
    """How a passphrase becomes a key: the salt in hexadecimal, and the cost (RFC 7914)."""

    n: int
    r: int
    p: int
    salt: str


@dataclass(frozen=True)
class EncryptedFolder:
    """What files that are encrypted together share: a random id of 16 bytes, and the salt and cost
    of the passphrase (None for a key file)."""

    id: bytes
    scrypt: Scrypt | None

    @classmethod
    def new(cls, key: Key) -> EncryptedFolder:
        """A folder with a new id."""
        if not key.passphrase:
            return cls(os.urandom(16), None)
        salt = os.urandom(16).hex()
        return cls(os.urandom(16), {"n": _N_WRITTEN, "r": _R, "p": _P, "salt": salt})

    def encrypt_file(self, name: str, data: bytes, key: Key) -> bytes:
        """The encrypted bytes of a file; `name` is its path in the folder, with slashes."""
        main = _main_key(key, self.scrypt)
        values = {
            "format": _FORMAT,
            "folder": self.id.hex(),
            "name": name,
            "size": len(data),
            "scrypt": self.scrypt,
            "check": _derive(main, self.id, b"check", 16).hex(),
        }
        header = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        if len(header) > _LONGEST_HEADER:
            raise DataError("the name of the file is too long to be encrypted.", where=name)
        start = MAGIC + len(header).to_bytes(4, "big") + header
        cipher, digest = _cipher(main, self.id, name), sha256(start).digest()
        count = _pieces(len(data))
        pieces = [
            cipher.encrypt(
                _nonce(number, number == count - 1),
                data[number * PIECE : (number + 1) * PIECE],
                digest,
            )
            for number in range(count)
        ]
        return b"".join([start, *pieces])


@dataclass(frozen=True)
class Header:
    """What precedes the pieces of a file. The pieces begin at byte `end`."""

    folder: EncryptedFolder
    name: str
    size: int
    check: bytes
    digest: bytes  # SHA-256 of the header: the authenticated data of every piece
    end: int


def decrypt_file(path: Path, data: bytes) -> bytes:
    """The plain bytes of an encrypted file. Raises ArtifactError where there is no key or the wrong
    one, and where the file was changed."""
    where = str(path)
    header = read_header(where, data)
    if f"/{path.as_posix()}".endswith(f"/{header.name}") is False:
        raise ArtifactError(
            f"this file was encrypted as {header.name!r} and has another name now.", where=where
        )
    key = current_key()
    if key is None:
        raise ArtifactError(
            "this file is encrypted, and no key was given.", where=where, hint=_HINT
        )
    if key.passphrase != (header.folder.scrypt is not None):
        wanted = "a passphrase" if header.folder.scrypt is not None else "a key file"
        raise ArtifactError(
            f"this file was encrypted with {wanted}, and the other kind of secret is given.",
            where=where,
            hint=_HINT,
        )
    main = _main_key(key, header.folder.scrypt)
    if _derive(main, header.folder.id, b"check", 16) != header.check:
        what = "passphrase" if key.passphrase else "key"
        raise ArtifactError(
            f"the {what} does not fit (or the header of the file was changed).",
            where=where,
            hint=_HINT,
        )
    return _decrypt_pieces(where, data, header, _cipher(main, header.folder.id, header.name))


def read_header(where: str, data: bytes) -> Header:
    """The header of an encrypted file, checked against the file's size and fixed bounds. Raises
    ArtifactError where it is damaged."""
    start = len(MAGIC) + 4
    try:
        end = start + int.from_bytes(data[len(MAGIC) : start], "big")
        if not start < end <= min(start + _LONGEST_HEADER, len(data)):
            raise ValueError("its header does not end")
        values = json.loads(data[start:end])
        if values["format"] != _FORMAT:
            raise ValueError(
                f"it is of format {values['format']!r}, and this danlu reads format {_FORMAT}"
            )
        folder_id, check, name, size = (
            bytes.fromhex(values["folder"]),
            bytes.fromhex(values["check"]),
            values["name"],
            values["size"],
        )
        if (
            type(name) is not str
            or type(size) is not int
            or size < 0
            or len(folder_id) != 16
            or len(check) != 16
        ):
            raise ValueError("its header is malformed")
        if len(data) != end + size + _TAG * _pieces(size):
            raise ValueError("its length is wrong: it was cut off, or bytes were added")
        return Header(
            EncryptedFolder(folder_id, _checked_scrypt(values["scrypt"])),
            name,
            size,
            check,
            sha256(data[:end]).digest(),
            end,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"this encrypted file is damaged: {error}.", where=where) from None


def _checked_scrypt(scrypt: dict[str, Any] | None) -> Scrypt | None:
    """The salt and cost of a passphrase, within the bounds that may be computed."""
    if scrypt is None:
        return None
    salt, (n, r, p) = bytes.fromhex(scrypt["salt"]), (scrypt[name] for name in "nrp")
    if (
        any(type(cost) is not int for cost in (n, r, p))
        or n not in _N
        or n & (n - 1)
        or r != 8
        or not 1 <= p <= 4
        or len(salt) != 16
    ):
        raise ValueError("danlu never writes its cost of scrypt")
    return {"n": n, "r": r, "p": p, "salt": salt.hex()}


def _decrypt_pieces(where: str, data: bytes, header: Header, cipher: AESGCM) -> bytes:
    from cryptography.exceptions import InvalidTag

    pieces, at, count = [], header.end, _pieces(header.size)
    view = memoryview(data)
    for number in range(count):
        size = min(PIECE, header.size - number * PIECE) + _TAG
        try:
            pieces.append(
                cipher.decrypt(
                    _nonce(number, number == count - 1), view[at : at + size], header.digest
                )
            )
        except InvalidTag:
            raise ArtifactError(
                f"this encrypted file was changed: piece {number + 1:,} of {count:,} does not"
                " match its tag.",
                where=where,
            ) from None
        at += size
    return b"".join(pieces)


def _pieces(size: int) -> int:
    return max(1, -(-size // PIECE))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _cipher(main: bytes, folder_id: bytes, name: str) -> AESGCM:
    require_cryptography()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derive(main, folder_id, b"file " + name.encode(), 32))


def _derive(main: bytes, folder_id: bytes, what: bytes, size: int) -> bytes:
    require_cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), size, folder_id, b"danlu artifact 1 " + what).derive(main)


def _main_key(key: Key, scrypt: Scrypt | None) -> bytes:
    if scrypt is None:
        return key.secret
    return _passphrase_key(key.secret, scrypt["salt"], scrypt["n"], scrypt["r"], scrypt["p"])


@lru_cache(maxsize=8)
def _passphrase_key(secret: bytes, salt: str, n: int, r: int, p: int) -> bytes:
    """The key of a passphrase; cached, since every file of a folder needs it."""
    require_cryptography()
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(bytes.fromhex(salt), KEY_BYTES, n, r, p).derive(secret)


def require_cryptography() -> None:
    """Raise MissingExtra where the library cryptography is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingExtra(
            "the library cryptography", "crypto", "an encrypted or signed artifact"
        ) from None
