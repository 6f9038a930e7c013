"""Networks that learn: the student in its shapes, and a SegFormer or an EfficientNet that becomes a teacher."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bsdnet.checkpoint import (
    CheckpointMetadata,
    backbone_architecture,
    holds_backbone,
    load_backbone,
    load_checkpoint,
    save_checkpoint,
)
from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG, Backbone, BSDNet, BSDNetConfig
from trainer.efficientnet import EFFICIENTNETS, EfficientNetSegmenter, holds_efficientnet, load_efficientnet
from trainer.imagenet_weights import IMAGENET
from trainer.recipes import SegmentationRecipe, TeacherRecipe
from trainer.segformer import VARIANTS, SegFormerSegmenter
from trainer.widening import widen, widen_backbone

CONFIGS = {"s": S_CONFIG, "b": B_CONFIG}
"""Shapes of the student by the name that a recipe gives."""


def student_config(model: str) -> BSDNetConfig:
    """Give the shape of a student.

    Raises:
        ConfigError: there is no such student.
    """
    if model not in CONFIGS:
        raise ConfigError(f"model must be {' or '.join(CONFIGS)} for a student, got {model!r}")
    return CONFIGS[model]


def read_backbone(path: Path, config: BSDNetConfig) -> Backbone:
    """Read a backbone from `bsdnet-train pretrain`; that of a narrower student is widened.

    Args:
        path: its file.
        config: shape of the network that it is for.

    Raises:
        CheckpointError: the file cannot be read, or does not fit.
        ConfigError: it is a wider student's.
    """
    owner = CONFIGS.get(backbone_architecture(path).removeprefix("bsdnet_"), config)
    narrow = replace(
        config,
        channels=owner.channels,
        dasp_channels=owner.dasp_channels,
        decoder_channels=owner.decoder_channels,
    )
    try:
        with torch.random.fork_rng(devices=[]):  # what a run draws later does not depend on weights that are read
            backbone = Backbone(narrow)
            load_backbone(path, backbone)
            return backbone if narrow == config else widen_backbone(backbone, narrow, config)
    except ConfigError as error:
        raise ConfigError(f"{path} has another shape than the network: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Student:
    """A BSDNet that learns."""

    network: BSDNet
    """The network."""
    metadata: CheckpointMetadata
    """What is kept with its weights."""

    @property
    def head_parameters(self) -> list[nn.Parameter]:
        """None: the whole network learns at one rate."""
        return []

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a BSDNet of this one's shape.

        Raises:
            CheckpointError: the file cannot be written.
        """
        if not isinstance(network, BSDNet):
            raise TypeError(f"expected a BSDNet, got {type(network).__name__}")
        save_checkpoint(path, network, self.metadata)


def build_student(
    recipe: SegmentationRecipe, classes: ClassSet, *, pretrained: Path | None = None, initial: Path | None = None
) -> Student:
    """Build a student, its weights drawn from the recipe's seed or read.

    Args:
        recipe: the shape and the seed.
        classes: what the logits mean.
        pretrained: a backbone from `bsdnet-train pretrain`, or weights of a whole network of any classes, of which all
            is taken but the classifier; those of a narrower student are widened.
        initial: weights of a whole network of the same classes to go on from; those of a narrower one are widened.

    Raises:
        ConfigError: the recipe names no student, `initial` was made for other classes, or weights for another shape.
        CheckpointError: weights cannot be read, or do not fit.
    """
    torch.manual_seed(recipe.seed)
    config = replace(
        student_config(recipe.model),
        num_classes=len(classes),
        dasp_rates=recipe.dasp_rates,
        block=recipe.block,
        context=recipe.context,
    )
    if initial is not None:
        checkpoint = load_checkpoint(initial)
        known = checkpoint.metadata.class_set
        if known.names != classes.names:
            raise ConfigError(
                f"{initial} is made for the classes of {known.name}, the data are {classes.name}; as --pretrained it "
                "gives all but its classifier"
            )
        network = _in_shape(initial, checkpoint.model, config)
    else:
        network = BSDNet(config)
        if pretrained is not None and holds_backbone(pretrained):
            network.backbone = read_backbone(pretrained, config)
        elif pretrained is not None:
            _take_all_but_the_classifier(pretrained, network)
    metadata = CheckpointMetadata(
        architecture=f"bsdnet_{recipe.model}", class_set=classes, train_size=recipe.train_size
    )
    return Student(network=network, metadata=metadata)


