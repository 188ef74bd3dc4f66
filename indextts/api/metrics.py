"""``/metrics``: the service's counters in the form of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from indextts.service import Service


class ServiceCollector(Collector):
    """Reads the counters whenever they are asked for."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        stats = self.service.stats()
        requests = CounterMetricFamily("indextts_requests", "Requests by how they ended.", labels=["outcome"])
        for outcome in ("served", "failed", "cancelled", "refused"):
            requests.add_metric([outcome], getattr(stats, outcome))
        yield requests
        yield CounterMetricFamily("indextts_audio_seconds", "Seconds of sound made.", value=stats.audio_s)
        yield CounterMetricFamily("indextts_model_loads", "How often the model was loaded.", value=stats.loads)
        yield GaugeMetricFamily("indextts_queue_length", "Requests that wait.", value=stats.waiting)
        yield GaugeMetricFamily("indextts_running", "Requests that run.", value=stats.running)
        yield GaugeMetricFamily("indextts_model_loaded", "1 while the model is in memory.", value=stats.loaded)
        yield GaugeMetricFamily(
            "indextts_mean_request_seconds", "What a request takes lately.", value=stats.mean_request_s
        )


def registry_of(service: Service) -> CollectorRegistry:
    """A registry with the metrics of ``service`` alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(service))
    return registry
