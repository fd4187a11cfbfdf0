"""Decode the images of a batch one by one where decoding them together takes more memory than is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from knowgen.local_models.device_memory import DeviceMemory
from knowgen.local_models.memory import run_if_fits


class BatchDecoder:
    """Stands for `decode` of a pipeline's VAE.

    What an image takes is measured when one is decoded. A batch that would take more than is free, or that runs out of
    memory, is decoded one by one (`enable_slicing`), so that its denoising is not lost.

    Args:
        vae: The VAE.
        memory: Memory of its device; None where it is not known.

    Attributes:
        sliced: Whether the last batch was decoded one by one because of its memory.
    """

    def __init__(self, vae: Any, memory: DeviceMemory | None) -> None:
        self._vae, self._memory = vae, memory
        self._decode = vae.decode
        self._bytes_each: dict[tuple[int, ...], float] = {}
        self.sliced = False

    def __call__(self, latents: Any, *args: Any, **kwargs: Any) -> Any:
        """Decode latents of shape (images, ...), as the VAE's own method does."""

        def decode() -> Any:
            return self._decode(latents, *args, **kwargs)

        self.sliced = False
        count, shape = int(latents.shape[0]), tuple(latents.shape[1:])
        if count == 1 or self._vae.use_slicing:
            return self._measured(decode, shape, 1)
        if not self._is_too_large(count, shape):
            decoded = run_if_fits(lambda: self._measured(decode, shape, count))
            if decoded is not None:
                return decoded
        self.sliced = True
        with _slicing(self._vae):
            return self._measured(decode, shape, 1)

    def _is_too_large(self, count: int, shape: tuple[int, ...]) -> bool:
        each = self._bytes_each.get(shape)
        return self._memory is not None and each is not None and count * each > self._memory.free

    def _measured(self, decode: Any, shape: tuple[int, ...], at_once: int) -> Any:
        if self._memory is None:
            return decode()
        decoded, added = self._memory.added_by(decode)
        self._bytes_each[shape] = max(added / at_once, self._bytes_each.get(shape, 0.0))
        return decoded


@contextmanager
def _slicing(vae: Any) -> Iterator[None]:
    vae.enable_slicing()
    try:
        yield
    finally:
        vae.disable_slicing()


def watch_decoding(pipe: Any, memory: DeviceMemory | None) -> BatchDecoder | None:
    """Have a pipeline decode its batches in the memory that is free; None where its VAE has no slicing."""
    vae = getattr(pipe, "vae", None)
    if not callable(getattr(vae, "enable_slicing", None)) or not isinstance(getattr(vae, "use_slicing", None), bool):
        return None
    known = vars(vae).get("decode")
    if isinstance(known, BatchDecoder):
        return known
    decoder = vae.decode = BatchDecoder(vae, memory)  # type: ignore[union-attr]
    return decoder
