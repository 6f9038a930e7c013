from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bsdnet.checkpoint import load_backbone
from bsdnet.modeling.bsdnet import Backbone
from tests.trainer.test_datasets import zipped
from tests.trainer.tiny import TINY
from trainer.datasets.imagenet import ZippedImages
from trainer.pretrain import Classifier, PretrainTask, random_resized_crop
from trainer.recipes import TINY_IMAGENET

CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path: Path) -> ZippedImages:
    return ZippedImages([zipped(tmp_path / "a.zip", [f"{kind}/{i}.png" for kind in "ab" for i in range(6)], size=64)])


def views(min_area: float, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop a picture of its own coordinates: x and y of each pixel that is seen, `(B, 64)` along each axis."""
    x = torch.arange(64.0).expand(64, 64)
    pictures = torch.stack([x, x.T, torch.ones(64, 64)]).expand(count, 3, 64, 64)
    seen = random_resized_crop(pictures, min_area, torch.Generator().manual_seed(0))
    assert seen.shape == pictures.shape
    assert seen.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[:, 2], torch.ones(count, 64, 64))  # nothing from beyond the edge
    return seen[:, 0, 32], seen[:, 1, :, 32]


def test_a_whole_view_keeps_at_least_one_axis_as_it_is():
    x, y = views(1.0)  # the ratio of the sides varies, and no side is longer than the picture's
    pixels = torch.arange(64.0)
    same = [torch.isclose(axis, pixels, atol=1e-3).all(1) for axis in (x, x.flip(1), y)]
    assert ((same[0] | same[1]) | same[2]).all()
    assert all(0.2 < part.float().mean() < 0.8 for part in same)


def test_a_view_has_its_part_of_the_area_and_lies_anywhere():
    x, y = views(0.35)
    width, height = (axis[:, 16:48].diff(dim=1).mean(1) for axis in (x, y))  # 1 shows the whole side
    assert 0.4 < (width < 0).float().mean() < 0.6
    assert (height > 0).all()
    area, ratio = width.abs() * height, width.abs() / height
    assert 0.33 < area.min() < 0.4
    assert 0.9 < area.max() <= 1.001
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.35
    for axis, side in ((x, width.abs()), (y, height)):
        center = axis[:, 31:33].mean(1)
        assert ((center - 31.5).abs() <= 32 * (1 - side) + 0.01).all()
        assert center.min() < 26
        assert center.max() > 37


def test_batches_depend_on_the_iteration_alone(images: ZippedImages):
    task = PretrainTask(TINY, replace(TINY_IMAGENET, epochs=2, batch_size=4), images, images, CPU)
    whole, rest = list(task.batches(0)), list(task.batches(3))
    assert len(whole) == 6
    for (pictures, classes), (again, classes_again) in zip(whole[3:], rest, strict=True):
        assert torch.equal(pictures, again)
        assert torch.equal(classes, classes_again)
    assert sorted(np.concatenate([classes.numpy() for _, classes in whole[:3]])) == [0] * 6 + [1] * 6


def test_each_iteration_and_each_seed_crops_in_its_own_way(images: ZippedImages):
    images.images[:] = np.arange(64, dtype=np.uint8)[None, :, None, None]  # all alike: order plays no part
    batches = []
    for seed in (0, 1):
        recipe = replace(TINY_IMAGENET, epochs=2, batch_size=6, seed=seed)
        batches += [pictures for pictures, _ in PretrainTask(TINY, recipe, images, images, CPU).batches(0)]
    assert len({pictures.numpy().tobytes() for pictures in batches}) == 8


def test_the_loss_is_smoothed(images: ZippedImages):
    recipe = replace(TINY_IMAGENET, epochs=1, batch_size=8, label_smoothing=0.3)
    task = PretrainTask(TINY, recipe, images, images, CPU)
    pictures, classes = next(iter(task.batches(0)))
    with torch.no_grad():
        task.model.linear.weight.zero_()
        task.model.linear.bias.copy_(torch.tensor([0.0, 2.0]))
    log_p = torch.tensor([0.0, 2.0]).log_softmax(0)
    expected = -0.7 * log_p[classes].mean() - 0.3 * log_p.mean()
    assert task.loss(pictures, classes).item() == pytest.approx(expected.item(), rel=1e-2)  # bf16


def test_the_classifier_averages_over_space():
    model = Classifier(TINY, 5).eval()
    x = torch.randn(2, 3, 64, 96)
    expected = model.linear(model.backbone(x).stage4.flatten(2).mean(2))
    torch.testing.assert_close(model(x), expected)


def test_accuracy_counts_right_answers(images: ZippedImages):
    task = PretrainTask(TINY, replace(TINY_IMAGENET, epochs=1, batch_size=8), images, images, CPU)
    task.model.eval()
    with torch.no_grad():
        task.model.linear.weight.zero_()
        task.model.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    assert task.evaluate() == 0.5


def test_the_backbone_is_kept(images: ZippedImages, tmp_path: Path):
    task = PretrainTask(TINY, replace(TINY_IMAGENET, epochs=1, batch_size=8), images, images, CPU)
    task.save_weights(tmp_path / "backbone.safetensors")
    load_backbone(tmp_path / "backbone.safetensors", Backbone(TINY))
