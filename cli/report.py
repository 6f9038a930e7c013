"""What bsdnet-run writes on the picture, and what it says at the end."""

from collections.abc import Mapping
from pathlib import Path

from bsdnet.picture import Picture
from bsdnet.rendering import draw_hud
from bsdnet.runtime.segmenter import Segmenter
from bsdnet.stream.frame import StreamInfo
from bsdnet.stream.stats import Stage, StreamStats

_STAGES: tuple[Stage, ...] = ("decode", "infer", "render", "encode")


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

    def draw(self, rendered: Picture, stats: StreamStats) -> Picture:
        """Draw onto a rendered frame, in place."""
        rate = f"{stats.fps_out:.1f} FPS" if stats.fps_out else "-- FPS"
        network = f"{describe_network(self._segmenter)}  {self._size}"
        draw_hud(rendered, [rate, network, describe_engine(self._segmenter)])
        return rendered


def describe_network(segmenter: Segmenter) -> str:
    """Name the network as people do, such as `BSDNet-S`."""
    return segmenter.architecture.replace("bsdnet_", "BSDNet-").upper().replace("BSDNET", "BSDNet")


def describe_engine(segmenter: Segmenter) -> str:
    """Name device, precision and backend, such as `cpu bf16 eager`."""
    return f"{segmenter.device} {segmenter.precision} {segmenter.backend}"


def summary(stats: StreamStats, info: StreamInfo, segmenter: Segmenter, written: Mapping[str, Path]) -> str:
    """Write the closing lines of a run.

    Args:
        stats: the ended stream's.
        info: the stream.
        segmenter: what was used.
        written: what there is now, by what it is called.
    """
    height, width = segmenter.size_for(info.size)
    fps = stats.frames_out / stats.elapsed_s if stats.elapsed_s else 0.0
    lost = f", {stats.lost} could not be decoded" if stats.lost else ""
    dropped = f", {stats.dropped} dropped" if stats.dropped else ""
    stages = ", ".join(f"{stage} {stats.latency[stage].mean_ms:.1f}" for stage in _STAGES if stats.latency[stage].count)
    first = f", first frame after {stats.first_frame_s:.2f} s" if stats.first_frame_s is not None else ""
    lines = [
        f"frames   {stats.frames_in} in, {stats.frames_out} out{lost}{dropped}",
        f"speed    {fps:.1f} fps, {stats.elapsed_s:.1f} s{first}",
        f"stages   {stages} (ms per frame; they run at the same time)",
        f"network  {describe_network(segmenter)} {width}x{height}, {describe_engine(segmenter)}",
        *(f"{kind:8} {path}" for kind, path in written.items()),
    ]
    return "\n".join(lines)
