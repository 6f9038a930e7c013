"""Recording a network as a CUDA graph, with a stand-in for the parts of `torch.cuda` that it takes."""

import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bsdnet.runtime import backends
from bsdnet.runtime.backends import Network
from bsdnet.runtime.torch_backends import capture

from .test_backends import CPU, Recorder


class Weights:
    """What a compiled package is: something that is called, and owns what its kernels read."""

    def __init__(self):
        self.calls = []

    def __call__(self, x):
        self.calls.append((x, torch.backends.cudnn.benchmark))
        return 2 * x


class StandIn:
    """Records as CUDA does: the same memory is read and written by each replay."""

    def __init__(self):
        self.priorities = []
        self.recording = threading.Lock()
        self.open_pools = set()
        self.held_pools = set()

    def stream(self, device, priority=0):
        self.priorities.append(priority)
        return self

    def wait_stream(self, other):
        pass

    @contextlib.contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert self.recording.acquire(blocking=False), "one graph at a time"
        self.open_pools.add(pool)
        self.held_pools.add(pool)  # by the graph, until it goes; but not by one that failed
        try:
            yield
            self.open_pools.remove(pool)  # CUDAGraph::capture_end does not come so far if anything has failed
        except Exception as error:
            raise RuntimeError("operation failed due to a previous error during capture") from error
        finally:
            self.recording.release()

    def end_allocation(self, device, pool):
        if pool not in self.open_pools:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.open_pools.remove(pool)

    def release(self, device, pool):
        self.held_pools.remove(pool)


@pytest.fixture
def cuda(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setattr(torch.cuda, "Stream", stand_in.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stand_in)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", stand_in.graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", stand_in.end_allocation, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", stand_in.release, raising=False)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: type("Graph", (), {"replay": lambda self: None})())
    return stand_in


def test_what_was_recorded_lives_as_long_as_its_recording(cuda):
    weights = Weights()
    alive = weakref.ref(weights)
    replay = capture(weights, torch.zeros(1, 3, 4, 4))
    del weights
    gc.collect()
    assert alive() is not None, "the graph reads its memory"
    replay(torch.ones(1, 3, 4, 4))
    del replay
    gc.collect()
    assert alive() is None


def test_a_replay_reads_and_writes_the_memory_that_was_recorded(cuda):
    weights, x = Weights(), torch.zeros(1, 3, 4, 4)
    replay = capture(weights, x)
    recorded = weights.calls[-1][0]
    assert recorded is not x
    first, second = replay(torch.ones(1, 3, 4, 4)), replay(torch.full((1, 3, 4, 4), 5.0))
    assert first is second
    assert recorded.unique().tolist() == [5]
    assert len(cuda.held_pools) == 1, "the memory is the graph's to give back"


def test_algorithms_are_looked_for_before_and_the_users_choice_is_left(cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    weights = Weights()
    tf32 = []
    capture(lambda x: tf32.append(torch.backends.cudnn.allow_tf32) or weights(x), torch.zeros(1, 3, 4, 4))
    assert [benchmark for _, benchmark in weights.calls] == [True, True, True, False]
    assert tf32 == [False] * 4
    assert torch.backends.cudnn.benchmark is False


def test_no_other_work_is_on_the_stream_that_is_recorded(cuda):
    capture(Weights(), torch.zeros(1, 3, 4, 4))
    assert cuda.priorities == [-1], "streams of the usual priority are handed out again after 32"


def test_a_recording_that_fails_says_why(cuda):
    calls = []

    def run(x):
        calls.append(x)
        if len(calls) == 4:  # three calls come before the recording
            raise RuntimeError("operation not permitted when stream is capturing")
        return x

    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        capture(run, torch.zeros(1, 3, 4, 4))
    assert not cuda.open_pools, "the next recordings' memory would go there, and other memory would never be freed"
    assert not cuda.held_pools, "its memory would serve nobody any more"


def test_two_threads_record_one_after_the_other(cuda):
    barrier = threading.Barrier(2)

    def slow(x):
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(0.05)  # both at once, if they could be
        return x

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: capture(slow, torch.zeros(1, 3, 4, 4)), range(2)))


def test_nothing_is_built_under_the_callers_autocast(monkeypatch):
    seen = []

    class Watching(Recorder):
        def build(self, size):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().build(size)

    monkeypatch.setitem(backends.BACKENDS, "eager", Watching)
    network = Network(torch.nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network.prepare((32, 32))
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False]
