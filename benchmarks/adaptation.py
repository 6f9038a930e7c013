r"""Measure what adapting to one's own camera brings: half of a drive teaches without labels, the other half is judged.

    python -m benchmarks.adaptation camvid --drive Seq05VD --teacher checkpoints/teacher-camvid --set cwd_weight=5 \
        --runs runs/adaptation --output benchmarks/results/adaptation.json

The pictures are learnt from by `bsdnet-train --dataset video`, as anybody's are; the labels of the drive are used by
this program alone, to judge. What the weights know of other drives is judged as well: it may be lost.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import cv2
import torch

from benchmarks.tables.markdown import fixed, table
from bsdnet.checkpoint import default_weights, load_checkpoint, save_checkpoint, sha256_of
from bsdnet.errors import BsdnetError
from bsdnet.machine import describe_measurement
from trainer.averaging import average_weights
from trainer.data import SPLITS, open_split
from trainer.datasets.combining import Part
from trainer.datasets.contract import LabelledImages
from trainer.device import place
from trainer.evaluation import EvaluationOptions, evaluate


def halves(pictures: LabelledImages) -> tuple[Part, Part]:
    """Divide a drive in the middle of its time: what is seen first, and what later."""
    middle = len(pictures) // 2
    return Part(pictures, range(middle)), Part(pictures, range(middle, len(pictures)))


@click.command()
@click.argument("camvid", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--drive", default="Seq05VD", show_default=True, help="The drive of the split to adapt to.")
@click.option(
    "--weights", type=click.Path(dir_okay=False, path_type=Path), help="To go on from; default: S as shipped."
)
@click.option("--teacher", "teachers", required=True, multiple=True, help="As of bsdnet-train; again for an ensemble.")
@click.option("--set", "settings", multiple=True, help="As of bsdnet-train.")
@click.option("--epochs", default=10, show_default=True, help="Passes over the first half.")
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
def main(
    camvid: Path,
    split: str,
    drive: str,
    weights: Path | None,
    teachers: tuple[str, ...],
    settings: tuple[str, ...],
    epochs: int,
    runs: Path,
    output: Path | None,
) -> None:
    """Adapt weights to a drive of CamVid, judge them before, after, and the mean of both; print a table in Markdown."""
    try:
        first, second = halves(open_split("camvid", camvid, split, only=[drive]))
        others = open_split("camvid", camvid, split, without=[drive])
    except BsdnetError as error:
        raise click.ClickException(str(error)) from None
    start = weights or default_weights()
    pictures = _lay_out(first, runs / "pictures")
    began_s = time.monotonic()
    command = [
        "--dataset", "video", "--data-dir", pictures, "--init", start, "--every", 1, "--epochs", epochs,
        *(part for teacher in teachers for part in ("--teacher", teacher)),
        *(part for setting in settings for part in ("--set", setting)), "--output", runs / "run",
    ]  # fmt: skip
    _bsdnet_train(*map(str, command))
    minutes = (time.monotonic() - began_s) / 60
    learnt_from = json.loads((runs / "run" / "run.json").read_text())["images"]  # the last tenth is for its evaluations
    judged = {"its second half": second, "other drives": others}
    after, mean = runs / "run" / "last.safetensors", runs / "mean.safetensors"
    averaged = average_weights([start, after])
    save_checkpoint(mean, averaged.model, averaged.metadata)
    files = {"before": start, "after": after, "mean of both": mean}
    report = {
        **describe_measurement("python -m benchmarks.adaptation"),
        "weights_sha256": sha256_of(start),
        "split": split,
        "drive": drive,
        "pictures": {"learnt from": learnt_from, **{name: len(part) for name, part in judged.items()}},
        "minutes": round(minutes, 1),
        "rows": {when: {name: _judge(path, part) for name, part in judged.items()} for when, path in files.items()},
    }
    click.echo(as_markdown(report))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


def _bsdnet_train(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "trainer.main", *arguments], check=True)


def _lay_out(part: Part, folder: Path) -> Path:
    """Write the pictures of a part into a folder of their own, without their labels."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index in range(len(part)):
        cv2.imwrite(str(folder / f"{part.name(index)}.png"), part[index][0][..., ::-1])
    return folder


def _judge(path: Path, part: LabelledImages) -> dict[str, object]:
    """Evaluate weights at the size that they are used at, fp32."""
    checkpoint = load_checkpoint(path)
    device, looks = torch.device("cpu"), EvaluationOptions(short_side=min(checkpoint.metadata.train_size))
    matrix = evaluate(place(checkpoint.model, device), part, device, options=looks)
    iou = {name: round(100 * float(value), 1) for name, value in zip(part.classes.names, matrix.iou, strict=True)}
    return {"miou_percent": round(100 * matrix.mean_iou, 2), "iou_percent": iou}


def as_markdown(report: dict[str, Any]) -> str:
    """Write mIoU before, after and of the mean, on what was adapted to and on the rest."""
    found = report["rows"].values()
    rows = [[name, *(fixed(row[name]["miou_percent"]) for row in found)] for name in report["rows"]["before"]]
    return table([report["drive"], *report["rows"]], rows)


if __name__ == "__main__":
    main()
