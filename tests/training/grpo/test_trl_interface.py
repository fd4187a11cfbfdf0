"""The interface of TRL that is relied on: the installed version has it, and a version without it is refused."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
from trl import GRPOTrainer

from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.training.backends.trl import TrlBackend
from knowgen.training.grpo import trl_interface
from knowgen.training.grpo.trl_interface import check_trl
from tests.helpers.grpo import tiny_config


def test_the_installed_version_is_the_one() -> None:
    check_trl()
    assert TrlBackend(tiny_config()).check() == []


def scoring(body: str) -> Any:
    """Return a method that scores completions, from its source."""
    names = ", ".join(trl_interface.RESULTS)
    source = f"def _generate_and_score_completions(self, inputs):\n    {body.replace('RESULTS', names)}\n"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return namespace["_generate_and_score_completions"], source


@pytest.mark.parametrize(
    ("body", "difference"),
    [
        ("prompt_ids, completion_ids = self._generate(prompts)", "the results of _generate are prompt_ids"),
        ("RESULTS = self._generate(prompts, images)", "used in another way"),
        ("RESULTS = self._sample(prompts)", "does not call _generate"),
        ("RESULTS = self._generate(prompts); return {}", "its batch has no prompt_ids"),
    ],
)
def test_a_version_that_calls_the_method_in_another_way_is_refused(
    body: str, difference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, source = scoring(body)
    original = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda function: source if function is method else original(function))
    changed = type("Changed", (GRPOTrainer,), {"_generate_and_score_completions": method})
    with pytest.raises(MissingDependencyError, match=difference) as error:
        check_trl(changed)
    assert "trl" in str(error.value) and 'pip install "trl>=' in error.value.fix


def test_a_version_with_other_parameters_or_results_is_refused() -> None:
    class Renamed(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, prompts: Any, images: Any) -> Any:
            return super()._generate(prompts)

    class Shorter(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, prompts: Any) -> Any:
            return prompts, prompts

    with pytest.raises(MissingDependencyError, match="_generate takes self, prompts, images"):
        check_trl(Renamed)
    with pytest.raises(MissingDependencyError, match="_generate returns 2 results"):
        check_trl(Shorter)


def test_the_pin_of_the_package_is_the_one_that_the_error_names() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    pinned = next(each for each in project["project"]["optional-dependencies"]["train"] if each.startswith("trl"))
    assert pinned in ast.unparse(ast.parse(inspect.getsource(trl_interface)))


def test_settings_that_need_a_server_are_refused_without_one() -> None:
    problems = TrlBackend(tiny_config(old_logprobs="corrected")).check()
    assert len(problems) == 1 and "needs grpo.rollout.engine=vllm" in problems[0]
    problems = TrlBackend(tiny_config(rollout={"engine": "vllm"})).check()
    assert any("grpo.rollout.url is empty" in problem for problem in problems)
    assert any("vllm is not installed" in problem for problem in problems)


def test_a_training_does_not_begin_with_a_problem() -> None:
    config = tiny_config(rollout={"engine": "vllm"})
    with pytest.raises(ConfigError, match="url is empty"):
        TrlBackend(config).train(None)  # type: ignore[arg-type]
