"""Compare half precision with fp32 on real frames: equal pixels, and the difference in mIoU.

python -m benchmarks.precision camvid --output benchmarks/results/precision-cpu.json
"""

import json
from pathlib import Path

import click
import numpy as np

from bsdnet import Segmenter
from bsdnet.checkpoint import default_weights, sha256_of
from bsdnet.machine import describe_measurement
from bsdnet.metrics import ConfusionMatrix
from trainer.datasets.camvid import CamVid


@click.command()
@click.argument("camvid", type=click.Path(exists=True, path_type=Path))
@click.option("--step", default=5, show_default=True, help="Take every so many pictures of the test split.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(camvid: Path, step: int, output: Path | None) -> None:
    """Compare fp32, bf16 and fp16 with the shipped weights."""
    dataset = CamVid(camvid, "test")
    labels: dict[str, list[np.ndarray]] = {}
    miou = {}
    for precision in ("fp32", "bf16", "fp16"):
        matrix = ConfusionMatrix(len(dataset.classes))
        with Segmenter.load(device="cpu", precision=precision) as segmenter:
            for index in range(0, len(dataset), step):
                rgb, truth = dataset[index]
                labels.setdefault(precision, []).append(segmenter.predict(rgb))
                matrix.update(truth, labels[precision][-1])
        miou[precision] = round(100 * matrix.mean_iou, 3)
    equal = {
        precision: round(100 * float(np.mean(np.stack(labels[precision]) == np.stack(labels["fp32"]))), 3)
        for precision in ("bf16", "fp16")
    }
    report = {
        **describe_measurement("python -m benchmarks.precision"),
        "weights_sha256": sha256_of(default_weights()),
        "images": len(labels["fp32"]),
        "miou_percent": miou,
        "pixels_equal_to_fp32_percent": equal,
    }
    click.echo(json.dumps(report, indent=2))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
