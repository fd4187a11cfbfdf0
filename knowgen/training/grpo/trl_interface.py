"""What this package relies on in TRL, checked in its source before a training begins.

One method of TRL's trainer is replaced, and two are extended. They are not part of its public interface, so another
version may call them in another way without an error. The check makes that one clear line.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from knowgen.core.errors import MissingDependencyError
from knowgen.core.python_source import parse_python

RESULTS = (
    "prompt_ids_list", "completion_ids_list", "tool_mask_list", "completions", "sampling_per_token_logps_list",
    "extra_fields", "images", "tool_images",
)  # fmt: skip
"""Names that TRL gives the results of `_generate`, in order."""

PARAMETERS = {
    "_generate": ["self", "prompts"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_compute_loss": ["self", "model", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "log": ["self", "logs", "start_time"],
}
"""Parameters of the methods that are replaced or extended."""

OUTPUTS = (
    "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "old_per_token_logps",
    "sampling_per_token_logps", "ref_per_token_logps", "pixel_values", "image_grid_thw", "mm_token_type_ids",
    "num_images", "tool_mask",
)  # fmt: skip
"""Entries of the batch that are read or changed."""


def check_trl(trainer: Any = None) -> None:
    """Check the installed TRL.

    Args:
        trainer: Trainer class to check; TRL's by default.

    Raises:
        MissingDependencyError: It is not installed, or is another version than the one this package is made for.
    """
    if trainer is None:
        try:
            from trl import GRPOTrainer
        except ImportError as error:
            raise MissingDependencyError(
                f"needs trl, which cannot be imported ({error})",
                where="backend trl",
                fix='pip install "knowgen[train]"',
            ) from error
        trainer = GRPOTrainer
    if difference := _difference(trainer):
        import trl

        raise MissingDependencyError(
            f"trl {trl.__version__} is not the version that this package is made for: {difference}",
            where="backend trl",
            fix='pip install "trl>=1.16,<1.17"',
        )


def _difference(trainer: Any) -> str:
    """Return how a trainer class differs from what is relied on; empty if it does not."""
    for name, parameters in PARAMETERS.items():
        method = getattr(trainer, name, None)
        if method is None:
            return f"it has no {name}"
        found = list(inspect.signature(method).parameters)
        if found != parameters:
            return f"{name} takes {', '.join(found)}"
    scoring = _tree(trainer._generate_and_score_completions)
    if calls := [results for results in _calls_of_generate(scoring) if results != RESULTS]:
        return f"the results of _generate are {', '.join(calls[0]) or 'used in another way'}"
    if not _calls_of_generate(scoring):
        return "_generate_and_score_completions does not call _generate"
    entries = {node.value for node in ast.walk(scoring) if isinstance(node, ast.Constant)}
    if missing := [name for name in OUTPUTS if name not in entries]:
        return f"its batch has no {missing[0]}"
    returned = _returned(_tree(trainer._generate))
    if returned != len(RESULTS):
        return f"_generate returns {returned} results"
    return ""


def _tree(function: Any) -> ast.AST:
    return parse_python(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))


def _calls_of_generate(tree: ast.AST) -> list[tuple[str, ...]]:
    """Return the names that the results get at each call of `self._generate(prompts)`; none for any other use."""
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_call(node.value):
            target = node.targets[0]
            names = target.elts if isinstance(target, ast.Tuple) else []
            calls.append(tuple(name.id for name in names if isinstance(name, ast.Name)))
    uses = sum(isinstance(node, ast.Attribute) and node.attr == "_generate" for node in ast.walk(tree))
    return calls if uses == len(calls) else [()]


def _is_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_generate"
        and [argument.id for argument in node.args if isinstance(argument, ast.Name)] == ["prompts"]
        and len(node.args) == 1
        and not node.keywords
    )


def _returned(tree: ast.AST) -> int:
    """Return the number of values of the last return statement."""
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    return len(values[-1].elts) if values and isinstance(values[-1], ast.Tuple) else 1
