from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bsdnet.checkpoint import load_backbone
from bsdnet.modeling import BSDNetConfig
from bsdnet.modeling.bsdnet import Backbone
from tests.trainer.test_datasets import zipped
from trainer.datasets.imagenet import ZippedImages
from trainer.pretrain import PretrainTask, random_resized_crop
from trainer.recipes import TINY_IMAGENET

TINY = BSDNetConfig(channels=(8, 8, 16, 16), dasp_channels=8, decoder_channels=8)


@pytest.fixture
def images(tmp_path: Path) -> ZippedImages:
    return ZippedImages([zipped(tmp_path / "a.zip", [f"{kind}/{i}.png" for kind in "ab" for i in range(6)], size=64)])


def test_a_whole_view_is_the_picture_or_its_mirror():
    pictures = torch.randn(16, 3, 8, 8)
    seen = random_resized_crop(pictures, 1.0, torch.Generator().manual_seed(0))
    # Area 1 leaves a little zoom through the ratio of the sides; an extreme ratio is clamped to the picture.
    assert seen.shape == pictures.shape
    assert seen.is_contiguous(memory_format=torch.channels_last)
    ramp = torch.arange(8.0).expand(16, 3, 8, 8)
    slopes = random_resized_crop(ramp, 0.3, torch.Generator().manual_seed(0)).diff(dim=3).mean((1, 2, 3))
    assert (slopes > 0).any()
    assert (slopes < 0).any()
    assert (slopes.abs() <= 1.001).all()
    assert slopes.abs().min() < 0.8


def test_batches_depend_on_the_iteration_alone(images: ZippedImages):
    task = PretrainTask(TINY, replace(TINY_IMAGENET, epochs=2, batch_size=4), images, images, torch.device("cpu"))
    whole, rest = list(task.batches(0)), list(task.batches(3))
    assert len(whole) == 6
    for (pictures, classes), (again, classes_again) in zip(whole[3:], rest, strict=True):
        assert torch.equal(pictures, again)
        assert torch.equal(classes, classes_again)
    assert sorted(np.concatenate([classes.numpy() for _, classes in whole[:3]])) == [0] * 6 + [1] * 6


def test_accuracy_counts_right_answers(images: ZippedImages):
    task = PretrainTask(TINY, replace(TINY_IMAGENET, epochs=1, batch_size=8), images, images, torch.device("cpu"))
    task.model.eval()
    with torch.no_grad():
        task.model.linear.weight.zero_()
        task.model.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    assert task.evaluate() == 0.5


def test_the_backbone_is_kept(images: ZippedImages, tmp_path: Path):
    task = PretrainTask(TINY, replace(TINY_IMAGENET, epochs=1, batch_size=8), images, images, torch.device("cpu"))
    task.save_weights(tmp_path / "backbone.safetensors")
    load_backbone(tmp_path / "backbone.safetensors", Backbone(TINY))
