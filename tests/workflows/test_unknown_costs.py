"""A call whose price nobody knows makes the cost of a run unknown, and never $0."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from knowgen import api
from knowgen.core.metering import paid_call
from knowgen.core.records import GenerationRequest, Sample
from knowgen.generators.contract import GeneratedImage
from knowgen.tasks.in_memory import InMemoryTask


class Service:
    """An image service that reports neither price nor tokens, as many servers that users run."""

    revision = "1"

    def __init__(self, worst_case: float | None, cost: float | None) -> None:
        self.worst_case, self.cost = worst_case, cost

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        async with paid_call(self.worst_case, "service") as reservation:
            reservation.settle(self.cost)
        return GeneratedImage(image=Image.new("RGB", (32, 32)))


@pytest.mark.parametrize(
    ("worst_case", "cost", "expected"),
    [(None, None, None), (None, 0.0, 0.0), (None, 0.25, 0.5), (0.0, None, 0.0), (0.25, None, 0.5)],
)
def test_the_cost_of_a_run_is_known_only_where_that_of_each_call_is(
    worst_case: float | None, cost: float | None, expected: float | None, tmp_path: Path
) -> None:
    task = InMemoryTask("plain", [Sample(id=f"s{number}", prompt=f"plain {number}") for number in range(2)])
    run = api.evaluate(task, Service(worst_case, cost), scorers=["pixels"], out=tmp_path / "run")
    assert run.cost == expected
    again = api.evaluate(task, Service(worst_case, cost), scorers=["pixels"], out=tmp_path / "run")
    assert again.cost == expected, "a run that is resumed"
