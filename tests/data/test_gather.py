"""Batches gathered from arrays, images, ragged rows and windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from danlu.data.batches import lengths_of
from danlu.data.examples import Field, Ragged, Windows, take_examples
from danlu.data.gather import FieldLoader, ImageLoader, RaggedLoader, WindowLoader, field_loader
from danlu.terms import IGNORED


def loader(field: Field) -> FieldLoader:
    return field_loader(field, lambda tensor: tensor)


def test_rows_of_an_array_are_gathered_in_the_order_of_their_ids() -> None:
    rows = loader(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert rows.gather(torch.tensor([2, 0])).tolist() == [[4, 5], [0, 1]]
    assert (len(rows), rows.width, rows.longest) == (3, 2, 0)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32])
def test_codes_of_any_width_come_back_as_int64(dtype: type) -> None:
    largest = np.iinfo(dtype).max
    ragged = loader(Ragged(np.array([largest, 1, 2], dtype=dtype), np.array([0, 1, 3])))
    batch = ragged.gather(torch.tensor([0, 1]))
    assert batch.dtype == torch.int64
    assert batch.tolist() == [[largest, 0], [1, 2]]


def test_ragged_rows_are_padded_to_the_longest_of_the_batch() -> None:
    rows = loader(Ragged(np.arange(1, 7), np.array([0, 1, 1, 3, 6]), fill=9))
    assert isinstance(rows, RaggedLoader)
    assert rows.gather(torch.tensor([0, 2])).tolist() == [[1, 9], [2, 3]]
    assert rows.gather(torch.tensor([1])).tolist() == [[9]]  # an empty row still has one position
    assert rows.sizes_of(torch.tensor([3, 1])).tolist() == [3, 0]
    assert rows.longest == 3


def test_windows_reach_over_both_ends_with_their_fill() -> None:
    rows = loader(Windows(np.arange(10, 15), length=3, shift=-1, fill=7))
    assert isinstance(rows, WindowLoader)
    assert rows.gather(torch.tensor([0, 2, 4])).tolist() == [[7, 10, 11], [11, 12, 13], [13, 14, 7]]


def test_an_ignored_value_becomes_the_mark_that_losses_skip() -> None:
    rows = loader(Windows(np.array([1, 0, 2]), length=2, ignore=0))
    assert rows.gather(torch.tensor([0, 1])).tolist() == [[1, IGNORED], [IGNORED, 2]]


def test_images_are_normalised_and_their_channels_come_first() -> None:
    pixels = np.array([[[[0, 255, 51]]]], dtype=np.uint8)
    constants = {"mean": [0.0, 0.5, 0.2], "std": [1.0, 0.5, 1.0]}
    image = ImageLoader(pixels, constants, lambda tensor: tensor).gather(torch.tensor([0]))
    assert image.shape == (1, 3, 1, 1)
    assert torch.allclose(image.flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_numpy_and_torch_cut_the_same_windows_and_rows() -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(1, 100, 50)
    ids = generator.integers(0, 50, 20)
    for shift, length in ((0, 4), (-3, 5), (2, 60)):
        window = Windows(values, length, shift)
        expected: Tensor = loader(window).gather(torch.from_numpy(ids))
        assert take_examples(window, ids).tolist() == expected.tolist()
    ragged = Ragged(values, np.sort(np.append(generator.integers(0, 50, 9), [0, 50])))
    some = np.array([3, 0, 3])
    rows = take_examples(ragged, some)
    assert [rows.row(number).tolist() for number in range(3)] == [
        ragged.row(number).tolist() for number in some
    ]


def test_lengths_of_two_inputs_sort_by_the_longer_then_by_the_last() -> None:
    source = Ragged(np.zeros(9), np.array([0, 3, 4, 9]))
    target = Ragged(np.zeros(9), np.array([0, 2, 6, 9]))
    key = lengths_of({"source": source, "target": target, "numbers": np.zeros((3, 2))})
    assert key is not None
    assert np.argsort(key).tolist() == [0, 1, 2]
    assert lengths_of({"numbers": np.zeros((3, 2))}) is None
