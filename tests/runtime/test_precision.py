"""The shipped weights in half precision against fp32, and labels against their definition, on real frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bsdnet import CheckpointError, Segmenter
from bsdnet.checkpoint import default_weights, load_checkpoint
from bsdnet.metrics import ConfusionMatrix
from bsdnet.runtime.postprocess import LabelUpsampler

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return default_weights("s")
    except CheckpointError as error:
        pytest.skip(str(error))


def pairs(data_dir, step):
    """Frames and labels of CamVid's test split, every `step`-th."""
    for path in sorted((data_dir / "camvid" / "test").glob("*.jpg"))[::step]:
        labels = cv2.imread(str(data_dir / "camvid" / "testannot" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), labels


@pytest.mark.parametrize(("precision", "step", "floor"), [("bf16", 3, 0.990), ("fp16", 20, 0.995)])
def test_half_precision_agrees_with_fp32(weights, data_dir, precision, step, floor):
    full = Segmenter.load(weights, device="cpu", precision="fp32")
    half = Segmenter.load(weights, device="cpu", precision=precision)
    scores = {"full": ConfusionMatrix(11), "half": ConfusionMatrix(11)}
    equal = []
    with full, half:
        for rgb, truth in pairs(data_dir, step):
            by_full, by_half = full.predict(rgb), half.predict(rgb)
            equal.append((by_full == by_half).mean())
            scores["full"].update(truth, by_full)
            scores["half"].update(truth, by_half)
    assert np.mean(equal) >= floor
    assert abs(scores["full"].mean_iou - scores["half"].mean_iou) <= 0.001


@pytest.mark.parametrize(("precision", "floor"), [("bf16", 0.990), ("fp16", 0.995)])
def test_the_big_network_agrees_as_well(data_dir, precision, floor):
    """Few frames: where a CPU imitates the format, each takes seconds."""
    with (
        Segmenter.load("b", device="cpu", precision="fp32") as full,
        Segmenter.load("b", device="cpu", precision=precision) as half,
    ):
        assert full.architecture == "bsdnet_b"
        equal = [(full.predict(rgb) == half.predict(rgb)).mean() for rgb, _ in pairs(data_dir, 80)]
    assert np.mean(equal) >= floor


@pytest.mark.parametrize("frame_size", [(540, 960), (720, 1280), (1080, 1920)])
def test_labels_agree_with_their_definition(weights, data_dir, frame_size):
    checkpoint = load_checkpoint(weights)
    mean, std = (torch.tensor(value) for value in (checkpoint.metadata.mean, checkpoint.metadata.std))
    for rgb, _ in pairs(data_dir, 60):
        x = ((torch.from_numpy(cv2.resize(rgb, (640, 352))) / 255 - mean) / std).permute(2, 0, 1)[None]
        with torch.inference_mode():
            logits = checkpoint.model(x)
            expected = F.interpolate(logits, size=frame_size, mode="bilinear", align_corners=False)[0].argmax(0)
        labels = LabelUpsampler((44, 80), frame_size)(logits[0].numpy())
        assert (labels == expected.numpy()).mean() >= 0.999
