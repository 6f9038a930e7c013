"""Pretraining of the backbone: classification of small pictures."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.checkpoint import save_backbone
from bsdnet.errors import ConfigError
from bsdnet.modeling.bsdnet import Backbone, BSDNetConfig
from bsdnet.modeling.folding import fold_batch_norms
from trainer.device import autocast, place
from trainer.distributed import Processes, sum_over_processes
from trainer.efficientnet import ImageNetClassifier
from trainer.monitor import RunMonitor
from trainer.pretrain_data import ClassificationData, resized
from trainer.recipes import PretrainRecipe, iterations_of, recipe_as_dict
from trainer.sampling import PositionSampler
from trainer.schedule import build_optimizer
from trainer.segformer import VARIANTS, SegFormerClassifier
from trainer.trainees import read_backbone, student_config

logger = logging.getLogger(__name__)


class Classifier(nn.Module):
    """The backbone with global average pooling and a linear layer.

    Args:
        config: shape of the backbone.
        num_classes: classes to tell apart.
        architecture: name of the network, kept with the weights.
        backbone: one of that shape to go on from; None draws its weights.
    """

    def __init__(
        self, config: BSDNetConfig, num_classes: int, architecture: str, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.backbone = Backbone(config) if backbone is None else backbone
        self.linear = nn.Linear(config.channels[3], num_classes)
        self._architecture = architecture

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes)`."""
        logits: Tensor = self.linear(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to the mean of stage 4, `(B, C)`."""
        mean: Tensor = self.backbone(x).stage4.mean((2, 3))
        return mean

    def save(self, path: Path) -> None:
        """Write the backbone alone: the classifier is of no use for segmentation."""
        save_backbone(path, self.backbone, self._architecture)


def build_classifier(model: str, num_classes: int, *, initial: Path | None = None) -> Classifier | SegFormerClassifier:
    """Build what a recipe's `model` names: `s`, `b` or a SegFormer.

    Args:
        model: its name.
        num_classes: classes to tell apart.
        initial: a student's backbone to go on from; that of a narrower student is widened.

    Raises:
        ConfigError: there is no such model, or `initial` is given for a SegFormer or is of a wider student.
        CheckpointError: `initial` cannot be read, or does not fit.
        TrainingError: it is a SegFormer, and transformers is not installed.
    """
    if model in VARIANTS:
        if initial is not None:
            raise ConfigError(f"--init takes a backbone of a student, not for {model}")
        return SegFormerClassifier(model, num_classes)
    config = student_config(model)
    backbone = None if initial is None else read_backbone(initial, config)
    return Classifier(config, num_classes, f"bsdnet_{model}", backbone)


class ClassificationObjective(nn.Module):
    """Cross-entropy of a classifier, and where there is a teacher the divergence from its answers.

    Args:
        network: maps pictures to logits.
        recipe: label smoothing, number format, and the weight and the temperature of the teacher's answers.
        teacher: maps normalised pictures `(B, 3, H, W)` to logits `(B, answers)`, for a student alone; it never learns,
            and is no submodule.
        answers: how many answers it tells apart.

    Raises:
        ConfigError: there is a teacher, and the network is not a student.
    """

    def __init__(
        self, network: nn.Module, recipe: PretrainRecipe, teacher: nn.Module | None = None, answers: int = 1000
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self._teacher = [] if teacher is None else [teacher]  # in a list, so that neither optimizer nor state know it
        self.answers: nn.Linear | None = None
        if teacher is not None:
            if not isinstance(network, Classifier):
                raise ConfigError("a teacher's answers are learnt by s or b alone, not by another teacher")
            self.answers = nn.Linear(network.linear.in_features, answers)

    def forward(self, images: Tensor, targets: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Compute one step's loss.

        Args:
            images: normalised pictures, `(B, 3, H, W)`.
            targets: their classes, `(B,)` int64.
            counts: what the sum is divided by, `(1,)`.

        Returns:
            The scalar `loss`; with a teacher also its parts `ce` and `kd`, before they are weighed.
        """
        recipe, divisor = self.recipe, counts[0].float()
        with autocast(images.device, recipe.precision):
            if self.answers is None:
                logits = self.network(images)
            else:
                student = cast("Classifier", self.network)
                features = student.features(images)
                logits, answers = student.linear(features), self.answers(features)
        ce = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing, reduction="sum") / divisor
        if self.answers is None:
            return {"loss": ce}
        temperature = recipe.teacher_temperature
        expected = (self._ask(images) / temperature).log_softmax(1)
        found = (answers.float() / temperature).log_softmax(1)
        kd = F.kl_div(found, expected, reduction="sum", log_target=True) * temperature**2 / divisor
        return {"loss": ce + recipe.teacher_weight * kd, "ce": ce.detach(), "kd": kd.detach()}

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        """Give the teacher's logits, `(B, answers)` fp32."""
        if images.shape[2] < self.recipe.teacher_size:
            images = resized(images, self.recipe.teacher_size)
        with autocast(images.device, self.recipe.precision):
            logits: Tensor = self._teacher[0](images)
        return logits.float()


