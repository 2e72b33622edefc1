"""BentoML: a service with adaptive batching, as its guide of that name shows it; and its limit on what is under way."""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import numpy as np
import torch
from bentoml.validators import DType, Shape

from servers.apps.network import network

Images = Annotated[np.ndarray, Shape((-1, 28, 28)), DType("uint8")]


@bentoml.service(
    workers=int(os.environ["BENTO_WORKERS"]),
    traffic={"timeout": 30, "max_concurrency": int(os.environ["BENTO_MOST"])},
)
class Classifier:
    """Images to probabilities."""

    def __init__(self) -> None:
        self.network = network(os.environ["BENTO_ARTIFACT"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=500)
    def classify(self, image: Images) -> np.ndarray:
        with torch.inference_mode():
            return self.network(torch.from_numpy(image)).numpy()
