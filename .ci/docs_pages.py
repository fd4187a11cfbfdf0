"""Hooks of mkdocs: pages made from files of the repository's root, and the table of run options made from the code."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from knowgen.core.run_config import run_fields
from knowgen.generators.diffusers.presets import Preset, pipeline_traits, presets
from knowgen.training.config import option_rows

ROOT = Path(__file__).resolve().parent.parent
RUN_OPTIONS = "<!-- run options -->"
"""Replaced by a table of the options of a run."""

TRAINING_OPTIONS = "<!-- training options -->"
"""Replaced by a table of the options of a training."""

PRESETS = "<!-- presets of diffusers -->"
"""Replaced by a table of the presets of `diffusers:`."""

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def linked(text: str) -> str:
    """Return the text of a root file with its links as seen from the folder `docs`.

    Links to pages of the site stay links; links to other files of the repository become their names.
    """
    for name, page in PAGES.items():
        text = text.replace(f"]({name})", f"]({page})")
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#|[a-z_/]+\.md)[^)]+\)", r"\1", text)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=linked((ROOT / name).read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the tables of options where a page asks for them."""
    if TRAINING_OPTIONS in markdown:
        markdown = markdown.replace(TRAINING_OPTIONS, training_table())
    if PRESETS in markdown:
        markdown = markdown.replace(PRESETS, preset_table())
    if RUN_OPTIONS not in markdown:
        return markdown
    rows = [
        f"| `{each.name}` | {f'`{each.flag}`' if each.option.commands else ''} | {each.help()} |"
        for each in run_fields()
    ]
    return markdown.replace(RUN_OPTIONS, "\n".join(["| keyword | flag | meaning [default] |", "|---|---|---|", *rows]))


def training_table() -> str:
    """Return the table of the options of a training."""
    rows = [
        f"| `{key}` | {f'`{default}`' if default else 'required'} | {meaning} |"
        for key, default, meaning in option_rows()
    ]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def preset_table() -> str:
    """Return the table of the presets of `diffusers:`, those that diffusers cannot run left out."""
    head = ("name, model, class", "size", "steps", "guidance", "references", "license", "diffusers", "remarks")
    rows = [_preset_cells(each) for each in presets() if not each.unsupported]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _preset_cells(preset: Preset) -> list[str]:
    """Return the cells of a preset; a value that it leaves to its class is empty."""
    guidance = "<br>".join(f"`{name}={scale:g}`" for name, scale in preset.guidance.items())
    remarks = [preset.note, *([f"[source]({preset.source})"] if preset.source else [])]
    cells = [
        f"`{preset.name}`<br>`{preset.model}`<br>`{preset.pipeline}`",
        preset.size,
        str(preset.steps or ""),
        guidance,
        preset.references,
        (preset.license or "not confirmed") + (", gated" if preset.gated else ""),
        pipeline_traits(preset.pipeline).since,
        "; ".join(filter(None, remarks)),
    ]
    return [cell.replace("|", "\\|") for cell in cells]
