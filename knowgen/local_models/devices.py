"""Devices of local models: number formats, names and faults of a GPU."""

from __future__ import annotations

from knowgen.local_models.memory import is_out_of_memory

_FAULT_WORDS = (
    "cuda error", "device-side assert", "illegal memory access", "cublas_status_", "cudnn_status_", "cuda driver error",
    "hip error",
)  # fmt: skip


def auto_dtype(device: str, preferred: str = "bfloat16") -> str:
    """Return the number format that `auto` stands for on a device, as torch names it.

    It is float32 on a processor. On a GPU it is the preferred one, but float16 where the GPU has no bfloat16.
    """
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "float16" if preferred == "bfloat16" and not torch.cuda.is_bf16_supported() else preferred


def device_name(device: str) -> str:
    """Return the product name of a GPU, empty for a processor."""
    if not device.startswith("cuda"):
        return ""
    import torch

    return str(torch.cuda.get_device_name(device))


def is_gpu_fault(error: BaseException) -> bool:
    """Whether the GPU failed under a call, for another reason than memory."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(words in str(error).lower() for words in _FAULT_WORDS)
