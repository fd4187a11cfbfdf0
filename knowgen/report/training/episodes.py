"""Episodes of a training for its page: one file of data for each step, read and written one step at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knowgen.core.records import ImageRef, Score
from knowgen.report.details import cut
from knowgen.report.image_files import ShownImage, image_entry
from knowgen.report.output import PageOutput
from knowgen.report.training.view import ReportTraining
from knowgen.report.trajectory import recorded_details, seen_images, trajectory_details, with_pictures
from knowgen.store.training_run import EpisodeRecord

MOST_STEPS = 100
"""Default number of steps of a training whose episodes are in its report."""

MAX_REASONS = 60
"""Maximum number of reasons of masked episodes that are listed."""

LONGEST_PROMPT = 4_000


@dataclass
class MaskedReason:
    """Episodes that were masked for the same reason.

    Attributes:
        training: Index of the training.
        reason: The reason.
        count: Number of episodes.
        first: First step with one.
        last: Last step with one.
        key: Prompt of the first of them.
        number: Its number in the group.
    """

    training: int
    reason: str
    count: int
    first: int
    last: int
    key: str
    number: int


@dataclass
class ShownEpisodes:
    """What the page says of the episodes of one training.

    Attributes:
        steps: For each step that is shown, the positions of its prompts in `keys`, in order.
        stored: Number of steps whose episodes are stored.
        keys: Identities of prompts.
        masked: Reasons of masked episodes, those of most episodes first.
        count: Number of episodes of the steps that are shown.
    """

    steps: dict[int, list[int]] = field(default_factory=dict)
    stored: int = 0
    keys: list[str] = field(default_factory=list)
    masked: list[MaskedReason] = field(default_factory=list)
    count: int = 0


def shown_steps(training: ReportTraining, most: int = MOST_STEPS) -> list[int]:
    """Return the steps whose episodes are shown: first, last and evaluated ones, and others evenly spaced.

    Args:
        training: The training.
        most: Maximum number of steps.
    """
    stored = training.store.episode_steps()
    if len(stored) <= most:
        return stored
    best = training.best.step if training.best is not None else None
    wanted = [stored[0], stored[-1], *([best] if best in stored else [])]
    wanted += [each.step for each in training.evaluations if each.step in stored]
    spaced = [stored[round(place * (len(stored) - 1) / max(1, most - 1))] for place in range(most)]
    chosen = list(dict.fromkeys(wanted))[:most]
    # halves of halves, so that what still fits is spread over the whole training
    for place in _spread(len(spaced)):
        if len(chosen) >= most:
            break
        if spaced[place] not in chosen:
            chosen.append(spaced[place])
    return sorted(chosen)


def _spread(count: int) -> Iterator[int]:
    """Yield the numbers below `count`, each far from those before it."""
    stride = 1
    while stride < count:
        stride *= 2
    seen: set[int] = set()
    while stride >= 1:
        for number in range(0, count, stride):
            if number not in seen:
                seen.add(number)
                yield number
        stride //= 2


def write_episodes(
    training: ReportTraining, output: PageOutput, shown: dict[str, ShownImage], most: int = MOST_STEPS
) -> ShownEpisodes:
    """Write the data of each shown step and the files of its images; return what the page says of them.

    Args:
        training: The training.
        output: Where the page goes.
        shown: Image files by digest, to which new ones are added; an image that many episodes share is written once.
        most: Maximum number of steps.

    Raises:
        DataError: A stored line is not an episode.
        OSError: A file cannot be written.
    """
    result = ShownEpisodes(stored=len(training.store.episode_steps()))
    places: dict[str, int] = {}
    reasons: dict[str, MaskedReason] = {}
    steps = set(shown_steps(training, most))
    for step in training.store.episode_steps():
        if step not in steps and not _may_be_masked(training, step):
            continue
        episodes: list[EpisodeRecord] = []
        for episode in training.store.episodes(step):
            _count_masked(reasons, training.index, episode)
            if step in steps:
                episodes.append(episode)
        if step in steps:
            _write_step(training, step, episodes, output, shown)
            result.count += len(episodes)
            keys = dict.fromkeys(episode.key for episode in episodes)
            result.steps[step] = [places.setdefault(key, len(places)) for key in keys]
    result.keys = list(places)
    result.masked = sorted(reasons.values(), key=lambda each: (-each.count, each.first))
    return result


def _may_be_masked(training: ReportTraining, step: int) -> bool:
    """Return whether a step may have masked episodes, by its figures: the others need not be read for their reasons."""
    return training.metrics.get(step, {}).get("masked", 1.0) != 0.0


def _count_masked(reasons: dict[str, MaskedReason], index: int, episode: EpisodeRecord) -> None:
    if not episode.masked:
        return
    reason = cut(episode.masked, 300)
    known = reasons.get(reason)
    if known is None:
        step = episode.step
        reasons[reason] = MaskedReason(index, reason, 1, step, step, episode.key, episode.number)
    else:
        known.count += 1
        known.last = episode.step


def _write_step(
    training: ReportTraining,
    step: int,
    episodes: Sequence[EpisodeRecord],
    output: PageOutput,
    shown: dict[str, ShownImage],
) -> None:
    new = {ref.sha256: ref for episode in episodes for ref in images_of(episode) if ref.sha256 not in shown}
    found = [(ref, training.store.images.path(ref)) for ref in new.values()]
    shown.update(output.images(found))
    groups: dict[str, list[EpisodeRecord]] = {}
    for episode in episodes:
        groups.setdefault(episode.key, []).append(episode)
    data = [
        {
            "key": key,
            "prompt": cut(members[0].prompt, LONGEST_PROMPT),
            "sample": members[0].sample_id,
            "episodes": [_episode(each, shown) for each in sorted(members, key=lambda each: each.number)],
        }
        for key, members in groups.items()
    ]
    output.data(f"episodes-{training.index}-{step}", data)


def images_of(episode: EpisodeRecord) -> Iterator[ImageRef]:
    """Yield every image of an episode: the generated one, those that the agent saw, and those that it chose."""
    if episode.generation is not None and episode.generation.image is not None:
        yield episode.generation.image
    if episode.answer is not None:
        yield from seen_images(episode.answer)


def _episode(episode: EpisodeRecord, shown: Mapping[str, ShownImage]) -> dict[str, Any]:
    """Return what the page shows of an episode."""
    answer, generation = episode.answer, episode.generation
    image = generation.image if generation is not None else None
    fault = generation.reason or generation.status.value if generation is not None and image is None else ""
    details = None
    if answer is not None:
        details = trajectory_details(answer)
    elif generation is not None:
        details = recorded_details(generation)
    return {
        "number": episode.number,
        "reward": episode.reward,
        "parts": [episode.image, episode.text],
        "advantage": episode.advantage,
        "masked": cut(episode.masked),
        "reason": cut(episode.reason),
        "ending": answer.ending or answer.status.value if answer is not None else "",
        "calls": sum(len(step["calls"]) for step in details["steps"]) if details is not None else 0,
        "tokens": [episode.sampled, episode.context],
        "gap": episode.gap,
        "seconds": [[name.replace("_", " "), value] for name, value in episode.seconds.items()],
        "cost": episode.cost,
        "image": image_entry(image.sha256, shown) if image is not None else None,
        "no_image": cut(fault),
        "scores": [_score(each) for each in episode.scores],
        "trajectory": with_pictures(details, shown) if details is not None else None,
    }


def _score(score: Score) -> dict[str, Any]:
    parsed = score.strict
    return {
        "scorer": score.scorer,
        "status": score.status.value,
        "reason": cut(parsed.reason),
        "rationale": cut(parsed.rationale),
        "values": [[name.replace("_", " "), value] for name, value in parsed.values.items()],
    }
