"""Evaluation: labelled pictures segmented whole or by windows, at several scales and flipped, by any network."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from bsdnet.classes import IGNORE_INDEX, ClassSet
from bsdnet.errors import ConfigError
from bsdnet.metrics import ConfusionMatrix
from trainer.datasets.contract import LabelledImages
from trainer.device import autocast, normalize
from trainer.distributed import Processes, sum_over_processes
from trainer.recipes import Precision

_READERS = 4
_READ_AHEAD = 8
_BAND_PX = 64
_SIZE_STEP = 32  # the network's largest stride

_Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a network looks at a picture.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    size: tuple[int, int] | None = None
    """Height and width that every picture is brought to; None keeps its own."""
    short_side: int | None = None
    """Shorter side in pixels that every picture is brought to, its shape kept, both sides then rounded to multiples of
    32 as `Segmenter.size_for` does: logits at a stride reach beyond a picture of another size. Instead of `size`."""
    window: tuple[int, int] | None = None
    """Height and width of the windows that the network sees one after the other; None shows the picture whole."""
    overlap: float = 1 / 3
    """Smallest share of a window that the next one sees again."""
    flip: bool = False
    """Whether each view is also seen mirrored."""
    scales: tuple[float, ...] = (1.0,)
    """Factors of the size; the results at all of them are averaged."""
    precision: Precision = "fp32"
    """Number format of autocast; `fp32` computes without."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        for name, size in (("size", self.size), ("window", self.window)):
            if size is not None and (len(size) != 2 or min(size) < 32):
                raise ConfigError(f"{name} must be a height and a width of at least 32, got {size}")
        if self.short_side is not None and self.short_side < 32:
            raise ConfigError(f"short_side must be at least 32, got {self.short_side}")
        if self.size is not None and self.short_side is not None:
            raise ConfigError(f"at most one of size and short_side may be given, got {self.size} and {self.short_side}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap must be in [0, 1), got {self.overlap}")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise ConfigError(f"scales must be one or more numbers above 0, got {self.scales}")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision must be bf16, fp16 or fp32, got {self.precision!r}")


