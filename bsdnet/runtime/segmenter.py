"""The library's front door: a frame in, its classes out."""

import math
import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from bsdnet.checkpoint import Checkpoint, default_weights, load_checkpoint
from bsdnet.classes import ClassSet
from bsdnet.devices import select_device
from bsdnet.errors import BackendError, ConfigError, first_line
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer, RenderStyle
from bsdnet.runtime.backends import BackendName, Network, PrecisionName, select_precision
from bsdnet.runtime.cuda_runner import CudaDevice, CudaRunner
from bsdnet.runtime.cuda_stages import DeviceFrame, DeviceResults, select_stages
from bsdnet.runtime.prediction import Output, PredictionHandle
from bsdnet.runtime.preprocess import Preprocessor
from bsdnet.runtime.runners import CpuRunner, Job, Runner
from bsdnet.runtime.smoothing import Smoother

SIZE_STEP = 32
"""The network halves its input five times; sizes that are multiples of this leave no odd rows and columns."""
MAX_ASPECT = 8
"""The long side that the network sees is at most so many times the training pictures' short side."""
SHIPPED = ("s", "b")
"""Names of the weights that ship with the package."""
LABELS: frozenset[Output] = frozenset({"labels"})
RENDERED: frozenset[Output] = frozenset({"rendered"})


