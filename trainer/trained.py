"""Trained weights, opened to look at pictures: a student, a teacher, or several as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, load_checkpoint
from bsdnet.classes import ADE20K_150, CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import CheckpointError, ConfigError
from trainer.device import place
from trainer.teacher import load_teacher, teacher_classes

_PUBLISHED = (CAMVID_11, CITYSCAPES_19, ADE20K_150)
_ADVICE = "expected a .safetensors file of a student, or the folder of a teacher"

_MISMATCH = "pass weights that were all trained on the same classes, those of the data set where there is one"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What weights say of pictures."""

    network: Callable[[Tensor], Tensor]
    """Maps normalised pictures `(B, 3, H, W)` to logits `(B, num_classes, h, w)` of any stride."""
    classes: ClassSet
    """What the logits mean."""
    mean: tuple[float, float, float]
    """Of the RGB that the network was trained with, scaled to 0..1."""
    std: tuple[float, float, float]
    """Likewise."""
    short_side: int | None
    """Shorter side in pixels of the pictures that it was trained on; None where nobody has noted it."""


def open_trained(weights: Sequence[Path], device: torch.device, classes: ClassSet | None = None) -> Trained:
    """Open weights; of several, the probabilities are averaged.

    Args:
        weights: files of students and folders of teachers, at least one, all of the same classes; each sees the
            pictures at one size, which is that of the first that says one.
        device: where to compute.
        classes: what they tell apart, where the file of a lone student does not say it itself; None takes those of the
            first student, or else a published set with the names of the first teacher's classes.

    Raises:
        CheckpointError: weights are missing, or a student's cannot be read.
        TrainingError: a teacher cannot be loaded.
        ConfigError: they tell different classes apart, or nobody says which colours theirs have.
    """
    for path in weights:
        if not path.exists():  # else it would be looked for on Hugging Face
            raise CheckpointError(f"the file or folder of weights {path} does not exist; {_ADVICE}")
    if len(weights) == 1 and not weights[0].is_dir():
        checkpoint = load_checkpoint(weights[0])
        metadata = checkpoint.metadata
        return Trained(
            network=place(checkpoint.model.eval(), device),
            classes=metadata.class_set,
            mean=metadata.mean,
            std=metadata.std,
            short_side=min(metadata.train_size),
        )
    classes = classes or _classes_of(weights)
    teacher = load_teacher([str(path) for path in weights], classes, device, advice=_ADVICE, mismatch=_MISMATCH)
    return Trained(
        network=lambda images: teacher(images).logits,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        short_side=min(teacher.train_size) if teacher.train_size else None,
    )


def _classes_of(weights: Sequence[Path]) -> ClassSet:
    """Find what weights tell apart: students say it with the colours, teachers by name alone."""
    student = next((path for path in weights if not path.is_dir()), None)
    if student is not None:
        return load_checkpoint(student).metadata.class_set
    names = teacher_classes(weights[0])
    for known in _PUBLISHED:
        if sorted(name.lower() for name in known.names) == sorted(name.lower() for name in names):
            return known
    raise ConfigError(
        f"{weights[0]} tells {len(names)} classes apart whose colours nobody says: put a student of the same classes "
        "beside it"
    )
