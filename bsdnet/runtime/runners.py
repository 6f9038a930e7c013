"""The way of a frame through resize, network, labels and rendering, one after the other in the background.

There is one runner per kind of device. Both give results in the order of the frames and hold at most `MAX_PENDING`
of them: whoever submits more waits, so that frames cannot pile up.
"""

import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from bsdnet.errors import BackendError, BsdnetError, first_line
from bsdnet.picture import Picture
from bsdnet.rendering import Renderer
from bsdnet.runtime.backends import Network
from bsdnet.runtime.postprocess import LabelUpsampler, confidence_map
from bsdnet.runtime.prediction import Output, Prediction, PredictionHandle
from bsdnet.runtime.preprocess import Preprocessor
from bsdnet.runtime.smoothing import Turn

MAX_PENDING = 4
"""Frames that a runner holds at most: two at work, one waiting for them, one being fetched."""

_running: "weakref.WeakSet[CpuRunner]" = weakref.WeakSet()  # those that may have changed PyTorch's number of threads
_running_lock = threading.Lock()


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
    turn: Turn | None = None
    """Averages the logits with those of the stream's frames before; whoever fails to run the job closes it."""


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
        with _running_lock:
            self._threads = _all_threads()
            # Compiled code is not known to bear two callers at once.
            self._workers = 2 if self._threads > 1 and network.backend == "eager" else 1
            _running.add(self)
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
        with suppress(RuntimeError):  # it was closed before
            self._executor.submit(torch.set_num_threads, self._threads)  # what threads to come take over
        self._executor.shutdown(wait=True)
        with _running_lock:
            _running.discard(self)

    def _run(self, job: Job) -> Prediction:
        try:
            return self._predict(job)
        finally:
            if job.turn is not None:
                job.turn.close()

    def _predict(self, job: Job) -> Prediction:
        begin = time.perf_counter()
        alone = len(self._under_way) == 1
        torch.set_num_threads(self._threads if alone else max(1, self._threads // self._workers))
        frame_size = job.picture.size
        with torch.inference_mode():
            x = self._preprocessor.from_picture(job.picture, job.size)
            raw = self._network(x)
            if job.turn is not None:
                guide = job.turn.guide
                raw = job.turn.average(raw, None if guide is None else torch.from_numpy(guide))
            logits = raw[0].float().contiguous().numpy()
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


def _all_threads() -> int:
    """Give the threads that a lone frame may use: PyTorch's, unless a running runner has just halved them.

    PyTorch keeps the number for each thread, and a thread that is new to it takes over what any other has set last. Who
    sets just that half, while a segmenter runs, is not told from it.
    """
    here = torch.get_num_threads()
    return next((runner._threads for runner in _running if here == runner._threads // runner._workers), here)


@dataclass(frozen=True, slots=True)
class _FutureHandle:
    future: Future[Prediction]

    def result(self, timeout_s: float | None = None) -> Prediction:
        endless = timeout_s is not None and timeout_s > threading.TIMEOUT_MAX  # Python's locks refuse such a wait
        error = self.future.exception(None if endless else timeout_s)
        if isinstance(error, Exception) and not isinstance(error, BsdnetError):
            raise inference_failure(error) from error
        return self.future.result()

    def done(self) -> bool:
        return self.future.done()


def inference_failure(error: Exception) -> BackendError:
    """Say in one line what went wrong while a frame was worked on."""
    return BackendError(f"inference failed: {type(error).__name__}: {first_line(error)}")
