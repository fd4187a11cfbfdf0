"""All probabilities and counts that decide how hard a world is.

`MISLEADING_TITLE_CHANCE` and `INDIRECT_FACT_CHANCE` decide how far `open_book` scores below `oracle`; the values after
them only add variety. A change here changes every world, so `RECIPE_VERSION` must be raised with it.
"""

from __future__ import annotations

from typing import Literal

RECIPE_VERSION = 1
"""Version of the recipe; part of every seed and of a built task's version."""

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
"""Difficulty levels; each is assigned to a third of the samples of a shard."""

MISLEADING_TITLE_CHANCE: dict[Difficulty, float] = {"easy": 0.25, "medium": 0.5, "hard": 0.75}
"""Probability that the titles of a distractor's images name the subject."""

INDIRECT_FACT_CHANCE: dict[Difficulty, float] = {"easy": 0.1, "medium": 0.35, "hard": 0.6}
"""Probability that a fact is stated indirectly: next to a wrong value, as a correction, or as a sum."""

EARLY_WORK_CHANCE = 0.3
"""Probability that a maker's page names the distractor as an early work before the subject."""

TEXTLESS = (3, 4)
"""Number of samples without text, in even and in odd shards of 24: about 14 % of a world."""

HEADING_CHANCE = 0.3
"""Probability that the sign has a heading that the prompt quotes."""

HOPS: dict[Difficulty, tuple[int, ...]] = {"easy": (1,), "medium": (1, 2, 2), "hard": (2, 3, 3)}
"""Pages from a name in the prompt to the subject, counting the subject's own; one of them is chosen."""

ASKS: dict[Difficulty, tuple[int, ...]] = {"easy": (1, 1, 2), "medium": (1, 2, 2), "hard": (2, 3)}
"""Number of facts required on the sign, besides the name; one of the counts is chosen."""

NAME_ASKED_CHANCE = 0.7
"""Probability that the sign must show the subject's name, if the prompt does not give it."""

BYSTANDERS = 2
"""Further entities of a category in a shard, so that a prize, a town or a noun alone does not identify the subject."""
