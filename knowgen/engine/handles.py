"""What the engine is given to run: a generator and scorers that are made ready, but not built yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knowgen.generators.contract import Traits
from knowgen.registry import Kind
from knowgen.scorers.contract import ScorerTraits
from knowgen.spec import GeneratorSpec, ScorerSpec


@dataclass(frozen=True)
class Remake:
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
    traits: Traits
    build: Callable[[], Any]
    remake: Remake | None = None


@dataclass(frozen=True)
class ScorerHandle:
    """A scorer that is built when there is something to score; fields as in `GeneratorHandle`.

    Attributes:
        estimate: Returns the estimated cost of scoring some samples with their truths; None where it cannot say.
    """

    spec: ScorerSpec
    traits: ScorerTraits
    build: Callable[[], Any]
    remake: Remake | None = None
    estimate: Callable[..., Any] | None = None
