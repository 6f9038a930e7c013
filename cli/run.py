"""bsdnet-run: segment a video into a video."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from cli.batch import EXIT_LOST_FRAMES, check_batch, run_batch
from cli.command import EXIT_OK, configure_logging, run_command
from cli.options import parse_bytes, parse_names, parse_output, parse_path, parse_size
from cli.outputs import file_sinks, written
from cli.signals import StopSignals
from cli.statistics import Statistics
from cli.systemd import ServiceNotifier

if TYPE_CHECKING:  # PyTorch takes more than a second to import: help and errors of usage or files do without it
    from bsdnet.rendering import RenderStyle
    from bsdnet.runtime.adaptive import AdaptiveSegmenter
    from bsdnet.runtime.segmenter import Segmenter
    from bsdnet.stream.frame import StreamInfo
    from bsdnet.stream.hardware_decoding import HardwareDecoding
    from bsdnet.stream.interfaces import VideoSink, VideoSource
    from bsdnet.stream.pipeline import StreamPipeline
    from bsdnet.stream.report import StreamReport
    from bsdnet.stream.sink import FileSink, SegmentSink
    from bsdnet.stream.stats import StreamStats

logger = logging.getLogger(__name__)

_WAIT_S = 0.25
_IN_FLIGHT = 3  # two that the CPU works on at once, and one that waits for them


@click.command(context_settings={"max_content_width": 110})
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--camera", metavar="N|PATH", help="Segment a camera, by its number from 0 or its device path.")
@click.option(
    "-o",
    "--output",
    callback=parse_output,
    metavar="FILE|DIR/",
    help="Video to write: .mp4, .mov, .mkv, .webm or .avi; or a folder for one video per SOURCE.",
)
@click.option(
    "--masks",
    callback=parse_path,
    metavar="DIR",
    help="Folder for one palette PNG of class indices a frame.",
)
@click.option("--weights", help="Weights: s, or a .safetensors file from bsdnet-train.  [default: s]")
@click.option("--device", default="auto", show_default=True, help="Where to compute: auto, cpu, cuda or cuda:N.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "eager", "compile", "cudagraph", "tensorrt"]),
    default="auto",
    show_default=True,
    help="How the network is run; auto takes the best that works here.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Number format of the network.",
)
@click.option(
    "--size",
    callback=parse_size,
    metavar="SIZE",
    default="auto",
    show_default=True,
    help="Size at which the network sees frames: WIDTHxHEIGHT in pixels, seg50 (1024x512), "
    "seg75 (1536x768), seg100 (2048x1024), or auto: the training pictures' short side.",
)
@click.option(
    "--target-fps",
    type=click.FloatRange(min=0, min_open=True),
    metavar="FPS",
    help="Shrink the network's input, from --size down to half its sides, as far as it takes to segment FPS "
    "frames per second.  [default: keep the size]",
)
@click.option(
    "--smooth/--no-smooth",
    default=False,
    show_default=True,
    help="Steady the classes: average what the network says along the motion of the picture.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Opacity of the classes over the frame, 0 to 1.",
)
@click.option(
    "--view",
    type=click.Choice(["overlay", "mask", "side-by-side"]),
    default="overlay",
    show_default=True,
    help="What a written frame shows.",
)
@click.option(
    "--only",
    callback=parse_names,
    metavar="NAMES",
    help="Classes to draw, separated by commas, such as road,car.  [default: all]",
)
@click.option(
    "--record",
    callback=parse_path,
    metavar="FILE",
    help="Write the segmented frames also as they came, with nothing drawn on them.",
)
@click.option(
    "--classes-csv",
    callback=parse_path,
    metavar="FILE",
    help="Table to write: the share of every class in each frame, from 0 to 1.",
)
@click.option(
    "--stats",
    callback=parse_path,
    metavar="FILE",
    help="Append statistics to FILE, a line of JSON a second: rates, losses, latencies, memory.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve the same for Prometheus on this port while running.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address on which --metrics-port listens.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop before the frame of this time, counted from the first one.  [default: the stream's end]",
)
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.  [default: all]")
@click.option(
    "--fps", type=float, help="Frames per second of a folder of images or of the demo.  [default: 15; of the demo 25]"
)
@click.option(
    "--hwaccel",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Decode video files on an NVIDIA GPU where that works, unless --device is cpu; or never.",
)
@click.option("--audio/--no-audio", default=True, show_default=True, help="Copy the source's sound.")
@click.option(
    "--encoder",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="H.264 encoder: libx264, h264_nvenc, h264_qsv, h264_videotoolbox or h264_v4l2m2m; auto takes one in hardware "
    "that works here, else libx264.",
)
@click.option(
    "--crf",
    type=click.IntRange(min=0),
    metavar="N",
    help="Constant quality, from best to worst: H.264 0 to 51, .webm 0 to 63, .avi 1 to 31; auto takes libx264 then.  "
    "[default: 21, 31 and 3]",
)
@click.option(
    "--preset",
    metavar="NAME",
    help="Preset of libx264, from ultrafast to veryslow; auto takes libx264 then.  [default: ultrafast]",
)
@click.option(
    "--segment",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Write files of so many seconds, out-000001.mp4 and so on, each finished and forced to disk.  "
    "[default: one file]",
)
@click.option(
    "--segment-budget",
    callback=parse_bytes,
    metavar="SIZE",
    help="Delete the oldest of our segments of this name to keep them within SIZE, such as 10GB.  [default: keep all]",
)
@click.option(
    "--rescue",
    callback=parse_path,
    metavar="FILE.part",
    help="Finish the .part that a killed run has left, and do nothing else.",
)
@click.option("-y", "--overwrite", is_flag=True, help="Replace an existing output, once the new one is finished.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and more of what happens.")
@click.version_option(package_name="bsdnet")
def cli(**options: Any) -> int:  # noqa: ANN401 - click's values
    """Segment SOURCE and write it with its classes drawn.

    SOURCE is a video file, a folder or glob pattern of images, the address of a live stream (rtsp, http, udp, tcp,
    rtmp, srt), or demo, a street that bsdnet draws itself. Or give --camera. Of several, or with a folder for -o, each
    becomes a video of its own in that folder; those that are done already are left out.

    Exit codes: 0 all frames written; 1 error, or of several sources one gave nothing; 2 wrong usage; 3 written, but
    frames of the source were lost; 130 and 143 written up to an interruption.
    """
    sources = options.pop("sources")
    if options["rescue"] is not None:
        if sources or options["camera"] is not None:
            raise click.UsageError("--rescue takes no SOURCE: it finishes what is there already")
        configure_logging("bsdnet-run", debug=options["debug"])
        return _rescue(options)
    if bool(sources) == (options["camera"] is not None):
        raise click.UsageError("give one thing to segment: SOURCE or --camera")
    if options["camera"] is not None:
        sources = (f"camera:{options['camera']}",)
    if all(options[name] is None for name in ("output", "masks", "classes_csv")):
        raise click.UsageError("nothing to write: give -o OUT.mp4, --masks DIR, --classes-csv FILE, or several of them")
    for one, other in combinations(("output", "masks", "record", "classes_csv", "stats"), 2):
        if options[one] is not None and options[one] == options[other]:
            names = f"--{one} and --{other}".replace("_", "-")
            raise click.UsageError(f"{names} both name {options[one]}: give each a place of its own")
    if options["segment"] is not None and options["output"] is None:
        raise click.UsageError("--segment needs a name to make those of the files from: -o out.mp4")
    if options["segment"] is None and options["segment_budget"] is not None:
        raise click.UsageError("--segment-budget needs --segment: it is for recordings in several files")
    is_batch = len(sources) > 1 or options["into_folder"]
    if is_batch:
        check_batch(sources, options)
        if options["classes_csv"] is not None:
            raise click.UsageError("--classes-csv is for one source: its rows do not say of which one they are")
    configure_logging("bsdnet-run", debug=options["debug"])
    with Statistics(options["stats"], host=options["metrics_host"], port=options["metrics_port"]) as statistics:
        if is_batch:
            return _run_all(sources, options, statistics)
        return run({**options, "source": sources[0]}, statistics)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: errors that a user can mend are one line on stderr."""
    run_command(cli, "bsdnet-run", arguments)


