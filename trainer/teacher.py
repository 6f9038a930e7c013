"""Teachers: from pictures to features and logits, behind one protocol."""

import logging
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, load_checkpoint
from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError, TrainingError
from bsdnet.modeling.bsdnet import BSDNet
from bsdnet.modeling.folding import fold_batch_norms
from trainer.device import place
from trainer.efficientnet import EfficientNetSegmenter, holds_efficientnet, load_efficientnet
from trainer.segformer import load_pretrained, train_size_in

logger = logging.getLogger(__name__)

ADVICE = (
    "bring a teacher with --teacher FOLDER (from 'bsdnet-train teacher') or --teacher NAME (of Hugging Face, such as "
    "nvidia/segformer-b2-finetuned-cityscapes-1024-1024), or pass --distill none to learn from the labels alone"
)

MISMATCH = "say with --teacher-classes which of its classes make one of ours"
"""What to do about a teacher of other classes."""


class TeacherChannels(NamedTuple):
    """Channels of a teacher's maps."""

    stage3: int
    stage4: int
    decoder: int


class TeacherOutput(NamedTuple):
    """What a student learns from; no gradient leads back."""

    stage3: Tensor
    """`(B, channels.stage3, H/16, W/16)`."""
    stage4: Tensor
    """`(B, channels.stage4, H/32, W/32)`."""
    decoder: Tensor
    """`(B, channels.decoder, H/4, W/4)`, or at stride 8: the fused feature before the classifier."""
    logits: Tensor
    """`(B, classes, H/4, W/4)`, or at stride 8, in the order of the student's classes."""


class Teacher(Protocol):
    """A network that is better than the student, in evaluation mode, and never learns."""

    @property
    def channels(self) -> TeacherChannels:
        """Channels of its maps."""
        ...

    @property
    def train_size(self) -> tuple[int, int] | None:
        """Height and width of the pictures that it was trained on; None where nobody has noted it."""
        ...

    def __call__(self, images: Tensor) -> TeacherOutput:
        """Look at pictures `(B, 3, H, W)`, RGB normalised with ImageNet's mean and deviation."""
        ...


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps `(B, C, H, W)` to another height and width, bilinear with align_corners=False."""
    if maps.shape[2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)


class SegFormerTeacher:
    """A SegFormer that teaches.

    No part of it is a submodule of what learns: neither optimizer nor state know of it.

    Args:
        network: a `SegformerForSemanticSegmentation` of transformers.
        sources: for each of the student's classes, the teacher's classes that make it up.
        device: where it computes.
    """

    def __init__(self, network: Any, sources: Sequence[Sequence[int]], device: torch.device) -> None:  # noqa: ANN401
        config = network.config
        _, _, stage3, stage4 = config.hidden_sizes
        self.channels = TeacherChannels(stage3, stage4, config.decoder_hidden_size)
        self.train_size = train_size_in(config)
        self._network = network.to(device).eval().requires_grad_(False)
        self._sources = [torch.tensor(indices, device=device) for indices in sources]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        """Look at pictures; see `Teacher`."""
        seen: list[Tensor] = []
        hook = self._network.decode_head.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            output = self._network(pixel_values=images, output_hidden_states=True)
        finally:
            hook.remove()
        stage3, stage4 = output.hidden_states[2:4]
        return TeacherOutput(stage3, stage4, seen[0], _in_student_classes(output.logits, self._sources))


class BSDNetTeacher:
    """A trained BSDNet that teaches: a larger one, or several of other seeds as an ensemble.

    Args:
        network: a trained BSDNet; it is left as it is.
        sources: for each of the student's classes, the teacher's classes that make it up.
        device: where it computes.
        train_size: height and width of the pictures that it was trained on; None if that is not known.
    """

    def __init__(
        self,
        network: BSDNet,
        sources: Sequence[Sequence[int]],
        device: torch.device,
        train_size: tuple[int, int] | None = None,
    ) -> None:
        config = network.config
        self.train_size = train_size
        self.channels = TeacherChannels(config.channels[2], config.channels[3], config.decoder_channels)
        self._network = place(fold_batch_norms(network), device)
        self._sources = [torch.tensor(indices, device=device) for indices in sources]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        """Look at pictures; see `Teacher`."""
        logits, stage3, stage4, decoder = self._network.forward_all(images)
        return TeacherOutput(stage3, stage4, decoder, _in_student_classes(logits, self._sources))


class EfficientNetTeacher:
    """An EfficientNet from `bsdnet-train teacher` that teaches: its features brought to one scale, at stride 8 at most.

    Args:
        network: a trained one.
        sources: for each of the student's classes, the teacher's classes that make it up.
        device: where it computes.
    """

    def __init__(self, network: EfficientNetSegmenter, sources: Sequence[Sequence[int]], device: torch.device) -> None:
        *_, stage3, stage4 = network.encoder.channels
        self.channels = TeacherChannels(stage3, stage4, network.decoder_channels)
        self.train_size: tuple[int, int] | None = network.train_size
        self._network = place(fold_batch_norms(network), device)
        self._sources = [torch.tensor(indices, device=device) for indices in sources]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        """Look at pictures; see `Teacher`."""
        stage3, stage4, decoder, logits = self._network.forward_all(images)
        # At the student's stride the channels' distributions take a quarter of the time.
        decoder = F.avg_pool2d(decoder, 2, ceil_mode=True)
        stage3, stage4, decoder = (_of_unit_deviation(maps) for maps in (stage3, stage4, decoder))
        return TeacherOutput(stage3, stage4, decoder, _in_student_classes(logits, self._sources))


class EnsembleTeacher:
    """Several teachers as one: features side by side, probabilities averaged.

    Args:
        teachers: at least one.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self._teachers = list(teachers)
        self.train_size = next((teacher.train_size for teacher in teachers if teacher.train_size), None)
        self.channels = TeacherChannels(
            stage3=sum(teacher.channels.stage3 for teacher in teachers),
            stage4=sum(teacher.channels.stage4 for teacher in teachers),
            decoder=sum(teacher.channels.decoder for teacher in teachers),
        )

    def __call__(self, images: Tensor) -> TeacherOutput:
        """Look at pictures; see `Teacher`."""
        outputs = [teacher(images) for teacher in self._teachers]
        stage3, stage4, decoder = (_side_by_side([output[index] for output in outputs]) for index in range(3))
        return TeacherOutput(stage3, stage4, decoder, average_probabilities([output.logits for output in outputs]))


