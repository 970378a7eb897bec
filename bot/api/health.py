"""Is it alive, is it ready, and how is it doing: /health, /ready, /metrics (Prometheus' text format)."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class Vitals(Protocol):
    """What the service knows of itself."""

    def health(self) -> dict[str, Any]:
        """The worker's pid and state, and what waits."""
        ...

    async def unready(self) -> str:
        """Why nothing can be asked for now; empty where something can."""
        ...

    def gauges(self) -> dict[str, float]: ...
    def counters(self) -> dict[str, dict[tuple[str, str], float]]:
        """By name: (label, its value) → count."""
        ...


class Metrics:
    """Collects at each scrape; satisfies prometheus_client's `Collector`."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        found: list[GaugeMetricFamily | CounterMetricFamily] = []
        for name, value in self._vitals.gauges().items():
            found.append(GaugeMetricFamily(f"atelier_{name}", name.replace("_", " "), value=value))
        for name, series in self._vitals.counters().items():
            label = next((key for key, _ in series), "of")
            family = CounterMetricFamily(f"atelier_{name}", name.replace("_", " "), labels=[label])
            for (_, value), count in series.items():
                family.add_metric([value], count)
            found.append(family)
        return found


def add_routes(site: web.Application, vitals: Vitals) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(vitals))

    async def health(_: web.Request) -> web.Response:
        return web.json_response(vitals.health())

    async def ready(_: web.Request) -> web.Response:
        why = await vitals.unready()
        return web.json_response({"ready": not why, "why": why}, status=503 if why else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        "/health": health, "/ready": ready, "/metrics": metrics,
    }  # fmt: skip
    site.add_routes([web.get(path, handler) for path, handler in routes.items()])
