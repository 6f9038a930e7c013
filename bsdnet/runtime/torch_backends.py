"""The backends that need PyTorch alone, and what all backends share.

A backend turns a network into functions from the normalised picture `(1, 3, h, w)` to the logits at stride 8,
`(1, C, ceil(h/8), ceil(w/8))`, one for each input size.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from bsdnet.devices import cudnn_search
from bsdnet.errors import BackendError, first_line
from bsdnet.runtime.engine_cache import EngineCache, EngineKey, fingerprint, hardware
from bsdnet.runtime.onednn import pack_convolutions

Size = tuple[int, int]
"""Height and width in pixels."""
Run = Callable[[Tensor], Tensor]
"""Maps a normalised picture to logits, for one input size."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_capturing = threading.Lock()  # PyTorch records one graph at a time in a process
_WARM_UP_CALLS = 3  # libraries set themselves up and choose algorithms in the first calls, which cannot be recorded


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a backend runs, and where."""

    model: nn.Module
    """The network in eval mode, batch norms folded, on the device, in the precision's dtype and channels_last."""
    device: torch.device
    """Where it runs."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    cache: EngineCache
    """Keeps what takes long to build."""

    @cached_property
    def network_hash(self) -> str:
        """What tells this network's engines from those of others."""
        return fingerprint(self.model)

    def example(self, size: Size) -> Tensor:
        """An empty picture `(1, 3, h, w)`, channels_last, as the network takes it."""
        zeros = torch.zeros(1, 3, *size, dtype=DTYPES[self.precision], device=self.device)
        return zeros.contiguous(memory_format=torch.channels_last)

    def key(self, backend: str, size: Size, **environment: str) -> EngineKey:
        """Say what an engine of a backend is for; `environment` holds the versions that the backend depends on."""
        return EngineKey(
            backend=backend,
            size=size,
            precision=self.precision,
            network=self.network_hash,
            environment={**hardware(self.device), **environment},
        )


class Backend(Protocol):
    """A way to run a network.

    Raises:
        BackendError: it cannot run on this device, or lacks a package or a compiler.
    """

    def __init__(self, target: Target) -> None: ...

    def build(self, size: Size) -> Run:
        """Build the function for an input size, or load it.

        Raises:
            BackendError: it cannot be built.
        """
        ...


class Eager:
    """Plain PyTorch; on the CPU with packed convolutions. Its functions may be called by several threads at once."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._packed: nn.Module | None = None

    def build(self, size: Size) -> Run:
        """Give the network itself; on the CPU it is rewritten at the first size and runs at all others."""
        if self._target.device.type != "cpu":
            run = _SearchedByThread(self._target.model)
            with failing_as("eager"):
                run(self._target.example(size))
            return run
        if self._packed is None:
            self._packed = pack_convolutions(self._target.model, self._target.example(size))
        return self._packed


class _SearchedByThread:
    """A network at one size, for which cuDNN searches its algorithms at the first call of every thread.

    Which algorithm cuDNN takes for a convolution is remembered by thread, and without a search it is a guess.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._thread = threading.local()

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor
        if getattr(self._thread, "has_searched", False):
            logits = self._model(x)
            return logits
        with _capturing, cudnn_search(True):  # a search waits for the device, which breaks a recording
            logits = self._model(x)
        self._thread.has_searched = True
        return logits


class CudaGraph:
    """Plain PyTorch, recorded once for each size and replayed by the GPU. A call overwrites the one before's logits."""

    def __init__(self, target: Target) -> None:
        if target.device.type != "cuda":
            raise BackendError(f"backend 'cudagraph' needs a CUDA device, got {target.device.type!r}; use 'eager'")
        self._target = target

    def build(self, size: Size) -> Run:
        """Record the network at a size."""
        with failing_as("cudagraph"):
            return capture(self._target.model, self._target.example(size))


class Compile:
    """AOTInductor: compiled to machine code by PyTorch's own compiler and kept as a package.

    On the CPU its functions may be called by several threads, which then take turns. On CUDA the package is recorded
    as by `CudaGraph`.
    """

    def __init__(self, target: Target) -> None:
        if sys.platform == "win32":
            raise BackendError("backend 'compile' is made for Linux and macOS; use backend 'eager'")
        if target.device.type == "cuda":
            if importlib.util.find_spec("triton") is None:
                raise BackendError(
                    "backend 'compile' needs triton on CUDA: pip install triton; or use backend 'cudagraph'"
                )
            probe_cuda_toolkit()
        self._compiler = probe_compiler()
        self._target = target

    def build(self, size: Size) -> Run:
        """Load the package for a size, or compile it."""
        on_gpu = self._target.device.type == "cuda"
        with failing_as("compile"):
            key = self._target.key("compile", size, compiler=self._compiler)
            package = self._target.cache.fetch(key, load=self._load, build=lambda path: self._compile(size, path))

            def run(x: Tensor) -> Tensor:  # the code takes memory as it was compiled for, without looking
                logits: Tensor = package(x.to(DTYPES[self._target.precision], memory_format=torch.channels_last))
                return logits

            example = self._target.example(size)
            if on_gpu:
                return capture(run, example)
            run(example)
            return run

    def _compile(self, size: Size, path: Path) -> Run:
        # Freezing packs the weights, as for `Eager`; where it was not tried, it is left out. Threads are counted at run
        # time, since the runner gives two frames at once half of them each.
        options = {"freezing": self._target.device.type == "cpu", "cpp.dynamic_threads": True}
        with building():
            program = torch.export.export(self._target.model, (self._target.example(size),))
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
        return self._load(path)

    def _load(self, path: Path) -> Run:
        on_gpu = self._target.device.type == "cuda"
        run: Run = torch._inductor.aoti_load_package(
            str(path),
            run_single_threaded=on_gpu,  # its synchronisation cannot be recorded
            device_index=self._target.device.index if on_gpu and self._target.device.index is not None else -1,
        )
        return run


