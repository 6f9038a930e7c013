"""Frames on a GPU: uploaded, worked on and downloaded side by side, with nothing between that waits for the GPU.

Work is queued by the thread that submits, on three streams: while frame n is computed, frame n + 1 is uploaded and the
results of frame n - 1 are downloaded. Events alone hold the order:

    upload    copy frame into the slot --+
                                         | uploaded
    compute                              +-> prepare, network, decide, draw --+
                                                                              | drawn
    download                                                                  +-> copy results to the host -> downloaded

Each frame lives in one of `MAX_PENDING` slots of memory. The only wait is that of `submit` for `downloaded` of the
frame that had the slot before: when that has happened, nothing reads or writes the slot any more.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsdnet.errors import BackendError, BsdnetError
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer
from bsdnet.runtime.cuda_stages import DeviceFrame, DeviceResults, Stages
from bsdnet.runtime.prediction import Output, Prediction, PredictionHandle
from bsdnet.runtime.runners import MAX_PENDING, Job, inference_failure


class CudaDevice:
    """What `CudaRunner` needs of `torch.cuda`, so that its logic can be tested without a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def stream(self) -> torch.cuda.Stream:
        """A new stream."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def current_stream(self) -> torch.cuda.Stream:
        """The stream of the calling thread."""
        return torch.cuda.current_stream(self._device)

    def event(self) -> torch.cuda.Event:
        """A new event; threads that wait for it sleep, since decoder and encoder need the cores."""
        return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]

    def pinned(self, num_bytes: int) -> Tensor:
        """Page-locked memory of the host, `(num_bytes,)` uint8.

        PyTorch keeps what is dropped for the next call, but waits for the copies that use it: `copy_` with
        `non_blocking` notes its stream with the memory, and dropped memory is handed out again only after an event
        on that stream (ATen/core/CachingHostAllocator.h, `record_event` and `free`).
        """
        with torch.cuda.device(self._device):  # else a context is made on the first GPU
            return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def memory(self, num_bytes: int, stream: torch.cuda.Stream) -> Tensor:
        """Memory of the GPU, `(num_bytes,)` uint8. PyTorch gives it out again to work on `stream`, and there only."""
        with torch.cuda.stream(stream):
            return torch.empty(num_bytes, dtype=torch.uint8, device=self._device)

    def keep(self, tensor: Tensor, stream: torch.cuda.Stream) -> None:
        """Do not give a tensor's memory out again, when it is dropped, before what is on `stream` by then is done."""
        tensor.record_stream(stream)

    def queue(self, stream: torch.cuda.Stream, work: Callable[[], object]) -> None:
        """Queue what `work` does on a stream."""
        with torch.inference_mode(), torch.cuda.stream(stream):
            work()


