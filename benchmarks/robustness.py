r"""Measure how weights bear pictures as dashcams make them: mIoU on CamVid under nine corruptions at five strengths.

    python -m benchmarks.robustness camvid --plot robustness.png --sheet corruptions.png
    python -m benchmarks.robustness camvid --weights without=runs/a/last.safetensors \
        --weights with=runs/b/last.safetensors --step 4 --output benchmarks/results/robustness.json

All weights see the same pictures: what is random depends on the seed and on the picture's name.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from bsdnet.checkpoint import Checkpoint, default_weights, load_checkpoint, sha256_of
from bsdnet.classes import ClassSet
from bsdnet.errors import BsdnetError
from bsdnet.machine import describe_measurement
from trainer.data import SPLITS, open_split
from trainer.datasets.contract import LabelledImages
from trainer.device import place
from trainer.evaluation import EvaluationOptions, evaluate

_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Labelled pictures that something happened to."""

    pictures: LabelledImages
    """As they were taken."""
    step: int = 1
    """Every so many of them are kept."""
    corruption: str | None = None
    """One of `CORRUPTIONS`; None leaves them as they are."""
    strength: int = 1
    """Of the corruption."""
    seed: int = 0
    """What else is drawn depends on the picture's name alone."""

    @property
    def classes(self) -> ClassSet:
        """What the labels mean."""
        return self.pictures.classes

    def __len__(self) -> int:
        return len(range(0, len(self.pictures), self.step))

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read a picture `(H, W, 3)` and its labels `(H, W)`, and corrupt the picture."""
        rgb, labels = self.pictures[index * self.step]
        if self.corruption is not None:
            rgb = corrupt(rgb, self.corruption, self.strength, seed=self.seed, picture=self.name(index))
        return rgb, labels

    def name(self, index: int) -> str:
        """Give what tells a picture from all others."""
        return self.pictures.name(index * self.step)


def _parse_weights(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Turn `LABEL=FILE` into a mapping; nothing is the shipped weights."""
    weights = {}
    for value in values:
        label, sign, path = value.partition("=")
        if not sign or not label or label in weights:
            raise click.BadParameter(f"{value!r} must be LABEL=FILE with a label of its own", param=parameter)
        weights[label] = Path(path)
    return weights or {"shipped": default_weights()}


