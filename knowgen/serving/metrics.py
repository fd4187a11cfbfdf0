"""What a server counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = ("ok", "failed", "refused", "busy", "invalid", "denied", "gone")
"""How a request can end: drawn; not drawn; declined; no room or no time; not understood; no token; client gone."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The counters of one server.

    Args:
        waiting: Says how many requests wait.
        under_way: Says how many are being drawn.
    """

    def __init__(self, waiting: Callable[[], float], under_way: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "knowgen_requests", "Requests by how they ended.", ["outcome"], registry=self._registry
        )
        for outcome in OUTCOMES:
            self._requests.labels(outcome)  # shown as 0 until there is one
        self._batches = Histogram("knowgen_batch_size", "Requests a call.", buckets=_SIZES, registry=self._registry)
        self._drawing = Histogram(
            "knowgen_drawing_seconds", "From the call to the picture.", buckets=_SECONDS, registry=self._registry
        )
        self._waits = Histogram(
            "knowgen_waiting_seconds", "From arrival to the call.", buckets=_SECONDS, registry=self._registry
        )
        Gauge("knowgen_waiting", "Requests in line.", registry=self._registry).set_function(waiting)
        Gauge("knowgen_under_way", "Requests being drawn.", registry=self._registry).set_function(under_way)

    def ended(self, outcome: str) -> None:
        """Counts a request."""
        self._requests.labels(outcome).inc()

    def batch(self, size: int) -> None:
        """Counts a call of the generator."""
        self._batches.observe(size)

    def drawn(self, seconds: float, waited: float) -> None:
        """Counts the times of a drawing."""
        self._drawing.observe(seconds)
        self._waits.observe(waited)

    def text(self) -> bytes:
        """Returns all counters as text."""
        return generate_latest(self._registry)
