"""How the network is run: on which device, in which precision, by which backend. docs/backends.md compares them."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bsdnet.devices import computes_bf16
from bsdnet.errors import BackendError, ConfigError
from bsdnet.modeling import fold_batch_norms
from bsdnet.runtime.engine_cache import EngineCache
from bsdnet.runtime.tensorrt import TensorRT
from bsdnet.runtime.torch_backends import DTYPES, Backend, Compile, CudaGraph, Eager, Run, Size, Target

BackendName = Literal["auto", "eager", "compile", "cudagraph", "tensorrt"]
"""`eager`: plain PyTorch; `compile`: compiled by AOTInductor; `cudagraph`: eager, recorded and replayed by the GPU;
`tensorrt`: an engine built by torch-tensorrt; `auto`: the best that works on this machine."""

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
"""Number format of weights and activations; `auto`: fp16 on CUDA, bf16 on CPUs that compute in it, else fp32."""

BACKENDS: dict[str, type[Backend]] = {
    "eager": Eager,
    "compile": Compile,
    "cudagraph": CudaGraph,
    "tensorrt": TensorRT,
}
AUTO_CHAINS = {"cpu": ("eager",), "cuda": ("tensorrt", "cudagraph", "eager")}
"""What `auto` tries, in this order, by type of device."""
MAX_SIZES = 8
"""Input sizes that are ready at once; the one that was not used for longest goes."""

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
    fastest = "bf16" if computes_bf16(device) else "fp32"
    if name not in ("auto", "fp32", fastest):
        logger.warning("this CPU has no fast %s arithmetic, %s is faster", name, fastest)
    return fastest if name == "auto" else name


class Network:
    """The network on its device: batch norms folded, channels_last, run by the best backend that works.

    Backends build for one input size at a time: in `prepare`, or at the first picture of a size. Call it in inference
    mode, on one thread at a time unless the backend is `eager` or `compile`, and on CUDA with a non-default stream as
    the current one.

    Args:
        model: the network, fp32; it is left as it is.
        device: where to run it.
        precision: `fp32`, `bf16` or `fp16`.
        backend: one backend, or `auto` to step down from the fastest; each step's reason is logged once.
        cache: where built engines are kept; None for the user's cache folder.

    Raises:
        ConfigError: no such backend.
        BackendError: the backend asked for cannot run here.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: str,
        backend: BackendName,
        cache: EngineCache | None = None,
    ) -> None:
        if backend not in get_args(BackendName):
            raise ConfigError(f"backend must be one of {', '.join(get_args(BackendName))}, got {backend!r}")
        self.dtype = DTYPES[precision]
        # Converted on the CPU: an upload waits for its end, work on a GPU's default stream would go on behind it.
        folded = fold_batch_norms(model).to(dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._target = Target(model=folded.to(device), device=device, precision=precision, cache=cache or EngineCache())
        self._chain = list(AUTO_CHAINS[device.type]) if backend == "auto" else [backend]
        self._backend = self._first_that_can_run()
        self._runs: OrderedDict[Size, Run] = OrderedDict()
        self._lock = threading.Lock()
        self._building = threading.Lock()

    @property
    def backend(self) -> str:
        """The backend in use: with `auto`, the first one that has not failed so far."""
        return self._chain[0]

    def prepare(self, size: Size) -> None:
        """Make an input size ready, so that its first picture takes no longer than others.

        Pictures of other sizes can go on meanwhile. At most `MAX_SIZES` sizes are ready at once.

        Args:
            size: height and width in pixels.

        Raises:
            BackendError: the backend asked for cannot be built for this size.
        """
        with torch.inference_mode(), _own_stream(self._target.device):
            run = self._run_for(size)
            if self._target.device.type == "cpu":  # on a GPU, building has warmed it up, and others may be using it
                _warm_up(run, self._target.example(size))

    def __call__(self, x: Tensor) -> Tensor:
        """Map a normalised picture `(1, 3, h, w)` to logits `(1, C, ceil(h/8), ceil(w/8))`.

        A backend may overwrite the result at the next call with a picture of the same size.

        Raises:
            BackendError: the backend asked for cannot be built for this input size.
        """
        return self._run_for((x.shape[2], x.shape[3]))(x)

    def _run_for(self, size: Size) -> Run:
        run = self._ready(size)
        if run is not None:
            return run
        with self._building:
            run = self._ready(size)  # another thread may have built it meanwhile
            if run is None:
                run = self._build(size)
                with self._lock:
                    self._runs[size] = run
                    if len(self._runs) > MAX_SIZES:
                        self._runs.popitem(last=False)
            return run

    def _ready(self, size: Size) -> Run | None:
        with self._lock:
            if size in self._runs:
                self._runs.move_to_end(size)
            return self._runs.get(size)

    def _build(self, size: Size) -> Run:
        while True:
            try:
                with torch.autocast(self._target.device.type, enabled=False):  # its casts would be recorded
                    return self._backend.build(size)
            except BackendError as error:
                self._step_down(error)
                self._backend = self._first_that_can_run()

    def _first_that_can_run(self) -> Backend:
        while True:
            try:
                return BACKENDS[self.backend](self._target)
            except BackendError as error:
                self._step_down(error)

    def _step_down(self, error: BackendError) -> None:
        if len(self._chain) == 1:
            raise error
        logger.warning("backend %s is not used, next is %s: %s", self._chain[0], self._chain[1], error)
        del self._chain[0]


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On CUDA, work on a stream that nothing else uses, and wait for its end."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _warm_up(run: Run, x: Tensor) -> None:
    """Run with each number of threads that the CPU's runner uses: oneDNN sets itself up for each."""
    threads = torch.get_num_threads()
    try:
        for count in sorted({threads, max(1, threads // 2)}):
            torch.set_num_threads(count)
            run(x)
    finally:
        torch.set_num_threads(threads)