def _check_folder(_: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file in a folder that is not there before the time is spent."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"the folder {path.parent} does not exist", param=parameter)
    return path


@click.command()
@click.argument("camvid", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--weights",
    callback=_parse_weights,
    multiple=True,
    metavar="LABEL=FILE",
    help="Weights of a student and what to call them; may be given again. Default: the shipped ones.",
)
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True)
@click.option("--hold-out", help="The one drive of the split to look at; default: all.")
@click.option("--step", type=click.IntRange(min=1), default=1, show_default=True, help="Take every so many pictures.")
@click.option("--seed", default=0, show_default=True, help="Of what is random in the corruptions.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=1, show_default=True, help="Threads of the network and of OpenCV.")
@click.option("--output", type=_FILE, callback=_check_folder, help="JSON file to write.")
@click.option(
    "--plot",
    type=_FILE,
    callback=_check_folder,
    help="PNG of mIoU over strength; needs matplotlib.",
)
@click.option(
    "--sheet", type=_FILE, callback=_check_folder, help="PNG of one picture under each corruption at each strength."
)
def main(camvid: Path, weights: dict[str, Path], output: Path | None, **options: Any) -> None:
    """Evaluate weights on corrupted pictures of CamVid and print a table in Markdown."""
    if options["plot"] is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("the plot needs matplotlib: pip install 'bsdnet[bench]'")
    torch.set_num_threads(options["threads"])
    cv2.setNumThreads(options["threads"])
    only = [options["hold_out"]] if options["hold_out"] else None
    try:
        dataset = open_split("camvid", camvid, options["split"], only=only)
        if options["sheet"] is not None:
            cv2.imwrite(str(options["sheet"]), draw_sheet(dataset, len(dataset) // 2, options["seed"])[..., ::-1])
        results = {label: measure(path, dataset, options) for label, path in weights.items()}
    except BsdnetError as error:
        raise click.ClickException(str(error)) from None
    report = {
        **describe_measurement("python -m benchmarks.robustness"),
        "weights_sha256": {label: sha256_of(path) for label, path in weights.items()},
        **{name: options[name] for name in ("split", "hold_out", "step", "seed", "precision", "device")},
        "images": len(Corrupted(pictures=dataset, step=options["step"])),
        "corruptions": {
            name: {"levels": list(corruption.levels), "unit": corruption.unit, "trained": corruption.trained}
            for name, corruption in CORRUPTIONS.items()
        },
        "weights": results,
    }  # fmt: skip
    click.echo(as_markdown(results))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")
    if options["plot"] is not None:
        draw_plot(results, options["plot"])


def measure(path: Path, dataset: LabelledImages, options: dict[str, Any]) -> dict[str, Any]:
    """Evaluate weights on clean and on corrupted pictures: mIoU, and IoU of the road, in per cent."""
    checkpoint = load_checkpoint(path)
    if checkpoint.metadata.class_set.names != dataset.classes.names:
        raise click.UsageError(f"{path} is made for {checkpoint.metadata.class_set.name}, not for CamVid's classes")
    kept = {"pictures": dataset, "step": options["step"], "seed": options["seed"]}
    clean = _evaluate(checkpoint, Corrupted(**kept), options)
    corrupted = {}
    for name in CORRUPTIONS:
        click.echo(f"{path.name}: {name}", err=True)
        variants = [Corrupted(**kept, corruption=name, strength=strength) for strength in STRENGTHS]
        rows = [_evaluate(checkpoint, pictures, options) for pictures in variants]
        corrupted[name] = {key: [row[key] for row in rows] for key in clean}
    return {"file": path.name, "clean": clean, "corrupted": corrupted}


def _evaluate(checkpoint: Checkpoint, pictures: Corrupted, options: dict[str, Any]) -> dict[str, float]:
    device, metadata = torch.device(options["device"]), checkpoint.metadata
    looks = EvaluationOptions(short_side=min(metadata.train_size), precision=options["precision"])
    network = place(checkpoint.model, device)
    matrix = evaluate(network, pictures, device, options=looks, mean=metadata.mean, std=metadata.std)
    road = matrix.iou[pictures.classes.names.index("road")]
    return {"miou_percent": round(100 * matrix.mean_iou, 2), "road_iou_percent": round(100 * float(road), 2)}


def as_markdown(results: dict[str, Any]) -> str:
    """Write mIoU in per cent: a row for each corruption and weights, and at the end the mean over the corruptions."""
    strengths = " | ".join(map(str, STRENGTHS))
    head = [f"| corruption | weights | none | {strengths} | mean |", "|---|---|" + "--:|" * 7]
    lines = []
    marked = {name if CORRUPTIONS[name].trained else f"{name} (not trained for)": [name] for name in CORRUPTIONS}
    for title, names in (marked | {"all": list(CORRUPTIONS)}).items():
        for label, result in results.items():
            rows = [result["corrupted"][name]["miou_percent"] for name in names]
            by_strength = [fmean(row) for row in zip(*rows, strict=True)]
            cells = [result["clean"]["miou_percent"], *by_strength, fmean(by_strength)]
            lines.append(f"| {title} | {label} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    return "\n".join(head + lines)


def draw_plot(results: dict[str, Any], path: Path) -> None:
    """Draw mIoU over strength, 0 being the picture as it was taken: a panel for each corruption."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(3, 3, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    for panel, (name, corruption) in zip(panels.flat, CORRUPTIONS.items(), strict=True):
        for label, result in results.items():
            scores = [result["clean"]["miou_percent"], *result["corrupted"][name]["miou_percent"]]
            panel.plot([0, *STRENGTHS], scores, "o-", markersize=3, label=label)
        panel.set_title(name if corruption.trained else f"{name} (not trained for)", fontsize=10)
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylim(bottom=0)
    panels[0, 0].legend(fontsize=8)
    figure.supxlabel("strength")
    figure.supylabel("mIoU (%)")
    figure.savefig(path, dpi=150)


def draw_sheet(dataset: LabelledImages, index: int, seed: int) -> NDArray[np.uint8]:
    """Draw one picture under each corruption (rows) at each strength (columns), RGB uint8, at half its size."""
    rows = []
    for name in CORRUPTIONS:
        row = []
        for strength in STRENGTHS:
            rgb, _ = Corrupted(pictures=dataset, corruption=name, strength=strength, seed=seed)[index]
            small = np.ascontiguousarray(cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
            for color, offset in ((0, 1), (255, 0)):  # white with a shadow
                corner = 6 + offset, small.shape[0] - 8 + offset
                cv2.putText(small, f"{name} {strength}", corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 3 * [color])
            row.append(small)
        rows.append(np.hstack(row))
    return np.asarray(np.vstack(rows), np.uint8)


if __name__ == "__main__":
    main()
