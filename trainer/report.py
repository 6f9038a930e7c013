"""Evaluation of weights from the command line, and its report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError, SinkError
from bsdnet.metrics import ConfusionMatrix
from trainer.data import Recordings, open_split
from trainer.datasets.cityscapes import Cityscapes, save_cityscapes_prediction
from trainer.datasets.combining import Part
from trainer.datasets.contract import LabelledImages
from trainer.distributed import Processes
from trainer.evaluation import EvaluationOptions, evaluate, evaluation_as_dict, format_iou
from trainer.trained import open_trained


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found."""

    dataset: str
    """Name of the data set."""
    split: str
    """Its part."""
    images: int
    """Pictures looked at."""
    classes: ClassSet
    """What was told apart."""
    by_group: dict[str, ConfusionMatrix]
    """Pixels by true and predicted class, for each recording; one entry, named by nothing, where there are none."""

    @property
    def matrix(self) -> ConfusionMatrix:
        """All recordings together."""
        total = ConfusionMatrix(len(self.classes))
        total.counts += sum(part.counts for part in self.by_group.values())
        return total

    def as_table(self) -> str:
        """Write mIoU, that of each class, and that of each recording, in per cent."""
        groups = [f"mIoU of {name}  {100 * part.mean_iou:5.1f}" for name, part in self.by_group.items() if name]
        return "\n".join([format_iou(self.matrix, self.classes), *groups])

    def as_dict(self) -> dict[str, object]:
        """Give plain values for JSON, shares from 0 to 1."""
        groups = {
            name: evaluation_as_dict(part, self.classes, 0)["miou"] for name, part in self.by_group.items() if name
        }
        head: dict[str, object] = {"dataset": self.dataset, "split": self.split}
        return head | evaluation_as_dict(self.matrix, self.classes, self.images) | {"miou_by_recording": groups}


def evaluate_weights(
    weights: Sequence[Path],
    name: str,
    root: Path | None,
    split: str,
    device: torch.device,
    *,
    options: EvaluationOptions,
    processes: Processes,
    hold_out: str | None = None,
    predictions: Path | None = None,
) -> Report:
    """Evaluate a student, a teacher, or several as an ensemble.

    Args:
        weights: files from `bsdnet-train` and teachers' folders; of several, the probabilities are averaged.
        name: name of the data set.
        root: its folder.
        split: its part.
        device: where to compute.
        options: how to look at a picture; without a size, pictures have the short side that the weights were trained
            at, and a public SegFormer, whose weights do not say it, sees them at their own.
        processes: who shares the work.
        hold_out: the one recording of the split to look at; None looks at all.
        predictions: folder for label ids as the Cityscapes benchmark takes them; made if missing.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: they are made for other classes, or predictions of another data set are asked for.
        DatasetError: the data set is missing or incomplete.
        SinkError: predictions cannot be written.
    """
    dataset = open_split(name, root, split, only=[hold_out] if hold_out else None)
    opened = open_trained(weights, device, dataset.classes)
    if opened.classes.names != dataset.classes.names:
        raise ConfigError(
            f"{weights[0]} is made for the {len(opened.classes)} classes of {opened.classes.name}, the data set has "
            f"the {len(dataset.classes)} of {dataset.classes.name}: pass --weights that were trained on it"
        )
    if options.size is None and options.short_side is None:
        options = replace(options, short_side=opened.short_side)
    if predictions is not None:
        _make_predictions_folder(predictions, dataset)
    by_group = {
        group: evaluate(
            opened.network,
            part,
            device,
            options=options,
            mean=opened.mean,
            std=opened.std,
            processes=processes,
            keep=None if predictions is None else _writer(predictions, part),
        )
        for group, part in _by_recording(dataset).items()
    }
    return Report(dataset=name, split=split, images=len(dataset), classes=dataset.classes, by_group=by_group)


def _by_recording(dataset: Recordings) -> dict[str, Part]:
    """Divide a data set into its recordings, sorted by name; with fewer than two it stays whole, under no name."""
    has_groups = len(dataset.groups) > 1
    members: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        members.setdefault(dataset.group(index) if has_groups else "", []).append(index)
    return {group: Part(dataset, indices) for group, indices in sorted(members.items())}


def _writer(folder: Path, dataset: LabelledImages) -> Callable[[int, NDArray[np.uint8]], None]:
    def write(index: int, labels: NDArray[np.uint8]) -> None:
        save_cityscapes_prediction(folder, dataset.name(index), labels)

    return write


def _make_predictions_folder(folder: Path, dataset: object) -> None:
    if not isinstance(dataset, Cityscapes):
        raise ConfigError("--predictions writes the format of the Cityscapes benchmark: it needs --dataset cityscapes")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
