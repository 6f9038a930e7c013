"""bsdnet-run: segment a video into a video."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bsdnet.errors import BsdnetError
from cli.options import parse_size, split_names

if TYPE_CHECKING:  # PyTorch takes a second to import: `--help` and usage errors do without it
    from bsdnet.rendering import RenderStyle
    from bsdnet.runtime.segmenter import Segmenter
    from bsdnet.stream.interfaces import VideoSink
    from bsdnet.stream.pipeline import StreamPipeline

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_LOST_FRAMES = 3
_WAIT_S = 0.25


@click.command(context_settings={"max_content_width": 110})
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Video to write: .mp4, .mkv or .mov.")
@click.option(
    "--masks",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for one palette PNG of class indices a frame.",
)
@click.option("--weights", help="Weights: s, or a .safetensors file from bsdnet-train.  [default: s]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
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
@click.option("--only", metavar="NAMES", help="Classes to draw, separated by commas, such as road,car.  [default: all]")
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.  [default: all]")
@click.option("--fps", type=float, help="Frames per second of a folder of images or of the demo.")
@click.option("--audio/--no-audio", default=True, show_default=True, help="Copy the source's sound.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace an existing output, once the new one is finished.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and more of what happens.")
@click.version_option(package_name="bsdnet")
def cli(**options: Any) -> int:  # noqa: ANN401 - click's values
    """Segment SOURCE and write it with its classes drawn.

    SOURCE is a video file, a folder or glob pattern of images, camera:0, or demo, a street that bsdnet draws itself.

    Exit codes: 0 all frames written; 1 error; 2 wrong usage; 3 written, but frames of the source were lost;
    130 and 143 written up to an interruption.
    """
    if options["output"] is None and options["masks"] is None:
        raise click.UsageError("nothing to write: give -o OUT.mp4, --masks DIR, or both")
    _configure_logging(debug=options["debug"])
    _warn_of_two_opencvs()
    return run(options)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: errors that a user can mend are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = cli.main(arguments, prog_name="bsdnet-run", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 128 + signal.SIGINT
    except BsdnetError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"bsdnet-run: error: {error}", err=True)
        code = EXIT_ERROR
    sys.exit(code)


def run(options: dict[str, Any]) -> int:
    """Segment one source; gives the exit code.

    Raises:
        BsdnetError: something that the user can mend.
    """
    from bsdnet.runtime.segmenter import Segmenter
    from bsdnet.stream.pipeline import StreamPipeline
    from bsdnet.stream.source import open_source
    from cli.report import Hud, Progress, summary

    file_sinks = _output_sink(options)  # first: what is wrong with the output is known at once
    with (
        open_source(options["source"], fps=options["fps"]) as source,
        Segmenter.load(
            options["weights"],
            device=options["device"],
            backend=options["backend"],
            precision=options["precision"],
            size=options["size"],
        ) as segmenter,
    ):
        segmenter.style = _style(options, segmenter)
        sinks = [*file_sinks, *_mask_sink(options, segmenter)]
        hud = Hud(segmenter, source.info.size)
        pipeline = StreamPipeline(source, segmenter, sinks, max_frames=options["frames"], annotate=hud.draw)
        with Progress(source.info, options["frames"]) as progress, _ended_by_signals(pipeline) as signals:
            pipeline.start()
            while not pipeline.wait(_WAIT_S):
                progress.show(pipeline.stats)
        stats = pipeline.stats
        click.echo(summary(stats, source.info, segmenter, [options["output"], options["masks"]]))
    if signals:
        return 128 + signals[0]
    return EXIT_LOST_FRAMES if stats.lost else EXIT_OK


def _output_sink(options: dict[str, Any]) -> list["VideoSink"]:
    from bsdnet.stream.sink import FileSink

    if options["output"] is None:
        return []
    source_path = Path(options["source"])
    return [
        FileSink(
            options["output"],
            overwrite=options["overwrite"],
            audio=options["audio"],
            source_path=source_path if source_path.is_file() else None,
        )
    ]


def _mask_sink(options: dict[str, Any], segmenter: "Segmenter") -> list["VideoSink"]:
    from bsdnet.stream.sink import MaskFolderSink

    if options["masks"] is None:
        return []
    return [MaskFolderSink(options["masks"], segmenter.classes, overwrite=options["overwrite"])]


def _style(options: dict[str, Any], segmenter: "Segmenter") -> "RenderStyle":
    from bsdnet.rendering import RenderStyle

    only = None
    if options["only"] is not None:
        only = frozenset(segmenter.classes.indices(split_names(options["only"])))
    return RenderStyle(alpha=options["alpha"], view=options["view"], only=only)


@contextmanager
def _ended_by_signals(pipeline: "StreamPipeline") -> Iterator[list[int]]:
    """Let the first Ctrl-C or SIGTERM finish what was read, and the second one drop it.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        message = "finishing the output; once more to abort" if len(came) == 1 else "aborting"
        click.echo(f"\nbsdnet-run: {signal.Signals(number).name}: {message}", err=True)
        # Not in the signal handler itself: it may have interrupted a thread that holds the pipeline's lock.
        threading.Thread(target=_stop, args=(pipeline, len(came) == 1), daemon=True).start()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(pipeline: "StreamPipeline", finish: bool) -> None:
    try:
        pipeline.stop(finish=finish)
    except BsdnetError:
        logger.debug("stopping raised what wait() raises too", exc_info=True)


def _configure_logging(*, debug: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING,
        format="bsdnet-run: %(levelname)s: %(message)s"
        if not debug
        else "%(relativeCreated)7d ms %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for package in ("bsdnet", "cli"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)


def _warn_of_two_opencvs() -> None:
    """Name a broken installation before it shows itself as a crash."""
    installed = {name for name in ("opencv-python", "opencv-contrib-python") if _is_installed(name)}
    if installed and _is_installed("opencv-python-headless"):
        logger.warning(
            "%s and opencv-python-headless are both installed and overwrite each other's files; "
            "uninstall both and install opencv-python-headless again",
            " and ".join(sorted(installed)),
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
