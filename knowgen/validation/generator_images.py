"""Checks of the images of a generator: format, seeds, and several requests at once."""

from __future__ import annotations

from collections.abc import Sequence

from knowgen.core.records import request_id
from knowgen.engine.retry import describe, is_decline
from knowgen.validation.checked_generator import ROUNDING_LEVELS, CheckedGenerator
from knowgen.validation.findings import CheckStoppedError
from knowgen.validation.probe import ProbedImage, ProbeResult, largest_difference, mean_difference

MAX_TOGETHER = 4
"""Requests given at once, if the generator takes as many."""

OWN_GENERATOR_FIX = "use an own generator: random.Random(seed), numpy.random.default_rng(seed), torch.Generator"
ALONE_FIX = "generate one image at a time (diffusers: -g batch=1) if images must repeat exactly"
DETERMINISTIC_FIX = "enable deterministic algorithms if images must repeat exactly"


def check_first(checked: CheckedGenerator) -> None:
    """Generate each prompt alone and check the images. Prompts that are declined are left out from then on.

    Raises:
        CheckStoppedError: No image was generated, or one broke the contract.
    """
    requests = list(checked.requests)
    for request in requests:
        declined = len(checked.declined)
        image = checked.generate("images", request)
        if image is not None:
            checked.images.append(image)
        elif len(checked.declined) > declined:
            checked.leave_out(request)
        else:
            raise CheckStoppedError
    if not checked.images:
        what = f"none of {len(requests)} plain prompts gave an image; the last: {checked.declined[-1]}"
        checked.stop("images", what, "let it generate plain prompts")
    _check_format(checked)


def _check_format(checked: CheckedGenerator) -> None:
    images, notes = checked.images, checked.notes
    sizes, formats = sorted({image.size for image in images}), sorted({image.format for image in images})
    notes.ok("images", f"{' and '.join(sizes)} pixels, stored as {' and '.join(formats)}")
    if changes := sorted({note for image in images for note in image.notes}):
        notes.warn("images", f"changed before it is scored: {'; '.join(changes)}", "return 8-bit sRGB, upright")
    if any(image.is_blank for image in images):
        notes.warn(
            "images",
            "an image has one colour only; a failure must not be a blank image",
            "raise an error, or return GeneratedImage(status=…, reason=…)",
        )
    if len(images) > 1 and all(mean_difference(images[0], image) == 0 for image in images[1:]):
        notes.fail("prompt", "all prompts give the same image", "use the prompt")


def check_seeds(checked: CheckedGenerator) -> None:
    """Generate the same request again, and with another seed."""
    first = checked.requests[0]
    again = checked.generate("seeds", first)
    other = checked.generate("seeds", first.model_copy(update={"seed": first.seed + 1}))
    if again is None or other is None:
        return
    notes, apart = checked.notes, mean_difference(checked.images[0], again)
    checked.repeatable = apart <= ROUNDING_LEVELS
    if not checked.repeatable:
        what = f"the same prompt and seed gave another image (mean difference {apart:.1f} of 255 levels)"
        add = notes.warn if checked.handle.capabilities.shape == "generate" else notes.fail
        add("seeds", what, "take all randomness from the request's seed, so that results can be repeated")
    elif mean_difference(checked.images[0], other) == 0:
        what = "another seed gives the same image, so repeats of a prompt would be equal"
        notes.warn("seeds", what, "use the request's seed")
    elif apart > 0:
        what = f"the same seed gives nearly the same image (mean difference {apart:.2f} of 255 levels)"
        notes.warn("seeds", what, DETERMINISTIC_FIX)
    else:
        notes.ok("seeds", "the same seed gives the same pixels, another seed others")


def check_random_state(checked: CheckedGenerator) -> None:
    """Report whether generating images with two seeds has changed the global random state."""
    capabilities, notes = checked.handle.capabilities, checked.notes
    what = f"it changes the global state of {' and '.join(sorted(checked.changed_states))}"
    if not checked.changed_states:
        notes.ok("random state", "global random state is not changed")
    elif capabilities.shape == "draw" and capabilities.concurrency > 1:
        notes.fail("random state", f"{what}, which its {capabilities.concurrency} threads share", OWN_GENERATOR_FIX)
    else:
        notes.warn("random state", what, OWN_GENERATOR_FIX)


