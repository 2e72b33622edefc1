"""A server: `serve` opens models, listens, and answers until a signal.

SIGTERM or SIGINT   drain: what was accepted is answered, what comes is told 503, then it ends; a second signal ends it at once
SIGHUP              read the folders of all models anew; a model that cannot be opened is refused and the one before stays
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from danlu.errors import DanluError, MissingExtra, did_you_mean
from danlu.serving.settings import Settings
from danlu.serving.worker.models import locate

SHUTTING = 0.2  # seconds in which the system hands over connections that were made before it was told to take no more
LINGER = 1.0  # seconds at most in which connections that are open are still told 503, when everything accepted has been answered

log = logging.getLogger("danlu.serving")


def serve(
    models: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    *,
    on: str | None = None,
    address: str | None = None,
    replicas: str = "1",
    **options: Any,
) -> None:
    """Serve artifacts and exports over HTTP until a signal. Blocks.

    `models` is a path (of an artifact, its run, or an export), several, or paths by the name they
    are served by. `options` are those of danlu.serving.settings.Settings: host, port, token_file,
    ... `on` "ray": on the Ray cluster at `address`, by so many `replicas` ("2", or "1:4" at least
    and at most); see danlu.serving.on_ray. Raises DanluError where it cannot begin."""
    settings = _settings(options)
    named = named_models(models)
    token = token_of(settings)
    _check_libraries()
    _log_to_stderr()
    if on is not None:
        _serve_on(on, named, settings, address, replicas)
        return
    end = _listen(settings)
    try:
        _run(_serving(named, settings, token, end))
    finally:
        end.close()


def named_models(
    models: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
) -> dict[str, Path]:
    """Paths by name: a model's own, or what stands before "=". Raises DanluError where two have one
    name."""
    if isinstance(models, Mapping):
        return {name: Path(path) for name, path in models.items()}
    found: dict[str, Path] = {}
    for each in [models] if isinstance(models, str | Path) else models:
        given, _, path = str(each).partition("=")
        if not path or Path(str(each)).exists():
            given, path = "", str(each)
        name = _plain_name(given or locate(path).name)
        if name in found:
            raise DanluError(
                f"two models are called {name}.", where=path, hint=f"name one: OTHER={path}"
            )
        found[name] = Path(path)
    if not found:
        raise DanluError("there is nothing to serve.", hint="danlu serve ARTIFACT")
    return found


def _plain_name(name: str) -> str:
    """A name that can stand in a path of HTTP."""
    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_"
        for letter in name
    )
    return plain or "model"


def _settings(options: Mapping[str, Any]) -> Settings:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise DanluError(
            f"{name}: {first['msg']}.",
            where="serve",
            hint=did_you_mean(name, Settings.model_fields),
        ) from None


def _serve_on(
    on: str, named: Mapping[str, Path], settings: Settings, address: str | None, replicas: str
) -> None:
    if on != "ray":
        raise DanluError(
            f"{on!r} is nothing to serve on.",
            where="serve",
            hint="--on ray, or nothing: on this machine",
        )
    from danlu.serving import on_ray

    on_ray.serve(named, settings, address, replicas)


def token_of(settings: Settings) -> str | None:
    """The token of the token file. DanluError where it is missing for an address that others reach,
    or others may read it."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise DanluError(
            "TLS needs the certificate and its key.", hint="give --tls-certificate and --tls-key"
        )
    if settings.token_file is None:
        if settings.host not in ("127.0.0.1", "localhost", "::1"):
            raise DanluError(
                f"{settings.host} is reached from other machines, so a token is needed.", where="serve",
                hint="write a long random word into a file only you can read, and give --token-file FILE",
            )  # fmt: skip
        return None
    path = Path(settings.token_file)
    try:
        told = path.stat()
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DanluError(f"the token cannot be read: {error}.", where=str(path)) from None
    # the file of another owner, such as a mounted secret of Kubernetes, is read through its group
    if os.name == "posix" and stat.S_IMODE(told.st_mode) & (
        0o077 if told.st_uid == os.geteuid() else 0o037
    ):
        raise DanluError("others may read the token.", where=str(path), hint=f"chmod 600 {path}")
    if len(token) < 16 or any(letter.isspace() for letter in token) or not token.isascii():
        raise DanluError(
            "a token is one word of at least 16 ASCII characters.",
            where=str(path),
            hint="openssl rand -hex 32",
        )
    return token