def _in_shape(path: Path, network: BSDNet, config: BSDNetConfig) -> BSDNet:
    """Widen a trained network if the shape asks for it."""
    if network.config == config:
        return network
    try:
        return widen(network, config)
    except ConfigError as error:
        raise ConfigError(f"{path} has another shape than the recipe: {error}") from error


def _take_all_but_the_classifier(path: Path, network: BSDNet) -> None:
    """Copy what a trained network of any classes knows into another one, whose classifier stays as it was drawn."""
    with torch.random.fork_rng(devices=[]):  # as in `read_backbone`
        trained = load_checkpoint(path).model
        trained = _in_shape(path, trained, replace(network.config, num_classes=trained.config.num_classes))
    trained.head.classifier = network.head.classifier
    network.load_state_dict(trained.state_dict())


def shape_of(initial: Path) -> dict[str, object]:
    """Read from weights the fields of a recipe that say their shape.

    Raises:
        CheckpointError: the weights cannot be read.
    """
    checkpoint = load_checkpoint(initial)
    config = checkpoint.model.config
    return {
        "model": checkpoint.metadata.architecture.removeprefix("bsdnet_"),
        "dasp_rates": config.dasp_rates,
        "block": config.block,
        "context": config.context,
    }


def train_size_of(initial: Path) -> tuple[int, int]:
    """Read from weights the height and width of the pictures that they were trained on.

    Raises:
        CheckpointError: the weights cannot be read.
    """
    return load_checkpoint(initial).metadata.train_size


@dataclass(frozen=True, kw_only=True)
class FutureTeacher:
    """A SegFormer or an EfficientNet that learns."""

    network: SegFormerSegmenter | EfficientNetSegmenter
    """The network."""

    @property
    def head_parameters(self) -> list[nn.Parameter]:
        """The decoder's, which starts from random weights unless a trained network is gone on from."""
        return self.network.head_parameters()

    def save(self, network: nn.Module, path: Path) -> None:
        """Write the folder that `--teacher` reads; its name is the path's without the suffix.

        Raises:
            TrainingError: the folder cannot be written.
            CheckpointError: a weight is not finite in fp16.
        """
        if not isinstance(network, SegFormerSegmenter | EfficientNetSegmenter):
            raise TypeError(f"expected a network of a teacher, got {type(network).__name__}")
        network.save(path.with_suffix(""))


def variant_of(initial: str) -> str | None:
    """Read from a trained teacher's folder which EfficientNet it is; None for a SegFormer.

    Raises:
        TrainingError: it cannot be read.
    """
    folder = Path(initial)
    return load_efficientnet(folder).variant if holds_efficientnet(folder) else None


def build_future_teacher(
    recipe: TeacherRecipe, classes: ClassSet, *, pretrained: str | None = None, initial: str | None = None
) -> FutureTeacher:
    """Build a SegFormer or an EfficientNet, its weights drawn from the recipe's seed or read.

    Args:
        recipe: the variant and the seed.
        classes: what the logits mean.
        pretrained: folder from `bsdnet-train pretrain`, or a Hugging Face name such as `nvidia/mit-b2`, of the encoder;
            of an EfficientNet, which must have one, `imagenet` or a file of such weights.
        initial: a trained teacher to go on from, instead of an encoder: the folder of its run's weights, or of a
            SegFormer a Hugging Face name.

    Raises:
        ConfigError: there is no such variant, `pretrained` is for another kind, or `initial` has other classes.
        TrainingError: transformers is not installed, or weights cannot be read or do not fit.
    """
    torch.manual_seed(recipe.seed)
    if recipe.model not in (*VARIANTS, *EFFICIENTNETS):
        raise ConfigError(f"no teacher {recipe.model!r}; expected one of {', '.join((*VARIANTS, *EFFICIENTNETS))}")
    network: SegFormerSegmenter | EfficientNetSegmenter
    if recipe.model in EFFICIENTNETS:
        if pretrained is None and initial is None:
            raise ConfigError(
                "an EfficientNet keeps its encoder's first layers and statistics as they are, so it needs --pretrained "
                f"{IMAGENET}, or a trained one as --init"
            )
        network = EfficientNetSegmenter(recipe.model, classes.names, recipe.train_size)
    else:
        if pretrained == IMAGENET:
            raise ConfigError(
                f"--pretrained {IMAGENET} is an EfficientNet's: a SegFormer's encoder is a folder or a name"
            )
        network = SegFormerSegmenter(recipe.model, classes, recipe.train_size)
    if initial is not None:
        network.go_on_from(initial)
    elif pretrained is not None:
        network.load_encoder(pretrained)
    return FutureTeacher(network=network)
