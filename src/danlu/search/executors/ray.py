"""Run trials on a Ray cluster: the trainings of worker processes, placed by Ray. Extra `ray`.

Only the process of the study talks to the study's storage; a task trains one trial in the study's
folder. All nodes should share that folder: where they do not, a trial whose node is lost begins
anew on another node. Tasks end with the process of the study, also where that is killed -9.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from danlu.search.executors import job
from danlu.search.executors.scheduler import Scheduler, WorkerPool
from danlu.system.ray_cluster import RayCluster
from danlu.system.trust import code_is_allowed, remote_is_allowed

if TYPE_CHECKING:
    from danlu.recipe import Train
    from danlu.search.context import SearchContext
    from danlu.search.study import Study

_POLL_SECONDS = 5.0  # that the mailbox waits for a message
_MAILBOX_SECONDS = 25.0  # without any answer of the mailbox: the node is lost


def run(study: Study, context: SearchContext) -> None:
    """Run the study's trials on a Ray cluster until none is left. Raises Interrupted after a
    signal, with the running trials saved."""
    tune = context.tune
    with RayCluster(tune.address) as cluster:
        share = divide_cluster(study.recipe.train, tune.workers)
        slots, gpus = share["slots"], share["gpus"]
        # The number of threads changes the last bits of a training, so a study keeps it.
        cores = study.decide("cores_of_a_worker", lambda: share["cores"])
        workers = RayWorkers(cluster, job.JOB, slots, cores, gpus)
        context.notify(message=f"{cluster}: {slots} trials at a time, {cores} cores each")
        Scheduler(study, context, workers, job.job_payloads(study), 60 * tune.hang_minutes).run()


class ClusterShare(TypedDict):
    """How many trials run at a time, and what each gets: cores, and GPUs (or a part of one)."""

    slots: int
    cores: int
    gpus: float


def divide_cluster(train: Train, workers: int | None) -> ClusterShare:
    """Divide the connected cluster among `workers` trials; None: as many as it has GPUs, without
    GPUs as many as it has cores."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    may_use_gpus = train.device == "auto" or train.device.startswith("cuda")
    gpus = sum(node.get("GPU", 0.0) for node in nodes) if may_use_gpus else 0.0
    slots = workers or int(gpus) or max(sum(cores), 1)
    # No node could run a task that asks for more cores than any node has.
    cores_per_trial = max(1, min(sum(cores) // slots, max(cores, default=1)))
    return {
        "slots": slots,
        "cores": cores_per_trial,
        "gpus": min(1.0, int(100 * gpus / slots) / 100),
    }


class RayWorkers(WorkerPool):
    """Up to `slots` tasks at a time that run the job "module:function" with `cores` cores and
    `gpus` (or a part of one) each."""

    queues = True

    def __init__(self, cluster: RayCluster, job: str, slots: int, cores: int, gpus: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.cluster = cluster
        self.slots = slots
        self.request = {
            "job": job,
            "cores": cores,
            "allow_code": code_is_allowed(),
            "allow_remote": remote_is_allowed(),
        }
        # max_calls=1: a new process for each trial, so that its memory is given back.
        self.task = ray.remote(max_calls=1, max_retries=0, num_cpus=cores, num_gpus=gpus)(_run_task)
        # The mailbox runs on the node of the study's process: it is lost only together with that.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox: Any = (
            ray.remote(Mailbox)
            .options(num_cpus=0, scheduling_strategy=here, max_concurrency=10_000)
            .remote()
        )
        self.inbox = self.mailbox.collect.remote()
        self.emptied_at = time.monotonic()  # when the inbox was last read
        self.tasks: dict[Any, int] = {}  # the key of each running task
        self.events: deque[tuple[int, dict[str, Any]]] = deque()

    def start(self, key: int, payload: Any, log: Path) -> None:
        """Hand a task to the cluster's scheduler. What it prints goes to Ray's own logs."""
        self.tasks[self.task.remote(self.mailbox, key, {**self.request, "task": payload})] = key

    def event(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """(key, message) of the next message of any task; None after so many seconds without
        one. Raises RunError where the cluster was lost."""
        import ray
        from ray.exceptions import RayError

        self.cluster.check()
        if not self.events:
            try:
                ready, _ = ray.wait([self.inbox, *self.tasks], num_returns=1, timeout=seconds)
                for task in ready:
                    if task == self.inbox:
                        self.events.extend(ray.get(self.inbox))
                        self.inbox = self.mailbox.collect.remote()
                        self.emptied_at = time.monotonic()
                    else:
                        self._end(task)
            except (RayError, ConnectionError) as error:
                raise self.cluster.lost((str(error).strip() or "?").splitlines()[0]) from None
        # The mailbox answers every few seconds, with or without a message.
        if time.monotonic() - self.emptied_at > _MAILBOX_SECONDS:
            raise self.cluster.lost("the node of this process does not answer")
        return self.events.popleft() if self.events else None

    def _end(self, task: Any) -> None:
        import ray
        from ray.exceptions import RayError

        key, cause = self.tasks.pop(task), "its task ended without a message"
        try:
            self.events.append((key, ray.get(task)))
        except RayError as error:
            reason = (str(error).strip() or "?").splitlines()[0]
            cause = f"its task was lost: {type(error).__name__}: {reason}"
        self.events.append((key, {"say": "ended", "code": None, "cause": cause}))

    def answer(self, key: int, stop: bool) -> None:
        """Answer the last score of a task: whether its trial shall end."""
        self.mailbox.answer.remote(key, stop)

    def interrupt(self, key: int) -> None:
        """Ask a task to save and end."""
        self._cancel(key, force=False)

    def kill(self, key: int) -> None:
        """End the process of a task."""
        self._cancel(key, force=True)

    def _cancel(self, key: int, force: bool) -> None:
        import ray

        for task in [task for task, task_key in self.tasks.items() if task_key == key]:
            ray.cancel(task, force=force)

    def close(self) -> None:
        """End every task that is left. A lost cluster is not asked to."""
        import ray

        if self.cluster.is_lost:
            return
        for key in list(self.tasks.values()):
            self.kill(key)
        self.tasks.clear()
        ray.kill(self.mailbox)


class Mailbox:
    """An actor between the tasks and the process of the study. Its methods are coroutines: a
    waiting one takes no thread."""

    def __init__(self) -> None:
        import asyncio

        self.messages: list[tuple[int, dict[str, Any]]] = []
        self.answers: dict[int, asyncio.Future[bool]] = {}
        self.arrived = asyncio.Event()

    async def say(self, key: int, message: dict[str, Any]) -> None:
        """Leave a message."""
        self.messages.append((key, message))
        self.arrived.set()

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
        """All messages, as soon as there is one; [] after some seconds without one."""
        import asyncio

        try:
            await asyncio.wait_for(self.arrived.wait(), _POLL_SECONDS)
        except TimeoutError:
            return []
        self.arrived.clear()
        messages, self.messages = self.messages, []
        return messages


class _RayConnection:
    """A task's connection to its study, over the mailbox (see job.StudyConnection)."""

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


def _run_task(mailbox: Any, key: int, request: Mapping[str, Any]) -> dict[str, Any]:
    """A task: do the job of a request; its last message."""
    from danlu.search.executors.worker import execute

    connection = _RayConnection(mailbox, key)
    connection.beat()
    return execute(request, connection)
