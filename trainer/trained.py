"""Trained weights, opened to look at pictures: a student, a teacher, anybody's network, or several as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, load_checkpoint, sha256_of
from bsdnet.classes import ADE20K_150, CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import CheckpointError, ConfigError
from bsdnet.foreign import factory_of, file_of, load_module, names_factory
from trainer.device import place
from trainer.teacher import average_probabilities, load_teacher, teacher_classes

_PUBLISHED = (CAMVID_11, CITYSCAPES_19, ADE20K_150)
_ADVICE = "expected a .safetensors file of a student, the folder of a teacher, or FILE.py:FACTORY"

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
        weights: files of students, folders of teachers, and `FILE.py:FACTORY` of anybody's networks, at least one, all
            of the same classes; each sees the pictures at one size, which is that of the first that says one.
        device: where to compute.
        classes: what they tell apart, where the file of a lone student does not say it itself; None takes those of the
            first student, or else a published set with the names of the first teacher's classes.

    Raises:
        CheckpointError: weights are missing, or a student's cannot be read.
        TrainingError: a teacher cannot be loaded.
        ConfigError: anybody's network cannot be loaded, they tell different classes apart, or nobody says which colours
            theirs have.
    """
    for path in weights:
        if not _is_foreign(path) and not path.exists():  # else it would be looked for on Hugging Face
            raise CheckpointError(f"the file or folder of weights {path} does not exist; {_ADVICE}")
    if len(weights) == 1 and not weights[0].is_dir() and not _is_foreign(weights[0]):
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
    opened = [_open_one(path, classes, device) for path in weights]
    networks = [network for network, _ in opened]

    def look(images: Tensor) -> Tensor:
        logits = [network(images) for network in networks]
        return average_probabilities(logits) if len(logits) > 1 else logits[0]

    return Trained(
        network=look,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        short_side=next((short_side for _, short_side in opened if short_side), None),
    )


def digest_of(weights: Path) -> str:
    """Give the SHA-256 of a file or a folder of weights, to know them again.

    Of anybody's network it is that of its file, with the name of its factory behind a colon.

    Raises:
        CheckpointError: it cannot be read.
    """
    if _is_foreign(weights):
        return f"{sha256_of(file_of(str(weights)))}:{factory_of(str(weights))}"
    return sha256_of(weights / "model.safetensors" if weights.is_dir() else weights)


def _is_foreign(weights: Path) -> bool:
    return names_factory(str(weights))


def _open_one(path: Path, classes: ClassSet, device: torch.device) -> tuple[Callable[[Tensor], Tensor], int | None]:
    """Open what says what of `classes`, and the short side that it was trained at, if that is known."""
    if _is_foreign(path):
        return _checked(place(load_module(str(path)), device), path, classes), None
    teacher = load_teacher([str(path)], classes, device, advice=_ADVICE, mismatch=_MISMATCH)
    return lambda images: teacher(images).logits, min(teacher.train_size) if teacher.train_size else None


def _checked(network: Callable[[Tensor], Tensor], path: Path, classes: ClassSet) -> Callable[[Tensor], Tensor]:
    """Refuse what gives no logits of the classes."""

    def look(images: Tensor) -> Tensor:
        try:
            logits = network(images)
        except Exception as error:  # it may do anything with its input
            raise ConfigError(f"{path} failed: {type(error).__name__}: {error}") from error
        count, number = len(images), len(classes)
        if not isinstance(logits, Tensor) or logits.dim() != 4 or logits.shape[:2] != (count, number):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(
                f"{path} gave {found}, expected logits ({count}, {number}, h, w) of the classes of {classes.name}"
            )
        return logits

    return look


def _classes_of(weights: Sequence[Path]) -> ClassSet:
    """Find what weights tell apart: students say it with the colours, teachers by name alone, others not at all."""
    ours = [path for path in weights if not _is_foreign(path)]
    student = next((path for path in ours if not path.is_dir()), None)
    if student is not None:
        return load_checkpoint(student).metadata.class_set
    if not ours:
        raise ConfigError(
            f"{weights[0]} does not say which classes it tells apart: put a student of the same beside it"
        )
    names = teacher_classes(ours[0])
    for known in _PUBLISHED:
        if sorted(name.lower() for name in known.names) == sorted(name.lower() for name in names):
            return known
    raise ConfigError(
        f"{ours[0]} tells {len(names)} classes apart whose colours nobody says: put a student of the same classes "
        "beside it"
    )
