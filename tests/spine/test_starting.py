"""Which tensors a model takes over from another."""

from __future__ import annotations

import torch

from danlu.starting import paired

BODY = {
    "reader.weight": (7, 4),
    "stack.0.up.weight": (8, 4),
    "stack.0.up.bias": (8,),
    "stack.1.up.weight": (8, 4),
    "stack.1.up.bias": (8,),
}


def tensors(prefix: str, **more: tuple[int, ...]) -> dict[str, torch.Tensor]:
    named = {f"{prefix}{name}": shape for name, shape in BODY.items()} | {
        name.replace("_", "."): shape for name, shape in more.items()
    }
    return {name: torch.zeros(shape) for name, shape in named.items()}


def test_equal_names_and_shapes_are_taken() -> None:
    mine, theirs = tensors("", head_weight=(3, 4)), tensors("", head_weight=(7, 4))
    assert paired(mine, theirs) == {name: name for name in BODY}


def test_a_body_under_another_head_is_found_behind_its_prefix() -> None:
    mine, theirs = tensors("0.encoder.", last_head_weight=(2, 4)), tensors("encoder.", head_1_weight=(7, 4))
    assert paired(mine, theirs) == {f"0.encoder.{name}": f"encoder.{name}" for name in BODY}
    assert paired(theirs, mine) == {f"encoder.{name}": f"0.encoder.{name}" for name in BODY}


def test_a_tensor_of_another_shape_is_left_alone() -> None:
    mine, theirs = tensors("a."), tensors("b.")
    theirs["b.reader.weight"] = torch.zeros(9, 4)
    assert "a.reader.weight" not in paired(mine, theirs)
    assert len(paired(mine, theirs)) == 4


def test_layers_that_are_more_than_the_other_has_are_not_made_of_its_layers() -> None:
    mine = tensors("") | {"stack.2.up.weight": torch.zeros(8, 4), "stack.2.up.bias": torch.zeros(8)}
    assert paired(mine, tensors("")) == {name: name for name in BODY}


def test_a_layer_that_only_looks_like_another_is_not_made_of_it() -> None:
    mine = tensors("") | {"pooler.dense.weight": torch.zeros(4, 4), "pooler.dense.bias": torch.zeros(4)}
    theirs = tensors("") | {"head.dense.weight": torch.ones(4, 4), "head.dense.bias": torch.ones(4)}
    assert paired(mine, theirs) == {name: name for name in BODY}