def average_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Give the logs of the mean of what several networks hold for likely, at the size of the first's logits."""
    size = logits[0].shape[2:]
    log_p = torch.stack([resize(one.float(), size).log_softmax(1) for one in logits])
    return log_p.logsumexp(0) - math.log(len(logits))


def load_teacher(
    names: Sequence[str],
    classes: ClassSet,
    device: torch.device,
    *,
    class_mapping: Mapping[str, Sequence[str]] | None = None,
    advice: str = ADVICE,
    mismatch: str = MISMATCH,
) -> Teacher:
    """Load a SegFormer, an EfficientNet or a BSDNet, or an ensemble of several.

    Args:
        names: folders that `bsdnet-train teacher` or transformers wrote, Hugging Face names, or files of a BSDNet's
            weights; what ends in .safetensors is one, missing or not.
        classes: the student's.
        device: where to compute.
        class_mapping: for each of the student's classes, the teacher's classes that make it up; None takes those of
            the same name, and all of the teacher's have to be there.
        advice: what to do if one cannot be loaded, for the message.
        mismatch: what to do if its classes are others, likewise.

    Raises:
        TrainingError: transformers is not installed, or a SegFormer or an EfficientNet cannot be loaded.
        CheckpointError: the weights of a BSDNet cannot be read.
        ConfigError: its classes are not the student's, or the mapping does not fit; or a BSDNet was trained on pictures
            that were normalised in another way than the student's.
    """
    if not names:
        raise TrainingError(f"no teacher is named: {advice}")
    teachers = [_load_one(name, classes, device, class_mapping, advice, mismatch) for name in names]
    return teachers[0] if len(teachers) == 1 else EnsembleTeacher(teachers)


def teacher_classes(folder: Path) -> tuple[str, ...]:
    """Read from a teacher's folder the names of the classes that it tells apart.

    Raises:
        TrainingError: it cannot be read.
    """
    if holds_efficientnet(folder):
        return load_efficientnet(folder).class_names
    return _taught_by(load_pretrained("SegformerForSemanticSegmentation", str(folder)))


