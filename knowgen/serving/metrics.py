"""The metrics of a server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = ("ok", "failed", "refused", "busy", "invalid", "denied", "gone")
"""How a request can end: image generated; generation failed; refused by the generator; queue full or stopping; invalid
request; missing token; client disconnected."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The metrics of one server.

    Args:
        queued: Returns the number of requests that wait.
        in_progress: Returns the number of requests being generated.
    """

    def __init__(self, queued: Callable[[], float], in_progress: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("knowgen_requests", "Requests by outcome.", ["outcome"], registry=self._registry)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)  # shown as 0 before the first
        self._batches = Histogram(
            "knowgen_batch_size", "Requests per call of the generator.", buckets=_SIZES, registry=self._registry
        )
        self._generation = Histogram(
            "knowgen_generation_seconds",
            "Time from the call of the generator to the image.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._waits = Histogram(
            "knowgen_waiting_seconds",
            "Time from the request to the call of the generator.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        Gauge("knowgen_waiting", "Queued requests.", registry=self._registry).set_function(queued)
        Gauge("knowgen_in_progress", "Requests being generated.", registry=self._registry).set_function(in_progress)

    def count_request(self, outcome: str) -> None:
        """Count a request by its outcome, one of `OUTCOMES`."""
        self._requests.labels(outcome).inc()

    def count_batch(self, size: int) -> None:
        """Count a call of the generator."""
        self._batches.observe(size)

    def count_generation(self, seconds: float, waited: float) -> None:
        """Count the times of a generation.

        Args:
            seconds: Time the generator took.
            waited: Time the request was queued.
        """
        self._generation.observe(seconds)
        self._waits.observe(waited)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)
