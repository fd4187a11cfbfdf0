"""SIGINT and SIGTERM in a training: the step in work is finished, or dropped while it samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InterruptSwitch:
    """Remembers that the training is to stop, and ends a wait for rollouts.

    It is called by a signal handler in the main thread. While gradients are computed it only remembers, so that
    weights and optimizer stay those of a whole step.

    Attributes:
        requested: Whether the training is to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._sampling = False

    def __call__(self) -> None:
        """Ask the training to stop.

        Raises:
            KeyboardInterrupt: It is in rollouts, which can be dropped.
        """
        self.requested = True
        if self._sampling:
            raise KeyboardInterrupt

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Allow that the block is ended by a signal.

        Raises:
            KeyboardInterrupt: A stop is requested.
        """
        self._sampling = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._sampling = False
