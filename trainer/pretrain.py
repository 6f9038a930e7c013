"""Pretraining of the backbone: classification of small pictures."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, save_backbone
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG, Backbone, BSDNetConfig
from trainer.datasets.imagenet import ZippedImages
from trainer.device import autocast, normalize, place
from trainer.recipes import PretrainRecipe, iterations_of, recipe_as_dict
from trainer.sampling import PositionSampler
from trainer.segformer import SegFormerClassifier

logger = logging.getLogger(__name__)

CONFIGS = {"s": S_CONFIG, "b": B_CONFIG}
"""Shapes of the students by the name that a recipe gives."""


class Classifier(nn.Module):
    """The backbone with global average pooling and a linear layer.

    Args:
        config: shape of the backbone.
        num_classes: classes to tell apart.
        architecture: name of the network, kept with the weights.
    """

    def __init__(self, config: BSDNetConfig, num_classes: int, architecture: str) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.linear = nn.Linear(config.channels[3], num_classes)
        self._architecture = architecture

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes)`."""
        logits: Tensor = self.linear(self.backbone(x).stage4.mean((2, 3)))
        return logits

    def save(self, path: Path) -> None:
        """Write the backbone alone: the classifier is of no use for segmentation."""
        save_backbone(path, self.backbone, self._architecture)


def build_classifier(model: str, num_classes: int) -> Classifier | SegFormerClassifier:
    """Build what a recipe's `model` names: `s`, `b` or a SegFormer.

    Raises:
        ConfigError: there is no such model.
        TrainingError: it is a SegFormer, and transformers is not installed.
    """
    if model in CONFIGS:
        return Classifier(CONFIGS[model], num_classes, f"bsdnet_{model}")
    return SegFormerClassifier(model, num_classes)


class PretrainTask:
    """Cross-entropy on small pictures; judged by top-1 accuracy.

    Args:
        recipe: the numbers of the run.
        train_images: pictures to learn from.
        val_images: pictures to judge by, with the same classes.
        device: where to train.
    """

    def __init__(
        self,
        recipe: PretrainRecipe,
        train_images: ZippedImages,
        val_images: ZippedImages,
        device: torch.device,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.description = recipe_as_dict(recipe) | {"images": len(train_images), "classes": len(train_images.classes)}
        self.iterations = iterations_of(recipe, len(train_images))
        self.model = place(build_classifier(recipe.model, len(train_images.classes)), device)
        self._train, self._val, self._device = train_images, val_images, device

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give augmented pictures `(B, 3, H, W)` and their classes `(B,)` of every step from `start` on."""
        recipe = self.recipe
        sampler = PositionSampler(
            len(self._train), recipe.batch_size, seed=recipe.seed, start=start, stop=self.iterations
        )
        for iteration, batch in enumerate(sampler, start):
            index = [example for example, _ in batch]
            images = torch.from_numpy(self._train.images[index]).to(self._device)
            # PyTorch's generator takes 32 bits of its seed: a large odd factor keeps the runs of two seeds apart.
            generator = torch.Generator().manual_seed((recipe.seed * 0x9E3779B1 + iteration) % 2**32)
            augmented = random_resized_crop(normalize(images, IMAGENET_MEAN, IMAGENET_STD), recipe.min_area, generator)
            yield augmented, torch.from_numpy(self._train.labels[index]).to(self._device)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Give the cross-entropy of one step."""
        with autocast(self._device):
            logits = self.model(images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)

    @torch.inference_mode()
    def evaluate(self) -> float:
        """Give top-1 accuracy on the validation pictures, 0 to 1, and log it."""
        hits = 0
        for start in range(0, len(self._val), self.recipe.batch_size):
            part = slice(start, start + self.recipe.batch_size)
            images = torch.from_numpy(self._val.images[part]).to(self._device)
            with autocast(self._device):
                logits = self.model(normalize(images, IMAGENET_MEAN, IMAGENET_STD))
            hits += int((logits.argmax(1).cpu() == torch.from_numpy(self._val.labels[part])).sum())
        accuracy = hits / len(self._val)
        logger.info("top-1 accuracy on validation pictures: %.2f %%", 100 * accuracy)
        return accuracy

    def save_weights(self, path: Path) -> None:
        """Write the network's pretrained part."""
        self.model.save(path)


def random_resized_crop(images: Tensor, min_area: float, generator: torch.Generator) -> Tensor:
    """Show a random part of each picture at full size, flipped half of the time.

    Args:
        images: normalised pictures, `(B, 3, H, W)`.
        min_area: smallest part of the area that is shown, in (0, 1]; its sides' ratio varies from 3:4 to 4:3.
        generator: the only source of chance, on the CPU.

    Returns:
        Pictures of the same shape, channels_last.
    """
    count = len(images)
    area = torch.empty(count).uniform_(min_area, 1, generator=generator)
    ratio = torch.empty(count).uniform_(-0.2877, 0.2877, generator=generator).exp()  # ln(4/3)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x_center = (2 * torch.rand(count, generator=generator) - 1) * (1 - width)
    y_center = (2 * torch.rand(count, generator=generator) - 1) * (1 - height)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * flip, x_center
    theta[:, 1, 1], theta[:, 1, 2] = height, y_center
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    cropped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)
