"""Images that a submission shares: with the ground truth, with other systems, and with its own other prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from knowgen.core.text import count
from knowgen.leaderboards.checks.content import named
from knowgen.leaderboards.checks.findings import BoardFinding, error, warning
from knowgen.leaderboards.checks.hashes import SAME_PICTURE, ImageHashes, PictureTable, Slot, alike, has_picture
from knowgen.leaderboards.folder import RESULT_FILE, Board
from knowgen.search.leaks import MAX_DISTANCE

MANY_TRUTHS = Fraction(2, 100)
"""Share of the images above which likeness to the ground truth is an error. One image may be so by chance, or because a
prompt describes a picture that everybody knows."""

MANY_SHARED = Fraction(5, 100)
"""Share of the images above which two systems have not made them independently."""

MANY_PROMPTS = 3
"""Number of prompts from which on one image for all of them is worth a look."""

_OWN = "submit what the system itself made"


def check_truths(hashes: ImageHashes, board: Board) -> Iterator[BoardFinding]:
    """Yield images that are, or look like, the ground truth of their sample."""
    known = {sample.id: sample.truth for sample in board.samples if sample.truth is not None}
    same = {slot for slot, digest in hashes.sha256.items() if slot[0] in known and digest == known[slot[0]].sha256}
    pictures = {
        (name, slot[1]): bytes.fromhex(truth.perceptual)
        for slot in hashes.perceptual
        for name, truth in ((slot[0], known.get(slot[0])),)
        if truth is not None and has_picture(truth.perceptual)
    }
    near = same | set(alike(hashes.pictures, PictureTable(pictures), MAX_DISTANCE))
    if not near:
        return
    kind = "identical to" if near == same else "the same picture as"
    what = f"{count(len(near), 'image')} of {len(hashes.sha256)} {kind} the ground truth: {_ids(near)}"
    if len(near) > 1 and len(near) > MANY_TRUTHS * len(hashes.sha256):
        yield error("truth", RESULT_FILE, what, _OWN)
    else:
        yield warning("truth", RESULT_FILE, what, "look at them beside the ground truth")


def check_shared(own: ImageHashes, others: Mapping[str, Sequence[ImageHashes]]) -> Iterator[BoardFinding]:
    """Yield images that other systems have as well.

    Images of one colour are left out, and between systems with one image model those that it made from the sample's
    own prompt: it makes the same with another agent, or without one.

    Args:
        own: Hashes of the submission.
        others: Hashes of the revisions of each other system, by its folder.
    """
    for system, revisions in others.items():
        shared: set[Slot] = set()
        close: set[Slot] = set()
        for revision in revisions:
            same_model = own.image_model == revision.image_model
            mine, other = (own, revision) if same_model else (own.as_own, revision.as_own)
            # One file has one colour or not: a perceptual hash of one colour must be claimed by both to count.
            both = (mine.own_digests & other.made_digests) | (mine.made_digests & other.own_digests)
            if both:
                shared |= {slot for slot, digest in mine.made.items() if digest in both}
            close |= set(alike(mine.own_pictures, other.own_pictures, SAME_PICTURE))
        yield from _shared(system, shared, close - shared, len(own.sha256))


def _shared(system: str, shared: set[Slot], close: set[Slot], number: int) -> Iterator[BoardFinding]:
    if shared:
        what = f"{count(len(shared), 'image')} of {number} identical to those of {system}: {_ids(shared)}"
        if len(shared) > 1 and len(shared) > MANY_SHARED * number:
            yield error("shared", RESULT_FILE, what, _OWN)
        else:
            yield warning("shared", RESULT_FILE, what, "ask both how they were made")
    if close:
        what = f"{count(len(close), 'image')} of {number} look the same as those of {system}: {_ids(close)}"
        yield warning("shared", RESULT_FILE, what, "compare them")


def check_repeated(own: ImageHashes) -> Iterator[BoardFinding]:
    """Yield an image that a system gave for several prompts, and several images of one colour."""
    prompts = Counter(digest for _, digest in {(slot[0], digest) for slot, digest in own.sha256.items()})
    for digest, number in sorted(prompts.items()):
        if number >= MANY_PROMPTS:
            same = {slot for slot, each in own.sha256.items() if each == digest}
            kind = "an image of one colour" if digest in own.flat else f"the image {digest[:12]}"
            what = f"{kind} was made for {number} prompts: {_ids(same)}"
            yield warning("repeated", RESULT_FILE, what, "look at it: a filter or a fault may have made it")
    if len(own.flat) >= MANY_PROMPTS:
        flat = {slot for slot, digest in own.sha256.items() if digest in own.flat}
        what = f"{len(own.flat)} different images are of one colour by their perceptual hashes: {_ids(flat)}"
        yield warning("repeated", RESULT_FILE, what, "look at them: such images are compared with no others")


def _ids(slots: set[Slot]) -> str:
    return named(sorted({slot[0] for slot in slots}))