def read_class_mapping(path: Path) -> dict[str, list[str]]:
    """Read a TOML file of `"student's class" = ["teacher's class", ...]`.

    Raises:
        ConfigError: the file is missing, no TOML, or holds something else.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    mapping: dict[str, list[str]] = {}
    for name, value in content.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(entry, str) for entry in names):
            raise ConfigError(
                f'{path}: {name!r} must be a list of the teacher\'s classes, such as "sign" = ["traffic sign"]'
            )
        mapping[name] = names
    return mapping


def _load_one(
    name: str,
    classes: ClassSet,
    device: torch.device,
    mapping: Mapping[str, Sequence[str]] | None,
    advice: str,
    mismatch: str,
) -> Teacher:
    def sources(names: Sequence[str]) -> list[list[int]]:
        taught = [label.strip().lower() for label in names]
        if mapping is not None:
            return _map(name, taught, classes, mapping)
        return _match(name, taught, classes, mismatch)

    if Path(name).suffix == ".safetensors" or Path(name).is_file():
        checkpoint = load_checkpoint(Path(name))
        metadata = checkpoint.metadata
        if (metadata.mean, metadata.std) != (IMAGENET_MEAN, IMAGENET_STD):
            raise ConfigError(f"the teacher {name} saw pictures that were normalised otherwise than the student's")
        return BSDNetTeacher(checkpoint.model, sources(metadata.class_set.names), device, metadata.train_size)
    if holds_efficientnet(Path(name)):
        try:
            segmenter = load_efficientnet(Path(name))
        except TrainingError as error:
            raise TrainingError(f"{error}; {advice}") from error
        return EfficientNetTeacher(segmenter, sources(segmenter.class_names), device)
    if not Path(name).is_dir():
        logger.info("teacher %s: from Hugging Face, or its cache; mind its licence", name)
    try:
        network = load_pretrained("SegformerForSemanticSegmentation", name)
    except TrainingError as error:
        raise TrainingError(f"{error}; {advice}") from error
    return SegFormerTeacher(network, sources(_taught_by(network)), device)


def _taught_by(network: Any) -> tuple[str, ...]:  # noqa: ANN401 - a SegFormer of transformers
    return tuple(str(network.config.id2label[index]) for index in range(network.config.num_labels))


def _in_student_classes(logits: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Order logits as the student's; of several, the joint one is that of the sum of their probabilities."""
    if all(len(indices) == 1 for indices in sources):
        return logits[:, torch.cat(list(sources))]
    return torch.stack([logits[:, indices].float().logsumexp(1) for indices in sources], 1)


def _match(name: str, taught: list[str], classes: ClassSet, mismatch: str) -> list[list[int]]:
    own = [label.lower() for label in classes.names]
    if sorted(own) != sorted(taught):
        missing = [label for label in own if label not in taught]
        extra = [label for label in taught if label not in own]
        raise ConfigError(
            f"the {len(taught)} classes of the teacher {name} are not the {len(own)} of {classes.name}: it lacks "
            f"{_some(missing)}, and has {_some(extra)} besides; {mismatch}"
        )
    return [[taught.index(label)] for label in own]


def _map(name: str, taught: list[str], classes: ClassSet, mapping: Mapping[str, Sequence[str]]) -> list[list[int]]:
    given = {label.strip().lower(): [entry.strip().lower() for entry in entries] for label, entries in mapping.items()}
    own = [label.lower() for label in classes.names]
    for what, unknown in (
        (f"no class of {classes.name}", [label for label in given if label not in own]),
        (f"no class of the teacher {name}", [e for entries in given.values() for e in entries if e not in taught]),
        (f"in {classes.name}, but not mapped", [label for label in own if label not in given]),
    ):
        if unknown:
            raise ConfigError(f"the mapping of the teacher's classes does not fit: {_some(unknown)}: {what}")
    return [[taught.index(entry) for entry in given[label]] for label in own]


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"


def _of_unit_deviation(maps: Tensor) -> Tensor:
    """Scale each picture's maps so that its channels deviate by 1 over space, on average.

    A temperature then means the same for all of them.
    """
    deviation = maps.float().flatten(2).std(2, correction=0).mean(1).clamp(min=1e-6)
    return maps / deviation.to(maps.dtype)[:, None, None, None]


def _side_by_side(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([resize(one, maps[0].shape[2:]) for one in maps], 1)
