"""Rewards for training an agent: judgements of its picture and of its answer, as one number or as a mask.

    reward = (1 - a) * image + a * text                              a = 0.5
    image  = round(.1 F + .4 V + .4 T + .1 A, 2)                     T = .5 where no text is required
    text   = 0, .25, .5, .75 or 1                                    by a judge of the answer

Source of the formulas: Gen-Searcher, arXiv 2603.28767. Where its published code gives 0 to an episode whose judge
failed, here such an episode is masked: it has no value and says why, so that no policy is trained on a lost connection.

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
from knowgen.scorers.vlm.answer import ANSWER
from knowgen.scorers.vlm.evidence import EVIDENCE
from knowgen.training.reward_scoring import EpisodeScoring, ScoredEpisode

ReadingName = Literal["strict", "lenient"]

WEIGHTS = {"faithfulness": 0.1, "visual_correctness": 0.4, TEXT: 0.4, "aesthetics": 0.1}
"""Weights of a sample's overall (source: the KnowGen evaluation protocol)."""

TEXT_WHERE_NONE = 0.5
"""What text accuracy counts where no text is required (source: the same)."""

COEFFICIENT = 0.5
"""Share of the text half (source: Gen-Searcher, arXiv 2603.28767)."""

TEXT_DIMENSIONS = (ANSWER, EVIDENCE)


@dataclass(frozen=True)
class EpisodeReward:
    """What an episode earned.

    Attributes:
        value: In [0, 1]; None when masked.
        masked: Must the episode be left out of training, because it could not be judged?
        reason: Why it is masked, or which rule it broke; else empty.
        image: The image half, None where there is none.
        text: The text half, None where there is none.
        drawn: Was there a picture? False for an answer that a rule kept from being drawn.
        scores: The judgements it was made of, failed ones included.
    """

    value: float | None
    masked: bool = False
    reason: str = ""
    image: float | None = None
    text: float | None = None
    drawn: bool = True
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        """Holds the record to its own rules.

        Raises:
            ValueError: A masked reward has a value or no reason, or one that is not masked lies outside [0, 1].
        """
        if self.masked:
            if self.value is not None or not self.reason:
                raise ValueError("a masked reward has no value, but a reason")
        elif self.value is None or not 0.0 <= self.value <= 1.0:  # also true for NaN
            raise ValueError(f"a reward lies in [0, 1], not at {self.value}")


def masked(reason: str, **fields: Any) -> EpisodeReward:
    """Makes the reward of an episode that could not be judged; `fields` are further fields of `EpisodeReward`."""
    return EpisodeReward(None, masked=True, reason=reason, **fields)


def image_reward(score: Score, reading: ReadingName = "strict") -> EpisodeReward:
    """Returns the image half of a judgement of the picture.

    Args:
        score: By a judge of the four KnowGen dimensions, whose overall is taken, or by a measure of one dimension,
            such as `similarity`, whose value is taken.
        reading: The reading of the contract, or the official one.

    Returns:
        The reward; masked where the judgement failed or did not apply.

    Raises:
        UsageError: The score has other dimensions, of which no one number is made.
    """
    found, reason = _read(score, reading)
    if reason:
        return masked(reason, scores=(score,))
    if len(found) == 1 and not set(found) & set(DIMENSIONS):
        value = next(iter(found.values()))
    elif set(found) | {TEXT} == set(DIMENSIONS):
        value = overall(found)
    else:
        raise UsageError(
            f"no image reward is made of {', '.join(found) or 'no values'}",
            where=f"scorer {score.scorer}",
            fix="take a judge of the four KnowGen dimensions, or a measure of one",
        )
    return EpisodeReward(value, image=value, scores=(score,))


def overall(values: Mapping[str, float]) -> float:
    """Returns a sample's overall, `round(.1 F + .4 V + .4 T + .1 A, 2)`; T is 0.5 where it is absent.

    Args:
        values: By dimension, each in [0, 1].
    """
    # added up left to right, as the published evaluator does, so that the last digit agrees
    total = 0.0
    for name, weight in WEIGHTS.items():
        total += weight * (values.get(name, TEXT_WHERE_NONE) if name == TEXT else values[name])
    return round(total, 2)


def text_reward(score: Score, reading: ReadingName = "strict") -> EpisodeReward:
    """Returns the text half of a judgement by `answer` or `evidence`.

    Args:
        score: By one of the two.
        reading: The reading of the contract, or the nearest value of the grid.

    Returns:
        The reward; masked where the judgement failed or did not apply.

    Raises:
        UsageError: The score is by another scorer.
    """
    found, reason = _read(score, reading)
    if reason:
        return masked(reason, scores=(score,))
    if len(found) != 1 or next(iter(found)) not in TEXT_DIMENSIONS:
        raise UsageError(
            f"no text reward is made of {', '.join(found) or 'no values'}",
            where=f"scorer {score.scorer}",
            fix="take answer:MODEL or evidence:MODEL",
        )
    value = next(iter(found.values()))
    return EpisodeReward(value, text=value, scores=(score,))


def _read(score: Score, reading: ReadingName) -> tuple[Mapping[str, float], str]:
    """Returns the values of a reading, or why there are none."""
    read = score.lenient if reading == "lenient" and score.lenient is not None else score.strict
    if read.status is not ScoreStatus.OK:
        return {}, f"{score.scorer}: {read.reason or read.status.value}"
    if wrong := [name for name, value in read.values.items() if not 0.0 <= value <= 1.0]:
        return {}, f"{score.scorer}: its value of {wrong[0]} is outside [0, 1]"
    return read.values, ""


