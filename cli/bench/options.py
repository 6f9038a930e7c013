"""Options that the parts of bsdnet-bench share."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bsdnet.foreign import names_factory
from cli.options import BACKENDS, Command, parse_size

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
DEFAULT_SIZES = ("512x512", "seg50", "960x720", "seg75", "seg100")


def parse_sizes(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[tuple[int, int]]:
    """Turn each of several sizes into (height, width)."""
    return [size for value in values if (size := parse_exact_size(context, parameter, value)) is not None]


def parse_exact_size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Turn a size into (height, width); there is no frame that `auto` could go by."""
    size = None if value is None else parse_size(context, parameter, value)
    if value is not None and size is None:
        raise click.BadParameter(
            "'auto' needs a video; expected WIDTHxHEIGHT, seg50, seg75 or seg100", context, parameter
        )
    return size


def parse_target(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Take the path of a report, if it can be written there: hours later is too late to learn."""
    if value is None:
        return None
    path = Path(value)
    if not value or path.is_dir():
        raise click.BadParameter(f"{value!r} is no file", context, parameter)
    if not path.parent.is_dir():
        raise click.BadParameter(f"the folder {path.parent} does not exist", context, parameter)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"{value} may not be written", context, parameter)
    return path


def parse_modules(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> Sequence[str]:
    """Refuse what cannot name somebody's module."""
    for value in values:
        if not names_factory(value):
            raise click.BadParameter(f"{value!r} is not FILE.py:FACTORY, such as net.py:build", context, parameter)
    return values


def parse_plot(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Take the path of a plot, if it can be drawn."""
    path = parse_target(context, parameter, value)
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.BadParameter("the plot needs matplotlib: pip install 'bsdnet[bench]'", context, parameter)
    if path is not None and path.suffix not in PLOT_SUFFIXES:
        raise click.BadParameter(f"{value!r} must end in {', '.join(PLOT_SUFFIXES)}", context, parameter)
    return path


def sizes_option(default: Sequence[str]) -> Callable[[Command], Command]:
    """The option --size, which may be given again."""
    return click.option(
        "--size",
        "sizes",
        multiple=True,
        callback=parse_sizes,
        metavar="SIZE",
        default=default,
        show_default=True,
        help="Input size of the network: WIDTHxHEIGHT in pixels, seg50 (1024x512), seg75 (1536x768) or seg100 "
        "(2048x1024); may be given again.",
    )


backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="How the network is run."
)
weights_option = click.option(
    "--weights", default="s", show_default=True, help="Weights: s, b, or a .safetensors file from bsdnet-train."
)
json_option = click.option(
    "--json", callback=parse_target, metavar="FILE", help="File for the result with machine and versions, as JSON."
)
markdown_option = click.option(
    "--markdown", callback=parse_target, metavar="FILE", help="File for the printed tables, in Markdown."
)


def rounds_option(default: int) -> Callable[[Command], Command]:
    """The option --rounds."""
    return click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Rounds that count; in each, everything has its turn.",
    )
