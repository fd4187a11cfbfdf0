"""What verl imports in each of its processes, as the external library of its model: names that its settings use.

It registers the estimator of advantages, and model classes whose frozen parts stay frozen: verl 0.9.1 has a setting for
that, and its FSDP engine does not read it. Importing this module needs verl.
"""

from __future__ import annotations

import os
from typing import Any

from verl.trainer.ppo.core_algos import register_adv_est

from knowgen.training.backends.verl.advantages import ESTIMATOR, verl_advantages
from knowgen.training.backends.verl.settings import FREEZE_VARIABLE
from knowgen.training.models import freeze

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Types of models of the Qwen-VL family in transformers."""


def with_frozen_parts(base: type[Any], parts: tuple[str, ...]) -> type[Any]:
    """Return a subclass of a model class, of the same name, whose loaded weights have frozen parts.

    Args:
        base: Model class of transformers.
        parts: What is frozen, see `models.freeze`.
    """

    load = base.from_pretrained.__func__

    def from_pretrained(cls: type[Any], *arguments: Any, **options: Any) -> Any:
        loaded = load(cls, *arguments, **options)
        freeze(loaded[0] if isinstance(loaded, tuple) else loaded, parts, "backend verl")
        return loaded

    members = {"from_pretrained": classmethod(from_pretrained), "__module__": base.__module__}
    return type(base.__name__, (base,), members)


def register() -> None:
    """Register the names."""
    from transformers import AutoModelForImageTextToText
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    register_adv_est(ESTIMATOR)(verl_advantages)
    parts = tuple(part for part in os.environ.get(FREEZE_VARIABLE, "").split(",") if part)
    for name in MODEL_TYPES if parts else ():
        config = CONFIG_MAPPING[name]
        base = AutoModelForImageTextToText._model_mapping[config]
        AutoModelForImageTextToText.register(config, with_frozen_parts(base, parts), exist_ok=True)


register()
