"""danlu's default cnn in plain PyTorch, with the weights of an artifact: what a user of another server would write.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional


def convolution(channels: int, width: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(width),
    ]


class Block(nn.Module):
    """A residual block; the way around is pooled where the image shrinks."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(channels, width, 3, stride), nn.ReLU(), *convolution(width, width, 3)
        )
        self.around = (
            nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False),
                *convolution(channels, width, 1),
            )
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return functional.relu(self.body(x_BCHW) + self.around(x_BCHW))


class Network(nn.Module):
    """uint8 images (B, 28, 28) -> probabilities (B, 10)."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        blocks = [Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2)]
        self.body = nn.Sequential(*convolution(1, 32, 5, stride=2), nn.ReLU(), *blocks)
        self.head = nn.Linear(128, 10)

    def forward(self, pixels_BHW: Tensor) -> Tensor:
        x_BCHW = ((pixels_BHW / 255 - self.mean) / self.std)[:, None]
        return self.head(self.body(x_BCHW).mean((2, 3))).softmax(1)


def network(artifact: str | Path) -> Network:
    """The network of an artifact of recipes/fashion_mnist_cnn.yaml, ready to answer, on one
    thread."""
    torch.set_num_threads(1)
    folder = Path(artifact)
    folder = folder / "artifact" if (folder / "artifact").is_dir() else folder
    about = json.loads((folder / "artifact.json").read_bytes().splitlines()[0])
    (column,) = about["preprocessing"]["columns"]
    pixels = column["steps"][-1]["state"]["pixels"]
    built = Network(pixels["mean"][0], pixels["std"][0])
    weights = load_file(folder / "weights.safetensors")
    # both hold the layers in the same order, under other names
    names = [name for name in built.state_dict() if not name.endswith("num_batches_tracked")]
    theirs = sorted(
        (name for name in weights if not name.endswith("num_batches_tracked")), key=_order
    )
    built.load_state_dict(
        dict(zip(names, (weights[name] for name in theirs), strict=True)), strict=False
    )
    return built.eval().to(memory_format=torch.channels_last)


def _order(name: str) -> tuple[object, ...]:
    """The place of an artifact's weight in `Network.state_dict()`."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    *path, kind = name.split(".")
    ways = {"body": 0, "around": 1}
    return (
        *((0, int(part)) if part.isdigit() else (1, ways[part]) for part in path),
        (2, kinds.index(kind)),
    )
