"""A connection to a Ray cluster. Extra `ray`."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from danlu.errors import MissingExtra, RunError

LOCAL = "local"  # the address of a new cluster on this machine alone
_LOOPBACK = "127.0.0.1"
_LARGEST_PORT = 65_535
_PROBE_SECONDS = 5.0  # that a host has to accept a connection, and to greet
_CONNECT_SECONDS = 15.0  # that a running cluster has to let this process in
_CHECK_SECONDS = 5.0  # between two questions whether the cluster is there
_SHUTDOWN_SECONDS = 3.0  # that the library has to leave a lost cluster
_LOST_SECONDS = 10.0  # without an answer after which a cluster counts as lost
_START_SECONDS = 120.0  # that a new cluster has to start
# The first bytes of an HTTP/2 connection, an empty SETTINGS frame behind them; every server answers
# with a frame of settings.
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEAD, _SETTINGS = 9, 4
# Seconds, in Ray's own settings: how long it waits for a cluster that does not answer, before it
# gives up. Its own values let a study hang for minutes.
_PATIENCE = {
    "RAY_gcs_rpc_server_connect_timeout_s": "5",
    "RAY_gcs_server_request_timeout_seconds": "10",
    "RAY_py_gcs_connect_timeout_s": "10",
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "5",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "5",
}


class RayCluster:
    """A connection to the cluster at `address`; None or LOCAL: a new one on this machine alone,
    whose sockets listen on the loopback interface, never one that runs already. A context manager.

    `required_by` says what needs the cluster, and `option` names the setting of its address: both
    appear in messages. While the context lasts, what Ray prints goes to stderr. Raises MissingExtra
    without the library, RunError where no cluster answers.
    """

    def __init__(
        self, address: str | None, required_by: str = "tune.on: ray", option: str = "tune.address"
    ) -> None:
        self.address = address or LOCAL
        self.required_by = required_by
        self.option = option

    def __enter__(self) -> RayCluster:
        self.environment_before = dict(os.environ)
        os.environ.update({**_PATIENCE, **os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
        self.temporary_folder: str | None = None
        self.connected_here = False
        self.is_lost = False
        self.next_check_at = 0.0
        try:
            self._connect()
        except BaseException:
            self._disconnect()
            raise
        self.stdout_redirect = contextlib.redirect_stdout(sys.stderr)
        self.stdout_redirect.__enter__()
        self.answered_at = time.monotonic()
        return self

    def _connect(self) -> None:
        options = self._local_options() if self.address == LOCAL else {}
        try:
            import ray
        except ImportError:
            raise MissingExtra("Ray", "ray", self.required_by) from None
        self.connected_here = not ray.is_initialized()
        try:
            if self.connected_here:
                _probe(self.address)
                with _time_limit(_START_SECONDS if options else _CONNECT_SECONDS):
                    ray.init(
                        address=self.address,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        **options,
                    )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise RunError(
                f"there is no Ray cluster at {self.address}: {reason}",
                hint=f"start one by `ray start --head` and give its address as {self.option}; one "
                "that asks for a token wants RAY_AUTH_MODE and RAY_AUTH_TOKEN here as well",
            ) from None
        if self.connected_here and options and ray.util.get_node_ip_address() != _LOOPBACK:
            raise RunError(
                "Ray would listen on every network of this machine, because it was imported before "
                "this cluster.",
                hint="leave `import ray` out, or set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before it",
            )

    def _local_options(self) -> dict[str, Any]:
        """The options of a cluster that nobody else can reach: on the loopback interface, behind a
        token, in a folder of its own. Ray says so in the environment, which its processes share."""
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else 127.0.0.1 is not taken
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        home = os.environ.get("RAY_TMPDIR") or None
        self.temporary_folder = tempfile.mkdtemp(prefix="danlu-ray-", dir=home)
        return {
            "include_dashboard": False,
            "_node_ip_address": _LOOPBACK,
            "_temp_dir": self.temporary_folder,
        }

    def __exit__(self, *raised: object) -> None:
        self._disconnect()
        self.stdout_redirect.__exit__(None, None, None)

    def check(self) -> None:
        """Raise RunError where the connected cluster has not answered for _LOST_SECONDS. Call it
        again and again while waiting for the cluster; it asks every few seconds."""
        import ray

        now = time.monotonic()
        if now < self.next_check_at:
            return
        self.next_check_at = now + _CHECK_SECONDS
        try:
            is_client = self.address.startswith("ray://")
            _probe(self.address if is_client else ray.get_runtime_context().gcs_address)
            self.answered_at = time.monotonic()
        except (OSError, ValueError) as error:
            if time.monotonic() - self.answered_at > _LOST_SECONDS:
                raise self.lost(str(error)) from None

    def lost(self, reason: str) -> RunError:
        """The error of a cluster that answered before and does not now; the connection to it is
        given up."""
        self.is_lost = True
        return RunError(
            f"the Ray cluster at {self.address} was lost: {reason}",
            hint="start the cluster again, and run the same command: it goes on from there",
        )

    def _disconnect(self) -> None:
        if self.connected_here:
            import ray

            if self.is_lost:
                _leave_lost_cluster()
            else:
                ray.shutdown()
        if self.temporary_folder is not None:
            shutil.rmtree(self.temporary_folder, ignore_errors=True)
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            if name in self.environment_before:
                os.environ[name] = self.environment_before[name]
            else:
                del os.environ[name]

    def __str__(self) -> str:
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"a Ray cluster of {nodes} node{'s' if nodes > 1 else ''}"


def _leave_lost_cluster() -> None:
    """Leave a cluster that may never answer again: the library would wait for it without end."""
    import ray

    atexit.unregister(ray.shutdown)
    leaving = threading.Thread(target=ray.shutdown, name="leave Ray", daemon=True)
    leaving.start()
    leaving.join(_SHUTDOWN_SECONDS)
    if leaving.is_alive():
        atexit.register(_end_at_once)


def _end_at_once() -> None:
    """End the process: its exit would crash in the library, whose threads still wait."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(2)


def _probe(address: str) -> None:
    """Raise OSError or ValueError where nothing at the host and port of an address speaks Ray's
    protocol: Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    if int(port) > _LARGEST_PORT:
        raise ValueError(f"a port is a number up to {_LARGEST_PORT}, and not {port}")
    with socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return
        connection.sendall(_HTTP2_GREETING)
        answer = connection.recv(_FRAME_HEAD)
    if len(answer) < _FRAME_HEAD or answer[3] != _SETTINGS:
        raise ValueError("what listens there does not speak Ray's protocol (gRPC)")


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds; in the main thread alone, and as soon
    as the library that runs there comes back to Python."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it does not answer within {seconds:.0f} s")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
