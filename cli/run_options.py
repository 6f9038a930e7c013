"""The options of bsdnet-run, and which of them go together."""

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import click

from bsdnet.stream.partial_file import partial_path
from cli.batch import check_batch
from cli.options import (
    BACKENDS,
    Number,
    debug_option,
    device_option,
    options,
    parse_bytes,
    parse_camera,
    parse_names,
    parse_output,
    parse_path,
    parse_size,
    parse_weights,
    precision_option,
)

run_options = options(
    click.option(
        "--camera",
        callback=parse_camera,
        metavar="N|PATH",
        help="Segment a camera, by its number from 0 or its device path.",
    ),
    click.option(
        "-o",
        "--output",
        callback=parse_output,
        metavar="FILE|DIR/",
        help="Video to write: .mp4, .mov, .mkv, .webm or .avi; or a folder for one video per SOURCE.",
    ),
    click.option(
        "--masks",
        callback=parse_path,
        metavar="DIR",
        help="Folder for one palette PNG of class indices a frame.",
    ),
    click.option(
        "--weights",
        callback=parse_weights,
        help="Weights: s, b, or a .safetensors file from bsdnet-train.  [default: s]",
    ),
    device_option,
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="How the network is run; auto takes the best that works here.",
    ),
    precision_option,
    click.option(
        "--size",
        callback=parse_size,
        metavar="SIZE",
        default="auto",
        show_default=True,
        help="Size at which the network sees frames: WIDTHxHEIGHT in pixels, seg50 (1024x512), "
        "seg75 (1536x768), seg100 (2048x1024), or auto: the training pictures' short side.",
    ),
    click.option(
        "--target-fps",
        type=Number(min=0, min_open=True),
        metavar="FPS",
        help="Shrink the network's input, from --size down to half its sides, as far as it takes to segment FPS "
        "frames per second.  [default: keep the size]",
    ),
    click.option(
        "--smooth/--no-smooth",
        default=False,
        show_default=True,
        help="Steady the classes: average what the network says along the motion of the picture.",
    ),
    click.option(
        "--alpha",
        type=Number(0, 1),
        default=0.5,
        show_default=True,
        help="Opacity of the classes over the frame, 0 to 1.",
    ),
    click.option(
        "--view",
        type=click.Choice(["overlay", "mask", "side-by-side"]),
        default="overlay",
        show_default=True,
        help="What a written frame shows.",
    ),
    click.option(
        "--only",
        callback=parse_names,
        metavar="NAMES",
        help="Classes to draw, separated by commas, such as road,car.  [default: all]",
    ),
    click.option(
        "--record",
        callback=parse_path,
        metavar="FILE",
        help="Write the segmented frames also as they came, with nothing drawn on them.",
    ),
    click.option(
        "--classes-csv",
        callback=parse_path,
        metavar="FILE",
        help="Table to write: the share of every class in each frame, from 0 to 1.",
    ),
    click.option(
        "--stats",
        callback=parse_path,
        metavar="FILE",
        help="Append statistics to FILE, a line of JSON a second: rates, losses, latencies, memory.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(1, 65535),
        metavar="PORT",
        help="Serve the same for Prometheus on this port while running.",
    ),
    click.option(
        "--metrics-host", default="127.0.0.1", show_default=True, help="Address on which --metrics-port listens."
    ),
    click.option(
        "--duration",
        type=Number(min=0, min_open=True),
        metavar="SECONDS",
        help="Stop before the frame of this time, counted from the first one.  [default: the stream's end]",
    ),
    click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.  [default: all]"),
    click.option(
        "--fps",
        type=Number(min=0, min_open=True),
        metavar="FPS",
        help="Frames per second of a folder of images or of the demo.  [default: 15; of the demo 25]",
    ),
    click.option(
        "--hwaccel",
        type=click.Choice(["auto", "none"]),
        default="auto",
        show_default=True,
        help="Decode video files on an NVIDIA GPU where that works, unless --device is cpu; or never.",
    ),
    click.option("--audio/--no-audio", default=True, show_default=True, help="Copy the source's sound."),
    click.option(
        "--encoder",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="H.264 encoder: libx264, h264_nvenc, h264_qsv, h264_videotoolbox or h264_v4l2m2m; auto takes one in "
        "hardware that works here, else libx264.",
    ),
    click.option(
        "--crf",
        type=click.IntRange(min=0),
        metavar="N",
        help="Constant quality, from best to worst: H.264 0 to 51, .webm 0 to 63, .avi 1 to 31; auto takes libx264 "
        "then.  [default: 21, 31 and 3]",
    ),
    click.option(
        "--preset",
        metavar="NAME",
        help="Preset of libx264, from ultrafast to veryslow; auto takes libx264 then.  [default: ultrafast]",
    ),
    click.option(
        "--segment",
        type=Number(min=1),
        metavar="SECONDS",
        help="Write files of so many seconds, out-000001.mp4 and so on, each finished and forced to disk.  "
        "[default: one file]",
    ),
    click.option(
        "--segment-budget",
        callback=parse_bytes,
        metavar="SIZE",
        help="Delete the oldest of our segments of this name to keep them within SIZE, such as 10GB.  "
        "[default: keep all]",
    ),
    click.option(
        "--rescue",
        callback=parse_path,
        metavar="FILE.part",
        help="Finish the .part that a killed run has left, and do nothing else.",
    ),
    click.option("-y", "--overwrite", is_flag=True, help="Replace an existing output, once the new one is finished."),
    debug_option,
)


def choose_sources(arguments: Sequence[str], values: dict[str, Any]) -> tuple[str, ...]:
    """Say what to segment, and refuse what does not go together.

    Args:
        arguments: the sources as they were given.
        values: the options.

    Returns:
        The sources, more than one only if `into_folder` says so; none with --rescue.

    Raises:
        click.UsageError: as said.
    """
    camera = values["camera"]
    if values["rescue"] is not None:
        if arguments or camera is not None:
            raise click.UsageError("--rescue takes no SOURCE: it finishes what is there already")
        return ()
    if bool(arguments) == (camera is not None):
        raise click.UsageError("give one thing to segment: SOURCE or --camera")
    sources = tuple(arguments) if camera is None else (f"camera:{camera}",)
    masks = values["masks"]
    if masks is not None and any(os.path.realpath(masks) == os.path.realpath(source) for source in sources):
        raise click.UsageError(f"--masks names the source, {masks}: give it a folder of its own")
    _check_outputs(values)
    if len(sources) > 1 or values["into_folder"]:
        check_batch(sources, values)
    return sources


def _check_outputs(values: dict[str, Any]) -> None:
    if all(values[name] is None for name in ("output", "masks", "classes_csv")):
        raise click.UsageError("nothing to write: give -o OUT.mp4, --masks DIR, --classes-csv FILE, or several of them")
    for one, other in combinations(("output", "masks", "record", "classes_csv", "stats"), 2):
        if _places(values[one]) & _places(values[other]):
            names = f"--{one} and --{other}".replace("_", "-")
            raise click.UsageError(f"{names} both name {values[one]}: give each a place of its own")
    if values["segment"] is not None and values["output"] is None:
        raise click.UsageError("--segment needs a name to make those of the files from: -o out.mp4")
    if values["segment"] is None and values["segment_budget"] is not None:
        raise click.UsageError("--segment-budget needs --segment: it is for recordings in several files")


def _places(path: Path | None) -> set[str]:
    """Where something is written, finished or not, the same by whatever name."""
    return set() if path is None else {os.path.realpath(name) for name in (path, partial_path(path))}
