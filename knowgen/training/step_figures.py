"""The figures of a step, from its episodes, and the line that is shown of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from knowgen.agents.records import Ending, Segment, Trajectory
from knowgen.core.text import duration_text, one_line
from knowgen.training.backends.contract import Episode

ROLLOUT_SHARE = "share/rollout"
"""Share of a step's time that a backend reports for its rollouts; it is divided among the parts of the episodes."""

_REASON_LENGTH = 90


def token_counts(trajectory: Trajectory | None) -> tuple[int, int]:
    """Return the number of sampled tokens, and that of the others, images included; zeros for a policy of text."""
    segments: Sequence[Segment] = () if trajectory is None else trajectory.segments
    sampled = sum(len(segment.ids) for segment in segments if segment.sampled)
    return sampled, sum(len(segment.ids) for segment in segments) - sampled


def step_figures(episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the figures of a step by name; see `knowgen.store.training_run`. One without a value is left out."""
    if not episodes:
        return {}
    rewards = [episode.reward for episode in episodes]
    values = [reward.value for reward in rewards if reward.value is not None]
    figures = {
        "masked": sum(reward.masked for reward in rewards) / len(rewards),
        "without_spread": _without_spread(episodes),
    }
    if values:
        figures |= {"reward": fmean(values), "reward_std": pstdev(values)}
    for name, half in (("reward_image", "image"), ("reward_text", "text")):
        if known := [value for reward in rewards if (value := getattr(reward, half)) is not None]:
            figures[name] = fmean(known)
    return {**figures, **_agent_figures([each.trajectory for each in episodes if each.trajectory is not None])}


def _without_spread(episodes: Sequence[Episode]) -> float:
    """Return the share of groups whose rewards are all equal, among those with at least two rewards."""
    groups: dict[str, list[float]] = {}
    for episode in episodes:
        if episode.reward.value is not None:
            groups.setdefault(episode.prompt.key, []).append(episode.reward.value)
    compared = [group for group in groups.values() if len(group) > 1]
    return sum(min(group) == max(group) for group in compared) / max(1, len(compared))


def _agent_figures(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return what agents did: shares of endings, and means over trajectories."""
    if not trajectories:
        return {}
    endings = Counter(each.ending.value for each in trajectories if each.ending is not None)
    calls = [sum(len(step.calls) for step in each.steps) for each in trajectories]
    tokens = [token_counts(each) for each in trajectories]
    answers = [each for each in trajectories if each.ending is Ending.ANSWER]
    figures = {f"ending/{name}": count / len(trajectories) for name, count in sorted(endings.items())}
    figures |= {
        "searched": sum(count > 0 for count in calls) / len(trajectories),
        "calls": fmean(calls),
        "images_seen": fmean(len(each.images) for each in trajectories),
        "tokens_sampled": fmean(sampled for sampled, _ in tokens),
        "tokens_context": fmean(context for _, context in tokens),
    }
    if answers:
        figures["references"] = fmean(len(each.references) for each in answers)
    return figures


def part_shares(episodes: Iterable[Episode], rollout: float) -> dict[str, float]:
    """Return the share of a step's time that each part of its episodes took.

    Parts of different episodes overlap: the share of the rollouts is divided in proportion to the summed times.

    Args:
        episodes: The episodes.
        rollout: Share of the rollouts in the step's time.

    Example:
        >>> part_shares([], 0.5)
        {}
    """
    sums: Counter[str] = Counter()
    for episode in episodes:
        sums.update(episode.seconds)
    total = sum(sums.values())
    return {f"share/{part}": rollout * seconds / total for part, seconds in sums.items()} if total else {}


def step_line(step: int, steps: int, figures: Mapping[str, float], episodes: Sequence[Episode], budget: str) -> str:
    """Return the line that is shown of a step.

    Args:
        step: Its number.
        steps: Number of steps of the training.
        figures: Its figures.
        episodes: Its episodes; empty for a further step on the same ones.
        budget: What follows the cost, such as ` of $50`; empty for no budget.

    Example:
        >>> step_line(7, 100, {"reward": 0.4, "reward_std": 0.25, "ending/answer": 0.5, "seconds": 61.0}, [], "")
        'step 7/100  reward 0.400 ± 0.250  answers 50 %  61 s'
    """
    parts = [f"step {step}/{steps}"]
    if "reward" in figures:
        parts.append(f"reward {figures['reward']:.3f} ± {figures['reward_std']:.3f}")
    elif episodes:
        parts.append("no reward")
    if episodes or "ending/answer" in figures:
        parts.append(f"answers {100 * figures.get('ending/answer', 0.0):.0f} %")
    if reasons := [episode.reward.reason for episode in episodes if episode.reward.masked]:
        reason, _ = Counter(reasons).most_common(1)[0]
        parts.append(f"masked {len(reasons)} of {len(episodes)} ({one_line(reason, _REASON_LENGTH)})")
    if "seconds" in figures:
        parts.append(duration_text(figures["seconds"]))
    if figures.get("cost_total"):
        parts.append(f"${figures.get('cost', 0.0):.4f}, ${figures['cost_total']:.2f}{budget} in all")
    return "  ".join(parts)
