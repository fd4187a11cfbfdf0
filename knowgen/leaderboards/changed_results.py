"""Change a result, or every generation of it, in one way."""

from __future__ import annotations

from collections.abc import Callable

from knowgen.leaderboards.records import SubmissionResult, SubmittedGeneration


def changed_generations(
    result: SubmissionResult, change: Callable[[str, SubmittedGeneration], SubmittedGeneration]
) -> SubmissionResult:
    """Return a result with every generation changed; the function is given the id of its sample as well."""
    samples = tuple(
        each.model_copy(update={"generations": tuple(change(each.id, one) for one in each.generations)})
        for each in result.samples
    )
    return result.model_copy(update={"samples": samples})


def without_answers(result: SubmissionResult) -> SubmissionResult:
    """Return a result without texts that give answers away, which follow when the season is revealed.

    Rationales name what was found and what was missed, and the prompts of agents state what they found.
    """

    def cleared(_: str, generation: SubmittedGeneration) -> SubmittedGeneration:
        scores = tuple(
            each.model_copy(
                update={
                    name: reading.model_copy(update={"rationale": ""})
                    for name, reading in (("strict", each.strict), ("lenient", each.lenient))
                    if reading is not None
                }
            )
            for each in generation.scores
        )
        return generation.model_copy(update={"used_prompt": "", "scores": scores})

    return changed_generations(result, cleared)
