"""Tokens a second of gpt beside a nanoGPT-style loop, the HF Trainer and Lightning; and the time to a validation loss.

    python benchmarks/language_models.py                     both tables; about an hour on 2 cores
    python benchmarks/language_models.py --tables speed --against nanogpt --rounds 3 --steps 20
    python benchmarks/language_models.py --json

Characters of tinyshakespeare, first 90 % to train, last 10 % to validate; one CPU thread for
everyone.

speed   6 layers, 6 heads, width 384 (10.7 M parameters), context 256, batches of 8. Everyone trains the same architecture (learned
        positions, LayerNorm, GELU, tied head, no bias, no dropout) by AdamW at one rate for the same number of tokens. Pairs: danlu and
        one opponent in turn, in one process, the order swapped in every round; a ratio is taken within a round. The round before them
        warms up, and tells the loss of the whole validation text.
time    nanoGPT's setting for a CPU (4 layers, 4 heads, width 128, context 64; dropout 0): the seconds of training until the loss of
        the whole validation text is at most --target, evaluations not counted. nanoGPT: batches of 12, 2,000 steps, AdamW at 0.001.
        danlu: recipes/tinyshakespeare_small.yaml with --danlu-steps steps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from measuring import Clock, Neighbours, machine, machine_line, spread, table

HOME = Path(__file__).resolve().parents[1]
TEXT = (
    Path(os.environ.get("DANLU_DATA", HOME.parent / "shared" / "data"))
    / "tinyshakespeare"
    / "input.txt"
)
LEARNING_RATE = 1e-3
OPPONENTS = {
    "nanogpt": ("nanoGPT-style loop, float32", "torch"),
    "nanogpt_bfloat16": ("the same loop under torch.autocast(bfloat16)", "torch"),
    "transformers": (
        "HF Trainer, its GPT2LMHeadModel, float32 (its default on a CPU)",
        "transformers",
    ),
    "transformers_bfloat16": ("HF Trainer, its GPT2LMHeadModel, bf16=True", "transformers"),
    "lightning": ("Lightning, the loop's network, float32 (its default)", "lightning"),
    "lightning_bfloat16": ("Lightning, the loop's network, precision='bf16-mixed'", "lightning"),
}


@dataclass(frozen=True)
class Shape:
    """A network, a batch, and how many steps are taken."""

    layers: int
    heads: int
    width: int
    context: int
    batch_size: int
    steps: int
    warmup: int


@dataclass(frozen=True)
class Trained:
    """Seconds of training on the wall and of the processor; (step, wall seconds, validation loss)
    of every evaluation."""

    wall: float
    cpu: float
    points: list[tuple[int, float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--tables", nargs="+", choices=("speed", "time"), default=["speed", "time"])
    parser.add_argument("--against", nargs="+", choices=list(OPPONENTS), default=list(OPPONENTS))
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="pairs of the table speed, after the one that warms up",
    )
    parser.add_argument(
        "--steps", type=int, default=60, help="steps of each training of the table speed"
    )
    parser.add_argument(
        "--target",
        type=float,
        default=1.88,
        help="validation loss of the table time, nats a character",
    )
    parser.add_argument(
        "--danlu-steps", type=int, default=400, help="steps of danlu in the table time"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--pair", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not TEXT.is_file():
        sys.exit(
            f"tinyshakespeare is not at {TEXT}: set DANLU_DATA to the folder that holds tinyshakespeare/input.txt"
        )
    if arguments.pair:
        print(
            json.dumps(
                _time(arguments) if arguments.pair == "time" else _speed(arguments.pair, arguments)
            )
        )
        return
    neighbours, pairs, skipped = Neighbours(), [], []
    if "speed" in arguments.tables:
        for name in arguments.against:
            if _installed(OPPONENTS[name][1]):
                pairs.append(_in_a_process(name, arguments))
            else:
                skipped.append(
                    f"{OPPONENTS[name][0]} is skipped: {OPPONENTS[name][1]} is not installed (the extra peers)"
                )
    time = _in_a_process("time", arguments) if "time" in arguments.tables else None
    result = {
        "machine": machine(),
        "cores_used_by_others": neighbours.cores(),
        "pairs": pairs,
        "time": time,
        "skipped": skipped,
    }
    print(json.dumps(result, indent=1) if arguments.json else _report(result, arguments))


def _installed(distribution: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(distribution))
    return False


def _in_a_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    print(f"{name} and danlu", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--pair", name]
    for option in ("rounds", "steps", "target", "danlu_steps"):
        command += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, env=environment, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stderr[-4000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


# --- inside the process of one pair


def _speed(opponent: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    shape = Shape(6, 6, 384, 256, 8, arguments.steps, warmup=max(arguments.steps // 10, 1))
    rounds = []
    for number in range(arguments.rounds + 1):
        measured: dict[str, Any] = {}
        for name in ("other", "danlu") if number % 2 else ("danlu", "other"):
            trained = (
                _danlu(shape, evaluate=not number)
                if name == "danlu"
                else _other(opponent, shape, evaluate=not number)
            )
            measured[name] = asdict(trained)
        rounds.append(measured)
    losses = {name: rounds[0][name]["points"][-1][2] for name in ("danlu", "other")}
    return {
        "opponent": OPPONENTS[opponent][0],
        "shape": asdict(shape),
        "losses": losses,
        "rounds": rounds[1:],
    }


def _time(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    danlu = _danlu_small(arguments.danlu_steps)
    other = _nanogpt(Shape(4, 4, 128, 64, 12, 2000, warmup=100), narrow=False, evaluate_every=100)
    return {"danlu": asdict(danlu), "other": asdict(other)}


def _other(opponent: str, shape: Shape, *, evaluate: bool) -> Trained:
    kind, _, narrow = opponent.partition("_")
    train = {"nanogpt": _nanogpt, "transformers": _transformers, "lightning": _lightning}[kind]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return train(shape, narrow=bool(narrow), evaluate_every=shape.steps if evaluate else 0)


# --- danlu, as a user calls it


def _danlu(shape: Shape, *, evaluate: bool) -> Trained:
    return _trained(
        {
            "name": "speed",
            "task": {"name": "language_modeling", "context": shape.context, "samples": 0},
            "data": {
                "source": {"name": "text", "path": str(TEXT)},
                "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
                "split": {"name": "in_order", "train": 0.9, "validation": 0.1 if evaluate else 0, "test": 0},
            },
            "model": {
                "name": "gpt", "num_layers": shape.layers, "num_heads": shape.heads, "width": shape.width, "positions": "learned",
                "normalization": "layer", "feed_forward": "gelu", "qk_norm": False, "tied": True,
            },
            "optimizer": {"name": "adamw", "learning_rate": LEARNING_RATE, "beta2": 0.99, "weight_decay": 0.1},
            "schedule": {"name": "cosine", "warmup": shape.warmup, "final": 0.1},
            "train": {
                "steps": shape.steps, "batch_size": shape.batch_size, "clip_norm": 1.0, "threads": 1,
                **({"evaluate_every": shape.steps} if evaluate else {}),
            },
        }
    )  # fmt: skip


def _danlu_small(steps: int) -> Trained:
    from danlu import registry
    from danlu.recipe import read

    overrides = {
        "data.source.path": str(TEXT),
        "train.steps": steps,
        "train.evaluate_every": max(steps // 10, 1),
    }
    return _trained(read(HOME / "recipes" / "tinyshakespeare_small.yaml", registry, overrides))


def _trained(recipe: Any) -> Trained:
    """Train; the clock stands still while danlu evaluates."""
    import danlu
    from danlu.training import loop as training

    clock, points = Watch(), []

    class Timed(training.Training):
        def loop(self, n: int) -> None:
            with clock:
                super().loop(n)
                self.checkpoints.wait()

        def _evaluate(self, n: int) -> None:
            with clock.paused():
                super()._evaluate(n)
            points.append((n, clock.seconds(), float(self.watched["loss"])))

        def _tell(self, kind: Any, *values: Any, **others: Any) -> Any:
            if kind == "validation":
                self.watched = values[0]
            return super()._tell(kind, *values, **others)

    with (
        tempfile.TemporaryDirectory(prefix="danlu-language-models-") as folder,
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(training, "Training", Timed),
    ):
        danlu.train(recipe, Path(folder) / "run", output="lines")
    return Trained(clock.wall, clock.cpu, points)


class Watch(Clock):
    """A Clock that adds up and can be paused."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def stop(self) -> None:
        wall, cpu = self.wall, self.cpu
        super().stop()
        self.wall, self.cpu = wall + self.wall, cpu + self.cpu

    @contextlib.contextmanager
    def paused(self) -> Any:
        self.stop()
        yield
        self.start()

    def seconds(self) -> float:
        """Wall seconds so far; call while it runs."""
        self.stop()
        self.start()
        return self.wall


