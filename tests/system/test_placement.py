"""Where tensors live is decided by rules over the work of a step, and deciding costs no import of the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from danlu.recipe import Train
from danlu.system.placement import decide_auto, forward_flops, placement_for


class Net(nn.Module):
    """Strided, grouped and dense layers, one of them used twice; with normalization and dropout,
    which hold state or draw."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4)
        )
        self.again = nn.Linear(5, 5, bias=False)
        self.last = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 4 * 5, 7))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.last(self.again(self.again(self.first(inputs["image"]))))


def test_the_work_of_layers_is_what_torch_counts() -> None:
    net, inputs = Net(), {"image": torch.randn(3, 3, 11, 13)}
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with FlopCounterMode(display=False) as counter:
        net.eval()(inputs)
    net.train()
    assert forward_flops(net, inputs) == counter.get_total_flops() > 0
    assert net.training, "the mode must be put back"
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(layer._forward_hooks for layer in net.modules())


@pytest.mark.parametrize(("work", "threads"), [(1e6, 1), (1e12, 4)])
def test_a_step_too_small_to_share_runs_on_one_thread(work: float, threads: int) -> None:
    train = Train(device="cpu")
    placement = placement_for(train, {"threads": 4})
    assert decide_auto(placement, train, lambda: work).threads == threads
    asked = Train(device="cpu", threads=3)
    assert decide_auto(placement_for(asked), asked, lambda: work).threads == 3, (
        "what the recipe says is not overruled"
    )


@pytest.mark.parametrize(
    ("flags", "work", "precision"),
    [
        ({"avx512f"}, 1e12, "float32"),
        ({"avx512f", "avx512_bf16"}, 1e8, "float32"),
        ({"avx512f", "avx512_bf16"}, 1e11, "bfloat16"),
        ({"avx512_bf16", "amx_bf16"}, 3e8, "bfloat16"),
    ],
)
def test_a_cpu_takes_bfloat16_where_it_multiplies_it_faster(
    monkeypatch, flags, work, precision
) -> None:
    monkeypatch.setattr("danlu.system.machine.instruction_sets", lambda: frozenset(flags))
    train = Train(device="cpu")
    assert decide_auto(placement_for(train), train, lambda: work).precision == precision
    asked = Train(device="cpu", precision="float32")
    assert decide_auto(placement_for(asked), asked, lambda: work).precision == "float32", (
        "what the recipe says is not overruled"
    )


PROGRAM = """
import sys, danlu
recipe = {"task": "classification", "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"},
          "model": {"name": "mlp", "hidden": [5]}, "train": {"epochs": 2}}
danlu.train(recipe, sys.argv[1])
print(*(name for name in ("torch._dynamo", "torch._inductor", "sympy", "pandas") if name in sys.modules))
"""


def test_a_whole_training_imports_no_compiler(tmp_path: Path) -> None:
    """It would cost 0.8 s before the first update."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on Python 3.11
def test_compiled_programs_lie_in_a_folder_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch loads code from there; its own choice is a name below /tmp that any user can take first."""
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    placement = placement_for(Train(compile=True, device="cpu"))
    placement.compiled(nn.Linear(2, 2))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "own")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    placement.compiled(nn.Linear(2, 2))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")
    assert (tmp_path / "cache" / "compiled").stat().st_mode & 0o077 == 0
