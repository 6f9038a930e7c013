"""What --smooth does to a video."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from bsdnet.checkpoint import CheckpointMetadata, save_checkpoint
from bsdnet.classes import CAMVID_11
from bsdnet.demo_scene import DemoScene
from bsdnet.modeling import BSDNet
from tests.cli.conftest import CONFIG, run_main

RunOnStreet = Callable[..., tuple[np.ndarray, str]]


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network, drawn at random, that sees many classes and changes its mind."""
    torch.manual_seed(0)
    model = BSDNet(CONFIG)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(4, 3, 64, 96))
    path = tmp_path_factory.mktemp("weights") / "undecided.safetensors"
    metadata = CheckpointMetadata(architecture="bsdnet_s", class_set=CAMVID_11, train_size=(128, 192))
    save_checkpoint(path, model.eval(), metadata)
    return path


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street")
    scene = DemoScene(size=(96, 144), num_frames=100)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), scene.frame(index)[0][:, :, ::-1])
    return folder


@pytest.fixture
def run_on_street(undecided: Path, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOnStreet:
    monkeypatch.setattr("cli.terminal.LINE_EVERY_S", 3600.0)

    def run_on_street(*options: object) -> tuple[np.ndarray, str]:
        folder = tmp_path / f"masks {len(list(tmp_path.iterdir()))}"
        result = run_main(street, "--weights", undecided, "--device", "cpu", "--masks", folder, *options)
        assert (result.exit_code, result.stderr) == (0, "")
        masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*.png"))]
        return np.stack(masks), result.summary["network"]

    return run_on_street


def changes(labels: np.ndarray) -> float:
    return float((labels[1:] != labels[:-1]).mean())


def test_smooth_steadies_the_classes_and_is_off_by_default(run_on_street: RunOnStreet):
    default, off, on = (run_on_street(*options)[0] for options in ([], ["--no-smooth"], ["--smooth"]))
    assert np.array_equal(default, off)
    assert np.array_equal(on[0], off[0])
    assert changes(on) < 0.8 * changes(off)


def test_smooth_goes_with_a_target_rate(run_on_street: RunOnStreet):
    smoothed, _ = run_on_street("--smooth")
    both, network = run_on_street("--smooth", "--target-fps", 0.1)  # the size never changes
    assert np.array_equal(both, smoothed)
    assert "192x128 (6 frames)" in network


def test_frames_that_are_a_second_apart_are_not_averaged(run_on_street: RunOnStreet):
    assert np.array_equal(run_on_street("--smooth", "--fps", 1)[0], run_on_street("--fps", 1)[0])
