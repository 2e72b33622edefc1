"""LitServe: a LitAPI with batching, as its guide "Speed up serving by 200x" shows an image classifier."""

from __future__ import annotations

import litserve as ls
import torch

from servers.apps.network import network


class Classifier(ls.LitAPI):
    """Images to probabilities."""

    artifact = ""

    def setup(self, device: str) -> None:
        self.network = network(self.artifact)

    def decode_request(self, request):  # LitServe makes a query parameter of an annotation
        return torch.tensor(request["row"]["image"], dtype=torch.uint8)

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.network(images)

    def unbatch(self, output: torch.Tensor) -> list[list[float]]:
        return output.tolist()

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"probabilities": output}


def run(artifact: str, port: int, workers: int) -> None:
    """Serve until SIGTERM."""
    api = Classifier(max_batch_size=64, batch_timeout=0.005)
    api.artifact = artifact
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
