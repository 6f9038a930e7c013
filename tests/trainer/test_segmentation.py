import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bsdnet.checkpoint import load_checkpoint, save_backbone, save_checkpoint
from bsdnet.classes import CAMVID_11, CITYSCAPES_19
from bsdnet.errors import CheckpointError, ConfigError, DatasetError
from bsdnet.modeling import BSDNet, BSDNetConfig
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG
from tests.trainer import test_objective
from tests.trainer.tiny import TINY
from trainer.datasets.camvid import CamVid
from trainer.datasets.contract import TAUGHT, LabelledImages
from trainer.device import normalize
from trainer.distributed import Processes
from trainer.monitor import RunMonitor
from trainer.recipes import CAMVID_360
from trainer.segmentation import AugmentedImages, SegmentationData, SegmentationTask
from trainer.trainees import CONFIGS, build_student

CPU = torch.device("cpu")
RECIPE = replace(
    CAMVID_360, epochs=1, batch_size=2, crop_size=(64, 64), train_size=(96, 128), distill="none", precision="fp32"
)


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

    def name(self, index: int) -> str:
        return str(index)


def make(train: LabelledImages, val: LabelledImages | None = None, *, recipe=RECIPE, **options) -> SegmentationTask:
    data = SegmentationData(train=train, val=val or train, description={"hold_out": "A"})
    return SegmentationTask(recipe, build_student(recipe, train.classes), data, CPU, **options)


@pytest.fixture
def train_set(street_camvid: Path) -> CamVid:
    return CamVid(street_camvid, "train")


@pytest.fixture
def monitor(tmp_path: Path) -> RunMonitor:
    return RunMonitor(tmp_path, 1, 0, 2, CPU, enabled=False, tensorboard=False)


def test_the_input_is_normalised_by_the_mean():
    image = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    got = normalize(image, (0.5, 0.25, 0.2), (0.5, 0.25, 0.1))
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 3.0, 0.0]))
    assert got.shape == (1, 3, 1, 1)


@pytest.mark.parametrize("channels_last", [True, False])
def test_batches_are_what_the_network_takes(train_set: CamVid, channels_last: bool):
    task = make(train_set, recipe=replace(RECIPE, channels_last=channels_last))
    images, labels = next(iter(task.batches(0)))
    assert images.shape == (2, 3, 64, 64)
    assert images.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert images.is_contiguous() != channels_last
    kernel = task.network.backbone.stage2[0].conv1[0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert labels.shape == (2, 64, 64)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(("share", "taught", "channels"), [(0.5, True, 6), (0.5, False, 3), (0.0, True, 3)])
def test_the_teacher_is_given_the_clear_crops(train_set: CamVid, share: float, taught: bool, channels: int):
    recipe = replace(RECIPE, degradation=share, distill="ofa" if taught else "none")
    clear = make(train_set)
    task = make(train_set, recipe=recipe, teacher=test_objective.Oracle() if taught else None)
    for (images, _), (plain, _) in zip(task.batches(0), clear.batches(0), strict=True):
        assert images.shape == (2, channels, 64, 64)
        if channels == 6:
            assert torch.equal(images[:, 3:], plain)
    degraded = any(not torch.equal(images[:, :3], plain)
                   for (images, _), (plain, _) in zip(task.batches(0), clear.batches(0), strict=True))  # fmt: skip
    assert degraded == (share > 0)


def test_batches_resume_where_they_were_left(train_set: CamVid):
    task = make(train_set)
    whole, rest = list(task.batches(0)), list(task.batches(4))
    assert (len(whole), len(rest)) == (6, 2)
    for (images, labels), (again, labels_again) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)


def test_processes_share_the_batches_that_one_would_have(train_set: CamVid):
    recipe = replace(RECIPE, batch_size=4)
    whole = list(make(train_set, recipe=recipe).batches(0))
    shares = [
        list(make(train_set, recipe=recipe, processes=Processes(rank=rank, count=2)).batches(0)) for rank in (0, 1)
    ]
    for (images, labels), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def class_shares(dataset: CamVid) -> np.ndarray:
    counts = np.array([[(labels == k).sum() for k in range(11)] for _, labels in map(dataset.__getitem__, range(12))])
    return counts.sum(0) / counts.sum()


def test_rare_classes_weigh_more(train_set: CamVid):
    """With the weights, a picture of one class alone counts as many pixels as that class weighs."""
    weighted, plain = make(train_set), make(train_set, recipe=replace(RECIPE, class_weight_offset=None))
    for label, expected in enumerate(1 / np.log(1.1 + class_shares(train_set))):
        labels = torch.full((1, 64, 64), label)
        assert weighted.count(labels)[0].item() == pytest.approx(expected * 64 * 64, rel=1e-5)
        assert plain.count(labels).tolist() == [64 * 64, 64]
    assert weighted.count(torch.full((1, 64, 64), 255)).tolist() == [0, 0]


