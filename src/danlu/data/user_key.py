"""A key of this user, and JSON that is sealed with it.

A checksum shows that bytes have changed, but whoever changes them can write the checksum anew. A
seal is HMAC-SHA256 (RFC 2104) with a key of 32 random bytes that only this user can read: it shows
that danlu, started by this user, wrote these bytes. The key lies in the user's configuration
($XDG_CONFIG_HOME/danlu/cache.key, else ~/.config/danlu/cache.key), not beside what it seals, so
that files which come from elsewhere (an archive, a shared folder) are not believed either."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import stat
from collections.abc import Mapping
from typing import Any

from danlu.system import atomic_files, private_files

_BYTES = 32


def user_key() -> bytes:
    """The key, 32 bytes; made at the first call of this user. One that others could read is
    replaced, and what the old one sealed is no longer believed.

    Raises OSError where it can be neither read nor written, and NotPrivate where its folder belongs
    to another user."""
    path = private_files.private_config_folder() / "cache.key"
    for _ in range(3):  # other processes may make or replace it at the same time
        try:
            key = bytes.fromhex(private_files.read_private(path, 4 * _BYTES).decode("ascii"))
            if len(key) == _BYTES:
                return key
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except (private_files.NotPrivate, ValueError):
            path.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was first
            key = secrets.token_hex(_BYTES).encode() + b"\n"
            atomic_files.create_file(path, key, stat.S_IRUSR | stat.S_IWUSR)
    raise private_files.NotPrivate(f"{path} changes while it is read")


def seal(value: Mapping[str, object], key: bytes) -> bytes:
    """JSON on one line and its seal, in hexadecimal, on the next.

    >>> unseal(seal({"format": 1}, b"key"), b"key")
    {'format': 1}
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
    return line + b"\n" + _seal_of(line, key) + b"\n"


def unseal(data: bytes, key: bytes) -> dict[str, Any]:
    """The value that `seal` wrote. Raises ValueError where a byte of it has changed, or another key
    sealed it."""
    line, newline, rest = data.partition(b"\n")
    if not newline or not hmac.compare_digest(rest, _seal_of(line, key) + b"\n"):
        raise ValueError("its seal does not match")
    return json.loads(line)


def _seal_of(line: bytes, key: bytes) -> bytes:
    return hmac.new(key, line, hashlib.sha256).hexdigest().encode()