def check_several(checked: CheckedGenerator) -> None:
    """Give several requests at once and compare the images with those generated alone."""
    capabilities = checked.handle.capabilities
    at_once = capabilities.batch_size if capabilities.shape == "generate_batch" else capabilities.concurrency
    count = min(MAX_TOGETHER, at_once)
    if capabilities.shape == "draw":
        count = max(2, count)  # one after the other in another order shows state between calls
    numbers = [number % len(checked.requests) for number in range(count)][::-1]
    batch = [
        checked.requests[number].model_copy(update={"id": request_id(f"together {place}", 0)})
        for place, number in enumerate(numbers)
    ]
    result = checked.run("several", batch, threads=capabilities.concurrency > 1)
    if _has_one_result_each(checked, result):
        checked.seconds_together = result.seconds / len(batch)
        _compare_with_alone(checked, result, numbers)


def _has_one_result_each(checked: CheckedGenerator, result: ProbeResult) -> bool:
    """Return whether every request has exactly one result; add what is wrong to the notes."""
    notes, returned = checked.notes, [id for id, _, _ in result.results]
    unknown = [id for id in returned if id not in result.requested]
    repeated = {id for id in returned if returned.count(id) > 1} - set(unknown)
    missing = [id for id in result.requested if id not in returned]
    declines = [error for _, error in result.errors if is_decline(error)]
    failures = [error for _, error in result.errors if not is_decline(error)]
    if failures:
        notes.fail("several", f"it raises {describe(failures[0])}", "fix what raises it")
    elif declines:
        checked.decline("several", describe(declines[0]))
    if unknown:
        kind = "an unknown request_id" if any(unknown) else "no request_id"
        notes.fail("several", f"{len(unknown)} results have {kind}", "give each GeneratedImage the id of its request")
    if repeated:
        notes.fail("several", f"{len(repeated)} requests have more than one result", "yield each result once")
    if missing and not result.errors:
        what = f"{len(missing)} of {len(result.requested)} requests have no result"
        notes.fail("several", what, "yield a GeneratedImage for each, with a status if it failed")
    return not (result.errors or unknown or repeated or missing)


def _compare_with_alone(checked: CheckedGenerator, result: ProbeResult, numbers: Sequence[int]) -> None:
    notes, largest, worst = checked.notes, 0.0, 0
    for id, number in zip(result.requested, numbers, strict=True):
        image = checked.image("several", result, id)
        if image is None:
            return
        if _is_of_another(checked, image, number):
            what = "results are mixed up: a request got the image of another one"
            notes.fail("several", what, "give each GeneratedImage the id of its request")
            return
        largest = max(largest, mean_difference(checked.images[number], image))
        worst = max(worst, largest_difference(checked.images[number], image))
    count = len(numbers)
    apart = f"mean difference {largest:.2f}, at most {worst} of 255 levels"
    if not checked.repeatable:
        notes.ok("several", f"{count} at once have one result each; not compared, because images are not repeatable")
    elif largest > ROUNDING_LEVELS and not _is_of_low_precision(checked, largest):
        what = f"given at once, requests give other images than alone ({apart})"
        notes.fail("several", what, "seed each image by its own request, and share no state between calls")
    elif largest > ROUNDING_LEVELS:
        what = f"in {checked.settings['dtype']} a batch changes an image by more than rounding ({apart})"
        notes.warn("several", what, ALONE_FIX)
    elif largest > 0:
        notes.warn("several", f"given at once, images differ slightly ({apart})", ALONE_FIX)
    else:
        notes.ok("several", f"{count} at once have one result each, the same as alone")


def _is_of_low_precision(checked: CheckedGenerator, apart: float) -> bool:
    """Return whether a difference between images that were made alone and together may come from a short number format.

    It is then recorded, and the difference is less than half of that between images of different prompts.
    """
    if checked.settings.get("dtype") not in {"bfloat16", "float16"}:
        return False
    others = [mean_difference(checked.images[0], image) for image in checked.images[1:]]
    return bool(others) and 2 * apart < min(others)


def _is_of_another(checked: CheckedGenerator, image: ProbedImage, number: int) -> bool:
    if checked.same(image, number):
        return False
    others = [known for place, known in enumerate(checked.images) if place != number]
    return any(mean_difference(known, image) <= ROUNDING_LEVELS for known in others)
