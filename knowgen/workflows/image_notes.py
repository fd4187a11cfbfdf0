"""Notes of a run on its images: of one colour, the same for several prompts or repeats, or drawn without a seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from knowgen.core.text import count
from knowgen.generators.contract import SEED_NOT_TAKEN
from knowgen.store.run import RunStore


def image_notes(store: RunStore) -> tuple[str, ...]:
    """Return what is odd about the images of a run as a whole, one line each.

    A failed generator often returns a black image, or the same one again and again. No image is opened: colours were
    noted when the images were stored, and equal images have equal hashes.
    """
    prompts = {sample.id: sample.prompt for sample in store.samples()}
    samples: dict[str, list[str]] = defaultdict(list)
    colours: Counter[str] = Counter()
    total, unseeded, unsure = 0, 0, 0
    repeated = False
    for _, generation in store.generations(paths=False):
        if generation.image is None:
            continue
        total += 1
        repeated |= generation.repeat > 0
        settings = generation.settings
        unseeded += settings.get("seed") == SEED_NOT_TAKEN
        confirmed = "returned_seed" in settings and settings["returned_seed"] == settings.get("seed")
        unsure += "seed" in settings.get("fields_unchecked", ()) and not confirmed
        if generation.one_colour:
            colours[generation.one_colour] += 1
        else:
            samples[generation.image.sha256].append(generation.sample_id)
    seeds = _seed_notes(unseeded, unsure, total) if repeated else ()
    return (*_colour_notes(colours, total), *_repetition_notes(list(samples.values()), prompts, total), *seeds)


def _seed_notes(unseeded: int, unsure: int, total: int) -> Iterator[str]:
    if unseeded:
        yield f"{_share(unseeded, total)} no seed, because the service takes none: repeats differ by chance"
    if unsure:
        yield f"{_share(unsure, total)} a seed that was sent without knowing whether the service reads it"


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
    equal = sum(1 for group, n in zip(groups, shared, strict=True) if n == 1 and len(group) > len(set(group)))
    if equal:
        yield f"repeats of {count(equal, 'sample')} are the same image, so the seed was not used"
