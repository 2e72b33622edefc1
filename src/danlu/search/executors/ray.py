"""Trials on a Ray cluster: the same trainings as in worker processes, placed by Ray's scheduler. Extra `ray`.

The process of the study asks and tells; a task trains one trial in the study's folder, which all
nodes should share: where they do not, a trial whose node is lost begins anew on another. Tasks go
away with the process of the study, also where that one is killed -9."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import MissingExtra, RunError
from danlu.search.executors import job as assignment
from danlu.search.executors.scheduler import Crew
from danlu.system.trust import code_is_allowed

if TYPE_CHECKING:
    from danlu.recipe import Train
    from danlu.search.executors.setting import Setting
    from danlu.search.study import Study

_LONGEST_POLL = 5.0  # seconds


def run(study: Study, setting: Setting) -> None:
    """Run the study's trials on a Ray cluster until none is left. Raises Interrupted, the trials at
    work saved."""
    tune = setting.tune
    with Cluster(tune.address) as cluster:
        share = cluster.share(study.recipe.train, tune.workers)
        # the number of threads has a part in the last bits, so a study keeps it
        share["cores"] = study.decide("cores_of_a_worker", lambda: share["cores"])
        workers = RayWorkers(assignment.JOB, share["slots"], share["cores"], share["gpus"])
        setting.tell(
            message=f"{cluster}: {share['slots']} trials at a time, {share['cores']} cores each"
        )
        Crew(study, setting, workers, assignment.assignments(study), 60 * tune.hang_minutes).run()


class Cluster:
    """A connection to the cluster at `address`; None: that of RAY_ADDRESS, else one of this machine
    alone. A context manager.

    `asked` and `option` are what asked for it and what names its address, for messages.
    """

    def __init__(
        self, address: str | None, asked: str = "tune.on: ray", option: str = "tune.address"
    ) -> None:
        self.address = address
        self.asked = asked
        self.option = option

    def __enter__(self) -> Cluster:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise MissingExtra("Ray", "ray", self.asked) from None
        options: dict[str, Any] = {} if self.address else {"include_dashboard": False}
        self.joined = not ray.is_initialized()
        try:
            if self.joined:
                ray.init(
                    address=self.address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **options,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RunError(
                f"there is no Ray cluster at {self.address or 'this machine'}: {str(error).splitlines()[0] if str(error) else error!r}",
                hint=f"start one by `ray start --head` and give its address as {self.option}; one that asks for a token wants RAY_AUTH_MODE "
                "and RAY_AUTH_TOKEN here as well",
            ) from None
        # what the cluster has to say is no result
        self.aside = contextlib.redirect_stdout(sys.stderr)
        self.aside.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        if self.joined:
            import ray

            ray.shutdown()
        self.aside.__exit__(None, None, None)

    def __str__(self) -> str:
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"a Ray cluster of {nodes} node{'s' if nodes > 1 else ''}"

    def share(self, train: Train, workers: int | None) -> dict[str, Any]:
        """{"slots", "cores", "gpus"}: trials at a time and what each has; as many as there are
        GPUs, else cores, unless `workers` says."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get("CPU", 0)) for node in nodes]
        gpus = (
            sum(node.get("GPU", 0.0) for node in nodes)
            if train.device == "auto" or train.device.startswith("cuda")
            else 0.0
        )
        slots = workers or int(gpus) or max(sum(cores), 1)
        # no node could place a task that asks for more cores than any has
        each = max(1, min(sum(cores) // slots, max(cores, default=1)))
        return {"slots": slots, "cores": each, "gpus": min(1.0, int(100 * gpus / slots) / 100)}


class RayWorkers:
    """`slots` tasks at a time of the job "module:function", with `cores` cores and `gpus` (or a
    part of one) each."""

    queues = True

    def __init__(self, job: str, slots: int, cores: int, gpus: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.slots = slots
        self.wish = {"job": job, "cores": cores, "allow_code": code_is_allowed()}
        # a process for each trial: its memory goes back whole
        self.task = ray.remote(max_calls=1, max_retries=0, num_cpus=cores, num_gpus=gpus)(_work)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # beside the process of the study: lost only together with it
        self.mailbox: Any = (
            ray.remote(Mailbox)
            .options(num_cpus=0, scheduling_strategy=here, max_concurrency=10_000)
            .remote()
        )
        self.mail = self.mailbox.collect.remote()
        self.living: dict[Any, int] = {}  # task: key
        self.heard: deque[tuple[int, dict[str, Any]]] = deque()

    def start(self, key: int, task: Any, log: Path) -> None:
        """Hand a task to the cluster's scheduler. What it prints stands in Ray's own logs."""
        self.living[self.task.remote(self.mailbox, key, {**self.wish, "task": task})] = key

    def event(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """(key, message) of the next thing a task says, waited for so long."""
        import ray

        if not self.heard:
            ready, _ = ray.wait([self.mail, *self.living], num_returns=1, timeout=seconds)
            for each in ready:
                if each == self.mail:
                    self.heard.extend(ray.get(self.mail))
                    self.mail = self.mailbox.collect.remote()
                else:
                    self._end(each)
        return self.heard.popleft() if self.heard else None

    def _end(self, task: Any) -> None:
        import ray
        from ray.exceptions import RayError

        key, cause = self.living.pop(task), "its task ended without a word"
        try:
            self.heard.append((key, ray.get(task)))
        except RayError as error:
            cause = f"its task was lost: {type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
        self.heard.append((key, {"say": "ended", "code": None, "cause": cause}))

    def answer(self, key: int, stop: bool) -> None:
        """Answer a score."""
        self.mailbox.answer.remote(key, stop)

    def interrupt(self, key: int) -> None:
        """Ask a task to save and end."""
        self._cancel(key, force=False)

    def kill(self, key: int) -> None:
        """End the process of a task."""
        self._cancel(key, force=True)

    def _cancel(self, key: int, force: bool) -> None:
        import ray

        for task in [task for task, each in self.living.items() if each == key]:
            ray.cancel(task, force=force)

    def close(self) -> None:
        """End every task that is left."""
        import ray

        for key in list(self.living.values()):
            self.kill(key)
        self.living.clear()
        ray.kill(self.mailbox)


class Mailbox:
    """An actor between tasks and the process of the study. Its methods wait for each other without
    a thread."""

    def __init__(self) -> None:
        import asyncio

        self.messages: list[tuple[int, dict[str, Any]]] = []
        self.answers: dict[int, asyncio.Future[bool]] = {}
        self.came = asyncio.Event()

    async def say(self, key: int, message: dict[str, Any]) -> None:
        """Leave a message."""
        self.messages.append((key, message))
        self.came.set()

    async def ask(self, key: int, message: dict[str, Any]) -> bool:
        """Leave a message and wait for the answer."""
        import asyncio

        answer = self.answers[key] = asyncio.get_running_loop().create_future()
        await self.say(key, message)
        return await answer

    async def answer(self, key: int, stop: bool) -> None:
        """Answer the last question of a task."""
        waiting = self.answers.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(stop)

    async def collect(self) -> list[tuple[int, dict[str, Any]]]:
        """All messages, as soon as there is one; [] where none comes for some seconds."""
        import asyncio

        try:
            await asyncio.wait_for(self.came.wait(), _LONGEST_POLL)
        except TimeoutError:
            return []
        self.came.clear()
        found, self.messages = self.messages, []
        return found


class _Line:
    """What a task tells the study (see danlu.search.executors.worker)."""

    def __init__(self, mailbox: Any, key: int) -> None:
        self.mailbox, self.key = mailbox, key

    def beat(self) -> None:
        self.mailbox.say.remote(self.key, {"say": "beat"})

    def score(self, evaluations: int, value: float) -> bool:
        import ray

        return ray.get(
            self.mailbox.ask.remote(
                self.key, {"say": "score", "evaluations": evaluations, "value": value}
            )
        )


def _work(mailbox: Any, key: int, wish: Mapping[str, Any]) -> dict[str, Any]:
    """A task: do the job; the last message."""
    from danlu.search.executors.worker import done

    line = _Line(mailbox, key)
    line.beat()
    return done(wish, line)
