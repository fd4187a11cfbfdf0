"""Output that several verbs share: the closing lines of a run, reasons of failures, and exit codes."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from knowgen.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knowgen.api import Plan, Run
    from knowgen.core.spec import ScorerSpec

MAX_REASONS = 3
"""Maximum number of failure reasons that are printed after a run. The report has all of them."""

MAX_REASON_LENGTH = 160
"""Maximum length of a printed reason in characters."""


def directory_of(out: Path, shard: str | None) -> Path:
    """Return the default run directory of a shard, which needs one of its own; `out` itself without a shard."""
    return out.with_name(f"{out.name}__shard-{shard.replace('/', '-of-')}") if shard else out


@dataclass(frozen=True)
class CommandLine:
    """How this process was started.

    Attributes:
        words: Words of the command line after the program's name.
        program: Words that start the program in this shell and folder.
    """

    words: tuple[str, ...]
    program: tuple[str, ...] = ("knowgen",)


def program_of_this_process() -> tuple[str, ...]:
    """Return the words that start this program again in the current folder: `knowgen` where the shell finds it.

    Elsewhere the path of the script in this environment, such as `.venv/bin/knowgen`, or `PYTHON -m knowgen` where this
    environment has no script.
    """
    folder = Path(sys.executable).parent
    found = shutil.which("knowgen")
    if found is not None and Path(found).absolute().parent == folder.absolute():
        return ("knowgen",)
    started_as_module = Path(sys.argv[0]).name == "__main__.py"
    script = folder / "knowgen"
    if script.is_file() and not started_as_module:
        return (_from_here(script),)
    return (_python(), "-m", "knowgen")


def _python() -> str:
    """Return the word that starts this interpreter in the current folder."""
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
            return name
    return _from_here(Path(sys.executable))


def _from_here(path: Path) -> str:
    """Return a path relative to the current folder where it is below it."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def shell_line(*words: str | Path) -> str:
    """Return a command line that is quoted for a shell."""
    return shlex.join(str(word) for word in words)


def command_line(*words: str | Path) -> str:
    """Return a command line of this program that works when it is pasted into the shell."""
    context = click.get_current_context(silent=True)
    program = context.obj.program if context is not None and isinstance(context.obj, CommandLine) else ("knowgen",)
    return shell_line(*program, *words)


def pip_line(*words: str | Path) -> str:
    """Return a command line of the pip of this environment: `pip` where the shell finds it."""
    found = shutil.which("pip")
    if found is not None and Path(found).absolute().parent == Path(sys.executable).absolute().parent:
        return shell_line("pip", *words)
    return shell_line(_python(), "-m", "pip", *words)


def resume_command() -> str:
    """Return the command line that resumes the current command: the same one without `--fresh`."""
    return command_line(*(word for word in click.get_current_context().obj.words if word != "--fresh"))


def closing_lines(run: Run, resume: str) -> None:
    """Print the table of a run, reasons of failures, and the commands to resume, rescore and open the report."""
    from knowgen.report import tables
    from knowgen.workflows.resolve import argument_texts

    stopped = run.outcome.stopped if run.outcome is not None else ""
    if stopped == "interrupted":
        click.echo("interrupted; finished results are saved", err=True)
        click.echo(f"resume   {resume}")
        return
    click.echo()
    if not run.spec.scorers:
        _unscored_lines(run, resume)
        return
    click.echo(tables.terminal(list(run.summaries(protocols=(run.protocol,)))))
    click.echo()
    for line in failure_lines(run):
        click.echo(line)
    if stopped == "budget" and run.outcome is not None:
        click.echo(f"budget   {run.outcome.refusal}; raise --budget to continue", err=True)
    for line in notice_lines(run):
        click.echo(line, err=True)
    click.echo(f"resume   {resume}")
    scorer = run.spec.scorers[0]
    # with its arguments, because the same judge at another address would be another judge, and perhaps a paid one
    texts = argument_texts(scorer.name, scorer.args, in_worker=True)
    words = [word for name, value in texts.items() for word in ("-s", f"{name}={value}")]
    click.echo(f"rescore  {command_line('score', run.path, '--scorer', scorer.name, *words)}")
    click.echo(f"report   {(run.path / 'report' / 'index.html').resolve()}")


