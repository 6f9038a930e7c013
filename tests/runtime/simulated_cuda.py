"""A CUDA device that exists only in tests, and that keeps to the order of streams and events as badly as is allowed.

What is queued does not run when it is queued, but some time later: when someone waits for it, or when the device
likes. Only what streams and events promise holds. So a wait that is missing, or memory that is used again too early,
gives wrong results here, in one order of execution or another.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Temper = Literal["lazy", "eager", "random"]
"""`lazy`: nothing runs until someone waits, and then only what they wait for; `eager`: everything runs as soon as it
may, later streams first; `random`: now and then something runs that may."""


class Mark:
    """A moment in a stream: what `Event.record` queues."""

    def __init__(self) -> None:
        self.time: int | None = None


class SimulatedStream:
    def __init__(self, device: "SimulatedCuda") -> None:
        self.device = device
        self.queued: deque[Callable[[], object] | Mark | tuple[Mark]] = deque()  # (mark,) waits for it

    def wait_event(self, event: "SimulatedEvent") -> None:
        if event.mark is not None:  # as in CUDA, an event that was never recorded holds nobody up
            self.device.enqueue(self, (event.mark,))

    def synchronize(self) -> None:
        mark = Mark()
        self.queued.append(mark)
        self.device.wait_for(mark)

    def may_run(self) -> bool:
        head = self.queued[0] if self.queued else None
        return head is not None and not (isinstance(head, tuple) and head[0].time is None)


class SimulatedEvent:
    def __init__(self, device: "SimulatedCuda") -> None:
        self.device = device
        self.mark: Mark | None = None

    def record(self, stream: SimulatedStream) -> None:
        self.mark = Mark()
        self.device.enqueue(stream, self.mark)

    def synchronize(self) -> None:
        if self.mark is not None:
            self.device.wait_for(self.mark)

    def query(self) -> bool:
        return self.mark is None or self.mark.time is not None

    def elapsed_time(self, end: "SimulatedEvent") -> float:
        if self.mark is None or end.mark is None or self.mark.time is None or end.mark.time is None:
            raise RuntimeError("both events must have happened")
        return float(end.mark.time - self.mark.time)


class SimulatedCuda:
    """Stands in for `CudaDevice`.

    Args:
        temper: in which order things run.
        seed: of what is random.
    """

    def __init__(self, temper: Temper, seed: int = 0) -> None:
        self.temper = temper
        self.random = np.random.default_rng(seed)
        self.streams: list[SimulatedStream] = []
        self.clock = 0
        self.ran_on: list[SimulatedStream] = []
        """Where work ran, in the order in which it did."""
        self.kept: list[tuple[Tensor, SimulatedStream]] = []
        """Tensors whose memory stays as it is for a stream."""
        self.waits = 0
        """How often someone waited for the device."""
        self.calls = 0
        """How often memory was asked for or work queued."""
        self.failing_call: int | None = None
        """Which of these calls fails, once."""
        self.caller = self.stream()

    # What CudaDevice has

    def stream(self) -> SimulatedStream:
        self.streams.append(SimulatedStream(self))
        return self.streams[-1]

    def current_stream(self) -> SimulatedStream:
        return self.caller

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def pinned(self, num_bytes: int) -> Tensor:
        return self._garbage(num_bytes)

    def memory(self, num_bytes: int, stream: SimulatedStream) -> Tensor:
        return self._garbage(num_bytes)

    def keep(self, tensor: Tensor, stream: SimulatedStream) -> None:
        self.kept.append((tensor, stream))

    def queue(self, stream: SimulatedStream, work: Callable[[], object]) -> None:
        self._count()
        self.enqueue(stream, work)

    # What makes it a simulation

    def enqueue(self, stream: SimulatedStream, item: Callable[[], object] | Mark | tuple[Mark]) -> None:
        stream.queued.append(item)
        if self.temper == "eager":
            while self._run_one(reversed(self.streams)):
                pass
        elif self.temper == "random":
            for _ in range(self.random.integers(0, 3)):
                self._run_one(iter(self.random.permutation(np.array(self.streams, dtype=object))))

    def wait_for(self, mark: Mark) -> None:
        self.waits += 1
        self._reach(mark)

    def idle(self) -> bool:
        return not any(stream.queued for stream in self.streams)

    def _reach(self, mark: Mark) -> None:
        stream = next((stream for stream in self.streams if mark in stream.queued), None)
        while mark.time is None and stream is not None:
            head = stream.queued[0]
            if isinstance(head, tuple):
                self._reach(head[0])
            self._run_one(iter([stream]))

    def _run_one(self, streams: Iterator[SimulatedStream]) -> bool:
        stream = next((stream for stream in streams if stream.may_run()), None)
        if stream is None:
            return False
        item = stream.queued.popleft()
        self.clock += 1
        if isinstance(item, Mark):
            item.time = self.clock
        elif not isinstance(item, tuple):
            self.ran_on.append(stream)
            with torch.inference_mode():
                item()
        return True

    def _garbage(self, num_bytes: int) -> Tensor:
        self._count()
        return torch.from_numpy(self.random.integers(0, 256, num_bytes, dtype=np.uint8))

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.failing_call:
            raise torch.OutOfMemoryError("CUDA out of memory.\nA second line.")
