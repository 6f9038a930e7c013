"""Compare a segmenter with the pipeline that everybody writes first, from a frame in memory to the overlaid frame.

    python -m benchmarks.naive_pipeline dashcam.mp4 --output benchmarks/results/naive-pipeline-cpu.json

The naive one: fp32, PyTorch's default memory order, nothing folded, logits enlarged to the frame by `F.interpolate`,
argmax, and an overlay by indexing in numpy. Both take the same frames in turn and see them at the same size, with the
same weights.
"""

import json
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from bsdnet import RenderStyle, Segmenter
from bsdnet.checkpoint import Checkpoint, default_weights, load_checkpoint
from bsdnet.machine import describe_measurement
from bsdnet.stream.source import open_source

Image = NDArray[np.uint8]
_TURN = 10  # frames that one pipeline has before the other one has them


@click.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=click.Choice(["s", "b"]), default="s", show_default=True, help="Shipped weights.")
@click.option("--size", default="1024x512", show_default=True, help="Input size, WIDTHxHEIGHT.")
@click.option("--frames", default=20, show_default=True, help="Frames to time, spread over the video.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(video: Path, model: str, size: str, frames: int, output: Path | None) -> None:
    """Compare a segmenter with a naive pipeline, in turn."""
    width, height = (int(side) for side in size.split("x"))
    checkpoint = load_checkpoint(default_weights(model))
    pictures = _frames(video, frames)
    naive = Naive(checkpoint, (height, width))
    times: dict[str, list[float]] = {"naive": [], "ours": [], "ours in a stream": []}
    with Segmenter(checkpoint, size=(height, width), style=RenderStyle(legend=False)) as segmenter:
        equal = [_equal(segmenter, naive, rgb) for rgb in pictures]
        for start in range(0, len(pictures), _TURN):
            turn = pictures[start : start + _TURN]
            times["naive"] += _one_by_one(naive, turn)
            times["ours"] += _one_by_one(segmenter.render, turn)
            times["ours in a stream"].append(_in_a_stream(segmenter, turn))
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        **{f"{name.replace(' ', '_')}_ms": round(1000 * value, 2) for name, value in medians.items()},
        "speedup": round(medians["naive"] / medians["ours"], 2),
        "speedup_in_a_stream": round(medians["naive"] / medians["ours in a stream"], 2),
        "equal_labels_percent": round(100 * statistics.mean(equal), 3),
        "equal_labels_percent_worst_frame": round(100 * min(equal), 3),
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        report = {
            **describe_measurement("python -m benchmarks.naive_pipeline"),
            "precision": segmenter.precision,
            "backend": segmenter.backend,
            "frame_size": "{1}x{0}".format(*pictures[0].shape),
            "weights": "shipped",
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


def _equal(segmenter: Segmenter, naive: Naive, rgb: Image) -> float:
    naive(rgb)
    return float((segmenter.predict(rgb) == naive.labels).mean())


def _one_by_one(run: Callable[[Image], Image], pictures: list[Image]) -> list[float]:
    """Seconds for each frame; one before is not counted, since the threads of the other pipeline still spin then."""
    run(pictures[0])
    times = []
    for rgb in pictures:
        start = time.perf_counter()
        run(rgb)
        times.append(time.perf_counter() - start)
    return times


def _in_a_stream(segmenter: Segmenter, pictures: list[Image]) -> float:
    """Seconds a frame when the next ones are submitted before the last one is done, as a stream does."""
    start = time.perf_counter()
    handles = [segmenter.submit(rgb, outputs={"rendered"}) for rgb in pictures]
    handles[-1].result()
    return (time.perf_counter() - start) / len(pictures)


def _frames(video: Path, count: int) -> list[Image]:
    with open_source(video) as source:
        step = max(1, (source.info.num_frames or count) // count)
        return [frame.rgb.copy() for frame in islice(source, 0, count * step, step)]


if __name__ == "__main__":
    main()
