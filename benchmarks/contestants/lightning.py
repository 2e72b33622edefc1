"""PyTorch Lightning: bare, in the mode it has for measuring its own overhead; and as its guide shows."""

from __future__ import annotations

import logging
import tempfile
import warnings
from typing import Any

from cases import Work
from measuring import Clock, Timing

NAME = "Lightning"
NEEDS = ("lightning",)
STYLES = {
    "bare": "Trainer(barebones=True): no log, checkpoint or progress; whole batches gathered at once",
    "usual": "Trainer() with its defaults: log, checkpoint an epoch, progress bar; rows from a TensorDataset in a DataLoader",
}


def run(work: Work, style: str) -> tuple[Timing, list[Any]]:
    """Train; see contestants."""
    import lightning
    from torch.nn.functional import cross_entropy

    from contestants.loading import bare_loader, usual_loader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    clock, usual = Clock(), style == "usual"

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = work.network(channels_last=not usual)

        def training_step(self, batch: Any, index: int) -> Any:
            images, labels = batch
            loss = cross_entropy(self.network(images), labels)
            if usual:
                self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return work.torch_optimizer(self.parameters())

        def on_train_start(self) -> None:
            clock.start()

        def on_train_end(self) -> None:
            clock.stop()

    net = Net()
    with tempfile.TemporaryDirectory(dir=work.folder) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        common: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": work.epochs,
            "default_root_dir": folder,
        }
        trainer = (
            lightning.Trainer(**common) if usual else lightning.Trainer(barebones=True, **common)
        )
        trainer.fit(net, usual_loader(work) if usual else bare_loader(work))
    return clock.timing(work.steps), [parameter.detach() for parameter in net.parameters()]
