"""The numbers at /metrics: the pool's counters in the form of Prometheus, made when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from danlu.serving.pool.request_counts import Histogram, RequestCounts

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from danlu.serving.pool.served_model import ServedModel


@dataclass(frozen=True)
class _Gauge:
    help: str
    value: Callable[[ServedModel], float]


@dataclass(frozen=True)
class _Counter:
    """`values` are the counts by the value of `label`; a counter without a label has one, of ""."""

    help: str
    values: Callable[[RequestCounts], Mapping[int, float] | Mapping[str, float]]
    label: str = ""


_GAUGES = {
    "danlu_model_ready": _Gauge("1 where a worker is ready.", lambda model: float(model.ready)),
    "danlu_worker_process": _Gauge(
        "The process number of the worker; 0: none.",
        lambda model: model.worker.pid if model.worker else 0,
    ),
    "danlu_waiting_requests": _Gauge(
        "Requests accepted and not answered.", lambda model: model.admission.waiting
    ),
    "danlu_expected_wait_seconds": _Gauge(
        "How long a request that comes now would wait.",
        lambda model: model.admission.expected_wait(),
    ),
}
_COUNTERS = {
    "danlu_requests": _Counter(
        "Requests by the status of their answer.", lambda counts: counts.answers, "status"
    ),
    "danlu_workers_replaced": _Counter(
        "Workers replaced.", lambda counts: counts.replaced, "reason"
    ),
    "danlu_swaps": _Counter(
        "Models opened anew, by the result.", lambda counts: counts.swaps, "result"
    ),
    "danlu_rows": _Counter("Rows answered.", lambda counts: {"": counts.rows}),
    "danlu_tokens": _Counter("Tokens written.", lambda counts: {"": counts.tokens}),
    "danlu_asked_again": _Counter(
        "Requests given to another worker after theirs died.",
        lambda counts: {"": counts.asked_again},
    ),
    "danlu_busy_seconds": _Counter(
        "Seconds the worker was computing.", lambda counts: {"": counts.busy_seconds}
    ),
}
_HISTOGRAMS: dict[str, tuple[str, Callable[[RequestCounts], Histogram]]] = {
    "danlu_request_seconds": (
        "From a request's arrival to its answer.",
        lambda counts: counts.seconds,
    ),
    "danlu_step_rows": ("Rows answered together.", lambda counts: counts.steps),
}


def exposition(
    models: Iterable[ServedModel], body_bytes: int, connections: int | None
) -> tuple[bytes, str]:
    """(body, content type) of the answer to /metrics; `connections` are left out where None."""
    from prometheus_client import CollectorRegistry, exposition
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    class PoolCollector(Collector):
        def collect(self) -> Iterator[Metric]:
            if connections is not None:
                yield GaugeMetricFamily(
                    "danlu_connections", "Connections that are open.", value=connections
                )
            yield GaugeMetricFamily(
                "danlu_body_bytes", "Bytes of requests' bodies in memory.", value=body_bytes
            )
            yield from _model_metrics(list(models))

        def describe(self) -> Iterable[Metric]:
            return []

    registry = CollectorRegistry(auto_describe=False)
    registry.register(PoolCollector())
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST


def _model_metrics(models: list[ServedModel]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for name, gauge in _GAUGES.items():
        family = GaugeMetricFamily(name, gauge.help, labels=["model"])
        for model in models:
            family.add_metric([model.name], gauge.value(model))
        yield family
    for name, counter in _COUNTERS.items():
        labels = [counter.label] if counter.label else []
        family = CounterMetricFamily(name, counter.help, labels=["model", *labels])
        for model in models:
            for key, value in counter.values(model.counts).items():
                family.add_metric([model.name, *([str(key)] if labels else [])], value)
        yield family
    for name, (help_text, histogram_of) in _HISTOGRAMS.items():
        family = HistogramMetricFamily(name, help_text, labels=["model"])
        for model in models:
            histogram = histogram_of(model.counts)
            family.add_metric([model.name], histogram.buckets(), histogram.sum)
        yield family
