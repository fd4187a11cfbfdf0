"""Checks of what a generator draws: pictures, seeds, and several requests at once."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.core.records import request_id
from knowgen.engine.retry import describe, is_decline
from knowgen.validation.probe import ProbedImage, ProbeResult, difference
from knowgen.validation.session import SLIGHT, CheckedGenerator, CheckStoppedError

TOGETHER = 4
"""Requests that are given at once, where the generator takes as many."""

OWN_GENERATOR = "use an own generator: random.Random(seed), numpy.random.default_rng(seed), torch.Generator"
DETERMINISTIC = "switch deterministic algorithms on, if pictures shall repeat exactly"


def check_first(subject: CheckedGenerator) -> None:
    """Draws each prompt by itself and looks at the pictures; prompts that are declined are left out from then on.

    Raises:
        CheckStoppedError: Nothing was drawn, or a drawing broke the contract.
    """
    asked = list(subject.requests)
    for request in asked:
        declined = len(subject.declined)
        picture = subject.draw("pictures", request)
        if picture is not None:
            subject.alone.append(picture)
        elif len(subject.declined) > declined:
            subject.leave_out(request)
        else:
            raise CheckStoppedError
    if not subject.alone:
        what = f"none of {len(asked)} plain prompts gave a picture; the last: {subject.declined[-1]}"
        subject.stop("pictures", what, "let it draw plain prompts")
    _look_at(subject)


def _look_at(subject: CheckedGenerator) -> None:
    pictures, notes = subject.alone, subject.notes
    sizes, modes = sorted({picture.size for picture in pictures}), sorted({picture.mode for picture in pictures})
    notes.ok("pictures", f"{' and '.join(sizes)} pixels, given as {' and '.join(modes)}")
    if odd := [mode for mode in modes if mode not in {"RGB", "file"}]:
        notes.warn("pictures", f"mode {odd[0]} is stored as RGB, on white", 'return image.convert("RGB")')
    if any(picture.is_blank for picture in pictures):
        notes.warn(
            "pictures",
            "a picture has one colour only; what failed must not be a blank picture",
            "raise an error, or give Drawing(status=…, reason=…)",
        )
    if len(pictures) > 1 and all(difference(pictures[0], picture) == 0 for picture in pictures[1:]):
        notes.fail("prompt", "all prompts give the same picture", "use the prompt")


def check_seeds(subject: CheckedGenerator) -> None:
    """Draws the same request again, and with another seed."""
    first = subject.requests[0]
    again = subject.draw("seeds", first)
    other = subject.draw("seeds", first.model_copy(update={"seed": first.seed + 1}))
    if again is None or other is None:
        return
    notes, apart = subject.notes, difference(subject.alone[0], again)
    subject.steady = apart <= SLIGHT
    if not subject.steady:
        what = f"the same prompt and seed gave another picture (mean difference {apart:.1f} of 255 levels)"
        note = notes.warn if subject.handle.traits.shape == "generate" else notes.fail
        note("seeds", what, "draw from the request's seed alone, so that results can be repeated")
    elif difference(subject.alone[0], other) == 0:
        what = "another seed gives the same picture, so repeats of a prompt would tell nothing"
        notes.warn("seeds", what, "use the request's seed")
    elif apart > 0:
        what = f"the same seed gives nearly the same picture (mean difference {apart:.2f} of 255 levels)"
        notes.warn("seeds", what, DETERMINISTIC)
    else:
        notes.ok("seeds", "the same seed gives the same pixels, another seed others")


def check_random_state(subject: CheckedGenerator) -> None:
    """Looks at what drawing with two seeds has done to the global random state."""
    traits, notes = subject.handle.traits, subject.notes
    what = f"drawing changes the global state of {' and '.join(sorted(subject.disturbed))}"
    if not subject.disturbed:
        notes.ok("random state", "global random state is left alone")
    elif traits.shape == "draw" and traits.concurrency > 1:
        notes.fail("random state", f"{what}, which its {traits.concurrency} threads share", OWN_GENERATOR)
    else:
        notes.warn("random state", what, OWN_GENERATOR)


def check_several(subject: CheckedGenerator) -> None:
    """Gives several requests at once and compares with what each gave alone."""
    traits = subject.handle.traits
    at_once = traits.batch_size if traits.shape == "generate_batch" else traits.concurrency
    count = min(TOGETHER, at_once)
    if traits.shape == "draw":
        count = max(2, count)  # one after the other, in another order, shows state between calls
    numbers = [number % len(subject.requests) for number in range(count)][::-1]
    batch = [
        subject.requests[number].model_copy(update={"id": request_id(f"together {place}", 0)})
        for place, number in enumerate(numbers)
    ]
    trial = subject.give("several", batch, threads=traits.concurrency > 1)
    if _each_once(subject, trial):
        subject.together = trial.seconds / len(batch)
        _equals_alone(subject, trial, numbers)


def _each_once(subject: CheckedGenerator, trial: ProbeResult) -> bool:
    """Tells whether every request was answered once; notes what is wrong."""
    notes, given = subject.notes, [name for name, _, _ in trial.answers]
    strange = [name for name in given if name not in trial.asked]
    twice = {name for name in given if given.count(name) > 1} - set(strange)
    missing = [name for name in trial.asked if name not in given]
    declines = [error for _, error in trial.faults if is_decline(error)]
    broken = [error for _, error in trial.faults if not is_decline(error)]
    if broken:
        notes.fail("several", f"it raises {describe(broken[0])}", "mend what raises it")
    elif declines:
        subject.decline("several", describe(declines[0]))
    if strange:
        kind = "a request_id nobody asked for" if any(strange) else "no request_id"
        notes.fail("several", f"{len(strange)} drawings carry {kind}", "give each Drawing its request's own id")
    if twice:
        notes.fail("several", f"{len(twice)} requests were answered more than once", "yield each once")
    if missing and not trial.faults:
        what = f"{len(missing)} of {len(trial.asked)} requests got no answer"
        notes.fail("several", what, "yield a Drawing for each, with a status where it failed")
    return not (trial.faults or strange or twice or missing)


def _equals_alone(subject: CheckedGenerator, trial: ProbeResult, numbers: Sequence[int]) -> None:
    notes, largest = subject.notes, 0.0
    for name, number in zip(trial.asked, numbers, strict=True):
        picture = subject.read("several", trial, name)
        if picture is None:
            return
        if _is_of_another(subject, picture, number):
            what = "answers are mixed up: a request got the picture of another"
            notes.fail("several", what, "give each Drawing the id of the request it answers")
            return
        largest = max(largest, difference(subject.alone[number], picture))
    count = len(numbers)
    if not subject.steady:
        notes.ok("several", f"{count} at once are answered, each once; not compared, for pictures do not repeat")
    elif largest > SLIGHT:
        what = f"given at once, requests give other pictures than alone (mean difference {largest:.1f} of 255 levels)"
        notes.fail("several", what, "seed each picture by its own request, and share no state between calls")
    elif largest > 0:
        what = f"given at once, pictures differ slightly (mean difference {largest:.2f} of 255 levels)"
        notes.warn("several", what, DETERMINISTIC)
    else:
        notes.ok("several", f"{count} given together are answered each once, and as each alone")


def _is_of_another(subject: CheckedGenerator, picture: ProbedImage, number: int) -> bool:
    if subject.same(picture, number):
        return False
    others = [known for place, known in enumerate(subject.alone) if place != number]
    return any(difference(known, picture) <= SLIGHT for known in others)