class Outcome(NamedTuple):
    """How the run of one source ended."""

    stats: "StreamStats"
    """Its statistics."""
    finished: bool
    """Whether the outputs have their names."""
    signal_code: int | None
    """The exit code of the signal that ended it early, or None."""
    report: str
    """The closing lines."""


def run(options: dict[str, Any], statistics: Statistics) -> int:
    """Segment one source; gives the exit code.

    Raises:
        BsdnetError: something that the user can mend.
    """
    from cli.terminal import tell

    with ExitStack() as stack:
        outcome = _run_one(options, lambda: stack.enter_context(_load_segmenter(options)), statistics)
    tell(outcome.report)
    lost = outcome.stats.lost or outcome.stats.signal.outage_s
    return outcome.signal_code or (EXIT_LOST_FRAMES if lost else EXIT_OK)


def _run_all(sources: Sequence[str], options: dict[str, Any], statistics: Statistics) -> int:
    with ExitStack() as stack:
        load = cache(lambda: stack.enter_context(_load_segmenter(options)))  # once, and only if there is a source
        return run_batch(sources, options["output"], options, lambda one: _run_one(one, load, statistics))


def _run_one(options: dict[str, Any], load_segmenter: "Callable[[], Segmenter]", statistics: Statistics) -> Outcome:
    from bsdnet.stream.source import open_source

    sinks = file_sinks(options)  # what is wrong with the output and the source is known without the network
    hwaccel: HardwareDecoding = "none" if options["device"] == "cpu" else options["hwaccel"]
    with open_source(options["source"], fps=options["fps"], hwaccel=hwaccel) as source:
        segmenter = load_segmenter()
        logger.debug("read %s and loaded the network for %s", source.info, segmenter.device)
        return _run_stream(options, source, segmenter, sinks, statistics)


