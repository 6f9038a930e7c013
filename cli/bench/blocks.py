"""The paper's blocks and context modules side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from bsdnet.devices import select_device
from bsdnet.machine import describe_measurement
from bsdnet.runtime.timing import Timing
from cli.bench import paper
from cli.bench.candidates import load_candidate
from cli.bench.measure import Case, Row, Settings, measure, require_any
from cli.bench.progress import require_all
from cli.bench.report import as_json, fps, number, percentiles, publish, table
from cli.report import describe_size

_OURS = {"block": "fcb", "context": "dasp-avg"}


def measure_blocks(options: dict[str, Any]) -> None:
    """Measure, print and write what the options of `bsdnet-bench blocks` say.

    Raises:
        BackendError: nothing could be measured; the lines below the tables say why.
    """
    settings = Settings(device=select_device(options["device"]), rounds=options["rounds"])
    model = options["model"]
    specs = [
        *(f"{model}:block={name}" for name in paper.BLOCKS),
        *(f"{model}:context={name}" for name in paper.CONTEXTS),
    ]
    candidates = {spec: load_candidate(spec) for spec in specs}
    cases = [
        Case(candidate=candidate, size=size, backend=options["backend"], precision=options["precision"])
        for size in options["sizes"]
        for candidate in candidates.values()
    ]
    rows, measured = measure(cases, settings)
    parts = []
    for size in options["sizes"]:
        found = {row.case.candidate.spec: row for row in rows if row.case.size == size}
        for kind, number_, entries in (("block", 4, paper.BLOCKS), ("context", 5, paper.CONTEXTS)):
            parts.append(f"Table {number_} ({kind}), BSDNet-{model.upper()} at {describe_size(size)}")
            parts.append(_table(kind, {name: found[f"{model}:{kind}={name}"] for name in entries}, entries))
    parts.append(_remarks(rows, measured))
    result = {"settings": {"device": str(measured.device), "rounds": measured.rounds}}
    publish(
        "\n\n".join(parts),
        {**result, "rows": [_as_json(row) for row in rows]},
        options,
        describe_measurement("bsdnet-bench"),
    )
    require_all(measured.rounds, settings.rounds)
    require_any(rows)


def _table(kind: str, rows: Mapping[str, Row], entries: Mapping[str, tuple[str, float, float]]) -> str:
    ours = rows[_OURS[kind]].network
    lines = []
    for name, row in rows.items():
        title, paper_fps, paper_parameters = entries[name]
        lines.append(
            [
                title,
                number(row.case.candidate.parameters / 1e6, 2),
                number(None if row.macs is None else row.macs / 1e9, 2),
                percentiles(row.network),
                number(fps(row.network)),
                number(_ratio(row.network, ours), 2),
                number(paper_fps),
                number(paper_fps / entries[_OURS[kind]][1], 2),
                number(paper_parameters),
            ]
        )
    header = [kind, "M par.", "GMACs", "ms p50 / p95 / p99", "FPS", "x ours", "paper FPS", "x ours", "paper M par."]
    return table(header, lines, left=1)


def _ratio(timing: Timing | None, ours: Timing | None) -> float | None:
    """How many times as fast as ours."""
    return timing.fps / ours.fps if timing and ours else None


def _remarks(rows: Sequence[Row], settings: Settings) -> str:
    failed = [f"- not measured: {row.case.candidate.name}: {row.note}" for row in rows if row.note]
    return "\n".join(
        [
            *failed,
            f"- {rows[0].backend} {rows[0].precision} on {settings.device}, random weights of 19 classes; the network "
            f"alone, all interleaved, rounds: {settings.rounds}",
            f"- paper: BSDNet-B at 2048x1024 on {paper.HARDWARE}, its own hardware; compare ratios, not speeds",
        ]
    )


def _as_json(row: Row) -> dict[str, Any]:
    kind, _, name = row.case.candidate.spec.partition(":")[2].partition("=")
    _, paper_fps, paper_parameters = (paper.BLOCKS if kind == "block" else paper.CONTEXTS)[name]
    return {**as_json(row), "kind": kind, "paper_fps": paper_fps, "paper_parameters_m": paper_parameters}
