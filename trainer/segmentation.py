"""Supervised training and evaluation of the whole network on labelled pictures."""

import logging
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, CheckpointMetadata, load_backbone, save_checkpoint
from bsdnet.classes import IGNORE_INDEX, ClassSet
from bsdnet.errors import DatasetError
from bsdnet.metrics import ConfusionMatrix
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG, BSDNet, TrainingOutput
from trainer.augment import TrainTransform
from trainer.device import autocast, normalize, place
from trainer.recipes import SegmentationRecipe, iterations_of, recipe_as_dict
from trainer.sampling import PositionSampler

logger = logging.getLogger(__name__)

CONFIGS = {"s": S_CONFIG, "b": B_CONFIG}
"""Shapes by the name that a recipe gives."""


class LabelledImages(Protocol):
    """What every segmentation data set offers."""

    @property
    def classes(self) -> ClassSet:
        """What the labels mean."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one pair: picture `(H, W, 3)` uint8 RGB, labels `(H, W)` uint8 with 255 for no class."""
        ...


class SegmentationTask:
    """Cross-entropy at the labels' resolution; judged by mIoU on whole pictures.

    Args:
        recipe: the numbers of the run.
        train_set: pictures to learn from.
        val_set: pictures to judge by.
        device: where to train.
        data: what the pictures are, for the run's description.
        pretrained: a backbone from `bsdnet-train pretrain`; None starts from random weights.
        workers: processes that prepare pictures; 0 prepares them in this one.
    """

    def __init__(
        self,
        recipe: SegmentationRecipe,
        train_set: LabelledImages,
        val_set: LabelledImages,
        device: torch.device,
        *,
        data: dict[str, object] | None = None,
        pretrained: Path | None = None,
        workers: int = 0,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.description = recipe_as_dict(recipe) | (data or {}) | {"pretrained": pretrained and pretrained.name}
        self.iterations = iterations_of(recipe, len(train_set))
        config = replace(CONFIGS[recipe.model], num_classes=len(train_set.classes), dasp_rates=recipe.dasp_rates)
        model = BSDNet(config)
        if pretrained is not None:
            load_backbone(pretrained, model.backbone)
        self.model = place(model, device)
        self._train, self._val, self._device, self._workers = train_set, val_set, device, workers
        self._class_weights = _class_weights(train_set, recipe.class_weight_offset, device)

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give normalised crops `(B, 3, h, w)` and labels `(B, h, w)` int64 of every step from `start` on."""
        recipe = self.recipe
        sampler = PositionSampler(
            len(self._train), recipe.batch_size, seed=recipe.seed, start=start, stop=self.iterations
        )
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            _Augmented(self._train, recipe), batch_sampler=sampler, num_workers=self._workers
        )
        try:
            for images, labels in loader:
                normalized = normalize(images.to(self._device), IMAGENET_MEAN, IMAGENET_STD)
                yield normalized, labels.to(self._device, torch.int64)
        except DatasetError as error:  # from another process it comes with that process's traceback in its text
            raise DatasetError(str(error).strip().rpartition("DatasetError: ")[2]) from error

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Give the cross-entropy of one step, void pixels left out."""
        with autocast(self._device):
            output = self.model(images)
        if not isinstance(output, TrainingOutput):
            raise TypeError("the network is not in training mode")
        logits = F.interpolate(output.logits.float(), size=targets.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(
            logits,
            targets,
            self._class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.recipe.label_smoothing,
        )

    def evaluate(self) -> float:
        """Give mIoU on the validation pictures, 0 to 1, and log the table of classes."""
        matrix = evaluate(self.model, self._val, self._device, precision="bf16")
        logger.info("%s", format_iou(matrix, self._val.classes))
        return 0.0 if math.isnan(matrix.mean_iou) else matrix.mean_iou

    def save_weights(self, path: Path) -> None:
        """Write the network with its classes."""
        metadata = CheckpointMetadata(
            architecture=f"bsdnet_{self.recipe.model}",
            class_set=self._train.classes,
            train_size=self.recipe.train_size,
        )
        save_checkpoint(path, self.model, metadata)


@torch.inference_mode()
def evaluate(
    model: BSDNet,
    dataset: LabelledImages,
    device: torch.device,
    *,
    precision: str = "fp32",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> ConfusionMatrix:
    """Segment whole pictures at their own size, one scale, no flip, and compare with the labels.

    Args:
        model: a network in evaluation mode on `device`.
        dataset: pictures with labels.
        device: where to compute.
        precision: `fp32`, or `bf16` for autocast.
        mean: of the RGB that the network was trained with, scaled to 0..1.
        std: likewise.

    Returns:
        Pixels by true and predicted class.
    """
    matrix = ConfusionMatrix(len(dataset.classes))
    for index in range(len(dataset)):
        rgb, labels = dataset[index]
        image = normalize(torch.from_numpy(rgb)[None].to(device), mean, std)
        with autocast(device) if precision == "bf16" else nullcontext():
            logits = model(image)
        logits = F.interpolate(logits.float(), size=labels.shape, mode="bilinear", align_corners=False)
        matrix.update(labels, logits[0].argmax(0).cpu().numpy())
    return matrix


def format_iou(matrix: ConfusionMatrix, classes: ClassSet) -> str:
    """Write mIoU and the IoU of each class as a table, in per cent."""
    width = max(len(name) for name in classes.names)
    rows = [f"{name:<{width}}  {100 * iou:5.1f}" for name, iou in zip(classes.names, matrix.iou, strict=True)]
    return "\n".join([f"{'mIoU':<{width}}  {100 * matrix.mean_iou:5.1f}", *rows])


class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Training examples drawn by `(example, position)`: chance depends on the seed and the position alone."""

    def __init__(self, dataset: LabelledImages, recipe: SegmentationRecipe) -> None:
        self._dataset = dataset
        self._seed = recipe.seed
        self._transform = TrainTransform(recipe=recipe)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        example, position = key
        rgb, labels = self._transform(*self._dataset[example], np.random.default_rng((self._seed, 1, position)))
        return torch.from_numpy(rgb), torch.from_numpy(labels)


def _class_weights(dataset: LabelledImages, offset: float | None, device: torch.device) -> Tensor | None:
    """Give `1 / ln(offset + share)` for each class (Paszke et al., ENet, 2016), or None for no weights."""
    if offset is None:
        return None
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset[index][1].ravel(), minlength=256)
    counts = counts[: len(dataset.classes)]
    if not counts.any():
        raise DatasetError("no pixel of the training pictures has a class; do the label files hold class indices?")
    weights = 1 / np.log(offset + counts / counts.sum())
    return torch.tensor(weights, dtype=torch.float32, device=device)
