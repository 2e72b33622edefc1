"""Best learning rates at width 128 and at width 1024, under muP and the standard parametrization.

    python benchmarks/transfer.py                            both networks; about 15 minutes of one core
    python benchmarks/transfer.py --cases mlp --seeds 3
    python benchmarks/transfer.py --json

At each width the learning rate is searched on a grid with steps of a factor sqrt(2): five rates
first, then further ones on the side of the best until at least two lie on both sides of it. The
loss of a rate is the validation loss after the last update, averaged over seeds; all rates use the
same seeds. The search at one width does not use the result of the other."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from measuring import Neighbours, machine, machine_line, table

DATA = Path(os.environ.get("DANLU_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
NARROW, WIDE = 128, 1024
STEP = math.sqrt(2)
START = 2.0**-7  # the middle of the first five rates
NEVER = 1000.0  # the loss of a training that broke


def mlp(width: int, parametrization: str, seed: int) -> dict[str, Any]:
    """784-width-width-10 on Fashion-MNIST, less than an epoch."""
    return {
        "task": "classification",
        "data": {
            "source": {"name": "idx", "path": str(DATA / "fashion_mnist")},
            "target": "label",
            "split": {"name": "random", "validation": 0.1, "test": 0},
            "checks": "off",
        },
        "model": {
            "name": "mlp", "hidden": [width, width], "dropout": 0.0, "parametrization": parametrization, "base_width": NARROW,
        },
        "optimizer": {"name": "adamw", "learning_rate": START},
        "schedule": {"name": "linear", "warmup": 0.05},
        "train": {"steps": 400, "batch_size": 128, "precision": "float32", "compile": False, "threads": 1, "seed": seed},
    }  # fmt: skip


def gpt(width: int, parametrization: str, seed: int) -> dict[str, Any]:
    """Two blocks of four heads on tinyshakespeare, by characters."""
    return {
        "task": {"name": "language_modeling", "context": 64},
        "data": {
            "source": {"name": "text", "path": str(DATA / "tinyshakespeare" / "input.txt")},
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
            "split": {"name": "in_order", "validation": 0.1, "test": 0},
        },
        "model": {
            "name": "gpt", "num_layers": 2, "num_heads": 4, "width": width, "parametrization": parametrization, "base_width": NARROW,
        },
        "optimizer": {"name": "adamw", "learning_rate": START, "beta2": 0.99, "weight_decay": 0.1},
        "schedule": {"name": "linear", "warmup": 0.1},
        "train": {
            "steps": 60, "batch_size": 8, "clip_norm": 1.0, "precision": "bfloat16", "compile": False, "threads": 1, "seed": seed,
        },
    }  # fmt: skip


CASES = {
    "mlp": (mlp, "MLP 784-w-w-10, Fashion-MNIST, 400 updates"),
    "gpt": (gpt, "GPT of 2 blocks, tinyshakespeare, 60 updates"),
}
ROWS = {"mlp": 6000, "gpt": 128}  # validation rows that score


class Search:
    """The search of a learning rate for one network, width and parametrization."""

    def __init__(self, case: str, width: int, parametrization: str, seeds: int) -> None:
        self.case, self.width, self.parametrization, self.seeds = (
            case,
            width,
            parametrization,
            seeds,
        )
        self.losses: dict[int, float] = {}  # by the number of steps of the grid from START
        self.seconds = 0.0  # of processor time in updates

    def run(self) -> Search:
        """Search until the best rate has two worse ones on each side."""
        for power in range(-2, 3):
            self.try_out(power)
        while True:
            missing = [
                self.best + side for side in (-2, -1, 1, 2) if self.best + side not in self.losses
            ]
            if not missing:
                return self
            self.try_out(missing[0])

    @property
    def best(self) -> int:
        """The place of the best rate."""
        return min(self.losses, key=lambda place: self.losses[place])

    def try_out(self, power: int) -> None:
        """Find the loss of one rate of the grid."""
        self.losses[power] = statistics.fmean(
            self._loss(START * STEP**power, seed) for seed in range(self.seeds)
        )
        _say(
            f"{self.case} {self.parametrization} {self.width}: rate {START * STEP**power:.5f} loss {self.losses[power]:.4f}"
        )

    def _loss(self, rate: float, seed: int) -> float:
        """The validation loss after the last update; its updates' time is added to `seconds`."""
        import danlu
        from danlu.training.setup import build_training
        from danlu.training.step import NonFiniteError

        recipe = danlu.read_recipe(
            CASES[self.case][0](self.width, self.parametrization, seed),
            {"optimizer.learning_rate": rate},
        )
        built = build_training(recipe)
        began = time.process_time()
        try:
            for n in range(built.plan.total_steps):
                built.update(n)
        except NonFiniteError:
            return NEVER
        finally:
            self.seconds += time.process_time() - began
        rows = built.data.splits["validation"][: ROWS[self.case]]
        return float(
            built.evaluator.score(built.state.module, "validation", rows, final=False).values[
                "loss"
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        grid = {f"{START * STEP**power:.6g}": loss for power, loss in sorted(self.losses.items())}
        return {
            "width": self.width,
            "parametrization": self.parametrization,
            "losses": grid,
            "seconds": self.seconds,
        }


def compared(narrow: Search, wide: Search) -> dict[str, Any]:
    """What the rate found at the narrow width is worth at the wide one."""
    share, trainings = narrow.seconds / wide.seconds, len(wide.losses)
    if narrow.best not in wide.losses:
        wide.try_out(narrow.best)
    moved, own = wide.losses[narrow.best], wide.losses[wide.best]
    return {
        "network": CASES[narrow.case][1],
        "parametrization": narrow.parametrization,
        "best_narrow": START * STEP**narrow.best,
        "best_wide": START * STEP**wide.best,
        "steps_apart": wide.best - narrow.best,
        "loss_moved": moved,
        "loss_tuned": own,
        "worse": moved / own - 1,
        "narrow_trainings": len(narrow.losses) * narrow.seeds,
        "wide_trainings": trainings * wide.seeds,
        "share_of_compute": share,
        "searches": [narrow.as_dict(), wide.as_dict()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument(
        "--parametrizations", nargs="+", choices=("mup", "standard"), default=["mup", "standard"]
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    if not (DATA / "fashion_mnist").is_dir() or not (DATA / "tinyshakespeare").is_dir():
        sys.exit(
            f"Fashion-MNIST and tinyshakespeare are not at {DATA}: set DANLU_DATA to the folder that holds them"
        )
    neighbours, comparisons = Neighbours(), []
    for case in arguments.cases:
        for parametrization in arguments.parametrizations:
            narrow, wide = (
                Search(case, width, parametrization, arguments.seeds).run()
                for width in (NARROW, WIDE)
            )
            comparisons.append(compared(narrow, wide))
    result = {
        "machine": machine(),
        "cores_used_by_others": neighbours.cores(),
        "seeds": arguments.seeds,
        "rows": comparisons,
    }
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _report(result: dict[str, Any]) -> str:
    heads = [
        "network", "parametrization", f"best rate at {NARROW}", f"best rate at {WIDE}", "steps of sqrt(2) apart",
        f"loss at {WIDE}, rate of {NARROW}", f"loss at {WIDE}, tuned there", "worse by", f"time of tuning at {NARROW} over {WIDE}",
    ]  # fmt: skip
    rows = [
        [
            comparison["network"], comparison["parametrization"], f"{comparison['best_narrow']:.5f}", f"{comparison['best_wide']:.5f}", f"{comparison['steps_apart']:+d}",
            f"{comparison['loss_moved']:.4f}", f"{comparison['loss_tuned']:.4f}", f"{comparison['worse']:.2%}", f"{comparison['share_of_compute']:.1%}",
        ]
        for comparison in result["rows"]
    ]  # fmt: skip
    title = f"The best learning rate at width {NARROW} and at {WIDE} (validation loss, mean of {result['seeds']} seeds)"
    return "\n".join(
        [
            title,
            "",
            machine_line(result["machine"], result["cores_used_by_others"]),
            "",
            table(heads, rows),
        ]
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
