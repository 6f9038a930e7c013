"""How and on what a result was measured, to be written beside it."""

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bsdnet.version import __version__

PACKAGES = ("torch", "torch-tensorrt", "triton", "numpy", "opencv-python-headless", "av")
"""Packages whose versions make a difference to speed."""


def describe_measurement(program: str) -> dict[str, Any]:
    """Tell how, when and where this process measures: `command`, `date` and `machine`.

    Args:
        program: name of the command; its arguments are those of the process, without the folders of files.
    """
    arguments = (re.sub(r"[^\s=]*/", "", argument) for argument in sys.argv[1:])  # where files lie is nobody's business
    return {
        "command": " ".join([program, *map(shlex.quote, arguments)]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
    }


def describe_machine() -> dict[str, str | int]:
    """Name processor, cores, GPUs, Python and the packages that matter, as far as they are installed."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "gpu": ", ".join(gpus) or "none",
        **({"cuda": str(torch.version.cuda)} if gpus else {}),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "bsdnet": _revision(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    fast = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    return f"{found.get('model name', platform.machine())} ({', '.join(fast) or 'no AVX-512'})"


def _revision() -> str:
    """Name the commit that this file is of, with a plus where its repository differs; installed, the version."""
    folder = Path(__file__).parent
    commands = (
        ["git", "ls-files", "--error-unmatch", __file__],  # an environment may lie in a repository of something else
        ["git", "rev-parse", "--short", "HEAD"],
        ["git", "status", "--porcelain", "--untracked-files=no"],
    )
    try:
        _, revision, changes = (
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return __version__  # what runs from a folder is not installed
    return revision + ("+" if changes else "")
