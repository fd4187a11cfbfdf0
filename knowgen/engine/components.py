"""What the engine is given to run: handles of an agent, a generator and scorers, whose objects are not built yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from knowgen.core.registry import Kind
from knowgen.core.spec import AgentSpec, GeneratorSpec, ScorerSpec
from knowgen.generators.contract import GeneratorCapabilities
from knowgen.scorers.contract import ScorerCapabilities


@dataclass(frozen=True)
class ComponentRef:
    """A registered name and plain arguments, from which a worker process builds the object again.

    Attributes:
        kind: `generators` or `scorers`.
        name: Name as the user wrote it.
        args: Arguments as plain data; paths are those of this machine.
        bundled: Whether the plugin and its search backend are part of this project, so that it runs in this process
            by default.
    """

    kind: Kind
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    bundled: bool = False


@dataclass(frozen=True)
class GeneratorHandle:
    """A generator that is built when the first image is to be generated.

    Attributes:
        spec: What is recorded of it.
        capabilities: What it declares.
        build: Builds the object; called only if there is work to do.
        component_ref: How a worker process builds it; None for an object that exists in this process only.
        price_known: Whether the price of its calls is known; None for one that does not say.
    """

    spec: GeneratorSpec
    capabilities: GeneratorCapabilities
    build: Callable[[], Any]
    component_ref: ComponentRef | None = None
    price_known: bool | None = None


@dataclass(frozen=True)
class AgentHandle:
    """An agent that is built when the first answer is needed; attributes as in `GeneratorHandle`.

    Attributes:
        query_price: Maximum cost of a query of its search backend in US dollars; None where the backend does not say.
        price_known: Whether the price of its policy's calls is known; None where the policy does not say.
    """

    spec: AgentSpec
    capabilities: GeneratorCapabilities
    build: Callable[[], Any]
    component_ref: ComponentRef | None = None
    query_price: float | None = None
    price_known: bool | None = None


def before_generator(agent: AgentHandle, generator: GeneratorHandle) -> AgentHandle:
    """Return the handle of an agent before its image model: as many references are used as that takes."""
    capabilities = generator.capabilities
    most = capabilities.most_references if capabilities.references else 0
    return replace(agent, spec=agent.spec.model_copy(update={"most_references": most}))


@dataclass(frozen=True)
class ScorerHandle:
    """A scorer that is built when the first image is to be scored; other attributes as in `GeneratorHandle`.

    Attributes:
        estimate: Returns the estimated cost of scoring some samples with their truths, None if it cannot say.
    """

    spec: ScorerSpec
    capabilities: ScorerCapabilities
    build: Callable[[], Any]
    component_ref: ComponentRef | None = None
    estimate: Callable[..., Any] | None = None
    price_known: bool | None = None
