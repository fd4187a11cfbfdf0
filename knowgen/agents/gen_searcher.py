"""Gen-Searcher, the bundled agent: it searches, reads, chooses reference images and writes a prompt."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from knowgen.agents.images import MAX_PIXELS, SCALING_VERSION, ImageScaler
from knowgen.agents.loop import Limits, SearchAgent, today
from knowgen.agents.policies.contract import Policy, Sampling
from knowgen.agents.prompts.texts import OWN_VERSION, agent_texts, texts_version
from knowgen.agents.records import Ending, Step, Trajectory
from knowgen.agents.tools.contract import PageReader, Tool
from knowgen.agents.tools.extraction import EXTRACTION_VERSION, PassageReader
from knowgen.agents.tools.load import load_tools
from knowgen.agents.tools.summary import SummaryModel, SummaryReader
from knowgen.core import registry
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.records import AgentAnswer, AnswerStatus, GenerationRequest
from knowgen.search.contract import PrivilegedSearch, SearchBackend
from knowgen.search.load import load_search

AGENT_VERSION = "gen-searcher-1"
"""Version of the agent's code, part of keys. Increment it with any change that may give another answer."""

PROMPT_CALLS = 8
"""Maximum number of tool calls that the published system prompt allows."""

IMAGE_SEARCH = "image_search"
"""Name of the tool that finds reference images."""

_NAME = "generator gen_searcher"


