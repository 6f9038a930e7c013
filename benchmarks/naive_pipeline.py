"""Compare a segmenter with the pipeline that everybody writes first, from a frame in memory to the overlaid frame.

    python benchmarks/naive_pipeline.py dashcam.mp4 --output benchmarks/results/naive-pipeline-cpu.json

The naive one: fp32, PyTorch's default memory order, nothing folded, logits enlarged to the frame by `F.interpolate`,
argmax, and an overlay by indexing in numpy. Both take the same frames in turn and see them at the same size, with the
same weights.
"""

import json
import statistics
import time
from itertools import islice
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from bsdnet import CITYSCAPES_19, RenderStyle, Segmenter
from bsdnet.checkpoint import Checkpoint, CheckpointMetadata, default_weights, load_checkpoint
from bsdnet.modeling import bsdnet_b
from bsdnet.runtime.machine import describe_machine
from bsdnet.stream.source import open_source

Image = NDArray[np.uint8]


@click.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Choice(["s", "b"]), default="s", show_default=True, help="b has random weights.")
@click.option("--size", default="1024x512", show_default=True, help="Input size, WIDTHxHEIGHT.")
@click.option("--frames", default=20, show_default=True, help="Frames to time, spread over the video.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(video: Path, model: str, size: str, frames: int, output: Path | None) -> None:
    """Compare a segmenter with a naive pipeline, frame by frame in turn."""
    width, height = (int(side) for side in size.split("x"))
    checkpoint = load_checkpoint(default_weights()) if model == "s" else _random_b()
    pictures = _frames(video, frames)
    naive = Naive(checkpoint, (height, width))
    with Segmenter(checkpoint, size=(height, width), style=RenderStyle(legend=False)) as segmenter:
        naive(pictures[0])
        segmenter.render(pictures[0])
        rows = [_compare(segmenter, naive, rgb) for rgb in pictures]
        throughput_ms = _throughput_ms(segmenter, pictures)
    medians = {name: statistics.median(row[name] for row in rows) for name in ("naive_ms", "ours_ms")}
    result = {
        **{name: round(value, 2) for name, value in medians.items()},
        "ours_in_a_stream_ms": round(throughput_ms, 2),
        "speedup": round(statistics.median(row["naive_ms"] / row["ours_ms"] for row in rows), 2),
        "speedup_in_a_stream": round(medians["naive_ms"] / throughput_ms, 2),
        "equal_labels_percent": round(100 * statistics.mean(row["equal"] for row in rows), 3),
        "equal_labels_percent_worst_frame": round(100 * min(row["equal"] for row in rows), 3),
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        report = {
            "command": f"python {Path(__file__).name} {video.name} --model {model} --size {size} --frames {frames}",
            "machine": describe_machine(),
            "precision": segmenter.precision,
            "backend": segmenter.backend,
            "frame_size": "{1}x{0}".format(*pictures[0].shape),
            "weights": "shipped" if model == "s" else "random",
            **result,
        }
        output.write_text(json.dumps(report, indent=2) + "\n")


class Naive:
    """What one writes on the first day."""

    def __init__(self, checkpoint: Checkpoint, size: tuple[int, int]) -> None:
        self._model = checkpoint.model.eval()
        self._size = size
        self._mean, self._std = np.array(checkpoint.metadata.mean), np.array(checkpoint.metadata.std)
        self._palette = checkpoint.metadata.class_set.palette
        self.labels: Image = np.empty((0, 0), np.uint8)

    @torch.no_grad()
    def __call__(self, rgb: Image) -> Image:
        """Give the overlaid frame, and keep its labels."""
        small = cv2.resize(rgb, self._size[::-1])
        x = (small / 255.0 - self._mean) / self._std
        logits = self._model(torch.from_numpy(x.transpose(2, 0, 1)[None]).float())
        logits = F.interpolate(logits, size=rgb.shape[:2], mode="bilinear", align_corners=False)
        self.labels = logits.argmax(1)[0].numpy().astype(np.uint8)
        return (0.5 * rgb + 0.5 * self._palette[self.labels]).astype(np.uint8)


def _compare(segmenter: Segmenter, naive: Naive, rgb: Image) -> dict[str, float]:
    start = time.perf_counter()
    naive(rgb)
    middle = time.perf_counter()
    segmenter.render(rgb)
    end = time.perf_counter()
    equal = float((segmenter.predict(rgb) == naive.labels).mean())
    return {"naive_ms": 1000 * (middle - start), "ours_ms": 1000 * (end - middle), "equal": equal}


def _throughput_ms(segmenter: Segmenter, pictures: list[Image]) -> float:
    """Milliseconds a frame when the next ones are submitted before the last one is done, as a stream does."""
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        handles = [segmenter.submit(rgb, outputs={"rendered"}) for rgb in pictures]
        handles[-1].result()
        rates.append(1000 * (time.perf_counter() - start) / len(pictures))
    return statistics.median(rates)


def _frames(video: Path, count: int) -> list[Image]:
    with open_source(video) as source:
        step = max(1, (source.info.num_frames or count) // count)
        return [frame.rgb.copy() for frame in islice(source, 0, count * step, step)]


def _random_b() -> Checkpoint:
    torch.manual_seed(0)
    metadata = CheckpointMetadata(architecture="bsdnet_b", class_set=CITYSCAPES_19, train_size=(512, 1024))
    return Checkpoint(model=bsdnet_b().eval(), metadata=metadata)


if __name__ == "__main__":
    main()
