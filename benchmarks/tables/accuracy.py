"""What the shipped weights can do, and how they were made: blocks of the README, the model card and the checkpoints."""

import json
import re
from statistics import fmean
from typing import Any

from benchmarks.confidence import half_width
from benchmarks.tables.markdown import fixed, percent, power, signed, table

_BEYOND_THE_LABELS = {
    "color_jitter": (0, "random colours of strength {}"),
    "degradation": (0, "a share of {} of the crops degraded as by a worse camera"),
    "class_mix": (0, "half of another crop's classes put over a share of {} of the crops"),
    "class_weight_offset": (None, "class weights 1 / ln({} + share)"),
    "label_smoothing": (0, "labels smoothed by {}"),
    "ema_decay": (0, "moving average of the weights with decay {}"),
    "class_balance": (0, "a share of {} of the crops drawn to show a class"),
    "hard_pixel_share": (1, "the hardest {} of the pixels alone"),
    "lovasz_weight": (0, "Lovasz loss of weight {}"),
    "auxiliary_weight": (0, "an auxiliary head of weight {}"),
}
"""Fields of a recipe: the value that switches each off, and what it is called."""

_PAIRED = ("table", "dataset", "model", "split", "iterations", "crop_size", "settings")
"""What pairs of runs have in common."""


def miou(val: dict[str, Any], test: dict[str, Any]) -> str:
    """The two figures of the README."""
    return f"mIoU **{percent(test['miou'])}** on test and\n{percent(val['miou'])} on validation"


def by_class(*splits: dict[str, Any]) -> str:
    """IoU of every class on validation and test, of S, of B and of the teacher."""
    rows = [["**mIoU**", *(f"**{percent(split['miou'])}**" for split in splits)]]
    rows += [[name, *(percent(split["iou"][name]) for split in splits)] for name in splits[0]["iou"]]
    header = [f"{network}: {split}" for network in ("S", "B", "teacher") for split in ("val", "test")]
    return table(["class", *header], rows)


def mean_iou(report: dict[str, Any]) -> str:
    """MIoU of one evaluation."""
    return percent(report["miou"])


def drive(name: str, report: dict[str, Any]) -> str:
    """MIoU on one drive of a split."""
    return f"{name} {percent(report['miou_by_recording'][name])}"


def recipe(first: dict[str, Any], *further: dict[str, Any]) -> str:
    """The training's numbers, from `run.json` of each run; a further one went on from the weights of the one before."""
    text = f"{_length(first)}, {_numbers(first)}, seed {first['seed']}"
    for run in further:
        if _numbers(run) != _numbers(first):
            raise ValueError("the runs differ in more than length and seed")
        text += f";\nthen {_length(run)} more from these weights, the rate beginning anew, seed {run['seed']}"
    return text


def distilled_recipe(run: dict[str, Any]) -> str:
    """The numbers of a run that learnt from a teacher too, on pictures with labels and without."""
    share = f"a share of {run['unlabelled_share']:g} of them of {run['unlabelled_images']} mosaics without labels"
    losses = f"SIDM with weights {run['cwd_weight']:g} for CWD and {run['ofa_weight']:g} for OFA"
    return f"{_length(run)}, {_numbers(run)};\n{share}; {losses}, seed {run['seed']}"


def labelled_recipe(run: dict[str, Any]) -> str:
    """The numbers of a run that learnt from further labelled pictures too."""
    share = f"a share of {run['further_share']:g} of them of {run['further_images']} further pictures"
    return f"{_length(run)}, {_numbers(run)};\n{share}, seed {run['seed']}"


def _length(run: dict[str, Any]) -> str:
    return f"{run['epochs']} epochs" if run["epochs"] else f"{run['iterations']} steps"


def _numbers(run: dict[str, Any]) -> str:
    height, width = run["crop_size"]
    whole_height, whole_width = run["train_size"]
    smallest, largest = run["scale_range"]
    numbers = [
        f"batches of {run['batch_size']} crops of {width}x{height}",
        f"pictures at {whole_width}x{whole_height}",
        "AdamW",
        f"peak rate {power(run['lr'])}",
        f"polynomial decay {run['poly_power']:g}",
        f"scales {smallest:g} to {largest:g}",
        "flips" if run["flip_probability"] else "no flips",
    ]
    beyond = []
    for name, (off, text) in _BEYOND_THE_LABELS.items():
        value = run.get(name, off)
        if value != off:
            beyond.append(text.format(f"{value:g}"))
    return ", ".join(numbers) + (",\n" + ", ".join(beyond) if beyond else "")


def top_1(log: str, digits: int) -> str:
    """The best accuracy that pretraining logged, in per cent."""
    found = re.search(r"^best evaluation ([\d.]+) %", log, re.MULTILINE)
    if found is None:
        raise KeyError("best evaluation")
    return f"{fixed(float(found[1]), digits)} % top-1"


def pretraining(recipe: dict[str, Any]) -> str:
    """How long pretraining was."""
    return f"{recipe['epochs']} epochs"


def pretraining_numbers(recipe: dict[str, Any]) -> str:
    """The numbers of pretraining that a row of the checkpoints has."""
    return f"batch {recipe['batch_size']}, AdamW, lr {power(recipe['lr'])}, seed {recipe['seed']}"