def test_ofa_weighs_classes_alike_or_as_the_cross_entropy_but_by_1_on_average(train_set: CamVid):
    recipe = replace(RECIPE, distill="ofa", ofa_class_weights=True)
    task = make(train_set, recipe=recipe, teacher=test_objective.Oracle())
    assert task.description["ofa_class_weights"] is True
    found = task.objective.sidm.class_weights
    shares = class_shares(train_set)
    ratios = 1 / np.log(1.1 + shares)
    np.testing.assert_allclose(found / found[0], ratios / ratios[0], rtol=1e-5)
    assert (found.numpy() * shares).sum() == pytest.approx(1)
    assert not [name for name in task.objective.state_dict() if "class_weights" in name]
    plain = make(train_set, recipe=replace(recipe, ofa_class_weights=False), teacher=test_objective.Oracle())
    assert plain.objective.sidm.class_weights is None


class Needle:
    """Twenty pictures of class 0; one of them has a few pixels of class 7."""

    classes = CAMVID_11

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.zeros((160, 160), np.uint8)
        if index == 13:
            labels[120:124, 30:34] = 7
        return np.zeros((160, 160, 3), np.uint8), labels

    def name(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_class_balanced_crops_show_each_class_as_often(balance: float):
    """Of the balanced crops half are drawn for class 7, and show it; of the others hardly any does."""
    pixels = np.stack([np.bincount(Needle()[index][1].ravel(), minlength=11) for index in range(20)])
    recipe = replace(RECIPE, crop_size=(48, 48), train_size=(160, 160), class_balance=balance, scale_range=(0.8, 2.0))
    crops = AugmentedImages(Needle(), recipe, pixels)
    shown = np.mean([bool((crops[index % 20, index][1] == 7).any()) for index in range(400)])
    assert shown == pytest.approx(balance / 2, abs=0.07)


class Plain:
    """Pictures of one class each, number and class in every pixel."""

    classes = CAMVID_11

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((64, 64, 3), index, np.uint8), np.full((64, 64), index, np.uint8)

    def name(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_so_many_crops_show_classes_of_another_picture(share: float):
    recipe = replace(RECIPE, crop_size=(64, 64), train_size=(64, 64), class_mix=share, color_jitter=0)
    crops = AugmentedImages(Plain(), recipe)
    shown = []
    for index in range(400):
        rgb, labels = (part.numpy() for part in crops[3, index])
        assert (rgb[..., 0] == labels)[labels != 255].all()
        shown.append(labels[labels != 255].max() != 3 or labels.min() != 3)
    assert np.mean(shown) == pytest.approx(0.9 * share, abs=0.08)  # one in ten is mixed with itself


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_so_many_crops_are_of_pictures_without_labels(share: float):
    recipe = replace(RECIPE, crop_size=(64, 64), train_size=(64, 64), unlabelled_share=share, color_jitter=0)
    crops = AugmentedImages(Plain(), recipe, unlabelled=Bright())
    taught = []
    for index in range(400):
        rgb, labels = (part.numpy() for part in crops[3, index])
        is_taught = bool((labels == TAUGHT).any())
        assert (rgb == (200 if is_taught else 3)).all()
        assert set(np.unique(labels)) <= ({TAUGHT, 255} if is_taught else {3, 255})  # beyond the edge there is none
        taught.append(is_taught)
    assert np.mean(taught) == pytest.approx(share, abs=0.07)


def test_without_such_pictures_their_share_changes_nothing():
    recipe = replace(RECIPE, crop_size=(64, 64), train_size=(64, 64))
    for found, expected in zip(
        AugmentedImages(Plain(), replace(recipe, unlabelled_share=0.9))[3, 7], AugmentedImages(Plain(), recipe)[3, 7],
        strict=True,
    ):  # fmt: skip
        assert torch.equal(found, expected)


def test_shares_of_other_data_sets_are_of_the_labelled_crops():
    """Of 0.4 without labels and half of the rest from another data set, 0.3 are left for one's own."""
    recipe = replace(
        RECIPE, crop_size=(64, 64), train_size=(64, 64), unlabelled_share=0.4, further_share=0.5, color_jitter=0
    )
    crops = AugmentedImages(Plain(), recipe, unlabelled=Bright(), further=Bright(brightness=100))
    shown = [int(crops[3, index][0][0, 0, 0]) for index in range(600)]
    assert [shown.count(brightness) / 600 for brightness in (200, 100, 3)] == pytest.approx([0.4, 0.3, 0.3], abs=0.06)
    only = AugmentedImages(Plain(), replace(recipe, further_share=1), further=Bright(brightness=100))
    rgb, labels = only[3, 0]
    assert set(rgb.unique().tolist()) == {100}
    assert set(labels.unique().tolist()) <= {0, 255}  # as the data set says, not as a teacher would


class Bright:
    """Pictures of one brightness, all of them valid or of class 0."""

    classes = CAMVID_11

    def __init__(self, brightness: int = 200) -> None:
        self.brightness = brightness

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((64, 64, 3), self.brightness, np.uint8), np.zeros((64, 64), np.uint8)

    def name(self, index: int) -> str:
        return str(index)


def test_pictures_without_labels_need_a_teacher():
    data = SegmentationData(train=Plain(), val=Plain(), unlabelled=Bright(), description={})
    with pytest.raises(ConfigError, match="need a teacher"):
        SegmentationTask(RECIPE, build_student(RECIPE, CAMVID_11), data, CPU)


def test_class_balance_is_counted_before_the_run(street_camvid: Path):
    recipe = replace(RECIPE, class_weight_offset=None, class_balance=1.0)
    assert make(CamVid(street_camvid, "train"), recipe=recipe)._pixels.shape == (12, 11)


def test_a_data_set_without_classes_is_refused():
    with pytest.raises(DatasetError, match="no pixel of the training pictures has a class"):
        make(Blank())


def test_an_error_in_another_process_is_one_line():
    recipe = replace(RECIPE, class_weight_offset=None)
    for workers in (0, 1):
        with pytest.raises(DatasetError, match=r"^picture 1 cannot be read by process \d+$") as caught:
            list(make(Blank(broken=1), Blank(), recipe=recipe, workers=workers).batches(0))
        assert str(caught.value).endswith(f" {os.getpid()}") == (workers == 0)


def test_a_recipe_names_a_shape(full_sized: dict[str, BSDNetConfig], tmp_path: Path):
    assert full_sized == {"s": S_CONFIG, "b": B_CONFIG}
    recipe = replace(RECIPE, model="b", dasp_rates=(1, 3), block="res", context="dappm")
    student = build_student(recipe, CAMVID_11)
    config = replace(CONFIGS["b"], num_classes=11, dasp_rates=(1, 3), block="res", context="dappm")
    assert student.network.config == config
    student.save(student.network, tmp_path / "b.safetensors")
    kept = load_checkpoint(tmp_path / "b.safetensors")
    assert kept.model.config == config
    assert kept.metadata.architecture == "bsdnet_b"
    assert (kept.metadata.class_set.name, kept.metadata.train_size) == ("camvid-11", (96, 128))
    with pytest.raises(ConfigError, match="model must be s or b"):
        build_student(replace(RECIPE, model="segformer-b1"), CAMVID_11)


def test_a_run_is_described_by_recipe_and_data(train_set: CamVid):
    described = make(train_set).description
    assert (described["hold_out"], described["epochs"], described["crop_size"]) == ("A", 1, (64, 64))


def test_the_seed_decides_the_first_weights_whatever_is_distilled():
    def first_kernel(seed: int, distill: str) -> torch.Tensor:
        return next(build_student(replace(RECIPE, seed=seed, distill=distill), CAMVID_11).network.parameters())

    assert torch.equal(first_kernel(1, "none"), first_kernel(1, "sidm"))
    assert not torch.equal(first_kernel(1, "none"), first_kernel(2, "none"))


def test_a_pretrained_backbone_is_taken_over(tmp_path: Path):
    path = tmp_path / "backbone.safetensors"
    source = BSDNet(TINY).backbone
    save_backbone(path, source, "bsdnet_s")
    network = build_student(RECIPE, CAMVID_11, pretrained=path).network
    kernel = source.stem[0][0].weight
    torch.testing.assert_close(network.backbone.stem[0][0].weight, kernel.half().float(), rtol=0, atol=0)
    save_backbone(path, BSDNet(replace(TINY, kernel_size=5)).backbone, "bsdnet_s")
    with pytest.raises(CheckpointError, match="another shape"):
        build_student(RECIPE, CAMVID_11, pretrained=path)


def test_a_whole_network_is_gone_on_from(tmp_path: Path):
    student, path = build_student(RECIPE, CAMVID_11), tmp_path / "net.safetensors"
    save_checkpoint(path, student.network, student.metadata)
    again = build_student(replace(RECIPE, seed=5), CAMVID_11, initial=path).network
    for name, tensor in student.network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)  # kept in fp16
    with pytest.raises(ConfigError, match="made for the classes of camvid-11, the data are cityscapes-19"):
        build_student(RECIPE, CITYSCAPES_19, initial=path)


class Oracle(nn.Module):
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
    street_camvid: Path, train_set: CamVid, monitor: RunMonitor, caplog: pytest.LogCaptureFixture
):
    val = CamVid(street_camvid, "val")
    oracle = Oracle(val)
    with caplog.at_level("INFO"):
        assert make(train_set, val).evaluate(oracle, monitor) == 1.0
    assert oracle.turn == 2
    assert caplog.messages[-1].split()[:4] == ["mIoU", "100.0", "sky", "100.0"]


def test_a_judgement_without_any_class_is_zero(monitor: RunMonitor):
    task = make(Blank(), recipe=replace(RECIPE, class_weight_offset=None))
    assert task.evaluate(task.network.eval(), monitor) == 0.0