class GenSearcher:
    """An agent that searches for what a prompt needs, before an image model generates.

    A run evaluates it together with its image model, `painter`, which it does not call itself. Arguments of its parts
    are given as `policy.KEY`, `search.KEY` and `summary.KEY`.

    With a search backend that needs the ground truth, such as `oracle`, the agent is privileged.

    Args:
        policy: What decides its steps: a name such as `openai:MODEL`, or a policy.
        search: Search backend: a name such as `wikimedia`, or a backend.
        painter: Image model of a run; the engine builds it.
        fallback: What is generated without a usable answer; as `painter`, for the engine.
        summary: Model that reads pages, over a chat endpoint; empty to extract relevant passages without a model.
        prompt: `own`, `short` for small models, `upstream` for the official texts, word for word, or a YAML file with
            texts of your own.
        upstream_dir: Checkout of the published repository with the official texts; empty to fetch them.
        tools: Names of the tools, with commas between them.
        rounds: Maximum number of rounds, without the last call.
        tool_calls: Maximum number of tool calls. None for 8 with the own texts, and for one a round with the official
            ones, whose prompt says 8 and whose code allows 9.
        calls_per_round: Maximum number of tool calls of one reply.
        images: Whether images come `first` in their message, as in the published training, or `last`.
        image_pixels: Maximum width times height of an image that the policy sees; 0 for images as they are.
        temperature: Sampling temperature; 0 for the most probable token.
        top_p: Share of probability that is sampled from, in (0, 1].
        max_new_tokens: Maximum number of tokens of one reply.
        max_context: Maximum number of tokens of a conversation, images included; 0 for the policy's own limit.
        time_limit: Maximum time of a trajectory in seconds, without waiting for services; 0 for no limit.
        date: Date at the end of the system prompt, such as 2026-11-28; today's when empty.
        parts: Arguments of the parts.

    Raises:
        UsageError: An argument is invalid.
        ConfigError: The official texts cannot be read.
        DataError: They are not those of the pinned commit.
    """

    revision = f"{AGENT_VERSION} {OWN_VERSION} {SCALING_VERSION} {EXTRACTION_VERSION}"
    wants_search = True
    concurrency = 128  # most of them wait for the search while the policy works for others
    deadline = 6 * 3600.0
    identity_excludes = frozenset({"upstream_dir"})

    def __init__(
        self,
        policy: str | Policy = "",
        search: str | SearchBackend = "",
        *,
        painter: str | None = None,
        fallback: Literal["draw", "fail"] = "draw",
        summary: str = "",
        prompt: str = "own",
        upstream_dir: str = "",
        tools: str | Sequence[str | Tool] = "search,image_search,browse",
        rounds: int = 9,
        tool_calls: int | None = None,
        calls_per_round: int = 1,
        images: Literal["first", "last"] = "first",
        image_pixels: int = MAX_PIXELS,
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_new_tokens: int = 4096,
        max_context: int = 0,
        time_limit: float = 0.0,
        date: str = "",
        **parts: Any,
    ) -> None:
        given = _part_arguments(parts)
        if images not in ("first", "last"):
            raise UsageError(f"images must be first or last, got {images!r}", where=_NAME)
        if fallback not in ("draw", "fail"):
            raise UsageError(f"fallback must be draw or fail, got {fallback!r}", where=_NAME)
        self.painter, self.fallback, self.prompt, self.tools = painter, fallback, prompt, tools
        self.rounds, self.tool_calls, self.calls_per_round = rounds, tool_calls, calls_per_round
        self.images, self.image_pixels, self.upstream_dir = images, image_pixels, upstream_dir
        self.temperature, self.top_p, self.time_limit = temperature, top_p, time_limit
        self.max_new_tokens, self.max_context, self.date = max_new_tokens, max_context, _checked_date(date)
        sampling = checked_sampling(Sampling(temperature, top_p, max_new_tokens, max_context))
        stated = PROMPT_CALLS if tool_calls is None else tool_calls
        allowed = None if prompt == "upstream" and tool_calls is None else stated
        limits = Limits(rounds, allowed, calls_per_round, seconds=time_limit)
        loaded = load_tools(tools)
        texts = agent_texts(prompt, loaded, calls=stated, upstream_dir=upstream_dir)
        self.summary = SummaryModel(summary, **given["summary"]) if summary else None
        reader: PageReader = SummaryReader(self.summary, texts) if self.summary else PassageReader()
        self.search = _backend(search, given["search"])
        self.privileged = bool(getattr(self.search, "privileged", False))
        self.policy = _policy(policy, given["policy"])
        self._scaler = ImageScaler(image_pixels)
        self._agent = SearchAgent(
            self.policy,
            self.search,
            loaded,
            texts,
            reader=reader,
            limits=limits,
            sampling=sampling,
            scaler=self._scaler,
            images_first=images == "first",
            today=(lambda: self.date) if date else today,
        )

    @staticmethod
    def references_optional(tools: str | Sequence[str | Tool] = IMAGE_SEARCH, **_: Any) -> bool:
        """Return whether an answer without reference images is used: where the agent cannot look for images.

        Otherwise the sample's own prompt is generated, as in the published system.
        """
        names = [name.strip() for name in tools.split(",")] if isinstance(tools, str) else list(tools)
        return not any((each if isinstance(each, str) else each.name) == IMAGE_SEARCH for each in names)

    @staticmethod
    def weights_identity(prompt: str = "own", **_: Any) -> str:
        """Return the version of texts that come from a file, by its content; empty for others.

        Raises:
            UsageError: There are no such texts.
            ConfigError: The file cannot be read.
        """
        return texts_version(prompt)

    async def answer(self, request: GenerationRequest) -> AgentAnswer:
        """Search for a request, and return what to generate.

        An ending without an answer is a result too, with the status `none`.

        Raises:
            ConfigError: The search backend needs a ground truth, and the request has none.
            TransientError: A service is unavailable.
            AccountError: A service rejects the account.
            BudgetReachedError: The budget does not allow a call.
        """
        search = self._search_for(request)
        return answer_of(await self._agent.run(request.prompt, session=request.id, seed=request.seed, search=search))

    def _search_for(self, request: GenerationRequest) -> SearchBackend:
        """Return the search for a request; that of a privileged backend is made from the ground truth."""
        if not self.privileged:
            return self.search
        if request.truth is None:
            what = "the request has no ground truth, which its search backend needs"
            raise ConfigError(what, where=_NAME, fix="use the backend in a run of a task with ground truths")
        return cast(PrivilegedSearch, self.search).for_truth(request.truth)

    async def run(
        self,
        prompt: str,
        *,
        session: str = "",
        seed: int | None = None,
        search: SearchBackend | None = None,
        watch: Callable[[Step], None] | None = None,
    ) -> Trajectory:
        """Run a trajectory for a prompt; see `SearchAgent.run`."""
        given: dict[str, Any] = {} if watch is None else {"watch": watch}
        return await self._agent.run(prompt, session=session, seed=seed, search=search, **given)

    async def check_service(self) -> str:
        """Check the services of all parts that can be checked, each with one free call.

        Returns:
            Warnings in one line, or an empty text.

        Raises:
            AccountError: A service rejects the key, or an address is wrong.
            ServiceUnavailableError: A service cannot be reached, or is busy.
        """
        warnings = []
        for part in (self.policy, self.search, self.summary):
            check = getattr(part, "check_service", None)
            if check is not None:
                warnings.append(await check())
        return "; ".join(filter(None, warnings))

    async def close(self) -> None:
        """Close the connections of all parts, and free the policy's model."""
        await self.policy.close()
        await self.close_services()

    async def close_services(self) -> None:
        """Close all parts but the policy, which another agent may go on using."""
        for part in (self.search, self.summary):
            close = getattr(part, "close", None)
            if close is not None:
                await close()
        self._scaler.close()


