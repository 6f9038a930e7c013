"""Measure how steady labels are over time, how right they are, and what smoothing costs, on consecutive CamVid frames.

python -m benchmarks.temporal_consistency camvid --output benchmarks/results/temporal-consistency.json

The network runs once over the 101 validation frames (15 Hz, one drive); then every scheme averages the same logits.
Schemes were chosen by the first 50 frames; the last 51 are for the report. Each half begins anew.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bsdnet import Segmenter
from bsdnet.checkpoint import default_weights, load_checkpoint, sha256_of
from bsdnet.machine import describe_measurement
from bsdnet.metrics import ConfusionMatrix
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.backends import Network, select_precision
from bsdnet.runtime.postprocess import LabelUpsampler
from bsdnet.runtime.preprocess import Preprocessor
from bsdnet.runtime.smoothing import KEEP, TOLERANCE, Smoother, blend, luma_of, make_guide
from trainer.datasets.camvid import CamVid

Flow = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]
Labels = NDArray[np.uint8]
Guide = Callable[[Picture, Picture], torch.Tensor]

INPUT = (544, 736)
CELLS = (68, 92)
TUNING, REPORT = slice(0, 50), slice(50, 101)
NOWHERE = np.zeros((*CELLS, 2), np.float32)
BT709 = YuvEncoding(matrix="bt709", full_range=False)


# What is measured


class Motion:
    """Where each pixel of a frame was in the frame before, at full size, and where that can be told."""

    def __init__(self, frames: Sequence[Picture], flow: Flow) -> None:
        greys = [np.asarray(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames]
        self._maps = [self._between(now, before, flow) for before, now in pairwise(greys)]

    def _between(
        self, now: NDArray[np.uint8], before: NDArray[np.uint8], flow: Flow
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        back, forth = flow(now, before), flow(before, now)
        x = np.asarray(np.arange(now.shape[1]) + back[..., 0], np.float32)
        y = np.asarray(np.arange(now.shape[0])[:, None] + back[..., 1], np.float32)
        returned = np.asarray(cv2.remap(forth, x, y, cv2.INTER_LINEAR), np.float32)
        # Occlusion check of Sundaram et al. (ECCV 2010), eq. 5.
        gap = np.square(back + returned).sum(-1)
        seen = gap < 0.01 * (np.square(back).sum(-1) + np.square(returned).sum(-1)) + 0.5
        seen &= (x >= 0) & (y >= 0) & (x <= now.shape[1] - 1) & (y <= now.shape[0] - 1)
        return x, y, seen

    def consistency(self, labels: Sequence[Labels], start: int) -> float:
        """Mean over the frames of the mIoU between labels and the warped labels of the frame before, in per cent.

        As of Liu et al., "Efficient Semantic Video Segmentation with Per-frame Inference", ECCV 2020; occlusions and
        pixels without a class are left out. `labels` begin at frame `start`.
        """
        scores = []
        for index, (before, now) in enumerate(pairwise(labels), start):
            x, y, seen = self._maps[index]
            warped = cv2.remap(before, x, y, cv2.INTER_NEAREST)
            matrix = ConfusionMatrix(11)
            matrix.update(np.where(seen & (now < 11), warped, 255), np.minimum(now, 10))
            scores.append(matrix.mean_iou)
        return 100 * fmean(scores)


def flicker(labels: Sequence[Labels]) -> float:
    """Per cent of the pixels that change their label and have it back in the next frame."""
    triples = zip(labels, labels[1:], labels[2:], strict=False)
    return 100 * fmean(float(np.mean((first == third) & (first != second))) for first, second, third in triples)


def score(labels: Sequence[Labels], truth: Sequence[Labels], motions: dict[str, Motion], start: int) -> dict[str, Any]:
    """All figures of one scheme on one half."""
    matrix = ConfusionMatrix(11)
    for true, found in zip(truth, labels, strict=True):
        matrix.update(true, np.minimum(found, 10))
    return {
        "miou": round(100 * matrix.mean_iou, 2),
        **{f"consistency_{name}": round(motion.consistency(labels, start), 2) for name, motion in motions.items()},
        "flicker": round(flicker(labels), 3),
        "iou": [round(100 * float(iou), 1) for iou in matrix.iou],
    }


# The schemes


def still(frame: Picture, before: Picture, *, keep: float, tolerance: float) -> torch.Tensor:
    """Average what is at the same place; `tolerance` infinite: whatever the lumas say."""
    guide = make_guide(luma_of(frame, CELLS), luma_of(before, CELLS), NOWHERE, tolerance)
    guide[..., 2] *= keep
    return torch.from_numpy(guide)


def average(frames: Sequence[Picture], logits: Sequence[torch.Tensor], guide: Guide) -> list[torch.Tensor]:
    """Run a scheme without its own state over frames."""
    smoothed = [logits[0]]
    for (before, frame), now in zip(pairwise(frames), logits[1:], strict=True):
        smoothed.append(blend(now, smoothed[-1], guide(frame, before)))
    return smoothed


def product(
    frames: Sequence[Picture], logits: Sequence[torch.Tensor], *, keep: float = KEEP, tolerance: float = TOLERANCE
) -> list[torch.Tensor]:
    """Run the scheme that `bsdnet-run --smooth` has."""
    smoother = Smoother(keep=keep, tolerance=tolerance)
    return [_take(smoother, frame, now) for frame, now in zip(frames, logits, strict=True)]


def _take(smoother: Smoother, frame: Picture, logits: torch.Tensor) -> torch.Tensor:
    turn = smoother.turn(frame, INPUT)
    return turn.average(logits, None if turn.guide is None else torch.from_numpy(turn.guide))


SCHEMES: dict[str, Callable[[Sequence[Picture], Sequence[torch.Tensor]], list[torch.Tensor]]] = {
    "off": lambda frames, logits: list(logits),
    **{
        f"average, keep {keep}": partial(average, guide=partial(still, keep=keep, tolerance=np.inf))
        for keep in (0.3, 0.5)
    },
    **{
        f"average where the luma agrees, keep {keep}": partial(average, guide=partial(still, keep=keep, tolerance=0.15))
        for keep in (0.5, 0.65)
    },
    **{
        f"along the motion, keep {keep}, tolerance {tolerance}": partial(product, keep=keep, tolerance=tolerance)
        for keep in (0.4, 0.5, 0.6, 0.7)
        for tolerance in (0.1, 0.15, 0.2)
    },
}


# The cost and the cuts


def agreements(pairs: Sequence[tuple[Picture, Picture]]) -> dict[str, Any]:
    """How well lumas agree after warping: what tells cuts from motion."""
    flow = dis_flow(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, finest_scale=0)  # as `Smoother` has it
    means = []
    for before, frame in pairs:
        luma, luma_before = luma_of(frame, CELLS), luma_of(before, CELLS)
        guide = make_guide(luma, luma_before, flow(luma, luma_before), TOLERANCE)
        means.append(float(guide[..., 2].mean()))
    return {"pairs": len(means), **{name: round(f(means), 3) for name, f in (("min", min), ("max", max))}}


def cost(size: tuple[int, int], *, yuv: bool, rounds: int) -> dict[str, Any]:
    """Milliseconds of a frame with and without smoothing, interleaved, one frame at a time."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 40, 3), dtype=np.uint8)
    wide = np.asarray(cv2.resize(coarse, (size[1] * 2, size[0]), interpolation=cv2.INTER_CUBIC), np.uint8)
    frames = []
    for index in range(8):
        rgb = wide[:, 8 * index : 8 * index + size[1]].copy()
        planes = (rgb[..., 0].copy(), rgb[::2, ::2, 1].copy(), rgb[::2, ::2, 2].copy())
        frames.append(Picture(planes=planes, encoding=BT709) if yuv else Picture(planes=(rgb,)))
    times_s: dict[str, list[float]] = {"alone": [], "smoothed": [], "turn": [], "average": []}
    with Segmenter.load(device="cpu", size=(544, 960)) as segmenter:
        smoother, apart = Smoother(), Smoother()
        logits = torch.zeros(1, 11, 68, 120)
        for index in range(rounds):
            frame = frames[index % 8]
            for kind, used in (("alone", None), ("smoothed", smoother)):
                begin = time.perf_counter()
                segmenter.submit(frame, smoother=used).result()
                times_s[kind].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            turn = apart.turn(frame, (544, 960))
            times_s["turn"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            turn.average(logits, None if turn.guide is None else torch.from_numpy(turn.guide))
            times_s["average"].append(time.perf_counter() - begin)
    result = {f"{kind}_ms": round(1000 * median(times[8:]), 2) for kind, times in times_s.items()}
    ratios = [b / a for a, b in zip(times_s["alone"][8:], times_s["smoothed"][8:], strict=True)]
    own = result["turn_ms"] + result["average_ms"]
    return {**result, "ratio": round(median(ratios), 3), "own_share_percent": round(100 * own / result["alone_ms"], 1)}


@click.command()
@click.argument("camvid", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=1, show_default=True, help="Threads of the network and of OpenCV.")
@click.option("--rounds", default=60, show_default=True, help="Frames to time.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(camvid: Path, threads: int, rounds: int, output: Path | None) -> None:
    """Compare schemes of smoothing with the shipped weights."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    dataset = CamVid(camvid, "val")
    pairs = [dataset[index] for index in range(len(dataset))]
    frames = [Picture(planes=(np.ascontiguousarray(rgb),)) for rgb, _ in pairs]
    truth = [labels for _, labels in pairs]
    with torch.inference_mode():
        logits = infer(frames)
        motions = {
            "dis": Motion(frames, dis_flow(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)),
            "farneback": Motion(frames, farneback),
        }
        halves = {"tuning": TUNING, "report": REPORT}
        scores = {name: judge(scheme, frames, logits, truth, motions, halves) for name, scheme in SCHEMES.items()}
        fifth = {"all of 5 Hz": slice(None)}
        slow = {
            name: judge(SCHEMES[name], frames[::3], logits[::3], truth[::3], {}, fifth)["all of 5 Hz"]
            for name in ("off", f"along the motion, keep {KEEP}, tolerance {TOLERANCE}")
        }
    scores["the true labels"] = {
        half: score(truth[part], truth[part], motions, part.start) for half, part in halves.items()
    }
    test = CamVid(camvid, "test")
    rng = np.random.default_rng(0)
    others = [Picture(planes=(np.ascontiguousarray(test[int(index)][0]),)) for index in rng.integers(0, len(test), 100)]
    report = {
        **describe_measurement("python -m benchmarks.temporal_consistency"),
        "weights_sha256": sha256_of(default_weights()),
        "classes": list(dataset.classes.names),
        "schemes": scores,
        "schemes_at_5_hz": slow,
        "agreement": {
            "15 Hz": agreements(list(pairwise(frames))),
            "5 Hz": agreements(list(zip(frames, frames[3:], strict=False))),
            "1 Hz": agreements(list(zip(frames, frames[15:], strict=False))),
            "cuts to other drives": agreements([(frame, other) for frame in frames[::10] for other in others]),
        },
        "cost_at_960x544": {
            "640x360 yuv420p": cost((360, 640), yuv=True, rounds=rounds),
            "640x360 rgb": cost((360, 640), yuv=False, rounds=rounds),
            "1920x1080 yuv420p": cost((1080, 1920), yuv=True, rounds=rounds),
            "1920x1080 rgb": cost((1080, 1920), yuv=False, rounds=rounds),
        },
    }
    click.echo(json.dumps(report, indent=2))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


def dis_flow(preset: int, *, finest_scale: int | None = None) -> Flow:
    """Dense inverse search; the scale is the preset's unless it is given."""
    dis = cv2.DISOpticalFlow.create(preset)
    if finest_scale is not None:
        dis.setFinestScale(finest_scale)
    return lambda now, before: np.asarray(dis.calc(now, before, np.zeros((*now.shape, 2), np.float32)), np.float32)


def farneback(now: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Dense flow by another method than the smoother's own."""
    flow = cv2.calcOpticalFlowFarneback(now, before, np.empty((*now.shape, 2), np.float32), 0.5, 5, 15, 3, 5, 1.1, 0)
    return np.asarray(flow, np.float32)


def infer(frames: Sequence[Picture]) -> list[torch.Tensor]:
    """Run the shipped network over frames: logits `(1, 11, 44, 60)` float32."""
    checkpoint = load_checkpoint(default_weights())
    device = torch.device("cpu")
    network = Network(checkpoint.model, device, select_precision("auto", device), "eager")
    metadata = checkpoint.metadata
    preprocessor = Preprocessor(metadata.mean, metadata.std, device, network.dtype)
    return [network(preprocessor.from_picture(frame, INPUT)).float().contiguous() for frame in frames]


def judge(
    scheme: Callable[[Sequence[Picture], Sequence[torch.Tensor]], list[torch.Tensor]],
    frames: Sequence[Picture],
    logits: Sequence[torch.Tensor],
    truth: Sequence[Labels],
    motions: dict[str, Motion],
    halves: dict[str, slice],
) -> dict[str, Any]:
    """Score a scheme on both halves, each beginning anew."""
    upsample = LabelUpsampler(CELLS, frames[0].size)
    results = {}
    for half, part in halves.items():
        smoothed = scheme(frames[part], logits[part])
        labels = [upsample(np.ascontiguousarray(one[0].numpy())) for one in smoothed]
        results[half] = score(labels, truth[part], motions, part.start)
    return results


if __name__ == "__main__":
    main()
