"""Numbers for Prometheus: counted as plain integers where requests pass, put into its form when it asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from danlu.serving.pool.pool import Served

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Histogram:
    """How many values fell below each of `bounds`, and their sum."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """A value more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values at or below it), as Prometheus writes them."""
        total, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts):
            total += count
            found.append((bound, float(total)))
        return found


class Counts:
    """What is counted of one model."""

    def __init__(self) -> None:
        self.answers: defaultdict[int, int] = defaultdict(int)  # by status
        self.rows = 0
        self.tokens = 0
        self.seconds = Histogram(SECONDS)
        self.steps = Histogram(ROWS)
        self.busy_seconds = 0.0
        self.replaced: defaultdict[str, int] = defaultdict(int)  # by reason
        self.asked_again = 0
        self.swaps: defaultdict[str, int] = defaultdict(int)  # by result


def exposition(served: Iterable[Served], connections: int) -> tuple[bytes, str]:
    """(body, content type) of the answer to /metrics."""
    from prometheus_client import CollectorRegistry, exposition
    from prometheus_client.core import GaugeMetricFamily

    class Collector:
        def collect(self) -> Iterator[Metric]:
            yield GaugeMetricFamily(
                "danlu_connections", "Connections that are open.", value=connections
            )
            yield from _of_models(list(served))

        def describe(self) -> list[Any]:
            return []

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())  # type: ignore[arg-type]
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST


def _of_models(served: list[Served]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    gauges = {
        "danlu_model_ready": ("1 where a worker is ready.", lambda each: float(each.ready)),
        "danlu_worker_process": (
            "The process number of the worker; 0: none.",
            lambda each: each.worker.pid if each.worker else 0,
        ),
        "danlu_waiting_requests": (
            "Requests accepted and not answered.",
            lambda each: each.admission.waiting,
        ),
        "danlu_expected_wait_seconds": (
            "How long a request that comes now would wait.",
            lambda each: each.admission.expected(),
        ),
    }
    for name, (told, value) in gauges.items():
        gauge = GaugeMetricFamily(name, told, labels=["model"])
        for each in served:
            gauge.add_metric([each.name], value(each))
        yield gauge
    counters: dict[str, tuple[str, str, Any]] = {
        "danlu_requests": ("Requests by the status of their answer.", "status", lambda counts: counts.answers),
        "danlu_workers_replaced": ("Workers replaced.", "reason", lambda counts: counts.replaced),
        "danlu_swaps": ("Models read anew, by what came of it.", "result", lambda counts: counts.swaps),
        "danlu_rows": ("Rows answered.", "", lambda counts: {"": counts.rows}),
        "danlu_tokens": ("Tokens written.", "", lambda counts: {"": counts.tokens}),
        "danlu_asked_again": ("Requests given to another worker after theirs was lost.", "", lambda counts: {"": counts.asked_again}),
        "danlu_busy_seconds": ("Seconds the worker was at work.", "", lambda counts: {"": counts.busy_seconds}),
    }  # fmt: skip
    for name, (told, label, values) in counters.items():
        counter = CounterMetricFamily(name, told, labels=["model", *([label] if label else [])])
        for each in served:
            for key, value in values(each.counts).items():
                counter.add_metric([each.name, *([str(key)] if label else [])], value)
        yield counter
    histograms = {
        "danlu_request_seconds": ("From a request's arrival to its answer.", "seconds"),
        "danlu_step_rows": ("Rows answered together.", "steps"),
    }
    for name, (told, what) in histograms.items():
        histogram = HistogramMetricFamily(name, told, labels=["model"])
        for each in served:
            found: Histogram = getattr(each.counts, what)
            histogram.add_metric([each.name], found.buckets(), found.sum)
        yield histogram
