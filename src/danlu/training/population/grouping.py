"""Which recipes can be trained in one stack: those with the same shapes and data; what each trial
has of its own may differ."""

from __future__ import annotations

import json
from typing import cast

from danlu import registry
from danlu.recipe import Recipe

# what each trial may have of its own: it changes no shape, no data and no operator
_OWN_SECTIONS = ("name", "optimizer", "schedule", "watchers")
_OWN_TRAIN = (
    "seed",
    "epochs",
    "steps",
    "least_steps",
    "clip_norm",
    "clip_value",
    "save_every",
    "keep",
)
_OWN_REGULARIZATION = ("l1", "l2", "early_stopping", "restore_best")
# the watchers that can end a trial; the others only report
STOPPING_WATCHERS = ("divergence", "early_stopping")


def stack_key(recipe: Recipe) -> str:
    """Equal for recipes that can be trained in one stack: a recipe without what each trial has of
    its own, which is optimizer and schedule, seed, length, clipping, penalties, label smoothing,
    and dropout above 0."""
    whole = recipe.as_dict()
    for name in _OWN_SECTIONS:
        whole.pop(name, None)
    for name in _OWN_TRAIN:
        whole["train"].pop(name, None)
    for name in _OWN_REGULARIZATION:
        whole["regularization"].pop(name, None)
    whole["loss"].pop("label_smoothing", None)
    whole.pop("tune", None)
    whole["ema"] = whole["regularization"].pop("ema_decay", None) is not None
    whole["spares_tables"] = registry.optimizer_facts(recipe.optimizer.name).spares_tables
    whole["model"] = _without_shares(whole["model"])
    return json.dumps(whole, sort_keys=True, default=str)


def _without_shares(value: object) -> object:
    """Options with every dropout above 0 as "some": without dropout, a model may have no such layer
    at all."""
    if isinstance(value, dict):
        options = cast("dict[str, object]", value)
        return {
            name: ("some" if option else "none")
            if "dropout" in name and isinstance(option, int | float)
            else _without_shares(option)
            for name, option in options.items()
        }
    if isinstance(value, list):
        return [_without_shares(entry) for entry in cast("list[object]", value)]
    return value


def reason_not_stackable(recipe: Recipe) -> str:
    """Why a recipe cannot be trained in a stack, in words; "" where it can."""
    train = recipe.train
    against = {
        "the task trains two sides against each other": registry.task_facts(recipe.task.name).step
        == "adversarial",
        "train.micro_batch cuts batches": train.micro_batch is not None,
        "train.on_nan goes back or leaves updates out": train.on_nan != "stop",
        "train.compile asks for a compiled model": train.compile is True,
        "train.progressive_resizing changes shapes": train.progressive_resizing is not None,
        "data.test_time_augmentation asks every model several times": bool(
            recipe.data.test_time_augmentation
        ),
        "section finetune changes the model": recipe.finetune.lora is not None,
        "the model is code of yours": recipe.model.name == "python",
        f"the model {recipe.model.name} draws on another library": recipe.model.name
        in ("pretrained", "keras"),
    }
    return next((reason for reason, holds in against.items() if holds), "")
