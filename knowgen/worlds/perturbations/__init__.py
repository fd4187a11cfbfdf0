"""Known changes to the ground-truth pictures of made-up worlds, to find out whether a judge sees them.

`kinds` says what the changes are and what a judge must make of each; `originals` reads a truth so that it can be drawn
again; `edits` changes what stands on its sign; `redraw` draws the changed picture; `task` makes a run of it.
"""

from __future__ import annotations

from knowgen.worlds.perturbations.kinds import CHANGES, Change
from knowgen.worlds.perturbations.task import ChangedPictures, ChangedTask, make_changed_task

__all__ = ["CHANGES", "Change", "ChangedPictures", "ChangedTask", "make_changed_task"]