# --- the others


def _characters() -> tuple[Any, Any, int]:
    """(codes to train, codes to validate, vocabulary), int64."""
    import torch

    text = TEXT.read_text("utf-8")
    letters, codes = np.unique(np.array([*text]), return_inverse=True)
    cut = int(0.9 * len(codes))
    return torch.from_numpy(codes[:cut]), torch.from_numpy(codes[cut:]), len(letters)


def _validated(network: Any, codes: Any, context: int) -> float:
    """Mean loss of every character of the validation text but its first, in windows that do not
    overlap; in float32."""
    import torch
    from torch.nn.functional import cross_entropy

    network.eval()
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(codes) - 1, context * 32):
            piece = codes[begin : begin + context * 32 + 1]
            whole = (len(piece) - 1) // context
            windows = [piece[: whole * context].view(whole, context)] if whole else []
            answers = [piece[1 : whole * context + 1].view(whole, context)] if whole else []
            if (len(piece) - 1) % context:
                windows, answers = (
                    [*windows, piece[whole * context : -1][None]],
                    [*answers, piece[whole * context + 1 :][None]],
                )
            for window, answer in zip(windows, answers):
                total += cross_entropy(
                    _logits(network, window).flatten(0, 1), answer.flatten(), reduction="sum"
                ).item()
    network.train()
    return total / (len(codes) - 1)


