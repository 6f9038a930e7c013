"""Measuring networks, and whole frames, side by side."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsdnet.demo_scene import DemoScene
from bsdnet.errors import BackendError
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.backends import BackendName, Network, PrecisionName, select_precision
from bsdnet.runtime.cuda_stages import DeviceFrame
from bsdnet.runtime.prediction import PredictionHandle
from bsdnet.runtime.segmenter import Segmenter
from bsdnet.runtime.timing import PeakMemory, Probe, Timing, device_clock, time_interleaved, wall_clock
from cli.bench.candidates import Candidate, count_macs, fold_foreign
from cli.bench.memory import peak_of_fresh_process
from cli.bench.progress import Rounds

logger = logging.getLogger(__name__)

IN_FLIGHT = 3
"""Frames under way at once where a stream is measured, as with bsdnet-run."""
_BURST_MS = 250.0
_BURST_FRAMES = (4, 256)  # fewer never leave the beginning and the end, which are slower; more tell nothing new
_RESIDENT_FRAMES = 16  # a single one would lie in the GPU's cache all the time


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of the table before it is measured."""

    candidate: Candidate
    """The network."""
    size: tuple[int, int]
    """Height and width of its input."""
    backend: BackendName
    """As asked for."""
    precision: PrecisionName
    """As asked for."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure all cases."""

    device: torch.device
    """Where to compute."""
    rounds: int
    """Rounds that count."""
    with_frame: bool = False
    """Whether to measure whole frames too."""
    frame_size: tuple[int, int] | None = None
    """Height and width of these; None: the network's input."""
    memory: bool = False
    """Whether to measure the peak memory."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table. What was not or cannot be measured is None."""

    case: Case
    """What was asked for."""
    backend: str
    """What ran, or could not."""
    precision: str
    """In which it ran, or should have."""
    macs: int | None
    """Multiply-accumulates of one picture."""
    output: object = None
    """Shape of what the network gives, or a list or mapping of shapes."""
    folded: bool = True
    """Whether batch norms are folded into convolutions."""
    peak_bytes: int | None = None
    """Peak memory of loading the network and running it."""
    network: Timing | None = None
    """The network alone."""
    frame: Timing | None = None
    """RGB frame in memory to drawn frame in memory, one at a time."""
    stream: Timing | None = None
    """The same for each frame of several under way."""
    resident: Timing | None = None
    """On a GPU: from a frame that lies there, as decoders give it, to the drawn frame that stays there, in a burst."""
    note: str = ""
    """Why it was not measured."""


def measure(cases: Sequence[Case], settings: Settings) -> tuple[list[Row], Settings]:
    """Measure all cases in one interleaved run.

    Returns:
        A row for each case, in their order; those that cannot run here say why. And the settings, with fewer rounds if
        Ctrl-C has ended the run; see `time_interleaved`.
    """
    probes: dict[tuple[int, str], Probe] = {}
    rows: list[Row] = []
    with ExitStack() as stack:
        for number, case in enumerate(cases):
            row, new = _prepare(case, settings, stack)
            rows.append(row)
            probes |= {(number, name): probe for name, probe in new.items()}
        with Rounds(settings.rounds) as progress:
            timings = time_interleaved(probes, rounds=settings.rounds, on_round=progress.step)
    for (number, name), timing in timings.items():
        rows[number] = replace(rows[number], **{name: timing})  # type: ignore[arg-type]
    return rows, replace(settings, rounds=progress.done)


def require_any(rows: Sequence[Row]) -> None:
    """Fail, after the table is written, if it has no figure.

    Raises:
        BackendError: nothing could be measured.
    """
    if all(row.network is None for row in rows):
        raise BackendError("nothing could be measured; the lines below the table say why")


def _prepare(case: Case, settings: Settings, stack: ExitStack) -> tuple[Row, dict[str, Probe]]:
    """Build what a case needs and run it once."""
    precision = select_precision(case.precision, settings.device)
    macs = count_macs(case.candidate.model, case.size)
    row = Row(case=case, backend=case.backend, precision=precision, macs=macs)
    height, width = case.size
    logger.info("preparing %s %dx%d %s %s", case.candidate.name, width, height, case.backend, precision)
    try:
        row, probe = _prepare_network(row, settings)
        probes = {"network": probe}
        if settings.with_frame and case.candidate.checkpoint is not None:
            probes |= _prepare_frame(row, settings, stack)
        return row, probes
    except Exception as error:  # compilers and foreign networks raise anything, and the other cases shall go on
        logger.debug("it cannot be measured", exc_info=error)
        return replace(row, note=" ".join((str(error) or type(error).__name__).split())[:300]), {}