def robustness(report: dict[str, Any]) -> str:
    """MIoU of the only weights of a report under corruptions of five strengths."""
    (found,) = report["weights"].values()
    rows = [["none", fixed(found["clean"]["miou_percent"]), "", "", "", ""]]
    rows += [[name, *map(fixed, corrupted["miou_percent"])] for name, corrupted in found["corrupted"].items()]
    return table(["mIoU at strength", "1", "2", "3", "4", "5"], rows)


def robustness_mean(report: dict[str, Any]) -> str:
    """The mean over all corruptions and strengths, of the only weights of a report."""
    (found,) = report["weights"].values()
    return fixed(_mean_of_corrupted(found))


def robustness_pair(report: dict[str, Any]) -> str:
    """MIoU under corruptions, of weights that were trained on degraded crops and of such that were not."""
    before, after = (report["weights"][name] for name in ("without", "with"))
    header = ["mIoU at strength", "without: 1", "3", "5", "**with: 1**", "**3**", "**5**"]
    rows = []
    for name, corruption in report["corruptions"].items():
        old, new = (found["corrupted"][name]["miou_percent"] for found in (before, after))
        rows.append([
            name if corruption["trained"] else f"{name}, not trained for",
            *(fixed(old[index]) for index in (0, 2, 4)), *(f"**{fixed(new[index])}**" for index in (0, 2, 4)),
        ])  # fmt: skip
    clean = [fixed(found["clean"]["miou_percent"]) for found in (before, after)]
    rows.insert(0, ["none", clean[0], "", "", f"**{clean[1]}**", "", ""])
    return table(header, rows)


def robustness_means(report: dict[str, Any]) -> str:
    """The mean over all corruptions and strengths, without and with."""
    means = [_mean_of_corrupted(report["weights"][name]) for name in ("without", "with")]
    return f"from {fixed(means[0])} to {fixed(means[1])}"


def adaptation(alone: dict[str, Any], ensemble: dict[str, Any]) -> str:
    """MIoU of S before and after it learnt from a drive without labels, of a teacher alone and with S beside it."""
    rows = []
    for name, report in (("the teacher", alone), ("the teacher and S itself", ensemble)):
        for part in report["rows"]["before"]:
            rows.append([name, part, *(fixed(row[part]["miou_percent"]) for row in report["rows"].values())])
    return table(["taught by", "judged on", *alone["rows"]], rows)


def _mean_of_corrupted(weights: dict[str, Any]) -> float:
    return fmean(value for found in weights["corrupted"].values() for value in found["miou_percent"])


def half_precision(report: dict[str, Any]) -> str:
    """Half precision against fp32."""
    equal, miou = report["pixels_equal_to_fp32_percent"], report["miou_percent"]
    return (
        f"{report['images']} pictures of CamVid's test split: {fixed(equal['bf16'], 2)} % of the pixels as in fp32 "
        f"with bf16, {fixed(equal['fp16'], 2)} % with\nfp16; mIoU {fixed(miou['fp32'], 2)}, {fixed(miou['bf16'], 2)} "
        f"and {fixed(miou['fp16'], 2)} with fp32, bf16 and fp16"
    )


def teacher(report: dict[str, Any]) -> str:
    """What the teacher of the ablation scores on the drive that it never saw."""
    return f"scores {percent(report['miou'])} there"


def distillation(report: dict[str, Any]) -> str:
    """The ablation of the losses, pairs of seeds."""
    names = {"student alone": "student alone", "+ CWD": "with CWD", "+ OFA": "with OFA", "+ SIDM": "with both (SIDM)"}
    first, *_ = report["rows"]
    rows = []
    for row in report["rows"]:
        differences = "" if row is first else ", ".join(map(signed, row["difference"]))
        rows.append([names[row["row"]], fixed(row["mean"]), fixed(row["deviation"]), differences])
    header = ["", f"mIoU, mean of {len(report['seeds'])}", "deviation", "difference to alone, pair by pair"]
    return table(header, rows)


def pairs(*reports: dict[str, Any]) -> str:
    """Going on from trained weights with and without the teacher, by themselves and averaged with those weights.

    Several reports of either kind, which differ in their seeds, are one.
    """
    rows = []
    for averaged, name in ((False, "after the last step"), (True, "averaged with what they went on from")):
        same = [report for report in reports if report["average"] == averaged]
        if len({json.dumps([report[key] for key in _PAIRED], sort_keys=True) for report in same}) > 1:
            raise ValueError("the reports differ in more than their seeds")
        labels, distilled = ([score for report in same for score in report["rows"][row]["miou"]] for row in (0, 1))
        differences = [difference for report in same for difference in report["rows"][1]["difference"]]
        interval = half_width(differences)
        mean = signed(fmean(differences), 2) + ("" if interval is None else f" ± {fixed(interval, 2)}")
        rows.append([
            name, fixed(fmean(labels)), fixed(fmean(distilled)),
            ", ".join(signed(difference, 2) for difference in differences), mean,
        ])  # fmt: skip
    return table(["", "labels alone", "with SIDM", "difference, pair by pair", "its mean, 95 % confidence"], rows)
