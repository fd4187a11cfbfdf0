"""The options of a run: declared once, offered everywhere, checked in one place."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import knowgen
from knowgen.cli import judge_check, run, score
from knowgen.core.errors import UsageError
from knowgen.core.run_config import (
    GENERATION_TIMEOUT,
    DeclaredField,
    EngineConfig,
    RunConfig,
    declared_fields,
    run_fields,
)
from knowgen.engine.options import EngineOptions
from knowgen.suites.schema import SuiteFile

ROOT = Path(__file__).resolve().parent.parent.parent
FIELDS = pytest.mark.parametrize("declared", run_fields(), ids=lambda declared: declared.name)
COMMANDS: dict[str, click.Command] = {"run": run.command, "score": score.command, "judge-check": judge_check.command}


def test_every_field_carries_an_option() -> None:
    assert [each.name for each in run_fields()] == [each.name for each in dataclasses.fields(RunConfig)]


@FIELDS
def test_a_field_is_a_flag_of_the_commands_that_it_names(declared: DeclaredField) -> None:
    for name, command in COMMANDS.items():
        flags = {flag: each for each in command.params if isinstance(each, click.Option) for flag in each.opts}
        own = flags.get(declared.flag)
        if name in declared.option.commands:
            assert own is not None and own.name == declared.name
        elif name != "judge-check":  # which has a seed and a directory of its own
            assert own is None


@FIELDS
def test_a_field_is_a_documented_keyword_of_the_python_functions(declared: DeclaredField) -> None:
    for name, function in (("run", knowgen.evaluate), ("score", knowgen.score)):
        parameters = inspect.signature(function).parameters
        if declared.option.commands and name not in declared.option.commands:
            assert declared.name not in parameters
            continue
        parameter = parameters[declared.name]
        assert parameter.kind is parameter.KEYWORD_ONLY and parameter.default == declared.default
        assert re.search(rf"^    {declared.name}: {re.escape(declared.help())}$", function.__doc__ or "", re.MULTILINE)


@FIELDS
def test_a_field_for_all_runs_of_a_suite_is_a_field_of_the_file(declared: DeclaredField) -> None:
    plain: dict[str, Any] = {"systems": ["noise"], "tasks": ["knowgen_mini"]}
    if declared.name != "name":  # a suite has a name of its own, and so has each of its systems
        assert (declared.name in SuiteFile.model_fields) == declared.option.suite
    if declared.option.suite:
        assert getattr(SuiteFile.model_validate(plain).config, declared.name) == declared.default
        texts: dict[str, Any] = {"protocol": "official", "schedule": "phased", "executor": "ray", "log": ["wandb"]}
        other = texts.get(declared.name, 3)
        read = SuiteFile.model_validate({**plain, declared.name: other})
        assert getattr(read.config, declared.name) == other


def test_the_engine_takes_the_fields_declared_for_it() -> None:
    config = RunConfig(concurrency=3, budget=1.5, schedule="phased", timeout=7.0, progress=True, limit=2)
    options = EngineOptions.of(config, gpus=2)
    for name in declared_fields(EngineConfig):
        assert getattr(options, name) == getattr(config, name)
    assert options.gpus == 2
    assert EngineOptions().timeout == GENERATION_TIMEOUT == RunConfig().timeout


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"limit": 0}, "limit must be a whole number >= 1, got 0"),
        ({"limit": "x"}, "limit must be a whole number >= 1, got 'x'"),
        ({"repeats": True}, "repeats must be a whole number >= 1, got True"),
        ({"seed": 2**31}, "seed must be a whole number from 0 to 2147483647, got 2147483648"),
        ({"seed": None}, "seed must be a whole number from 0 to 2147483647, got None"),
        ({"budget": float("nan")}, "budget must be a number >= 0, got nan"),
        ({"timeout": 0}, "timeout must be a number > 0, got 0"),
        ({"schedule": "later"}, "schedule must be one of stream, phased, got 'later'"),
        ({"ids": "s1"}, "ids must be a list of one or more names, got 's1'"),
        ({"ids": []}, "ids must be a list of one or more names, got []"),
        ({"scorer_args": "a=1"}, "scorer_args must be a dict, got 'a=1'"),
        ({"fresh": 1}, "fresh must be True or False, got 1"),
        ({"out": 3}, "out must be a path, got 3"),
        ({"protocol": 3}, "protocol must be text, got 3"),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        RunConfig(**fields)
    assert str(raised.value) == message


def test_values_at_the_bounds_are_accepted() -> None:
    config = RunConfig(limit=1, seed=2**31 - 1, budget=0, timeout=0.001, workers=0, ids=("a",), out=Path("x"))
    assert (config.limit, config.seed, config.budget, config.workers) == (1, 2**31 - 1, 0, 0)


def test_scoring_refuses_what_it_would_ignore(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed is not an option of score; remove it"):
        knowgen.score(tmp_path, seed=1)


def test_the_declarations_load_the_standard_library_alone() -> None:
    code = (
        "import sys\nimport knowgen.core.run_config, knowgen.cli.run, knowgen.cli.score\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pydantic", "numpy", "pandas", "PIL", "torch", "yaml", "aiohttp"}


CALLS = {
    'knowgen.evaluate("t", f, limit=8, seed=1, out="x", scorers=["a"])': "",
    'knowgen.evaluate("t", f, "a", generator_args={"steps": 3})': "",
    'knowgen.score("run", "a", limit=8, task="t", duplicates="last")': "",
    'knowgen.evaluate("t", f, limit="x")': 'Argument "limit"',
    'knowgen.evaluate("t", f, schedule="later")': 'Argument "schedule"',
    'knowgen.evaluate("t", f, nonsense=1)': 'Unexpected keyword argument "nonsense"',
    'knowgen.score("run", budget="much")': 'Argument "budget"',
    'knowgen.score("run", nonsense=1)': 'Unexpected keyword argument "nonsense"',
    'knowgen.evaluate("t", f, limit=8).nonsense': 'no attribute "nonsense"',
}
"""Calls, and what a type checker says of each."""


@pytest.mark.slow
def test_a_type_checker_knows_every_keyword(tmp_path: Path) -> None:
    source = tmp_path / "snippet.py"
    head = "import knowgen\n\n\ndef f(prompt: str) -> object: ...\n\n\n"
    source.write_text(head + "\n".join(CALLS) + "\n")
    words = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(source)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = {int(line.split(":")[1]): line for line in done.stdout.splitlines() if ": error: " in line}
    for number, (call, expected) in enumerate(CALLS.items(), 1 + head.count("\n")):
        assert (number in errors) == bool(expected), f"{call}\n{done.stdout}{done.stderr}"
        assert expected in errors.get(number, ""), call
