"""Training of a network that segments: the student, or a teacher."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from bsdnet.classes import IGNORE_INDEX
from bsdnet.errors import ConfigError, DatasetError
from trainer.augment import TrainTransform, paste_classes
from trainer.datasets.contract import TAUGHT, LabelledImages
from trainer.device import place
from trainer.distributed import Processes
from trainer.evaluation import EvaluationOptions, evaluate, format_iou, segment
from trainer.loading import load_batches
from trainer.monitor import RunMonitor
from trainer.objective import SegmentationObjective
from trainer.recipes import SegmentationRecipe, TeacherRecipe, iterations_of, recipe_as_dict
from trainer.sampling import PositionSampler
from trainer.schedule import build_optimizer
from trainer.teacher import Teacher

logger = logging.getLogger(__name__)

_SHOWN = 4
"""Validation pictures in TensorBoard."""


class Trainee(Protocol):
    """A network that learns to segment, and how its weights are kept."""

    @property
    def network(self) -> nn.Module:
        """Maps normalised pictures to logits, in training mode perhaps to a `TrainingOutput`."""
        ...

    @property
    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at a rate of their own."""
        ...

    def save(self, network: nn.Module, path: Path) -> None:
        """Write the weights of a network like this one."""
        ...


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """What a run learns from and is judged by."""

    train: LabelledImages
    """Pictures to learn from."""
    val: LabelledImages
    """Pictures to judge by."""
    labelled: bool = True
    """Whether the labels of `train` hold classes; if not, they mark valid pixels, whose classes the teacher tells."""
    further: LabelledImages | None = None
    """Other data sets' pictures to learn from: `TAUGHT` where their labels do not say it in the classes of `train`."""
    unlabelled: LabelledImages | None = None
    """Further pictures to learn from, whose labels mark valid pixels: the teacher tells what they show."""
    description: Mapping[str, object]
    """What the data are, as plain values: a run resumes only with the same."""


