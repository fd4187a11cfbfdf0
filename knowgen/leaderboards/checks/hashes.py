"""Perceptual hashes of the images of a system, by sample and repeat, and how far those of two systems are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from knowgen.core.spec import fingerprint
from knowgen.leaderboards.records import SubmissionResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Slot = tuple[str, int]
"""A sample and a repeat."""

SAME_PICTURE = 28
"""Number of different bits up to which two images are copies of one: that of copies in another size, file format or
brightness (`knowgen.search.leaks.MAX_DISTANCE` says how it was measured). Images that one generator made of similar
prompts can be closer than `MAX_DISTANCE`."""

FEWEST_BITS = 24
"""Number of set bits below which a hash says nothing: an image of one colour has at most one, any other about 128."""

HASH_BYTES = 32


class PictureTable:
    """Perceptual hashes by sample and repeat.

    Args:
        hashes: The hashes, 32 bytes each.

    Attributes:
        slots: Samples and repeats, sorted.
        table: Their hashes, shape (N, 32).
    """

    def __init__(self, hashes: Mapping[Slot, bytes]) -> None:
        import numpy as np

        self.slots = tuple(sorted(hashes))
        joined = b"".join(hashes[slot] for slot in self.slots)
        self.table: NDArray[np.uint8] = np.frombuffer(joined, np.uint8).reshape(len(self.slots), HASH_BYTES)


@dataclass(frozen=True)
class ImageHashes:
    """Hashes of the images of one submission.

    Attributes:
        sha256: Digest of the file by sample and repeat.
        perceptual: Perceptual hash by sample and repeat, without those of one-colour images.
        fallback: Samples and repeats whose image was made from the sample's own prompt although there was an agent.
        image_model: Identity of the image model, by which the fallbacks of two systems may be the same.
    """

    sha256: Mapping[Slot, str]
    perceptual: Mapping[Slot, bytes]
    fallback: frozenset[Slot]
    image_model: str = ""

    @cached_property
    def flat(self) -> frozenset[str]:
        """Digests of images of one colour."""
        return frozenset(digest for slot, digest in self.sha256.items() if slot not in self.perceptual)

    @cached_property
    def pictures(self) -> PictureTable:
        """Perceptual hashes of all images of more than one colour."""
        return PictureTable(self.perceptual)

    @cached_property
    def as_own(self) -> ImageHashes:
        """The hashes with every fallback as an image of the system's own."""
        return replace(self, fallback=frozenset()) if self.fallback else self

    @cached_property
    def made(self) -> Mapping[Slot, str]:
        """Digests of the images that are no fallback."""
        return {slot: digest for slot, digest in self.sha256.items() if slot not in self.fallback}

    @cached_property
    def made_digests(self) -> frozenset[str]:
        """The digests of `made`."""
        return frozenset(self.made.values())

    @cached_property
    def own(self) -> Mapping[Slot, str]:
        """Digests of the images that are the system's own: neither of one colour nor a fallback."""
        return {slot: digest for slot, digest in self.made.items() if digest not in self.flat}

    @cached_property
    def own_digests(self) -> frozenset[str]:
        """The digests of `own`."""
        return frozenset(self.own.values())

    @cached_property
    def own_pictures(self) -> PictureTable:
        """Perceptual hashes of the images in `own`."""
        return PictureTable({slot: self.perceptual[slot] for slot in self.own if slot in self.perceptual})


def hashes_of(result: SubmissionResult) -> ImageHashes:
    """Return the hashes of the images of a submission."""
    sha256: dict[Slot, str] = {}
    perceptual: dict[Slot, bytes] = {}
    fallback = set()
    for sample in result.samples:
        for generation in sample.generations:
            if generation.image is None:
                continue
            slot = (sample.id, generation.repeat)
            sha256[slot] = generation.image.sha256
            if generation.fallback:
                fallback.add(slot)
            if has_picture(generation.image.perceptual):
                perceptual[slot] = bytes.fromhex(generation.image.perceptual)
    identity = result.spec.generator.model_dump(mode="json", include={"name", "args", "revision"})
    return ImageHashes(sha256, perceptual, frozenset(fallback), fingerprint(identity))


def has_picture(perceptual: str) -> bool:
    """Return whether a perceptual hash, in hex digits, is one of an image with more than one colour.

    Example:
        >>> has_picture("80" + "00" * 31), has_picture("aa" * 32), has_picture("")
        (False, True, False)
    """
    try:
        data = bytes.fromhex(perceptual)
    except ValueError:
        return False
    return len(data) == HASH_BYTES and int.from_bytes(data).bit_count() >= FEWEST_BITS


def bits_apart(a: bytes, b: bytes) -> int:
    """Return the number of different bits of two hashes.

    Example:
        >>> bits_apart(bytes([3]), bytes([1]))
        1
    """
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def alike(a: PictureTable, b: PictureTable, most: int) -> list[Slot]:
    """Return the samples and repeats, sorted, whose images of two systems differ in at most `most` bits."""
    import numpy as np

    slots, first, second = a.slots, a.table, b.table
    if a.slots != b.slots:
        places = {slot: place for place, slot in enumerate(b.slots)}
        shared = [(own, places[slot]) for own, slot in enumerate(a.slots) if slot in places]
        slots = tuple(a.slots[own] for own, _ in shared)
        first, second = first[[own for own, _ in shared]], second[[other for _, other in shared]]
    if not slots:
        return []
    different = np.unpackbits(first ^ second, axis=1).sum(axis=1)
    return [slots[place] for place in np.flatnonzero(different <= most).tolist()]
