"""`knowgen agent`: have the agent search for one prompt and an image model generate from its answer, live."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import resume_command
from knowgen.cli.options import JSON_HELP, run_option

if TYPE_CHECKING:
    from knowgen.cli.agent_view import AgentView
    from knowgen.workflows.single_prompt import PromptPlan, PromptResult

EPILOG = """\b
Examples:
  knowgen agent "A poster of the longest bridge that opened in 2025" \\
      --policy openai:qwen3-vl -g policy.base_url=http://127.0.0.1:8000/v1
  knowgen agent "..." --policy openai:gpt-4.1 --painter openai:gpt-image-1 --budget 1
  knowgen agent "Show the singer Zumikem on a theatre stage." \\
      --policy scripted --search world --painter painter
Arguments of the parts: -g policy.KEY, search.KEY, summary.KEY, painter.KEY;
other -g are those of the agent (see docs/guides/agent.md). The same command
shows the same result again; --fresh searches again.
"""

DEFAULT_SEARCH = "wikimedia"

PATIENCE = 60.0
"""Default of `--patience` in seconds: shorter than that of a run, because somebody is watching."""


@click.command("agent", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("prompt")
@click.option("--policy", required=True, metavar="POLICY", help="Model that decides: openai:MODEL, vllm:MODEL, …")
@click.option("--search", default=DEFAULT_SEARCH, metavar="SEARCH", help=f"Search backend [{DEFAULT_SEARCH}].")
@click.option("--painter", metavar="GENERATOR", help="Image model [none: the answer only].")
@run_option("generator_args", help="Argument of the agent or of a part; repeatable.")
@run_option("out", help="Run directory [reports/agent__PROMPT].")
@run_option("budget")
@run_option("seed", help="Seed of sampling and image [0].")
@run_option("timeout", help="Maximum seconds for the image [600].")
@run_option("patience", help=f"Longest wait for a silent service [{PATIENCE:g}].", default=PATIENCE)
@run_option("fresh", help="Delete an earlier result first.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP.replace("tables", "lines"))
def command(prompt: str, policy: str, search: str, painter: str | None, *, as_json: bool, **options: Any) -> int:
    """Search for what a prompt needs, show every step, and generate an image."""
    from knowgen.cli.agent_view import AgentView, Silent
    from knowgen.core.text import escape_controls
    from knowgen.workflows.single_prompt import default_folder, plan_prompt, run_prompt

    arguments = _arguments(policy, search, painter, dict(options["generator_args"]))
    plan = plan_prompt(prompt, arguments, seed=options["seed"])
    folder = Path(options["out"] or default_folder(plan))
    limits = {name: options[name] for name in ("budget", "timeout", "patience", "fresh")}
    _warn_of_contact(search, arguments)
    if as_json:
        result = run_prompt(plan, folder, Silent(), **limits)
        page = _page(plan, result)
        click.echo(escape_controls(json.dumps(_json(plan, result, page), indent=2, ensure_ascii=False)))
        _report_early_end(result)
        return _exit_code(plan, result)
    view = AgentView()
    view.text("prompt", prompt, strong=True)
    view.line("agent", f"{policy}, search {search}" + (f", image model {painter}" if painter else ""))
    result = run_prompt(plan, folder, view, **limits)
    if result.outcome.answer_cached and result.answer is not None:
        _show_again(view, result)
    _show_result(view, plan, result)
    _report_early_end(result)
    return _exit_code(plan, result)


def _arguments(policy: str, search: str, painter: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the agent; its parts are named by options."""
    parts = {"policy": policy, "search": search, "painter": painter}
    for name in parts:
        if name in given:
            raise click.UsageError(f"-g {name}=… is an option of this command: write --{name} {given[name]}")
    return {**given, **{name: value for name, value in parts.items() if value is not None}}


def _warn_of_contact(search: str, arguments: dict[str, Any]) -> None:
    """Say that Wikimedia answers more often when it knows whom to write to."""
    if search != DEFAULT_SEARCH or arguments.get("search.contact") or os.environ.get("KNOWGEN_CONTACT"):
        return
    if "search.base_url" in arguments:
        return
    click.echo(
        "note: without an address where you can be reached, Wikimedia admits 10 requests a minute; "
        "type: export KNOWGEN_CONTACT=you@example.org",
        err=True,
    )


def _show_again(view: AgentView, result: PromptResult) -> None:
    """Show the steps of an answer that exists already."""
    from knowgen.agents.records import Step

    assert result.answer is not None
    view.line("stored", f"this answer is from {result.folder}; --fresh searches again")
    paths = {image.sha256: image.path for image in result.answer.images}
    for each in result.answer.trajectory:
        step = Step.model_validate(each)
        new = (one.image.model_copy(update={"path": paths.get(one.image.sha256)}) for one in step.new_images)
        seen = tuple(one.model_copy(update={"image": image}) for one, image in zip(step.new_images, new, strict=True))
        view.stepped(step.model_copy(update={"new_images": seen}))


