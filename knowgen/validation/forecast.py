"""What a run of real length takes: device, whether batches pay, time on all GPUs, memory of card and machine."""

from __future__ import annotations

import os
from statistics import median

from knowgen.core.records import request_id
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_workers, gpus_for
from knowgen.local_models.device_memory import DeviceMemory, memory_of
from knowgen.local_models.devices import device_name, devices_of
from knowgen.validation.checked_generator import CheckedGenerator
from knowgen.validation.probe import peak_megabytes

MAX_GROWTH = 20.0
"""Megabytes per image by which the process may grow before a leak is reported."""

MAX_SHARE = 0.9
"""Share of the memory of a card, or of the machine, above which a run may fail."""

NOTED_BYTES = 2**30
"""Memory of other programs on a card from which on it is reported; the driver's own part of each process is less."""

MAX_LOSS = 1.1
"""Ratio of the time of an image in a call of many to that of one alone above which batches are said to cost time."""

LEAST_LOSS_SECONDS = 0.05
"""Seconds per image by which batches have to cost more; less is noise where other programs compute too."""

MAX_FIRST_SECONDS = 300.0
"""Time of the first call of many requests above which it is not repeated."""

MAX_BATCH_SECONDS, MAX_BATCH_CALLS = 30.0, 5
"""Time after which sizes of batches are not measured further, and the maximum number of calls for it."""

LEAST_GAIN = 1.03
"""Ratio of the time of an image alone to that in a batch from which on batches are said to pay."""


def check_device(checked: CheckedGenerator) -> None:
    """Report where images are generated, as the generator records it, else as it was asked to."""
    capabilities = checked.handle.capabilities
    if not capabilities.wants_device:
        return
    recorded = checked.settings
    device = str(recorded.get("device") or checked.device)
    name = str(recorded.get("device_name") or device_name(device))
    words = [f"{device} ({name})" if name else device]
    if capabilities.gpus_per_worker > 1:
        words.append(f"{capabilities.gpus_per_worker} GPUs for one model")
    if recorded.get("dtype"):
        words.append(str(recorded["dtype"]))
    if device.startswith("cpu"):
        words.append("no GPU is used")
    checked.notes.ok("device", ", ".join(words))


def check_batches(checked: CheckedGenerator) -> None:
    """Give as many requests at once as the generator takes, and report whether batches save time.

    At least twice, because the first time may include preparations; and as long as the generator measures sizes of its
    own and has new ones, which it will use in a run.
    """
    size = checked.handle.capabilities.batch_size
    calls: list[float] = []
    while True:
        known = len(_measured(checked))
        if (seconds := _whole_call(checked, size, len(calls))) is None:
            return  # what is wrong with several requests at once has been reported
        calls.append(seconds)
        grew = len(_measured(checked)) > known
        if len(calls) == 1 and calls[0] <= MAX_FIRST_SECONDS:
            continue
        if not grew or sum(calls) > MAX_BATCH_SECONDS or len(calls) >= MAX_BATCH_CALLS:
            break
    alone, together = median(checked.seconds[1:] or checked.seconds), min(calls) / size
    checked.seconds_together = together
    _report_batches(checked, size, alone, together)


def _whole_call(checked: CheckedGenerator, size: int, number: int) -> float | None:
    """Return the seconds of a call with as many requests as the generator takes; None if one has no result."""
    known = checked.requests
    batch = [
        known[place % len(known)].model_copy(update={"id": request_id(f"batch {number}-{place}", 0)})
        for place in range(size)
    ]
    result = checked.run("batches", batch)
    if result.errors or len(result.results) < size:
        return None
    checked.note_settings(value for _, value, _ in result.results)
    return result.seconds


def _measured(checked: CheckedGenerator) -> dict[int, float]:
    """Return the seconds per image that the generator records by size of its batches; empty for none."""
    recorded = checked.settings.get("batch_seconds") or {}
    return {int(count): float(seconds) for count, seconds in recorded.items()}


def _report_batches(checked: CheckedGenerator, size: int, alone: float, together: float) -> None:
    """Report seconds per image by size of the batch, and whether batches pay.

    Args:
        checked: The check.
        size: Requests of a call.
        alone: Seconds of an image that is requested alone.
        together: Seconds per image of a whole call.
    """
    measured = _measured(checked)
    if measured:
        best = min(measured, key=lambda count: (measured[count], count))
        gain = measured.get(1, alone) / measured[best]
        table = ", ".join(f"{count}: {duration(measured[count])}" for count in sorted(measured))
        what = f"seconds per image by batch size are {table}"
    else:
        best, gain = size, alone / together
        what = f"{size} at once take {duration(together)} each, one alone {duration(alone)}"
    if together > max(alone * MAX_LOSS, alone + LEAST_LOSS_SECONDS):
        made = int(checked.settings.get("batch") or size)
        if measured:
            what += f"; a run, which requests {size} at once, takes {duration(together)} each"
        fix = "declare a smaller batch_size (diffusers: -g batch=1)" if made > 1 else "find out what is slow there"
        checked.notes.warn("batches", f"{what}; batches cost time here", fix)
    elif best > 1 and gain >= LEAST_GAIN:
        checked.notes.ok("batches", f"{what}; batches of {best} pay ({gain:.1f} times as fast)")
    else:
        checked.notes.ok("batches", f"{what}; batches do not pay here")