def answer_of(trajectory: Trajectory) -> AgentAnswer:
    """Return a trajectory as the result that is stored."""
    answered = trajectory.ending is Ending.ANSWER
    references = trajectory.references if answered else []
    return AgentAnswer(
        status=AnswerStatus.OK if answered else AnswerStatus.NONE,
        reason=trajectory.reason,
        ending=trajectory.ending.value if trajectory.ending is not None else "",
        prompt=trajectory.gen_prompt or "" if answered else "",
        references=tuple(image.image for image, _ in references),
        reference_notes=tuple(
            {
                "img_id": image.id,
                "title": image.title,
                "url": image.url,
                "page_url": image.page_url,
                "note": note,
                "sha256": image.image.sha256,
            }
            for image, note in references
        ),
        evidence=tuple(trajectory.evidence),
        system=next((message.text for message in trajectory.messages if message.role == "system"), ""),
        trajectory=tuple(step.model_dump(mode="json") for step in trajectory.steps),
        images=tuple(image.image for image in trajectory.images.values()),
        usage=tuple(trajectory.usage),
        seconds=trajectory.seconds,
    )


def checked_sampling(sampling: Sampling) -> Sampling:
    """Return how replies are sampled.

    Raises:
        UsageError: A value is out of its range.
    """
    for name, low in (("max_new_tokens", 1), ("max_context", 0)):
        value = getattr(sampling, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(f"{name} must be a whole number >= {low}, got {value!r}", where=_NAME)
    if not isinstance(sampling.temperature, int | float) or not 0 <= sampling.temperature <= 2:
        raise UsageError(f"temperature must be a number from 0 to 2, got {sampling.temperature!r}", where=_NAME)
    if not isinstance(sampling.top_p, int | float) or not 0 < sampling.top_p <= 1:
        raise UsageError(f"top_p must be a number above 0 and at most 1, got {sampling.top_p!r}", where=_NAME)
    return replace(sampling, temperature=float(sampling.temperature), top_p=float(sampling.top_p))


def _checked_date(text: str) -> str:
    try:
        return text and datetime.date.fromisoformat(text).isoformat()
    except (TypeError, ValueError) as error:
        fix = "write it as YYYY-MM-DD"
        raise UsageError(f"date must be a date, got {text!r}", where=_NAME, fix=fix) from error


def _part_arguments(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of each part, from names such as `policy.base_url`.

    Raises:
        UsageError: A name is that of no part.
    """
    parts: dict[str, dict[str, Any]] = {"policy": {}, "search": {}, "summary": {}, "painter": {}}
    for name, value in given.items():
        part, dot, key = name.partition(".")
        if not dot or part not in parts:
            fix = f"arguments of parts begin with {', '.join(f'{each}.' for each in parts)}"
            raise UsageError(f"unknown argument {name!r}", where=_NAME, fix=fix)
        parts[part][key] = value
    return parts


def _policy(policy: str | Policy, given: Mapping[str, Any]) -> Policy:
    if policy == "":
        fix = "give -g policy=NAME, such as openai:MODEL; `knowgen list policies` shows them"
        raise UsageError("needs a policy", where=_NAME, fix=fix)
    if isinstance(policy, str):
        policy = cast(Policy, registry.create(registry.resolve("policies", policy), given))
    elif given:
        raise UsageError("arguments of a policy that is an object", where=_NAME, fix="give them to its class")
    for method in ("open", "close"):
        if not callable(getattr(policy, method, None)):
            raise UsageError(f"{method}() is missing", where=f"policy {type(policy).__name__}")
    return policy


def _backend(search: str | SearchBackend, given: Mapping[str, Any]) -> SearchBackend:
    if search == "":
        raise UsageError("needs a search backend", where=_NAME, fix="give -g search=NAME, such as wikimedia")
    if isinstance(search, str):
        return load_search(search, given)
    if given:
        raise UsageError("arguments of a search backend that is an object", where=_NAME, fix="give them to its class")
    return load_search(search)
