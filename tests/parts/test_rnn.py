"""Recurrent networks: both directions without packing, pooling without padding, letters, chains of labels, hidden states as a cache."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import danlu
from danlu import registry
from danlu.errors import PartError
from danlu.layers.pooling import AttentionPooling, MaxPooling, MeanPooling, real_places
from danlu.layers.recurrent.rnn import LockedDropout, Recurrent
from danlu.layers.text.embeddings import WordEmbedding
from danlu.parts.models._crf import TransitionMarginals
from danlu.recipe import Part
from danlu.system.placement import forward_flops
from danlu.terms import UNKNOWN, InputSpec, OutputSpec

DATA = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SIZES = torch.tensor([5, 7, 1, 4])
KINDS: dict[str, type[nn.RNNBase]] = {"vanilla": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
# other shapes take other kernels, which sum in another order: float32 keeps 7 digits
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def built(inputs: dict[str, InputSpec], output: OutputSpec, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    return registry.build_model(
        Part("rnn", registry.config("models", "rnn").model_validate(options)), inputs, output
    )


def words(rows: Tensor = SIZES, vocabulary: int = 23) -> Tensor:
    """Tokens of rows of these lengths, padded."""
    codes = torch.randint(
        5, vocabulary, (len(rows), int(rows.max())), generator=torch.Generator().manual_seed(2)
    )
    return codes * real_places(rows, codes.shape[1])


TOKENS = {"tokens": InputSpec("tokens", (9,), cardinalities=(23,))}


# --- directions


@pytest.mark.parametrize("cell", KINDS)
def test_both_directions_are_those_of_a_packed_sequence(cell: Any) -> None:
    torch.manual_seed(0)
    ours = Recurrent(3, 4, cell=cell, layers=2, bidirectional=True, dropout=0.5).eval()
    theirs = KINDS[cell](3, 4, num_layers=2, bidirectional=True, batch_first=True)
    assert ours.backwards is not None
    with torch.no_grad():
        for number in range(2):
            for layer, ending in (
                (ours.forwards[number], ""),
                (ours.backwards[number], "_reverse"),
            ):
                for name, weight in layer.named_parameters():
                    getattr(theirs, name.replace("_l0", f"_l{number}") + ending).copy_(weight)
    x_BTI = torch.randn(4, 7, 3)
    packed = theirs(pack_padded_sequence(x_BTI, SIZES, batch_first=True, enforce_sorted=False))
    wanted, _ = pad_packed_sequence(packed[0], batch_first=True)
    found = ours(x_BTI, SIZES)
    real = real_places(SIZES, 7)
    torch.testing.assert_close(found[real], wanted[real], **CLOSE)
    last = packed[1][0] if cell == "lstm" else packed[1]  # (layers and directions, B, H)
    torch.testing.assert_close(
        ours.last(found, SIZES), torch.cat([last[2], last[3]], dim=1), **CLOSE
    )


def test_a_row_is_read_from_its_own_end() -> None:
    module = built(TOKENS, OutputSpec(5, per="token"), dropout=0.0).eval()
    batch = words()
    before = module({"tokens": batch})
    changed = batch.clone()
    changed[0, 4] = 6 if batch[0, 4] != 6 else 7  # the last word of row 0 is heard at its first
    after = module({"tokens": changed})
    assert (after[0, 0] - before[0, 0]).abs().max() > 1e-6
    torch.testing.assert_close(after[1:], before[1:], **CLOSE)


def test_rows_without_any_place_get_an_answer() -> None:
    assert (
        built(TOKENS, OutputSpec(5), pooling="max")(
            {"tokens": torch.zeros(3, 0, dtype=torch.int64)}
        )
        .isfinite()
        .all()
    )
    assert built(TOKENS, OutputSpec(5, per="token"))(
        {"tokens": torch.zeros(3, 0, dtype=torch.int64)}
    ).shape == (3, 0, 5)
    for pooling in ("max", "mean", "attention", "last"):
        module = built(TOKENS, OutputSpec(5), pooling=pooling).eval()
        batch = words(torch.tensor([4, 0, 3, 2]))
        assert module({"tokens": batch}).isfinite().all(), pooling


def test_what_must_not_look_ahead_goes_one_way() -> None:
    output = OutputSpec(23, per="token", causal=True)
    with pytest.raises(PartError, match="must not look ahead"):
        built(TOKENS, output, bidirectional=True)
    with pytest.raises(PartError, match="crf uses following labels"):
        built(TOKENS, output, crf=True)
    with pytest.raises(PartError, match="needs one label per position"):
        built(TOKENS, OutputSpec(3), crf=True)
    with pytest.raises(PartError, match="hold none"):
        built({"numbers": InputSpec("numbers", (3,))}, OutputSpec(3))
    module = built(TOKENS, output, num_layers=2).eval()
    batch = words()
    changed = batch.clone()
    changed[1, 6] = 6 if batch[1, 6] != 6 else 7
    assert torch.equal(module({"tokens": batch})[:, :6], module({"tokens": changed})[:, :6])


def test_the_work_of_recurrent_layers_is_counted() -> None:
    batch = {"tokens": words(torch.tensor([7]))}
    module = built(TOKENS, OutputSpec(5, per="token"), width=32, embedding=16)
    gates = 4 * 32 * (16 + 32)  # weights of a direction, each used at each of 7 places
    assert forward_flops(module, batch) == 2 * 7 * (2 * gates + 64 * 5)


# --- pooling, dropout


def test_padding_takes_no_part_in_pooling() -> None:
    x = torch.randn(4, 7, 3)
    filled = x.masked_fill(~real_places(SIZES, 7)[:, :, None], 99.0)
    rows = [x[row, :size] for row, size in enumerate(SIZES.tolist())]
    real = real_places(SIZES, 7)
    torch.testing.assert_close(
        MaxPooling()(filled, real), torch.stack([row.amax(0) for row in rows]), **CLOSE
    )
    torch.testing.assert_close(
        MeanPooling()(filled, real), torch.stack([row.mean(0) for row in rows]), **CLOSE
    )
    attention = AttentionPooling(3)
    alone = torch.cat(
        [attention(row[None], torch.ones(1, len(row), dtype=torch.bool)) for row in rows]
    )
    torch.testing.assert_close(attention(filled, real), alone, **CLOSE)


def test_locked_dropout_drops_the_same_numbers_at_every_place() -> None:
    torch.manual_seed(3)
    kept = LockedDropout(0.5)(torch.ones(6, 5, 40))
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert len({tuple(row.tolist()) for row in kept[:, 0]}) == 6  # other numbers in other rows
    assert torch.equal(LockedDropout(0.5).eval()(kept), kept)


# --- words


def test_letters_of_one_word_share_a_table() -> None:
    spelt = WordEmbedding((30, 12, 12, 12, 7), ("word", "character", "character", "character", "shape"), 8, letter_size=4,
                          filters=5, unknown=0.0)  # fmt: skip
    assert spelt.groups == [(0, 1), (1, 3), (4, 1)]
    assert sum(each.numel() for each in spelt.parameters()) == 30 * 8 + (
        12 * 4 + 5 * 4 * 3 + 5
    ) + 7 * (spelt.width - 8 - 5)
    apart = WordEmbedding((30, 12, 12), (), 8, letter_size=4, filters=5, unknown=0.0)
    assert apart.groups == [(0, 1), (1, 1), (2, 1)]


def test_padding_after_the_letters_of_a_word_changes_nothing() -> None:
    torch.manual_seed(0)
    names = ("word", *["character"] * 6)
    spelt = WordEmbedding((30, *[12] * 6), names, 8, letter_size=4, filters=5, unknown=0.0)
    word = torch.tensor([[[7, 3, 4, 5, 0, 0, 0]]])
    short = WordEmbedding((30, *[12] * 4), names[:5], 8, letter_size=4, filters=5, unknown=0.0)
    short.load_state_dict(spelt.state_dict())
    torch.testing.assert_close(spelt(word), short(word[:, :, :5]), **CLOSE)
    assert torch.equal(spelt(torch.zeros(1, 1, 7, dtype=torch.int64))[0, 0, :8], torch.zeros(8))


def test_some_words_are_unknown_in_training_alone() -> None:
    torch.manual_seed(0)
    spelt = WordEmbedding((30,), (), 8, letter_size=4, filters=5, unknown=0.4)
    tokens = torch.full((40, 25), 9)
    tokens[:, 20:] = 0
    unknown = spelt.tables[0](torch.tensor([UNKNOWN]))
    lost = (spelt(tokens) == unknown).all(dim=2)
    assert 0.3 < lost[:, :20].float().mean() < 0.5  # of 800 words: 0.4, give or take 0.017
    assert not lost[:, 20:].any()
    assert not (spelt.eval()(tokens) == unknown).all(dim=2).any()


# --- chains of labels


def test_marginals_of_a_chain_are_those_of_all_its_rows_of_labels() -> None:
    torch.manual_seed(5)
    chain = TransitionMarginals(3)
    with torch.no_grad():
        chain.transitions.normal_()
    sizes = torch.tensor([4, 1, 3])
    u_BTS = torch.randn(3, 4, 3) * 2
    found = chain(u_BTS, sizes).exp()
    for row, size in enumerate(sizes.tolist()):
        weight = torch.zeros(size, 3)
        for labels in itertools.product(range(3), repeat=size):
            total = sum(u_BTS[row, place, label] for place, label in enumerate(labels))
            total = total + sum(chain.transitions[pair] for pair in itertools.pairwise(labels))
            for place, label in enumerate(labels):
                weight[place, label] += torch.as_tensor(total).exp().item()
        # 1e-4: 81 exponentials added in float32
        torch.testing.assert_close(
            found[row, :size], weight / weight.sum(1, keepdim=True), rtol=1e-4, atol=1e-4
        )


def test_a_long_sure_chain_stays_finite() -> None:
    chain = TransitionMarginals(3)
    with torch.no_grad():
        chain.transitions.fill_(-30.0).fill_diagonal_(30.0)
    u_BTS = (100 * torch.randn(2, 400, 3)).requires_grad_()
    found = chain(u_BTS, torch.tensor([400, 250]))
    found.sum().backward()
    assert found.isfinite().all()
    assert u_BTS.grad is not None
    assert u_BTS.grad.isfinite().all()


# --- generation


@pytest.mark.parametrize("cell", KINDS)
def test_tokens_that_come_piece_by_piece_get_the_logits_of_the_whole(cell: str) -> None:
    module: Any = built(
        TOKENS, OutputSpec(23, per="token", causal=True), cell=cell, num_layers=2
    ).eval()
    tokens = torch.randint(5, 23, (3, 9), generator=torch.Generator().manual_seed(0))
    whole = module({"tokens": tokens})
    cache = module.cache(3, 9)
    torch.testing.assert_close(module.extend(tokens[:, :4], cache), whole[:, :4], **CLOSE)
    sizes = [1, 3, 2]
    part = module.extend(tokens[:, 4:7], cache, torch.tensor(sizes))
    for row, size in enumerate(sizes):
        torch.testing.assert_close(part[row, :size], whole[row, 4 : 4 + size], **CLOSE)
    chosen = cache.keep([2, 0]).join(module.cache(1, 9))  # a row joins that has read nothing
    fresh = module.extend(torch.stack([tokens[2, 6:7], tokens[0, 5:6], tokens[1, :1]]), chosen)
    torch.testing.assert_close(
        fresh[:, 0], torch.stack([whole[2, 6], whole[0, 5], whole[1, 0]]), **CLOSE
    )


@pytest.mark.skipif(
    not (DATA / "tinyshakespeare").is_dir(),
    reason=f"there is no {DATA / 'tinyshakespeare'}: set DANLU_DATA",
)
def test_a_small_lstm_learns_the_letters_of_shakespeare(tmp_path: Path) -> None:
    source = next(
        path for path in sorted((DATA / "tinyshakespeare").rglob("*")) if path.suffix == ".txt"
    )
    (tmp_path / "some.txt").write_text(source.read_text("utf-8")[:60_000], "utf-8")
    artifact = danlu.train(
        {
            "task": {"name": "language_modeling", "context": 32},
            "data": {"source": str(tmp_path / "some.txt"), "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
                     "cache": False},
            "model": {"name": "rnn", "width": 64, "embedding": 32, "dropout": 0.0},
            "train": {"steps": 150, "batch_size": 32, "threads": 1},
            "optimizer": {"name": "adamw", "learning_rate": 0.01},
        },
        tmp_path / "run",
    )  # fmt: skip
    assert artifact.scores["validation"]["loss"] < 2.6  # letters by their frequency alone: 3.3
