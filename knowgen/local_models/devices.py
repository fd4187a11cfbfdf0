"""Devices of local models: number formats, product names and failures of a GPU."""

from __future__ import annotations

from knowgen.local_models.memory import is_out_of_memory

_FAULT_MESSAGES = (
    "cuda error", "device-side assert", "illegal memory access", "cublas_status_", "cudnn_status_", "cuda driver error",
    "hip error", "ur_result_error_device_lost", "level_zero backend failed", "mps backend failed",
)  # fmt: skip


def auto_dtype(device: str, preferred: str = "bfloat16") -> str:
    """Return the torch name of the number format that `auto` stands for on a device.

    This is float32 on a CPU, and the preferred format on an accelerator, with float16 in place of a bfloat16 that its
    hardware does not support: emulation is slow.

    Args:
        device: Device, as torch names it, such as `cuda:0`.
        preferred: Preferred format on an accelerator.

    Example:
        >>> auto_dtype("cpu")
        'float32'
    """
    if device.startswith("cpu"):
        return "float32"
    return "float16" if preferred == "bfloat16" and not _has_bfloat16(device) else preferred


def _has_bfloat16(device: str) -> bool:
    """Return whether the hardware of an accelerator computes in bfloat16."""
    import torch

    if device.startswith("cuda"):  # AMD GPUs have this name too
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.startswith("mps"):
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    if device.startswith("xpu"):
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    return True


def device_name(device: str) -> str:
    """Return the product name of a GPU, empty for a CPU and where torch does not know it."""
    import torch

    if device.startswith(("cuda", "xpu")):
        return str((torch.xpu if device.startswith("xpu") else torch.cuda).get_device_name(device))
    return str(torch.backends.mps.get_name()) if device.startswith("mps") else ""


def devices_of(device: str, number: int) -> list[str]:
    """Return the devices of a model on several GPUs, of which the first is given.

    Example:
        >>> devices_of("cuda:0", 2), devices_of("mps", 1)
        (['cuda:0', 'cuda:1'], ['mps'])
    """
    kind, _, first = device.partition(":")
    return [device] if number == 1 else [f"{kind}:{int(first or 0) + each}" for each in range(number)]


def platform_name(device: str) -> str:
    """Return the software of an accelerator with its version, such as `CUDA 13.0`, `ROCm 7.0`, `XPU` or `MPS`.

    Example:
        >>> platform_name("cpu")
        ''
    """
    import torch

    kind = device.partition(":")[0]
    if kind == "cuda":
        version = torch.version.hip or torch.version.cuda or ""
        return f"{'ROCm' if torch.version.hip else 'CUDA'} {version}".strip()
    return kind.upper() if kind in ("xpu", "mps") else ""


def is_gpu_fault(error: BaseException) -> bool:
    """Return whether an error is a failure of the GPU other than running out of memory."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(message in str(error).lower() for message in _FAULT_MESSAGES)
