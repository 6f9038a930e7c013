import importlib.util
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
import torch
from torch import nn

from bsdnet import Segmenter
from bsdnet.devices import select_device
from bsdnet.errors import BackendError, ConfigError
from bsdnet.modeling import BSDNet, bsdnet_s
from bsdnet.runtime import backends
from bsdnet.runtime.backends import MAX_SIZES, Network, select_precision
from bsdnet.runtime.engine_cache import EngineCache
from bsdnet.runtime.tensorrt import import_torch_tensorrt
from bsdnet.runtime.torch_backends import CudaGraph, Eager, Target, _SearchedByThread, capture, probe_cuda_toolkit

from .conftest import TINY

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def cuda_devices(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda:0"),
        ("cpu", 1, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_devices(monkeypatch, name, count, expected):
    cuda_devices(monkeypatch, count)
    assert select_device(name) == torch.device(expected)
    assert select_device(torch.device(expected)) == torch.device(expected)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_device_that_is_not_there_is_named(monkeypatch, name, count):
    cuda_devices(monkeypatch, count)
    with pytest.raises(BackendError, match=f"'{name}' was asked for.* sees {count} CUDA devices .*'cpu'"):
        select_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", None, 0])
def test_no_such_device_name(monkeypatch, name):
    cuda_devices(monkeypatch, 1)
    with pytest.raises(ConfigError, match="auto, cpu, cuda or cuda:N"):
        select_device(name)


@pytest.mark.parametrize(
    ("device", "capabilities", "expected"),
    [
        (CPU, {"avx512_bf16": True}, "bf16"),
        (CPU, {"amx_bf16": True}, "bf16"),
        (CPU, {"avx512_f": True, "avx512_bf16": False}, "fp32"),
        (CUDA, {}, "fp16"),
    ],
)
def test_automatic_precision(monkeypatch, device, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert select_precision("auto", device) == expected


def test_a_slow_precision_is_taken_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {}, raising=False)
    assert select_precision("fp32", CPU) == "fp32"
    assert not caplog.records
    assert select_precision("bf16", CPU) == "bf16"
    assert "no fast bf16" in caplog.text


def test_no_such_precision():
    with pytest.raises(ConfigError, match="fp32, bf16, fp16, got 'int8'"):
        select_precision("int8", CPU)


def target_on(device, model=None):
    return Target(model=model or nn.Identity(), device=device, precision="fp32", cache=EngineCache())


def test_no_such_backend():
    with pytest.raises(ConfigError, match="backend must be one of auto, eager"):
        Network(nn.Identity(), CPU, "fp32", "openvino")


def test_cudagraph_needs_cuda():
    with pytest.raises(BackendError, match="'cudagraph' needs a CUDA device, got 'cpu'"):
        Network(nn.Identity(), CPU, "fp32", "cudagraph")


@torch.inference_mode()
def test_eager_gives_the_logits_of_the_network():
    torch.manual_seed(0)
    model = bsdnet_s(11).eval()
    x = torch.randn(1, 3, 64, 96)
    network = Network(model, CPU, "fp32", "auto")
    assert network.backend == "eager"
    torch.testing.assert_close(network(x), model(x), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_eager_gives_the_same_from_two_threads_at_several_sizes():
    torch.manual_seed(0)
    network = Network(BSDNet(TINY).eval(), CPU, "fp32", "eager")
    pictures = [torch.randn(1, 3, 64, 32 * (1 + number % 3)) for number in range(12)]
    barrier = threading.Barrier(2)

    def run(start):
        barrier.wait()
        with torch.inference_mode():
            return [network(x) for x in pictures[start::2]]

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(run, range(2)))
    for number, x in enumerate(pictures):
        torch.testing.assert_close(halves[number % 2][number // 2], network(x))


class Recorder:
    """A backend that notes what it builds."""

    built: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, target):
        self._model = target.model

    def build(self, size):
        self.built.append(size)
        return self._model


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "eager", Recorder)
    monkeypatch.setattr(Recorder, "built", [])
    return Recorder.built


def picture(width):
    return torch.zeros(1, 3, 32, width)


@torch.inference_mode()
def test_every_size_is_built_once_and_stays_ready(recorder):
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    network.prepare((32, 64))
    for width in (32, 64, 32, 64, 32):
        assert network(picture(width)).shape == (1, 5, 4, width // 8)
    assert recorder == [(32, 64), (32, 32)]


@torch.inference_mode()
def test_of_too_many_sizes_the_one_not_used_for_longest_goes(recorder):
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    widths = [32 * (1 + number) for number in range(MAX_SIZES + 1)]
    for width in widths[:-1]:
        network(picture(width))
    network(picture(widths[0]))
    network(picture(widths[-1]))
    network(picture(widths[0]))
    assert [width for _, width in recorder] == widths
    network(picture(widths[1]))
    assert [width for _, width in recorder] == [*widths, widths[1]]


def test_pictures_of_one_size_go_on_while_another_is_built(monkeypatch):
    begun, finish = threading.Event(), threading.Event()

    class Slow(Recorder):
        def build(self, size):
            if size == (32, 64):
                begun.set()
                assert finish.wait(30)
            return super().build(size)

    monkeypatch.setitem(backends.BACKENDS, "eager", Slow)
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    network.prepare((32, 32))
    building = threading.Thread(target=network.prepare, args=((32, 64),))
    building.start()
    assert begun.wait(30)
    try:
        with torch.inference_mode():
            assert network(picture(32)).shape == (1, 5, 4, 4)
    finally:
        finish.set()
        building.join(30)


def test_two_threads_build_a_size_once(monkeypatch, recorder):
    barrier = threading.Barrier(2)
    build = Recorder.build
    monkeypatch.setattr(Recorder, "build", lambda self, size: time.sleep(0.2) or build(self, size))
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")

    def prepare(_):
        barrier.wait()
        network.prepare((32, 64))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(prepare, range(2)))
    assert recorder == [(32, 64)]


def test_preparing_leaves_the_number_of_threads_as_it_was(recorder):
    counts = []

    class Counting(nn.Module):
        def forward(self, x):
            counts.append(torch.get_num_threads())
            return x

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Network(Counting(), CPU, "fp32", "eager").prepare((32, 32))
        assert counts == [1, 2]
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError, match="channels"):
            Network(nn.Conv2d(4, 5, 8, 8), CPU, "fp32", "eager").prepare((32, 32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_segmenter_prepares_sizes(tiny_weights, monkeypatch, recorder):
    with Segmenter.load(tiny_weights, device="cpu") as segmenter:
        segmenter.prepare([(64, 96), (96, 128)])
        assert recorder == [(64, 96), (96, 128)]
        with pytest.raises(ConfigError, match=r"size must be \(height, width\) of at least 32 .* got \(16, 64\)"):
            segmenter.prepare([(16, 64)])


class CannotRun:
    def __init__(self, target):
        raise BackendError("it is not installed")


class CannotBuild:
    def __init__(self, target):
        pass

    def build(self, size):
        raise BackendError("it does not fit")


@torch.inference_mode()
def test_auto_steps_down_once_and_says_why(monkeypatch, caplog):
    monkeypatch.setitem(backends.AUTO_CHAINS, "cpu", ("tensorrt", "compile", "cudagraph", "eager"))
    monkeypatch.setitem(backends.BACKENDS, "tensorrt", CannotRun)
    monkeypatch.setitem(backends.BACKENDS, "compile", CannotBuild)
    with caplog.at_level(logging.WARNING):
        network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "auto")
        assert network.backend == "compile"
        for width in (32, 64, 32):
            assert network(picture(width)).shape[1] == 5
    assert network.backend == "eager"
    assert caplog.messages == [
        "backend tensorrt is not used, next is compile: it is not installed",
        "backend compile is not used, next is cudagraph: it does not fit",
        "backend cudagraph is not used, next is eager: backend 'cudagraph' needs a CUDA device, got 'cpu'; use 'eager'",
    ]


@torch.inference_mode()
def test_a_backend_that_was_asked_for_does_not_step_down(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "eager", CannotBuild)
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    for _ in range(2):
        with pytest.raises(BackendError, match="does not fit"):
            network(picture(32))


@pytest.mark.skipif(importlib.util.find_spec("torch_tensorrt") is not None, reason="torch-tensorrt is here")
def test_without_torch_tensorrt_auto_steps_down_for_real(monkeypatch, caplog):
    monkeypatch.setitem(backends.AUTO_CHAINS, "cpu", ("tensorrt", "cudagraph", "eager"))
    assert Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "auto").backend == "eager"
    assert "needs torch-tensorrt, which is not installed" in caplog.messages[0]
    assert "needs a CUDA device" in caplog.messages[1]


def test_algorithms_are_searched_for_at_the_first_call_of_every_thread(monkeypatch):
    """On a GPU; here with a network that notes whether a search was on."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    searched = []

    class Noting(torch.nn.Module):
        def forward(self, x):
            searched.append(torch.backends.cudnn.benchmark)
            return x

    run = _SearchedByThread(Noting())
    for _ in range(2):
        run(torch.zeros(1))
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            pool.submit(run, torch.zeros(1)).result()
    assert searched == [True, False, True, False]
    assert torch.backends.cudnn.benchmark is False


class TestOnGpu:
    pytestmark: ClassVar = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

    @pytest.mark.parametrize("backend", ["cudagraph", "compile"])
    def test_it_agrees_with_eager_at_several_sizes(self, backend, tmp_path):
        if backend == "compile":
            try:
                probe_cuda_toolkit()
            except BackendError as error:
                pytest.skip(str(error))
        torch.manual_seed(0)
        model = BSDNet(TINY).eval()
        network = Network(model, CUDA, "fp16", backend, EngineCache(tmp_path))
        eager = Network(model, CUDA, "fp16", "eager")
        sizes = [(64, 96), (96, 128)]
        for size in sizes:
            network.prepare(size)
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream(CUDA)):
            for size in sizes * 2:
                x = torch.randn(1, 3, *size).to(CUDA, torch.float16, memory_format=torch.channels_last)
                torch.testing.assert_close(network(x), eager(x), rtol=2e-2, atol=2e-2)

    def test_a_size_is_prepared_while_pictures_of_another_are_worked_on(self, tmp_path):
        network = Network(BSDNet(TINY).eval(), CUDA, "fp16", "cudagraph")
        network.prepare((64, 96))
        stop = threading.Event()

        def work():
            with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream(CUDA)):
                while not stop.is_set():
                    network(torch.empty(1, 3, 64, 96, dtype=torch.float16, device=CUDA)).sum().item()

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                network.prepare((96, 128))
            finally:
                stop.set()
            working.result(30)

    def test_memory_of_several_streams_is_freed_after_a_recording_that_failed(self):
        def waits(x):
            if torch.cuda.is_current_stream_capturing():
                torch.cuda.synchronize()  # which a recording does not bear
            return x + 1

        with pytest.raises(RuntimeError):
            capture(waits, torch.zeros(1, 3, 64, 96, device=CUDA))
        torch.cuda.synchronize()
        before, other = torch.cuda.memory_allocated(CUDA), torch.cuda.Stream(CUDA)
        for _ in range(10):
            block = torch.empty(2**20, device=CUDA)
            block.record_stream(other)
            del block
            torch.cuda.synchronize()
        torch.empty(1, device=CUDA)  # the allocator looks at what was deferred
        assert torch.cuda.memory_allocated(CUDA) <= before + 2**22

    def test_auto_takes_the_best_that_is_here(self):
        try:
            import_torch_tensorrt()
            expected = "tensorrt"
        except BackendError:
            expected = "cudagraph"
        assert Network(BSDNet(TINY).eval(), CUDA, "fp16", "auto").backend == expected


def test_backends_say_what_they_lack_when_they_are_made():
    assert isinstance(Eager(target_on(CPU)), Eager)
    with pytest.raises(BackendError, match="needs a CUDA device"):
        CudaGraph(target_on(CPU))
