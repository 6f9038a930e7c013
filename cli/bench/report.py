"""What a measurement says: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from bsdnet.machine import describe_measurement
from bsdnet.runtime.timing import Timing
from cli.bench import paper
from cli.bench.measure import IN_FLIGHT, Row, Settings
from cli.options import NAMED_SIZES
from cli.report import describe_size
from cli.terminal import tell

_NONE = "–"  # noqa: RUF001 - the dash of a table's empty cell


def publish(markdown: str, result: dict[str, Any], options: dict[str, Any], made: dict[str, Any]) -> None:
    """Print a table, and write the files that were asked for.

    Args:
        markdown: the table, and what explains it.
        result: the same for programs.
        options: the command's; `json` and `markdown` are paths or None.
        made: of `describe_measurement`.
    """
    tell(markdown)
    if options["json"]:
        options["json"].write_text(json.dumps({**made, **result}, indent=2) + "\n", encoding="utf-8")
    if options["markdown"]:
        machine = ", ".join(f"{key} {value}" for key, value in made["machine"].items())
        text = f"{markdown}\n\n`{made['command']}`, {made['date']}. Machine: {machine}.\n"
        options["markdown"].write_text(text, encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """Write a Markdown table whose columns line up in a terminal too; all but the first `left` are right-aligned."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width if column < left else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in cells[1:])])


def number(value: float | None, digits: int = 1) -> str:
    """Write a number for a cell: with `digits` behind the point, or a dash if there is none."""
    return _NONE if value is None else f"{value:.{digits}f}"


def percentiles(timing: Timing | None) -> str:
    """Write p50 / p95 / p99 in milliseconds."""
    if timing is None:
        return _NONE
    values = (timing.p50_ms, timing.p95_ms, timing.p99_ms)
    digits = 1 if timing.p50_ms >= 10 else 2
    return " / ".join(f"{value:.{digits}f}" for value in values)


def fps(timing: Timing | None) -> float | None:
    """Times a second, or None."""
    return None if timing is None else timing.fps


def as_json(row: Row) -> dict[str, Any]:
    """Turn a row into what JSON knows, nothing rounded."""

    def timing(value: Timing | None) -> dict[str, float] | None:
        return None if value is None else {**asdict(value), "fps": value.fps}

    case = row.case
    return {
        "model": case.candidate.name,
        "weights": case.candidate.weights,
        "size": describe_size(case.size),
        "backend": row.backend,
        "backend_asked": case.backend,
        "precision": row.precision,
        "parameters": case.candidate.parameters,
        "macs": row.macs,
        "output": row.output,
        "folded": row.folded,
        "peak_bytes": row.peak_bytes,
        "network": timing(row.network),
        "frame": timing(row.frame),
        "stream": timing(row.stream),
        "resident": timing(row.resident),
        "note": row.note,
    }


def speed_table(rows: Sequence[Row], settings: Settings) -> str:
    """Write the table of speeds, and under it what its columns mean."""
    on_gpu = settings.with_frame and settings.device.type == "cuda"
    columns = ["model", "input", "backend", "M par.", "GMACs", "network ms p50 / p95 / p99", "FPS"]
    if settings.with_frame:
        columns += ["frame ms p50 / p95 / p99", "stream FPS"]
    if on_gpu:
        columns.append("resident FPS")
    if settings.memory:
        columns.append("MiB")
    lines = []
    for row in rows:
        candidate = row.case.candidate
        cells = [
            candidate.name,
            describe_size(row.case.size),
            f"{row.backend} {row.precision}",
            number(candidate.parameters / 1e6, 2),
            number(None if row.macs is None else row.macs / 1e9, 2),
            percentiles(row.network),
            number(fps(row.network)),
        ]
        if settings.with_frame:
            cells += [percentiles(row.frame), number(fps(row.stream))]
        if on_gpu:
            cells.append(number(fps(row.resident)))
        if settings.memory:
            cells.append(number(None if row.peak_bytes is None else row.peak_bytes / 2**20, 0))
        lines.append(cells)
    return "\n\n".join([table(columns, lines, left=3), "\n".join(_remarks(rows, settings))])


