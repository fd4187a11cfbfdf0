"""What a run of real length takes: device, whether batches pay, time on all GPUs, memory of card and machine."""

from __future__ import annotations

import os
from statistics import median

from knowgen.core.records import request_id
from knowgen.engine.options import EngineOptions
from knowgen.engine.placement import generator_workers, gpus_for
from knowgen.local_models.device_memory import memory_of
from knowgen.local_models.devices import device_name
from knowgen.validation.checked_generator import CheckedGenerator
from knowgen.validation.probe import peak_megabytes

MAX_GROWTH = 20.0
"""Megabytes per image by which the process may grow before a leak is reported."""

MAX_SHARE = 0.9
"""Share of the memory of a card, or of the machine, above which a run may fail."""

LEAST_GAIN = 1.03
"""Ratio of the time of an image alone to that in a batch from which on batches are said to pay."""


def check_device(checked: CheckedGenerator) -> None:
    """Report where images are generated, as the generator records it, else as it was asked to."""
    if not checked.handle.capabilities.wants_device:
        return
    recorded = checked.settings
    device = str(recorded.get("device") or checked.device)
    name = str(recorded.get("device_name") or device_name(device))
    words = [f"{device} ({name})" if name else device]
    if recorded.get("dtype"):
        words.append(str(recorded["dtype"]))
    if device.startswith("cpu"):
        words.append("no GPU is used")
    checked.notes.ok("device", ", ".join(words))


def check_batches(checked: CheckedGenerator) -> None:
    """Give as many requests at once as the generator takes, and report whether batches save time."""
    size = checked.handle.capabilities.batch_size
    known = checked.requests
    batch = [
        known[number % len(known)].model_copy(update={"id": request_id(f"batch {number}", 0)}) for number in range(size)
    ]
    result = checked.run("batches", batch)
    if result.errors or len(result.results) < size:
        return  # what is wrong with several requests at once has been reported
    checked.note_settings(value for _, value, _ in result.results)
    alone, together = median(checked.seconds[1:] or checked.seconds), result.seconds / size
    measured = {int(count): float(seconds) for count, seconds in checked.settings.get("batch_seconds", {}).items()}
    if measured:
        best = min(measured, key=lambda count: (measured[count], count))
        alone, together = measured.get(1, alone), measured[best]
        table = ", ".join(f"{count}: {duration(measured[count])}" for count in sorted(measured))
        what = f"seconds per image by batch size are {table}"
    else:
        best, what = size, f"{size} at once take {duration(together)} each, one alone {duration(alone)}"
    checked.seconds_together = together if checked.seconds_together is None else min(checked.seconds_together, together)
    gain = alone / together
    if best > 1 and gain >= LEAST_GAIN:
        checked.notes.ok("batches", f"{what}; batches of {best} pay ({gain:.1f} times as fast)")
    else:
        checked.notes.ok("batches", f"{what}; batches do not pay here")


def forecast(checked: CheckedGenerator, samples: int) -> None:
    """Report what a run of real length will take, at the image size of the check."""
    handle = checked.handle
    gpus = gpus_for(handle)
    workers = max(1, generator_workers(handle, EngineOptions(gpus=gpus)))
    alone = median(checked.seconds[1:] or checked.seconds)
    each = alone if checked.seconds_together is None else min(alone, checked.seconds_together)
    size = checked.images[0].size
    where = "on one GPU" if gpus else "in one process"
    what = f"{samples} images of {size} take about {duration(each * samples)} {where}"
    if gpus > 1 and workers > 1:
        share = -(-samples // workers)
        what += f", {duration(each * share + checked.load_seconds)} on the {gpus} GPUs of this machine"
    checked.notes.ok("time", f"{what} (first {duration(checked.seconds[0])}, then {duration(each)} each)")
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
    memory = memory_of(checked.device)
    if memory is None or not checked.accelerator_memory:
        return
    peak, total = checked.accelerator_memory / 2**10, memory.total / 2**30
    what = f"up to {peak:,.1f} of the {total:,.1f} GiB of {checked.device} ({peak / total:.0%})"
    if peak > MAX_SHARE * total:
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
