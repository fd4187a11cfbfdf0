"""The method section: definitions that a reader can cite, made from the protocols and the records of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knowgen.core.records import DIMENSIONS
from knowgen.report.view import ReportSystem, ReportView
from knowgen.stats.protocol import ScoringProtocol, get_protocol

MEANINGS = {
    "faithfulness": "the subjects and the scene that the prompt asks for are there",
    "visual_correctness": "the subjects look like those of the ground truth",
    "text_accuracy": "every required text is there and right; only where the prompt demands text",
    "aesthetics": "how polished the image is",
}
"""What each dimension of KnowGen rates, from 0 to 1."""


def definitions(views: Sequence[ReportView]) -> list[tuple[str, str]]:
    """Return terms and their definitions for the scorers and protocols of a page."""
    pairs: list[tuple[str, str]] = []
    if any(set(view.dimensions) == set(DIMENSIONS) for view in views):
        weights = get_protocol("strict").weights
        formula = " + ".join(f"{weight:g} {name[0].upper()}" for weight, name in zip(weights, DIMENSIONS, strict=True))
        pairs.append(("K-Score", f"{formula} of the means in each group of categories, averaged over groups; 0 to 1"))
        pairs += [(f"{name[0].upper()}, {name.replace('_', ' ')}", MEANINGS[name]) for name in DIMENSIONS]
    if any(set(view.dimensions) != set(DIMENSIONS) for view in views):
        pairs.append(("Overall", "mean of the dimensions of a scorer that has others than the four of KnowGen; 0 to 1"))
    pairs.append(
        (
            "Interval",
            "95 % interval over samples, from linearised standard errors; a note in its place says why there is none",
        )
    )
    for name in dict.fromkeys(view.protocol for view in views):
        protocol = get_protocol(name)
        pairs.append((f"Protocol {name} {protocol.version}", "; ".join(rules(protocol))))
    return pairs


def rules(protocol: ScoringProtocol) -> list[str]:
    """Return what counts as what under a protocol, one phrase each."""
    generation = "counts 0 in every dimension" if protocol.failed_generation == "zero" else "is left out"
    reading = "the first reply that meets the contract" if protocol.reading == "strict" else "the first readable reply"
    text = "the prompt decides" if protocol.text_na == "prompt" else "the judge decides for each image"
    below = "no result is given" if protocol.below_coverage == "withhold" else "the figure is marked as partial"
    parts = [
        f"a failed or refused generation {generation}",
        "a failed or missing score is left out and shown in the coverage",
        f"{reading} of a judge counts",
        f"{text} whether text accuracy applies",
        f"with fewer than {protocol.min_coverage:.0%} of the expected scores {below}",
    ]
    return [*parts, protocol.not_for_board] if protocol.not_for_board else parts


def provenance(system: ReportSystem) -> list[tuple[str, str]]:
    """Return when, with what and where a run was made, as far as it is recorded."""
    manifest = system.run.store.manifest
    versions, machine = manifest.versions, manifest.machine
    facts: list[tuple[str, Any]] = [
        ("Started", manifest.started),
        ("knowgen", versions.get("knowgen")),
        ("Commit of the working directory", manifest.git),
        ("Python", versions.get("python")),
        ("Machine", ", ".join(_machine(machine))),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _machine(machine: dict[str, Any]) -> list[str]:
    parts = [str(machine.get("system", "")), *map(str, machine.get("accelerators", ()))]
    cores, memory = machine.get("cores"), machine.get("memory_gib")
    parts += [f"{cores} cores"] if cores else []
    parts += [f"{memory} GiB of memory"] if memory else []
    return [part for part in parts if part]


def citation(system: ReportSystem, view: ReportView) -> str:
    """Return one line that identifies the figures of a system."""
    spec, manifest, first = system.run.store.spec, system.run.store.manifest, view.first
    version = manifest.versions.get("knowgen", "")
    commit = f", commit {manifest.git[:12]}" if manifest.git else ""
    day = f", {manifest.started[:10]}" if manifest.started else ""
    scorer = f"{view.scorer} {first.scorer_version}".strip()
    protocol = f"{view.protocol} {first.protocol_version}".strip()
    what = f"{spec.task} {spec.task_version}, {spec.selection.label}"
    how = f"scorer {scorer}, protocol {protocol}, seed {spec.seed}"
    return f"{system.label}: {what}, {how}, knowgen {version}{commit}{day}"
