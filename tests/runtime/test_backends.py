import logging
import shutil

import pytest
import torch
from torch import nn

from bsdnet.devices import select_device
from bsdnet.errors import BackendError, ConfigError
from bsdnet.modeling import bsdnet_s
from bsdnet.runtime import backends
from bsdnet.runtime.backends import Network, check_backend, select_precision

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


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_device_that_is_not_there_is_named(monkeypatch, name, count):
    cuda_devices(monkeypatch, count)
    with pytest.raises(BackendError, match=f"'{name}' was asked for.* sees {count} CUDA devices .*'cpu'"):
        select_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])
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


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_tensorrt_without_its_package_names_the_extra(monkeypatch, device):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'bsdnet\[tensorrt\]'"):
        check_backend("tensorrt", device)


def test_cudagraph_needs_cuda():
    with pytest.raises(BackendError, match="'cudagraph' needs a CUDA device, got 'cpu'"):
        check_backend("cudagraph", CPU)


def test_compile_without_a_compiler_says_so_before_the_first_frame(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BackendError, match="needs a C\\+\\+ compiler"):
        Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "compile")


def test_no_such_backend():
    with pytest.raises(ConfigError, match="backend must be one of auto, eager"):
        Network(nn.Identity(), CPU, "fp32", "openvino")


@torch.inference_mode()
def test_eager_gives_the_logits_of_the_network():
    torch.manual_seed(0)
    model = bsdnet_s(11).eval()
    x = torch.randn(1, 3, 64, 96)
    network = Network(model, CPU, "fp32", "auto")
    assert network.backend == "eager"
    torch.testing.assert_close(network(x), model(x), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_a_network_is_built_once_for_each_size(monkeypatch):
    built = []

    def build(model, x):
        built.append(tuple(x.shape))
        return model

    monkeypatch.setitem(backends.BUILDERS, "eager", build)
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    for width in (32, 32, 64, 64, 64):
        network(torch.zeros(1, 3, 32, width))
    assert built == [(1, 3, 32, 32), (1, 3, 32, 64)]


def failing(model, x):
    raise BackendError("it does not fit")


@torch.inference_mode()
def test_auto_steps_down_once_and_says_why(monkeypatch, caplog):
    monkeypatch.setitem(backends.AUTO_CHAINS, "cpu", ("cudagraph", "compile", "eager"))
    monkeypatch.setattr(backends, "check_backend", lambda name, device: name == "cudagraph" and failing(None, None))
    monkeypatch.setitem(backends.BUILDERS, "compile", failing)
    with caplog.at_level(logging.INFO):
        network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "auto")
        assert network.backend == "compile"
        for width in (32, 64, 32):
            assert network(torch.zeros(1, 3, 32, width)).shape[1] == 5
    assert network.backend == "eager"
    assert [record.message for record in caplog.records] == [
        "backend cudagraph is not used, next is compile: it does not fit",
        "backend compile is not used, next is eager: it does not fit",
    ]


@torch.inference_mode()
def test_a_backend_that_was_asked_for_does_not_step_down(monkeypatch):
    monkeypatch.setitem(backends.BUILDERS, "eager", failing)
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "eager")
    for _ in range(2):
        with pytest.raises(BackendError, match="does not fit"):
            network(torch.zeros(1, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, from within its compiler
@torch.inference_mode()
def test_compiled_logits_agree_with_eager():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval()
    x = torch.randn(1, 3, 32, 32).to(memory_format=torch.channels_last)
    compiled = Network(model, CPU, "fp32", "compile")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-3, atol=1e-4)
    assert compiled.backend == "compile"


@torch.inference_mode()
def test_a_failed_compilation_is_one_clear_error(monkeypatch):
    def compiling(model, **_):
        def fail(x):
            raise RuntimeError("CppCompileError: no space left\nand a long trace")

        return fail

    monkeypatch.setattr(torch, "compile", compiling)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "compile")
    with pytest.raises(BackendError, match=r"^backend 'compile' failed: CppCompileError: no space left$"):
        network(torch.zeros(1, 3, 32, 32))
