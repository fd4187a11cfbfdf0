"""Devices of local models: number formats, product names and failures of a GPU."""

from __future__ import annotations

from knowgen.local_models.memory import is_out_of_memory

_FAULT_MESSAGES = (
    "cuda error", "device-side assert", "illegal memory access", "cublas_status_", "cudnn_status_", "cuda driver error",
    "hip error",
)  # fmt: skip


def auto_dtype(device: str, preferred: str = "bfloat16") -> str:
    """Return the torch name of the number format that `auto` stands for on a device.

    This is float32 on a CPU, and the preferred format on a GPU, with float16 in place of an unsupported bfloat16.

    Args:
        device: Device, as torch names it, such as `cuda:0`.
        preferred: Preferred format on a GPU.

    Example:
        >>> auto_dtype("cpu")
        'float32'
    """
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "float16" if preferred == "bfloat16" and not torch.cuda.is_bf16_supported() else preferred


def device_name(device: str) -> str:
    """Return the product name of a GPU, empty for a CPU."""
    if not device.startswith("cuda"):
        return ""
    import torch

    return str(torch.cuda.get_device_name(device))


def is_gpu_fault(error: BaseException) -> bool:
    """Return whether an error is a failure of the GPU other than running out of memory."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(message in str(error).lower() for message in _FAULT_MESSAGES)
