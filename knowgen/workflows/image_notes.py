"""Notes of a run on its images: of one colour, and the same image for several prompts or repeats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from knowgen.core.text import count
from knowgen.store.run import RunStore


def image_notes(store: RunStore) -> tuple[str, ...]:
    """Return what is odd about the images of a run as a whole, one line each.

    A failed generator often returns a black image, or the same one again and again. No image is opened: colours were
    noted when the images were stored, and equal images have equal hashes.
    """
    prompts = {sample.id: sample.prompt for sample in store.samples()}
    samples: dict[str, list[str]] = defaultdict(list)
    colours: Counter[str] = Counter()
    total = 0
    for _, generation in store.generations(paths=False):
        if generation.image is None:
            continue
        total += 1
        if generation.one_colour:
            colours[generation.one_colour] += 1
        else:
            samples[generation.image.sha256].append(generation.sample_id)
    return (*_colour_notes(colours, total), *_repetition_notes(list(samples.values()), prompts, total))


def _colour_notes(colours: Counter[str], total: int) -> Iterator[str]:
    if not colours:
        return
    named = [_named(colour) if len(colours) == 1 else f"{n} {_named(colour)}" for colour, n in colours.most_common(3)]
    more = ", …" if len(colours) > len(named) else ""
    which = _share(colours.total(), total)
    yield f"{which} one colour only ({', '.join(named)}{more}): a failure should be an error, not a blank image"


def _named(colour: str) -> str:
    return {"#000000": "black", "#ffffff": "white"}.get(colour, colour)


def _share(part: int, total: int) -> str:
    if part == total:
        return f"all {total} images have" if total > 1 else "the only image has"
    return f"{part} of {count(total, 'image')} {'has' if part == 1 else 'have'}"


def _repetition_notes(groups: list[list[str]], prompts: dict[str, str], total: int) -> Iterator[str]:
    """Yield notes on equal images.

    Args:
        groups: For each different image, the samples that it was returned for.
        prompts: Prompts by sample.
        total: Number of images.
    """
    shared = [len({prompts.get(sample, sample) for sample in group}) for group in groups]
    if several := sorted((n for n in shared if n > 1), reverse=True):
        if several[0] == total:
            yield f"all {total} images are the same one"
        else:
            others = f", and {count(len(several) - 1, 'other')} for several" if len(several) > 1 else ""
            yield f"the same image was returned for {several[0]} different prompts{others}"
    repeated = sum(1 for group, n in zip(groups, shared, strict=True) if n == 1 and len(group) > len(set(group)))
    if repeated:
        yield f"repeats of {count(repeated, 'sample')} are the same image, so the seed was not used"