def _rescue(options: dict[str, Any]) -> int:
    from bsdnet.stream.sink import rescue
    from cli.terminal import tell

    rescued = rescue(options["rescue"], overwrite=options["overwrite"])
    tell(f"rescued {rescued.num_frames} frames, {rescued.duration_s:.1f} s: {rescued.path}")
    return EXIT_OK


def _run_stream(
    options: dict[str, Any],
    source: "VideoSource",
    segmenter: "Segmenter",
    sinks: "list[FileSink | SegmentSink]",
    statistics: Statistics,
) -> Outcome:
    from bsdnet.stream.pipeline import PipelineState, StreamPipeline
    from bsdnet.stream.smoothed import SmoothedSegmenter
    from cli.report import Hud, summary
    from cli.terminal import Progress, tell

    segmenter.style = _style(options, segmenter)
    adaptive = _adapt(options, segmenter, source.info.size)
    smoothed = SmoothedSegmenter(adaptive or segmenter) if options["smooth"] else None
    hud = Hud(segmenter, source.info.size, adaptive)
    with (
        StreamPipeline(
            source,
            smoothed or adaptive or segmenter,
            [*sinks, *_label_sinks(options, segmenter)],
            in_flight=_IN_FLIGHT,
            max_frames=options["frames"],
            max_time_s=options["duration"],
            annotate=hud.draw,
            on_frame=smoothed.follow if smoothed else None,
        ) as pipeline,
        statistics.follow(lambda: _report(pipeline, source.info, segmenter, adaptive)),
        Progress(source.info, options["frames"]) as progress,
        StopSignals() as signals,
    ):
        pipeline.start()
        logger.debug("started")
        service = ServiceNotifier()
        while not pipeline.wait(_WAIT_S):
            if message := signals.obey(pipeline):
                tell(f"bsdnet-run: {message}", err=True)
                service.stopping()
            progress.show(pipeline.stats)
            service.tick(pipeline.stats)
            statistics.tick()
    stats = pipeline.stats
    logger.debug("ended: %s", stats)
    finished = pipeline.state is PipelineState.FINISHED
    report = summary(stats, source.info, segmenter, written(options, sinks, finished=finished), adaptive)
    return Outcome(stats, finished, signals.exit_code, report)


def _label_sinks(options: dict[str, Any], segmenter: "Segmenter") -> list["VideoSink"]:
    from bsdnet.stream.class_shares import ClassSharesSink
    from bsdnet.stream.sink import MaskFolderSink

    sinks: list[VideoSink] = []
    if options["masks"] is not None:
        sinks.append(MaskFolderSink(options["masks"], segmenter.classes, overwrite=options["overwrite"]))
    if options["classes_csv"] is not None:
        path, source = options["classes_csv"], options["source"]
        sinks.append(ClassSharesSink(path, segmenter.classes, overwrite=options["overwrite"], source_path=source))
    return sinks


def _report(
    pipeline: "StreamPipeline", info: "StreamInfo", segmenter: "Segmenter", adaptive: "AdaptiveSegmenter | None"
) -> "StreamReport":
    from bsdnet.stream.report import take_report

    size = segmenter.size_for(info.size) if adaptive is None else adaptive.size
    return take_report(pipeline.stats, segmenter, source=info.name, state=pipeline.state.value, input_size=size)


def _load_segmenter(options: dict[str, Any]) -> "Segmenter":
    from bsdnet.runtime.segmenter import Segmenter

    return Segmenter.load(
        options["weights"],
        device=options["device"],
        backend=options["backend"],
        precision=options["precision"],
        size=options["size"],
    )


def _adapt(options: dict[str, Any], segmenter: "Segmenter", frame_size: tuple[int, int]) -> "AdaptiveSegmenter | None":
    from bsdnet.runtime.adaptive import AdaptiveSegmenter

    if options["target_fps"] is None:
        return None
    return AdaptiveSegmenter(segmenter, frame_size, options["target_fps"])


def _style(options: dict[str, Any], segmenter: "Segmenter") -> "RenderStyle":
    from bsdnet.rendering import RenderStyle

    only = None if options["only"] is None else frozenset(segmenter.classes.indices(options["only"]))
    return RenderStyle(alpha=options["alpha"], view=options["view"], only=only)


if __name__ == "__main__":
    main()
