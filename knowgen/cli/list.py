"""`knowgen list`: list plugins from package metadata, without importing them, and runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from knowgen.core.errors import DataError
from knowgen.core.text import error_summary, escape_controls, parse_json

KINDS = ("tasks", "generators", "scorers", "search", "policies", "tools", "runs")
EPILOG = """\b
Examples:
  knowgen list generators -v
  knowgen list runs reports
"""

DESCRIPTIONS = {
    "tasks": {
        "knowgen": "the KnowGen benchmark: 630 prompts; fetch it with `knowgen task prepare knowgen`",
        "knowgen_mini": "bundled synthetic task: 48 samples, two per category, with a search backend",
        "rl_items": "published training prompts with ground-truth images; rl_items:test for the held-out ones",
        "things": "made for training a small model on a CPU, not a benchmark: things:SEED",
        "world": "a synthetic world that is built from its seed: world:SEED",
    },
    "generators": {
        "ark": "Seedream models of the Ark API",
        "hub": "models at the inference providers of the Hugging Face hub: fal, Replicate, Together and others",
        "served": "published models that diffusers cannot run, through a server of vLLM-Omni",
        "closed_book": "baseline painter without search",
        "diffusers": "diffusers pipelines on a local GPU",
        "gemini": "Gemini image models",
        "gen_searcher": "agent that searches and reads before an image model generates",
        "http": "servers of the /generate format, such as `knowgen serve`",
        "noise": "random pixels: the lower bound",
        "open_book": "baseline painter that searches by simple rules",
        "openai": "models of an OpenAI-compatible Images API",
        "oracle": "baseline painter with the ground truth: the upper bound",
        "painter": "the painter of the baselines as an image model: shows its references, writes what is quoted",
        "things_painter": "draws the colour that a prompt of the task things says",
    },
    "scorers": {
        "answer": "language-model judge of an agent's answer against the ground truth",
        "evidence": "vision-language judge of the image against the evidence that an agent collected",
        "hf": "vision-language judge that runs locally with transformers",
        "pixels": "SSIM, colour histogram and edge orientation similarity to the ground-truth image",
        "similarity": "embedding similarity (CLIP, DINO, …) to the ground-truth image",
        "similarity_prompt": "CLIP similarity of image and prompt",
        "similarity_references": "embedding similarity to the reference images that were used",
        "things_check": "colour of an image of the task things",
        "vlm": "vision-language judge behind an OpenAI-compatible API, with the KnowGen rubric",
        "world_answer": "rule-based check of an agent's answer in synthetic worlds: names, facts and references",
        "world_check": "rule-based scorer of synthetic worlds: text recognition and image features",
    },
    "search": {
        "blank": "what another backend finds, with blank images, as a control: blank or blank:NAME",
        "brave": "pages and images of Brave's index; needs BRAVE_SEARCH_API_KEY",
        "chain": "several backends in order, the next one where one cannot answer or finds nothing: chain:NAME,NAME",
        "corpus": "pages and images of a folder that `knowgen corpus build` indexed; no key and no network",
        "none": "finds nothing, as an ablation",
        "oracle": "what a sample's ground truth comes from, before what another backend finds; privileged",
        "record": "another backend, with every answer kept in a file: record:FILE,NAME",
        "replay": "what a file of `record` has, without keys or a network: replay:FILE",
        "searxng": "pages and images through a SearXNG server that offers JSON; searxng:URL, no key",
        "serper": "Google's pages and images through Serper; needs SERPER_API_KEY",
        "shuffled": "the results of other queries, as a control: shuffled or shuffled:NAME",
        "tavily": "pages and images through Tavily; needs TAVILY_API_KEY",
        "things": "a picture of a thing of the task things: things:SEED",
        "wikimedia": "pages of Wikipedia and images of Wikimedia Commons; no key, KNOWGEN_CONTACT is asked for",
        "world": "search over the pages and images of a synthetic world",
    },
    "policies": {
        "hf": "vision-language model of the Qwen-VL family in this process, with token ids",
        "openai": "models behind an OpenAI-compatible chat API",
        "replay": "replies recorded in a file or run, without a model",
        "scripted": "rules in place of a model, for synthetic worlds",
        "things_teacher": "rules for the task things that are wrong in a known way, to fine-tune a model on",
        "vllm": "models behind vLLM, with token ids in and out",
    },
    "tools": {
        "browse": "answer a question from a page",
        "image_search": "search for images, and show them",
        "search": "search for pages",
    },
}
"""One line on each bundled plugin, here so that listing imports none of them."""


_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration)
"""What reading the JSON of a damaged or foreign run may raise."""


@click.command("list", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="Show what each takes and where it is defined, and presets.")
def command(kind: str, folder: Path | None, verbose: bool) -> int:
    """List tasks, generators, scorers, search backends, policies and tools of agents, or runs in FOLDER [reports]."""
    if folder is not None and kind == "runs" and not folder.is_dir():
        raise DataError("is not a folder", where=str(folder), fix="name a folder that contains run directories")
    rows = _runs(folder or Path("reports")) if kind == "runs" else _plugins(kind, verbose=verbose)
    if not rows:
        click.echo(f"no {kind}", err=True)
    _print(rows)
    if verbose and kind == "generators":
        click.echo("\npresets of diffusers (all settings: knowgen/generators/diffusers/presets.yaml)")
        _print(_presets())
        click.echo("\npresets of served, whose servers are started by hand (knowgen/generators/hosted/served.yaml)")
        _print(_served_presets())
    return 0


def _print(rows: list[tuple[str, ...]]) -> None:
    rows = [tuple(escape_controls(cell.replace("\n", "\\n").replace("\t", "\\t")) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _presets() -> list[tuple[str, ...]]:
    """Return a row per preset: what a user needs to choose one, and why it is not available here."""
    from knowgen.generators.diffusers.presets import presets

    return [
        (
            f"diffusers:{preset.name}",
            f"{preset.model}@{preset.revision}",
            preset.pipeline,
            preset.size or "own size",
            f"{preset.steps} steps" if preset.steps else "own steps",
            " ".join(f"{name}={value:g}" for name, value in preset.guidance.items()) or "own guidance",
            f"references: {preset.references}" if not preset.unsupported else "",
            f"{preset.weights_gb:g} GB of weights" if preset.weights_gb else "",
            (preset.license or "license not confirmed") + (", gated" if preset.gated else ""),
            preset.unsupported or preset.note,
        )
        for preset in presets()
    ]


def _served_presets() -> list[tuple[str, ...]]:
    """Return a row per preset of a served system: name, model, and the command line of its server."""
    from knowgen.generators.hosted.served import served_presets

    return [(f"served:{preset.name}", preset.model, preset.serve) for preset in served_presets()]


def _plugins(kind: str, *, verbose: bool) -> list[tuple[str, ...]]:
    """Return a row per plugin: name, what it does, what it takes and where it is defined (verbose), and origin.

    A plugin of another package says what it does in the first line of its docstring; it is read and not imported.
    """
    from knowgen.core import registry
    from knowgen.core.source import read_source

    for folder, reason in registry.unreadable().items():
        click.echo(f"skipped {folder}: {reason}", err=True)
    rows: list[tuple[str, ...]] = []
    for entry in registry.entries(next(each for each in registry.KINDS if each == kind)).values():
        bundled = entry.origin.partition(" ")[0] == registry.OWN
        description = DESCRIPTIONS[kind].get(entry.name, "") if bundled else ""
        origin = entry.origin + (f" (also registered by {entry.clash})" if entry.clash else "")
        facts = read_source(entry.target)
        more = [f"takes {', '.join(facts.takes) or 'nothing'}", entry.target] if verbose else []
        rows.append((entry.name, description or facts.summary or entry.target, *more, origin))
    return rows


def _runs(folder: Path) -> list[tuple[str, ...]]:
    """Return a row per run, newest last; a run that cannot be read has the reason in its row."""
    found: list[tuple[float, Path]] = []
    for manifest in folder.glob("**/run.json"):
        with contextlib.suppress(OSError):  # removed since it was found
            state = manifest.lstat()
            found.append((state.st_mtime, manifest))
    rows: list[tuple[str, ...]] = []
    for _, manifest in sorted(found):
        if not manifest.is_file():  # reading a named pipe would wait for ever
            rows.append((str(manifest.parent), "?", "?", "?", "cannot be read: run.json is not a file"))
            continue
        try:
            spec = parse_json(manifest.read_text(encoding="utf-8"))["spec"]
            rows.append(
                (
                    str(manifest.parent),
                    str(spec["task"]),
                    " + ".join(str(part["name"]) for part in (spec.get("agent"), spec["generator"]) if part),
                    ",".join(str(scorer["name"]) for scorer in spec["scorers"]),
                    _headline(manifest.parent / "summary.json"),
                )
            )
        except _UNREADABLE as error:
            rows.append((str(manifest.parent), "?", "?", "?", f"cannot be read: {error_summary(error, 60)}"))
    return rows


def _headline(path: Path) -> str:
    """Return the headline in a summary file, with its protocol."""
    if not path.is_file():
        return "not finished"
    summary = parse_json(path.read_text(encoding="utf-8"))["summaries"][0]
    if reason := summary.get("no_result"):
        return f"{summary['protocol']} no result: {reason}"
    figure = next(part for part in summary["slices"] if part["kind"] == "all")["figures"]["overall"]
    return f"{summary['protocol']} n/a" if figure["value"] is None else f"{summary['protocol']} {figure['value']:.3f}"
