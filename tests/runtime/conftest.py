from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bsdnet.checkpoint import CheckpointMetadata, save_checkpoint
from bsdnet.classes import CAMVID_11
from bsdnet.modeling import BSDNet, BSDNetConfig

TINY = BSDNetConfig(
    num_classes=11,
    channels=(8, 16, 16, 16),
    depths=(1, 1, 1),
    fcbs=(1, 1),
    num_kernels=8,
    groups=2,
    dasp_channels=8,
    decoder_channels=8,
)


def smooth_frame(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Blobs of colour, as a street has them: neighbouring pixels belong together."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with CamVid's classes, drawn at random, whose batch norms know what they normalise."""
    torch.manual_seed(0)
    model = BSDNet(TINY)
    frames = np.stack([smooth_frame((96, 128), seed) for seed in range(8)])
    x = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        for _ in range(40):  # otherwise one class wins everywhere
            model(x)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    metadata = CheckpointMetadata(
        architecture="bsdnet_s",
        class_set=CAMVID_11,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        train_size=(96, 128),
    )
    save_checkpoint(path, model.eval(), metadata)
    return path


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    return smooth_frame((180, 320), seed=100)
