"""The per-frame work around the network on a GPU: by Triton's kernels where they run, else by torch in many steps."""

import logging
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from bsdnet.errors import ConfigError, first_line
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer
from bsdnet.runtime.postprocess import labels_on_device
from bsdnet.runtime.preprocess import Preprocessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFrame:
    """A `Picture` whose planes are on the GPU."""

    planes: tuple[Tensor, ...]
    """uint8, as of a `Picture`: the pixels of a row are contiguous."""
    encoding: YuvEncoding | None = None
    """What Y, U and V mean; None: it is RGB."""

    @classmethod
    def of(cls, picture: Picture, device: torch.device) -> Self:
        """Copy a picture to a device; this waits until it is there."""
        planes = (torch.from_numpy(np.ascontiguousarray(plane)).to(device) for plane in picture.planes)
        return cls(planes=tuple(planes), encoding=picture.encoding)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.planes[0].shape[0], self.planes[0].shape[1]

    def check(self, device: torch.device) -> None:
        """Reject what is no frame on a device: code on a GPU would read whatever lies there.

        Raises:
            ConfigError: the planes lie elsewhere, or make no picture.
        """
        for plane in self.planes:
            pixel_strides = (1,) if plane.ndim == 2 else (3, 1)
            if plane.device != device or plane.dtype != torch.uint8 or plane.stride()[1:] != pixel_strides:
                raise ConfigError(
                    f"a frame on {device} needs uint8 planes there whose rows have no gaps between pixels; "
                    f"got {plane.dtype} on {plane.device} with strides {plane.stride()}"
                )
        if len({plane.stride(0) for plane in self.planes[1:]}) > 1:
            raise ConfigError(
                "the rows of U and V must lie equally far apart; "
                f"got strides {self.planes[1].stride()} and {self.planes[2].stride()}"
            )
        shapes = [np.broadcast_to(np.uint8(0), plane.shape) for plane in self.planes]  # they take no memory
        Picture(planes=tuple(shapes), encoding=self.encoding)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceResults:
    """What is computed for a frame, on the GPU."""

    labels: Tensor
    """Class indices, `(H, W)` uint8, rows without gaps."""
    confidence: Tensor | None
    """As of a `Prediction`, like `labels`; None if it is not wanted."""
    drawn: tuple[Tensor, ...]
    """Planes of the rendered frame, as of a `Picture`; empty if it is not wanted."""


class Stages(Protocol):
    """What comes before and after the network. All of it is queued on the current stream."""

    def prepare(self, frame: DeviceFrame, size: tuple[int, int]) -> Tensor:
        """Make of a frame what the network takes, `(1, 3, *size)`, channels_last."""
        ...

    def decide(self, logits: Tensor, frame: DeviceFrame, renderer: Renderer | None, results: DeviceResults) -> None:
        """Write labels and confidence into `results`."""
        ...

    def draw(self, frame: DeviceFrame, renderer: Renderer, results: DeviceResults) -> None:
        """Complete the rendered frame of `results`, whose labels are there."""
        ...


class TorchStages:
    """The stages in torch's operations: slower, but they run wherever torch does."""

    def __init__(self, preprocessor: Preprocessor) -> None:
        self._preprocessor = preprocessor

    def prepare(self, frame: DeviceFrame, size: tuple[int, int]) -> Tensor:
        """See `Stages`."""
        return self._preprocessor.from_tensors(frame.planes, frame.encoding, size)

    def decide(self, logits: Tensor, frame: DeviceFrame, renderer: Renderer | None, results: DeviceResults) -> None:
        """See `Stages`."""
        size = results.labels.shape[0], results.labels.shape[1]
        labels, confidence = labels_on_device(logits, size, confidence=results.confidence is not None)
        results.labels.copy_(labels)
        if results.confidence is not None and confidence is not None:
            results.confidence.copy_(confidence)

    def draw(self, frame: DeviceFrame, renderer: Renderer, results: DeviceResults) -> None:
        """See `Stages`."""
        drawn = renderer.render_torch(frame.planes, results.labels, frame.encoding)
        for target, plane in zip(results.drawn, drawn, strict=True):
            target.copy_(plane)


class KernelStages:
    """The stages in two kernels: the second one also draws, so that only the legend is left to `draw`.

    Args:
        preprocessor: resizes and normalises; it is on `device`.
        device: the GPU, which is the current one.
        dtype: what the network takes.

    Raises:
        Exception: of any kind, where Triton is not there or cannot compile for this device.
    """

    def __init__(self, preprocessor: Preprocessor, device: torch.device, dtype: torch.dtype) -> None:
        from bsdnet.runtime import kernels  # it needs triton

        self._kernels = kernels
        self._preprocessor = preprocessor
        self._dtype = dtype
        self._try(device)

    def prepare(self, frame: DeviceFrame, size: tuple[int, int]) -> Tensor:
        """See `Stages`."""
        return self._kernels.normalise(frame.planes, self._preprocessor.affine(frame.encoding), size, self._dtype)

    def decide(self, logits: Tensor, frame: DeviceFrame, renderer: Renderer | None, results: DeviceResults) -> None:
        """See `Stages`."""
        table = None if renderer is None else renderer.table(frame.encoding, logits.device)
        self._kernels.decide(
            logits, results.labels, results.confidence, planes=frame.planes, drawn=results.drawn, table=table
        )

    def draw(self, frame: DeviceFrame, renderer: Renderer, results: DeviceResults) -> None:
        """See `Stages`."""
        width = results.labels.shape[1]
        beside = results.drawn[0].shape[1] > width
        overlay = [plane[:, plane.shape[1] // 2 :] if beside else plane for plane in results.drawn]
        renderer.blend_legend(overlay, results.labels, frame.encoding)

    def _try(self, device: torch.device) -> None:
        """Launch both kernels once: what is missing shows only then."""
        rgb = torch.zeros((8, 8, 3), dtype=torch.uint8, device=device)
        x = self.prepare(DeviceFrame(planes=(rgb,)), (8, 8))
        labels = torch.empty((8, 8), dtype=torch.uint8, device=device)
        self._kernels.decide(x, labels)
        labels.cpu()


def select_stages(preprocessor: Preprocessor, device: torch.device, dtype: torch.dtype) -> Stages:
    """Take the kernels if they run on this GPU, else torch; the reason is logged.

    Args:
        preprocessor: resizes and normalises; it is on `device`.
        device: a CUDA device.
        dtype: what the network takes.
    """
    try:
        with torch.cuda.device(device):
            return KernelStages(preprocessor, device, dtype)
    except Exception as error:  # a compiler's failures come as anything
        logger.warning(
            "frames are prepared and drawn in many small steps, without fused kernels: %s", first_line(error)
        )
        return TorchStages(preprocessor)