class Segmenter:
    """Segments frames with one network on one device.

    Make one with `Segmenter.load`. It may be used by several threads; frames are worked off in the order in which
    they come. Another process, forked or not, needs one of its own. Use it as a context manager, or call `close`.

    Args:
        checkpoint: the network and what its outputs mean.
        device: `auto`, `cpu`, `cuda`, or `cuda:1` and so on.
        backend: see `BackendName`.
        precision: see `PrecisionName`.
        size: height and width at which the network sees every frame; None for the default of `size_for`.
        style: how frames are drawn; None for an overlay with a legend.

    Raises:
        ConfigError: an argument has a value that cannot work.
        BackendError: the device or the backend is not to be had here.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "auto",
        backend: BackendName = "auto",
        precision: PrecisionName = "auto",
        size: tuple[int, int] | None = None,
        style: RenderStyle | None = None,
    ) -> None:
        self._size = None if size is None else _checked_size(size)
        metadata = checkpoint.metadata
        self.classes: ClassSet = metadata.class_set
        """What the labels mean: names and palette."""
        self.architecture: str = metadata.architecture
        """Which network it is: `bsdnet_s` or `bsdnet_b`."""
        self.device: torch.device = select_device(device)
        """Where the network runs."""
        self.precision: str = select_precision(precision, self.device)
        """Number format of the network: `fp32`, `bf16` or `fp16`."""
        self.style = style or RenderStyle()
        """How `render` and `submit` draw unless they are told otherwise."""
        self._train_size = metadata.train_size
        self._renderer = Renderer(self.classes, self.style)
        self._runner: Runner
        with _device_errors(self.device):
            self._network = Network(checkpoint.model, self.device, self.precision, backend)
            preprocessor = Preprocessor(metadata.mean, metadata.std, self.device, self._network.dtype)
            if self.device.type == "cuda":
                stages = select_stages(preprocessor, self.device, self._network.dtype)
                self._runner = CudaRunner(self._network, stages, CudaDevice(self.device))
            else:
                self._runner = CpuRunner(self._network, preprocessor)
        self._closed = False
        self._process = os.getpid()

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        backend: BackendName = "auto",
        precision: PrecisionName = "auto",
        size: tuple[int, int] | None = None,
        style: RenderStyle | None = None,
    ) -> Self:
        """Load a network and make it ready.

        Args:
            weights: a .safetensors file made by bsdnet-train; `s` or `b` for weights that ship with the package;
                None for BSDNet-S on CamVid's 11 classes.
            device: see `Segmenter`.
            backend: see `Segmenter`.
            precision: see `Segmenter`.
            size: see `Segmenter`.
            style: see `Segmenter`.

        Raises:
            CheckpointError: the weights are missing, broken, foreign or of another shape.
            ConfigError: an argument has a value that cannot work.
            BackendError: the device or the backend is not to be had here.
        """
        name = "s" if weights is None else str(weights)
        ships = name in SHIPPED or (name.isalnum() and not Path(name).exists())  # `S`, say: the error names what does
        checkpoint = load_checkpoint(default_weights(name) if ships else Path(name))
        return cls(checkpoint, device=device, backend=backend, precision=precision, size=size, style=style)

    @property
    def backend(self) -> str:
        """How the network is run; with `auto` it may step down when the first frame of a size comes."""
        return self._network.backend

    def size_for(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """Tell at which size the network sees frames of a size.

        Unless a size was asked for: the frame's aspect ratio, its short side as long as that of the training
        pictures, both rounded to multiples of 32. Smaller frames are enlarged; strips that are longer than eight times
        their width get a smaller scale, for the sake of memory. Nothing is padded: the attention's
        softmax runs over all positions and would see the padding.

        Args:
            frame_size: height and width of the frame in pixels.

        Returns:
            Height and width in pixels.
        """
        if self._size is not None:
            return self._size
        short, long = sorted(frame_size)
        scale = min(self._train_size) / max(short, long / MAX_ASPECT)
        height, width = (to_size_step(side * scale) for side in frame_size)
        return height, width

    def prepare(
        self,
        sizes: Iterable[tuple[int, int]],
        *,
        frame_size: tuple[int, int] | None = None,
        outputs: AbstractSet[Output] = RENDERED,
    ) -> None:
        """Make the network ready for input sizes, so that no frame waits for it.

        Backends that build engines build them here, which can take minutes, or load those that they built before. At
        most eight sizes are ready at once: with more, those that were not used for longest are loaded again.

        Args:
            sizes: heights and widths at which the network shall see frames, such as `size_for` gives.
            frame_size: height and width of the frames. On a GPU the kernels around the network, which are compiled for
                each format of frames, are then made ready too: black frames, RGB and YUV 4:2:0, take the whole way.
            outputs: what will be asked of these frames; see `submit`.

        Raises:
            ConfigError: a size is none.
            BackendError: the backend cannot run one of the sizes.
        """
        for size in map(_checked_size, sizes):
            with _device_errors(self.device):
                self._network.prepare(size)
            if frame_size is not None and self.device.type == "cuda":
                for picture in _black_pictures(frame_size):
                    for smoother in (None, Smoother()):  # averaged logits are of another type
                        self.submit(picture, outputs=outputs, size=size, smoother=smoother).result()

    def predict(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segment one frame.

        Args:
            rgb: `(H, W, 3)` uint8 RGB, of any size.

        Returns:
            Class indices, `(H, W)` uint8; `classes.names` and `classes.palette` explain them.

        Raises:
            ConfigError: `rgb` is no such frame.
            BackendError: inference failed, or the segmenter is closed.
        """
        labels = self.submit(rgb).result().labels
        assert labels is not None  # it was asked for
        return labels

    def render(self, rgb: NDArray[np.uint8], alpha: float | None = None) -> NDArray[np.uint8]:
        """Segment one frame and draw its classes.

        Args:
            rgb: `(H, W, 3)` uint8 RGB, of any size.
            alpha: opacity of the classes over the frame, 0 to 1; None for that of `style`, which is 0.5 by default.

        Returns:
            The drawn frame, `(H, W, 3)` uint8 RGB; side by side it is twice as wide.

        Raises:
            ConfigError: `rgb` is no such frame, or `alpha` is no opacity.
            BackendError: inference failed, or the segmenter is closed.
        """
        style = self.style if alpha is None else replace(self.style, alpha=alpha)
        rendered = self.submit(rgb, outputs={"rendered"}, style=style).result().rendered
        assert rendered is not None  # it was asked for
        return rendered.rgb

    def submit(
        self,
        picture: NDArray[np.uint8] | Picture,
        *,
        outputs: AbstractSet[Output] = LABELS,
        style: RenderStyle | None = None,
        size: tuple[int, int] | None = None,
        smoother: Smoother | None = None,
    ) -> PredictionHandle:
        """Have a frame segmented in the background.

        Results come in the order of the frames. While four are pending, this waits.

        Args:
            picture: `(H, W, 3)` uint8 RGB or a `Picture`, of any size; it must not be written to before the result is
                there.
            outputs: what to compute, of `labels`, `confidence` and `rendered`.
            style: how to draw; None for `self.style`.
            size: height and width at which the network sees this frame; None for `size_for`.
            smoother: averages this frame with the ones that it was given with before, to steady the labels of a video.
                Each stream needs one of its own, used with one segmenter; None: the frame stands alone.

        Returns:
            A handle on the prediction.

        Raises:
            ConfigError: `picture` is no such frame, `size` is none, or `outputs` asks for nothing or for something
                unknown.
            BackendError: the segmenter is closed or of another process, or the backend cannot run frames of this size.
        """
        if not isinstance(picture, Picture):
            _check_frame(picture)
            picture = Picture(planes=(np.ascontiguousarray(picture),))
        _check_outputs(outputs)
        if self._closed:
            raise BackendError("this segmenter is closed; load another one")
        if os.getpid() != self._process:  # its threads stayed behind: the frame would wait for ever
            raise BackendError("this segmenter was loaded by another process; load one in this process too")
        size = self.size_for(picture.size) if size is None else _checked_size(size)
        renderer = self._renderer_for(style or self.style)
        turn = None if smoother is None else smoother.turn(picture, size)
        job = Job(picture=picture, size=size, outputs=frozenset(outputs), renderer=renderer, turn=turn)
        try:
            return self._runner.submit(job)
        except BaseException:
            if turn is not None:
                turn.close()
            raise

    def run_resident(
        self,
        frame: DeviceFrame,
        *,
        outputs: AbstractSet[Output] = RENDERED,
        style: RenderStyle | None = None,
        size: tuple[int, int] | None = None,
    ) -> DeviceResults:
        """Segment a frame that lies on the GPU, and leave the results there; `DeviceFrame.of` brings a picture there.

        Nothing is copied from or to the host and nothing waits for the GPU: what the current stream does before is
        seen, and what it does afterwards sees the results.

        Args:
            frame: the frame; it must not be written to by other streams than the current one.
            outputs: as of `submit`; labels are there in any case.
            style: as of `submit`. A legend is left out where the class set has more classes than it has room for.
            size: as of `submit`.

        Returns:
            The results, in memory of their own.

        Raises:
            ConfigError: the frame lies elsewhere or is none, or `outputs` or `size` is as `submit` refuses it.
            BackendError: the segmenter is not on a GPU or is closed, or the backend cannot run frames of this size.
        """
        _check_outputs(outputs)
        if not isinstance(self._runner, CudaRunner):
            raise BackendError(
                f"this segmenter runs on {self.device}, frames can stay on a GPU only: load it with device 'cuda', "
                "or use submit, which takes frames in memory"
            )
        frame.check(self.device)
        renderer = self._renderer_for(style or self.style)
        size = self.size_for(frame.size) if size is None else _checked_size(size)
        return self._runner.run_resident(frame, size, frozenset(outputs), renderer)

    def close(self) -> None:
        """Finish what was submitted and free the worker; closing twice is fine."""
        self._closed = True
        if os.getpid() == self._process:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError(
            "a segmenter can be neither pickled nor copied; load one in each process, or share it by threads"
        )

    def _renderer_for(self, style: RenderStyle) -> Renderer:
        renderer = self._renderer
        if renderer.style != style:
            renderer = self._renderer = Renderer(self.classes, style)
        return renderer


