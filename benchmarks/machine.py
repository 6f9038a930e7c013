"""What a result was measured on, to be written beside it."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path


def describe_machine() -> dict[str, str | int]:
    """Name processor, cores, Python and the packages that matter."""
    import torch

    versions = {name: metadata.version(name) for name in ("torch", "numpy", "opencv-python-headless", "av")}
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": ", ".join(gpus) or "none",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "bsdnet": _revision(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    fast = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    return f"{found.get('model name', platform.machine())} ({', '.join(fast) or 'no AVX-512'})"


def _revision() -> str:
    """Name the commit, with a plus where the working tree differs from it."""
    here = Path(__file__).parent
    commands = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    revision, changes = (
        subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        for command in commands
    )
    return (revision or metadata.version("bsdnet")) + ("+" if changes else "")
