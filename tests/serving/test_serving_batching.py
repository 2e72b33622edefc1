"""Which rows are answered next, and whether one more may wait."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.serving.pool.admission import Admission, Pace
from danlu.serving.worker.batching import STEP_SECONDS, Batcher, Job
from danlu.serving.worker.decode_values import Columns, concatenate


def job(id: int, rows: int, key: object = "plain", before: float = 100.0) -> Job:
    return Job(id, Columns({"x": np.arange(rows, dtype=float) + 1000 * id}, rows, key), before)  # type: ignore[arg-type]


def taken(batcher: Batcher, now: float = 0.0) -> list[tuple[int, int, int]]:
    return [(share.job.id, share.start, share.stop) for share in batcher.next(now)]


def test_all_that_waits_goes_with_the_next_step() -> None:
    batcher = Batcher(8)
    for id in (1, 2, 3):
        batcher.add(job(id, 2))
    assert taken(batcher) == [(1, 0, 2), (2, 0, 2), (3, 0, 2)]
    assert not batcher


def test_one_row_is_not_held_up_by_a_thousand() -> None:
    batcher = Batcher(8)
    batcher.add(job(1, 1000))
    assert taken(batcher) == [(1, 0, 8)]
    batcher.add(job(2, 1))
    assert taken(batcher) == [(1, 8, 15), (2, 0, 1)]


def test_every_row_of_every_job_is_answered_once_and_in_order() -> None:
    random = np.random.default_rng(0)
    batcher, wanted = Batcher(7), {id: int(random.integers(1, 40)) for id in range(30)}
    done: dict[int, list[int]] = {id: [] for id in wanted}
    for id, rows in wanted.items():
        batcher.add(job(id, rows, key="a" if id % 3 else "b"))
        for which, start, stop in taken(batcher):
            done[which] += range(start, stop)
    while batcher:
        shares = taken(batcher)
        assert 0 < sum(stop - start for _, start, stop in shares) <= 7
        for which, start, stop in shares:
            done[which] += range(start, stop)
    assert done == {id: list(range(rows)) for id, rows in wanted.items()}


def test_kinds_of_requests_that_cannot_be_put_together_take_turns() -> None:
    batcher = Batcher(4)
    batcher.add(job(1, 100, key="a"))
    batcher.add(job(2, 1, key="b"))
    batcher.add(job(3, 9, key=None))
    first, second, third = (taken(batcher) for _ in range(3))
    assert [first, second, third] == [
        [(1, 0, 4)],
        [(2, 0, 1)],
        [(3, 0, 9)],
    ]  # alone: whole, whatever its size


def test_what_comes_too_late_or_is_dropped_is_not_answered() -> None:
    batcher = Batcher(8)
    batcher.add(job(1, 2, before=5.0))
    batcher.add(job(2, 2))
    batcher.add(job(3, 2))
    batcher.drop(2)
    assert taken(batcher, now=6.0) == [(3, 0, 2)]
    batcher.add(job(4, 1, before=5.0))
    assert taken(batcher, now=6.0) == []
    assert not batcher


def test_a_slow_model_answers_in_small_steps_and_a_quick_one_in_large() -> None:
    slow, quick = Batcher(256), Batcher(256)
    for _ in range(20):
        slow.learn(slow.step_rows, slow.step_rows * STEP_SECONDS)
        quick.learn(quick.step_rows, quick.step_rows * STEP_SECONDS / 10_000)
    assert (slow.step_rows, quick.step_rows) == (1, 256)
    assert Batcher(256).step_rows == 256


def test_rows_of_several_requests_stand_one_after_the_other() -> None:
    parts = [{"x": np.array([1.0]), "w": ["a"]}, {"x": np.array([2.0, 3.0]), "w": ["b", None]}]
    found = concatenate(parts)
    assert found["x"].tolist() == [1.0, 2.0, 3.0]
    assert found["w"] == ["a", "b", None]


def test_the_pace_of_a_model_is_found_from_its_steps() -> None:
    pace, random = Pace(), np.random.default_rng(0)
    for _ in range(100):
        rows = int(random.integers(1, 65))
        pace.learn(rows, 0.002 + 0.0003 * rows)
    assert pace.per_row == pytest.approx(
        0.0003, rel=1e-6
    )  # an exact line is found but for rounding
    assert pace.per_step == pytest.approx(0.002, rel=1e-4)


def test_steps_of_one_size_say_what_a_row_costs() -> None:
    pace = Pace()
    for _ in range(10):
        pace.learn(10, 0.05)
    assert pace.seconds(100, 10) == pytest.approx(0.5, rel=1e-9)


def test_rows_one_by_one_do_not_say_that_many_cost_as_much_each() -> None:
    pace = Pace()
    pace.learn(1, 0.0101)
    pace.learn(16, 0.0116)
    for _ in range(200):
        pace.learn(1, 0.0101)
    assert pace.seconds(1000, 1000) == pytest.approx(0.11, rel=0.01)


def test_one_stall_is_no_new_pace_and_a_new_pace_is_learnt() -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn(1, 0.001)
    pace.learn(1, 5.0)
    assert pace.seconds(1, 1) < 0.002
    for _ in range(250):
        pace.learn(1, 0.5)
    assert pace.seconds(1, 1) == pytest.approx(
        0.5, rel=0.1
    )  # what came before still counts a little


def test_one_more_may_wait_while_it_is_answered_in_time() -> None:
    door = Admission(longest_wait=0.5, max_waiting=1000, step_rows=64)
    for _ in range(10):
        door.pace.learn(10, 0.1)  # 10 ms a row
    assert door.retry_after() == 0
    while not door.retry_after():
        door.enter(1.0)
    assert door.waiting == 50  # the 51st would wait more than half a second
    door.enter(200.0)
    assert door.retry_after() == 3  # 2.51 s of rows, 0.5 allowed
    door.leave(200.0)
    door.leave(1.0)
    assert door.retry_after() == 0


def test_a_model_slower_than_the_promise_is_still_asked_one_thing_at_a_time() -> None:
    door = Admission(longest_wait=0.5, max_waiting=1000, step_rows=64)
    door.pace.learn(1, 3.0)
    assert door.retry_after() == 0
    door.enter(1.0)
    assert door.retry_after() > 0


def test_no_more_may_wait_than_the_count_says() -> None:
    door = Admission(longest_wait=60, max_waiting=3, step_rows=64)
    for _ in range(3):
        assert door.retry_after() == 0
        door.enter(1.0)
    assert door.retry_after() == 1


def test_the_rows_of_a_body_are_guessed_from_what_bodies_held() -> None:
    door = Admission(longest_wait=1, max_waiting=10, step_rows=64)
    assert door.estimate_rows(5000) == 1.0
    door.learn_size(10, 1000)
    assert door.estimate_rows(5000) == 50.0
    assert door.estimate_rows(3) == 1.0
