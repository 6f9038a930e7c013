"""Where to compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bsdnet.errors import BackendError, ConfigError


def select_device(name: str | torch.device) -> torch.device:
    """Find a device.

    Args:
        name: `auto` for the first CUDA device or else the CPU; `cpu`; `cuda`; or one of several, such as `cuda:1`. A
            device of PyTorch's is taken by its name.

    Raises:
        ConfigError: no such name.
        BackendError: this machine, or this build of PyTorch, has no such device.
    """
    name = str(name)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    kind, _, number = "cuda:0".partition(":") if name in ("auto", "cuda") else name.partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number) >= found:
        raise BackendError(
            f"device {name!r} was asked for, but PyTorch {torch.__version__} sees {found} CUDA devices here; "
            "use device 'cpu', or install a driver and a CUDA build of PyTorch"
        )
    return torch.device("cuda", int(number))


def computes_bf16(device: torch.device) -> bool:
    """Tell whether a device computes in bf16 itself: where it must be imitated, fp32 is many times faster."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):  # it came early in 2026; fp32 is right everywhere, only slower
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def cudnn_search(enabled: bool) -> Iterator[None]:
    """Let cuDNN try its algorithms for each convolution of a new shape and keep the best, or forbid it.

    The flag is the process's. `cudnn.flags` would also allow TF32 where the user has forbidden it.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
