"""Contracts of one value: a judge gives its reasons and one number of a grid.

One `VerdictContract` makes the instruction, the JSON schema and what the two readers accept, so they cannot part ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from knowgen.records import Attempt, Reading, ScoreStatus
from knowgen.scorers.reply import ReplyFault, clean_text, read_object, read_object_leniently, shown

VERDICT_PARSER_VERSION = "knowgen-verdict-2"
"""Raised whenever a reply could be read differently than before."""

RATIONALE = "rationale"
RATIONALE_LIMIT = 1000
"""Characters of the rationale that are kept."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Level(_Frozen):
    """One value and when it is given.

    Attributes:
        value: In [0, 1].
        when: What must hold.
    """

    value: float
    when: str


class VerdictContract(_Frozen):
    """What is asked, and what a reply must look like.

    Attributes:
        name: Key of the value in the reply, and the score's dimension.
        question: What the value answers.
        reasons: What the rationale is to name.
        levels: The grid, from the best value down.
    """

    name: str
    question: str
    reasons: str
    levels: tuple[Level, ...]

    @property
    def grid(self) -> tuple[float, ...]:
        """Returns the values a verdict can take, rising."""
        return tuple(sorted(level.value for level in self.levels))

    @property
    def grid_words(self) -> str:
        """Returns the grid as it is written for the judge: `0, 0.5 or 1`."""
        words = [f"{value:g}" for value in self.grid]
        return f"{', '.join(words[:-1])} or {words[-1]}"

    def json_schema(self) -> dict[str, Any]:
        """Returns the JSON schema of a reply, for endpoints that hold a model to one."""
        return {
            "type": "object",
            "properties": {RATIONALE: {"type": "string"}, self.name: {"type": "number", "enum": list(self.grid)}},
            "required": [RATIONALE, self.name],
            "additionalProperties": False,
        }

    def instruction(self) -> str:
        """Returns the part of the rubric that says what is asked, what each value means, and how to answer."""
        lines = [
            f"{self.name}: {self.question}",
            *(f"- {level.value:g}: {level.when}" for level in self.levels),
            "When you waver between two values, give the lower one.",
            "",
            "Answer with one JSON object and nothing else: no heading, no code fence, no words before or after it.",
            "Its keys, in this order:",
            f'- "{RATIONALE}": a string of two to six sentences, written before you settle the value. {self.reasons}',
            f'- "{self.name}": the number {self.grid_words}.',
            "Values between those named, percentages and values in quotation marks are not accepted.",
        ]
        return "\n".join(lines)


def read_verdict(text: str, contract: VerdictContract) -> Reading | ReplyFault:
    """Reads a reply by the contract: one JSON object, its value a number of the grid, its rationale a string.

    Keys the contract does not know are ignored; a key given twice is a fault.

    Returns:
        An ok reading, or what is wrong, in words that can be sent back to the judge.
    """
    found = read_object(text)
    if isinstance(found, ReplyFault):
        return found
    faults: list[str] = []
    rationale = found.get(RATIONALE)
    if not isinstance(rationale, str):
        faults.append(f'"{RATIONALE}" must be a string')
        rationale = ""
    value = found.get(contract.name)
    if contract.name not in found:
        faults.append(f'"{contract.name}" is missing')
    elif isinstance(value, bool) or not isinstance(value, int | float) or value not in contract.grid:
        faults.append(f'"{contract.name}" must be the number {contract.grid_words}, not {shown(value)}')
    if faults:
        return ReplyFault(tuple(faults))
    assert isinstance(value, int | float)
    return _reading(contract, float(value) + 0.0, rationale)  # -0.0 becomes 0.0


def read_verdict_leniently(text: str, contract: VerdictContract) -> Reading | None:
    """Reads a reply as training takes it: any number, moved to the nearest value of the grid.

    The object is found as the official evaluator finds it. Numbers and numeric strings count and are clipped to
    [0, 1]; halfway between two values the lower one is taken (source of the nearest value: Gen-Searcher, arXiv
    2603.28767, the text reward).

    Returns:
        An ok reading; None where there is no object, or no number in it.
    """
    found = read_object_leniently(text)
    if found is None:
        return None
    value = found.get(contract.name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        rationale = str(found.get(RATIONALE, ""))
    except (ValueError, OverflowError, RecursionError):
        return None
    if not math.isfinite(number):
        return None
    number = min(1.0, max(0.0, number))
    return _reading(contract, min(contract.grid, key=lambda value: (abs(value - number), value)), rationale)


def _reading(contract: VerdictContract, value: float, rationale: str) -> Reading:
    kept = clean_text(rationale[:RATIONALE_LIMIT])
    return Reading(status=ScoreStatus.OK, values={contract.name: value}, rationale=kept)


def read_verdicts(attempts: Sequence[Attempt], contract: VerdictContract) -> tuple[Reading, Reading, str]:
    """Reads the attempts of one judgement both ways. From a refused one nothing is read, whatever its reply holds.

    Returns:
        The strict reading: the first reply that meets the contract, else failed with the last fault. The lenient one:
        the first reply with a number, else failed. And the model name that came with the reply that was read (strict
        before lenient before the last).
    """
    strict: tuple[Reading, str] | None = None
    lenient: tuple[Reading, str] | None = None
    last_fault, last_model = "the judge was not asked", ""
    for attempt in attempts:
        if attempt.refused:
            last_fault, last_model = attempt.error or "the judge refused", attempt.model or last_model
            continue
        if lenient is None and (loose := read_verdict_leniently(attempt.reply, contract)) is not None:
            lenient = (loose, attempt.model)
        found = read_verdict(attempt.reply, contract)
        last_fault, last_model = attempt.error or str(found), attempt.model or last_model
        if isinstance(found, Reading):
            strict = (found, attempt.model)
            break
    failed = Reading(status=ScoreStatus.FAILED, reason=last_fault)
    returned = next((found[1] for found in (strict, lenient) if found), last_model)
    return strict[0] if strict else failed, lenient[0] if lenient else failed, returned
