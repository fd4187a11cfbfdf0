"""Draws pictures of a run again from its record, and says how far what comes out is what is stored."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knowgen import assemble
from knowgen.engine.handles import GeneratorHandle
from knowgen.engine.options import Options
from knowgen.errors import DataError, KnowgenError, UsageError
from knowgen.generators.contract import RequestSource
from knowgen.records import Generation, GenerationStatus, GroundTruth, ImageRef, Sample
from knowgen.spec import GeneratorSpec, RunSpec, select
from knowgen.store.manifest import library_versions, machine_facts
from knowgen.store.run import RunStore
from knowgen.tasks.load import load_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Verdict = Literal["same", "same pixels", "within", "differs", "damaged", "seed", "failed", "not drawn", "no picture"]

REPRODUCED: frozenset[Verdict] = frozenset({"same", "same pixels", "within"})
NOT_COMPARED: frozenset[Verdict] = frozenset({"no picture"})
"""Verdicts of samples whose record holds no picture: there is nothing to reproduce, and nothing is counted."""

TOLERANCE = 2
"""Levels of 255 by which each value of a picture may be off and still count as drawn again: sums of floating-point
numbers come out in another order on another machine."""

_ELSEWHERE = ("pictures ", "results ")
"""How the revision of drawings that were taken from a folder or a results file begins."""


@dataclass(frozen=True)
class Difference:
    """How far two pictures of one size are apart.

    Attributes:
        mean: Mean absolute difference of the channel values, in levels of 255.
        share: Share of the pixels that differ in any channel, in [0, 1].
        largest: Largest difference of a channel value, in levels of 255.
        psnr: Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)` over all channel values; None where equal.
    """

    mean: float
    share: float
    largest: int
    psnr: float | None


@dataclass(frozen=True)
class Redrawn:
    """What became of one picture.

    Attributes:
        sample_id: The sample.
        repeat: From 0.
        verdict: same (the same bytes), same pixels, within (the tolerance), differs; damaged: the stored file is not
            what the record names; seed: the record's seed is not that of the specification; failed: drawing it again
            gave no picture; not drawn: the work ended before; no picture: there was none to begin with.
        detail: In words, where there is more to say.
        difference: Between stored and drawn picture, where both could be read and have one size.
    """

    sample_id: str
    repeat: int
    verdict: Verdict
    detail: str = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Reproduction:
    """What came of drawing a run again.

    Attributes:
        run: The run directory.
        generator: Who drew, as recorded.
        tolerance: Levels of 255 that count as the same.
        pictures: One entry a sample and repeat, in order.
        changes: By name, what was recorded and what is here now: libraries, accelerators, the generator's revision.
        stopped: Empty when all was drawn; else `budget` or `interrupted`.
    """

    run: Path
    generator: GeneratorSpec
    tolerance: int
    pictures: tuple[Redrawn, ...]
    changes: Mapping[str, tuple[str, str]]
    stopped: str = ""

    @property
    def compared(self) -> int:
        """Returns how many pictures there were to reproduce."""
        return sum(each.verdict not in NOT_COMPARED for each in self.pictures)

    @property
    def reproduced(self) -> int:
        """Returns how many of them came out again."""
        return sum(each.verdict in REPRODUCED for each in self.pictures)

    @property
    def ok(self) -> bool:
        """Tells whether every picture came out again."""
        return self.compared == self.reproduced and not self.stopped

    def plain(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {
            "run": str(self.run),
            "generator": self.generator.model_dump(mode="json"),
            "tolerance": self.tolerance,
            "compared": self.compared,
            "reproduced": self.reproduced,
            "ok": self.ok,
            "stopped": self.stopped,
            "verdicts": dict(Counter(each.verdict for each in self.pictures)),
            "changes": {name: {"then": then, "now": now} for name, (then, now) in self.changes.items()},
            "pictures": [asdict(each) for each in self.pictures],
        }


class _Recorded:
    """The samples of a run as it recorded them; their truths for a generator that is shown them."""

    default_scorers: tuple[str, ...] = ()
    search = search_version = ""

    def __init__(self, store: RunStore, samples: Sequence[Sample], *, truths: bool) -> None:
        self.name, self.version = store.spec.task, store.spec.task_version
        self._samples = samples
        self._truths = {sample.id: store.truth(sample.id) for sample in samples} if truths else {}

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        """Yields the samples."""
        yield from self._samples

    def truth(self, sample_id: str) -> GroundTruth:
        """Returns the recorded truth, or an empty one that no plain generator sees anyway."""
        return self._truths.get(sample_id, GroundTruth(sample_id=sample_id))


def reproduce(
    run: Path | str,
    *,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    device: str | None = None,
    task: str | None = None,
    requests: Path | str | None = None,
    generator_args: Mapping[str, Any] | None = None,
    tolerance: int = TOLERANCE,
    budget: float | None = None,
    timeout: float = 600.0,
    progress: bool = False,
) -> Reproduction:
    """Draws pictures of a run again, through the engine as any run, and compares them with the stored ones.

    Args:
        run: The run directory; nothing in it is changed.
        ids: Only these samples.
        limit: Only the first so many.
        device: Where the generator computes, such as cuda:1; chosen when None.
        task: Name or folder of the run's task, for a generator that looks things up in it; found by the recorded name
            when None.
        requests: The agent's answers the run was drawn from, for a run that was drawn from any.
        generator_args: Arguments that a run does not record, such as addresses.
        tolerance: Levels of 255 by which each value may be off, 0 to 255.
        budget: US dollars that drawing again may cost; None for no limit.
        timeout: Seconds a drawing may take.
        progress: Show progress on stderr.

    Raises:
        UsageError: The pictures were not drawn by a generator, it cannot be named any more, or an argument is wrong.
        DataError: It is no run directory, it is damaged, or it holds no picture.
    """
    if not 0 <= tolerance <= 255:
        raise UsageError(f"a tolerance of {tolerance} is not possible", fix="give levels, 0 to 255")
    with RunStore.read(Path(run)) as store:
        spec = store.spec
        if spec.generator.revision.startswith(_ELSEWHERE):
            raise UsageError(
                f"its pictures were not drawn here but taken from {spec.generator.name!r}",
                where=str(run),
                fix="name a run that a generator drew",
            )
        handle = _handle(spec, task, generator_args or {}, device)
        source = _requests(spec, requests)
        chosen, _ = assemble.choose(_Recorded(store, list(store.samples()), truths=False), limit=limit, ids=ids)
        then = {place: store.drawn(*place) for place in _places(spec, chosen)}
        wanted = [sample for sample in chosen if any(_has_picture(then[place]) for place in _places(spec, [sample]))]
        if not wanted:
            raise DataError("holds no picture that could be drawn again", where=str(run))
        again = spec.model_copy(
            update={
                "selection": select([sample.id for sample in wanted], "ids"),
                "generator": handle.spec,
                "scorers": (),
                "shard": None,
            }
        )
        options = Options(budget=budget, timeout=timeout, progress=progress)
        recorded = _Recorded(store, wanted, truths=handle.traits.privileged)
        with tempfile.TemporaryDirectory(prefix="knowgen-reproduce-", ignore_cleanup_errors=True) as folder:
            stopped = _draw(Path(folder) / "run", again, recorded, handle, options, source)
            with RunStore.read(Path(folder) / "run") as drawn:
                pictures = tuple(
                    _look(store, place, before, drawn.drawn(*place), tolerance) for place, before in then.items()
                )
        return Reproduction(Path(run), spec.generator, tolerance, pictures, _changes(store, handle), stopped)


def _places(spec: RunSpec, samples: Sequence[Sample]) -> list[tuple[str, int]]:
    return [(sample.id, repeat) for sample in samples for repeat in range(spec.repeats)]


def _has_picture(generation: Generation | None) -> bool:
    return generation is not None and generation.image is not None


def _draw(
    path: Path,
    spec: RunSpec,
    task: _Recorded,
    handle: GeneratorHandle,
    options: Options,
    source: RequestSource | None,
) -> str:
    """Draws into a directory of its own; returns why it stopped, empty when all was drawn."""
    from knowgen.engine import run as run_engine

    with RunStore.open(path, spec) as store:
        return run_engine(spec, task, handle, (), store, options, source).stopped


# -- the generator -----------------------------------------------------------------------------------------------------


class _OnDevice:
    """A generator that is set up on a device of the user's choice."""

    def __init__(self, plugin: Any, device: str) -> None:
        self._plugin, self._device = plugin, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plugin, name)

    def setup(self, device: str) -> None:
        """Sets it up there, wherever the engine would have it."""
        self._plugin.setup(self._device)


def _handle(spec: RunSpec, task: str | None, given: Mapping[str, Any], device: str | None) -> GeneratorHandle:
    """Makes ready the generator of a record.

    Raises:
        UsageError: It is not to be found here, its task is not, or an argument would change what it draws.
    """
    recorded = spec.generator
    whole = None
    if task is not None or recorded.search:
        try:
            whole = load_task(task or spec.task)
        except KnowgenError as error:
            raise UsageError(
                f"the generator looks things up in the task {spec.task}, which cannot be opened ({error.what})",
                fix="name the task or its folder with --task",
            ) from error
    handle = assemble.generator_handle(recorded.name, {**recorded.args, **given}, whole)
    if handle.spec.args != recorded.args:
        other = sorted(name for name in given if handle.spec.args.get(name) != recorded.args.get(name))
        raise UsageError(
            f"-g {other[0] if other else ''} would have something drawn that the run does not record",
            fix="give only what is a matter of speed or place",
        )
    if device is None:
        return handle

    def build() -> Any:
        plugin = handle.build()
        if not callable(getattr(plugin, "setup", None)):
            raise UsageError("the generator has no `setup`, so no device can be chosen", fix="leave --device out")
        return _OnDevice(plugin, device)

    return replace(handle, build=build, remake=None)


def _requests(spec: RunSpec, path: Path | str | None) -> RequestSource | None:
    """Opens the agent's answers a run was drawn from.

    Raises:
        UsageError: They are not named, are others, or the run was drawn from none.
    """
    if path is None:
        if spec.requests:
            raise UsageError(
                f"the run was drawn from the answers of an agent ({spec.requests})", fix="name them with --requests SRC"
            )
        return None
    from knowgen.repainting import open_requests

    source = open_requests(Path(path))
    if source.identity != spec.requests:
        there = spec.requests or "the prompts of the task"
        raise UsageError(f"the run was drawn from {there}, not from {source.identity}", where=str(path))
    return source


def _changes(store: RunStore, handle: GeneratorHandle) -> dict[str, tuple[str, str]]:
    """Returns what was recorded and what is here now, where the two differ."""
    recorded = store.spec.generator
    pairs: dict[str, tuple[str, str]] = {}
    before, now = store.manifest.versions, library_versions()
    for name in dict.fromkeys((*before, *now)):
        pairs[name] = (before.get(name, "not installed"), now.get(name, "not installed"))
    for name in ("processor", "accelerators"):
        pairs[name] = (_told(store.manifest.machine.get(name)), _told(machine_facts().get(name)))
    pairs["revision"] = (recorded.revision, handle.spec.revision)
    pairs["search"] = (recorded.search, handle.spec.search)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _told(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(str(each) for each in values if each is not None) or "none"


# -- comparison --------------------------------------------------------------------------------------------------------


def _look(
    store: RunStore, place: tuple[str, int], before: Generation | None, now: Generation | None, tolerance: int
) -> Redrawn:
    """Compares what is stored of a sample and repeat with what was drawn again."""
    if before is None or before.image is None:
        state = f"{before.status.value}: {before.reason}" if before is not None else "not drawn yet"
        return Redrawn(*place, "no picture", state)
    if not store.image_ok(before.image):
        return Redrawn(*place, "damaged", _damage(store, before.image, now))
    if now is None or now.image is None:
        return Redrawn(*place, *(("not drawn", "") if now is None else ("failed", f"{now.status.value}: {now.reason}")))
    verdict, detail, apart = _compare(before.image, now.image, tolerance)
    seed = store.spec.seed + before.repeat
    if before.seed != seed:
        detail = f"the record says seed {before.seed}, the specification {seed}; drawn with {seed}: {verdict}"
        return Redrawn(*place, "seed", detail, apart)
    if verdict not in REPRODUCED and (told := _settings(before, now)):
        detail = f"{detail}; {told}" if detail else told
    return Redrawn(*place, verdict, detail, apart)


def _damage(store: RunStore, image: ImageRef, now: Generation | None) -> str:
    there = store.image_path(image).is_file()
    what = "the stored file was changed" if there else "the stored file is missing"
    if now is None or now.status is not GenerationStatus.OK or now.image is None:
        return what
    if now.image.sha256 == image.sha256:
        return f"{what}; drawn again it comes out as recorded"
    return f"{what}; drawn again it comes out with another hash than recorded"


def _compare(before: ImageRef, now: ImageRef, tolerance: int) -> tuple[Verdict, str, Difference | None]:
    if before.sha256 == now.sha256:
        return "same", "", None
    sizes = (before.width, before.height), (now.width, now.height)
    if sizes[0] != sizes[1]:
        then, here = (f"{width}x{height}" for width, height in sizes)
        return "differs", f"{then} pixels then, {here} now", None
    apart = difference(_pixels(before), _pixels(now))
    if apart.largest == 0:
        return "same pixels", f"other bytes, {before.format} then, {now.format} now", apart
    return ("within" if apart.largest <= tolerance else "differs"), "", apart


def _settings(before: Generation, now: Generation) -> str:
    """Says which settings the generator noted otherwise than then; empty when none."""
    names = [name for name, value in before.settings.items() if now.settings.get(name) != value]
    return "; ".join(f"{name} {before.settings[name]} then, {now.settings.get(name)} now" for name in names[:3])


def _pixels(image: ImageRef) -> NDArray[np.int16]:
    """Returns a picture as an array of shape (height, width, 3)."""
    import numpy as np

    return np.asarray(image.open().convert("RGB"), dtype=np.int16)


def difference(first: NDArray[np.int16], second: NDArray[np.int16]) -> Difference:
    """Measures how far two pictures are apart.

    Args:
        first: Levels 0 to 255, shape (height, width, channels).
        second: The same shape.

    Raises:
        ValueError: The shapes differ.
    """
    import numpy as np

    if first.shape != second.shape:
        raise ValueError(f"pictures of shapes {first.shape} and {second.shape} cannot be compared")
    off = np.abs(first.astype(np.int16) - second.astype(np.int16))
    squares = float(np.square(off.astype(np.float64)).mean())
    return Difference(
        mean=float(off.mean()),
        share=float((off > 0).any(axis=-1).mean()),
        largest=int(off.max(initial=0)),
        psnr=10 * math.log10(255**2 / squares) if squares else None,
    )