def _prepare_network(row: Row, settings: Settings) -> tuple[Row, Probe]:
    case, device = row.case, settings.device
    model, folded = case.candidate.model, True
    if case.candidate.checkpoint is None:
        traced = fold_foreign(model)
        model, folded = traced or model, traced is not None
    clock = device_clock(device)
    kept: list[object] = []
    with PeakMemory(device) as memory:
        network = Network(model, device, row.precision, case.backend)
        x = torch.randn(1, 3, *case.size, generator=torch.Generator().manual_seed(0))
        x = x.to(device, network.dtype, memory_format=torch.channels_last)

        def call() -> object:
            with torch.inference_mode():
                return network(x)

        clock(lambda: kept.append(call()))
    peak = None
    if settings.memory and device.type == "cuda" and network.backend != "tensorrt":
        peak = memory.peak_bytes
    elif settings.memory and device.type == "cpu":
        peak = peak_of_fresh_process(case.candidate.spec, case.size, network.backend, row.precision)
    output = shapes(kept[0])
    row = replace(row, backend=network.backend, output=output, folded=folded, peak_bytes=peak)
    return row, Probe(measure=lambda: clock(call))


def _prepare_frame(row: Row, settings: Settings, stack: ExitStack) -> dict[str, Probe]:
    case = row.case
    assert case.candidate.checkpoint is not None  # foreign networks have no frames
    segmenter = stack.enter_context(
        Segmenter(
            case.candidate.checkpoint,
            device=str(settings.device),
            backend=case.backend,
            precision=case.precision,
            size=case.size,
        )
    )
    rgb = drawn_frame(settings.frame_size or case.size)

    def submit() -> PredictionHandle:
        return segmenter.submit(rgb, outputs={"rendered"})

    def latency() -> float:
        return wall_clock(lambda: submit().result())

    latency()
    frames = _burst_frames(latency())
    burst = Probe(measure=lambda: time_burst(submit, frames), untimed=0, timed=1)
    probes = {"frame": Probe(measure=latency), "stream": burst}
    if settings.device.type == "cuda":
        probes["resident"] = resident_probe(segmenter, rgb)
    return probes


def _burst_frames(latency_ms: float) -> int:
    fewest, most = _BURST_FRAMES
    return min(most, max(fewest, round(_BURST_MS / latency_ms)))


def resident_probe(segmenter: Segmenter, rgb: NDArray[np.uint8]) -> Probe:
    """Time frames that lie on the segmenter's device and stay there; see `Row.resident`.

    Args:
        segmenter: on a GPU.
        rgb: `(H, W, 3)` uint8 RGB; the frames are this one, moved sideways.
    """
    clock = device_clock(segmenter.device)
    moved = (np.roll(rgb, 8 * number, axis=1) for number in range(_RESIDENT_FRAMES))
    frames = [DeviceFrame.of(as_decoded(rgb), segmenter.device) for rgb in moved]

    def time_each(count: int) -> float:
        def burst() -> None:
            for frame in islice(cycle(frames), count):
                segmenter.run_resident(frame)

        return clock(burst) / count

    time_each(1)  # compiles
    count = _burst_frames(time_each(_RESIDENT_FRAMES))
    return Probe(measure=lambda: time_each(count), untimed=0, timed=1)


def as_decoded(rgb: NDArray[np.uint8]) -> Picture:
    """Give a frame in the format of most decoders, YUV 4:2:0; of odd height or width it stays RGB."""
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        return Picture(planes=(np.ascontiguousarray(rgb),))
    planes = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8).reshape(-1)
    y, u, v = np.split(planes, [height * width, height * width * 5 // 4])
    half = (height // 2, width // 2)
    encoding = YuvEncoding(matrix="bt601", full_range=False)  # OpenCV knows no other
    return Picture(planes=(y.reshape(height, width), u.reshape(half), v.reshape(half)), encoding=encoding)


def time_burst(submit: Callable[[], PredictionHandle], frames: int) -> float:
    """Run a burst of frames with `IN_FLIGHT` under way at once; give the milliseconds for each of them."""

    def burst() -> None:
        pending: deque[PredictionHandle] = deque()
        for _ in range(frames):
            if len(pending) == IN_FLIGHT:
                pending.popleft().result()
            pending.append(submit())
        for handle in pending:
            handle.result()

    return wall_clock(burst) / frames


@cache
def drawn_frame(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame of the drawn street, `(H, W, 3)` uint8 RGB."""
    height, width = size
    rgb = DemoScene().frame(0).rgb
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def shapes(output: object) -> object:
    """The shapes of a network's tensors, nested as they are."""
    if isinstance(output, Tensor):
        return list(output.shape)
    if isinstance(output, Mapping):
        return {str(key): shapes(value) for key, value in output.items()}
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [shapes(value) for value in output]
    return type(output).__name__
