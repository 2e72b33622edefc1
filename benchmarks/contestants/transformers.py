"""The Trainer of Hugging Face's transformers: bare, and with its defaults."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

from cases import Work
from measuring import Clock, Timing

NAME = "HF Trainer"
NEEDS = ("transformers", "accelerate")
STYLES = {
    "bare": "no log, checkpoint, progress bar or clipping; whole batches gathered at once",
    "usual": "its defaults (a log and a checkpoint every 500 steps, progress bar, clipping, an order of its own); rows from a TensorDataset",
}


def run(work: Work, style: str) -> tuple[Timing, list[Any]]:
    """Train; see contestants."""
    import torch
    import transformers
    from torch.nn.functional import cross_entropy

    from contestants.loading import Single, bare_loader

    transformers.logging.set_verbosity_error()
    clock, usual = Clock(), style == "usual"

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = work.network(channels_last=not usual)

        def forward(self, images: Any, labels: Any) -> dict[str, Any]:
            logits = self.network(images)
            return {"loss": cross_entropy(logits, labels), "logits": logits}

    class Watch(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            clock.stop()

    class Bare(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            return bare_loader(work, _named)

    net = Net()
    optimizer = work.torch_optimizer(net.parameters())
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    quiet: dict[str, Any] = {
        "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "max_grad_norm": 0.0, "logging_nan_inf_filter": False,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=work.folder) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=work.epochs, per_device_train_batch_size=work.batch_size, use_cpu=True,
            report_to="none", **({} if usual else quiet),
        )  # fmt: skip
        kind = transformers.Trainer if usual else Bare
        trainer = kind(
            net,
            arguments,
            train_dataset=Single(work, _named),
            optimizers=(optimizer, constant),
            callbacks=[Watch()],
        )
        trainer.train()
    return clock.timing(work.steps), [parameter.detach() for parameter in net.parameters()]


def _named(images: Any, labels: Any) -> dict[str, Any]:
    return {"images": images, "labels": labels}