def probe_compiler() -> str:
    """Compile a line of C++ with the compiler that inductor would take; gives the compiler's version.

    Raises:
        BackendError: there is no compiler, or it does not work.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    source = '#include <vector>\nextern "C" int probe() { return std::vector<int>(1, 0)[0]; }\n'
    with tempfile.TemporaryDirectory(prefix="bsdnet-") as folder:
        library = str(Path(folder) / "probe.so")
        command = [compiler, "-x", "c++", "-shared", "-fPIC", "-o", library, "-"]
        try:
            subprocess.run(command, input=source, check=True, capture_output=True, text=True)
            version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True)
        except OSError as error:
            raise BackendError(
                f"backend 'compile' needs a C++ compiler, and {compiler} cannot be run ({error.strerror}): "
                "install g++, set CXX, or use backend 'eager'"
            ) from error
        except subprocess.CalledProcessError as error:
            raise BackendError(
                f"backend 'compile' needs a C++ compiler, and {compiler} cannot compile a line: "
                f"{first_line(error.stderr)}; repair it, set CXX, or use backend 'eager'"
            ) from error
    return first_line(version.stdout)


def probe_cuda_toolkit() -> None:
    """Look for the CUDA toolkit, whose headers inductor's code includes; PyTorch's own packages do not hold them all.

    Raises:
        BackendError: it is not where PyTorch looks for it.
    """
    try:
        from torch.utils.cpp_extension import CUDA_HOME
    except ImportError as error:  # it needs setuptools, as inductor then does
        raise BackendError(f"backend 'compile' cannot look for the CUDA toolkit: {first_line(error)}") from error
    if CUDA_HOME is None:
        raise BackendError(
            "backend 'compile' needs the CUDA toolkit on CUDA, and PyTorch finds none: install it, set CUDA_HOME, or "
            "use backend 'cudagraph'"
        )


def capture(run: Run, x: Tensor) -> Run:
    """Record a call on the GPU; what is returned replays it and overwrites its result at the next call.

    Other threads may go on using the GPU meanwhile, but have to wait for some of the time; what waits for the whole
    device there, as `torch.cuda.synchronize` does, makes the recording fail.

    Args:
        run: what to record; nothing in it may wait for the GPU.
        x: an example of its input. The recorded call gets its inputs in the same memory order.

    Raises:
        Exception: whatever `run` raises, while it is recorded, too.
    """
    still = x.clone()
    # PyTorch has 32 streams of each priority and hands them out again and again. What another thread queues on the one
    # that is being recorded would become part of the recording, and nothing else uses this priority.
    stream = torch.cuda.Stream(x.device, priority=-1)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with _capturing, torch.cuda.stream(stream):
        with cudnn_search(True):  # not longer: the flag is the process's, and a search elsewhere breaks the recording
            for _ in range(_WARM_UP_CALLS):
                run(still)
        graph, logits = _record(run, still, stream)
    return _Replay(run, graph, still, logits)


def _record(run: Run, still: Tensor, stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    graph = torch.cuda.CUDAGraph()
    pool = torch.cuda.graph_pool_handle()
    cause: Exception | None = None
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            try:
                return graph, run(still)
            except Exception as error:
                cause = error
                raise
    except Exception as error:
        # Where ending the recording fails, which it does if anything in it has, PyTorch (CUDAGraph::capture_end) goes
        # on giving memory to it, and defers for good the freeing of all that several streams have used. What was given
        # to it already would be lost to all others, too.
        with suppress(AttributeError, RuntimeError):  # private; or it has ended after all
            torch._C._cuda_endAllocateToPool(still.device.index, pool)
            torch._C._cuda_releasePool(still.device.index, pool)
        try:
            # Ending a recording that has failed fails, too, and says only that it has: the reason would be lost.
            raise (cause or error) from None
        finally:
            del cause  # it refers to this frame, and so would keep the GPU's memory


@dataclass(frozen=True, eq=False, slots=True)
class _Replay:
    recorded: Run
    """It owns the weights that the graph reads: without it they would be freed."""
    graph: torch.cuda.CUDAGraph
    still: Tensor
    logits: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        self.still.copy_(x)
        self.graph.replay()
        return self.logits


@contextmanager
def building() -> Iterator[None]:
    """Give compilers ordinary tensors and no gradients; what they print goes to stderr, their warnings nowhere."""
    with torch.inference_mode(False), torch.no_grad(), redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def failing_as(backend: str) -> Iterator[None]:
    """Turn what goes wrong in a compiler or a driver, which can raise anything, into one clear error."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"backend {backend!r} failed: {first_line(error)}") from error