class PretrainTask:
    """Cross-entropy on pictures; judged by top-1 accuracy.

    Args:
        recipe: the numbers of the run.
        data: pictures to learn from and to judge by.
        device: where to train.
        initial: a student's backbone to go on from; None draws the weights.
        processes: the group of processes that trains together.
    """

    def __init__(
        self,
        recipe: PretrainRecipe,
        data: ClassificationData,
        device: torch.device,
        *,
        initial: Path | None = None,
        processes: Processes = Processes(),  # noqa: B008 - frozen
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.description = recipe_as_dict(recipe) | {
            "initial": None if initial is None else initial.name,
            "images": len(data),
            "classes": len(data.classes),
        }
        self.iterations = iterations_of(recipe, len(data))
        network = build_classifier(recipe.model, len(data.classes), initial=initial)
        teacher = None
        if recipe.teacher is not None:
            teacher = place(fold_batch_norms(ImageNetClassifier(recipe.teacher)), device)
        objective = ClassificationObjective(network, recipe, teacher)
        if processes.count > 1 and device.type == "cuda":
            objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]
        self.objective: ClassificationObjective = place(objective, device, channels_last=recipe.channels_last)
        self._data, self._device, self._processes = data, device, processes

    @property
    def network(self) -> nn.Module:
        """The classifier."""
        return self.objective.network

    def optimizer(self) -> torch.optim.Optimizer:
        """Build AdamW."""
        return build_optimizer(self.objective, self.recipe)

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give augmented pictures `(B, 3, S, S)` and their classes `(B,)` of every step from `start` on."""
        recipe = self.recipe
        sampler = PositionSampler(
            len(self._data),
            recipe.batch_size,
            seed=recipe.seed,
            start=start,
            stop=self.iterations,
            processes=self._processes,
        )
        return self._data.train(recipe, sampler, self._device)

    def count(self, targets: Tensor) -> Tensor:
        """Count the pictures, `(1,)`."""
        return torch.full((1,), float(len(targets)), dtype=torch.float64, device=targets.device)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, monitor: RunMonitor) -> float:
        """Give top-1 accuracy on the validation pictures, 0 to 1, and log it."""
        counts = torch.zeros(2, dtype=torch.int64, device=self._device)
        for images, labels in self._data.val(self.recipe, self._device, self._processes):
            with autocast(self._device, self.recipe.precision):
                logits = network(images)
            counts[0] += (logits.argmax(1) == labels).sum()
            counts[1] += len(labels)
        hits, total = sum_over_processes(counts, self._processes).tolist()
        accuracy = hits / total
        logger.info("top-1 accuracy on validation pictures: %.2f %%", 100 * accuracy)
        monitor.evaluation(accuracy, {})
        return float(accuracy)

    def save_weights(self, network: nn.Module, path: Path) -> None:
        """Write the network's pretrained part."""
        if not isinstance(network, Classifier | SegFormerClassifier):
            raise TypeError(f"expected a classifier, got {type(network).__name__}")
        network.save(path)