def forecast(checked: CheckedGenerator, samples: int) -> None:
    """Report what a run of real length will take, at the image size of the check."""
    handle = checked.handle
    gpus = gpus_for(handle)
    workers = max(1, generator_workers(handle, EngineOptions(gpus=gpus)))
    alone = median(checked.seconds[1:] or checked.seconds)
    each = alone if checked.seconds_together is None else checked.seconds_together
    if handle.capabilities.shape != "generate_batch":
        each = min(each, alone)
    loading, own = checked.load_seconds, handle.capabilities.gpus_per_worker
    where = "in one process" if not gpus else "on one GPU" if own == 1 else f"on {own} GPUs"
    what = f"{samples} images of {checked.images[0].size} take about {duration(loading + each * samples)} {where}"
    if gpus > 1 and workers > 1:
        share = -(-samples // workers)
        what += f", {duration(loading + each * share)} on the {gpus} GPUs of this machine"
    parts = f"loading {duration(loading)}, first image {duration(checked.seconds[0])}, then {duration(each)} each"
    checked.notes.ok("time", f"{what} ({parts})")
    disk = sum(image.stored for image in checked.images) / len(checked.images) * samples / 2**20
    added = f"generation adds up to {checked.added_memory:,.0f} MB"
    checked.notes.ok("memory", f"{added}; {samples} images take {disk:,.0f} MB of disk")
    _check_card(checked)
    _check_machine(checked, workers)
    later = checked.resident_memory[len(checked.requests) :]
    growth = (later[-1] - later[0]) / (len(later) - 1) if len(later) > 1 else 0.0
    if growth > MAX_GROWTH:
        what = f"the process grew by {growth:,.0f} MB with each image"
        checked.notes.warn("memory", what, "keep no images or tensors between requests")


def _check_card(checked: CheckedGenerator) -> None:
    """Report the peak of the accelerator's memory, compared with what the card has."""
    if checked.device.startswith("cpu") or not checked.handle.capabilities.wants_device:
        return
    for device in devices_of(checked.device, checked.handle.capabilities.gpus_per_worker):
        memory = memory_of(device)
        if memory is None:
            checked.notes.ok("GPU memory", f"not known: {device} does not say how much of it is used")
        elif peak := max(memory.peak, int(checked.accelerator_memory * 2**20) if device == checked.device else 0):
            _report_card(checked, memory, peak)


def _report_card(checked: CheckedGenerator, memory: DeviceMemory, peak: int) -> None:
    total, others = memory.total, memory.of_others
    what = f"up to {peak / 2**30:,.1f} of the {total / 2**30:,.1f} GiB of {memory.device} ({peak / total:.0%})"
    if others > NOTED_BYTES:
        what += f", of which other programs have {others / 2**30:,.1f}"
    else:
        others = 0
    if peak > MAX_SHARE * (total - others):
        fix = "leave room for longer prompts: a smaller batch or size, or offload"
        checked.notes.warn("GPU memory", what, fix)
    else:
        checked.notes.ok("GPU memory", what)


def _check_machine(checked: CheckedGenerator, workers: int) -> None:
    """Report the main memory that all worker processes need while they load and generate."""
    total, peak = machine_megabytes(), peak_megabytes()
    if total <= 0:
        return
    what = f"a process takes up to {peak:,.0f} MB of main memory"
    if workers > 1:
        what += f", the {workers} of a run {workers * peak:,.0f} MB"
    what += f" of {total:,.0f} MB"
    if workers * peak > MAX_SHARE * total:
        checked.notes.warn(
            "main memory", what, f"use fewer processes: --workers {max(1, int(MAX_SHARE * total / peak))}"
        )
    else:
        checked.notes.ok("main memory", what)


def machine_megabytes() -> float:
    """Return the main memory of this machine in megabytes, 0 where it is not known."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0.0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


def duration(seconds: float) -> str:
    """Return a duration as text.

    Example:
        >>> [duration(seconds) for seconds in (0.04, 2.5, 720, 12_000, 187_200)]
        ['40 ms', '2.50 s', '12 min', '3 h 20 min', '2 d 4 h']
    """
    if seconds < 0.995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
