"""What bsdnet-run writes on the picture, and what it says at the end."""

from collections.abc import Mapping
from pathlib import Path

from bsdnet.picture import Picture
from bsdnet.rendering import draw_hud
from bsdnet.runtime.adaptive import AdaptiveSegmenter
from bsdnet.runtime.segmenter import Segmenter
from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.stats import Stage, StreamStats

_STAGES: tuple[Stage, ...] = ("decode", "infer", "render", "encode")


class Hud:
    """The words on the picture: live FPS, and what produces it.

    Args:
        segmenter: named on the picture.
        frame_size: height and width of the stream's frames.
        adaptive: chooses the input size, if it changes.
    """

    def __init__(
        self, segmenter: Segmenter, frame_size: tuple[int, int], adaptive: AdaptiveSegmenter | None = None
    ) -> None:
        self._segmenter = segmenter
        self._size = segmenter.size_for(frame_size)
        self._adaptive = adaptive

    def draw(self, rendered: Picture, stats: StreamStats) -> Picture:
        """Draw onto a rendered frame, in place."""
        rate = f"{stats.fps_out:.1f} FPS" if stats.fps_out else "-- FPS"
        size = self._size if self._adaptive is None else self._adaptive.size
        network = f"{describe_network(self._segmenter)}  {describe_size(size)}"
        lines = [rate, network, describe_engine(self._segmenter)]
        if stats.signal.silent_s:
            lines.insert(0, f"no signal for {stats.signal.silent_s:.0f} s")
        draw_hud(rendered, lines)
        return rendered


def describe_network(segmenter: Segmenter) -> str:
    """Name the network as people do, such as `BSDNet-S`."""
    return segmenter.architecture.replace("bsdnet_", "BSDNet-").upper().replace("BSDNET", "BSDNet")


def describe_engine(segmenter: Segmenter) -> str:
    """Name device, precision and backend, such as `cpu bf16 eager`."""
    return f"{segmenter.device} {segmenter.precision} {segmenter.backend}"


def describe_size(size: tuple[int, int]) -> str:
    """Write a size (height, width) as people do: `640x352`."""
    return f"{size[1]}x{size[0]}"


def summary(
    stats: StreamStats,
    info: StreamInfo,
    segmenter: Segmenter,
    written: Mapping[str, str | Path],
    adaptive: AdaptiveSegmenter | None = None,
) -> str:
    """Write the closing lines of a run.

    Args:
        stats: the ended stream's.
        info: the stream.
        segmenter: what was used.
        written: what there is now, by what it is called.
        adaptive: what chose the input size, if it could change.
    """
    sizes = describe_size(segmenter.size_for(info.size))
    if adaptive is not None and adaptive.frames_per_size:
        used = adaptive.frames_per_size.items()
        sizes = ", ".join(f"{describe_size(size)} ({frames} frames)" for size, frames in used)
    fps = stats.frames_out / stats.elapsed_s if stats.elapsed_s else 0.0
    lost = f", {stats.lost} could not be decoded" if stats.lost else ""
    dropped = f", {stats.dropped} dropped" if stats.dropped else ""
    stages = ", ".join(f"{stage} {stats.latency[stage].mean_ms:.1f}" for stage in _STAGES if stats.latency[stage].count)
    first = f", first frame after {stats.first_frame_s:.2f} s" if stats.first_frame_s is not None else ""
    signal = stats.signal
    outages = [f"signal   {signal.outage_s:.1f} s without pictures, {signal.reconnects} reconnects"]
    lines = [
        f"frames   {stats.frames_in} in, {stats.frames_out} out{lost}{dropped}",
        f"speed    {fps:.1f} fps, {stats.elapsed_s:.1f} s{first}",
        *(outages if signal.outage_s else []),
        f"stages   {stages} (ms per frame; they run at the same time)",
        f"network  {describe_network(segmenter)} {sizes}, {describe_engine(segmenter)}",
        *(f"{kind:8} {path}" for kind, path in written.items()),
    ]
    return "\n".join(lines)
