"""Values of the command line."""

import re
from pathlib import Path

import click

NAMED_SIZES = {"seg50": (512, 1024), "seg75": (768, 1536), "seg100": (1024, 2048)}
"""Names that the paper gives to input sizes, as (height, width)."""

MIN_SIDE_PX = 32
"""The network's stride: a shorter side would leave it nothing to see."""
MAX_SIDE_PX = 9999
"""Beyond it is a slip of the finger, and would take all memory."""


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


def parse_path(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Take a path. An empty one, as an unset variable of a script gives, is not the current folder."""
    if value == "":
        raise click.BadParameter("the path is empty", context, parameter)
    return None if value is None else Path(value)


def parse_names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Split `road, car` into its names; None, for all, stays None."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise click.BadParameter(f"{value!r} names no class; expected names such as road,car", context, parameter)
    return names