def to_size_step(side: float) -> int:
    """Round a side of the network's input, in pixels, to a multiple of `SIZE_STEP`, at least one."""
    return max(SIZE_STEP, math.floor(side / SIZE_STEP + 0.5) * SIZE_STEP)


@contextmanager
def _device_errors(device: torch.device) -> Iterator[None]:
    """Turn PyTorch's word for a device that is full or broken into a clear error."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(f"the network cannot be run on {device}: {first_line(error)}") from error


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Give a size as integers."""
    try:
        height, width = size
        whole = int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != (height, width) or min(whole) < SIZE_STEP:
        raise ConfigError(f"size must be (height, width) of at least {SIZE_STEP} pixels each, got {size}")
    return whole


def _check_outputs(outputs: AbstractSet[Output]) -> None:
    if not isinstance(outputs, AbstractSet) or not outputs or not outputs <= set(get_args(Output)):
        raise ConfigError(f"outputs must be some of {', '.join(get_args(Output))}, in a set, got {outputs!r}")


def _black_pictures(size: tuple[int, int]) -> list[Picture]:
    """A picture of each format that frames of a size can have."""
    height, width = size
    pictures = [Picture(planes=(np.zeros((height, width, 3), np.uint8),))]
    if height % 2 == width % 2 == 0:
        chroma = np.zeros((height // 2, width // 2), np.uint8)
        encoding = YuvEncoding(matrix="bt709", full_range=False)
        pictures.append(Picture(planes=(np.zeros(size, np.uint8), chroma, chroma), encoding=encoding))
    return pictures


def _check_frame(rgb: NDArray[np.uint8]) -> None:
    if not isinstance(rgb, np.ndarray):
        raise ConfigError(f"a frame must be a numpy array (H, W, 3) of uint8 RGB, got {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ConfigError(f"a frame must be (H, W, 3) uint8 RGB with H and W above 0, got {rgb.shape} {rgb.dtype}")
