"""A server: `serve` opens models, listens, and answers until a signal.

SIGTERM, SIGINT   drain: accepted requests are answered, new ones get 503, then the server ends; a
                  second signal ends it at once
SIGHUP            open the folders of all models anew; where one cannot be opened, its old model
                  stays
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from danlu.errors import DanluError, MissingExtra, did_you_mean, escape_controls
from danlu.serving.http.security import read_token
from danlu.serving.protocol.model_folder import locate
from danlu.serving.protocol.settings import Settings

if TYPE_CHECKING:
    from danlu.serving.http.http_server import HttpServer
    from danlu.serving.pool.pool import Pool

# How often the end of a server looks whether it may go on, and for how long it does. It counts
# looks, not seconds: on a busy machine, where clients are slow too, it waits for longer.
_LOOK_SECONDS = 0.02
# The system hands over the connections that it began before it was told to begin none any more.
_HANDOVER_LOOKS = 10
# Open connections still get 503 after the last answer, for so long at most.
_LINGER_LOOKS = 50
_LONGEST_LINE = 1000  # characters of a line of the log
_LONGEST_TRACEBACK = 8000

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

    models     a path (of an artifact, its run, or an export), several paths, or paths by the name
               under which they are served
    on         "ray": serve on the Ray cluster at `address`, see danlu.serving.on_ray
    replicas   on a cluster: how many, or at least and at most ("2", "1:4")
    options    those of danlu.serving.protocol.settings.Settings: host, port, token_file, ...

    Raises DanluError where the server cannot start.

    >>> import danlu
    >>> danlu.serve("no-such-folder", port=0)
    Traceback (most recent call last):
        ...
    danlu.errors.ArtifactError: no-such-folder: there is no such artifact, run or export.
    """
    settings = _settings(options)
    paths = named_models(models)
    token = read_token(settings)
    _check_libraries()
    _log_to_stderr()
    if on is not None:
        _serve_on(on, paths, settings, address, replicas)
        return
    end = _bind(settings)
    try:
        _run(_serve(paths, settings, token, end))
    finally:
        end.close()


def named_models(
    models: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
) -> dict[str, Path]:
    """Paths by the name of their model: its own, or what stands before "=". Raises DanluError where
    two models have one name."""
    if isinstance(models, Mapping):
        return {name: Path(path) for name, path in models.items()}
    paths: dict[str, Path] = {}
    for model in [models] if isinstance(models, str | Path) else models:
        chosen_name, _, path = str(model).partition("=")
        if not path or Path(str(model)).exists():
            chosen_name, path = "", str(model)
        name = _url_name(chosen_name or locate(path).name)
        if name in paths:
            raise DanluError(
                f"two models are called {name}.", where=path, hint=f"name one: OTHER={path}"
            )
        paths[name] = Path(path)
    if not paths:
        raise DanluError("there is nothing to serve.", hint="danlu serve ARTIFACT")
    return paths


def _url_name(name: str) -> str:
    """A name that can stand in the path of a URL."""
    letters = (
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_"
        for letter in name
    )
    return "".join(letters) or "model"


