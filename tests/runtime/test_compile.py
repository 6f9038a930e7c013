import copy
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from bsdnet.errors import BackendError
from bsdnet.runtime.backends import Network
from bsdnet.runtime.engine_cache import EngineCache
from bsdnet.runtime.torch_backends import probe_compiler, probe_cuda_toolkit

CPU = torch.device("cpu")


def test_it_is_refused_where_it_was_never_tried(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BackendError, match="made for Linux and macOS"):
        Network(nn.Identity(), CPU, "fp32", "compile")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, r"needs a C\+\+ compiler, and .* cannot be run \(No such file or directory\)"),
        ("echo 'error: vector: no such file' >&2; exit 1", r"cannot compile a line: error: vector: no such file"),
        ("exit 1", r"cannot compile a line: "),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="it is refused there before")
def test_compile_without_a_working_compiler_says_so_before_the_first_frame(tmp_path, monkeypatch, script, reason):
    compiler = tmp_path / "c++"
    if script is not None:
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BackendError, match=reason):
        Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "compile")


def test_without_the_cuda_toolkit_the_error_says_so(monkeypatch):
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    with pytest.raises(BackendError, match=r"needs the CUDA toolkit .* set CUDA_HOME, or use backend 'cudagraph'"):
        probe_cuda_toolkit()
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/usr/local/cuda")
    probe_cuda_toolkit()


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")


@needs_compiler
def test_a_compiler_that_works_gives_its_version(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert "++" in probe_compiler()


@needs_compiler
@torch.inference_mode()
def test_a_failed_compilation_is_one_clear_error(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("CppCompileError: no space left\nand a long trace")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    network = Network(nn.Conv2d(3, 5, 8, 8), CPU, "fp32", "compile", EngineCache(tmp_path))
    with pytest.raises(BackendError, match=r"^backend 'compile' failed: CppCompileError: no space left$"):
        network(torch.zeros(1, 3, 32, 32))


def small_network():
    """An operator on the input, a batch norm that is folded, one that is not, and a softmax over space."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
            self.norm = nn.BatchNorm2d(16)
            self.classify = nn.Conv2d(16, 5, 2, 2)

        def forward(self, x):
            x = self.stem(x * x.sigmoid())
            return self.classify(self.norm(x + x.flatten(2).softmax(2).view_as(x)))

    torch.manual_seed(0)
    model = Small().eval()
    for norm in (model.stem[1], model.norm):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.slow
@needs_compiler
@torch.inference_mode()
def test_compiled_logits_agree_with_eager_fresh_and_loaded_in_any_memory_order(tmp_path):
    model = small_network()
    x = torch.randn(1, 3, 32, 64)
    compiled = Network(model, CPU, "fp32", "compile", EngineCache(tmp_path))
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-3, atol=1e-4)
    assert compiled.backend == "compile"
    (package,) = tmp_path.glob("*.pt2")
    written = package.stat().st_ino

    loaded = Network(copy.deepcopy(model), CPU, "fp32", "compile", EngineCache(tmp_path))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(loaded(x.to(memory_format=memory_format)), model(x), rtol=1e-3, atol=1e-4)
    assert [path.stat().st_ino for path in tmp_path.glob("*.pt2")] == [written]
    _from_two_threads(loaded, model)


def _from_two_threads(network, model):
    pictures = [torch.randn(1, 3, 32, 64) for _ in range(40)]

    def run(x):
        with torch.inference_mode():
            return network(x)

    with ThreadPoolExecutor(2) as pool:
        for x, logits in zip(pictures, pool.map(run, pictures), strict=True):
            torch.testing.assert_close(logits, model(x), rtol=1e-3, atol=1e-4)
