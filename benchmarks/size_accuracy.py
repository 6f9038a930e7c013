"""Measure how accurate the shipped weights are at each input size that `--target-fps` steps through, and above.

python benchmarks/size_accuracy.py camvid --output benchmarks/results/size-accuracy.json
"""

import json
from pathlib import Path

import click

from bsdnet import Segmenter
from bsdnet.checkpoint import default_weights, sha256_of
from bsdnet.machine import describe_machine
from bsdnet.metrics import ConfusionMatrix
from trainer.datasets.camvid import CamVid

SIZES = ((800, 1088), (672, 896), (544, 736), (480, 640), (416, 544), (352, 448), (256, 352))
"""Heights and widths: 3/2, 5/4, 1, 7/8, 3/4, 5/8 and 1/2 of the sides of 720x540, by multiples of 32."""


@click.command()
@click.argument("camvid", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(camvid: Path, output: Path | None) -> None:
    """Evaluate on CamVid's validation pictures, whole, in bf16, labels at the pictures' own size."""
    dataset = CamVid(camvid, "val")
    report = {
        "command": "python benchmarks/size_accuracy.py camvid",
        "machine": describe_machine(),
        "weights_sha256": sha256_of(default_weights()),
        "images": len(dataset),
        "rows": [_row(dataset, size) for size in SIZES],
    }
    click.echo(json.dumps(report, indent=2))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


def _row(dataset: CamVid, size: tuple[int, int]) -> dict[str, object]:
    matrix = ConfusionMatrix(len(dataset.classes))
    with Segmenter.load(device="cpu", precision="bf16", size=size) as segmenter:
        for index in range(len(dataset)):
            rgb, truth = dataset[index]
            matrix.update(truth, segmenter.predict(rgb))
    iou = {name: round(100 * float(value), 2) for name, value in zip(dataset.classes.names, matrix.iou, strict=True)}
    return {"size": f"{size[1]}x{size[0]}", "miou_percent": round(100 * matrix.mean_iou, 2), "iou_percent": iou}


if __name__ == "__main__":
    main()