def _last(network: Any, codes: Any, shape: Shape, clock: Watch) -> list[tuple[int, float, float]]:
    return [(shape.steps, clock.wall, _validated(network, codes, shape.context))]


def _logits(network: Any, tokens: Any) -> Any:
    outputs = network(tokens)
    return getattr(outputs, "logits", outputs)


def _nanogpt(shape: Shape, *, narrow: bool, evaluate_every: int) -> Trained:
    import torch

    from nanogpt import NanoGPT, optimizer, rate

    train, validation, vocabulary = _characters()
    torch.manual_seed(1337)
    network = NanoGPT(vocabulary, shape.layers, shape.heads, shape.width, shape.context)
    adamw, points, clock = optimizer(network, LEARNING_RATE), [], Watch()
    for step in range(shape.steps):
        clock.start()
        begins = torch.randint(len(train) - shape.context, (shape.batch_size, 1))
        windows = train[begins + torch.arange(shape.context + 1)]
        for group in adamw.param_groups:
            group["lr"] = LEARNING_RATE * rate(step, shape.steps, shape.warmup)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = network(windows[:, :-1], windows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        clock.stop()
        done = step + 1
        if evaluate_every and done % evaluate_every == 0:
            points.append((done, clock.wall, _validated(network, validation, shape.context)))
    return Trained(clock.wall, clock.cpu, points)


class Windows:
    """`dataset[n]`: the n-th window of the text and what follows each of its characters."""

    def __init__(self, codes: Any, context: int, *, named: bool) -> None:
        self.codes, self.context, self.named = codes, context, named

    def __len__(self) -> int:
        return (len(self.codes) - 1) // self.context

    def __getitem__(self, number: int) -> Any:
        begin = number * self.context
        window = self.codes[begin : begin + self.context + 1]
        if self.named:  # transformers shifts the labels by itself
            return {"input_ids": window[:-1], "labels": window[:-1]}
        return window[:-1], window[1:]


def _transformers(shape: Shape, *, narrow: bool, evaluate_every: int) -> Trained:
    import torch
    import transformers

    from nanogpt import optimizer, rate

    transformers.logging.set_verbosity_error()
    train, validation, vocabulary = _characters()
    torch.manual_seed(1337)
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=shape.context, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    network, clock = transformers.GPT2LMHeadModel(config), Watch()
    adamw = optimizer(network, LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw, lambda step: rate(step, shape.steps, shape.warmup)
    )

    class Stop(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            clock.stop()

    with tempfile.TemporaryDirectory(prefix="danlu-language-models-") as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=shape.steps, per_device_train_batch_size=shape.batch_size, use_cpu=True, bf16=narrow,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, max_grad_norm=1.0,
        )  # fmt: skip
        data = Windows(train, shape.context, named=True)
        trainer = transformers.Trainer(
            network, arguments, train_dataset=data, optimizers=(adamw, schedule), callbacks=[Stop()]
        )
        trainer.train()
    return Trained(
        clock.wall, clock.cpu, _last(network, validation, shape, clock) if evaluate_every else []
    )


def _lightning(shape: Shape, *, narrow: bool, evaluate_every: int) -> Trained:
    import logging

    import lightning
    import torch
    from torch.utils.data import DataLoader

    from nanogpt import NanoGPT, optimizer, rate

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train, validation, vocabulary = _characters()
    torch.manual_seed(1337)
    clock = Watch()

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = NanoGPT(
                vocabulary, shape.layers, shape.heads, shape.width, shape.context
            )

        def training_step(self, batch: Any, index: int) -> Any:
            return self.network(*batch)

        def configure_optimizers(self) -> Any:
            adamw = optimizer(
                self.network, LEARNING_RATE, fused=not narrow
            )  # under bf16-mixed Lightning clips no gradient of a fused one
            schedule = torch.optim.lr_scheduler.LambdaLR(
                adamw, lambda step: rate(step, shape.steps, shape.warmup)
            )
            return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_start(self) -> None:
            clock.start()

        def on_train_end(self) -> None:
            clock.stop()

    net = Net()
    loader = DataLoader(
        Windows(train, shape.context, named=False), batch_size=shape.batch_size, shuffle=True
    )  # type: ignore[arg-type]
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=shape.steps, precision="bf16-mixed" if narrow else "32-true", gradient_clip_val=1.0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(net, loader)
    return Trained(
        clock.wall,
        clock.cpu,
        _last(net.network, validation, shape, clock) if evaluate_every else [],
    )


# --- the tables


def _report(result: dict[str, Any], arguments: argparse.Namespace) -> str:
    lines = [
        "# gpt on characters of tinyshakespeare",
        "",
        machine_line(result["machine"], result["cores_used_by_others"]),
        "",
    ]
    if result["pairs"]:
        shape = result["pairs"][0]["shape"]
        lines += [
            f"## Speed: {shape['layers']} layers, width {shape['width']}, context {shape['context']}, batches of {shape['batch_size']}, "
            f"{shape['steps']} steps, 1 thread", "",
            table(["against", "its tokens/s", "danlu's", "ratio (CPU time)", "ratio (wall)", "its loss", "danlu's loss"],
                  [_row(pair) for pair in result["pairs"]]), "",
        ]  # fmt: skip
    if result["time"]:
        rows = [
            _reached(name, result["time"][key], arguments.target)
            for key, name in (("danlu", "danlu"), ("other", "nanoGPT-style loop, AdamW, float32"))
        ]
        lines += [
            f"## Time to a validation loss of {arguments.target}",
            "",
            table(["", "seconds", "steps", "loss there"], rows),
            "",
        ]
    return "\n".join(
        [
            *lines,
            "Medians over the rounds, in brackets the lowest and highest round. Above 1: danlu is faster.",
            *result["skipped"],
        ]
    )


def _row(pair: dict[str, Any]) -> list[str]:
    ours, theirs = ([round_[name] for round_ in pair["rounds"]] for name in ("danlu", "other"))
    shape = pair["shape"]
    tokens = shape["steps"] * shape["batch_size"] * shape["context"]

    def ratio(kind: str) -> str:
        middle, low, high = spread([other[kind] / own[kind] for own, other in zip(ours, theirs)])
        return f"{middle:.2f} ({low:.2f}..{high:.2f})"

    speeds = [
        f"{spread([tokens / round_['wall'] for round_ in timings])[0]:,.0f}"
        for timings in (theirs, ours)
    ]
    losses = [f"{pair['losses'][name]:.3f}" for name in ("other", "danlu")]
    return [pair["opponent"], *speeds, ratio("cpu"), ratio("wall"), *losses]


def _reached(name: str, trained: dict[str, Any], target: float) -> list[str]:
    for step, seconds, loss in trained["points"]:
        if loss <= target:
            return [name, f"{seconds:.1f}", f"{step:,}", f"{loss:.3f}"]
    step, seconds, loss = trained["points"][-1]
    return [name, f"not in {seconds:.1f}", f"{step:,}", f"{loss:.3f}"]


if __name__ == "__main__":
    main()