def _check_libraries() -> None:
    from importlib.util import find_spec

    for name in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
        if find_spec(name) is None:
            raise MissingExtra(name, "serve", "danlu serve")


def _log_to_stderr() -> None:
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # what clients send that is no HTTP would fill the log
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def _listen(settings: Settings) -> socket.socket:
    """The socket, bound before models are opened: an address in use is said at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    end = socket.socket(family, socket.SOCK_STREAM)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind((settings.host, settings.port))
        end.setblocking(False)
    except OSError as error:
        end.close()
        raise DanluError(
            f"it cannot listen: {error.strerror or error}.",
            where=f"{settings.host}:{settings.port}",
            hint="give another --port",
        ) from None
    return end


def _run(main: Any) -> None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serving(
    named: dict[str, Path], settings: Settings, token: str | None, end: socket.socket
) -> None:
    from danlu.serving.pool.pool import Pool

    pool = Pool(named, settings)
    signals = _Signals()
    starting = asyncio.get_running_loop().create_task(pool.start())
    await asyncio.sleep(0.01)  # the workers begin; while they import, so do we
    from danlu.serving.http.app import build
    from danlu.serving.http.http_server import Front

    try:
        await signals.unless_ended(starting)
        if signals.asked:
            return
        front = Front(settings, end)
        front.use(build(pool, token, lambda: len(front.server_state.connections)))
        scheme = "https" if settings.tls_certificate else "http"
        host, port = end.getsockname()[:2]
        end.listen(2048)  # whoever reads the address may ask at once
        print(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        log.info("serving %s", ", ".join(named))
        running = asyncio.get_running_loop().create_task(front.serve(sockets=[end]))
        signals.on_hangup = lambda: _swap(pool)
        await signals.unless_ended(running)
        if not running.done():
            await _drain(pool, front, settings.drain_seconds)
        await running
    finally:
        await pool.close()


async def _swap(pool: Any) -> None:
    for name in pool.models:
        try:
            await pool.swap(name)
            log.info("%s: read anew", name)
        except DanluError as error:
            log.error("%s: the model before stays: %s", name, error)


async def _drain(pool: Any, front: Any, seconds: float) -> None:
    """Answer what was accepted; what comes meanwhile is told 503."""
    pool.draining = True
    log.info("draining: %d accepted requests are being answered", pool.waiting)
    until = time.monotonic() + seconds
    while pool.waiting and time.monotonic() < until:
        await asyncio.sleep(0.01)
    if pool.waiting:
        log.error("%d accepted requests were not answered within %g s", pool.waiting, seconds)
    front.refuse_connections()  # those that wait to be accepted are told 503 like all others, ...
    await asyncio.sleep(SHUTTING)
    front.stop_listening()
    until = time.monotonic() + LINGER
    while (
        front.server_state.connections and time.monotonic() < until
    ):  # ... and so is what comes on those that are open
        await asyncio.sleep(0.02)
    log.info(
        "ended: %d requests accepted, %d answered", pool.accepted, pool.accepted - pool.waiting
    )
    front.should_exit = True


class _Signals:
    """The first SIGTERM or SIGINT is told, the second ends the process."""

    def __init__(self) -> None:
        self.asked = 0
        self.on_hangup: Any = None
        self._heard = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _end(self, number: int) -> None:
        if self.asked:
            os._exit(128 + number)  # workers end with this process
        self.asked = number
        self._heard.set()

    def _hang_up(self) -> None:
        if self.on_hangup is not None:
            task = asyncio.get_running_loop().create_task(self.on_hangup())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def unless_ended(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task, or for a signal, whichever is first. Raises what the task raises."""
        heard = asyncio.get_running_loop().create_task(self._heard.wait())
        await asyncio.wait({task, heard}, return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        if task.done():
            task.result()