class CudaRunner:
    """Runs jobs on a GPU; see this module's description.

    Results are handed out in the page-locked memory into which they were downloaded. It is theirs as long as anything
    refers to it, so results stay valid for ever and are never copied on the host. All results of a frame share one
    block: who collects thousands of label maps should copy them, or so much memory cannot be swapped.

    Args:
        network: maps a normalised picture to logits; the next call may overwrite them.
        stages: what comes before and after it.
        device: the GPU.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], stages: Stages, device: CudaDevice) -> None:
        self._network = network
        self._stages = stages
        self._device = device
        self._upload, self._compute, self._download = (device.stream() for _ in range(3))
        self._slots = [_Slot(device, self._upload) for _ in range(MAX_PENDING)]
        self._next = 0
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, job: Job) -> PredictionHandle:
        """Queue a job on the GPU; wait first while `MAX_PENDING` are under way.

        Raises:
            BackendError: the runner is closed, or the GPU fails; jobs that come later may well succeed.
        """
        with self._launching():
            slot = self._slots[self._next]
            if slot.downloaded is not None:
                slot.downloaded.synchronize()
            handle = self._launch(job, slot)
            slot.downloaded = handle.downloaded
            self._next = (self._next + 1) % MAX_PENDING
            return handle

    def run_resident(
        self, frame: DeviceFrame, size: tuple[int, int], outputs: frozenset[Output], renderer: Renderer
    ) -> DeviceResults:
        """Work on a frame that is on the GPU already and leave the results there.

        Nothing waits: what the current stream does before is seen, and what it does afterwards sees the results.

        Args:
            frame: the frame; it must not be written to by other streams than the current one.
            size: height and width at which the network sees it.
            outputs: what to compute; labels always are.
            renderer: draws the frame, if that is among the outputs. A legend that follows the labels is left out: only
                the GPU knows them.

        Returns:
            The results, in memory of their own.

        Raises:
            BackendError: as of `submit`.
        """
        if renderer.legend_follows_labels:
            renderer = renderer.without_legend
        with self._launching():
            caller = self._device.current_stream()
            shapes = _result_shapes([tuple(plane.shape) for plane in frame.planes], outputs, renderer)
            buffer = self._device.memory(_num_bytes(shapes), caller)
            results = _device_results(buffer, shapes, outputs)
            ready, done = self._device.event(), self._device.event()
            ready.record(caller)
            self._compute.wait_event(ready)
            self._queue_compute(frame, size, renderer if results.drawn else None, results)
            for plane in frame.planes:  # of whatever stream they are: a decoder has its own
                self._device.keep(plane, self._compute)
            done.record(self._compute)
            caller.wait_event(done)
            return results

    def close(self) -> None:
        """Wait for the GPU to finish the jobs that were taken, then free the slots; closing twice is fine."""
        with self._lock:
            self._closed = True
            self._settle()
            self._slots.clear()

    @contextlib.contextmanager
    def _launching(self) -> Iterator[None]:
        """One launch at a time; one that fails leaves nothing of itself under way."""
        with self._lock:
            if self._closed:
                raise BackendError("this segmenter is closed; load another one")
            try:
                yield
            except Exception as error:
                self._settle()
                if isinstance(error, BsdnetError):
                    raise
                raise inference_failure(error) from error

    def _settle(self) -> None:
        for stream in (self._upload, self._compute, self._download):
            with contextlib.suppress(RuntimeError):  # whoever asks for the results hears of it
                stream.synchronize()

    def _launch(self, job: Job, slot: "_Slot") -> "_CudaHandle":
        picture, turn = job.picture, job.turn
        frame_shapes = [plane.shape for plane in picture.planes]
        shapes = _result_shapes(frame_shapes, job.outputs, job.renderer)
        guide = np.empty(0, np.uint8) if turn is None or turn.guide is None else turn.guide.view(np.uint8)
        planes = (guide, *picture.planes)  # floats come first, where the memory is aligned
        plane_shapes = [plane.shape for plane in planes]
        staged, received, computed = slot.reserve(_num_bytes(plane_shapes), _num_bytes(shapes))
        uploaded, downloaded = self._device.event(), self._device.event()

        for target, plane in zip(_split(staged, plane_shapes), planes, strict=True):
            np.copyto(target.numpy(), plane)
        self._device.queue(self._upload, lambda: received.copy_(staged, non_blocking=True))
        uploaded.record(self._upload)

        self._compute.wait_event(uploaded)
        guide_received, *frame_planes = _split(received, plane_shapes)
        frame = DeviceFrame(planes=tuple(frame_planes), encoding=picture.encoding)
        smooth = None
        if turn is not None:
            smooth = partial(turn.average, guide=guide_received.view(torch.float32) if guide.size else None)
        results = _device_results(computed, shapes, job.outputs)
        late_legend = bool(results.drawn) and job.renderer.legend_follows_labels
        renderer = job.renderer.without_legend if late_legend else job.renderer
        begin, inferred, drawn = self._queue_compute(
            frame, job.size, renderer if results.drawn else None, results, smooth
        )

        self._download.wait_event(drawn)
        with_labels = late_legend or "labels" in job.outputs
        wanted = computed if with_labels else computed[results.labels.numel() :]
        host = self._device.pinned(wanted.numel())
        self._device.queue(self._download, lambda: host.copy_(wanted, non_blocking=True))
        downloaded.record(self._download)

        parts = list(_split(host, shapes if with_labels else shapes[1:]))
        labels = parts.pop(0).numpy() if with_labels else None
        return _CudaHandle(
            labels=labels if "labels" in job.outputs else None,
            confidence=parts.pop(0).numpy() if "confidence" in job.outputs else None,
            rendered=tuple(plane.numpy() for plane in parts),
            draw_legend=None if labels is None or not late_legend else partial(job.renderer.draw_legend, labels=labels),
            encoding=picture.encoding,
            begin=begin,
            inferred=inferred,
            drawn=drawn,
            downloaded=downloaded,
        )

    def _queue_compute(
        self,
        frame: DeviceFrame,
        size: tuple[int, int],
        renderer: Renderer | None,
        results: DeviceResults,
        smooth: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[torch.cuda.Event, torch.cuda.Event, torch.cuda.Event]:
        """Queue all that is computed for a frame; return the events at its begin, after the labels and at its end."""
        begin, inferred, drawn = (self._device.event() for _ in range(3))

        def infer() -> None:
            logits = self._network(self._stages.prepare(frame, size))
            if smooth is not None:
                logits = smooth(logits)
            self._stages.decide(logits, frame, renderer, results)

        begin.record(self._compute)
        self._device.queue(self._compute, infer)
        inferred.record(self._compute)
        if renderer is not None:
            self._device.queue(self._compute, lambda: self._stages.draw(frame, renderer, results))
        drawn.record(self._compute)
        return begin, inferred, drawn


class _Slot:
    """Memory for one frame on its way, kept for the next one and exchanged only for larger."""

    def __init__(self, device: CudaDevice, stream: torch.cuda.Stream) -> None:
        self._device = device
        self._stream = stream
        self._staged = self._frame = self._results = torch.empty(0, dtype=torch.uint8)
        self.downloaded: torch.cuda.Event | None = None
        """Happens when the slot's latest frame has left it."""

    def reserve(self, frame_bytes: int, result_bytes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Give memory for a frame on the host and on the GPU, and for its results on the GPU.

        It comes from the upload stream, on which nothing else is allocated: what the allocator hands out there never
        was a temporary of computations that are still queued.
        """
        if self._frame.numel() < frame_bytes:
            self._frame = self._device.memory(frame_bytes, self._stream)
        if self._staged.numel() < frame_bytes:
            self._staged = self._device.pinned(frame_bytes)
        if self._results.numel() < result_bytes:
            self._results = self._device.memory(result_bytes, self._stream)
        return self._staged[:frame_bytes], self._frame[:frame_bytes], self._results[:result_bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class _CudaHandle:
    """Results in page-locked memory, valid once `downloaded` has happened."""

    labels: NDArray[np.uint8] | None
    confidence: NDArray[np.uint8] | None
    rendered: tuple[NDArray[np.uint8], ...]
    draw_legend: Callable[[Picture], None] | None
    encoding: YuvEncoding | None
    begin: torch.cuda.Event
    inferred: torch.cuda.Event
    drawn: torch.cuda.Event
    downloaded: torch.cuda.Event

    def result(self, timeout_s: float | None = None) -> Prediction:
        """Wait for the prediction; see `PredictionHandle`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while deadline is not None and not self.done():  # an event cannot be waited for with a limit
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no prediction within {timeout_s} s")
                time.sleep(0.0005)
            self.downloaded.synchronize()
            infer_s = self.begin.elapsed_time(self.inferred) / 1000
            render_s = self.inferred.elapsed_time(self.drawn) / 1000
        except RuntimeError as error:
            raise inference_failure(error) from error
        return Prediction(
            labels=self.labels,
            confidence=self.confidence,
            rendered=self._rendered() if self.rendered else None,
            infer_s=infer_s,
            render_s=render_s,
            busy_s=infer_s + render_s,
        )

    def _rendered(self) -> Picture:
        if self.draw_legend is None:
            return Picture(planes=self.rendered, encoding=self.encoding)
        # Only here is it known which classes the legend has to show. Each call draws onto a copy of its own.
        picture = Picture(planes=tuple(plane.copy() for plane in self.rendered), encoding=self.encoding)
        self.draw_legend(picture)
        return picture

    def done(self) -> bool:
        """Tell whether `result` would return at once."""
        try:
            return bool(self.downloaded.query())  # type: ignore[no-untyped-call]
        except RuntimeError:  # the GPU failed, as `result` will say
            return True


def _result_shapes(
    frame_shapes: Sequence[tuple[int, ...]], outputs: frozenset[Output], renderer: Renderer
) -> list[tuple[int, ...]]:
    """Shapes of what is computed, in the order in which it lies in memory: labels, confidence, drawn planes."""
    shapes = [frame_shapes[0][:2]] * (2 if "confidence" in outputs else 1)
    if "rendered" in outputs:
        times = 2 if renderer.style.view == "side-by-side" else 1
        shapes += [(height, width * times, *rest) for height, width, *rest in frame_shapes]
    return shapes


def _device_results(buffer: Tensor, shapes: Sequence[tuple[int, ...]], outputs: frozenset[Output]) -> DeviceResults:
    labels, *rest = _split(buffer, shapes)
    confidence = rest.pop(0) if "confidence" in outputs else None
    return DeviceResults(labels=labels, confidence=confidence, drawn=tuple(rest))


def _num_bytes(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _split(buffer: Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """View a buffer `(bytes,)` as tensors of these shapes, one after the other."""
    parts = torch.split(buffer, [math.prod(shape) for shape in shapes])
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
