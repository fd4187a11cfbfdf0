"""Rewards for training an agent: scores of its image and of its answer, combined into one number or a mask.

    reward = (1 - a) * image + a * text                              a = 0.5
    image  = round(.1 F + .4 V + .4 T + .1 A, 2)                     T = .5 where no text is required
    text   = 0, .25, .5, .75 or 1                                    by a judge of the answer

F, V, T and A are faithfulness, visual correctness, text accuracy and aesthetics, each in [0, 1].

Source of the formulas: Gen-Searcher, arXiv 2603.28767. Its published code gives 0 to an episode whose judge failed.
Here such an episode is masked: it has no value but a reason, so that a policy is not trained on a lost connection.

    dual = DualReward(VlmJudge("gpt-4.1"), AnswerJudge("gpt-4.1"))
    rewards = await dual.rewards([(sample, truth, generation), ...])
    await dual.close()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from knowgen.core.errors import UsageError
from knowgen.core.records import DIMENSIONS, TEXT, GenerationStatus, Item, Score, ScoreStatus
from knowgen.scorers.contract import AsyncScorer, BatchScorer, scorer_capabilities
from knowgen.stats.official import stored_overall
from knowgen.training.reward_scoring import EpisodeScoring, ScoredEpisode

ParsingMode = Literal["strict", "lenient"]
"""Parsed score to use: of the strict parser, or of the lenient parser of the official evaluator."""

COEFFICIENT = 0.5
"""Default weight of the text reward (source: Gen-Searcher, arXiv 2603.28767)."""


@dataclass(frozen=True)
class EpisodeReward:
    """Reward of an episode.

    Attributes:
        value: The reward in [0, 1]; None if masked.
        masked: Whether the episode must be left out of training, because it could not be scored.
        reason: Why it is masked, or which rule the answer violates; else empty.
        image: The image reward; None if there is none.
        text: The text reward; None if there is none.
        generated: Whether there is an image. False if the answer violates a rule and no image was generated.
        scores: The scores it was computed from, failed ones included.
    """

    value: float | None
    masked: bool = False
    reason: str = ""
    image: float | None = None
    text: float | None = None
    generated: bool = True
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        """Validate the fields.

        Raises:
            ValueError: A masked reward has a value or no reason, or an unmasked one is outside [0, 1].
        """
        if self.masked:
            if self.value is not None or not self.reason:
                raise ValueError("a masked reward must have a reason and no value")
        elif self.value is None or not 0.0 <= self.value <= 1.0:  # also true for NaN
            raise ValueError(f"a reward must be in [0, 1], got {self.value}")


def masked(reason: str, **fields: Any) -> EpisodeReward:
    """Return the reward of an episode that could not be scored; `fields` are other fields of `EpisodeReward`."""
    return EpisodeReward(None, masked=True, reason=reason, **fields)


def image_reward(score: Score, parsing: ParsingMode = "strict") -> EpisodeReward:
    """Return the image reward of a score.

    Args:
        score: Score with the four KnowGen dimensions, of which the overall is taken, or with one other dimension, such
            as `similarity`, whose value is taken.
        parsing: Parsed score to use.

    Returns:
        The reward; masked if the score failed or did not apply.

    Raises:
        UsageError: The score has other dimensions.
    """
    values, reason = _parsed(score, parsing)
    if reason:
        return masked(reason, scores=(score,))
    value: float | None
    if len(values) == 1 and not set(values) & set(DIMENSIONS):
        value = next(iter(values.values()))
    elif set(values) | {TEXT} == set(DIMENSIONS):
        value = stored_overall(values)
    else:
        raise UsageError(
            f"no image reward is defined for {', '.join(values) or 'no values'}",
            where=f"scorer {score.scorer}",
            fix="use a judge of the four KnowGen dimensions, or a scorer with one dimension",
        )
    return EpisodeReward(value, image=value, scores=(score,))


def text_reward(score: Score, parsing: ParsingMode = "strict") -> EpisodeReward:
    """Return the text reward of a score by a scorer of the answer, such as `answer` or the check of a world.

    Args:
        score: Score with one dimension.
        parsing: Parsed score to use; the lenient one is the nearest value of the grid.

    Returns:
        The reward; masked if the score failed or did not apply.

    Raises:
        UsageError: The score has several dimensions.
    """
    values, reason = _parsed(score, parsing)
    if reason:
        return masked(reason, scores=(score,))
    if len(values) != 1:
        raise UsageError(
            f"no text reward is defined for {', '.join(values) or 'no values'}",
            where=f"scorer {score.scorer}",
            fix="use answer:MODEL, or another scorer with one dimension",
        )
    value = next(iter(values.values()))
    return EpisodeReward(value, text=value, scores=(score,))


def _parsed(score: Score, parsing: ParsingMode) -> tuple[Mapping[str, float], str]:
    """Return the parsed values of a score, or no values and the reason."""
    parsed = score.lenient if parsing == "lenient" and score.lenient is not None else score.strict
    if parsed.status is not ScoreStatus.OK:
        return {}, f"{score.scorer}: {parsed.reason or parsed.status.value}"
    if wrong := [name for name, value in parsed.values.items() if not 0.0 <= value <= 1.0]:
        return {}, f"{score.scorer}: its value of {wrong[0]} is outside [0, 1]"
    return parsed.values, ""


def names_an_image(reference: Mapping[str, Any]) -> bool:
    """Return whether a reference names an image and is not marked `usable: false`."""
    named = any(reference.get(key) for key in ("img_id", "sha256", "local_path", "url"))
    return named and reference.get("usable", True) is not False


@dataclass(frozen=True)
class ReferencesRule:
    """Required number of usable references of an answer. An answer that violates it gets reward 0 without an image.

    Source: Gen-Searcher, arXiv 2603.28767. This is an assessment of the answer, therefore 0 and not a mask.

    Attributes:
        minimum: Minimum number.
        maximum: Maximum number.
        usable: Returns whether a reference counts.

    Example:
        >>> ReferencesRule().violation([])
        'the answer has 0 usable references, required are 1 to 4'
    """

    minimum: int = 1
    maximum: int = 4
    usable: Callable[[Mapping[str, Any]], bool] = names_an_image

    def violation(self, references: Sequence[Mapping[str, Any]]) -> str:
        """Return how an answer violates the rule; empty if it does not. To be checked before generating."""
        count = sum(map(self.usable, references))
        if self.minimum <= count <= self.maximum:
            return ""
        return f"the answer has {count} usable references, required are {self.minimum} to {self.maximum}"


def combined(image: EpisodeReward | None, text: EpisodeReward | None, coefficient: float) -> EpisodeReward:
    """Return the weighted sum of the two halves of a reward; masked where one of them is.

    Args:
        image: The image half; None if its weight is 0.
        text: The text half; None if its weight is 0.
        coefficient: Weight of the text half, 0 to 1.

    Example:
        >>> combined(EpisodeReward(0.5, image=0.5), EpisodeReward(1.0, text=1.0), 0.5).value
        0.75
        >>> combined(EpisodeReward(0.5, image=0.5), masked("the judge is down"), 0.5).masked
        True
    """
    halves = [half for half in (image, text) if half is not None]
    fields: dict[str, Any] = {
        "image": None if image is None else image.image,
        "text": None if text is None else text.text,
        "generated": image is None or image.generated,
        "scores": tuple(score for half in halves for score in half.scores),
    }
    if reasons := [half.reason for half in halves if half.masked]:
        return masked("; ".join(dict.fromkeys(reasons)), **fields)
    value = (1 - coefficient) * (fields["image"] or 0.0) + coefficient * (fields["text"] or 0.0)
    return EpisodeReward(min(1.0, value), **fields)


class DualReward:
    """The dual reward of episodes: one scorer for the image, one for the answer.

    Calls run concurrently, up to a limit. Transient errors are retried; an episode whose image or answer could not be
    scored is masked, because one of the two rewards says nothing about their sum.

    A scorer that loads a model must be set up by the caller: `judge.setup("cuda:0")`.

    Args:
        image: Scorer of the image: `vlm`, `hf`, a world's check, or a scorer with one dimension.
        text: Scorer of the answer: `answer` or `evidence`.
        coefficient: Weight of the text reward, 0 to 1. A scorer whose weight is 0 is not called.
        rule: Answers that violate it get reward 0 without an image; None for no rule.
        parsing: Parsed score to use: strict, or lenient as in the published training.
        concurrency: Maximum concurrent calls of each scorer.
        tries: Maximum attempts at a call that meets transient errors.

    Raises:
        UsageError: An argument is out of range, or one of the two has no scoring method.

    Example:
        >>> from knowgen.core.records import Generation, GroundTruth, ImageRef, ParsedScore, Sample
        >>> class Constant:
        ...     needs = frozenset({"image"})
        ...     def __init__(self, **values):
        ...         self.values = values
        ...     async def score(self, sample, truth, generation):
        ...         strict = ParsedScore(status="ok", values=self.values)
        ...         return Score(sample_id=sample.id, scorer="constant", status="ok", strict=strict)
        >>> dual = DualReward(Constant(similarity=0.5), Constant(answer=1.0))
        >>> image = ImageRef(sha256="0" * 64, width=1, height=1, format="PNG")
        >>> references = ({"url": "https://example.org/robin.png"},)
        >>> generation = Generation(sample_id="a", status="ok", image=image, references=references)
        >>> item = (Sample(id="a", prompt="a robin"), GroundTruth(sample_id="a"), generation)
        >>> asyncio.run(dual.reward(item)).value
        0.75
    """

    def __init__(
        self,
        image: AsyncScorer | BatchScorer,
        text: AsyncScorer,
        coefficient: float = COEFFICIENT,
        *,
        rule: ReferencesRule | None = ReferencesRule(),
        parsing: ParsingMode = "strict",
        concurrency: int = 16,
        tries: int = 4,
    ) -> None:
        if isinstance(coefficient, bool) or not 0.0 <= coefficient <= 1.0:
            raise UsageError(f"coefficient must be a number in [0, 1], got {coefficient}", where="dual reward")
        if parsing not in ("strict", "lenient"):
            raise UsageError(f"parsing must be strict or lenient, got {parsing!r}", where="dual reward")
        if scorer_capabilities(text).shape != "score":
            raise UsageError("the text scorer must have `async score`", where="dual reward")
        self.coefficient, self.rule, self.parsing = coefficient, rule, parsing
        self._image = EpisodeScoring(image, concurrency, tries)
        self._text = EpisodeScoring(text, concurrency, tries)

    async def reward(self, item: Item) -> EpisodeReward:
        """Return the reward of one episode; see `rewards`."""
        return (await self.rewards([item]))[0]

    async def rewards(self, items: Sequence[Item]) -> list[EpisodeReward]:
        """Return the rewards of episodes, in order.

        Args:
            items: Sample, ground truth and generation of each episode; several may be of the same sample.

        Raises:
            BudgetReachedError: The budget allows no further call.
            ConfigError, UsageError, MissingDependencyError: An error that would affect every episode.
        """
        unscored = [self._reward_without_scoring(item) for item in items]
        to_score = [item for item, reward in zip(items, unscored, strict=True) if reward is None]
        results = await asyncio.gather(
            self._image.scores(to_score if self.coefficient < 1 else []),
            self._text.scores(to_score if self.coefficient > 0 else []),
            return_exceptions=True,  # let both end, so that no task is left running after an error
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        images, answers = (iter(result) for result in results if not isinstance(result, BaseException))
        return [reward or self._combine(next(images, None), next(answers, None)) for reward in unscored]

    def _reward_without_scoring(self, item: Item) -> EpisodeReward | None:
        """Return the reward of an episode that needs no scoring; None if it must be scored."""
        generation = item[2]
        generated = generation.status is GenerationStatus.OK and generation.image is not None
        if self.rule is not None and (reason := self.rule.violation(generation.references)):
            return EpisodeReward(0.0, reason=reason, generated=generated)
        if not generated and self.coefficient < 1:
            return masked(f"no image: {generation.reason or generation.status.value}", generated=False)
        return None

    def _combine(self, image: ScoredEpisode | None, text: ScoredEpisode | None) -> EpisodeReward:
        """Return the weighted sum of both rewards; one of them is None if its weight is 0."""
        halves = [
            None
            if episode is None
            else reward_of(episode.score, self.parsing)
            if episode.score is not None
            else masked(episode.reason)
            for reward_of, episode in ((image_reward, image), (text_reward, text))
        ]
        return combined(halves[0], halves[1], self.coefficient)

    async def close(self) -> None:
        """Close both scorers; call it in the event loop that they were used in."""
        await self._image.close()
        await self._text.close()
