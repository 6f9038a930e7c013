import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bsdnet.checkpoint import load_checkpoint, save_backbone
from bsdnet.classes import CAMVID_11
from bsdnet.errors import CheckpointError, DatasetError
from bsdnet.metrics import ConfusionMatrix
from bsdnet.modeling import BSDNet, BSDNetConfig
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG, TrainingOutput
from tests.trainer.tiny import TINY
from trainer.datasets.camvid import CamVid
from trainer.device import normalize
from trainer.recipes import CAMVID, SegmentationRecipe
from trainer.segmentation import CONFIGS, SegmentationTask, evaluate, format_iou

CPU = torch.device("cpu")
RECIPE = replace(CAMVID, epochs=1, batch_size=2, crop_size=(64, 64), train_size=(96, 128))


class Blank:
    """Pictures without any class, one of which may be broken."""

    classes = CAMVID_11

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index == self.broken:
            raise DatasetError(f"picture {index} cannot be read by process {os.getpid()}")
        return np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8)


class Fixed(torch.nn.Module):
    """Answer the same always; keep what came, and in which precision autocast would have computed."""

    def __init__(self, answer: torch.Tensor | TrainingOutput) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor | TrainingOutput:
        self.seen = x
        self.autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return self.answer


@pytest.fixture
def task(street_camvid: Path) -> SegmentationTask:
    return SegmentationTask(RECIPE, CamVid(street_camvid, "train"), CamVid(street_camvid, "val"), CPU)


def test_the_input_is_normalised_by_the_mean():
    image = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    got = normalize(image, (0.5, 0.25, 0.2), (0.5, 0.25, 0.1))
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 3.0, 0.0]))
    assert got.shape == (1, 3, 1, 1)


def test_batches_are_what_the_network_takes(task: SegmentationTask):
    images, labels = next(iter(task.batches(0)))
    assert images.shape == (2, 3, 64, 64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (2, 64, 64)
    assert labels.dtype == torch.int64


def test_batches_resume_where_they_were_left(task: SegmentationTask):
    whole, rest = list(task.batches(0)), list(task.batches(4))
    assert (len(whole), len(rest)) == (6, 2)
    for (images, labels), (again, labels_again) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_weighted_smoothed_and_leaves_void_pixels_out(street_camvid: Path, smoothing: float):
    dataset = CamVid(street_camvid, "train")
    task = SegmentationTask(replace(RECIPE, label_smoothing=smoothing), dataset, dataset, CPU)
    logits, labels = torch.randn(2, 11, 8, 8), torch.randint(0, 11, (2, 64, 64))
    labels[1, :40] = 255
    task.model = Fixed(TrainingOutput(logits, logits, logits, logits))
    log_p = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False).log_softmax(1)
    weights = 1 / np.log(1.1 + class_shares(dataset))
    total, weight = 0.0, 0.0
    for b, y, x in (labels != 255).nonzero().tolist():
        label = labels[b, y, x]
        total -= (1 - smoothing) * weights[label] * log_p[b, label, y, x].item()
        total -= smoothing / 11 * (log_p[b, :, y, x].numpy() * weights).sum()
        weight += weights[label]
    assert task.loss(torch.zeros(2, 3, 64, 64), labels).item() == pytest.approx(total / weight, rel=1e-4)
    assert task.model.autocast == torch.bfloat16


def test_the_real_network_gives_a_loss_near_that_of_chance(task: SegmentationTask):
    images, labels = next(iter(task.batches(0)))
    assert task.loss(images, labels).item() == pytest.approx(np.log(11), abs=0.1)
    task.model.eval()
    with pytest.raises(TypeError, match="not in training mode"):
        task.loss(images, labels)


def class_shares(dataset: CamVid) -> np.ndarray:
    counts = np.array([[(labels == k).sum() for k in range(11)] for _, labels in map(dataset.__getitem__, range(12))])
    return counts.sum(0) / counts.sum()


def test_rare_classes_weigh_more(street_camvid: Path, task: SegmentationTask):
    dataset = CamVid(street_camvid, "train")
    expected = 1 / np.log(1.1 + class_shares(dataset))
    np.testing.assert_allclose(task._class_weights.numpy(), expected, rtol=1e-5)
    plain = SegmentationTask(replace(RECIPE, class_weight_offset=None), dataset, dataset, CPU)
    assert plain._class_weights is None


def test_a_data_set_without_classes_is_refused():
    with pytest.raises(DatasetError, match="no pixel of the training pictures has a class"):
        SegmentationTask(RECIPE, Blank(), Blank(), CPU)


def test_an_error_in_another_process_is_one_line():
    recipe = replace(RECIPE, class_weight_offset=None)
    for workers in (0, 1):
        with pytest.raises(DatasetError, match=r"^picture 1 cannot be read by process \d+$") as caught:
            list(SegmentationTask(recipe, Blank(broken=1), Blank(), CPU, workers=workers).batches(0))
        assert str(caught.value).endswith(f" {os.getpid()}") == (workers == 0)


def test_a_recipe_names_a_shape(street_camvid: Path, full_sized: dict[str, BSDNetConfig], tmp_path: Path):
    assert full_sized == {"s": S_CONFIG, "b": B_CONFIG}
    dataset = CamVid(street_camvid, "train")
    task = SegmentationTask(replace(RECIPE, model="b", dasp_rates=(1, 3)), dataset, dataset, CPU)
    assert task.model.config == replace(CONFIGS["b"], num_classes=11, dasp_rates=(1, 3))
    task.save_weights(tmp_path / "b.safetensors")
    assert load_checkpoint(tmp_path / "b.safetensors").metadata.architecture == "bsdnet_b"


