"""What is known of a running stream and of what segments it, at one moment, for logs and monitors."""

import contextlib
import errno
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

import torch

from bsdnet.errors import SinkError
from bsdnet.stream.partial_file import check_folder
from bsdnet.stream.stats import StreamStats

logger = logging.getLogger(__name__)

_Record = Mapping[str, object]


class Engine(Protocol):
    """What a report needs of a segmenter."""

    architecture: str
    device: torch.device
    precision: str

    @property
    def backend(self) -> str:
        """How the network is run."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuMemory:
    """Memory of a GPU in bytes."""

    reserved: int
    """What PyTorch has reserved for this process; engines of TensorRT take theirs beside it."""
    used: int
    """What all programs together use."""
    total: int
    """What there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamReport:
    """One moment of a stream."""

    time_s: float
    """When it was, in seconds since 1970-01-01 UTC."""
    source: str
    """The stream's name, never with credentials."""
    state: str
    """The pipeline's state: `running`, `paused`, or how it ended: `finished`, `stopped`, `failed`."""
    stats: StreamStats
    """Rates, counts and latencies."""
    network: str
    """`bsdnet_s` or `bsdnet_b`."""
    input_size: tuple[int, int]
    """Height and width at which the network sees frames, in pixels."""
    backend: str
    """How the network is run."""
    precision: str
    """Number format of the network."""
    device: str
    """Where the network runs."""
    memory_bytes: int | None
    """Memory of this process that is in RAM; None where the system does not say."""
    gpu_memory: GpuMemory | None
    """Memory of the GPU that the network runs on; None if it runs on none."""

    def as_record(self) -> dict[str, object]:
        """Give it as what JSON can hold; docs/statistics.md explains each field."""
        stats, (height, width) = self.stats, self.input_size
        stages = {stage: asdict(latency) if latency.count else None for stage, latency in stats.latency.items()}
        return {
            "time": datetime.fromtimestamp(self.time_s, UTC).isoformat(timespec="milliseconds"),
            "source": self.source,
            "state": self.state,
            "elapsed_s": round(stats.elapsed_s, 3),
            "first_frame_s": None if stats.first_frame_s is None else round(stats.first_frame_s, 3),
            "frames_in": stats.frames_in,
            "frames_out": stats.frames_out,
            "dropped": stats.dropped,
            "lost": stats.lost,
            "fps_in": round(stats.fps_in, 2),
            "fps_infer": round(stats.fps_infer, 2),
            "fps_out": round(stats.fps_out, 2),
            "read_ahead": stats.read_ahead,
            "in_flight": stats.in_flight,
            "sinks": [{**asdict(sink), "fps": round(sink.fps, 2)} for sink in stats.sinks],
            "latency": {
                stage: times and {name: round(value, 3) for name, value in times.items()}
                for stage, times in stages.items()
            },
            "reconnects": stats.signal.reconnects,
            "outage_s": round(stats.signal.outage_s, 3),
            "silent_s": round(stats.signal.silent_s, 3),
            "network": self.network,
            "input_height": height,
            "input_width": width,
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
            "memory_bytes": self.memory_bytes,
            "gpu_memory_bytes": None if self.gpu_memory is None else asdict(self.gpu_memory),
        }


def take_report(
    stats: StreamStats, engine: Engine, *, source: str, state: str, input_size: tuple[int, int]
) -> StreamReport:
    """Report on this moment.

    Args:
        stats: the pipeline's, of now.
        engine: the segmenter.
        source: the stream's name.
        state: the pipeline's state.
        input_size: height and width at which the network sees frames, in pixels.
    """
    return StreamReport(
        time_s=time.time(),
        source=source,
        state=state,
        stats=stats,
        network=engine.architecture,
        input_size=input_size,
        backend=engine.backend,
        precision=engine.precision,
        device=str(engine.device),
        memory_bytes=_memory_bytes(),
        gpu_memory=_gpu_memory(engine.device),
    )


class StatsFile:
    """A file of JSON lines, to which reports are appended, each with one write. Use it as a context manager.

    A program that runs unattended must not end because its log cannot be written: that is said once, and tried again
    with every line. Another run's lines are kept; what is no such file is not touched.

    Args:
        path: the file, a pipe or a device; the folder around it must exist.

    Raises:
        SinkError: it cannot be opened, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False
        self._is_torn = False
        check_folder(path.parent)
        try:
            self._is_new = not path.exists()
            if path.is_file() and path.stat().st_size:
                self._check_old_lines()
            self._is_pipe = path.is_fifo()
            # A pipe's reader that is missing or sleeps must not stop the run.
            opener = _open_at_once if self._is_pipe else None
            self._file = open(path, "ab", buffering=0, opener=opener)  # noqa: SIM115 - it is closed by `__exit__`
        except OSError as error:
            reason = "nobody reads this pipe" if error.errno == errno.ENXIO else error.strerror
            raise SinkError(f"{path} cannot be opened for statistics: {reason}") from error

    def write(self, record: _Record) -> None:
        """Append one line. Never raises for what the disk does."""
        line = b"\n" * self._is_torn + json.dumps(record).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        if written is None:
            self._fail("nobody reads them")
            return
        self._is_torn = written != len(line)
        if self._is_torn:
            self._fail("nobody reads them" if self._is_pipe else "no space left for a whole line")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file, and remove it if it was made for nothing: the stream never began."""
        self._file.close()
        with contextlib.suppress(OSError):
            if self._is_new and not self._path.stat().st_size:
                self._path.unlink()

    def _check_old_lines(self) -> None:
        with self._path.open("rb") as file:
            if file.read(1) != b"{":
                raise SinkError(f"{self._path} holds no statistics and would be spoilt; give another name for them")
            file.seek(-1, os.SEEK_END)
            self._is_torn = file.read(1) != b"\n"

    def _fail(self, reason: str) -> None:
        if not self._failed:
            logger.warning("statistics cannot be written to %s: %s; the run goes on", self._path, reason)
        self._failed = True


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _memory_bytes() -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _gpu_memory(device: torch.device) -> GpuMemory | None:
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(reserved=torch.cuda.memory_reserved(device), used=total - free, total=total)
