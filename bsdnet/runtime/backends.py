"""How the network is run: on which device, in which precision, by which backend.

A backend turns a network and an example of its input into a function from the normalised picture `(1, 3, h, w)` to
the logits at stride 8, `(1, C, h/8, w/8)`, for that one input size. `Network` chooses among them.
"""

import importlib.util
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bsdnet.errors import BackendError, ConfigError
from bsdnet.modeling import fold_batch_norms

BackendName = Literal["auto", "eager", "compile", "cudagraph", "tensorrt"]
"""`eager`: plain PyTorch; `compile`: torch.compile; `cudagraph`: eager, recorded once and replayed by the GPU;
`tensorrt`: an engine built by torch-tensorrt; `auto`: the fastest that works and needs no long compilation."""

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
"""Number format of weights and activations; `auto`: fp16 on CUDA, bf16 on CPUs that compute in it, else fp32."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO_CHAINS = {"cpu": ("eager",), "cuda": ("tensorrt", "cudagraph", "eager")}
"""What `auto` tries, in this order, by type of device."""

logger = logging.getLogger(__name__)


def select_precision(name: PrecisionName, device: torch.device) -> str:
    """Choose a number format: `fp32`, `bf16` or `fp16`.

    Raises:
        ConfigError: no such name.
    """
    if name not in get_args(PrecisionName):
        raise ConfigError(f"precision must be one of {', '.join(get_args(PrecisionName))}, got {name!r}")
    if device.type == "cuda":
        return "fp16" if name == "auto" else name
    fastest = "bf16" if _cpu_computes_bf16() else "fp32"
    if name not in ("auto", "fp32", fastest):
        logger.warning("this CPU has no fast %s arithmetic, %s is faster", name, fastest)
    return fastest if name == "auto" else name


def _cpu_computes_bf16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):  # it came early in 2026; fp32 is right everywhere, only slower
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Network:
    """The network on its device: batch norms folded, channels_last, run by the best backend that works.

    Backends build for one input size, at the first picture of that size; only the latest size is kept. Call it
    in inference mode, on one thread at a time unless the backend is `eager`, and on CUDA with a non-default stream as
    the current one.

    Args:
        model: the network, fp32; it is left as it is.
        device: where to run it.
        precision: `fp32`, `bf16` or `fp16`.
        backend: one backend, or `auto` to step down from the fastest; each step's reason is logged once.

    Raises:
        ConfigError: no such backend.
        BackendError: the backend asked for cannot run here.
    """

    def __init__(self, model: nn.Module, device: torch.device, precision: str, backend: BackendName) -> None:
        if backend not in get_args(BackendName):
            raise ConfigError(f"backend must be one of {', '.join(get_args(BackendName))}, got {backend!r}")
        self.dtype = DTYPES[precision]
        folded = fold_batch_norms(model)
        self._model = folded.to(device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._chain = list(AUTO_CHAINS[device.type]) if backend == "auto" else [backend]
        self._lock = threading.Lock()
        self._shape: torch.Size | None = None
        self._run: Callable[[Tensor], Tensor] = self._model
        self._attempt(lambda: check_backend(self.backend, device))

    @property
    def backend(self) -> str:
        """The backend in use: with `auto`, the first one that has not failed so far."""
        return self._chain[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Map a normalised picture `(1, 3, h, w)` to logits `(1, C, ceil(h/8), ceil(w/8))`.

        A backend may overwrite the result at the next call.

        Raises:
            BackendError: the backend asked for cannot be built for this input size.
        """
        with self._lock:
            if x.shape != self._shape:
                self._attempt(lambda: self._build(x))
                self._shape = x.shape
            run = self._run
        return run(x)

    def _build(self, x: Tensor) -> None:
        self._run = BUILDERS[self.backend](self._model, x)

    def _attempt(self, step: Callable[[], None]) -> None:
        while True:
            try:
                return step()
            except BackendError as error:
                if len(self._chain) == 1:
                    raise
                logger.warning("backend %s is not used, next is %s: %s", self._chain[0], self._chain[1], error)
                del self._chain[0]


def check_backend(name: str, device: torch.device) -> None:
    """Check what can be told of a backend without building it.

    Raises:
        BackendError: it cannot run on this device or lacks a package or a compiler.
    """
    if name == "tensorrt" and importlib.util.find_spec("torch_tensorrt") is None:
        raise BackendError("backend 'tensorrt' needs torch-tensorrt, which is not here: pip install 'bsdnet[tensorrt]'")
    if name in ("cudagraph", "tensorrt") and device.type != "cuda":
        raise BackendError(f"backend {name!r} needs a CUDA device, got {device.type!r}; use backend 'eager'")
    if name != "compile":
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise BackendError("backend 'compile' needs triton on CUDA: pip install triton, or use backend 'eager'")
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise BackendError(f"backend 'compile' needs a C++ compiler and found no {compiler}; use backend 'eager'")


def _eager(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return model


def _compile(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False, options={"freezing": True})
    try:
        compiled(x)
    except Exception as error:  # a compiler's failures come as anything
        raise BackendError(f"backend 'compile' failed: {_first_line(error)}") from error
    return compiled


def _cudagraph(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    still = x.clone()
    try:
        for _ in range(3):  # libraries set themselves up in the first calls, which cannot be recorded
            model(still)
        torch.cuda.synchronize(x.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(x.device)):
            logits: Tensor = model(still)
    except RuntimeError as error:
        raise BackendError(f"backend 'cudagraph' failed: {_first_line(error)}") from error

    def replay(x: Tensor) -> Tensor:
        still.copy_(x)
        graph.replay()
        return logits

    return replay


def _tensorrt(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Build a TensorRT engine. Written from torch-tensorrt's sources; it has not run on hardware yet."""
    try:
        import torch_tensorrt  # without its libraries this raises a bare Exception

        program = torch.export.export(model, (x,))
        engine: Callable[[Tensor], Tensor] = torch_tensorrt.dynamo.compile(program, arg_inputs=(x,))
    except Exception as error:
        raise BackendError(f"backend 'tensorrt' failed: {_first_line(error)}") from error
    return engine


BUILDERS: dict[str, Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]] = {
    "eager": _eager,
    "compile": _compile,
    "cudagraph": _cudagraph,
    "tensorrt": _tensorrt,
}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
