"""How hard a world is: every chance that decides it stands here and nowhere else.

`MISLEADING_TITLE_CHANCE` and `INDIRECT_FACT_CHANCE` decide how far `open_book` falls behind `oracle`; the chances below them only vary
the texture. A change here changes every world, so `RECIPE_VERSION` must be raised with it.
"""

from __future__ import annotations

from typing import Literal

RECIPE_VERSION = 1
"""Version of the recipe; part of every seed and of a built task's version."""

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
"""Each takes a third of the samples of a shard, in turns over the categories."""

MISLEADING_TITLE_CHANCE: dict[Difficulty, float] = {"easy": 0.25, "medium": 0.5, "hard": 0.75}
"""Chance that the pictures of a subject's look-alike carry titles that name the subject."""

INDIRECT_FACT_CHANCE: dict[Difficulty, float] = {"easy": 0.1, "medium": 0.35, "hard": 0.6}
"""Chance that a fact of a subject is told beside a wrong one, corrected, or by addition."""

EARLY_WORK_CHANCE = 0.3
"""Chance that a maker's page names the look-alike as an early work before the subject."""

TEXTLESS = (3, 4)
"""Samples without any writing, in even and in odd shards of 24: about 14 % of a world."""

HEADING_CHANCE = 0.3
"""Chance that the sign carries a heading that the prompt quotes."""

HOPS: dict[Difficulty, tuple[int, ...]] = {"easy": (1,), "medium": (1, 2, 2), "hard": (2, 3, 3)}
"""Pages from a name in the prompt to the subject, counting the subject's own; one is chosen."""

ASKS: dict[Difficulty, tuple[int, ...]] = {"easy": (1, 1, 2), "medium": (1, 2, 2), "hard": (2, 3)}
"""Facts asked for on the sign, besides the name; one count is chosen."""

NAME_ASKED_CHANCE = 0.7
"""Chance that the sign must show the subject's name, where the prompt does not give it."""

BYSTANDERS = 2
"""Further things a category has in a shard, so that a prize, a town or a noun alone does not lead to the subject."""
