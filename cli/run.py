"""bsdnet-run: segment a video into a video."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cli.batch import EXIT_LOST_FRAMES, Outcome, run_batch
from cli.command import EXIT_OK, configure_logging, run_command
from cli.outputs import file_sinks, written
from cli.run_options import choose_sources, run_options
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

logger = logging.getLogger(__name__)

_WAIT_S = 0.25
_IN_FLIGHT = 3  # two that the CPU works on at once, and one that waits for them


@click.command(context_settings={"max_content_width": 110})
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@run_options
@click.version_option(package_name="bsdnet")
def cli(**options: Any) -> int:  # noqa: ANN401 - click's values
    """Segment SOURCE and write it with its classes drawn.

    SOURCE is a video file, a folder or glob pattern of images, the address of a live stream (rtsp, http, udp, tcp,
    rtmp, srt), or demo, a street that bsdnet draws itself. Or give --camera. Of several, or with a folder for -o, each
    becomes a video of its own in that folder; those that are done already are left out.

    Exit codes: 0 all frames written; 1 error, or of several sources one gave nothing; 2 wrong usage; 3 written, but
    frames of the source were lost; 129, 130 and 143 written up to an interruption.
    """
    sources = choose_sources(options.pop("sources"), options)
    configure_logging("bsdnet-run", debug=options["debug"])
    if options["rescue"] is not None:
        return _rescue(options)
    with Statistics(options["stats"], host=options["metrics_host"], port=options["metrics_port"]) as statistics:
        if options["into_folder"]:
            return _run_all(sources, options, statistics)
        return run({**options, "source": sources[0]}, statistics)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: errors that a user can mend are one line on stderr."""
    run_command(cli, "bsdnet-run", arguments)


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
    gpu = int(options["device"].partition(":")[2] or 0)
    with open_source(options["source"], fps=options["fps"], hwaccel=hwaccel, gpu=gpu) as source:
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
    if adaptive is None and segmenter.device.type != "cpu":  # engines take minutes: no frame of a camera waits for them
        segmenter.prepare([segmenter.size_for(source.info.size)], frame_size=source.info.size)
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
