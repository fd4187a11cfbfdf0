"""Known perturbations of the ground-truth images of synthetic worlds, to test whether a judge detects them.

`kinds` defines the perturbations and the dimensions that must fall; `originals` reads a ground truth so that it can be
rendered again; `text_edits` changes its text; `apply` renders the perturbed image; `task` makes a task of them.
"""

from __future__ import annotations

from knowgen.worlds.perturbations.kinds import PERTURBATIONS, Perturbation
from knowgen.worlds.perturbations.task import PerturbedImages, PerturbedTask, make_perturbed_task

__all__ = ["PERTURBATIONS", "Perturbation", "PerturbedImages", "PerturbedTask", "make_perturbed_task"]
