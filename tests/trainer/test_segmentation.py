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
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG
from tests.trainer.tiny import TINY
from trainer.datasets.camvid import CamVid
from trainer.device import normalize
from trainer.recipes import CAMVID
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
            raise DatasetError(f"picture {index} cannot be read")
        return np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8)


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


def test_the_loss_leaves_void_pixels_out(task: SegmentationTask):
    images = torch.randn(2, 3, 64, 64)
    labels = torch.randint(0, 11, (2, 64, 64))
    with torch.no_grad():  # the logits start near zero: give them a shape
        task.model.head.classifier.weight.normal_()
    half = labels.clone()
    half[1] = 255
    task.model.train()
    loss = task.loss(images, half)
    logits = task.model(images).logits
    upsampled = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(upsampled[:1], labels[:1], task._class_weights)
    assert loss.item() == pytest.approx(expected.item(), rel=0.03)  # autocast computes in bf16
    assert loss.item() != pytest.approx(F.cross_entropy(upsampled, labels, task._class_weights).item(), rel=0.03)


def test_rare_classes_weigh_more(street_camvid: Path, task: SegmentationTask):
    dataset = CamVid(street_camvid, "train")
    counts = sum(np.bincount(dataset[i][1].ravel(), minlength=256)[:11] for i in range(len(dataset)))
    expected = 1 / np.log(1.1 + counts / counts.sum())
    np.testing.assert_allclose(task._class_weights.numpy(), expected, rtol=1e-5)
    plain = SegmentationTask(replace(RECIPE, class_weight_offset=None), dataset, dataset, CPU)
    assert plain._class_weights is None


def test_a_data_set_without_classes_is_refused():
    with pytest.raises(DatasetError, match="no pixel of the training pictures has a class"):
        SegmentationTask(RECIPE, Blank(), Blank(), CPU)


def test_an_error_in_another_process_is_one_line():
    recipe = replace(RECIPE, class_weight_offset=None)
    for workers in (0, 1):
        with pytest.raises(DatasetError, match=r"^picture 1 cannot be read$"):
            list(SegmentationTask(recipe, Blank(broken=1), Blank(), CPU, workers=workers).batches(0))


def test_a_recipe_names_a_shape(street_camvid: Path, full_sized: dict[str, BSDNetConfig]):
    assert full_sized == {"s": S_CONFIG, "b": B_CONFIG}
    dataset = CamVid(street_camvid, "train")
    model = SegmentationTask(replace(RECIPE, model="b", dasp_rates=(1, 3)), dataset, dataset, CPU).model
    assert model.config == replace(CONFIGS["b"], num_classes=11, dasp_rates=(1, 3))


def test_the_seed_decides_the_first_weights(street_camvid: Path):
    dataset = CamVid(street_camvid, "train")

    def first_kernel(seed: int) -> torch.Tensor:
        model = SegmentationTask(replace(RECIPE, seed=seed), dataset, dataset, CPU).model
        return next(model.parameters())

    assert torch.equal(first_kernel(1), first_kernel(1))
    assert not torch.equal(first_kernel(1), first_kernel(2))


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


def test_evaluation_compares_at_the_labels_size(street_camvid: Path):
    dataset = CamVid(street_camvid, "val")

    class Oracle(torch.nn.Module):
        """Answer with the labels of the picture whose turn it is."""

        def __init__(self) -> None:
            super().__init__()
            self.turn = -1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.turn += 1
            labels = torch.from_numpy(dataset[self.turn][1]).long()
            labels[labels == 255] = 0
            return F.one_hot(labels, 11).permute(2, 0, 1)[None].float()

    matrix = evaluate(Oracle(), dataset, CPU)
    assert matrix.mean_iou == 1.0
    assert matrix.counts.sum() == sum((dataset[i][1] != 255).sum() for i in range(3))


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
