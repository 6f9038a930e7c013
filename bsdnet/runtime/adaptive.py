"""Choosing the size at which the network sees frames, so that a segmenter keeps up with a rate.

The smaller the input, the faster the network and the coarser what it sees. `SizeController` decides from measured
times alone and knows no clock, no thread and no network; `AdaptiveSegmenter` gives it the times and obeys it.
"""

import logging
import math
import statistics
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bsdnet.errors import ConfigError
from bsdnet.picture import Picture
from bsdnet.rendering import RenderStyle
from bsdnet.runtime.prediction import Output, Prediction, PredictionHandle
from bsdnet.runtime.segmenter import LABELS, Segmenter, to_size_step
from bsdnet.runtime.smoothing import Smoother
from bsdnet.runtime.torch_backends import Size

SCALES = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2)
"""Input sizes to choose from, as shares of the sides of the largest one; what they cost: docs/adaptive-size.md."""

# A segmenter that works on two frames at once finishes them in pairs: single times mean little, means of four do. Of
# those the median is taken, so that a hiccup of the machine moves nothing.
_BLOCK_FRAMES = 4
_SETTLE_FRAMES = 4  # after a switch; they share the machine with frames of the size before
_DOWN_BLOCKS = 6  # a second at 24 fps: too slow is mended soon
_UP_BLOCKS = 18  # larger is tried only after a calm of three seconds
# Between going down (above 1) and up (below 0.85) lie five deviations of what 10 % of noise leaves in the medians.
_AIM = 0.95  # share of the time that a frame may take which a size must promise when going down
_UP_AIM = 0.85  # and when going up
_CALM_FRAMES = _SETTLE_FRAMES + _BLOCK_FRAMES * _UP_BLOCKS
_PROVED_FRAMES = 4 * _CALM_FRAMES  # a larger size that holds for so long was a good choice
_MAX_PATIENCE_FRAMES = 16 * _CALM_FRAMES
_ROUNDS = 3  # of timing the sizes, of which the fastest counts
_DRAWN: frozenset[Output] = frozenset({"rendered"})

logger = logging.getLogger(__name__)


def size_ladder(largest: Size) -> list[Size]:
    """List the sizes to choose from, largest first.

    Args:
        largest: the first of them, height and width in pixels.

    Returns:
        It and `SCALES` of it: multiples of 32 with its aspect ratio as far as these allow, each once.
    """
    short, long = sorted(largest)
    sizes = [largest]
    for scale in SCALES[1:]:
        low = to_size_step(scale * short)
        high = to_size_step(low * long / short)
        size = (low, high) if largest[0] <= largest[1] else (high, low)
        if size[0] * size[1] < sizes[-1][0] * sizes[-1][1]:
            sizes.append(size)
    return sizes


def check_target(target_fps: float) -> None:
    """Check a rate.

    Raises:
        ConfigError: it is none.
    """
    if not 0 < target_fps < math.inf:
        raise ConfigError(f"target_fps is {target_fps}; expected frames a second above 0")


class Switch(NamedTuple):
    """A change of the input size."""

    before: Size
    """Height and width in pixels until now."""
    after: Size
    """Height and width in pixels from now on."""
    capacity_fps: float
    """Frames a second that the segmenter could do at the size before."""


class SizeController:
    """Holds a rate with the largest input that allows it, and changes its mind slowly.

    It goes down when the median of the last second is slower than the target, at once as far as needed: to the
    largest size that by `costs` would hold it. It goes up when by `costs` a larger size would hold the target with
    15 % to spare. When a larger size fails soon after it was tried, twice as many frames must pass before the next
    try: neither a load that comes and goes nor costs that are wrong can make it swing.

    Args:
        costs: for each size, height and width in pixels, the time that a frame takes at it, in any unit; largest size
            first. It begins with the first.
        target_fps: frames a second that the segmenter shall do.

    Raises:
        ConfigError: there are no sizes, or the target is no rate.
    """

    def __init__(self, costs: Mapping[Size, float], target_fps: float) -> None:
        if not costs:
            raise ConfigError("there are no input sizes to choose from; give at least one")
        check_target(target_fps)
        self.sizes = tuple(costs)
        self.target_fps = target_fps
        self._costs = tuple(costs.values())
        self._current = 0
        self._patience = _CALM_FRAMES
        self._restart()
        self._rose = False

    @property
    def size(self) -> Size:
        """Height and width that the next frame shall have."""
        return self.sizes[self._current]

    @property
    def capacity_fps(self) -> float | None:
        """Frames a second that the segmenter can do at this size; None while too few have been measured."""
        busy_s = self._median(_DOWN_BLOCKS)
        return None if busy_s is None else 1 / busy_s

    def record(self, size: Size, busy_s: float) -> "Switch | None":
        """Take the measurement of one frame.

        Args:
            size: height and width at which the network saw it.
            busy_s: see `Prediction`.

        Returns:
            The change of `size` that follows from it, if any.
        """
        if size != self.size:  # it was under way when the size changed
            return None
        self._frames += 1
        if self._frames <= _SETTLE_FRAMES:
            return None
        self._block.append(busy_s)
        if len(self._block) < _BLOCK_FRAMES:
            return None
        self._means.append(statistics.fmean(self._block))
        self._block.clear()
        return self._decide()

    def _decide(self) -> "Switch | None":
        if self._rose and self._frames >= _PROVED_FRAMES:
            self._rose, self._patience = False, _CALM_FRAMES
        recent_s, calm_s = self._median(_DOWN_BLOCKS), self._median(_UP_BLOCKS)
        if recent_s is not None and recent_s * self.target_fps > 1:
            return self._go_to(self._largest_within(_AIM, recent_s), recent_s)
        if calm_s is not None and self._frames >= self._patience:
            return self._go_to(min(self._largest_within(_UP_AIM, calm_s), self._current), calm_s)
        return None

    def _largest_within(self, aim: float, busy_s: float) -> int:
        """Find the largest size that would take no more than `aim` of a frame's time, or else the smallest."""
        unit_s = busy_s / self._costs[self._current]
        fitting = (i for i, cost in enumerate(self._costs) if unit_s * cost * self.target_fps <= aim)
        return next(fitting, len(self._costs) - 1)

    def _go_to(self, index: int, busy_s: float) -> "Switch | None":
        if index == self._current:
            return None
        if index > self._current and self._rose:
            self._patience = min(2 * self._patience, _MAX_PATIENCE_FRAMES)
        before, self._current = self.size, index
        self._rose = self.size > before
        self._restart()
        return Switch(before, self.size, 1 / busy_s)

    def _restart(self) -> None:
        self._frames = 0
        self._block: list[float] = []
        self._means: deque[float] = deque(maxlen=_UP_BLOCKS)

    def _median(self, blocks: int) -> float | None:
        if len(self._means) < blocks:
            return None
        return statistics.median(list(self._means)[-blocks:])


