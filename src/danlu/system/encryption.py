"""Keys of artifacts and exports that are encrypted at rest, and the form of an encrypted file.

    with danlu.system.encryption.use_key(key_file="model.key"):
        artifact = danlu.load("runs/digits")

Every reader (danlu.system.atomic_files) sees by a file's first bytes that it is encrypted, and
opens it in memory with the key in use: that of `using`, else of the environment (DANLU_KEY_FILE or
DANLU_PASSPHRASE_FILE: names of files, never a secret itself).

An encrypted file is

    DANLUENC                8 bytes
    length of the header    4 bytes, big-endian
    header                  JSON: format, folder (what the files of one encryption share), name, size, kind of key, check
    pieces                  of 1 MiB, the last one shorter: AES-256-GCM, each with its tag of 16 bytes

Each file has a key of its own, made of the folder's key, the folder's number and the file's name by
HKDF-SHA256, so that no file can stand for another, nor one folder's for another's. A piece's nonce
is its number and whether it is the last, its authenticated data the hash of the header: pieces
cannot change places, and none can be missing. A passphrase becomes a key by scrypt, whose cost is
read from the header only within bounds. What is not noticed: a folder put back whole to an older
state of itself.
Sources: NIST SP 800-38D; RFC 5869 (HKDF); RFC 7914 (scrypt); Hoang et al., 2015 (STREAM: nonces
that count and end)."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from danlu.errors import ArtifactError, DataError, MissingExtra

MAGIC = b"DANLUENC"
KEY_BYTES = 32
PIECE = 1 << 20
_TAG = 16
_LONGEST_HEADER = 4096
_SCRYPT = {"n": 1 << 17, "r": 8, "p": 1}  # 128 MiB and about half a second
_N = range(1 << 14, (1 << 18) + 1)  # costs that are read: at most 256 MiB
_LONGEST_PASSPHRASE = 4096
_FORMAT = 1
_HINT = "give --key-file (or --passphrase-file), or set DANLU_KEY_FILE (or DANLU_PASSPHRASE_FILE)"


@dataclass(frozen=True)
class Key:
    """A secret: 32 bytes, or a passphrase. It is never shown."""

    secret: bytes
    passphrase: bool = False

    def __repr__(self) -> str:
        return "Key(passphrase)" if self.passphrase else "Key(file)"


_current: ContextVar[Key | None] = ContextVar("key_in_use", default=None)


class use_key:  # noqa: N801 - called like a function
    """The key that encrypted artifacts are read with from now on; used as `with using(...):`, until
    the end of the block. This thread and its tasks only.

    key_file          of 32 bytes, as `new_key` writes it
    passphrase_file   whose first line is the passphrase

    Raises DataError where the file is no such thing, or where others may read it.
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
    """A key in use until the end of the block."""
    before = _current.set(key)
    try:
        yield
    finally:
        _current.reset(before)


def current_key() -> Key | None:
    """The key in use, None where there is none. Raises DataError where the environment names a file
    that holds none."""
    key = _current.get()
    if key is not None:
        return key
    return read_key(
        os.environ.get("DANLU_KEY_FILE") or None, os.environ.get("DANLU_PASSPHRASE_FILE") or None
    )


def read_key(key_file: str | Path | None, passphrase_file: str | Path | None) -> Key | None:
    """The key of one of two files; None where neither is named. Raises DataError."""
    if key_file is not None and passphrase_file is not None:
        raise DataError(
            "a key file and a passphrase file are one too many.", hint="name one of them"
        )
    if key_file is not None:
        data = read_secret(key_file, KEY_BYTES + 1)
        if len(data) != KEY_BYTES:
            hint = "danlu encrypt --new-key FILE writes one"
            raise DataError(
                f"this is no key file: it does not have {KEY_BYTES} bytes.",
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
                hint="take several words",
            )
        return Key(line, passphrase=True)
    return None


def read_secret(path: str | Path, most: int) -> bytes:
    """At most `most` bytes of a file that nobody else may read. Raises DataError."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise DataError("this is no file.", where=str(path))
            if os.name == "posix" and mode & 0o007:
                hint = f"chmod 600 {path} (a mounted secret: defaultMode or mode 0400)"
                raise DataError(
                    "everybody on this machine may use this secret.", where=str(path), hint=hint
                )
            return file.read(most)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}.", where=str(path)) from None


def write_secret(path: str | Path, data: bytes) -> None:
    """A new file that its owner alone may read. Raises DataError where there is one of that
    name."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise DataError(
            "there is already a file of this name, and a key is not written over.", where=str(path)
        ) from None
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}.", where=str(path)) from None


def new_key(path: str | Path) -> None:
    """Write a new key file: 32 random bytes, mode 0600. Raises DataError where there is a file of
    that name."""
    write_secret(path, os.urandom(KEY_BYTES))


# --- files


