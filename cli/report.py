"""What bsdnet-run tells while it works and when it is done."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bsdnet.rendering import draw_hud
from bsdnet.runtime.segmenter import Segmenter
from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.stats import StreamStats

_LINE_EVERY_S = 10.0


class Hud:
    """The words on the picture: live FPS, and what produces it.

    Args:
        segmenter: named on the picture.
        frame_size: height and width of the stream's frames.
    """

    def __init__(self, segmenter: Segmenter, frame_size: tuple[int, int]) -> None:
        height, width = segmenter.size_for(frame_size)
        self._segmenter = segmenter
        self._size = f"{width}x{height}"

    def draw(self, rendered: NDArray[np.uint8], stats: StreamStats) -> NDArray[np.uint8]:
        """Draw onto a rendered frame `(H, W, 3)` uint8 RGB, in place."""
        rate = f"{stats.fps_out:.1f} FPS" if stats.fps_out else "- FPS"
        draw_hud(
            rendered, [rate, f"{describe_network(self._segmenter)}  {self._size}", describe_engine(self._segmenter)]
        )
        return rendered


def describe_network(segmenter: Segmenter) -> str:
    """Name the network as people do, such as `BSDNet-S`."""
    return segmenter.architecture.replace("bsdnet_", "BSDNet-").upper().replace("BSDNET", "BSDNet")


def describe_engine(segmenter: Segmenter) -> str:
    """Name device, precision and backend, such as `cpu bf16 eager`."""
    return f"{segmenter.device} {segmenter.precision} {segmenter.backend}"


class Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, info: StreamInfo, max_frames: int | None) -> None:
        known = [count for count in (info.num_frames, max_frames) if count is not None]
        self._total = min(known, default=None)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total, unit="frame", desc=info.name, file=sys.stderr, disable=not self._terminal,
            dynamic_ncols=True, leave=False,
        )  # fmt: skip
        self._line_due_s = time.monotonic() + _LINE_EVERY_S

    def show(self, stats: StreamStats) -> None:
        """Show how far the stream is."""
        if self._terminal:
            self._bar.update(stats.frames_out - self._bar.n)
        elif time.monotonic() >= self._line_due_s:
            self._line_due_s += _LINE_EVERY_S
            of_total = f" of {self._total}" if self._total else ""
            click.echo(f"{stats.frames_out}{of_total} frames, {stats.fps_out:.1f} fps", err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()


def summary(stats: StreamStats, info: StreamInfo, segmenter: Segmenter, outputs: Sequence[Path | None]) -> str:
    """Write the closing lines of a run.

    Args:
        stats: the ended stream's.
        info: the stream.
        segmenter: what was used.
        outputs: what was written.
    """
    height, width = segmenter.size_for(info.size)
    fps = stats.frames_out / stats.elapsed_s if stats.elapsed_s else 0.0
    lost = f", {stats.lost} could not be decoded" if stats.lost else ""
    dropped = f", {stats.dropped} dropped" if stats.dropped else ""
    stages = ", ".join(
        f"{stage} {stats.latency[stage].mean_ms:.1f}"
        for stage in ("decode", "infer", "render", "encode")
        if stats.latency[stage].count
    )
    first = f", first frame after {stats.first_frame_s:.2f} s" if stats.first_frame_s is not None else ""
    lines = [
        f"frames   {stats.frames_in} in, {stats.frames_out} out{lost}{dropped}",
        f"speed    {fps:.1f} fps, {stats.elapsed_s:.1f} s{first}",
        f"stages   {stages} (ms per frame; they run at the same time)",
        f"network  {describe_network(segmenter)} {width}x{height}, {describe_engine(segmenter)}",
        *(f"output   {path}" for path in outputs if path is not None),
    ]
    return "\n".join(lines)
