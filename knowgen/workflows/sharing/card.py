"""The data card of a run: README.md with YAML at its beginning, as https://huggingface.co/docs/hub/datasets-cards says.

`configs` names the files of rows, so that the hub's viewer shows one table for each scorer. Every text of the run is
escaped, because names and reasons come from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from knowgen.core.spec import RunSpec
from knowgen.report import tables
from knowgen.report.numbers import money
from knowgen.report.text_table import escape_markdown
from knowgen.store.manifest import read_manifest
from knowgen.tracking.contract import flat_config
from knowgen.workflows.artifacts import slug
from knowgen.workflows.run import Run
from knowgen.workflows.sharing.listing import DATA_FOLDER

LONGEST_SETTING = 300
"""Maximum length of a setting in the card in characters; the specification in run.json has it in full."""


def run_card(run: Run, repo: str, *, data: Sequence[str], licence: str, images: bool, left_out: Sequence[str]) -> str:
    """Return the data card of a run.

    Args:
        run: The copy of the run that is sent.
        repo: Repository that it is for.
        data: Paths of all files in the repository.
        licence: Licence of the images and scores, as the hub names it.
        images: Whether images are sent.
        left_out: What the copy lacks, in words.
    """
    spec, rows = run.spec, [path for path in data if path.startswith(f"{DATA_FOLDER}/")]
    header = front_matter(
        title=f"{spec.system} on {spec.task}",
        licence=licence,
        tags=["knowgen", "knowgen-run", "image-generation", "evaluation", slug(spec.task).lower()],
        configs={PurePosixPath(path).stem: path for path in rows},
    )
    parts = [
        header,
        f"# {escape_markdown(spec.system)} on {escape_markdown(spec.task)}",
        f"Images and scores of one system on one task, made with `knowgen` {_version(run)}.",
        "## Results",
        *_figures(run),
        "## Settings",
        _settings(spec, run),
        "## Use it",
        _commands(run, repo),
        "## What is in it",
        _contents(rows, images=images, left_out=left_out),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def front_matter(*, title: str, licence: str, tags: Sequence[str], configs: Mapping[str, str]) -> str:
    """Return the YAML at the beginning of a card; every text is quoted as YAML needs it.

    Args:
        title: Name for readers.
        licence: Licence, as the hub names it.
        tags: Tags.
        configs: File of rows by the name of its table; the first is shown first.
    """
    import yaml

    listed: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "test", "path": path}], **({"default": True} if not at else {})}
        for at, (name, path) in enumerate(configs.items())
    ]
    meta: dict[str, Any] = {
        "pretty_name": " ".join(title.split())[:100],
        "license": licence,
        "task_categories": ["text-to-image"],
        "tags": list(dict.fromkeys(tags)),
        **({"configs": listed} if listed else {}),
    }
    return f"---\n{yaml.safe_dump(meta, sort_keys=False, allow_unicode=False, width=10_000)}---"


def _version(run: Run) -> str:
    manifest = read_manifest(run.path)
    return escape_markdown(manifest.versions.get("knowgen", "")) if manifest is not None else ""


def _figures(run: Run) -> list[str]:
    """Return a table of figures with intervals and coverage for each scorer and protocol."""
    if not run.spec.scorers:
        return ["The images have not been scored."]
    parts: list[str] = []
    for summary in run.summaries():
        title = f"### {escape_markdown(summary.scorer)}, protocol {escape_markdown(summary.protocol)}"
        judges = f"Judge, as its endpoint called itself: {', '.join(map(escape_markdown, summary.judges))}."
        parts += [title, tables.markdown([summary], ("all", "group")), judges if summary.judges else ""]
    return parts


def _settings(spec: RunSpec, run: Run) -> str:
    """Return a table of what decides the result, and what the run took."""
    settings = flat_config(spec.model_dump(mode="json", exclude_defaults=True))
    cost = "unknown: a price is not known" if run.cost is None else money(run.cost)
    rows = [*settings.items(), ("cost of the directory", cost)]
    lines = [f"| {escape_markdown(name)} | {escape_markdown(str(value)[:LONGEST_SETTING])} |" for name, value in rows]
    return "\n".join(["| setting | value |", "| :-- | :-- |", *lines])


def _commands(run: Run, repo: str) -> str:
    """Return the commands that fetch, check, show, score and compare the run."""
    scorer = run.spec.scorers[0].name if run.spec.scorers else ""
    # a name from the run goes into a command only if it is a plain word
    plain = scorer if scorer and all(letter.isalnum() or letter in "_:.-" for letter in scorer) else "SCORER"
    return "\n".join(
        [
            "```bash",
            f"knowgen pull {repo} -o my-copy",
            "knowgen verify my-copy",
            "knowgen report my-copy -o my-copy/report",
            f"knowgen score my-copy --scorer {plain}",
            "knowgen compare my-copy OTHER_RUN",
            "```",
            "",
            "`verify` makes every figure again from the stored replies and compares the hash of every image.",
        ]
    )


def _contents(rows: Sequence[str], *, images: bool, left_out: Sequence[str]) -> str:
    entries = [
        *(f"- `{path}`: one row for each sample and score" for path in rows),
        "- `run/run.json`: what decides the result, and versions",
        "- `run/run.sqlite`: prompts, ground truths without their images, generations, scores with every reply",
        "- `run/summary.json`, `run/tables/`: figures",
        *(["- `run/images/`: the images, by the hash of their content"] if images else []),
        "- `knowgen.json`: every file with its hash",
    ]
    return "\n".join([*entries, "", "Left out:", "", *(f"- {escape_markdown(each)}" for each in left_out)])
