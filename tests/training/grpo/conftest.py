"""Trainings of a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowgen.training.models import PolicyModel
from tests.helpers.grpo import Training, tiny_config, tiny_policy_model

Started = Callable[..., Any]


@pytest.fixture
def make_training(tmp_path: Path) -> Callable[..., Training]:
    """Return a function that makes a training from options of its rollouts and of GRPO."""

    def make(name: str = "training", options: dict[str, Any] | None = None, **grpo: Any) -> Training:
        return Training(tmp_path / name, tiny_config(**grpo), options or {})

    return make


@pytest.fixture
def policy_model() -> PolicyModel:
    """Return a tiny model."""
    return tiny_policy_model()
