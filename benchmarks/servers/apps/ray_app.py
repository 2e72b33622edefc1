"""Ray Serve: a deployment with `serve.batch`, as its guide of dynamic batching shows it; and its limit on what waits."""

from __future__ import annotations

import tempfile
import threading
from signal import SIGINT, SIGTERM, signal
from typing import Any

import ray
import torch
from ray import serve
from starlette.requests import Request

from servers.apps.network import network


@serve.deployment(
    max_ongoing_requests=256, max_queued_requests=256, ray_actor_options={"num_cpus": 1}
)
class Classifier:
    """Images to probabilities."""

    def __init__(self, artifact: str) -> None:
        self.network = network(artifact)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def classify(self, images: list[Any]) -> list[dict[str, list[float]]]:
        with torch.inference_mode():
            found = self.network(torch.tensor(images, dtype=torch.uint8))
        return [{"probabilities": each} for each in found.tolist()]

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        return await self.classify((await request.json())["row"]["image"])


def run(artifact: str, port: int, replicas: int) -> None:
    """Serve on a cluster of this machine alone until SIGTERM."""
    ended = threading.Event()
    for number in (SIGTERM, SIGINT):
        signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
            object_store_memory=100_000_000,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(Classifier.options(num_replicas=replicas).bind(artifact))
        ended.wait()
        serve.shutdown()
        ray.shutdown()
