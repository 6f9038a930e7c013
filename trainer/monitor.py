"""What a run shows of itself: a bar, log lines, and TensorBoard."""

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bsdnet.classes import ClassSet
from bsdnet.errors import TrainingError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

_WINDOW = 50
"""Steps that a mean runs over, and between two points of a curve."""
_LINE_EVERY_S = 60.0
"""Seconds between two log lines where there is no bar."""
_PANEL_PX = 512
"""Longer side of a picture in TensorBoard."""
_GAP_PX = 4


class _Step(NamedTuple):
    losses: dict[str, float]
    data_s: float
    gradient_norm: float


class RunMonitor:
    """The bar, the log lines and the curves of one run; a context manager, or `close` it.

    The bar is drawn on stderr if that is a terminal; log lines go above it. Elsewhere, as in a file, a line a minute
    says what the bar would. TensorBoard's files are in the folder's `tensorboard`; what a killed run wrote there after
    the step that it resumes from is hidden.

    Args:
        folder: where the run lives.
        iterations: steps of the whole run.
        start: steps that were made before this start.
        batch_size: pictures in a step, over all processes together.
        device: where the network is, for its memory.
        enabled: whether anything is shown at all: in the main process only.
        tensorboard: whether TensorBoard's files are written.

    Raises:
        TrainingError: TensorBoard is asked for and not installed, or its files cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        iterations: int,
        start: int,
        batch_size: int,
        device: torch.device,
        *,
        enabled: bool = True,
        tensorboard: bool = False,
    ) -> None:
        self._iteration, self._iterations, self._batch_size = start, iterations, batch_size
        self._device, self._enabled = device, enabled
        self._writer = _open_writer(folder / "tensorboard", start) if enabled and tensorboard else None
        self._bar = tqdm(
            total=iterations,
            initial=start,
            unit="it",
            dynamic_ncols=True,
            file=sys.stderr,
            disable=None if enabled else True,  # None: not a terminal, no bar
        )
        self._redirection = ExitStack()
        if not self._bar.disable:
            self._redirection.enter_context(logging_redirect_tqdm())
        self._steps: deque[_Step] = deque(maxlen=_WINDOW)
        self._paused_s = 0.0
        self._ends_s = deque([self._clock_s()], maxlen=_WINDOW + 1)
        self._line_at_s, self._line_after = self._ends_s[0], start
        self._lr = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is, and write what is left to write."""
        self._bar.close()
        self._redirection.close()
        if self._writer is not None:
            self._writer.close()

    @property
    def draws_pictures(self) -> bool:
        """Whether `pictures` goes anywhere: if not, none needs to be segmented."""
        return self._writer is not None

    def step(self, losses: Mapping[str, float], lr: float, data_s: float, gradient_norm: float) -> None:
        """Count a step.

        All are plain floats. `float()` of a CUDA tensor waits for all that the device has been given to do until then.

        Args:
            losses: the loss and its parts, by name.
            lr: learning rate.
            data_s: seconds that the step waited for its pictures.
            gradient_norm: L2 norm of all gradients before they were clipped.
        """
        if not self._enabled:
            return
        self._iteration += 1
        self._lr = lr
        self._steps.append(_Step(dict(losses), data_s, gradient_norm))
        self._ends_s.append(self._clock_s())
        self._bar.set_postfix_str(self._summary(), refresh=False)
        self._bar.update()
        if self._bar.disable and self._ends_s[-1] - self._line_at_s >= _LINE_EVERY_S:
            self.log_line()
        if self._writer is not None and self._iteration % _WINDOW == 0:
            for name, value in self._scalars().items():
                self._writer.add_scalar(name, value, self._iteration)

    def log_line(self) -> None:
        """Log what the bar shows, for runs whose output goes to a file; once after each step at most."""
        if not self._enabled or self._iteration == self._line_after:
            return
        self._line_at_s, self._line_after = self._ends_s[-1], self._iteration
        left_s = (self._iterations - self._iteration) * self._batch_size / self._images_per_s()
        logger.info(
            "iteration %d of %d: %s, %s left without evaluations",
            self._iteration, self._iterations, self._summary(), tqdm.format_interval(left_s),
        )  # fmt: skip

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of images/s and of the time left what happens in between, such as an evaluation."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self._paused_s += time.perf_counter() - start_s
            self._bar.unpause()

    def evaluation(self, score: float, iou: Mapping[str, float]) -> None:
        """Write the curves of an evaluation.

        Args:
            score: what the run is judged by, 0 to 1.
            iou: of each class by name, 0 to 1; NaN for a class that does not occur is left out.
        """
        if self._writer is None:
            return
        self._writer.add_scalar("evaluation/score", score, self._iteration)
        for name, value in iou.items():
            if not np.isnan(value):
                self._writer.add_scalar(f"iou/{name}", value, self._iteration)
        self._writer.flush()

    def pictures(
        self,
        rgb: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.uint8]],
        predicted: Sequence[NDArray[np.uint8]],
        classes: ClassSet,
    ) -> None:
        """Show pictures with their labels and what the network says, as `side_by_side` draws them.

        Args:
            rgb: pictures, each `(H, W, 3)` uint8; arrays with a dimension more will do.
            labels: of each, `(H, W)` uint8, 255 for no class.
            predicted: of each, `(H, W)` uint8.
            classes: whose colours they are drawn in.
        """
        if self._writer is None:
            return
        for number, picture in enumerate(zip(rgb, labels, predicted, strict=True)):
            drawn = side_by_side(*picture, classes)
            self._writer.add_image(f"pictures/{number}", drawn, self._iteration, dataformats="HWC")
        self._writer.flush()

    def _clock_s(self) -> float:
        return time.perf_counter() - self._paused_s

    def _images_per_s(self) -> float:
        return (len(self._ends_s) - 1) * self._batch_size / max(self._ends_s[-1] - self._ends_s[0], 1e-9)

    def _data_share(self) -> float:
        return sum(step.data_s for step in self._steps) / max(self._ends_s[-1] - self._ends_s[0], 1e-9)

    def _mean_losses(self) -> dict[str, float]:
        """Average each part over the steps in the window that had it."""
        values: dict[str, list[float]] = {}
        for step in self._steps:
            for name, value in step.losses.items():
                values.setdefault(name, []).append(value)
        return {name: sum(parts) / len(parts) for name, parts in values.items()}

    def _memory_gib(self) -> float | None:
        """Give the most that PyTorch's tensors have taken of the GPU; None on the CPU."""
        if self._device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self._device) / 2**30

    def _summary(self) -> str:
        parts = [f"{name} {value:.3f}" for name, value in self._mean_losses().items()]
        parts += [
            f"lr {self._lr:.1e}",
            f"{self._images_per_s():.1f} images/s",
            f"data {100 * self._data_share():.0f} %",
        ]
        memory_gib = self._memory_gib()
        return ", ".join(parts if memory_gib is None else [*parts, f"{memory_gib:.1f} GiB"])

    def _scalars(self) -> dict[str, float]:
        scalars = {f"loss/{name}": value for name, value in self._mean_losses().items()}
        scalars["lr"] = self._lr
        scalars["gradient_norm"] = sum(step.gradient_norm for step in self._steps) / len(self._steps)
        scalars["speed/images_per_s"] = self._images_per_s()
        scalars["speed/data_share"] = self._data_share()
        memory_gib = self._memory_gib()
        return scalars if memory_gib is None else scalars | {"speed/memory_gib": memory_gib}


def side_by_side(
    rgb: NDArray[np.uint8], labels: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: ClassSet
) -> NDArray[np.uint8]:
    """Draw picture, labels and prediction next to one another, at most 512 px on the longer side of each.

    Args:
        rgb: `(H, W, 3)` uint8.
        labels: `(H, W)` uint8; what is no class is black.
        predicted: `(H, W)` uint8.
        classes: whose colours they are drawn in.

    Returns:
        `(h, w, 3)` uint8 RGB.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = classes.palette
    height, width = labels.shape
    shrink = min(1.0, _PANEL_PX / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    panels = [cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)]
    panels += [palette[cv2.resize(drawn, size, interpolation=cv2.INTER_NEAREST)] for drawn in (labels, predicted)]
    gap = np.full((size[1], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def _open_writer(folder: Path, start: int) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "TensorBoard was asked for, but it is not installed: pip install 'bsdnet[train]', or train without it"
        ) from error
    try:
        return SummaryWriter(str(folder), purge_step=start + 1)
    except OSError as error:
        raise TrainingError(f"TensorBoard's files cannot be written to {folder}: {error.strerror or error}") from error
