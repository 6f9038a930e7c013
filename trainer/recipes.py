"""Training recipes: every number of a run, frozen before it starts.

A comment says where a default comes from: the BSDNet paper, or our own choice.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bsdnet.errors import ConfigError

ModelName = Literal[
    "s", "b", "segformer-b0", "segformer-b1", "segformer-b2", "segformer-b3", "segformer-b4", "segformer-b5"
]


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """AdamW with linear warm-up and polynomial decay: what all recipes share.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    model: ModelName = "s"
    """Network: `s` or `b`."""
    epochs: int
    """Passes over the data set."""
    batch_size: int
    """Pictures in a step."""
    lr: float
    """Peak learning rate."""
    weight_decay: float = 0.0125  # the paper's
    """AdamW's decay of the convolution kernels; batch norm and biases have none."""
    poly_power: float = 0.9  # the paper's
    """Power of the polynomial decay to zero."""
    warmup_iterations: int
    """Steps of linear warm-up."""
    clip_grad_norm: float = 5.0  # ours
    """Largest L2 norm of all gradients together."""
    label_smoothing: float = 0.0  # ours
    """Share of the target that is spread over all classes."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and every augmentation."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        for name, low in (("epochs", 1), ("batch_size", 2), ("warmup_iterations", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("lr", "poly_power", "clip_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(OptimizerRecipe):
    """Supervised training of the whole network on labelled pictures.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    crop_size: tuple[int, int]
    """Height and width of the training crops in pixels."""
    train_size: tuple[int, int]
    """Height and width of the data set's pictures: the scale that the network sees objects at, kept as metadata."""
    scale_range: tuple[float, float] = (0.5, 2.0)  # ours
    """Smallest and largest random scale, drawn log-uniformly."""
    flip_probability: float = 0.5  # the paper's
    """Probability of a horizontal flip."""
    color_jitter: float = 0.0
    """Strength of the random change of colours, 0 to 0.9; see `trainer.augment.jitter_colors`."""
    class_weight_offset: float | None = None
    """c in the class weight `1 / ln(c + share of pixels)`; None weighs all classes alike."""
    dasp_rates: tuple[int, ...] = (6, 12, 18)  # the paper's
    """Rates of DASP's atrous convolutions in pixels at stride 32."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        super().__post_init__()
        for name in ("crop_size", "train_size"):
            if len(getattr(self, name)) != 2 or min(getattr(self, name)) < 32:
                raise ConfigError(f"{name} must be a height and a width of at least 32, got {getattr(self, name)}")
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ConfigError(f"scale_range must be two growing numbers above 0, got {self.scale_range}")
        if not 0 <= self.flip_probability <= 1:
            raise ConfigError(f"flip_probability must be in [0, 1], got {self.flip_probability}")
        if not 0 <= self.color_jitter <= 0.9:
            raise ConfigError(f"color_jitter must be in [0, 0.9], got {self.color_jitter}")
        if self.class_weight_offset is not None and not self.class_weight_offset > 1:
            raise ConfigError(f"class_weight_offset must be greater than 1, got {self.class_weight_offset}")


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(OptimizerRecipe):
    """Classification of small pictures by the backbone alone, before segmentation.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    min_area: float = 0.35
    """Smallest part of a picture that a random resized crop shows."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        super().__post_init__()
        if not 0 < self.min_area <= 1:
            raise ConfigError(f"min_area must be in (0, 1], got {self.min_area}")


CAMVID = SegmentationRecipe(
    epochs=120,  # ours: about 45 minutes for S on two CPU cores
    batch_size=8,  # ours
    lr=1e-3,  # the paper's
    warmup_iterations=200,  # ours
    crop_size=(352, 480),  # ours: the pictures are 480x360 here, 960x720 in the paper
    train_size=(360, 480),
    color_jitter=0.4,  # ours: the test drives differ from the training drives in light
    class_weight_offset=1.1,  # ours
    dasp_rates=(2, 4, 6),  # ours: the paper's rates, scaled from its 32x32 map to 15x11
)
"""CamVid at 480x360, supervised."""

TINY_IMAGENET = PretrainRecipe(
    epochs=16,  # about 35 minutes for S on two CPU cores
    batch_size=256,
    lr=2e-3,
    weight_decay=0.02,
    warmup_iterations=400,
    label_smoothing=0.1,
)
"""Backbone pretraining on Tiny-ImageNet at 64x64; all numbers ours."""

TINY_IMAGENET_SEGFORMER = PretrainRecipe(
    model="segformer-b1",
    epochs=6,  # about 35 minutes for B1 on two CPU cores
    batch_size=256,
    lr=1e-3,
    weight_decay=0.05,
    warmup_iterations=400,
    label_smoothing=0.1,
)
"""Pretraining of a teacher's encoder on Tiny-ImageNet at 64x64; all numbers ours."""


def iterations_of(recipe: OptimizerRecipe, num_examples: int) -> int:
    """Count the steps of a run: incomplete batches do not exist, an epoch's rest goes into the next."""
    return max(1, recipe.epochs * num_examples // recipe.batch_size)


def recipe_as_dict(recipe: OptimizerRecipe) -> dict[str, object]:
    """Give the recipe's fields as plain values, as they are written beside a run."""
    return dataclasses.asdict(recipe)