def is_encrypted(data: bytes | memoryview) -> bool:
    """Whether bytes are those of an encrypted file."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def encrypted_size(size: int) -> int:
    """Bytes that an encrypted file of `size` bytes has at most."""
    return len(MAGIC) + 4 + _LONGEST_HEADER + size + _TAG * _pieces(size)


@dataclass(frozen=True)
class EncryptedFolder:
    """What the files of one encryption share: its number, 16 random bytes, and the salt and cost of
    a passphrase."""

    number: bytes
    scrypt: Mapping[str, Any] | None

    @classmethod
    def new(cls, key: Key) -> EncryptedFolder:
        """Another folder."""
        return cls(
            os.urandom(16), {**_SCRYPT, "salt": os.urandom(16).hex()} if key.passphrase else None
        )

    def encrypt_file(self, name: str, data: bytes, key: Key) -> bytes:
        """The bytes of a file of this folder, encrypted; `name` is its path in the folder, with
        slashes."""
        main = _main_key(key, self.scrypt)
        values = {
            "format": _FORMAT,
            "folder": self.number.hex(),
            "name": name,
            "size": len(data),
            "scrypt": self.scrypt,
            "check": _derive(main, self.number, b"check", 16).hex(),
        }
        header = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        if len(header) > _LONGEST_HEADER:
            raise DataError("the name of the file is too long to be encrypted.", where=name)
        start = MAGIC + len(header).to_bytes(4, "big") + header
        cipher, bound = _cipher(main, self.number, name), sha256(start).digest()
        count = _pieces(len(data))
        pieces = [
            cipher.encrypt(
                _nonce(number, number == count - 1),
                data[number * PIECE : (number + 1) * PIECE],
                bound,
            )
            for number in range(count)
        ]
        return b"".join([start, *pieces])


@dataclass(frozen=True)
class Header:
    """What stands before the pieces of a file."""

    folder: EncryptedFolder
    name: str
    size: int
    check: bytes
    bound: bytes  # what every piece is bound to
    end: int


def decrypt_file(path: Path, data: bytes) -> bytes:
    """What an encrypted file holds. Raises ArtifactError where the key is missing or another's, or
    where a bit of it was changed."""
    where = str(path)
    header = read_header(where, data)
    if f"/{path.as_posix()}".endswith(f"/{header.name}") is False:
        raise ArtifactError(
            f"this file is {header.name!r} of an encrypted folder, under another name.", where=where
        )
    key = current_key()
    if key is None:
        raise ArtifactError(
            "this file is encrypted, and no key was given.", where=where, hint=_HINT
        )
    if key.passphrase != (header.folder.scrypt is not None):
        wanted = "a passphrase" if header.folder.scrypt is not None else "a key file"
        raise ArtifactError(
            f"this file was encrypted with {wanted}, and something else was given.",
            where=where,
            hint=_HINT,
        )
    main = _main_key(key, header.folder.scrypt)
    if _derive(main, header.folder.number, b"check", 16) != header.check:
        what = "passphrase" if key.passphrase else "key"
        raise ArtifactError(
            f"the {what} does not fit (or the head of the file was changed).",
            where=where,
            hint=_HINT,
        )
    return _decrypt_pieces(where, data, header, _cipher(main, header.folder.number, header.name))


def read_header(where: str, data: bytes) -> Header:
    """The header of an encrypted file; nothing in it is believed that the file's own size and fixed
    bounds do not bear out. Raises ArtifactError."""
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
        number, check, name, size = (
            bytes.fromhex(values["folder"]),
            bytes.fromhex(values["check"]),
            values["name"],
            values["size"],
        )
        if (
            type(name) is not str
            or type(size) is not int
            or size < 0
            or len(number) != 16
            or len(check) != 16
        ):
            raise ValueError("its header is none")
        if len(data) != end + size + _TAG * _pieces(size):
            raise ValueError(
                "it does not have the bytes that it should: it was cut off, or lengthened"
            )
        return Header(
            EncryptedFolder(number, _checked_scrypt(values["scrypt"])),
            name,
            size,
            check,
            sha256(data[:end]).digest(),
            end,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"this encrypted file is damaged: {error}.", where=where) from None


def _checked_scrypt(scrypt: Any) -> dict[str, Any] | None:
    """A salt and a cost that may be computed."""
    if scrypt is None:
        return None
    salt, (n, r, p) = bytes.fromhex(scrypt["salt"]), (scrypt[each] for each in "nrp")
    if (
        any(type(each) is not int for each in (n, r, p))
        or n not in _N
        or n & (n - 1)
        or r != 8
        or not 1 <= p <= 4
        or len(salt) != 16
    ):
        raise ValueError("its cost of scrypt is none that danlu writes")
    return {"n": n, "r": r, "p": p, "salt": salt.hex()}


def _decrypt_pieces(where: str, data: bytes, header: Header, cipher: Any) -> bytes:
    from cryptography.exceptions import InvalidTag

    pieces, at, count = [], header.end, _pieces(header.size)
    view = memoryview(data)
    for number in range(count):
        size = min(PIECE, header.size - number * PIECE) + _TAG
        try:
            pieces.append(
                cipher.decrypt(
                    _nonce(number, number == count - 1), view[at : at + size], header.bound
                )
            )
        except InvalidTag:
            raise ArtifactError(
                f"this encrypted file was changed: piece {number + 1:,} of {count:,} is not what was written.",
                where=where,
            ) from None
        at += size
    return b"".join(pieces)


def _pieces(size: int) -> int:
    return max(1, -(-size // PIECE))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _cipher(main: bytes, number: bytes, name: str) -> Any:
    require_cryptography()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derive(main, number, b"file " + name.encode(), 32))


def _derive(main: bytes, number: bytes, what: bytes, size: int) -> bytes:
    require_cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), size, number, b"danlu artifact 1 " + what).derive(main)


def _main_key(key: Key, scrypt: Mapping[str, Any] | None) -> bytes:
    if scrypt is None:
        return key.secret
    return _passphrase_key(key.secret, str(scrypt["salt"]), *(int(scrypt[each]) for each in "nrp"))


@lru_cache(maxsize=8)
def _passphrase_key(secret: bytes, salt: str, n: int, r: int, p: int) -> bytes:
    """The key of a passphrase; remembered, since every file of a folder asks for it."""
    require_cryptography()
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(bytes.fromhex(salt), KEY_BYTES, n, r, p).derive(secret)


def require_cryptography() -> None:
    """Raises MissingExtra where the library that encrypts is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingExtra(
            "the library cryptography", "crypto", "an encrypted or signed artifact"
        ) from None