def test_a_run_is_described_by_recipe_and_data(street_camvid: Path, tmp_path: Path):
    dataset, path = CamVid(street_camvid, "train"), tmp_path / "backbone.safetensors"
    save_backbone(path, BSDNet(TINY).backbone, "bsdnet_s")
    task = SegmentationTask(RECIPE, dataset, dataset, CPU, data={"hold_out": "A"}, pretrained=path)
    described = task.description
    assert (described["hold_out"], described["pretrained"], described["epochs"]) == ("A", "backbone.safetensors", 1)


def test_the_seed_decides_the_first_weights(street_camvid: Path):
    dataset = CamVid(street_camvid, "train")

    def first_kernel(seed: int) -> torch.Tensor:
        model = SegmentationTask(replace(RECIPE, seed=seed), dataset, dataset, CPU).model
        return next(model.parameters())

    assert torch.equal(first_kernel(1), first_kernel(1))
    assert not torch.equal(first_kernel(1), first_kernel(2))


def first_batch(dataset: CamVid, recipe: SegmentationRecipe) -> torch.Tensor:
    return next(iter(SegmentationTask(recipe, dataset, dataset, CPU).batches(0)))[0]


def test_the_seed_decides_order_and_augmentation(street_camvid: Path):
    dataset, other = CamVid(street_camvid, "train"), replace(RECIPE, seed=1)
    still = {"scale_range": (1, 1), "flip_probability": 0, "color_jitter": 0, "crop_size": (96, 128)}
    ordered, reordered = (first_batch(dataset, replace(recipe, **still)) for recipe in (RECIPE, other))
    assert not torch.equal(ordered, reordered)
    one = CamVid(street_camvid, "val")
    one._pairs = one._pairs[:1]
    (first, second), (third, _) = (first_batch(one, replace(recipe, epochs=2)) for recipe in (RECIPE, other))
    assert not torch.equal(first, second)  # one picture, seen in two ways
    assert not torch.equal(first, third)


def test_a_pretrained_backbone_is_taken_over(street_camvid: Path, tmp_path: Path):
    dataset, path = CamVid(street_camvid, "train"), tmp_path / "backbone.safetensors"
    source = BSDNet(TINY).backbone
    save_backbone(path, source, "bsdnet_s")
    model = SegmentationTask(RECIPE, dataset, dataset, CPU, pretrained=path).model
    kernel = source.stem[0][0].weight
    torch.testing.assert_close(model.backbone.stem[0][0].weight, kernel.half().float(), rtol=0, atol=0)
    save_backbone(path, BSDNet(replace(TINY, kernel_size=5)).backbone, "bsdnet_s")
    with pytest.raises(CheckpointError, match="another shape"):
        SegmentationTask(RECIPE, dataset, dataset, CPU, pretrained=path)


class Oracle(torch.nn.Module):
    """Answer with the labels of the picture whose turn it is."""

    def __init__(self, dataset: CamVid) -> None:
        super().__init__()
        self.dataset, self.turn = dataset, -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.turn += 1
        labels = torch.from_numpy(self.dataset[self.turn][1]).long()
        labels[labels == 255] = 0
        return F.one_hot(labels, 11).permute(2, 0, 1)[None].float()


def test_a_run_is_judged_by_the_validation_pictures(
    street_camvid: Path, task: SegmentationTask, caplog: pytest.LogCaptureFixture
):
    dataset = CamVid(street_camvid, "val")
    task.model = Oracle(dataset)
    with caplog.at_level(logging.INFO):
        assert task.evaluate() == 1.0
    assert task.model.turn == 2
    assert caplog.messages[0].split()[:4] == ["mIoU", "100.0", "sky", "100.0"]
    matrix = evaluate(Oracle(dataset), dataset, CPU)
    assert matrix.counts.sum() == sum((dataset[i][1] != 255).sum() for i in range(3))


def test_a_judgement_without_any_class_is_zero():
    task = SegmentationTask(replace(RECIPE, class_weight_offset=None), Blank(), Blank(), CPU)
    task.model.eval()
    assert task.evaluate() == 0.0


def test_evaluation_enlarges_the_logits_of_a_normalised_picture(street_camvid: Path):
    dataset, logits = CamVid(street_camvid, "val"), torch.randn(1, 11, 12, 16)
    model, mean, std = Fixed(logits), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    matrix = evaluate(model, dataset, CPU, mean=mean, std=std)
    found = F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    expected = ConfusionMatrix(11)
    for index in range(3):
        expected.update(dataset[index][1], found)
    np.testing.assert_array_equal(matrix.counts, expected.counts)
    assert model.autocast is None
    torch.testing.assert_close(model.seen, normalize(torch.from_numpy(dataset[2][0])[None], mean, std))
    evaluate(model, dataset, CPU, precision="bf16")
    assert model.autocast == torch.bfloat16


def test_the_weights_say_what_they_are(task: SegmentationTask, tmp_path: Path):
    task.save_weights(tmp_path / "net.safetensors")
    metadata = load_checkpoint(tmp_path / "net.safetensors").metadata
    assert metadata.class_set.name == "camvid-11"
    assert (metadata.architecture, metadata.train_size) == ("bsdnet_s", (96, 128))


def test_the_table_names_every_class(street_camvid: Path):
    matrix = ConfusionMatrix(11)
    matrix.update(np.array([0, 1, 1]), np.array([0, 1, 0]))
    lines = format_iou(matrix, CamVid(street_camvid, "val").classes).splitlines()
    assert [line.split() for line in lines[:3]] == [["mIoU", "50.0"], ["sky", "50.0"], ["building", "50.0"]]
    assert len(lines) == 12
