"""What the engine is given to run: a generator and scorers that are made ready, but not built yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knowgen.core.registry import Kind
from knowgen.core.spec import GeneratorSpec, ScorerSpec
from knowgen.generators.contract import GeneratorCapabilities
from knowgen.scorers.contract import ScorerCapabilities


@dataclass(frozen=True)
class ComponentRef:
    """From what a worker process builds an object again: a registered name and plain arguments.

    Attributes:
        kind: generators or scorers.
        name: As the user wrote it.
        args: Plain data, paths on this machine included.
    """

    kind: Kind
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GeneratorHandle:
    """A generator that is built when there is something to draw.

    Attributes:
        spec: Who draws, as recorded.
        traits: What it declares.
        build: Makes the object; called at most once, and only when there is work.
        remake: How a worker process makes it; None for an object that lives in this process only.
    """

    spec: GeneratorSpec
    traits: GeneratorCapabilities
    build: Callable[[], Any]
    remake: ComponentRef | None = None


@dataclass(frozen=True)
class ScorerHandle:
    """A scorer that is built when there is something to score; fields as in `GeneratorHandle`.

    Attributes:
        estimate: Returns the estimated cost of scoring some samples with their truths; None where it cannot say.
    """

    spec: ScorerSpec
    traits: ScorerCapabilities
    build: Callable[[], Any]
    remake: ComponentRef | None = None
    estimate: Callable[..., Any] | None = None
