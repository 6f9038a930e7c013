"""The parts of the pipeline alone and together."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bsdnet.errors import ConfigError, SourceError
from bsdnet.machine import describe_measurement
from bsdnet.runtime.prediction import Output, Prediction
from bsdnet.runtime.segmenter import Segmenter
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink, VideoSource
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.sink import CallbackSink, FileSink, NullSink
from bsdnet.stream.source import open_source
from cli.bench.measure import IN_FLIGHT
from cli.bench.progress import Rounds
from cli.bench.report import number, publish, table
from cli.report import describe_engine, describe_network, describe_size

STAGES = ("decode", "infer", "render", "encode")
_HELD_FRAMES = 24  # in memory at once, shown again and again: 150 MB of 1080p
_DRAWN = "drawing (of the demo alone)"


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """Frames a second, medians over the rounds."""

    source: str
    """What was segmented, for people."""
    frame_size: tuple[int, int]
    """Height and width of its frames."""
    network: str
    """What segmented it, for people."""
    frames: int
    """Frames of each measurement: as many as were asked for, or else all that the source has."""
    rounds: int
    """Rounds that counted."""
    alone: dict[str, float]
    """By stage of `STAGES`, with nothing else running."""
    together: dict[str, float]
    """The whole pipeline, by what it writes to: `null` or `file`."""
    drawing: float | None
    """Of the demo: drawing its frames."""

    @property
    def bottleneck(self) -> str:
        """The stage that is slowest alone."""
        return min(self.alone, key=lambda stage: self.alone[stage])

    def ratio(self, sink: str) -> float:
        """The whole against the slowest of its stages alone: 1 if everything else were free."""
        stages = [fps for stage, fps in self.alone.items() if sink == "file" or stage != "encode"]
        return self.together[sink] / min(stages)

    @property
    def in_turn(self) -> float:
        """What the whole would reach if its stages took turns on each frame."""
        return 1 / sum(1 / fps for fps in self.alone.values())


class ReplaySource(VideoSource):
    """A few frames as a decoder gave them, again and again from memory.

    Args:
        info: of where they came from.
        frames: at least one.
        num_frames: how many to give.
    """

    lost_frames = 0

    def __init__(self, info: StreamInfo, frames: Sequence[Frame], num_frames: int) -> None:
        self._info = info
        self._frames = frames
        self._left = num_frames

    @property
    def info(self) -> StreamInfo:
        """What is known of the stream."""
        return self._info

    def read(self) -> Frame | None:
        """Give the next frame."""
        if not self._left:
            return None
        self._left -= 1
        return self._frames[self._left % len(self._frames)]

    def seek(self, time_s: float) -> None:
        """Nobody seeks here."""

    def close(self) -> None:
        """Give no more frames."""
        self._left = 0


def measure_pipeline(options: dict[str, Any]) -> PipelineResult:
    """Measure what the options of `bsdnet-bench pipeline` say.

    Raises:
        ConfigError: the source is live: what it gives is the world's rate, not ours.
        SourceError: it cannot be read, or gives no frame.
    """
    spec, frames, rounds = options["source"], options["frames"], options["rounds"]
    with tempfile.TemporaryDirectory() as folder, _load(options) as segmenter:
        drawing = None
        if spec == "demo":
            spec, drawing = _draw_demo(Path(folder) / "demo.mp4", frames)
        with open_source(spec) as source:
            info = source.info
            if info.live:
                raise ConfigError(f"{spec} is live, so its own rate would be measured; give a file, or demo")
            held = list(islice(source, min(frames, _HELD_FRAMES)))
            frames = len(held) + sum(1 for _ in islice(source, frames - len(held)))  # it may have fewer
        if not held:
            raise SourceError(f"{spec} gave no frame, so there is nothing to measure")
        measured: dict[str, list[float]] = {}
        _flow(ReplaySource(info, held, IN_FLIGHT), segmenter, NullSink(frozenset({"rendered"})))  # builds and warms up
        with Rounds(rounds) as progress:
            for _ in range(rounds):
                try:
                    new = _round(spec, info, held, segmenter, frames, Path(folder))
                except KeyboardInterrupt:
                    if not progress.done:
                        raise
                    break
                for name, fps in new.items():
                    measured.setdefault(name, []).append(fps)
                progress.step()
        medians = {name: statistics.median(values) for name, values in measured.items()}
        input_size = describe_size(segmenter.size_for(info.size))
        network = f"{describe_network(segmenter)} {input_size}, {describe_engine(segmenter)}"
    return PipelineResult(
        source=info.name if drawing is None else "demo",
        frame_size=info.size,
        network=network,
        frames=frames,
        rounds=progress.done,
        alone={stage: medians[stage] for stage in STAGES},
        together={sink: medians[sink] for sink in ("null", "file")},
        drawing=drawing,
    )


def write_pipeline(result: PipelineResult, options: dict[str, Any]) -> None:
    """Print and write it."""
    lines = [[f"{stage} alone", number(fps), ""] for stage, fps in result.alone.items()]
    if result.drawing is not None:
        lines.append([_DRAWN, number(result.drawing), ""])
    lines += [
        ["together, results dropped", number(result.together["null"]), number(result.ratio("null"), 2)],
        ["together, into a file", number(result.together["file"]), number(result.ratio("file"), 2)],
    ]
    markdown = "\n\n".join(
        [
            table(["part", "FPS", "of the slowest alone"], lines, left=1),
            "\n".join(
                [
                    f"- bottleneck: {result.bottleneck}; if the stages took turns, {result.in_turn:.1f} FPS",
                    f"- {result.source}, {describe_size(result.frame_size)}; {result.network}",
                    f"- medians, rounds: {result.rounds}, of {result.frames} frames each; infer: from the decoder's "
                    f"frames to labels, {IN_FLIGHT} under way; render: frame by frame",
                ]
            ),
        ]
    )
    machine_readable = {
        "source": result.source,
        "frame_size": describe_size(result.frame_size),
        "network": result.network,
        "frames": result.frames,
        "rounds": result.rounds,
        "fps_alone": result.alone,
        "fps_together": result.together,
        "fps_drawing": result.drawing,
        "bottleneck": result.bottleneck,
        "ratio_null": result.ratio("null"),
        "ratio_file": result.ratio("file"),
        "fps_in_turn": result.in_turn,
    }
    publish(markdown, machine_readable, options, describe_measurement("bsdnet-bench"))


def _load(options: dict[str, Any]) -> Segmenter:
    return Segmenter.load(
        options["weights"],
        device=options["device"],
        backend=options["backend"],
        precision=options["precision"],
        size=options["size"],
    )


def _round(
    spec: str, info: StreamInfo, held: Sequence[Frame], segmenter: Segmenter, frames: int, folder: Path
) -> dict[str, float]:
    """Measure everything once, in frames a second."""
    decoded, start_s = 0, time.perf_counter()
    with open_source(spec) as source:
        for _ in islice(source, frames):
            decoded += 1
    result = {"decode": decoded / (time.perf_counter() - start_s)}
    result["infer"] = _flow(ReplaySource(info, held, frames), segmenter, NullSink())[0]
    drawn: list[StreamResult] = []
    collect = CallbackSink(drawn.append, live=False)
    _, render_ms = _flow(ReplaySource(info, held, len(held)), segmenter, collect, in_flight=1)
    result["render"] = 1000 / render_ms
    result["encode"] = _encode([drawn[number % len(drawn)] for number in range(frames)], info, folder / "alone.mp4")
    rendered: frozenset[Output] = frozenset({"rendered"})
    result["null"] = _flow(open_source(spec), segmenter, NullSink(rendered), frames=decoded)[0]
    sink = FileSink(folder / "together.mp4", overwrite=True, audio=False)
    result["file"] = _flow(open_source(spec), segmenter, sink, frames=decoded)[0]
    return result


def _flow(
    source: VideoSource, segmenter: Segmenter, sink: VideoSink, *, frames: int | None = None, in_flight: int = IN_FLIGHT
) -> tuple[float, float]:
    """Run a pipeline to its end; give its frames a second, and the mean time to render a frame in milliseconds."""
    with StreamPipeline(source, segmenter, [sink], in_flight=in_flight, max_frames=frames) as pipeline:
        pipeline.start()
        pipeline.wait()
        stats = pipeline.stats
    return stats.frames_out / stats.elapsed_s, stats.latency["render"].mean_ms


def _encode(results: Sequence[StreamResult], info: StreamInfo, path: Path) -> float:
    """Write results to a file; give frames a second, the closing of the file included."""
    sink = FileSink(path, overwrite=True, audio=False)
    start_s = time.perf_counter()
    sink.open(info)
    for result in results:
        sink.write(result)
    sink.finish()
    return len(results) / (time.perf_counter() - start_s)


def _draw_demo(path: Path, frames: int) -> tuple[str, float]:
    """Draw the demo street into a video file; give its path, and how many frames a second were drawn."""
    sink = FileSink(path, audio=False)
    drawn, drawing_s = 0, 0.0
    with open_source("demo") as source:
        sink.open(source.info)
        for _ in range(frames):
            start_s = time.perf_counter()
            frame = source.read()
            drawing_s += time.perf_counter() - start_s
            if frame is None:
                break
            drawn += 1
            sink.write(StreamResult(frame=frame, prediction=Prediction(rendered=frame.picture)))
    sink.finish()
    return str(path), drawn / drawing_s