def _remarks(rows: Sequence[Row], settings: Settings) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            line = f"{row.case.candidate.name} {describe_size(row.case.size)} {row.backend} {row.precision}"
            reasons.setdefault(row.note, []).append(line)
    remarks = [f"- not measured: {', '.join(lines)}: {reason}" for reason, lines in reasons.items()]
    weights = {row.case.candidate.name: row.case.candidate.weights for row in rows}
    remarks.append("- weights: " + "; ".join(f"{name}: {origin}" for name, origin in weights.items()))
    unfolded = sorted({row.case.candidate.name for row in rows if not row.folded})
    if unfolded:
        remarks.append(f"- batch norms not folded, because torch.fx cannot trace it: {', '.join(unfolded)}")
    remarks.append(
        f"- all lines interleaved, rounds: {settings.rounds}; network: normalised picture to logits at stride 8 (other "
        "people's modules: to whatever they give); FPS: by the median"
    )
    if settings.with_frame:
        size = "the input's size" if settings.frame_size is None else describe_size(settings.frame_size)
        remarks.append(
            f"- frame: RGB in memory to the overlay in memory, at {size}, one at a time; stream: {IN_FLIGHT} under way"
        )
        if settings.device.type == "cuda":
            remarks.append("- resident: YUV 4:2:0 on the GPU to the overlay on the GPU, one behind the other")
    remarks.append("- GMACs: multiply-accumulates of convolutions and matrix products, nothing else")
    if settings.memory:
        remarks.append(
            "- MiB: peak of loading the network and running it alone; on CUDA what PyTorch allocates there (TensorRT's "
            "own is not known), on the CPU by how much the resident memory of a fresh process grows"
        )
    return remarks


def paper_table(rows: Sequence[Row]) -> str:
    """Write what the paper measured on its own hardware, with our figures beside it, for the inputs measured here."""
    sizes = {row.case.size for row in rows}
    names = {describe_size(size): name.capitalize() for name, size in NAMED_SIZES.items()}
    lines = []
    for entry in paper.SPEEDS:
        if entry.size not in sizes:
            continue
        ours = [row for row in rows if (row.case.candidate.name, row.case.size) == (entry.method, entry.size)]
        network = max((row.network.fps for row in ours if row.network), default=None)
        stream = max((row.stream.fps for row in ours if row.stream), default=None)
        size = describe_size(entry.size)
        label = f"{size} ({names[size]})" if size in names else size
        lines.append([entry.method, label, str(entry.table), number(entry.fps), number(network), number(stream)])
    header = ["method", "input", "table", f"paper: FPS on {paper.HARDWARE}", "here: network FPS", "here: stream FPS"]
    return table(header, lines, left=2) if lines else "It measured none of these inputs."


def write_speed(rows: Sequence[Row], settings: Settings, options: dict[str, Any]) -> None:
    """Print and write the table of speeds beside the paper's."""
    markdown = "\n\n".join(
        [
            speed_table(rows, settings),
            "Beside the paper, tables 1 to 3: its own hardware, not this machine.",
            paper_table(rows),
        ]
    )
    result = {
        "settings": {
            "device": str(settings.device),
            "rounds": settings.rounds,
            "in_flight": IN_FLIGHT,
            "frame_size": None if settings.frame_size is None else describe_size(settings.frame_size),
        },
        "rows": [as_json(row) for row in rows],
        "paper": {"hardware": paper.HARDWARE, "rows": [_paper_json(entry) for entry in paper.SPEEDS]},
    }
    publish(markdown, result, options, describe_measurement("bsdnet-bench"))
    if options["plot"]:
        from cli.bench.plot import draw

        draw(rows, settings.device, options["plot"])


def _paper_json(entry: paper.PaperSpeed) -> dict[str, Any]:
    return {**asdict(entry), "size": describe_size(entry.size)}