@torch.inference_mode()
def evaluate(
    network: Callable[[Tensor], Tensor],
    dataset: LabelledImages,
    device: torch.device,
    *,
    options: EvaluationOptions = EvaluationOptions(),
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    processes: Processes = Processes(),  # noqa: B008 - frozen
    keep: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> ConfusionMatrix:
    """Segment pictures and compare them with their labels at the labels' own size.

    Pictures are resized on the device, bilinearly, and antialiased where they shrink. They are never padded: the
    attention's softmax would see it. A single view's logits are enlarged bilinearly; of several views the
    probabilities are averaged, first over the windows and mirrored views of a scale, then over the scales.

    Args:
        network: maps normalised pictures `(1, 3, H, W)` to logits `(1, num_classes, h, w)` of any stride; in evaluation
            mode, on `device`.
        dataset: pictures with labels; read by several threads at once.
        device: where to compute.
        options: how to look at a picture.
        mean: of the RGB that the network was trained with, scaled to 0..1.
        std: likewise.
        processes: who shares the work; each takes every `count`-th picture.
        keep: called with the index of each picture and its predicted classes, `(H, W)` uint8.

    Returns:
        Pixels by true and predicted class, of all processes together.

    Raises:
        DatasetError: a picture cannot be read.
        ConfigError: the network has another number of classes than the data set.
    """
    num_classes = len(dataset.classes)
    counts = torch.zeros(num_classes + 1, num_classes, dtype=torch.int64, device=device)
    mine = range(processes.rank, len(dataset), processes.count)
    for index, (rgb, labels) in zip(mine, _read_ahead(dataset, mine), strict=True):
        scales = _look(network, rgb, device, options, mean, std)
        found = scales[0][0].logits.shape[1]
        if found != num_classes:
            raise ConfigError(f"the network tells {found} classes apart, the data set has {num_classes}")
        predicted = _segment(scales, labels.shape)
        counts += _count(torch.from_numpy(labels).to(device), predicted, num_classes)
        if keep is not None:
            keep(index, predicted.cpu().numpy())
    matrix = ConfusionMatrix(num_classes)
    matrix.counts += sum_over_processes(counts[:-1], processes).cpu().numpy()
    return matrix


@torch.inference_mode()
def segment(
    network: Callable[[Tensor], Tensor],
    rgb: NDArray[np.uint8],
    device: torch.device,
    *,
    options: EvaluationOptions = EvaluationOptions(),
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    surely: float = 0.0,
) -> NDArray[np.uint8]:
    """Segment one picture as `evaluate` does, to be looked at or written.

    Args:
        network: as of `evaluate`.
        rgb: `(H, W, 3)` uint8.
        device: where to compute.
        options: how to look at the picture.
        mean: of the RGB that the network was trained with, scaled to 0..1.
        std: likewise.
        surely: the smallest probability of the likeliest class with which a pixel gets it; others are 255.

    Returns:
        The likeliest class of each pixel, `(H, W)` uint8.
    """
    scales = _look(network, rgb, device, options, mean, std)
    predicted: NDArray[np.uint8] = _segment(scales, rgb.shape[:2], surely).cpu().numpy()
    return predicted


def format_iou(matrix: ConfusionMatrix, classes: ClassSet) -> str:
    """Write mIoU and the IoU of each class as a table, in per cent."""
    width = max(len(name) for name in classes.names)
    rows = [f"{name:<{width}}  {100 * iou:5.1f}" for name, iou in zip(classes.names, matrix.iou, strict=True)]
    return "\n".join([f"{'mIoU':<{width}}  {100 * matrix.mean_iou:5.1f}", *rows])


def evaluation_as_dict(matrix: ConfusionMatrix, classes: ClassSet, images: int) -> dict[str, object]:
    """Give the result as plain values for JSON: shares from 0 to 1, None where there is nothing to divide by."""
    named = zip(classes.names, matrix.iou.tolist(), strict=True)
    return {
        "images": images,
        "miou": _none_for_nan(matrix.mean_iou),
        "pixel_accuracy": _none_for_nan(matrix.pixel_accuracy),
        "iou": {name: _none_for_nan(iou) for name, iou in named},
    }


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _read_ahead(dataset: LabelledImages, indices: Iterable[int]) -> Iterator[_Pair]:
    """Give pairs in order, while threads read the next ones: OpenCV decodes without the interpreter's lock."""
    pending: deque[Future[_Pair]] = deque()
    pool = ThreadPoolExecutor(_READERS)
    try:
        for index in indices:
            pending.append(pool.submit(dataset.__getitem__, index))
            if len(pending) > _READ_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _View(NamedTuple):
    """What a network said about a part of a picture."""

    logits: Tensor
    """`(1, num_classes, h, w)` fp32."""
    top: float
    """Edges of the part as shares of the picture's height and width, 0 to 1."""
    bottom: float
    left: float
    right: float


def _look(
    network: Callable[[Tensor], Tensor],
    rgb: NDArray[np.uint8],
    device: torch.device,
    options: EvaluationOptions,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> list[list[_View]]:
    """Show the network a picture at every scale."""
    image = normalize(torch.from_numpy(rgb)[None].to(device), mean, std)
    with autocast(device, options.precision):
        return [_look_at_scale(network, image, scale, options) for scale in options.scales]


def _look_at_scale(
    network: Callable[[Tensor], Tensor], image: Tensor, scale: float, options: EvaluationOptions
) -> list[_View]:
    """Show the network all windows of a picture `(1, 3, H, W)` at one scale."""
    size = _input_size((image.shape[2], image.shape[3]), scale, options)
    if size != image.shape[2:]:
        image = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
    height, width = size
    window = options.window or size
    rows, columns = (_spans(side, part, options.overlap) for side, part in zip(size, window, strict=True))
    views = []
    for (top, bottom), (left, right) in product(rows, columns):
        part = image[:, :, top:bottom, left:right]
        seen = [network(part)]
        if options.flip:
            seen.append(network(part.flip(-1)).flip(-1))
        edges = (top / height, bottom / height, left / width, right / width)
        views += [_View(logits.float(), *edges) for logits in seen]
    return views


def _input_size(own: tuple[int, int], scale: float, options: EvaluationOptions) -> tuple[int, int]:
    height, width = options.size or own
    step = 1
    if options.short_side is not None:
        scale *= options.short_side / min(own)
        step = _SIZE_STEP
    height, width = (max(step, math.floor(side * scale / step + 0.5) * step) for side in (height, width))
    return height, width


def _spans(length: int, window: int, overlap: float) -> list[tuple[int, int]]:
    """Lay windows over a side so that each pixel is seen; the last one is moved back to end where the side ends."""
    if length <= window:
        return [(0, length)]
    stride = max(1, int(window * (1 - overlap)))
    steps = math.ceil((length - window) / stride)
    starts = [min(step * stride, length - window) for step in range(steps + 1)]
    return [(start, start + window) for start in starts]


def _segment(scales: list[list[_View]], size: tuple[int, ...], surely: float = 0.0) -> Tensor:
    """Give the likeliest class of each pixel, `size` uint8, and 255 where it is less likely than `surely`."""
    if len(scales) == len(scales[0]) == 1 and surely <= 0:
        return _largest(scales[0][0].logits, size)
    bands = []
    for first in range(0, size[0], _BAND_PX):  # not all rows at once, for the same reason as in _largest
        probability, labels = _blend(scales, first, min(first + _BAND_PX, size[0]), size).max(0)
        bands.append(labels.to(torch.uint8).masked_fill_(probability < surely, IGNORE_INDEX))
    return torch.cat(bands)


def _largest(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Enlarge logits and take the largest: class by class, since 150 classes at 2048x1024 would take gigabytes."""
    best = torch.full(size, -torch.inf, device=logits.device)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index in range(logits.shape[1]):
        plane = F.interpolate(logits[:, index : index + 1], size=size, mode="bilinear", align_corners=False)[0, 0]
        labels.masked_fill_(plane > best, index)
        torch.maximum(best, plane, out=best)
    return labels


def _blend(scales: list[list[_View]], first: int, last: int, size: tuple[int, ...]) -> Tensor:
    """Average the probabilities in the rows `first` to `last` of a picture of `size`, `(num_classes, rows, W)`."""
    y = (torch.arange(first, last) + 0.5) / size[0]  # pixels' centres as shares of the picture
    x = (torch.arange(size[1]) + 0.5) / size[1]
    some = scales[0][0].logits
    total = some.new_zeros(some.shape[1], len(y), len(x))
    for views in scales:
        summed, seen = torch.zeros_like(total), total.new_zeros(total.shape[1:])
        for logits, top, bottom, left, right in views:
            rows, columns = _within(y, top, bottom), _within(x, left, right)
            grid = _grid((y[rows] - top) / (bottom - top), (x[columns] - left) / (right - left), logits.device)
            sampled = F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)
            summed[:, rows, columns] += sampled[0].softmax(0)  # of no pixel, where the rows lie outside the window
            seen[rows, columns] += 1
        total += summed / seen
    return total / len(scales)


def _within(centres: Tensor, low: float, high: float) -> slice:
    """Find which of the growing centres lie in `[low, high)`."""
    first, last = torch.searchsorted(centres, torch.tensor([low, high])).tolist()
    return slice(first, last)


def _grid(y: Tensor, x: Tensor, device: torch.device) -> Tensor:
    """Say where to sample a map, `(1, rows, columns, 2)`: 0 and 1 are its outer edges, as in `F.interpolate`."""
    rows, columns = torch.meshgrid((2 * y - 1).to(device), (2 * x - 1).to(device), indexing="ij")
    return torch.stack((columns, rows), -1)[None]


def _count(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true and predicted class, `(num_classes + 1, num_classes)`; the last row has those of no class.

    On the device, since `ConfusionMatrix.update` takes 70 ms of a CPU core for a picture of 2048x1024.
    """
    pairs = labels.clamp(max=num_classes).int() * num_classes + predicted
    return torch.bincount(pairs.flatten(), minlength=(num_classes + 1) * num_classes).view(-1, num_classes)
