"""TensorRT engines, built by torch-tensorrt 2.11 to 2.14.

Written from the sources of those versions and not run on hardware yet; docs/backends.md says what was read where.
"""

import copy
import importlib
import importlib.util
import logging
import operator
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from bsdnet.errors import BackendError, first_line
from bsdnet.runtime.torch_backends import Run, Size, Target, building, capture, failing_as

logger = logging.getLogger(__name__)


class TensorRT:
    """An engine for each input size, recorded as a CUDA graph. A call overwrites the logits of the one before."""

    def __init__(self, target: Target) -> None:
        self._torch_tensorrt = import_torch_tensorrt()
        if target.device.type != "cuda":
            raise BackendError(f"backend 'tensorrt' needs a CUDA device, got {target.device.type!r}; use 'eager'")
        self._target = target
        with failing_as("tensorrt"):  # a GPU that is full, too
            self._versions = {
                "torch_tensorrt": self._torch_tensorrt.__version__,
                "tensorrt": importlib.import_module("tensorrt").__version__,
            }
            # torch-tensorrt hands TensorRT the address of weight.contiguous(), which for a weight in channels_last is a
            # copy that nothing keeps (to_trt_weights in dynamo/conversion/converter_utils.py, 2.11 to 2.14).
            self._model = copy.deepcopy(target.model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def build(self, size: Size) -> Run:
        """Load the engine for a size, or build it."""
        with failing_as("tensorrt"):
            key = self._target.key("tensorrt", size, **self._versions)
            engine = self._target.cache.fetch(key, load=self._load, build=lambda path: self._build(size, path))
            return capture(engine, self._example(size))

    def _example(self, size: Size) -> Tensor:
        return self._target.example(size).contiguous()  # engines take NCHW; the copy into the recording reorders

    def _build(self, size: Size, path: Path) -> Run:
        x = self._example(size)
        with building():
            program = torch.export.export(self._model, (x,))
            # The number format is that of weights and input. By default the timings of TensorRT's kernels go to a file
            # that all users of a machine share and not all can write.
            engine = self._torch_tensorrt.dynamo.compile(
                program, arg_inputs=(x,), timing_cache_path=str(path.with_suffix(".timing"))
            )
            outside = operators_outside(engine)
            if outside:
                logger.warning("TensorRT does not take these operators, PyTorch runs them: %s", ", ".join(outside))
            try:
                self._torch_tensorrt.save(engine, str(path), arg_inputs=(x,))
            except Exception as error:  # it can be used all the same
                path.unlink(missing_ok=True)
                logger.warning("the engine cannot be kept for the next time: %s", first_line(error))
        return _only_output(engine)

    def _load(self, path: Path) -> Run:
        with building():
            return _only_output(self._torch_tensorrt.load(str(path)).module())


def import_torch_tensorrt() -> ModuleType:
    """Import torch-tensorrt, which without its libraries prints to stdout and raises a bare Exception.

    Raises:
        BackendError: it, or TensorRT itself, is not installed or does not load.
    """
    install = "pip install 'bsdnet[tensorrt]'"
    if importlib.util.find_spec("torch_tensorrt") is None:
        raise BackendError(f"backend 'tensorrt' needs torch-tensorrt, which is not installed: {install}")
    if not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        raise BackendError(f"backend 'tensorrt' needs the package tensorrt, which is not installed: {install}")
    try:
        with redirect_stdout(sys.stderr):
            return importlib.import_module("torch_tensorrt")
    except Exception as error:
        raise BackendError(f"backend 'tensorrt' cannot load torch-tensorrt: {first_line(error)}") from error


def operators_outside(engine: nn.Module) -> list[str]:
    """Name the operators of a compiled module that stayed in PyTorch.

    `torch_tensorrt.dynamo.compile` puts a module of its own in the place of each part that became an engine; what it
    leaves to PyTorch is still an operator in the graph, or in the graph of a submodule.
    """
    graphs = (module.graph for module in engine.modules() if isinstance(module, fx.GraphModule))
    calls = (node for graph in graphs for node in graph.nodes if node.op in ("call_function", "call_method"))
    return sorted({str(node.target) for node in calls if node.target is not operator.getitem})


def _only_output(engine: Any) -> Run:  # noqa: ANN401 - torch-tensorrt has no types
    def run(x: Tensor) -> Tensor:
        logits = engine(x)
        return logits if isinstance(logits, Tensor) else logits[0]  # a saved module may return a tuple of one

    return run