class SegmentationTask:
    """Cross-entropy and distillation on crops; judged by mIoU on whole pictures.

    Args:
        recipe: the numbers of the run.
        trainee: the network; its initial weights are drawn before, from the recipe's seed.
        data: pictures.
        device: where to train.
        teacher: what to learn from, on the same device.
        processes: the group of processes that trains together.
        workers: processes that prepare pictures, for each process that trains; 0 prepares them in this one.

    Raises:
        ConfigError: the recipe needs labels that the data have not.
        DatasetError: no pixel has a class.
    """

    def __init__(
        self,
        recipe: SegmentationRecipe,
        trainee: Trainee,
        data: SegmentationData,
        device: torch.device,
        *,
        teacher: Teacher | None = None,
        processes: Processes = Processes(),  # noqa: B008 - frozen
        workers: int = 0,
    ) -> None:
        if not data.labelled and (recipe.class_weight_offset or recipe.class_balance or recipe.class_mix):
            raise ConfigError(
                "class_weight_offset, class_balance and class_mix need labels, which these pictures have not"
            )
        if data.unlabelled is not None and teacher is None:
            raise ConfigError("pictures without labels need a teacher")
        self.recipe = recipe
        numbers = {"images": len(data.train), "val_images": len(data.val)}
        numbers |= {} if data.unlabelled is None else {"unlabelled_images": len(data.unlabelled)}
        # The same folder written in another way is the same teacher.
        teachers = {"teachers": [os.path.normpath(name) for name in recipe.teachers]}
        self.description = dict(data.description) | numbers | recipe_as_dict(recipe) | teachers
        self._keeps_clear = teacher is not None and recipe.degradation > 0
        self.iterations = iterations_of(recipe, len(data.train))
        self._trainee, self._data, self._device = trainee, data, device
        self._processes, self._workers = processes, workers
        self._pixels = _count_pixels(data.train) if recipe.class_weight_offset or recipe.class_balance else None
        objective = SegmentationObjective(
            trainee.network,
            recipe,
            class_weights=self._class_weights(),
            ofa_class_weights=self._ofa_class_weights() if recipe.ofa_class_weights else None,
            teacher=teacher,
            labelled=data.labelled,
        )
        if processes.count > 1 and device.type == "cuda":
            objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
        self.objective: SegmentationObjective = place(objective, device, channels_last=recipe.channels_last)

    @property
    def network(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.objective.network

    def optimizer(self) -> torch.optim.Optimizer:
        """Build AdamW; a teacher's head learns at a rate of its own."""
        if isinstance(self.recipe, TeacherRecipe):
            head, factor = self._trainee.head_parameters, self.recipe.head_lr_factor
            return build_optimizer(self.objective, self.recipe, head=head, head_lr_factor=factor)
        return build_optimizer(self.objective, self.recipe)

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give normalised crops `(B, 3, h, w)` and labels `(B, h, w)` int64 of every step from `start` on.

        Where crops are degraded and there is a teacher, three channels follow: the clear crops, for the teacher.
        """
        recipe = self.recipe
        sampler = PositionSampler(
            len(self._data.train),
            recipe.batch_size,
            seed=recipe.seed,
            start=start,
            stop=self.iterations,
            processes=self._processes,
        )
        dataset = AugmentedImages(
            self._data.train,
            recipe,
            self._pixels,
            unlabelled=self._data.unlabelled,
            further=self._data.further,
            keeps_clear=self._keeps_clear,
        )
        for images, labels in load_batches(dataset, sampler, self._device, self._workers):
            yield images if recipe.channels_last else images.contiguous(), labels

    def count(self, targets: Tensor) -> Tensor:
        """Count what the sums of the loss are divided by: weighted pixels, and positions at stride 8."""
        return self.objective.count_valid(targets)

    def evaluate(self, network: nn.Module, monitor: RunMonitor) -> float:
        """Give mIoU on the validation pictures, 0 to 1; log the table of classes and show some pictures."""
        val = self._data.val
        options = EvaluationOptions(short_side=min(self.recipe.train_size), precision=self.recipe.precision)
        matrix = evaluate(network, val, self._device, options=options, processes=self._processes)
        if self._processes.is_main:
            logger.info("%s", format_iou(matrix, val.classes))
            monitor.evaluation(matrix.mean_iou, dict(zip(val.classes.names, matrix.iou.tolist(), strict=True)))
            if monitor.draws_pictures:
                shown = [val[index] for index in range(0, len(val), -(-len(val) // _SHOWN))]
                predicted = [segment(network, rgb, self._device, options=options) for rgb, _ in shown]
                monitor.pictures([rgb for rgb, _ in shown], [labels for _, labels in shown], predicted, val.classes)
        return 0.0 if math.isnan(matrix.mean_iou) else matrix.mean_iou

    def save_weights(self, network: nn.Module, path: Path) -> None:
        """Write the network as its users read it."""
        self._trainee.save(network, path)

    def _class_weights(self) -> Tensor | None:
        """Give `1 / ln(offset + share)` for each class (Paszke et al., ENet, 2016), or None for no weights."""
        offset = self.recipe.class_weight_offset
        if offset is None or self._pixels is None:
            return None
        return torch.tensor(1 / np.log(offset + self._shares()), dtype=torch.float32, device=self._device)

    def _ofa_class_weights(self) -> Tensor | None:
        """Give the class weights, scaled so that a labelled pixel weighs 1 on average: OFA is divided by positions.

        Crops that show rare classes more often, and what a teacher sees in pictures without labels, weigh more.
        """
        weights = self._class_weights()
        if weights is None:
            return None
        return weights / (weights * torch.tensor(self._shares(), dtype=torch.float32, device=self._device)).sum()

    def _shares(self) -> NDArray[np.float64]:
        """Give each class's share of the labelled pixels, `(num_classes,)`."""
        assert self._pixels is not None
        counts = self._pixels.sum(0)
        return np.asarray(counts / counts.sum(), np.float64)


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Training examples drawn by `(example, position)`: chance depends on the seed and the position alone.

    Args:
        dataset: pictures with labels.
        recipe: how they are augmented.
        pixels: pixels of each class in each picture, `(N, num_classes)`, for class-balanced crops.
        unlabelled: pictures that take the place of the recipe's share of the examples; their pixels are `TAUGHT`.
        further: other data sets' pictures, that take the place of the recipe's share of the labelled examples.
        keeps_clear: whether crops have three channels more: those without the degradation.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        recipe: SegmentationRecipe,
        pixels: NDArray[np.int64] | None = None,
        *,
        unlabelled: LabelledImages | None = None,
        further: LabelledImages | None = None,
        keeps_clear: bool = False,
    ) -> None:
        self._dataset, self._unlabelled, self._further = dataset, unlabelled, further
        self._recipe = recipe
        self._transform = TrainTransform(recipe=recipe, keeps_clear=keeps_clear)
        self._pictures: list[tuple[int, NDArray[np.int64]]] = []
        if pixels is not None and recipe.class_balance > 0:
            found = [(label, np.flatnonzero(pixels[:, label])) for label in range(pixels.shape[1])]
            self._pictures = [(label, examples) for label, examples in found if examples.size]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Give a crop `(h, w, 3)` or `(h, w, 6)` uint8 RGB and its labels `(h, w)` uint8."""
        example, position = key
        rng = np.random.default_rng((self._recipe.seed, 1, position))
        if self._unlabelled is not None and rng.random() < self._recipe.unlabelled_share:
            rgb, valid = self._transform(*self._unlabelled[int(rng.integers(len(self._unlabelled)))], rng)
            labels = np.where(valid == IGNORE_INDEX, valid, np.uint8(TAUGHT))
            return torch.from_numpy(rgb), torch.from_numpy(labels)
        if self._further is not None and rng.random() < self._recipe.further_share:
            rgb, labels = self._transform(*self._further[int(rng.integers(len(self._further)))], rng)
            return torch.from_numpy(rgb), torch.from_numpy(labels)
        wanted = None
        if self._pictures and rng.random() < self._recipe.class_balance:
            wanted, examples = self._pictures[rng.integers(len(self._pictures))]
            example = int(rng.choice(examples))
        rgb, labels = self._transform(*self._dataset[example], rng, wanted)
        if self._recipe.class_mix > 0 and rng.random() < self._recipe.class_mix:
            other = self._transform(*self._dataset[int(rng.integers(len(self._dataset)))], rng)
            rgb, labels = paste_classes(rgb, labels, *other, rng)
        return torch.from_numpy(rgb), torch.from_numpy(labels)


def _count_pixels(dataset: LabelledImages) -> NDArray[np.int64]:
    """Count the pixels of each class in each picture, `(N, num_classes)`."""

    def count(index: int) -> NDArray[np.int64]:
        return np.bincount(dataset[index][1].ravel(), minlength=256)[: len(dataset.classes)]

    with ThreadPoolExecutor() as pool:
        counts = np.stack(list(pool.map(count, range(len(dataset)))))
    if not counts.any():
        raise DatasetError("no pixel of the training pictures has a class; do the label files hold class indices?")
    return counts
