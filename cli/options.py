"""What the commands' options share: how values are read, and the options that several commands have."""

import math
import os
import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
BACKENDS = ("auto", "eager", "compile", "cudagraph", "tensorrt")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

NAMED_SIZES = {"seg50": (512, 1024), "seg75": (768, 1536), "seg100": (1024, 2048)}
"""Names that the paper gives to input sizes, as (height, width)."""

MIN_SIDE_PX = 32
"""The network's stride: a shorter side would leave it nothing to see."""
MAX_SIDE_PX = 9999
"""Beyond it is a slip of the finger, and would take all memory."""

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Number(click.FloatRange):
    """A finite number in a range: `nan` lies in every range by click's comparison."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Read it."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int] | None:
    """Turn `640x352`, `seg50`, `seg75` or `seg100` into (height, width), and `auto` into None."""
    text = value.strip().lower()
    if text == "auto":
        return None
    if text in NAMED_SIZES:
        return NAMED_SIZES[text]
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", text)
    if match is None:
        expected = f"WIDTHxHEIGHT such as 640x352, {', '.join(NAMED_SIZES)} or auto"
        raise click.BadParameter(f"{value!r} is no size; expected {expected}", context, parameter)
    width, height = int(match[1]), int(match[2])
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        expected = f"sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels"
        raise click.BadParameter(f"{value!r} cannot work; expected {expected}", context, parameter)
    return height, width


def parse_device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Take the name of a device, which this machine need not have."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise click.BadParameter(f"{value!r} is none; expected auto, cpu, cuda or cuda:N", context, parameter)
    return value


def parse_camera(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Take a camera's number or device path, but neither an empty one nor a file."""
    if value is not None and (not value or re.fullmatch(r"-\d+", value)):
        raise click.BadParameter(f"{value!r} is none; expected a number from 0 or a device path", context, parameter)
    if value is not None and Path(value).is_file():
        raise click.BadParameter(f"{value} is a file: give it as SOURCE", context, parameter)
    return value


def parse_weights(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Take a name or a path of weights, but not an empty one; see `parse_path`."""
    if value == "":
        raise click.BadParameter("the name is empty", context, parameter)
    return value


def parse_path(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Take a path. An empty one, as an unset variable of a script gives, is not the current folder."""
    if value == "":
        raise click.BadParameter("the path is empty", context, parameter)
    return None if value is None else Path(value)


def parse_output(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Take a path, and note in `into_folder` whether it is meant as a folder: it is one, or ends in a slash."""
    is_folder = value is not None and value != "" and (value.endswith(("/", os.sep)) or Path(value).is_dir())
    context.params["into_folder"] = is_folder
    return parse_path(context, parameter, value)


def parse_bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Turn `10GB`, `500 MB` or `1.5GiB` into bytes; None stays None."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?", value.strip().lower())
    size = 0 if match is None else int(float(match[1]) * _BYTES[match[2] or ""])
    if size <= 0:
        raise click.BadParameter(f"{value!r} is no amount; expected one such as 10GB or 500MB", context, parameter)
    return size


def parse_names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Split `road, car` into its names; None, for all, stays None."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise click.BadParameter(f"{value!r} names no class; expected names such as road,car", context, parameter)
    return names


device_option = click.option(
    "--device",
    callback=parse_device,
    default="auto",
    show_default=True,
    help="Where to compute: auto, cpu, cuda or cuda:N.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Number format of the network.",
)
debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error, and more of what happens.")


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Join decorators into one, in the order in which --help shows them."""
    return lambda command: reduce(lambda inner, decorate: decorate(inner), reversed(decorators), command)
