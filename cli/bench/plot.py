"""Speed over input size, beside the paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bsdnet.machine import describe_machine
from cli.bench import paper
from cli.bench.measure import Row
from cli.report import describe_size

_WIDTH_IN, _HEIGHT_IN, _DPI = 9.0, 5.0, 200  # 1800 px: sharp where a page shows it at 900
_DRAWN = ("BSDNet-S", "BSDNet-B", "SCTNet-S", "SCTNet-B", "DDRNet-23-S", "DDRNet-23", "PIDNet-S")
_COLORS = {"BSDNet-S": "#0072b2", "BSDNet-B": "#d55e00"}  # of Okabe and Ito: told apart by the colour-blind too
_MEASURED = ("#117733", "#882255", "#999933", "#44aa99", "#661100", "#6699cc")  # none of them is in the other panel
_OTHERS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c8c8c")
_MARKERS = "os^Dv<>"

Series = dict[str, list[tuple[tuple[int, int], float]]]
"""By label: points of input size and FPS."""


def draw(rows: Sequence[Row], device: torch.device, path: Path) -> None:
    """Draw FPS over input size, our measurement left, the paper's right, on one scale.

    Args:
        rows: measured; those that were not are left out.
        device: what computed.
        path: file to write; its suffix chooses the format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (here, there) = pyplot.subplots(
        1, 2, figsize=(_WIDTH_IN, _HEIGHT_IN), sharey=True, sharex=True, layout="constrained"
    )
    sizes = _draw_ours(here, rows) | _draw_paper(there)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    here.set_title(f"measured here: {name}", fontsize=10)
    there.set_title(f"the paper's own hardware: {paper.HARDWARE}", fontsize=10)
    here.set_ylabel("frames per second")
    for axes in (here, there):
        _dress(axes, sorted(sizes, key=_pixels))
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)


def network_series(rows: Sequence[Row]) -> tuple[Series, Series]:
    """Sort rows into lines, by network, backend and precision: those of the network alone, those of whole frames."""
    alone: Series = {}
    stream: Series = {}
    kinds = {(row.backend, row.precision) for row in rows if row.network}
    for row in sorted(rows, key=lambda row: _pixels(row.case.size)):
        name = row.case.candidate.name
        label = name if len(kinds) == 1 else f"{name} {row.backend} {row.precision}"
        if row.network:
            alone.setdefault(label, []).append((row.case.size, row.network.fps))
        if row.stream:
            stream.setdefault(label, []).append((row.case.size, row.stream.fps))
    return alone, stream


def _draw_ours(axes: Any, rows: Sequence[Row]) -> set[tuple[int, int]]:  # noqa: ANN401 - matplotlib is optional
    alone, stream = network_series(rows)
    colors = _colors(list(alone), _MEASURED)
    for label, points in alone.items():
        _line(axes, points, f"{label}, network alone", color=colors[label], marker="o")
    for label, points in stream.items():
        _line(axes, points, f"{label}, frame to overlay", color=colors[label], marker="s", linestyle="--", mfc="white")
    return {size for points in alone.values() for size, _ in points}


def _draw_paper(axes: Any) -> set[tuple[int, int]]:  # noqa: ANN401
    """Draw all three tables; a line joins what one table has of one network, other data sets stand alone."""
    for (method, color), marker in zip(_colors(list(_DRAWN), _OTHERS).items(), _MARKERS, strict=True):
        of_method = sorted((row for row in paper.SPEEDS if row.method == method), key=lambda row: _pixels(row.size))
        _line(axes, [(row.size, row.fps) for row in of_method], method, color=color, marker=marker, linestyle="none")
        cityscapes = [(row.size, row.fps) for row in of_method if row.table == 1]
        _line(axes, cityscapes, None, color=color)
    return {row.size for row in paper.SPEEDS}


def _line(axes: Any, points: list[tuple[tuple[int, int], float]], label: str | None, **style: Any) -> None:  # noqa: ANN401
    axes.plot([_pixels(size) for size, _ in points], [fps for _, fps in points], label=label, markersize=5, **style)


def _dress(axes: Any, sizes: list[tuple[int, int]]) -> None:  # noqa: ANN401
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(
        [_pixels(size) for size in sizes],
        [describe_size(size) for size in sizes],
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    axes.minorticks_off()
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    low, high = axes.get_ylim()
    shown = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    axes.set_yticks(shown, [str(tick) for tick in shown])
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)


def _colors(labels: list[str], palette: tuple[str, ...]) -> dict[str, str]:
    """Give each line a colour; ours have the same in both panels as long as there is one line for each."""
    others = iter(palette * (1 + len(labels)))
    return {label: _COLORS.get(label) or next(others) for label in labels}


def _processor() -> str:
    machine = describe_machine()
    return f"{str(machine['processor']).split(' (')[0]}, {machine['threads']} threads"


def _pixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / 1e6