class AdaptiveSegmenter:
    """A segmenter that sees frames as large as it can while it does a number of frames a second.

    What counts is what the segmenter could do, not what the stream does: a slow camera or encoder changes nothing.
    All sizes are prepared and timed before the first frame, so that a switch costs no time. Every frame is segmented.

    Args:
        segmenter: does the work; who made it closes it. Its size for the stream's frames is the largest.
        frame_size: height and width of the stream's frames in pixels. Frames of another size are segmented at the
            segmenter's size for them and not measured.
        target_fps: frames a second that the segmenter shall do.

    Raises:
        ConfigError: the target is no rate.
        BackendError: the backend cannot run one of the sizes.
    """

    def __init__(self, segmenter: Segmenter, frame_size: Size, target_fps: float) -> None:
        self._segmenter = segmenter
        self._frame_size = frame_size
        check_target(target_fps)
        sizes = size_ladder(segmenter.size_for(frame_size))
        segmenter.prepare(sizes, frame_size=frame_size)
        costs_s = _measure_costs(segmenter, frame_size, sizes)
        self._controller = SizeController(costs_s, target_fps)
        self._lock = threading.Lock()
        self._used: Counter[Size] = Counter()
        self._warned = False
        measured = ", ".join(f"{_name(size)} ({1000 * cost_s:.1f} ms)" for size, cost_s in costs_s.items())
        logger.info("input sizes for %g fps: %s", target_fps, measured)

    @property
    def size(self) -> Size:
        """Height and width at which the network sees the next frame."""
        return self._controller.size

    @property
    def frames_per_size(self) -> Mapping[Size, int]:
        """How many frames the network has seen at each size so far, largest size first."""
        with self._lock:
            return {size: self._used[size] for size in self._controller.sizes if self._used[size]}

    @property
    def capacity_fps(self) -> float | None:
        """Frames a second that the segmenter can do at this size; None while too few have been measured."""
        with self._lock:
            return self._controller.capacity_fps

    def submit(
        self,
        picture: NDArray[np.uint8] | Picture,
        *,
        outputs: AbstractSet[Output] = LABELS,
        style: RenderStyle | None = None,
        smoother: Smoother | None = None,
    ) -> PredictionHandle:
        """Have a frame segmented at the size of the moment; see `Segmenter.submit`."""
        frame_size = picture.size if isinstance(picture, Picture) else picture.shape[:2]
        if frame_size != self._frame_size:
            return self._segmenter.submit(picture, outputs=outputs, style=style, smoother=smoother)
        size = self.size
        handle = self._segmenter.submit(picture, outputs=outputs, style=style, size=size, smoother=smoother)
        return _MeasuredHandle(handle, lambda busy_s: self._record(size, busy_s))

    def _record(self, size: Size, busy_s: float) -> None:
        with self._lock:
            self._used[size] += 1
            switch = self._controller.record(size, busy_s)
            fps, target_fps = self._controller.capacity_fps, self._controller.target_fps
        if switch is not None:
            logger.info(
                "input size %s -> %s: %.1f fps could be done, %g are wanted",
                _name(switch.before), _name(switch.after), switch.capacity_fps, target_fps,
            )  # fmt: skip
        elif fps is not None and fps < target_fps and not self._warned:
            self._warned = True
            logger.warning("%g fps cannot be held: even at %s only %.1f can be done", target_fps, _name(size), fps)


def _measure_costs(segmenter: Segmenter, frame_size: Size, sizes: Sequence[Size]) -> dict[Size, float]:
    """Time each size as a stream would use it, whose first frames then find everything set up."""
    black = Picture(planes=(np.zeros((*frame_size, 3), np.uint8),))
    times_s: dict[Size, list[float]] = {size: [] for size in sizes}
    for _ in range(_ROUNDS):
        for size in sizes:
            handles = [segmenter.submit(black, outputs=_DRAWN, size=size) for _ in range(_BLOCK_FRAMES)]
            times_s[size].append(statistics.fmean([handle.result().busy_s for handle in handles]))
    return {size: min(times) for size, times in times_s.items()}


class _MeasuredHandle:
    """A prediction whose time is taken when it is first fetched."""

    def __init__(self, handle: PredictionHandle, record: Callable[[float], None]) -> None:
        self._handle = handle
        self._record: Callable[[float], None] | None = record

    def result(self, timeout_s: float | None = None) -> Prediction:
        prediction = self._handle.result(timeout_s)
        record, self._record = self._record, None
        if record is not None:
            record(prediction.busy_s)
        return prediction

    def done(self) -> bool:
        return self._handle.done()


def _name(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
