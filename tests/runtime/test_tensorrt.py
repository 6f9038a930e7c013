"""The TensorRT backend: its logic with a stand-in for torch-tensorrt that works on the CPU; for real where a GPU is."""

import importlib.util
import operator
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

from bsdnet.errors import BackendError
from bsdnet.modeling import bsdnet_s
from bsdnet.runtime import tensorrt
from bsdnet.runtime.backends import Network
from bsdnet.runtime.engine_cache import EngineCache
from bsdnet.runtime.tensorrt import TensorRT, import_torch_tensorrt, operators_outside
from bsdnet.runtime.torch_backends import Target

SIZE = (32, 64)

STAND_IN = """
import torch
from pathlib import Path

__version__ = "2.13.0"
calls = []


class dynamo:
    @staticmethod
    def compile(program, *, arg_inputs, timing_cache_path):
        calls.append("compile")
        print("++++ Dry-Run Results ++++")
        (x,) = arg_inputs
        assert x.is_contiguous() and all(weight.is_contiguous() for weight in program.state_dict.values())
        assert not torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
        Path(timing_cache_path).write_text("timings")
        return program.module()


def save(module, file_path, *, arg_inputs):
    calls.append("save")
    torch.export.save(torch.export.export(module, arg_inputs), file_path)


def load(file_path):
    calls.append("load")
    return torch.export.load(file_path)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put packages named torch_tensorrt and tensorrt where Python finds them; the source of the former is yours."""

    def write(source, *, with_tensorrt=True):
        (tmp_path / "packages" / "torch_tensorrt").mkdir(parents=True)
        (tmp_path / "packages" / "torch_tensorrt" / "__init__.py").write_text(source)
        if with_tensorrt:
            (tmp_path / "packages" / "tensorrt.py").write_text('__version__ = "11.0.0"')

    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield write
    for name in ("torch_tensorrt", "tensorrt"):
        sys.modules.pop(name, None)


class TargetOnCpu(Target):
    """Says that it is on a GPU and keeps its tensors on the CPU."""

    def example(self, size):
        return torch.zeros(1, 3, *size).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Stand-in")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(tensorrt, "capture", lambda run, x: run)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 4, 4)).eval().requires_grad_(False)
    model = model.to(memory_format=torch.channels_last)
    cache = EngineCache(tmp_path / "engines")
    return TargetOnCpu(model=model, device=torch.device("cuda", 0), precision="fp32", cache=cache)


@pytest.mark.skipif(importlib.util.find_spec("torch_tensorrt") is not None, reason="torch-tensorrt is here")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_torch_tensorrt_the_error_names_it(device):
    with pytest.raises(BackendError, match=r"torch-tensorrt, which is not installed: pip install 'bsdnet\[tensorrt\]'"):
        Network(nn.Identity(), torch.device(device), "fp32", "tensorrt")


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_without_tensorrt_the_error_names_it_and_nothing_is_imported(stand_in):
    stand_in("raise AssertionError('imported')", with_tensorrt=False)
    with pytest.raises(BackendError, match=r"needs the package tensorrt, .* pip install 'bsdnet\[tensorrt\]'"):
        import_torch_tensorrt()


def test_an_import_that_fails_gives_its_reason_and_leaves_stdout_alone(stand_in, capsys):
    stand_in("print('make sure that it is in LD_LIBRARY_PATH')\nraise Exception('no libnvinfer.so.11\\nfound')")
    with pytest.raises(BackendError, match=r"^backend 'tensorrt' cannot load torch-tensorrt: no libnvinfer\.so\.11$"):
        import_torch_tensorrt()
    assert capsys.readouterr() == ("", "make sure that it is in LD_LIBRARY_PATH\n")


def test_it_needs_a_cuda_device(stand_in, tmp_path):
    stand_in(STAND_IN)
    target = Target(model=nn.Identity(), device=torch.device("cpu"), precision="fp32", cache=EngineCache(tmp_path))
    with pytest.raises(BackendError, match="needs a CUDA device, got 'cpu'"):
        TensorRT(target)


@torch.inference_mode()
def test_an_engine_is_built_and_kept_and_loaded(stand_in, target, tmp_path, capsys):
    stand_in(STAND_IN)
    x = torch.randn(1, 3, *SIZE)
    built = TensorRT(target).build(SIZE)
    torch.testing.assert_close(built(x), target.model(x))
    loaded = TensorRT(target).build(SIZE)
    torch.testing.assert_close(loaded(x), target.model(x))
    assert sys.modules["torch_tensorrt"].calls == ["compile", "save", "load"]
    assert sorted(path.suffix for path in (tmp_path / "engines").iterdir()) == ["", ".pt2"]
    assert capsys.readouterr().out == ""


@torch.inference_mode()
@pytest.mark.parametrize("package", ["torch_tensorrt", "tensorrt"])
def test_another_version_builds_an_engine_of_its_own(stand_in, target, package):
    stand_in(STAND_IN)
    TensorRT(target).build(SIZE)
    sys.modules[package].__version__ = "99"
    TensorRT(target).build(SIZE)
    assert sys.modules["torch_tensorrt"].calls == ["compile", "save"] * 2


@torch.inference_mode()
def test_an_engine_that_cannot_be_saved_is_used_all_the_same(stand_in, target, tmp_path, caplog):
    stand_in(STAND_IN + "\ndef save(module, path, **_): Path(path).write_text('half'); raise Exception('no')\n")
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(TensorRT(target).build(SIZE)(x), target.model(x))
    assert "the engine cannot be kept for the next time: no" in caplog.messages
    assert not list((tmp_path / "engines").glob("*.pt2"))


