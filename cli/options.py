"""Values of the command line."""

import re

import click

NAMED_SIZES = {"seg50": (512, 1024), "seg75": (768, 1536), "seg100": (1024, 2048)}
"""Names that the paper gives to input sizes, as (height, width)."""


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int] | None:
    """Turn `640x352`, `seg50`, `seg75` or `seg100` into (height, width), and `auto` into None."""
    text = value.lower()
    if text == "auto":
        return None
    if text in NAMED_SIZES:
        return NAMED_SIZES[text]
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        expected = f"expected WIDTHxHEIGHT, {', '.join(NAMED_SIZES)} or auto"
        raise click.BadParameter(f"{value!r} is no size; {expected}", context, parameter)
    return int(match[2]), int(match[1])


def split_names(text: str) -> list[str]:
    """Split `road, car` into its names."""
    return [name.strip() for name in text.split(",") if name.strip()]
