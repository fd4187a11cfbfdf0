"""Compile a denoiser with torch.compile: few shapes, compiled before the first image, and never silently undone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.text import duration_text, error_summary
from knowgen.local_models.memory import is_out_of_memory

R = TypeVar("R")

_log = logging.getLogger("knowgen.generators")

MAX_GRAPHS = 24
"""Graphs of one function after which compiling is given up. torch gives up at 8 and then computes without a word."""

_ARGUMENTS = ("backend", "mode", "dynamic", "fullgraph", "options")


def parse_compile(value: bool | str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the compilation as {scope, arguments of torch.compile …}; empty for none.

    Raises:
        UsageError: The value is unknown.

    Example:
        >>> parse_compile(True, "generator"), parse_compile("regional", "generator"), parse_compile(False, "generator")
        ({'scope': 'whole'}, {'scope': 'regional'}, {})
    """
    if not value:
        return {}
    requested = dict(value) if isinstance(value, Mapping) else {"scope": "whole" if value is True else str(value)}
    requested.setdefault("scope", "whole")
    unknown = set(requested) - {"scope", *_ARGUMENTS}
    if unknown or requested["scope"] not in ("whole", "regional"):
        what = f"compile={value!r} is unknown"
        fix = f"give true, false, regional, or {{scope: regional, {', '.join(_ARGUMENTS)}}}"
        raise UsageError(what, where=where, fix=fix)
    return requested


class Compilation:
    """A compiled denoiser.

    The size of a batch is one that was compiled already wherever possible: `batch_for` says to which size a smaller
    batch is filled up.

    Args:
        denoiser: A transformer or U-Net.
        requested: What `parse_compile` returns.
        where: Names the generator in messages and errors.

    Attributes:
        given_up: Why the denoiser runs without being compiled; empty while it is compiled.

    Raises:
        ConfigError: The class cannot be compiled in this way.
    """

    def __init__(self, denoiser: Any, requested: Mapping[str, Any], where: str) -> None:
        self._denoiser, self._where, self._requested = denoiser, where, dict(requested)
        self.given_up = ""
        self._sizes: dict[Hashable, set[int]] = {}
        self._started, self._breaks = _graphs(), _graph_breaks()
        arguments = {name: value for name, value in requested.items() if name != "scope"}
        if requested["scope"] == "whole":
            denoiser.compile(**arguments)
            return
        try:
            denoiser.compile_repeated_blocks(**arguments)
        except (ValueError, AttributeError) as error:
            what = f"{type(denoiser).__name__} names no repeated blocks, so that it cannot be compiled by region"
            raise ConfigError(what, where=where, fix="give compile=true") from error

    @property
    def graphs(self) -> int:
        """Number of graphs that have been compiled since."""
        return _graphs() - self._started

    def recorded(self) -> dict[str, Any]:
        """Return what is recorded with each image. The number of graphs is a measurement."""
        if self.given_up:
            return {"compile": {**self._requested, "given_up": self.given_up}, "compiled_graphs": self.graphs}
        return {
            "compile": dict(self._requested),
            "compiled_graphs": self.graphs,
            **({"graph_breaks": breaks} if (breaks := _graph_breaks() - self._breaks) else {}),
        }

    def batch_for(self, shape: Hashable, count: int) -> int:
        """Return the size to which a batch is filled up: the smallest one that has run and is large enough.

        Args:
            shape: Shape of the batch apart from its size.
            count: Number of its images.
        """
        if self.given_up:
            return count
        return min((size for size in self._sizes.get(shape, ()) if size >= count), default=count)

    def knows(self, shape: Hashable, count: int) -> bool:
        """Return whether nothing has to be compiled for a batch, as far as its shape and size say it."""
        return bool(self.given_up) or any(size >= count for size in self._sizes.get(shape, ()))

    def run(self, shape: Hashable, count: int, call: Callable[[], R]) -> R:
        """Return the result of a call of the pipeline. Where too many graphs are needed, give compiling up and say so.

        Args:
            shape: Shape of the batch apart from its size.
            count: Number of images of the batch.
            call: Calls the pipeline.
        """
        from torch._dynamo.exc import FailOnRecompileLimitHit

        if self.given_up:
            return call()
        try:
            with _limited():
                result = call()
        except FailOnRecompileLimitHit:
            self._give_up()
            return call()
        except Exception as error:
            if is_out_of_memory(error):
                self._sizes.get(shape, set()).discard(count)
            raise
        self._sizes.setdefault(shape, set()).add(count)
        return result

    def warm_up(self, calls: Callable[[], object], count: int) -> None:
        """Compile for a size of batches before its first image, and say so.

        Args:
            calls: Calls the pipeline with a few steps.
            count: Number of images of the batch.

        Raises:
            ConfigError: The compiler fails.
        """
        from torch._dynamo.exc import TorchDynamoException

        _log.warning("%s: the model is compiled for batches of %d, which takes a while", self._where, count)
        start, before = time.perf_counter(), self.graphs
        try:
            calls()
        except Exception as error:
            if is_out_of_memory(error) or not isinstance(error, TorchDynamoException):
                raise
            what = f"the model cannot be compiled: {error_summary(error, 300)}"
            raise ConfigError(what, where=self._where, fix="leave out compile") from error
        seconds = duration_text(time.perf_counter() - start)
        _log.warning("%s: compiled in %s (%d graphs)", self._where, seconds, self.graphs - before)

    def _give_up(self) -> None:
        self.given_up = f"more than {MAX_GRAPHS} graphs were needed"
        for module in self._denoiser.modules():
            module._compiled_call_impl = None
        _log.warning(
            "%s: %s for its shapes; the model goes on without being compiled. Give compile=regional, one size and a "
            "fixed batch",
            self._where, self.given_up,
        )  # fmt: skip


@contextmanager
def _limited() -> Iterator[None]:
    """Have torch raise an error instead of computing without its compiler where a function needs too many graphs."""
    from torch._dynamo import config

    with config.patch(recompile_limit=MAX_GRAPHS, fail_on_recompile_limit_hit=True):
        yield


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _graph_breaks() -> int:
    from torch._dynamo.utils import counters

    return int(sum(counters["graph_break"].values()))