def test_an_engine_that_returns_a_tuple_gives_the_logits():
    x = torch.randn(1, 3, *SIZE)
    assert tensorrt._only_output(lambda x: (x,))(x) is x
    assert tensorrt._only_output(lambda x: x)(x) is x


def test_a_failed_build_is_one_clear_error(stand_in, target):
    stand_in(STAND_IN + "\nclass dynamo:\n    def compile(*a, **k): raise Exception('no tactic\\nfor conv_7')\n")
    with pytest.raises(BackendError, match=r"^backend 'tensorrt' failed: no tactic$"):
        TensorRT(target).build(SIZE)


def test_what_stays_in_pytorch_is_named(stand_in, target, caplog):
    stand_in(STAND_IN)
    TensorRT(target).build(SIZE)
    assert "PyTorch runs them: aten.conv2d.default, aten.relu.default" in caplog.text


def test_of_a_module_that_is_all_engine_nothing_stays_in_pytorch():
    class Engine(nn.Module):
        def forward(self, x):
            return x, x

    graph = fx.Graph()
    node = graph.call_module("_run_on_acc_0", (graph.placeholder("x"),))
    graph.output(graph.call_function(operator.getitem, (node, 0)))
    assert operators_outside(fx.GraphModule({"_run_on_acc_0": Engine()}, graph)) == []


def test_operators_between_engines_are_named_wherever_they_are():
    inner = fx.symbolic_trace(nn.Sequential(nn.Flatten()))
    inner_graph = fx.Graph()
    x = inner_graph.placeholder("x")
    inner_graph.output(inner_graph.call_function(torch.ops.aten.gelu.default, (x,)))
    graph = fx.Graph()
    graph.output(graph.call_module("_run_on_gpu_1", (graph.placeholder("x"),)))
    outer = fx.GraphModule({"_run_on_gpu_1": fx.GraphModule(inner, inner_graph)}, graph)
    assert operators_outside(outer) == ["aten.gelu.default"]


CUDA = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def real_network():
    torch.manual_seed(0)
    return bsdnet_s(11).eval()


def on_gpu(model, cache, size=(128, 256)):
    """The logits of a fixed picture, by a TensorRT engine; and those of eager in the same number format."""
    torch.manual_seed(1)
    x = torch.randn(1, 3, *size).to(CUDA, torch.float16, memory_format=torch.channels_last)
    with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream(CUDA)):
        network = Network(model, CUDA, "fp16", "tensorrt", cache)
        logits = network(x).clone()
        eager = Network(model, CUDA, "fp16", "eager", cache)(x)
        torch.cuda.synchronize()
        return logits.float().cpu(), eager.float().cpu()


class TestOnHardware:
    pytestmark: ClassVar = [
        pytest.mark.gpu,
        pytest.mark.slow,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        pytest.mark.skipif(importlib.util.find_spec("torch_tensorrt") is None, reason="needs torch-tensorrt"),
    ]

    def test_it_agrees_with_eager_and_takes_the_whole_network(self, real_network, tmp_path, caplog):
        logits, eager = on_gpu(real_network, EngineCache(tmp_path))
        assert logits.shape == eager.shape
        assert (logits.argmax(1) == eager.argmax(1)).float().mean() > 0.99
        assert "PyTorch runs them" not in caplog.text

    def test_an_engine_is_found_again_and_gives_the_same(self, real_network, tmp_path):
        built, _ = on_gpu(real_network, EngineCache(tmp_path))
        before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.pt2")}
        assert len(before) == 1
        loaded, _ = on_gpu(real_network, EngineCache(tmp_path))
        assert {path.name: path.stat().st_ino for path in tmp_path.glob("*.pt2")} == before
        assert torch.equal(built, loaded)

    def test_a_damaged_engine_is_built_again(self, real_network, tmp_path, caplog):
        built, _ = on_gpu(real_network, EngineCache(tmp_path))
        (path,) = tmp_path.glob("*.pt2")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        again, _ = on_gpu(real_network, EngineCache(tmp_path))
        assert "it is damaged" in caplog.text
        assert (built.argmax(1) == again.argmax(1)).float().mean() > 0.99

    def test_several_sizes_are_ready_at_once(self, real_network, tmp_path):
        network = Network(real_network, CUDA, "fp16", "tensorrt", EngineCache(tmp_path))
        sizes = [(128, 256), (96, 192)]
        for size in sizes:
            network.prepare(size)
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream(CUDA)):
            for height, width in sizes * 2:
                x = torch.zeros(1, 3, height, width, dtype=torch.float16, device=CUDA)
                assert network(x).shape[2:] == (height // 8, width // 8)

    def test_of_two_processes_one_builds(self, tmp_path):
        script = (
            "import sys, torch, logging; from pathlib import Path; logging.basicConfig(level=logging.INFO)\n"
            "from bsdnet.modeling import bsdnet_s; from bsdnet.runtime.backends import Network\n"
            "from bsdnet.runtime.engine_cache import EngineCache\n"
            "torch.manual_seed(0)\n"
            "cache = EngineCache(Path(sys.argv[1]))\n"
            "Network(bsdnet_s(11).eval(), torch.device('cuda', 0), 'fp16', 'tensorrt', cache).prepare((128, 256))\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        told = [process.communicate(timeout=900)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], told
        assert sum("built the tensorrt engine" in text for text in told) == 1
        assert len(list(tmp_path.glob("*.pt2"))) == 1