def _unscored_lines(run: Run, resume: str) -> None:
    """Print how many images there are, reasons of failures, and how to go on, after a run that was not scored."""
    outcome = run.outcome
    if outcome is not None:
        there = outcome.generated + outcome.generation_cached
        click.echo(f"images   {there} of {outcome.expected}, not scored: the ground truths are private")
    for line in [*failure_lines(run), *notice_lines(run)]:
        click.echo(line)
    click.echo(f"resume   {resume}")
    click.echo(f"send     {run.path}, a run directory with the images, to those who score them")


def warn_of_unfit(scorers: Iterable[ScorerSpec]) -> None:
    """Warn of judges that an earlier `knowgen judge-check` found unfit."""
    from knowgen.judge_check.verdicts import remembered

    for spec in scorers:
        if (verdict := remembered(spec)) is not None and verdict.unfit:
            click.echo(f"warning: {verdict.warning}", err=True)


def warn_of_prices(plan: Plan) -> None:
    """Warn of services whose price is unknown. With a budget, calls to them are an error that says so."""
    from knowgen import api

    for line in [] if plan.config.budget is not None else api.price_warnings(plan):
        click.echo(line, err=True)


def failure_lines(run: Run) -> list[str]:
    """Return a few lines with the reasons of failed generations and scores, the most frequent first."""
    from knowgen.core.records import GenerationStatus, ScoreStatus

    generations: dict[tuple[str, int], str] = {}
    scores: Counter[str] = Counter()
    for made in [] if run.spec.scorers else run.generations():
        if made.status in (GenerationStatus.FAILED, GenerationStatus.REFUSED):
            generations[made.sample_id, made.repeat] = f"{made.status.value}: {made.reason}"
    for scorer in run.spec.scorers:
        for row in run.rows(scorer.name):
            if row.generation in (GenerationStatus.FAILED, GenerationStatus.REFUSED):
                generations[row.sample_id, row.repeat] = f"{row.generation.value}: {row.generation_reason}"
            elif row.strict.status is ScoreStatus.FAILED:
                scores[f"{scorer.name} failed: {row.strict.reason}"] += 1
    reasons = _alike(Counter(generations.values()) + scores)
    lines = [f"{count:<8} {one_line(reason, MAX_REASON_LENGTH)}" for reason, count in reasons[:MAX_REASONS]]
    if rest := reasons[MAX_REASONS:]:
        lines.append(f"{sum(count for _, count in rest):<8} for {len(rest)} other reasons, see the report")
    return lines


_OWN_WORDS = re.compile(r"'[^']*'|\S*[/\\]\S*|\S+\.[A-Za-z]{2,4}\b|[0-9]+")
"""Parts of a reason that belong to one sample: quoted names, paths, file names, numbers."""


def _alike(reasons: Counter[str]) -> list[tuple[str, int]]:
    """Count reasons that differ only in names and numbers together; return the first of each, most frequent first."""
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(_OWN_WORDS.sub("…", reason), []).append(reason)
    merged = [
        (group[0] + (f" (and {len(group) - 1} alike)" if len(group) > 1 else ""), sum(reasons[each] for each in group))
        for group in groups.values()
    ]
    return sorted(merged, key=lambda pair: -pair[1])


def notice_lines(run: Run) -> list[str]:
    """Return a line on each reason why samples remain not run, apart from the budget."""
    if run.outcome is None:
        return []
    stopped = run.outcome.stop_reason
    return [f"{'stopped' if line == stopped else 'not run'}  {one_line(line)}" for line in run.outcome.notices]


def exit_code(run: Run) -> int:
    """Return the exit code of a run: 0 done, 5 budget reached, 6 failed samples or samples not run, 130 interrupted."""
    outcome = run.outcome
    if outcome is None:
        return 0
    if outcome.stopped == "interrupted":
        return 130
    if outcome.stopped == "budget":
        return 5
    return 6 if outcome.failed or outcome.not_run or outcome.notices or outcome.stopped else 0
