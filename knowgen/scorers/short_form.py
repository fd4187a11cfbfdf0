"""Scorers in short form: what returns a number, or numbers by dimension, made into `Score` records.

    def sharpness(prompt, image, truth) -> float                    a function; `truth` may be left out
    def score(self, sample, truth, generation) -> float | dict      a method of a class, `async` or not

What is not `async` computes, so it runs in worker processes and scores an image once. What is `async` waits for a
service, so it runs in an event loop, many calls at once, and once for each judge repeat.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from knowgen.core.errors import UnscorableError
from knowgen.core.records import DIMENSIONS, Generation, GroundTruth, ParsedScore, Sample, Score, ScoreStatus

if TYPE_CHECKING:
    from PIL.Image import Image

    from knowgen.core.records import Item

DECLARED = ("needs", "version", "note", "concurrency", "workers", "local", "deadline")
"""Attributes that a scoring function may have, with the meaning they have on a class."""


class InvalidScoreError(UnscorableError):
    """A scorer returned something that cannot be made into a score."""


def is_scoring_function(target: Any) -> bool:
    """Tell a scoring function (first parameter `prompt`, second `image`) from a class or factory."""
    return inspect.isfunction(target) and list(inspect.signature(target).parameters)[:2] == ["prompt", "image"]


class FunctionScorer:
    """A plain function as a scorer.

    Args:
        function: Takes `prompt` and `image` (a PIL image), and `truth` (a `GroundTruth`) by name if it has that
            parameter. Returns a number in [0, 1], or a mapping from dimension to number. Its name is the name of its
            one dimension, unless it has an attribute `dimensions`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.dimensions = tuple(getattr(function, "dimensions", (function.__name__,)))
        self._takes_truth = "truth" in inspect.signature(function).parameters
        for name in DECLARED:
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        """Call the function with the opened image and return what it returns."""
        return self._call(sample, truth, _opened(generation))

    def _call(self, sample: Sample, truth: GroundTruth, image: Image) -> Any:
        return self.function(sample.prompt, image, **({"truth": truth} if self._takes_truth else {}))


class AsyncFunctionScorer(FunctionScorer):
    """A coroutine function as a scorer; see `FunctionScorer`."""

    async def score(self, sample: Sample, truth: GroundTruth, generation: Generation) -> Any:
        """Await the function with the opened image and return what it returns."""
        return await self._call(sample, truth, await asyncio.to_thread(_opened, generation))


def function_scorer(function: Callable[..., Any]) -> FunctionScorer:
    """Return a function as a scorer of the shape that fits it."""
    return (AsyncFunctionScorer if inspect.iscoroutinefunction(function) else FunctionScorer)(function)


def _opened(generation: Generation) -> Image:
    if generation.image is None:
        raise UnscorableError("the generation has no image to score")
    return generation.image.open()


def score_record(value: Any, scorer: Any, item: Item) -> Score:
    """Return what `score` of a scorer returned as a `Score`; a `Score` stays as it is.

    Args:
        value: A number in [0, 1] for a scorer of one dimension; a mapping from each declared dimension to a number, or
            to None where the dimension does not apply to this sample; or a `Score`.
        scorer: The scorer, for its `dimensions`.
        item: What was scored.

    Raises:
        InvalidScoreError: It is something else: no number, a number outside [0, 1], NaN, a dimension that is missing or
            not declared.
    """
    if isinstance(value, Score):
        return value
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise InvalidScoreError("score() returned an awaitable", fix="declare it `async def`")
    declared = getattr(scorer, "dimensions", DIMENSIONS)
    dimensions = (declared,) if isinstance(declared, str) else tuple(declared)
    by_dimension = dict(value) if isinstance(value, Mapping) else _single(value, dimensions)
    if unknown := [str(name) for name in by_dimension if name not in dimensions]:
        what = f"score() returned {unknown[0]!r}, and declares {', '.join(dimensions)}"
        raise InvalidScoreError(what, fix="name every dimension in `dimensions`")
    if missing := [name for name in dimensions if name not in by_dimension]:
        raise InvalidScoreError(
            f"score() returned no {missing[0]!r}", fix="return None where a dimension does not apply"
        )
    values = {name: _number(name, by_dimension[name]) for name in dimensions if by_dimension[name] is not None}
    reading = ParsedScore(
        status=ScoreStatus.OK, values=values, na=tuple(name for name in dimensions if name not in values)
    )
    sample, _, generation = item
    return Score(
        sample_id=sample.id,
        repeat=generation.repeat,
        scorer=type(scorer).__name__,
        status=ScoreStatus.OK,
        strict=reading,
    )


def _single(value: Any, dimensions: Sequence[str]) -> dict[str, Any]:
    if value is None:
        raise InvalidScoreError("score() returned None", fix="return a number, or numbers by dimension")
    if len(dimensions) != 1:
        what = f"score() returned one value for {len(dimensions)} dimensions ({', '.join(dimensions)})"
        raise InvalidScoreError(what, fix='return them by name, or declare one, such as dimensions = ("sharpness",)')
    return {dimensions[0]: value}


def _number(dimension: str, value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        what = f"score() returned {type(value).__name__} for {dimension}"
        raise InvalidScoreError(what, fix="return a number") from None
    if not 0.0 <= number <= 1.0:  # also false for NaN
        raise InvalidScoreError(f"score() returned {value!r} for {dimension}", fix="return a number in [0, 1]")
    return number


async def score_item(scorer: Any, item: Item) -> Score:
    """Await `score` of a scorer that waits, and return its value as a `Score`.

    Raises:
        InvalidScoreError: It returned something that cannot be used.
        BaseException: Whatever the scorer raised.
    """
    return score_record(await scorer.score(*item), scorer, item)


def compute_item(scorer: Any, item: Item) -> Score:
    """Call `score` of a scorer that computes, and return its value as a `Score` with its duration.

    Raises:
        InvalidScoreError: It returned something that cannot be used.
        BaseException: Whatever the scorer raised.
    """
    started = time.perf_counter()
    score = score_record(scorer.score(*item), scorer, item)
    return score if score.seconds else score.model_copy(update={"seconds": round(time.perf_counter() - started, 4)})


def has_batch_form(scorer: Any) -> bool:
    """Tell whether a scorer that computes takes a batch; one in short form takes item after item."""
    return callable(getattr(scorer, "score_batch", None))


def compute_items(scorer: Any, items: Sequence[Item]) -> Iterator[Any]:
    """Yield what a scorer that computes gives for some items: from its batch form, or item after item.

    Raises:
        BaseException: Whatever the scorer raised.
    """
    if has_batch_form(scorer):
        yield from scorer.score_batch(items)
    else:
        for item in items:
            yield compute_item(scorer, item)
