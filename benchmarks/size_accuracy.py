"""Measure how accurate the shipped weights are at each input size that `--target-fps` steps through, and above.

python -m benchmarks.size_accuracy camvid --output benchmarks/results/size-accuracy.json
"""

import json
from pathlib import Path

import click

from bsdnet import Segmenter
from bsdnet.checkpoint import default_weights, sha256_of
from bsdnet.machine import describe_measurement
from bsdnet.metrics import ConfusionMatrix
from bsdnet.runtime.adaptive import size_ladder
from trainer.datasets.camvid import CamVid

SIZES = ((800, 1088), (672, 896), *size_ladder((544, 736)))
"""Heights and widths: 3/2 and 5/4 of the weights' own, then what `--target-fps` takes for pictures of their shape."""


@click.command()
@click.argument("camvid", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(camvid: Path, output: Path | None) -> None:
    """Evaluate on CamVid's validation pictures, whole, in bf16, labels at the pictures' own size."""
    dataset = CamVid(camvid, "val")
    report = {
        **describe_measurement("python -m benchmarks.size_accuracy"),
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
