"""How fast everything is: blocks of the README, and the size of the networks."""

from itertools import zip_longest
from statistics import median
from typing import Any

from benchmarks.tables.markdown import fixed, percent, table

_GROUPS = (
    ("BSDNet-S", ("SCTNet_S", "DDRNet_23_slim", "PIDNet_S")),
    ("BSDNet-B", ("SCTNet_B", "DDRNet_23")),
)
"""Each of our networks with its peers, by the names of `bsdnet-bench`."""


def parameters(report: dict[str, Any], model: str) -> str:
    """Parameters of a network, in millions."""
    count = {row["model"]: row["parameters"] for row in report["rows"]}[model]
    return f"{fixed(count / 1e6, 2)} M"


def peers(report: dict[str, Any]) -> str:
    """Milliseconds of the networks alone, and how often ours fits into each of the others."""
    times = {row["model"]: row["network"]["p50_ms"] for row in report["rows"]}
    columns = []
    for ours, others in _GROUPS:
        column = [(name.replace("_", "-"), _against(times[name], times[ours])) for name in others]
        columns.append([(f"**{ours}**", f"**{fixed(times[ours])}**"), *column])
    rows = [[*left, *right] for left, right in zip_longest(*columns, fillvalue=("", ""))]
    return table(["", "ms", "", "ms"], rows)


def _against(time_ms: float, ours_ms: float) -> str:
    return f"{fixed(time_ms)} ({fixed(time_ms / ours_ms, 2)} times)"


def naive_pipeline(small: dict[str, Any], big: dict[str, Any]) -> str:
    """Whole frames beside the pipeline that everybody writes first."""
    return (
        f"S {fixed(small['speedup'])} times as fast for a lone frame and {fixed(small['speedup_in_a_stream'])} times "
        f"in a stream ({fixed(small['ours_in_a_stream_ms'])} ms a frame),\n"
        f"with the same label on {fixed(small['equal_labels_percent'], 2)} % of the pixels of a dashcam clip; "
        f"B {fixed(big['speedup'])} and {fixed(big['speedup_in_a_stream'])} times "
        f"({fixed(big['ours_in_a_stream_ms'])} ms)"
    )


def naive_pipeline_without_bf16(report: dict[str, Any]) -> str:
    """The same where both must compute in fp32."""
    return (
        f"S {fixed(report['speedup'])} and {fixed(report['speedup_in_a_stream'])} times "
        f"({fixed(report['ours_in_a_stream_ms'], 0)} ms)"
    )


def whole_command(default: dict[str, Any], large: dict[str, Any], pipeline: dict[str, Any]) -> str:
    """`bsdnet-run` from its start to its end, at two input sizes."""
    medians = default["medians"]
    return (
        f"{fixed(medians['fps'], 0)} fps at the default {default['network_size']} ({fixed(medians['ratio'], 2)} of the "
        f"network alone on both cores, {fixed(pipeline['ratio_file'], 2)} of the segmenter in a stream), "
        f"{fixed(large['medians']['fps'], 0)} fps at\n{large['network_size']}; the first frame is written "
        f"{fixed(medians['start_to_first_frame_s'])} s after the command was started"
    )


def smoothing_share(report: dict[str, Any]) -> str:
    """By how much `--smooth` slows the whole command down, median over pairs."""
    return f"about {percent(median(_losses(report)), 0)} %"


def smoothing_pairs(report: dict[str, Any]) -> str:
    """All pairs of runs with and without `--smooth`."""
    losses = _losses(report)
    off, on = (", ".join(fixed(pair[key]) for pair in report["pairs"]) for key in ("off_fps", "smooth_fps"))
    return (
        f"{off}\nagainst {on} fps, so {percent(median(losses), 0)} % in the median pair, "
        f"from {percent(min(losses), 0)} to {percent(max(losses), 0)} %"
    )


def _losses(report: dict[str, Any]) -> list[float]:
    return [1 - pair["smooth_fps"] / pair["off_fps"] for pair in report["pairs"]]


def training(alone: dict[str, Any], taught: dict[str, Any], memory: dict[str, Any]) -> str:
    """Training steps beside naive ones, and the memory of a large one."""
    labels, teacher, peak = alone["results"], taught["results"], memory["results"]
    height, width = peak["crop_size"]
    return (
        f"{fixed(labels['ours']['images_per_s'])} images/s on labels alone, {fixed(labels['ratio'])} times as many\n"
        "as the same step in fp32 and PyTorch's default memory order; "
        f"{fixed(teacher['ours']['images_per_s'])} with the teacher above ({fixed(teacher['ratio'])} times). "
        f"A step of {peak['model'].upper()} at\n{width}x{height}, batch {peak['batch_size']}, {peak['precision']}, "
        f"without a teacher, takes {fixed(peak['peak_gib'])} GiB"
    )