def _show_result(view: AgentView, plan: PromptPlan, result: PromptResult) -> None:
    """Show the answer, the image, time and cost by part, and the page."""
    from knowgen.cli.agent_view import FINAL_ROWS

    answer, generation = result.answer, result.generation
    if answer is not None:
        view.answer(answer)
    image = generation.image if generation is not None else None
    if generation is not None and generation.fallback:
        view.line("fallback", f"the image is generated from the prompt as it is: {generation.fallback}")
    if generation is not None and image is None:
        view.line("no image", f"{generation.status.value}: {generation.reason}")
    if image is not None and image.path is not None:
        view.pictures([image.path], FINAL_ROWS)
    view.blank()
    for part, text in _parts(plan, result):
        view.line(part, text)
    if image is not None and image.path is not None:
        view.path("image", _shown_path(image.path, result.folder))
    if (page := _page(plan, result)) is not None:
        view.path("page", page.resolve())
    if result.outcome.stopped:
        view.command("resume", resume_command())


def _shown_path(path: Path, folder: Path) -> Path:
    """Return the path of a file in the run directory as the user named the directory."""
    whole = folder.absolute()
    return folder / path.relative_to(whole) if path.is_relative_to(whole) else path


def _parts(plan: PromptPlan, result: PromptResult) -> list[tuple[str, str]]:
    """Return each part of the work with its time and cost."""
    from knowgen.cli.agent_view import spent_text

    lines: list[tuple[str, str]] = []
    if result.answer is not None:
        for part in result.answer.usage:
            tokens = part.usage.input_tokens + part.usage.output_tokens
            extra = f", {tokens:,} tokens" if tokens else ""
            lines.append((part.part, spent_text(part.seconds, part.usage.cost) + extra))
    if result.generation is not None and result.generation.image is not None:
        cost = result.generation.usage.cost
        if cost is None and not plan.draws_over_network:
            cost = 0.0  # a model of this machine says nothing about a price
        lines.append(("painter", spent_text(result.generation.seconds, cost)))
    if result.answer is not None:
        whole = result.answer.seconds + (result.generation.seconds if result.generation is not None else 0.0)
        lines.append(("together", spent_text(whole, result.outcome.cost)))
    return lines


def _page(plan: PromptPlan, result: PromptResult) -> Path | None:
    """Write the page and return its path; None where there is nothing to show."""
    if result.answer is None:
        return None
    from knowgen.report.trajectory_page import write_trajectory_page

    return write_trajectory_page(result.folder / "agent.html", plan.prompt, plan.spec, result.answer, result.generation)


def _json(plan: PromptPlan, result: PromptResult, page: Path | None) -> dict[str, Any]:
    """Return the result as plain data."""
    answer, generation = result.answer, result.generation
    image = generation.image if generation is not None else None
    return {
        "prompt": plan.prompt,
        "agent": plan.spec.agent.model_dump(mode="json") if plan.spec.agent is not None else None,
        "painter": plan.spec.generator.model_dump(mode="json") if plan.draws else None,
        "answer": answer.model_dump(mode="json") if answer is not None else None,
        "generation": generation.model_dump(mode="json") if generation is not None else None,
        "image": str(_shown_path(image.path, result.folder)) if image is not None and image.path else None,
        "page": str(page) if page is not None else None,
        "folder": str(result.folder),
        "cost": result.outcome.cost,
        "stopped": result.outcome.stop_reason,
    }


def _report_early_end(result: PromptResult) -> None:
    """Say on stderr why the run ended early, if it did."""
    from knowgen.core.text import one_line

    outcome = result.outcome
    if outcome.stopped == "interrupted":
        click.echo("interrupted; finished results are saved", err=True)
        return
    if outcome.stopped == "budget":
        click.echo(f"budget   {outcome.refusal}; raise --budget to continue", err=True)
    for line in outcome.notices:
        click.echo(f"stopped  {one_line(line)}", err=True)


def _exit_code(plan: PromptPlan, result: PromptResult) -> int:
    """Return the exit code: 0 done, 5 budget reached, 6 no usable result, 130 interrupted."""
    from knowgen.core.records import AnswerStatus

    outcome, answer, generation = result.outcome, result.answer, result.generation
    if outcome.stopped == "interrupted":
        return 130
    if outcome.stopped == "budget":
        return 5
    if answer is None or answer.status is AnswerStatus.FAILED or outcome.notices or outcome.stopped:
        return 6
    if not plan.draws:
        return 0 if answer.status is AnswerStatus.OK else 6
    return 0 if generation is not None and generation.image is not None else 6
