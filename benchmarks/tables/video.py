"""What smoothing and smaller inputs bring and cost: blocks of docs/smoothing.md and docs/adaptive-size.md."""

from typing import Any

from benchmarks.tables.markdown import fixed, signed, table

_SMOOTH = "along the motion, keep 0.5, tolerance 0.15"
_LONGER = "along the motion, keep 0.7, tolerance 0.15"
_SCHEMES = {
    "off": "off",
    "average, keep 0.3": "average at the same place, 0.3 of the past",
    "average, keep 0.5": "average at the same place, 0.5",
    "average where the luma agrees, keep 0.5": "the same where the luma agrees, 0.5",
    _SMOOTH: "along the motion, 0.5: `--smooth`",
    _LONGER: "along the motion, 0.7",
    "the true labels": "the true labels",
}
_STEPS = {"1088x800": "3/2", "896x672": "5/4", "736x544": "**1**", "640x480": "7/8", "576x416": "3/4",
          "480x352": "5/8", "384x288": "1/2"}  # fmt: skip


def schemes(report: dict[str, Any]) -> str:
    """The ways to steady classes, on the frames that chose none of them."""
    rows = []
    for key, name in _SCHEMES.items():
        found = report["schemes"][key]["report"]
        miou = fixed(found["miou"], 0 if found["miou"] == 100 else 1)
        row = [name, miou, *(fixed(found[f"consistency_{flow}"]) for flow in ("dis", "farneback"))]
        row.append(f"{fixed(found['flicker'], 2)} %")
        rows.append([f"**{cell}**" for cell in row] if key == _SMOOTH else row)
    return table(["", "mIoU", "consistency (DIS)", "consistency (Farneback)", "flicker"], rows)


def other_frames(report: dict[str, Any]) -> str:
    """The same on the frames that chose, and at a third of the rate."""
    off, smooth, longer = (report["schemes"][key]["tuning"] for key in ("off", _SMOOTH, _LONGER))
    slow_off, slow = (report["schemes_at_5_hz"][key] for key in ("off", _SMOOTH))
    return (
        f"On the first 50: mIoU {fixed(off['miou'])} to {fixed(smooth['miou'])}, "
        f"consistency {fixed(off['consistency_dis'])} to {fixed(smooth['consistency_dis'])}, "
        f"flicker {fixed(off['flicker'], 2)} to {fixed(smooth['flicker'], 2)} %; "
        f"0.7 of the past changes mIoU\nby {signed(longer['miou'] - off['miou'])} there. "
        f"With every third frame of all only (5 Hz, 34 frames): mIoU {fixed(slow_off['miou'])} to "
        f"{fixed(slow['miou'])}, flicker {fixed(slow_off['flicker'], 2)} to {fixed(slow['flicker'], 2)} %."
    )


def smoothed_classes(report: dict[str, Any]) -> str:
    """IoU of every class with and without."""
    rows = [
        [name, *(fixed(iou) for iou in report["schemes"][key]["report"]["iou"])]
        for name, key in (("off", "off"), ("`--smooth`", _SMOOTH))
    ]
    return table(["IoU, last 51", *report["classes"]], rows)


def losing_classes(report: dict[str, Any]) -> str:
    """What thin and moving things lose on the frames that chose."""
    off, smooth = (report["schemes"][key]["tuning"]["iou"] for key in ("off", _SMOOTH))
    change = {name: signed(after - before) for name, before, after in zip(report["classes"], off, smooth, strict=True)}
    return f"poles change by {change['pole']}, cars by {change['car']} and bicyclists by {change['bicyclist']}"


def cuts(report: dict[str, Any]) -> str:
    """How alike the lumas of two frames are, along a drive and across a cut."""
    rows = [
        [key.replace("other drives", "the other drives of CamVid"), str(found["pairs"]),
         fixed(found["min"], 2), fixed(found["max"], 2)]
        for key, found in report["agreement"].items()
    ]  # fmt: skip
    return table(["mean agreement of two frames", "pairs", "least", "most"], rows)


def cost(report: dict[str, Any]) -> str:
    """Milliseconds of a frame with and without smoothing."""
    rows = [
        [picture.replace("rgb", "RGB"), *(f"{fixed(found[f'{part}_ms'])} ms" for part in
                                          ("alone", "smoothed", "turn", "average"))]
        for picture, found in report["cost_at_960x544"].items()
    ]  # fmt: skip
    return table(["picture", "alone", "smoothed", "of it: luma, flow, weights", "average"], rows)


def own_share(report: dict[str, Any]) -> str:
    """The share of smoothing's own steps in a frame, over the kinds of pictures."""
    shares = [found["own_share_percent"] for found in report["cost_at_960x544"].values()]
    least, most = fixed(min(shares), 0), fixed(max(shares), 0)
    return f"{least} %" if least == most else f"{least} to {most} %"


def sizes(report: dict[str, Any]) -> str:
    """Accuracy by input size."""
    found = {row["size"]: row for row in report["rows"]}
    pixels = {size: int(size.split("x")[0]) * int(size.split("x")[1]) for size in found}
    rows = [
        ["input size", *_STEPS],
        ["pixels", *(f"{pixels[size] / pixels['736x544']:.2f}" for size in _STEPS)],
        ["mIoU", *(fixed(found[size]["miou_percent"]) for size in _STEPS)],
    ]
    for name in ("car", "pedestrian", "bicyclist", "pole"):
        rows.append([name, *(fixed(found[size]["iou_percent"][name]) for size in _STEPS)])
    return table(["step", *_STEPS.values()], rows)


def size_losses(report: dict[str, Any]) -> str:
    """What the mean, cars and pedestrians lose from the weights' own size to the smallest."""
    found = {row["size"]: row for row in report["rows"]}
    full, half = found["736x544"], found["384x288"]
    mean = full["miou_percent"] - half["miou_percent"]
    cars, pedestrians = (full["iou_percent"][name] - half["iou_percent"][name] for name in ("car", "pedestrian"))
    return (
        f"the mean loses {fixed(mean, 0)} points from **1** to 1/2, but **small and distant things lose much more**: "
        f"cars {fixed(cars, 0)}\nand pedestrians {fixed(pedestrians, 0)} points"
    )