def _settings(options: Mapping[str, Any]) -> Settings:
    chosen = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings.model_validate(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise DanluError(
            f"{name}: {first['msg']}.",
            where="serve",
            hint=did_you_mean(name, Settings.model_fields),
        ) from None


def _serve_on(
    on: str, paths: Mapping[str, Path], settings: Settings, address: str | None, replicas: str
) -> None:
    if on != "ray":
        raise DanluError(
            f"{on!r} is nothing to serve on.",
            where="serve",
            hint="--on ray, or nothing: on this machine",
        )
    from danlu.serving import on_ray

    on_ray.serve(paths, settings, address, replicas)


def _check_libraries() -> None:
    from importlib.util import find_spec

    for name in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
        if find_spec(name) is None:
            raise MissingExtra(name, "serve", "danlu serve")


class _LineFormatter(logging.Formatter):
    """One line for each record, whatever a client sent: control characters escaped, cut. Only the
    traceback of a fault of the server follows on further lines."""

    def format(self, record: logging.LogRecord) -> str:
        message = escape_controls(record.getMessage().strip(), one_line=True)
        cut = message if len(message) <= _LONGEST_LINE else f"{message[:_LONGEST_LINE]}..."
        line = f"{self.formatTime(record)} {cut}"
        if record.exc_info is None:
            return line
        traceback = escape_controls(self.formatException(record.exc_info))
        return f"{line}\n{traceback[-_LONGEST_TRACEBACK:]}"


def _log_to_stderr() -> None:
    # uvicorn would log a warning for everything that clients send and that is no HTTP.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    for name in ("uvicorn.error", "asyncio"):  # faults of the server: rare, and with a traceback
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).propagate = False
    if not log.handlers:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def _bind(settings: Settings) -> socket.socket:
    """The socket, bound before models are opened: an address in use is reported at once."""
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


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # it is optional, and not for Windows
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(
    paths: dict[str, Path], settings: Settings, token: str | None, end: socket.socket
) -> None:
    from danlu.serving.pool.pool import Pool

    pool = Pool(paths, settings)
    signals = _Signals()
    starting = asyncio.get_running_loop().create_task(pool.start())
    await asyncio.sleep(0.01)  # the workers start; while they import, so does this process
    from danlu.serving.http.app import build
    from danlu.serving.http.http_server import HttpServer

    try:
        await signals.wait_for(starting)
        if signals.number:
            return
        server = HttpServer(settings, end)
        server.use(build(pool, token, server.open_connections))
        _freeze_garbage_collection()
        end.listen(2048)  # a client that reads the address below may ask at once
        print(_url(settings, end), flush=True)
        log.info("serving %s", ", ".join(paths))
        running = asyncio.get_running_loop().create_task(server.serve(sockets=[end]))
        signals.on_hangup = lambda: _swap(pool)
        await signals.wait_for(running)
        if not running.done():
            await _drain(pool, server, settings.drain_seconds)
        await running
    finally:
        await pool.close()


def _freeze_garbage_collection() -> None:
    """Leave what is there from the start out of garbage collection: looking through all of it takes
    a tenth of a second, in which nobody is answered."""
    gc.collect()
    gc.freeze()


def _url(settings: Settings, end: socket.socket) -> str:
    host, port = end.getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


async def _swap(pool: Pool) -> None:
    for name in pool.models:
        try:
            await pool.swap(name)
            log.info("%s: read anew", name)
        except DanluError as error:
            log.error("%s: the model before stays: %s", name, error)


async def _drain(pool: Pool, server: HttpServer, seconds: float) -> None:
    """Answer what was accepted; requests that come meanwhile get 503."""
    pool.draining = True
    log.info("draining: %d accepted requests are being answered", pool.waiting)
    until = time.monotonic() + seconds
    while pool.waiting and time.monotonic() < until:
        await asyncio.sleep(0.01)
    if pool.waiting:
        log.error("%d accepted requests were not answered within %g s", pool.waiting, seconds)
    # Connections that wait to be accepted get 503 as all others do ...
    server.refuse_connections()
    for _ in range(_HANDOVER_LOOKS):
        await asyncio.sleep(_LOOK_SECONDS)
    server.stop_listening()
    # ... and so do requests on connections that are open.
    for _ in range(_LINGER_LOOKS):
        if not server.open_connections():
            break
        await asyncio.sleep(_LOOK_SECONDS)
    log.info(
        "ended: %d requests accepted, %d answered", pool.accepted, pool.accepted - pool.waiting
    )
    server.should_exit = True


class _Signals:
    """Hears signals: the first SIGTERM or SIGINT is in `number`, a second one ends the process."""

    def __init__(self) -> None:
        self.number = 0
        self.on_hangup: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._heard = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        if sys.platform != "win32":
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _end(self, number: int) -> None:
        if self.number:
            os._exit(128 + number)  # workers end with this process
        self.number = number
        self._heard.set()

    def _hang_up(self) -> None:
        if self.on_hangup is not None:
            task = asyncio.get_running_loop().create_task(self.on_hangup())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def wait_for(self, task: asyncio.Task[None]) -> None:
        """Wait until a task is done or a signal came. Raises what the task raises."""
        heard = asyncio.get_running_loop().create_task(self._heard.wait())
        await asyncio.wait({task, heard}, return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        if task.done():
            task.result()
