"""A Ray cluster of one node, which a test starts and stops."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from own_server import free_port


@contextlib.contextmanager
def local_cluster() -> Iterator[tuple[str, dict[str, str], int]]:
    """(address, environment, process number) of a cluster with two cores that nobody else may
    use."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; pip install 'danlu[ray]'")
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="danlu-ray-"))  # its sockets' paths must be short
    told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with (home / "out").open("wb") as out:
        head = subprocess.Popen(
            [
                Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
                "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={home}",
                "--object-store-memory=100000000",
            ],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env={**os.environ, **told},
        )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        end = time.monotonic() + 120
        while "Ray runtime started" not in (home / "out").read_text("utf-8"):
            assert head.poll() is None and time.monotonic() < end, (home / "out").read_text("utf-8")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", told, head.pid
        family = psutil.Process(head.pid).children(recursive=True)
    finally:
        head.terminate()
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        for process in psutil.wait_procs(family, 10)[1]:
            process.kill()
        shutil.rmtree(home, ignore_errors=True)
