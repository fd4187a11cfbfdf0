"""Write the page of one or more trainings, as a folder or as one file, that opens from disk without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from knowgen.core.text import count
from knowgen.report.folder import check_replaceable, report_draft
from knowgen.report.image_files import ShownImage
from knowgen.report.output import GENERATOR, FolderOutput, ImageChoice, PageOutput, single_file
from knowgen.report.page import environment
from knowgen.report.text_table import csv_text
from knowgen.report.training.answer import answer, facts
from knowgen.report.training.curves import HEIGHT, TOP, all_figures, as_data, charts_of, evaluation_dots, figure_text
from knowgen.report.training.episodes import MAX_REASONS, MOST_STEPS, ShownEpisodes, write_episodes
from knowgen.report.training.view import ReportTraining, TrainingEvaluation

STATIC = (
    "report.css",
    "training.css",
    "theme.js",
    "folds.js",
    "address.js",
    "elements.js",
    "trajectory.js",
    "curves.js",
    "compare.js",
)

FIGURES = "figures.csv"
"""File with every figure of every step."""


def write_training_page(trainings: Sequence[ReportTraining], out: Path, most_steps: int = MOST_STEPS) -> Path:
    """Write the page of one or more trainings.

    An earlier report is replaced, and its images are reused. The episodes of a step are in a file of their own, which
    the page loads when the step is chosen.

    Args:
        trainings: Trainings in the order of the page.
        out: Folder to write.
        most_steps: Maximum number of steps of a training whose episodes are written.

    Returns:
        Path of `index.html`.

    Raises:
        ConfigError: `out` is a file, or a folder with other content.
        DataError: The folder cannot be written, or a training is damaged.
    """
    check_replaceable(out)
    with report_draft(out) as draft:
        _fill(FolderOutput(draft, STATIC), trainings, most_steps, out)
    return out / "index.html"


def write_single_training_page(
    trainings: Sequence[ReportTraining], out: Path, most_steps: int = MOST_STEPS, images: ImageChoice = "small"
) -> Path:
    """Write the page of one or more trainings as one file, and return its path.

    Args:
        trainings: Trainings in the order of the page.
        out: File to write, with the ending .html; an earlier page is replaced.
        most_steps: Maximum number of steps of a training whose episodes are put in.
        images: Which images are put in.

    Raises:
        UsageError: The file has another ending.
        ConfigError: `out` is a folder, or a file that is not a report.
        DataError: The file cannot be written, or a training is damaged.
    """
    with single_file(out, STATIC, images) as output:
        _fill(output, trainings, most_steps, None)
    return out


def _fill(output: PageOutput, trainings: Sequence[ReportTraining], most_steps: int, out: Path | None) -> None:
    shown: dict[str, ShownImage] = {}
    episodes = [write_episodes(training, output, shown, most_steps) for training in trainings]
    output.data("index", _index(trainings, episodes))
    output.data("figures", as_data(trainings))
    figures = output.text_link(FIGURES, csv_text(*all_figures(trainings)))
    output.page(render(output, trainings, episodes, figures, out))


def render(
    output: PageOutput,
    trainings: Sequence[ReportTraining],
    episodes: Sequence[ShownEpisodes],
    figures: str,
    out: Path | None,
) -> str:
    """Return the HTML of the page.

    Args:
        output: Where the page goes.
        trainings: Trainings in the order of the page.
        episodes: What is shown of the episodes of each.
        figures: Address of the file of figures.
        out: Folder of the page, from which its links start; None for a page in one file, which has no links to others.
    """
    return (
        environment()
        .get_template("training.html")
        .render(
            output=output,
            generator=GENERATOR,
            trainings=trainings,
            answer=answer(trainings),
            facts=[facts(each) for each in trainings],
            charts=charts_of(trainings),
            evaluated=evaluation_dots(trainings),
            figure_text=figure_text,
            chart_top=TOP,
            chart_height=HEIGHT,
            figures=figures,
            figures_name=FIGURES,
            episodes=episodes,
            compare=any(each.steps for each in episodes),
            evaluations=[[_evaluation(one, out) for one in each.evaluations] for each in trainings],
            masked=_masked(trainings, episodes),
            settings=[_settings(each) for each in trainings],
            eyebrow=_eyebrow(trainings),
            step_link=_step_link,
        )
    )


def _eyebrow(trainings: Sequence[ReportTraining]) -> str:
    methods = dict.fromkeys(each.method for each in trainings)
    tasks = dict.fromkeys(one.task for each in trainings for one in each.evaluations if one.task)
    parts = ["/".join(methods), count(len(trainings), "training") if len(trainings) > 1 else trainings[0].label]
    return " · ".join([*parts, *tasks])


def _step_link(training: int, step: int, **chosen: str) -> str:
    """Return the address of the episodes of a step."""
    pairs = {"runs": str(training), "steps": str(step), **chosen}
    return "#compare?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())


def _index(trainings: Sequence[ReportTraining], episodes: Sequence[ShownEpisodes]) -> dict[str, Any]:
    """Return what the script of the page needs at once."""
    return {
        "trainings": [
            {
                "label": each.label,
                "colour": each.mark.colour,
                "outline": each.mark.outline,
                "keys": shown.keys,
                "steps": [[step, places] for step, places in shown.steps.items()],
            }
            for each, shown in zip(trainings, episodes, strict=True)
        ]
    }


def _evaluation(evaluation: TrainingEvaluation, out: Path | None) -> dict[str, Any]:
    """Return a row of the table of evaluations; a link is relative to the page, so that both can be moved together."""
    target = evaluation.page
    link = None if target is None or out is None else quote(os.path.relpath(target.resolve(), out.resolve()))
    place = "no report" if target is None else f"evaluations/{evaluation.run.name}"
    return {
        "step": evaluation.step, "figure": evaluation.figure, "task": evaluation.task, "link": link, "place": place
    }  # fmt: skip


def _masked(trainings: Sequence[ReportTraining], episodes: Sequence[ShownEpisodes]) -> dict[str, Any]:
    rows = [
        {
            "training": trainings[each.training],
            "reason": each.reason,
            "count": each.count,
            "steps": str(each.first) if each.first == each.last else f"{each.first} to {each.last}",
            "link": _step_link(each.training, each.first, key=each.key, episodes=str(each.number))
            if each.first in shown.steps
            else "",
        }
        for shown in episodes
        for each in shown.masked
    ]
    total = sum(each.count for shown in episodes for each in shown.masked)
    return {"rows": rows[:MAX_REASONS], "hidden": max(0, len(rows) - MAX_REASONS), "total": total}


def _settings(training: ReportTraining) -> dict[str, Any]:
    """Return the configuration and the versions of a training, as far as they are recorded."""
    description = training.description
    versions = description.get("versions")
    plain = {name: value for name, value in description.items() if isinstance(value, str | int | float) and value != ""}
    return {
        "training": training,
        "plain": [(name.replace("_", " ").capitalize(), str(value)) for name, value in plain.items()],
        "versions": sorted(versions.items()) if isinstance(versions, Mapping) else [],
        "config": json.dumps(description.get("config", {}), indent=1, ensure_ascii=False),
        "differences": training.differences,
    }
