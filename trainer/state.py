"""The state of a run on disk, for an exact resume after a kill at any moment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bsdnet.errors import TrainingError

FILE_NAME = "state.pt"
"""Name of the file in a run's folder."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    iteration: int = 0
    """Steps done."""
    best_score: float = -1.0
    """Best evaluation so far, 0 to 1; -1 before the first."""


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    description: dict[str, object],
    progress: Progress,
) -> None:
    """Write the state; the old one stays until the new one is whole on disk.

    Raises:
        TrainingError: the folder cannot be written.
    """
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "description": description,
        "iteration": progress.iteration,
        "best_score": progress.best_score,
        "torch_rng": torch.get_rng_state(),
    }
    partial = folder / f"{FILE_NAME}.part"
    try:
        with partial.open("wb") as handle:
            torch.save(content, handle)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(folder / FILE_NAME)
    except (OSError, RuntimeError) as error:  # RuntimeError: PyTorch's own, where the disk fills up in mid-file
        if partial.is_file():
            partial.unlink()
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise TrainingError(f"the run's state cannot be written to {folder}: {reason}") from error


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    description: dict[str, object],
) -> Progress:
    """Bring model, optimizer and random numbers back to where the run was.

    Raises:
        TrainingError: there is no state, it cannot be read, or it belongs to a run with another recipe or other data;
            the message names the first field that differs.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise TrainingError(f"nothing to resume: {path} does not exist")
    try:
        # weights_only: tensors and plain values, so that a foreign file cannot run code.
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader fail in any way
        raise TrainingError(f"{path} cannot be resumed from, it is damaged: {error}") from error
    try:
        stored = content["description"]
        for name, value in description.items():
            if stored.get(name) != value:
                raise TrainingError(f"{path} was made with {name} = {stored.get(name)!r}, this run has {value!r}")
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["torch_rng"])
        return Progress(iteration=content["iteration"], best_score=content["best_score"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{path} is the state of another run: {error}") from error