def names_a_picture(reference: Mapping[str, Any]) -> bool:
    """Tells whether a reference names a picture and is not marked `usable: false`."""
    named = any(reference.get(key) for key in ("img_id", "sha256", "local_path", "url"))
    return named and reference.get("usable", True) is not False


@dataclass(frozen=True)
class ReferencesRule:
    """How many usable references an answer must have. One that breaks it earns 0 and is not drawn.

    Source: Gen-Searcher, arXiv 2603.28767. This is a verdict on the answer, so it is a 0 and no mask.

    Attributes:
        least: Fewest.
        most: Most.
        usable: Tells a reference that counts.
    """

    least: int = 1
    most: int = 4
    usable: Callable[[Mapping[str, Any]], bool] = names_a_picture

    def broken_by(self, references: Sequence[Mapping[str, Any]]) -> str:
        """Returns how an answer breaks the rule, empty when it keeps it; to be asked before anything is drawn."""
        count = sum(map(self.usable, references))
        if self.least <= count <= self.most:
            return ""
        return f"the answer has {count} usable references, and {self.least} to {self.most} are asked for"


class DualReward:
    """The dual reward of episodes: one judge looks at the picture, another at the answer.

    Judgements run side by side, a bounded number at once. A fault that may pass is tried again; an episode whose
    picture or answer could not be judged is masked. Half of a reward is never given: with one judgement lost, the
    other says nothing about the sum.

    A judge that loads a model is set up by the caller: `judge.setup("cuda:0")`.

    Args:
        image: Judges the picture: `vlm`, `hf`, a world's check, or a measure of one dimension.
        text: Judges the answer: `answer` or `evidence`.
        coefficient: Share of the text half, 0 to 1. A half whose share is 0 is not asked for.
        rule: Which answers earn 0 undrawn; None for no rule.
        reading: The reading of the contract, or the official one, as published training takes.
        concurrency: Judgements by one scorer at once.
        tries: Tries of a judgement where faults may pass.

    Raises:
        UsageError: An argument is out of its range, or one of the two is no scorer.
    """

    def __init__(
        self,
        image: AsyncScorer | BatchScorer,
        text: AsyncScorer,
        coefficient: float = COEFFICIENT,
        *,
        rule: ReferencesRule | None = ReferencesRule(),
        reading: ReadingName = "strict",
        concurrency: int = 16,
        tries: int = 4,
    ) -> None:
        if isinstance(coefficient, bool) or not 0.0 <= coefficient <= 1.0:
            raise UsageError(f"coefficient={coefficient} is not within 0 to 1", where="dual reward")
        if reading not in ("strict", "lenient"):
            raise UsageError(f"reading={reading!r} is not known", where="dual reward", fix="strict or lenient")
        if scorer_capabilities(text).shape != "score":
            raise UsageError("the text judge must have `async score`", where="dual reward")
        self.coefficient, self.rule, self.reading = coefficient, rule, reading
        self._image = EpisodeScoring(image, concurrency, tries)
        self._text = EpisodeScoring(text, concurrency, tries)

    async def reward(self, item: Item) -> EpisodeReward:
        """Returns the reward of one episode; see `rewards`."""
        return (await self.rewards([item]))[0]

    async def rewards(self, items: Sequence[Item]) -> list[EpisodeReward]:
        """Returns the rewards of episodes, in their order.

        Args:
            items: Sample, ground truth and generation of each; several may be of one sample.

        Raises:
            BudgetReachedError: The budget admits no further call.
            ConfigError, UsageError, MissingDependencyError: What would hit every episode alike.
        """
        settled = [self._unjudged(item) for item in items]
        judged = [item for item, reward in zip(items, settled, strict=True) if reward is None]
        halves = await asyncio.gather(
            self._image.scores(judged if self.coefficient < 1 else []),
            self._text.scores(judged if self.coefficient > 0 else []),
            return_exceptions=True,  # so that neither is left under way when the other one ends
        )
        for half in halves:
            if isinstance(half, BaseException):
                raise half
        pictures, answers = (iter(half) for half in halves if not isinstance(half, BaseException))
        return [reward or self._sum(next(pictures, None), next(answers, None)) for reward in settled]

    def _unjudged(self, item: Item) -> EpisodeReward | None:
        """Returns the reward of an episode that is not judged, None for one that is."""
        generation = item[2]
        drawn = generation.status is GenerationStatus.OK and generation.image is not None
        if self.rule is not None and (reason := self.rule.broken_by(generation.references)):
            return EpisodeReward(0.0, reason=reason, drawn=drawn)
        if not drawn and self.coefficient < 1:
            return masked(f"there is no picture: {generation.reason or generation.status.value}", drawn=False)
        return None

    def _sum(self, image: ScoredEpisode | None, text: ScoredEpisode | None) -> EpisodeReward:
        """Adds up the halves; either is None where it was not asked for."""
        halves = [
            half(asked.score, self.reading) if asked.score is not None else masked(asked.reason)
            for half, asked in ((image_reward, image), (text_reward, text))
            if asked is not None
        ]
        scores = tuple(score for half in halves for score in half.scores)
        seen = next((half.image for half in halves if half.image is not None), None)
        read = next((half.text for half in halves if half.text is not None), None)
        if lost := [half.reason for half in halves if half.masked]:
            return masked("; ".join(lost), image=seen, text=read, scores=scores)
        share = self.coefficient
        value = (1 - share) * (seen if seen is not None else 0.0) + share * (read if read is not None else 0.0)
        return EpisodeReward(min(1.0, value), image=seen, text=read, scores=scores)

    async def close(self) -> None:
        """Closes both judges; in the event loop they were used in."""
        await self._image.close()
        await self._text.close()
