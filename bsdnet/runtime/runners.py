"""The way of a frame through resize, network, labels and rendering, one after the other in the background.

There is one runner per kind of device. Both give results in the order of the frames and hold at most `MAX_PENDING`
of them: whoever submits more waits, so that frames cannot pile up.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsdnet.errors import BackendError, BsdnetError
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer
from bsdnet.runtime.backends import Network
from bsdnet.runtime.postprocess import LabelUpsampler, confidence_map, labels_on_device
from bsdnet.runtime.prediction import Output, Prediction, PredictionHandle
from bsdnet.runtime.preprocess import Preprocessor

MAX_PENDING = 4
"""Frames that a runner holds at most: two at work, one waiting for them, one being fetched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A frame and what is wanted of it."""

    picture: Picture
    """The frame."""
    size: tuple[int, int]
    """Height and width at which the network sees it."""
    outputs: frozenset[Output]
    """What to compute."""
    renderer: Renderer
    """Draws the frame, if that is among the outputs."""


class Runner(Protocol):
    """Runs jobs in the background and in order."""

    def submit(self, job: Job) -> PredictionHandle:
        """Take a job; wait first while `MAX_PENDING` are under way."""
        ...

    def close(self) -> None:
        """Finish the jobs that were taken, then free what the runner holds; `submit` must not be called again."""
        ...


class CpuRunner:
    """Runs jobs on the CPU: a lone frame on all cores, two at a time on half of them each.

    Two frames side by side are done sooner than one after the other, since no core waits for another at the end of
    every layer; beside a decoder and an encoder that take cores away, such waiting doubles a frame's time.
    """

    def __init__(self, network: Network, preprocessor: Preprocessor) -> None:
        self._network = network
        self._preprocessor = preprocessor
        self._upsampler: LabelUpsampler | None = None
        self._threads = torch.get_num_threads()
        # Compiled code is not known to bear two callers at once.
        self._workers = 2 if self._threads > 1 and network.backend == "eager" else 1
        self._slots = threading.BoundedSemaphore(MAX_PENDING)
        self._lock = threading.Lock()
        self._under_way: deque[tuple[Future[Prediction], Future[Prediction]]] = deque()  # the worker's, the caller's
        self._busy_since_s = 0.0  # when the last frame was done, or work began after a pause
        self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="bsdnet-infer")

    def submit(self, job: Job) -> PredictionHandle:
        """Take a job; wait first while `MAX_PENDING` are under way."""
        self._slots.acquire()
        promised: Future[Prediction] = Future()
        with self._lock:
            try:
                work = self._executor.submit(self._run, job)
            except RuntimeError as error:  # closed by another thread while this one waited
                self._slots.release()
                raise BackendError("this segmenter is closed; load another one") from error
            if not self._under_way:
                self._busy_since_s = time.perf_counter()
            self._under_way.append((work, promised))
        work.add_done_callback(self._keep_promises)
        return _FutureHandle(promised)

    def _keep_promises(self, _: Future[Prediction]) -> None:
        """Hand out what is done, up to the first frame that is not: results become ready in the order of the frames."""
        with self._lock:
            while self._under_way and self._under_way[0][0].done():
                work, promised = self._under_way.popleft()
                self._slots.release()
                now_s = time.perf_counter()
                busy_s, self._busy_since_s = now_s - self._busy_since_s, now_s
                error = work.exception()
                if error is not None:
                    promised.set_exception(error)
                else:
                    promised.set_result(replace(work.result(), busy_s=busy_s))

    def close(self) -> None:
        """Finish the jobs that were taken, then end the threads."""
        self._executor.shutdown(wait=True)

    def _run(self, job: Job) -> Prediction:
        begin = time.perf_counter()
        alone = len(self._under_way) == 1
        torch.set_num_threads(self._threads if alone else max(1, self._threads // self._workers))
        frame_size = job.picture.size
        with torch.inference_mode():
            x = self._preprocessor.from_picture(job.picture, job.size)
            logits = self._network(x)[0].float().contiguous().numpy()
        logits_size = logits.shape[1], logits.shape[2]
        upsampler = self._upsampler
        if upsampler is None or (upsampler.logits_size, upsampler.frame_size) != (logits_size, frame_size):
            upsampler = self._upsampler = LabelUpsampler(logits_size, frame_size)
        labels = upsampler(logits)
        confidence = confidence_map(logits, frame_size) if "confidence" in job.outputs else None
        inferred = time.perf_counter()
        rendered = job.renderer.render_picture(job.picture, labels) if "rendered" in job.outputs else None
        return Prediction(
            labels=labels if "labels" in job.outputs else None,
            confidence=confidence,
            rendered=rendered,
            infer_s=inferred - begin,
            render_s=time.perf_counter() - inferred,
        )


@dataclass(frozen=True, slots=True)
class _FutureHandle:
    future: Future[Prediction]

    def result(self, timeout_s: float | None = None) -> Prediction:
        try:
            return self.future.result(timeout_s)
        except (BsdnetError, TimeoutError):
            raise
        except Exception as error:
            raise _failure(error) from error

    def done(self) -> bool:
        return self.future.done()


class CudaRunner:
    """Runs jobs on a GPU, on a stream of its own; between upload and download the frame stays there.

    Work is queued by the thread that submits. The GPU works it off while that thread goes on, and a handle waits for
    the event behind its own results.
    """

    def __init__(self, network: Network, preprocessor: Preprocessor, device: torch.device) -> None:
        self._network = network
        self._preprocessor = preprocessor
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pending: deque[torch.cuda.Event] = deque()
        self._lock = threading.Lock()

    def submit(self, job: Job) -> PredictionHandle:
        """Queue a job on the GPU; wait first while `MAX_PENDING` are under way."""
        with self._lock:
            if len(self._pending) == MAX_PENDING:
                self._pending.popleft().synchronize()
            try:
                with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                    handle = self._launch(job)
            except RuntimeError as error:
                raise _failure(error) from error
            self._pending.append(handle.events[-1])
            return handle

    def close(self) -> None:
        """Wait for the GPU to finish the jobs that were taken."""
        self._stream.synchronize()

    def _launch(self, job: Job) -> "_CudaHandle":
        begin, inferred, drawn, fetched = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(4)
        )
        begin.record()
        encoding = job.picture.encoding
        planes = [self._upload(plane) for plane in job.picture.planes]
        logits = self._network(self._preprocessor.from_tensors(planes, encoding, job.size))
        labels, confidence = labels_on_device(logits, job.picture.size, confidence="confidence" in job.outputs)
        inferred.record()
        rendered = job.renderer.render_torch(planes, labels, encoding) if "rendered" in job.outputs else ()
        drawn.record()
        results = (_download(labels if "labels" in job.outputs else None), _download(confidence))
        pictures = tuple(_download(plane) for plane in rendered)
        fetched.record()
        return _CudaHandle((begin, inferred, drawn, fetched), results, pictures, encoding)

    def _upload(self, plane: NDArray[np.uint8]) -> Tensor:
        pinned = torch.empty(plane.shape, dtype=torch.uint8, pin_memory=True)
        np.copyto(pinned.numpy(), plane)
        return pinned.to(self._device, non_blocking=True)  # PyTorch reuses pinned memory only after its upload


@overload
def _download(tensor: Tensor) -> Tensor: ...
@overload
def _download(tensor: None) -> None: ...
def _download(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _CudaHandle:
    events: Sequence[torch.cuda.Event]
    """Begin, labels ready, rendered, downloaded."""
    results: tuple[Tensor | None, Tensor | None]
    """Labels and confidence in pinned memory, valid after the last event."""
    rendered: tuple[Tensor, ...]
    """Planes of the rendered frame in pinned memory, valid after the last event; empty if it was not asked for."""
    encoding: YuvEncoding | None

    def result(self, timeout_s: float | None = None) -> Prediction:
        begin, inferred, drawn, fetched = self.events
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while deadline is not None and not self.done():  # an event cannot be waited for with a limit
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no prediction within {timeout_s} s")
                time.sleep(0.0005)
            fetched.synchronize()
        except RuntimeError as error:
            raise _failure(error) from error
        labels, confidence = (None if result is None else result.numpy() for result in self.results)
        planes = tuple(plane.numpy() for plane in self.rendered)
        return Prediction(
            labels=labels,
            confidence=confidence,
            rendered=Picture(planes=planes, encoding=self.encoding) if planes else None,
            infer_s=begin.elapsed_time(inferred) / 1000,
            render_s=inferred.elapsed_time(drawn) / 1000,
            busy_s=begin.elapsed_time(drawn) / 1000,
        )

    def done(self) -> bool:
        return bool(self.events[-1].query())  # type: ignore[no-untyped-call]


def _failure(error: Exception) -> BackendError:
    return BackendError(f"inference failed: {type(error).__name__}: {error}")
