"""The entry point: finds the verb, runs it, and turns an error into one line and an exit code.

Nothing but click is imported until a verb runs, so that `knowgen --help` is quick.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from knowgen.core.errors import KnowgenError
from knowgen.core.secrets import command_line_values, mask_secrets, refuse_secrets
from knowgen.core.text import error_summary, one_line

VERBS: dict[str, str] = {
    "run": "Generate an image per prompt of a task, and score it.",
    "score": "Score images made elsewhere, or a run again.",
    "report": "Make one page of one or more runs.",
    "compare": "Say whether runs differ, sample by sample.",
    "export": "Write a run's results as official JSON, JSONL, CSV or Parquet.",
    "list": "List tasks, generators, scorers, search backends or runs.",
    "check": "Check a generator or a task before a long run.",
    "agree": "Say how far judges agree, with each other and with people.",
    "judge-check": "Find out whether a judge is fit for use, on known changes to known pictures.",
    "suite": "Run systems x tasks from one file into one table.",
    "task": "Fetch and prepare a task's data, or settle which prompts ask for text.",
    "merge": "Merge the shards of a run.",
    "reproduce": "Generate again from a run's record and compare.",
    "new": "Write a small package for a generator of your own.",
    "serve": "Offer a generator to others over HTTP.",
    "cache": "Show or clear what is kept between runs.",
    "world": "Build a made-up world: prompts, truths, pages, pictures.",
    "doctor": "Say what is installed here, what works, and what is missing.",
    "demo": "Run four reference systems on the embedded world.",
}

EPILOG = """\b
Examples:
  knowgen demo
  knowgen run --task knowgen_mini --generator open_book --out reports/open_book
  knowgen run --task knowgen_mini --generator my_model.py:MyModel
  knowgen compare reports/closed_book reports/open_book
"""

EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130


class _Verbs(click.Group):
    """A group whose commands are imported when they are called."""

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
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Benchmark and evaluation harness for search-grounded image generation."""


def _wants_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Takes `--debug` from anywhere on the line."""
    before_separator = list(arguments[: arguments.index("--")]) if "--" in arguments else list(arguments)
    rest = list(arguments[len(before_separator) :])
    return "--debug" in before_separator, [word for word in before_separator if word != "--debug"] + rest


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; those of the process when None.

    Returns:
        The exit code: 0 done; 2 usage; 3 bad configuration or data; 4 missing dependency; 5 budget reached;
        6 finished with failed samples; 130 interrupted; 1 an error nobody foresaw.
    """
    debug, words = _wants_debug(sys.argv[1:] if arguments is None else arguments)
    try:
        refuse_secrets(command_line_values(words))
        result = cli.main(args=list(words), prog_name="knowgen", standalone_mode=False, obj=tuple(words))
        return int(result or 0)
    except KnowgenError as error:
        if debug:
            raise
        return _say(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error))
        return 2
    except click.UsageError as error:
        where = f" ({error.ctx.command_path} --help)" if error.ctx else ""
        return _say(f"{error.format_message()}{where}", 2)
    except click.ClickException as error:
        return _say(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        return _say(f"unexpected {error_summary(error, None)}; run it again with --debug and report it", 1)


def _say(line: str, code: int) -> int:
    click.echo(f"knowgen: {one_line(mask_secrets(line))}", err=True)
    return code


def main() -> None:
    """The console script."""
    sys.exit(run())
