"""Known changes to the ground-truth pictures of made-up worlds, to find out whether a judge sees them.

`kinds` says what the changes are and what a judge must make of each; `originals` reads a truth so that it can be drawn
again; `edits` changes what stands on its sign; `redraw` draws the changed picture; `task` makes a run of it.
"""

from __future__ import annotations

from knowgen.worlds.perturbations.kinds import PERTURBATIONS, Perturbation
from knowgen.worlds.perturbations.task import PerturbedImages, PerturbedTask, make_perturbed_task

__all__ = ["PERTURBATIONS", "PerturbedImages", "PerturbedTask", "Perturbation", "make_perturbed_task"]
