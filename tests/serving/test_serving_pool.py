"""The pool's bookkeeping: what is asked again, what is asked alone, and what is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="pip install 'danlu[serve]'")

from danlu.serving.pool.pool import MAX_LOST_WORKERS, Pool
from danlu.serving.protocol.messages import Unpacker


class Wire:
    """A worker that hears, and dies when it is told to: the pool's side of
    danlu.serving.pool.process.WorkerProcess, without a process."""

    state = "ready"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.description: dict[str, Any] = {}
        self.heard: list[int] = []
        self._unpacker = Unpacker()

    def send(self, data: bytes) -> None:
        self.heard += [
            header["id"] for header, _ in self._unpacker.feed(data) if header["do"] == "answer"
        ]

    def answer(self, id: int) -> None:
        self.pool._on_message(self, {"say": "answer", "id": id, "status": 200, "rows": 1}, b"{}")  # type: ignore[arg-type]

    def die(self) -> None:
        self.state = "gone"
        self.pool._on_worker_end(self)  # type: ignore[arg-type]

    def kill(self) -> None:
        self.state = "gone"


def pool_with_a_worker() -> tuple[Pool, Callable[[], Wire]]:
    """A pool of one model, and what gives it another worker."""
    pool = Pool({"m": "nowhere"})
    pool._replace = lambda model: None  # type: ignore[method-assign]

    def another() -> Wire:
        served, worker = pool.models["m"], Wire(pool)
        pool._owner[worker] = served  # type: ignore[index]
        pool._install(served, worker)  # type: ignore[arg-type]
        return worker

    return pool, another


def test_what_a_lost_worker_held_is_asked_again_in_its_order() -> None:
    async def run() -> None:
        pool, another = pool_with_a_worker()
        served, first = pool.models["m"], another()
        got: list[tuple[int, int]] = []
        asked = [
            pool.submit(served, "", b"x", None, lambda status, body, n=n: got.append((n, status)))
            for n in range(4)
        ]
        assert first.heard == [each.id for each in asked]
        first.answer(asked[1].id)
        pool.release(asked[1])
        first.die()
        late = pool.submit(served, "", b"x", None, lambda status, body: got.append((9, status)))
        second = another()
        assert second.heard == [asked[0].id, asked[2].id, asked[3].id, late.id]
        for each in (asked[0], asked[2], asked[3], late):
            second.answer(each.id)
            pool.release(each)
        assert got == [(1, 200), (0, 200), (2, 200), (3, 200), (9, 200)]
        assert (pool.waiting, pool.body_bytes, served.admission.waiting) == (0, 0, 0)

    asyncio.run(run())


def test_a_request_that_kills_is_asked_alone_and_given_up_and_takes_no_other_with_it() -> None:
    async def run() -> None:
        pool, another = pool_with_a_worker()
        served = pool.models["m"]
        got: dict[int, int] = {}
        worker = another()
        asked = [
            pool.submit(served, "", b"x", None, lambda status, body, n=n: got.update({n: status}))
            for n in range(3)
        ]
        killer = asked[1]
        for _ in range(20):
            heard, worker.heard = worker.heard, []
            if not heard:
                break
            if killer.id in heard:
                if killer.lost_workers == MAX_LOST_WORKERS - 1:
                    assert heard == [killer.id]
                worker.die()
                if got.get(1) == 500:
                    pool.release(killer)
                worker = another()
                continue
            for id in heard:
                worker.answer(id)
                pool.release(next(each for each in asked if each.id == id))
        assert got == {0: 200, 1: 500, 2: 200}
        assert pool.waiting == 0
        following = pool.submit(served, "", b"x", None, lambda status, body: None)
        assert worker.heard == [following.id]

    asyncio.run(run())


def test_who_goes_away_while_there_is_no_worker_is_not_asked_for() -> None:
    async def run() -> None:
        pool, another = pool_with_a_worker()
        served, first = pool.models["m"], another()
        first.die()
        gone, stays = (
            pool.submit(served, "", b"x", None, lambda status, body: None) for _ in range(2)
        )
        pool.release(gone)
        assert another().heard == [stays.id]

    asyncio.run(run())
