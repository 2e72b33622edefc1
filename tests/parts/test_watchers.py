"""Every watcher: hears every report without fuss, and goes on from its state as if it had never stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu import registry
from danlu.errors import RunError
from danlu.parts.watchers._base import RunInfo, Watchers
from danlu.recipe import Part
from danlu.terms import TrainingEvent


def setting(folder: Path, **changes: Any) -> RunInfo:
    folder.mkdir(exist_ok=True)
    return RunInfo(**{  # type: ignore[arg-type]
        "folder": folder, "recipe": None, "total_steps": 40, "steps_per_epoch": 7, "metric": "accuracy", "better": "higher", **changes,
    })  # fmt: skip


def build(name: str, folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> Any:
    part = Part(name, registry.config("watchers", name)(**(options or {})))
    return registry.build_watcher(part, setting(folder, **changes))


def reports() -> Iterator[TrainingEvent]:
    """A short life with everything in it: numbers, nulls, tables, notices; a loss that stands
    still, then runs away."""
    yield TrainingEvent("start", 0, message="resuming at step 0")
    yield TrainingEvent("first_loss", 1, values={"loss": 40.0, "uninformed_loss": 2.0})
    for step in range(1, 20):
        loss = None if step == 3 else 0.5 if step < 12 else 10.0**step
        values = {"loss": loss, "learning_rate": 0.1, "grad_norm": 0.0 if loss else None}
        yield TrainingEvent(
            "train",
            step,
            step / 7,
            values,
            {"seconds": 0.1, "rows_per_second": 320.0, "memory_bytes": 1e8, "eta_seconds": 3.0},
        )
        if step % 3 == 0:
            scores = {
                "loss": None if step == 9 else 0.4,
                "accuracy": None if step == 9 else 0.8,
                "confusion_matrix": [[3, 1], [0, 5]],
            }
            yield TrainingEvent("validation", step, step / 7, scores, {"seconds": 0.01})
        if step == 5:
            yield TrainingEvent("notice", step, message="a sentence with 丹炉 in it")
    yield TrainingEvent("test", 19, 19 / 7, {"loss": 0.4, "accuracy": 0.8})
    yield TrainingEvent("end", 19)


def test_sanity_compares_the_first_loss_with_that_of_knowing_nothing(tmp_path: Path) -> None:
    for loss, warned in ((95.0, True), (9.2, False)):
        watcher = build("sanity", tmp_path)
        values = {"loss": loss, "uninformed_loss": 9.0}
        watcher.hear(TrainingEvent("first_loss", 10, values=values))
        assert any("first batch is 95" in notice for notice in watcher.notices) == warned
        assert len(watcher.notices) == warned


@pytest.mark.parametrize("name", registry.names("watchers"))
def test_a_watcher_hears_every_kind_of_report_and_answers_with_a_sentence_or_nothing(
    name: str, tmp_path: Path
) -> None:
    for output in ("lines", "quiet", "json", "display"):
        watcher = build(name, tmp_path / output, output=output)
        for report in reports():
            said = watcher.hear(report)
            assert said is None or (isinstance(said, str) and said)
        if hasattr(watcher, "close"):
            watcher.close()
            watcher.close()


@pytest.mark.parametrize("name", registry.names("watchers"))
def test_a_watcher_goes_on_from_its_state_as_if_it_had_never_stopped(
    name: str, tmp_path: Path
) -> None:
    whole = build(name, tmp_path / "whole")
    if not hasattr(whole, "state"):
        whole.close() if hasattr(whole, "close") else None
        return  # it keeps nothing between two reports
    told = list(reports())
    said = [whole.hear(report) for report in told]
    for cut in (1, 6, 14, len(told) - 1):
        folder = tmp_path / f"cut-{cut}"
        first = build(name, folder)
        heard = [first.hear(report) for report in told[:cut]]
        state = json.loads(json.dumps(first.state(), allow_nan=False))
        for report in told[cut : cut + 4]:  # what a killed process did beyond its checkpoint
            first.hear(report)
        first.close() if hasattr(first, "close") else None
        second = build(name, folder, resumed_step=told[cut - 1].step)
        second.load(state)
        assert heard + [second.hear(report) for report in told[cut:]] == said
        assert second.state() == whole.state()
        second.close() if hasattr(second, "close") else None
        for path in (tmp_path / "whole").glob("*.jsonl"):
            if path.name != "timings.jsonl":
                assert (folder / path.name).read_bytes() == path.read_bytes()
    whole.close() if hasattr(whole, "close") else None


def test_a_state_of_a_watcher_that_was_left_out_for_a_while_is_kept(tmp_path: Path) -> None:
    part = Part("early_stopping", registry.config("watchers", "early_stopping")())
    state = {"early_stopping": {"best": 0.9, "waited": 2}}
    without = Watchers([], [])
    without.load(state)
    assert without.state() == state
    back = Watchers(
        [part, part], [build("early_stopping", tmp_path), build("early_stopping", tmp_path)]
    )
    back.load(without.state())
    assert back.state() == {**state, "early_stopping_1": {"best": None, "waited": 0}}, (
        "two of a kind keep a state each"
    )


def test_tensorboard_itself_reads_what_is_written(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    watcher = build("tensorboard", tmp_path / "run")
    for report in reports():
        watcher.hear(report)
    watcher.hear(TrainingEvent("train", 300, 1.0, {"huge": 1e300, "negative": -2.5}))
    watcher.close()
    read = accumulators.EventAccumulator(str(tmp_path / "run"))
    read.Reload()
    assert {"train/loss", "train/rows_per_second", "validation/accuracy", "test/accuracy"} <= set(
        read.Tags()["scalars"]
    )
    assert [(each.step, each.value) for each in read.Scalars("validation/accuracy")] == [
        (step, pytest.approx(0.8, rel=1e-7)) for step in (3, 6, 12, 15, 18)
    ]  # float32 keeps 24 bits
    assert [each.value for each in read.Scalars("train/huge")] == [math.inf]
    assert [each.value for each in read.Scalars("train/negative")] == [-2.5]
    [note] = (
        read.Tensors("notices/text_summary")
        if "notices/text_summary" in read.Tags()["tensors"]
        else read.Tensors("notices")
    )
    assert note.tensor_proto.string_val[0].decode() == "a sentence with 丹炉 in it"


def test_tensorboard_hides_what_a_killed_run_wrote_beyond_its_checkpoint(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = build("tensorboard", tmp_path)
    for step in range(1, 9):
        first.hear(TrainingEvent("train", step, values={"loss": 1.0}))
    first.close()
    for path in tmp_path.glob("events*"):
        path.rename(
            path.with_name(path.name.replace("tfevents.", "tfevents.0"))
        )  # older than the next one
    second = build("tensorboard", tmp_path, resumed_step=5)
    for step in range(6, 11):
        second.hear(TrainingEvent("train", step, values={"loss": 2.0}))
    second.close()
    read = accumulators.EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(each.step, each.value) for each in read.Scalars("train/loss")] == [
        (step, 1.0 + (step > 5)) for step in range(1, 11)
    ]


def test_early_stopping_counts_what_is_no_improvement(tmp_path: Path) -> None:
    def stopped_after(scores: list[Any], **options: Any) -> int | None:
        watcher = build("early_stopping", tmp_path, {"patience": 3, **options})
        for number, score in enumerate(scores, 1):
            if watcher.hear(TrainingEvent("validation", number, values={"accuracy": score})):
                return number
        return None

    assert stopped_after([0.5, 0.6, 0.6, 0.5, 0.6]) == 5
    assert stopped_after([0.5, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7]) == 7
    assert stopped_after([0.5, 0.52, 0.54, 0.56, 0.58], minimum_change=0.1) == 4
    assert stopped_after([0.5, None, None, None]) == 4, (
        "a score that is not finite is no improvement"
    )
    assert stopped_after([None] * 9) is None, "a score that was never defined says nothing"


def test_divergence_asks_to_stop_only_when_the_loss_stays_away(tmp_path: Path) -> None:
    def stopped_after(losses: list[Any]) -> int | None:
        watcher = build("divergence", tmp_path, {"factor": 10.0, "reports": 2})
        for number, loss in enumerate(losses, 1):
            if watcher.hear(TrainingEvent("train", number, values={"loss": loss})):
                return number
        return None

    assert stopped_after([1.0, 5.0, 11.0, 9.0, 11.0, 12.0]) == 6
    assert stopped_after([1.0, None, 11.0, None, 3.0]) is None
    assert stopped_after([1.0] * 5) is None


def test_a_metric_log_that_was_cut_or_edited_is_refused(tmp_path: Path) -> None:
    first = build("jsonl", tmp_path)
    for report in reports():
        first.hear(report)
    state = first.state()
    first.close()
    path = tmp_path / "metrics.jsonl"
    data = path.read_bytes()
    for spoilt in (data[:-1], b"", data.replace(b"0.5", b"0.4", 1)):
        path.write_bytes(spoilt)
        second = build("jsonl", tmp_path)
        with pytest.raises(RunError, match="cut or edited"):
            second.load(state)
        second.close()
        assert path.read_bytes() == spoilt, "nothing is thrown away"
    path.write_bytes(data + b"more")
    third = build("jsonl", tmp_path)
    third.load(state)
    third.close()
    assert path.read_bytes() == data
