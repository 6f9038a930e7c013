"""The state of a run on disk, for an exact resume after a kill at any moment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from bsdnet.errors import TrainingError, first_line

FILE_NAME = "state.pt"
"""Name of the file in a run's folder."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    iteration: int = 0
    """Steps done."""
    best_score: float = -1.0
    """Best evaluation so far, 0 to 1; -1 before the first."""
    evaluated_at: int = 0
    """Steps that were done when the network was last evaluated."""


class Stateful(Protocol):
    """A part of a run that can be written down: a network, an optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Give all that the part consists of."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Take it back."""
        ...


def save_state(
    folder: Path, parts: Mapping[str, Stateful | None], description: Mapping[str, object], progress: Progress
) -> None:
    """Write the state; the old one stays until the new one is whole on disk.

    Args:
        folder: the run's folder.
        parts: what the run consists of, by name; None for parts that it has not.
        description: what decides the result, as plain values.
        progress: how far the run has come.

    Raises:
        TrainingError: the folder cannot be written.
    """
    content = {
        "parts": {name: part.state_dict() for name, part in parts.items() if part is not None},
        "description": dict(description),
        "iteration": progress.iteration,
        "best_score": progress.best_score,
        "evaluated_at": progress.evaluated_at,
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
        system = error if isinstance(error, OSError) else error.__context__  # which PyTorch's own words hide
        reason = getattr(system, "strerror", None) or first_line(error)
        raise TrainingError(f"the run's state cannot be written to {folder}: {reason}") from error


def load_state(folder: Path, parts: Mapping[str, Stateful | None], description: Mapping[str, object]) -> Progress:
    """Bring every part of a run back to where it was.

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
        raise TrainingError(f"{path} cannot be resumed from: it is damaged, or no state of a run") from error
    try:
        stored = content["description"]
        for name, value in description.items():
            if stored.get(name) != value:
                raise TrainingError(f"{path} was made with {name} = {stored.get(name)!r}, this run has {value!r}")
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(content["parts"][name])
        return Progress(
            iteration=content["iteration"],
            best_score=content["best_score"],
            evaluated_at=content["evaluated_at"],
        )
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(f"{path} is the state of another run: {reason}") from error
