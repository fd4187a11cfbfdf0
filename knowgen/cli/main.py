"""The entry point of the command line: run a verb, and turn an error into one line and an exit code.

Only click is imported until a verb runs, so that `knowgen --help` is fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from knowgen.cli.common import CommandLine, program_of_this_process
from knowgen.core.console import OutputClosedError, clean_streams, discard_stdout, open_missing_streams
from knowgen.core.errors import KnowgenError
from knowgen.core.secrets import command_line_values, mask_secrets, refuse_secrets
from knowgen.core.steps import showing_steps
from knowgen.core.text import error_summary, one_line

VERBS: dict[str, str] = {
    "run": "Generate an image per prompt of a task, and score it.",
    "agent": "Search and generate for one prompt, step by step.",
    "score": "Score existing images, or score a run again.",
    "report": "Write an HTML report of one or more runs.",
    "compare": "Compare runs with paired intervals and tests.",
    "figure": "Draw a figure of runs for a paper: SVG, PNG, PDF.",
    "table": "Write a table of runs for a paper: LaTeX, Markdown.",
    "export": "Export a run as official JSON, JSONL, CSV or Parquet.",
    "trajectories": "Show, export or make trajectories of the agent.",
    "train": "Train the policy of the agent: fine-tuning, GRPO.",
    "list": "List tasks, generators, scorers, search backends or runs.",
    "check": "Check a plugin or a task's data before a long run.",
    "label": "Let people rate or compare images on a local page.",
    "agree": "Measure the agreement of scorers and human raters.",
    "judge-check": "Check a judge on images with known errors.",
    "suite": "Run several systems on several tasks from one file.",
    "task": "Prepare a task's data, or label which prompts ask for text.",
    "verify": "Check that a run's figures follow from its stored replies and images.",
    "merge": "Merge the shards of a run.",
    "reproduce": "Generate the images of a run again, and compare them.",
    "new": "Create a package for a plugin of your own.",
    "serve": "Serve a generator over HTTP.",
    "cache": "Show or clear the caches that all runs share.",
    "board": "Leaderboards: add, check and withdraw submissions, build the site.",
    "push": "Send a run or a board to the Hugging Face hub.",
    "pull": "Fetch a run or a board from the Hugging Face hub.",
    "world": "Build a synthetic benchmark.",
    "corpus": "Index a folder of pages and images for search.",
    "doctor": "Check the installation.",
    "demo": "Run four baseline systems on the bundled task.",
}
"""Verbs and their one-line help, here so that `knowgen --help` imports none of them."""

EPILOG = """\b
Examples:
  knowgen demo
  knowgen run --task knowgen_mini --generator open_book --out reports/open_book
  knowgen run --task knowgen_mini --generator my_model.py:MyModel
  knowgen compare reports/closed_book reports/open_book

\b
Exit codes: 0 done; 1 unexpected error; 2 wrong usage; 3 wrong configuration or
data; 4 missing dependency; 5 budget reached; 6 finished with samples that
failed or are not run; 130 interrupted.
"""

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _Verbs(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"knowgen.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], list(VERBS), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(VERBS)}"
            raise click.UsageError(f"unknown command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="knowgen", prog_name="knowgen")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also after a command).")
def cli(debug: bool) -> None:
    """Benchmark and evaluation harness for search-grounded image generation."""


def _split_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether `--debug` is anywhere before `--`, and the other arguments."""
    before_separator = list(arguments[: arguments.index("--")]) if "--" in arguments else list(arguments)
    rest = list(arguments[len(before_separator) :])
    return "--debug" in before_separator, [word for word in before_separator if word != "--debug"] + rest


def run(arguments: Sequence[str] | None = None, *, program: Sequence[str] = ("knowgen",)) -> int:
    """Run the command line.

    Args:
        arguments: Arguments after the program name; those of the process when None.
        program: Words that start the program, for the command lines that it prints.

    Returns:
        The exit code: 0 done; 1 unexpected error; 2 wrong usage; 3 wrong configuration or data; 4 missing dependency;
        5 budget reached; 6 finished with samples that failed or are not run; 130 interrupted.
    """
    debug, words = _split_debug(sys.argv[1:] if arguments is None else arguments)
    with clean_streams(), showing_steps():
        code = _run(words, tuple(program), debug=debug)
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OutputClosedError:
            discard_stdout()
        except KnowgenError as error:  # such as a full disk
            discard_stdout()
            return _fail(str(error), code or error.exit_code)
        return code


def _run(words: Sequence[str], program: tuple[str, ...], *, debug: bool) -> int:
    """Run one command and return its exit code; print an error on one line, or raise it with `debug`."""
    try:
        refuse_secrets(command_line_values(words))
        result = cli.main(
            args=list(words), prog_name="knowgen", standalone_mode=False, obj=CommandLine(tuple(words), program)
        )
        return int(result or 0)
    except KnowgenError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error))
        return EXIT_USAGE
    except click.UsageError as error:
        where = f" ({error.ctx.command_path} --help)" if error.ctx else ""
        return _fail(f"{error.format_message()}{where}", EXIT_USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except OutputClosedError:
        discard_stdout()
        return 0
    except Exception as error:
        if debug:
            raise
        message = f"unexpected {error_summary(error, None)}; run it again with --debug and report it"
        return _fail(message, EXIT_UNEXPECTED)


def _fail(line: str, code: int) -> int:
    """Print an error on one line, without secrets, and return the exit code."""
    click.echo(f"knowgen: {one_line(mask_secrets(line))}", err=True)
    return code


def main() -> None:
    """Run the command line of this process and exit."""
    open_missing_streams()
    sys.exit(run(program=program_of_this_process()))
