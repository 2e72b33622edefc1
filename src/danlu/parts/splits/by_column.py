"""A column of the table says which split each row belongs to.

The column is not an input of the model. Its values are compared without regard to case.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from danlu.data.fingerprints import value_codes
from danlu.data.splitting import shuffled_rows, split_column
from danlu.errors import DataError
from danlu.recipe import Options
from danlu.terms import Column, Table


class Config(Options):
    """The column, and which of its values mean which split."""

    column: str = Field(description="The column that names the split of each row.")
    train_values: list[str] = Field(
        default=["train", "training"], min_length=1, description="Values that mean train."
    )
    validation_values: list[str] = Field(
        default=["validation", "valid", "val", "dev"], description="Values that mean validation."
    )
    test_values: list[str] = Field(
        default=["test", "testing"], description="Values that mean test."
    )
    validation_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the training rows drawn for validation where the column names "
        "none; 0: none.",
    )

    @model_validator(mode="after")
    def _one_meaning_each(self) -> Config:
        values = [
            value.casefold()
            for value in [*self.train_values, *self.validation_values, *self.test_values]
        ]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"a value must mean one split ({', '.join(twice)} is listed twice)")
        return self


def decided_by(config: Config) -> str:
    """The column that is no input of the model, since the split goes by it."""
    return config.column


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted. DataError naming the first row whose value means no split."""
    column = split_column(table, config.column, "by_column")
    if column.kind == "image" or column.values.ndim > 1:
        raise DataError(
            f"column {column.name} holds {column.kind} and cannot name splits.", where=table.origin
        )
    number = {"train": 0, "validation": 1, "test": 2}
    meaning = {
        value.casefold(): number[split]
        for split in number
        for value in getattr(config, f"{split}_values")
    }
    distinct, first, inverse = np.unique(
        value_codes(column), return_index=True, return_inverse=True
    )
    splits = np.zeros(len(distinct), dtype=np.int64)
    for index, row in enumerate(first):
        text = _as_text(column, int(row))
        if text is None or text.casefold() not in meaning:
            raise DataError(
                f"{'a missing value' if text is None else repr(text)} means no split.",
                where=f"{table.where(int(row))}, column {column.name}",
                hint="name it in train_values, validation_values or test_values of data.split "
                f"(known are {', '.join(meaning)})",
            )
        splits[index] = meaning[text.casefold()]
    rows = splits[inverse]
    return _complete(
        config, table, {name: np.flatnonzero(rows == split) for name, split in number.items()}, seed
    )


def _as_text(column: Column, row: int) -> str | None:
    """The value as a recipe would write it: 1 for 1.0, true for a boolean."""
    value = column.python_value(row)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    return value if value is None else str(value).strip()


def _complete(
    config: Config, table: Table, splits: dict[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    train = splits["train"]
    if not len(train):
        raise DataError(
            f"column {config.column} gives no row to train.",
            where=table.origin,
            hint="name its values in data.split.train_values",
        )
    if len(splits["validation"]) or not config.validation_share:
        return splits
    count = max(1, round(config.validation_share * len(train)))
    if count >= len(train):
        raise DataError(
            f"{len(train):,} training row(s) are too few to draw a validation split from.",
            where=table.origin,
            hint="set data.split.validation_share to 0",
        )
    order = shuffled_rows(len(train), seed)
    return {
        **splits,
        "train": train[np.sort(order[count:])],
        "validation": train[np.sort(order[:count])],
    }
