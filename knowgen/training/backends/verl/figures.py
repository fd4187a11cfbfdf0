"""Figures of verl under the names of a training's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/pg_clipfrac": "clipped",
    "timing_s/step": "seconds",
    "training/rollout_probs_diff_mean": "probability_gap_mean",
    "training/rollout_probs_diff_max": "probability_gap_max",
    "perf/max_memory_allocated_gb": "gpu_memory_gb",
    "training/off_policy/trajectory_staleness/mean": "staleness",
}
"""Names of a training's figures by those of verl. The gap is between probabilities, not between their logarithms."""

SHARES = {
    "timing_s/gen": "share/rollout",
    "timing_s/old_log_prob": "share/log_probs",
    "timing_s/update_actor": "share/train",
    "timing_s/save_checkpoint": "share/checkpoint",
}
"""Parts of the time of a step by verl's names."""


def figures_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a step; one that verl does not give is left out, and NaN is one that it gives.

    Example:
        >>> figures_of({"actor/pg_loss": 0.5, "timing_s/step": 20.0, "timing_s/gen": 15.0, "actor/lr": None})
        {'loss': 0.5, 'seconds': 20.0, 'share/rollout': 0.75}
    """
    figures = {own: float(values[name]) for name, own in NAMES.items() if _is_number(values.get(name))}
    if seconds := figures.get("seconds"):
        parts = {own: float(values[name]) / seconds for name, own in SHARES.items() if _is_number(values.get(name))}
        figures |= parts
    return figures


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
