"""The same app on a running Ray cluster, in as many replicas as the load needs. Extra `ray`.

A replica is the app and the pool of a plain server in a process of Ray's, with worker processes of
its own; Ray's proxies speak HTTP before it. So the token, the bound on bodies, 503 by the expected
wait and the replacing of workers are those of a plain server; the bounds on headers, connections
and slow clients are those of Ray's proxies. Every node needs danlu, and the models (and the token's
file, and keys) at the same paths: none of them is sent over the network. /metrics reports on the
replica that answers. To open a model anew, deploy again.

Source: Ray Serve's guide (deployments with an ASGI app, autoscaling), Ray 2.60.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from danlu.errors import DanluError, MissingExtra, RunError
from danlu.serving.http.security import read_token
from danlu.serving.pool.pool import Pool
from danlu.serving.protocol.refusals import Refusal
from danlu.serving.protocol.settings import Settings
from danlu.system.ray_cluster import RayCluster

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.schema import ServeStatus
    from starlette.types import ASGIApp, Receive, Scope, Send

APP = "danlu"
# Seconds that a model may have no worker before its replica reports itself ill and is replaced.
PATIENCE_SECONDS = 30.0
# Requests that a replica answers at a time, on average, above which another replica is started.
TARGET_REQUESTS = 16
_STARTS = 3  # attempts of Ray to start a replica
_CHECK_SECONDS = 5.0  # between two checks that the deployment is still there
_KEY_VARIABLES = ("DANLU_KEY_FILE", "DANLU_PASSPHRASE_FILE")


def serve(
    models: Mapping[str, Path], settings: Settings, address: str | None, replicas: str
) -> None:
    """Deploy models on a cluster until a signal, then remove them.

    models     paths by name
    address    of the cluster; None: that of RAY_ADDRESS, else of this machine
    replicas   a number, or the least and the most ("1:4")

    Raises DanluError where there is no cluster, or the app does not start."""
    low, high = parse_replicas(replicas)
    if settings.port == 0:
        raise DanluError(
            "on a cluster every node listens on the same port, so it must be named.",
            where="serve",
            hint="give another --port than 0",
        )
    _check_library()
    out = sys.stdout
    with RayCluster(address or "auto", "--on ray", "--address"), _until_signal():
        from ray import serve as ray_serve

        was_idle = not ray_serve.status().proxies
        _start_ray_serve(settings, was_idle)
        try:
            _deploy(models, settings, low, high)
            scheme = "https" if settings.tls_certificate else "http"
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            print(f"{scheme}://{host}:{settings.port}", file=out, flush=True)
            while APP in ray_serve.status().applications:
                time.sleep(_CHECK_SECONDS)
            raise RunError(
                "somebody removed the deployment.", where=f"Ray Serve, application {APP}"
            )
        finally:
            _remove(was_idle)


def parse_replicas(text: str) -> tuple[int, int]:
    """(least, most) replicas of "2" or "1:4". Raises DanluError.

    >>> parse_replicas("1:4")
    (1, 4)
    """
    least, colon, most = text.partition(":")
    with contextlib.suppress(ValueError):
        low = int(least)
        high = int(most) if colon else low
        if 1 <= low <= high:
            return low, high
    raise DanluError(
        f"{text!r} is no number of replicas.",
        where="serve",
        hint="--replicas 2, or --replicas 1:4: at least 1, at most 4",
    )


def _check_library() -> None:
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise MissingExtra("Ray", "ray", "--on ray")


class _Signalled(BaseException):
    """The first SIGTERM or SIGINT, wherever the process waits: also for a cluster that has no room
    for a replica. Not an Exception, since Ray catches those."""


@contextlib.contextmanager
def _until_signal() -> Iterator[None]:
    """Leave the `with` at the first SIGTERM or SIGINT; a second one ends the process."""

    def end_process(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def leave(number: int, frame: FrameType | None) -> None:
        for handled in old_handlers:
            signal.signal(handled, end_process)
        raise _Signalled

    old_handlers: dict[int, Any] = {}  # what signal.signal returns
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            old_handlers[number] = signal.signal(number, leave)
        yield
    except _Signalled:
        pass
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


def _start_ray_serve(settings: Settings, was_idle: bool) -> None:
    """Start Ray Serve where it does not run. Raises DanluError where the app would be open to
    strangers, or runs already."""
    from ray import serve as ray_serve

    if not was_idle:
        if settings.token_file is None:
            raise DanluError(
                "Ray Serve runs on this cluster already, and its proxies may be reached from "
                "other machines: a token is needed.",
                where="serve",
                hint="write a long random word into a file only you can read, and give "
                "--token-file FILE",
            )
        if APP in ray_serve.status().applications:
            raise RunError(
                "danlu serves on this cluster already.",
                where=f"Ray Serve, application {APP}",
                hint="end that one first",
            )
        print(
            "Ray Serve runs already: the host and port are those it was started with.",
            file=sys.stderr,
        )
        return
    tls = {"ssl_certfile": settings.tls_certificate, "ssl_keyfile": settings.tls_key}
    ray_serve.start(
        proxy_location="EveryNode",
        http_options={
            "host": settings.host,
            "port": settings.port,
            "keep_alive_timeout_s": int(settings.idle_seconds),
            **(tls if settings.tls_certificate else {}),
        },
    )


def _deploy(models: Mapping[str, Path], settings: Settings, low: int, high: int) -> None:
    """Deploy, and wait until the app answers. Raises RunError."""
    from ray import serve as ray_serve

    try:
        ray_serve.run(application(models, settings, low, high), name=APP, route_prefix="/")
    except RuntimeError as error:
        cause = _cause(ray_serve.status()) or str(error)
        raise RunError(
            f"the app did not start: {cause}",
            where=f"Ray Serve, application {APP}",
            hint="every node needs danlu with the extras serve and ray, and the models and the "
            "token's file at the same paths",
        ) from None


def application(models: Mapping[str, Path], settings: Settings, low: int, high: int) -> Application:
    """What Ray Serve runs: `low` to `high` replicas of the app."""
    from ray import serve as ray_serve

    threads = settings.threads or 1
    keys = {name: os.environ[name] for name in _KEY_VARIABLES if name in os.environ}
    scaling = {
        "min_replicas": low,
        "max_replicas": high,
        "target_ongoing_requests": TARGET_REQUESTS,
        "upscale_delay_s": 5.0,
        "downscale_delay_s": 300.0,
    }
    deployment: Any = ray_serve.deployment(  # typed by Ray for plain classes alone
        ray_serve.ingress()(Replica),
        name=APP,
        # The app decides which requests may wait: it knows how long they would.
        max_ongoing_requests=settings.queue,
        max_constructor_retry_count=_STARTS,
        graceful_shutdown_timeout_s=settings.drain_seconds + 5.0,
        graceful_shutdown_wait_loop_s=1.0,
        health_check_period_s=10.0,
        health_check_timeout_s=30.0,
        ray_actor_options={
            "num_cpus": threads,
            **({"runtime_env": {"env_vars": keys}} if keys else {}),
        },
        **({"num_replicas": low} if low == high else {"autoscaling_config": scaling}),  # type: ignore[arg-type]
    )
    options = {**settings.model_dump(), "threads": threads}
    paths = {name: str(path.absolute()) for name, path in models.items()}
    return deployment.bind(paths, options)


def _cause(status: ServeStatus) -> str:
    """The last line with an error that Ray reports of an app that does not start; "" where there is
    none."""
    if APP not in status.applications:
        return ""
    app = status.applications[APP]
    messages = [app.message, *(deployment.message for deployment in app.deployments.values())]
    lines = [line.strip() for text in messages for line in (text or "").splitlines()]
    errors = [line for line in lines if "Error" in line]
    return errors[-1] if errors else ""


def _remove(was_idle: bool) -> None:
    """Remove the app: Ray lets every replica answer what it accepted, then ends it."""
    from ray import serve as ray_serve

    if APP in ray_serve.status().applications:
        ray_serve.delete(APP)
    if was_idle and not ray_serve.status().applications:
        ray_serve.shutdown()


class Replica:
    """One replica. Ray calls every method in the thread of its event loop."""

    def __init__(self, models: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self.pool = Pool(models, Settings.model_validate(options))

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app, once its models are open."""
        from danlu.serving.http.app import build

        token = read_token(self.pool.settings)
        await self.pool.start()
        return ReplicaApp(build(self.pool, token))

    async def check_health(self) -> None:
        """Raises RuntimeError where a model has been without a worker for too long."""
        now = time.monotonic()
        for name, model in self.pool.models.items():
            seconds = now - model.down_since
            if model.worker is None and seconds > PATIENCE_SECONDS:
                raise RuntimeError(f"{name} has had no worker for {seconds:.0f} s.")

    async def __del__(self) -> None:
        await self.pool.close()


class ReplicaApp:
    """The app of a replica. It refuses to open a model anew: the other replicas would go on with
    the old one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/reload"):
            from danlu.serving.http.responses import send_refusal

            refusal = Refusal("on a cluster, deploy again to open a model anew.", status=409)
            await send_refusal(send, refusal)
            return
        await self.app(scope, receive, send)
