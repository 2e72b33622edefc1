"""Who may ask: the token of a server, read from its file and looked for in requests."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from danlu.errors import DanluError
from danlu.serving.protocol.settings import Settings

_MIN_TOKEN = 16  # characters


def read_token(settings: Settings) -> str | None:
    """The token in the token file; None without one.

    Raises DanluError where a token is needed and missing, is too short, or can be read by others,
    and where only one of the two TLS files is given."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise DanluError(
            "TLS needs the certificate and its key.", hint="give --tls-certificate and --tls-key"
        )
    if settings.token_file is None:
        if settings.host not in ("127.0.0.1", "localhost", "::1"):
            raise DanluError(
                f"other machines reach {settings.host}, so a token is needed.",
                where="serve",
                hint="write a long random word into a file only you can read, and give "
                "--token-file FILE",
            )
        return None
    path = Path(settings.token_file)
    try:
        status = path.stat()
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DanluError(f"the token cannot be read: {error}.", where=str(path)) from None
    # A file of another owner, such as a mounted secret of Kubernetes, is read through its group.
    if os.name == "posix":
        forbidden = 0o077 if status.st_uid == os.geteuid() else 0o037
        if stat.S_IMODE(status.st_mode) & forbidden:
            raise DanluError(
                "others may read the token.", where=str(path), hint=f"chmod 600 {path}"
            )
    if len(token) < _MIN_TOKEN or any(map(str.isspace, token)) or not token.isascii():
        raise DanluError(
            f"a token is one word of at least {_MIN_TOKEN} ASCII characters.",
            where=str(path),
            hint="openssl rand -hex 32",
        )
    return token


def bears_token(authorization: bytes, token: bytes | None) -> bool:
    """Whether a value of the header Authorization holds the token, or none is needed.

    >>> bears_token(b"Bearer secret", b"secret"), bears_token(b"", None), bears_token(b"", b"x")
    (True, True, False)
    """
    if token is None:
        return True
    scheme, _, word = authorization.partition(b" ")
    # Compared in a time that does not depend on how much of the token is right.
    return hmac.compare_digest(word.strip(), token) and scheme.lower() == b"bearer"
