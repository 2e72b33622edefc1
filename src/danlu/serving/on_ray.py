"""The same app on a Ray cluster that runs already: replicas of it, as many as the load asks for, by Ray Serve. Extra `ray`.

A replica is the Gate and the Pool of a plain server in a process of Ray's, with worker processes of
its own; Ray's proxies speak HTTP before it. So the token, the limits of a body, 503 by the expected
wait and the replacing of workers are those of a plain server, and bounds on heads, connections and
slow clients those of Ray's proxies. Every node needs danlu, and the models (and the token's file,
and keys) at the same paths: nothing of them travels. /metrics tells of the replica that is asked. A
model is read anew by deploying again.

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
from typing import TYPE_CHECKING, Any

from danlu.errors import DanluError, MissingExtra, RunError
from danlu.system.ray_cluster import RayCluster
from danlu.serving.pool.pool import Pool
from danlu.serving.protocol.refusals import Refusal
from danlu.serving.protocol.settings import Settings

if TYPE_CHECKING:
    from danlu.serving.http.security import App, Receive, Scope, Send

APP = "danlu"
PATIENCE = (
    30.0  # seconds a model may be without a worker before its replica is called ill, and replaced
)
ASKED_AT_ONCE = (
    16  # requests a replica answers at a time, on average, above which another one begins
)
_STARTS = 3  # attempts of Ray to start a replica
_LOOK = 5.0  # seconds between two looks at the deployment
_KEYS = ("DANLU_KEY_FILE", "DANLU_PASSPHRASE_FILE")


def serve(
    named: Mapping[str, Path], settings: Settings, address: str | None, replicas: str
) -> None:
    """Deploy models on the cluster at `address` (None: that of RAY_ADDRESS, else of this machine)
    until a signal, then remove them.

    `replicas` is a number, or the least and the most ("1:4"). Raises DanluError where there is no
    cluster, or the app does not start."""
    low, high = replicas_of(replicas)
    if settings.port == 0:
        raise DanluError(
            "on a cluster the port is one that every node has.",
            where="serve",
            hint="give another --port than 0",
        )
    _check_library()
    out = sys.stdout
    with RayCluster(address or "auto", "--on ray", "--address"), _until_ended():
        from ray import serve as ray_serve

        fresh = not ray_serve.status().proxies
        _begin(settings, fresh)
        try:
            _deploy(named, settings, low, high)
            scheme = "https" if settings.tls_certificate else "http"
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            print(f"{scheme}://{host}:{settings.port}", file=out, flush=True)
            while APP in ray_serve.status().applications:
                time.sleep(_LOOK)
            raise RunError(
                "somebody removed the deployment.", where=f"Ray Serve, application {APP}"
            )
        finally:
            _remove(fresh)


def replicas_of(said: str) -> tuple[int, int]:
    """(least, most) replicas of "2" or "1:4". Raises DanluError."""
    least, colon, most = said.partition(":")
    with contextlib.suppress(ValueError):
        low = int(least)
        high = int(most) if colon else low
        if 1 <= low <= high:
            return low, high
    raise DanluError(
        f"{said!r} is no number of replicas.",
        where="serve",
        hint="--replicas 2, or --replicas 1:4: at least 1, at most 4",
    )


def _check_library() -> None:
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise MissingExtra("Ray", "ray", "--on ray")


class _Ended(BaseException):
    """The first SIGTERM or SIGINT, wherever it waits: also for a cluster that has no room for a
    replica. No Exception: Ray catches those."""


@contextlib.contextmanager
def _until_ended() -> Iterator[None]:
    """Leave the `with` at the first SIGTERM or SIGINT; a second one ends the process."""

    def end(number: int, frame: Any) -> None:
        for each in before:
            signal.signal(each, lambda again, _: os._exit(128 + again))
        raise _Ended

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, end)
        yield
    except _Ended:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(settings: Settings, fresh: bool) -> None:
    """Start Serve where it does not run; refuse what would be open to strangers."""
    from ray import serve as ray_serve

    if not fresh:
        if settings.token_file is None:
            raise DanluError(
                "Ray Serve runs on this cluster already, and its proxies may be reached from other machines: a token is needed.",
                where="serve", hint="write a long random word into a file only you can read, and give --token-file FILE",
            )  # fmt: skip
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
    secured = (
        {"ssl_certfile": settings.tls_certificate, "ssl_keyfile": settings.tls_key}
        if settings.tls_certificate
        else {}
    )
    ray_serve.start(
        proxy_location="EveryNode",
        http_options={
            "host": settings.host,
            "port": settings.port,
            "keep_alive_timeout_s": int(settings.idle_seconds),
            **secured,
        },
    )


def _deploy(named: Mapping[str, Path], settings: Settings, low: int, high: int) -> None:
    """Deploy, and wait until it answers. Raises RunError."""
    from ray import serve as ray_serve

    try:
        ray_serve.run(application(named, settings, low, high), name=APP, route_prefix="/")
    except RuntimeError as error:
        told = _cause(ray_serve.status()) or str(error)
        raise RunError(
            f"the app did not start: {told}", where=f"Ray Serve, application {APP}",
            hint="every node needs danlu with the extras serve and ray, and the models and the token's file at the same paths",
        ) from None  # fmt: skip


def application(named: Mapping[str, Path], settings: Settings, low: int, high: int) -> Any:
    """What Ray Serve runs: replicas of the app, `low` to `high`."""
    from ray import serve as ray_serve

    threads = settings.threads or 1
    keys = {name: os.environ[name] for name in _KEYS if name in os.environ}
    scaling = {
        "min_replicas": low, "max_replicas": high, "target_ongoing_requests": ASKED_AT_ONCE,
        "upscale_delay_s": 5.0, "downscale_delay_s": 300.0,
    }  # fmt: skip
    deployment: Any = ray_serve.deployment(
        ray_serve.ingress()(Replica),
        name=APP,
        # what may wait is decided by the app, which knows how long it would
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
    return deployment.bind({name: str(path.absolute()) for name, path in named.items()}, options)


def _cause(status: Any) -> str:
    """The last line of what Ray says of an app that does not start, "" where it says nothing."""
    told = [status.applications[APP].message] if APP in status.applications else []
    told += [
        each.message
        for each in (
            status.applications[APP].deployments.values() if APP in status.applications else ()
        )
    ]
    lines = [line.strip() for text in told for line in (text or "").splitlines() if "Error" in line]
    return lines[-1] if lines else ""


def _remove(fresh: bool) -> None:
    """Take the app away: Ray lets every replica answer what it accepted, then ends it."""
    from ray import serve as ray_serve

    status = ray_serve.status()
    if APP in status.applications:
        ray_serve.delete(APP)
    if fresh and not ray_serve.status().applications:
        ray_serve.shutdown()


class Replica:
    """One replica. Ray calls every method in the thread of its event loop."""

    def __init__(self, models: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self.pool = Pool(models, Settings.model_validate(options))

    async def __serve_build_asgi_app__(self) -> App:
        """The app, once its models are open."""
        from danlu.serving.http.app import build
        from danlu.serving.server import token_of

        token = token_of(self.pool.settings)
        await self.pool.start()
        return Whole(build(self.pool, token))

    async def check_health(self) -> None:
        """Raise where a model has been without a worker for too long."""
        now = time.monotonic()
        for name, served in self.pool.models.items():
            if served.worker is None and now - served.down_since > PATIENCE:
                raise RuntimeError(f"{name} has had no worker for {now - served.down_since:.0f} s.")

    async def __del__(self) -> None:
        await self.pool.close()


class Whole:
    """The app of a replica. One replica alone must not read a model anew: the others would answer
    by the one before."""

    def __init__(self, gate: App) -> None:
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/reload"):
            from danlu.serving.http.prediction_routes import refuse

            await refuse(
                send, Refusal("on a cluster a model is read anew by deploying again.", status=409)
            )
            return
        await self.gate(scope, receive, send)
