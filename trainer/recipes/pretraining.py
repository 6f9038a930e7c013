"""Recipes of ImageNet pretraining: the backbone alone, before segmentation."""

from dataclasses import dataclass

from bsdnet.errors import ConfigError
from trainer.recipes.base import OptimizerRecipe


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(OptimizerRecipe):
    """Classification of pictures by the backbone alone.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    image_size: int = 64
    """Side in pixels of the square that the network sees."""
    min_area: float = 0.35
    """Smallest part of a picture that a random resized crop shows."""
    teacher: str | None = None
    """EfficientNet that saw ImageNet, such as `efficientnet-lite0`: its 1,000 answers are learnt beside the classes."""
    teacher_size: int = 128
    """Side in pixels that it sees at least: smaller pictures are enlarged for it."""
    teacher_weight: float = 1.0
    """Weight of its answers' Kullback-Leibler divergence beside the cross-entropy."""
    teacher_temperature: float = 2.0
    """Temperature of both softmaxes in it."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        super().__post_init__()
        if self.image_size < 32:
            raise ConfigError(f"image_size must be at least 32, got {self.image_size}")
        if not 0 < self.min_area <= 1:
            raise ConfigError(f"min_area must be in (0, 1], got {self.min_area}")
        if self.teacher_size < 32:
            raise ConfigError(f"teacher_size must be at least 32, got {self.teacher_size}")
        if not self.teacher_weight >= 0:
            raise ConfigError(f"teacher_weight must be at least 0, got {self.teacher_weight}")
        if not self.teacher_temperature > 0:
            raise ConfigError(f"teacher_temperature must be greater than 0, got {self.teacher_temperature}")


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

IMAGENET = PretrainRecipe(
    epochs=100,
    batch_size=1024,
    lr=2e-3,
    weight_decay=0.05,
    warmup_iterations=5000,
    label_smoothing=0.1,
    image_size=224,
    min_area=0.08,
)
"""Backbone pretraining on ImageNet-1k; the paper says that it was done, all numbers are ours and none was tried."""
