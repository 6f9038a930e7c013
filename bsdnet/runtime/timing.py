"""Measuring speed and memory: several things in turn, so that whatever else the machine does strikes all alike."""

import math
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import torch

KeyT = TypeVar("KeyT", bound=Hashable)

Clock = Callable[[Callable[[], object]], float]
"""Calls a function once and tells how many milliseconds that took."""

_PROCESS = Path("/proc/self")
_HEAD_START_CYCLES = 500_000  # about 0.3 ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How long something takes, in milliseconds; percentiles by nearest rank."""

    samples: int
    """How often it was timed. With fewer than 100 samples the 99th percentile is the slowest of them."""
    p50_ms: float
    """Median."""
    p95_ms: float
    """95th percentile."""
    p99_ms: float
    """99th percentile."""

    @property
    def fps(self) -> float:
        """Times a second, by the median."""
        return 1000 / self.p50_ms

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Self:
        """Sum up durations in milliseconds, at least one."""
        ranked = sorted(times_ms)
        p50, p95, p99 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.95, 0.99))
        return cls(samples=len(ranked), p50_ms=p50, p95_ms=p95, p99_ms=p99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Something to be timed among others."""

    measure: Callable[[], float]
    """Does it once and tells how many milliseconds it took."""
    untimed: int = 1
    """Calls in each round that do not count: they find in the caches what the others left there."""
    timed: int = 5
    """Calls in each round that count."""


def time_interleaved(
    probes: Mapping[KeyT, Probe], *, rounds: int, on_round: Callable[[], object] = lambda: None
) -> dict[KeyT, Timing]:
    """Time several things in rounds: in each, every one has its turn, in an order that is drawn anew.

    Two rounds that do not count come first, for what happens once: compilation, allocation, clocks that speed up.

    Args:
        probes: what to time.
        rounds: rounds that count.
        on_round: called after each of these.

    Returns:
        The timing of each, in the order of `probes`.

    Raises:
        KeyboardInterrupt: Ctrl-C before the first round that counts was complete. Later it ends the measurement, and
            only the rounds that are complete count.
    """
    order, draw = list(probes), random.Random(0)
    times_ms: dict[KeyT, list[float]] = {key: [] for key in probes}
    for number in range(-2, rounds):
        draw.shuffle(order)
        try:
            new = {key: _turn(probes[key]) for key in order}
        except KeyboardInterrupt:
            if number < 1:
                raise
            break
        if number >= 0:
            for key in order:
                times_ms[key] += new[key]
            on_round()
    return {key: Timing.of(times) for key, times in times_ms.items()}


def _turn(probe: Probe) -> list[float]:
    for _ in range(probe.untimed):
        probe.measure()
    return [probe.measure() for _ in range(probe.timed)]


def wall_clock(call: Callable[[], object]) -> float:
    """Time a call that returns when its work is done; see `Clock`."""
    start_s = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start_s)


def device_clock(device: torch.device) -> Clock:
    """Give the clock for calls that compute on a device and return before it has finished.

    On CUDA these run on a stream of the clock's own, between two events, and the time is the GPU's; elsewhere it is
    the wall clock's. The GPU has something else to do at first, as in a stream of frames, so that launching a graph
    costs nothing; a network in plain PyTorch, whose launches take longer than that, waits for them here as there.
    """
    if device.type != "cuda":
        return wall_clock
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def clock(call: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.stream(stream):
            torch.cuda._sleep(_HEAD_START_CYCLES)  # type: ignore[no-untyped-call]  # private, but in every release
            begin.record()
            call()
            end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    return clock


class PeakMemory:
    """Between entering and leaving, how much more memory was in use at the most than when it was entered.

    On CUDA: what PyTorch allocates on the device; TensorRT allocates its own, which is not in it. On Linux without
    CUDA: resident memory of the process. That is only of use in a process that has held nothing big before, since
    memory that was freed is used again without growth. Elsewhere, and where the system does not tell, it is not known.

    Args:
        device: whose memory.
    """

    peak_bytes: int | None = None
    """The result, once it was left; None where it is not known."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            with suppress(OSError):
                (_PROCESS / "clear_refs").write_text("5")  # sets the peak back to what is resident now
                self._before = _status_bytes("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device) - self._before
        else:
            most = _status_bytes("VmHWM")
            self.peak_bytes = None if most is None else most - self._before


def _status_bytes(name: str) -> int | None:
    lines = (_PROCESS / "status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
