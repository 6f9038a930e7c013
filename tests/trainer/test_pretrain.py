from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from bsdnet.errors import ConfigError, DatasetError
from tests.trainer.test_datasets import zipped
from tests.trainer.tiny import TINY
from trainer.datasets.imagenet import ZippedImages
from trainer.distributed import Processes
from trainer.monitor import RunMonitor
from trainer.pretrain import ClassificationObjective, Classifier, PretrainTask, build_classifier
from trainer.pretrain_data import ImagesInFiles, ImagesInMemory, open_images, random_crop, random_resized_crop
from trainer.recipes import TINY_IMAGENET, PretrainRecipe
from trainer.sampling import PositionSampler

CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path: Path) -> ZippedImages:
    return ZippedImages([zipped(tmp_path / "a.zip", [f"{kind}/{i}.png" for kind in "ab" for i in range(6)], size=64)])


def views(min_area: float, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop a picture of its own coordinates: x and y of each pixel that is seen, `(B, 64)` along each axis."""
    x = torch.arange(64.0).expand(64, 64)
    pictures = torch.stack([x, x.T, torch.ones(64, 64)]).expand(count, 3, 64, 64)
    seen = random_resized_crop(pictures, 64, min_area, torch.Generator().manual_seed(0))
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


ALONE = Processes()
RECIPE = replace(TINY_IMAGENET, epochs=2, batch_size=4, precision="fp32")


def make(images: ZippedImages, recipe: PretrainRecipe = RECIPE, processes: Processes = ALONE) -> PretrainTask:
    return PretrainTask(recipe, ImagesInMemory(images, images), CPU, processes=processes)


@pytest.fixture
def monitor(tmp_path: Path) -> RunMonitor:
    return RunMonitor(tmp_path, 1, 0, 2, CPU, enabled=False, tensorboard=False)


def test_batches_depend_on_the_iteration_alone(images: ZippedImages):
    task = make(images)
    whole, rest = list(task.batches(0)), list(task.batches(3))
    assert len(whole) == 6
    for (pictures, classes), (again, classes_again) in zip(whole[3:], rest, strict=True):
        assert torch.equal(pictures, again)
        assert torch.equal(classes, classes_again)
    assert sorted(np.concatenate([classes.numpy() for _, classes in whole[:3]])) == [0] * 6 + [1] * 6


def test_each_iteration_each_seed_and_each_process_crops_in_its_own_way(images: ZippedImages):
    images.images[:] = np.arange(64, dtype=np.uint8)[None, :, None, None]  # all alike: order plays no part
    batches = []
    for seed in (0, 1):
        for rank in (0, 1):
            task = make(images, replace(RECIPE, batch_size=6, seed=seed), Processes(rank=rank, count=2))
            batches += [pictures for pictures, _ in task.batches(0)]
    assert len({pictures.numpy().tobytes() for pictures in batches}) == len(batches) == 16


def loss(task: PretrainTask, pictures: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return task.objective(pictures, classes, task.count(classes))["loss"]


def always(task: PretrainTask, bias: list[float]) -> None:
    """Make the classifier give the same logits for every picture."""
    with torch.no_grad():
        task.network.linear.weight.zero_()
        task.network.linear.bias.copy_(torch.tensor(bias))


def test_the_loss_is_smoothed(images: ZippedImages):
    task = make(images, replace(RECIPE, batch_size=8, label_smoothing=0.3))
    pictures, classes = next(iter(task.batches(0)))
    always(task, [0.0, 2.0])
    log_p = torch.tensor([0.0, 2.0]).log_softmax(0)
    expected = -0.7 * log_p[classes].mean() - 0.3 * log_p.mean()
    assert loss(task, pictures, classes).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_share_of_a_step_counts_as_its_share(images: ZippedImages):
    """Two halves, divided by the count of the whole batch, add up to its loss."""
    task = make(images)
    task.network.eval()
    pictures, classes = next(iter(task.batches(0)))
    whole = loss(task, pictures, classes)
    halves = [
        task.objective(some, some_classes, task.count(classes))["loss"]
        for some, some_classes in zip(pictures.split([1, 3]), classes.split([1, 3]), strict=True)
    ]
    torch.testing.assert_close(sum(halves), whole)


class Oracle(nn.Module):
    """A teacher that is sure of the answer 2, and notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 0.0, 3.0]))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        return self.weight.expand(len(x), 3)


TAUGHT = replace(RECIPE, teacher="efficientnet-lite0", teacher_size=96, teacher_weight=0.5, teacher_temperature=2.0)


def test_a_teachers_answers_are_learnt_beside_the_classes():
    network, oracle = Classifier(TINY, 2, "bsdnet_s"), Oracle()
    objective = ClassificationObjective(network, TAUGHT, oracle, answers=3)
    assert all(parameter is not oracle.weight for parameter in objective.parameters())
    assert not any("teacher" in name or "weight_" in name for name in objective.state_dict())
    pictures, classes = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.bias.copy_(torch.tensor([0.0, 2.0]))
        objective.answers.weight.zero_()
        objective.answers.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    parts = objective(pictures, classes, torch.tensor([8.0]))
    found, expected = ((torch.tensor(logits) / 2).log_softmax(0) for logits in ([1.0, 0.0, 0.0], [0.0, 0.0, 3.0]))
    kd = 4 * (expected.exp() * (expected - found)).sum() * 4 / 8
    ce = F.cross_entropy(torch.tensor([0.0, 2.0]).expand(4, 2), classes, reduction="sum", label_smoothing=0.1) / 8
    assert parts["kd"].item() == pytest.approx(kd.item(), rel=1e-5)
    assert parts["ce"].item() == pytest.approx(ce.item(), rel=1e-5)
    assert parts["loss"].item() == pytest.approx((ce + 0.5 * kd).item(), rel=1e-5)
    assert oracle.seen == [(4, 3, 96, 96)]  # enlarged for it
    parts["loss"].backward()
    assert oracle.weight.grad is None
    assert objective.answers.bias.grad[2] < 0  # towards the answer


def test_a_teacher_sees_pictures_that_are_large_enough_as_they_are():
    oracle = Oracle()
    objective = ClassificationObjective(Classifier(TINY, 2, "bsdnet_s"), TAUGHT, oracle, answers=3)
    objective(torch.randn(2, 3, 128, 128), torch.tensor([0, 1]), torch.tensor([2.0]))
    assert oracle.seen == [(2, 3, 128, 128)]


def test_a_teacher_teaches_no_teacher():
    with pytest.raises(ConfigError, match="learnt by s or b alone"):
        ClassificationObjective(nn.Linear(2, 2), TAUGHT, Oracle())


def test_a_run_learns_from_an_efficientnet(images: ZippedImages, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("trainer.pretrain.ImageNetClassifier", lambda name: asked.append(name) or Fixed())
    task = make(images, replace(TAUGHT, teacher_size=64))
    assert asked == ["efficientnet-lite0"]
    assert task.description["teacher"] == "efficientnet-lite0"
    pictures, classes = next(iter(task.batches(0)))
    parts = task.objective(pictures, classes, task.count(classes))
    assert set(parts) == {"loss", "ce", "kd"}
    parts["loss"].backward()
    assert task.objective.answers.weight.grad.abs().sum() > 0


class Fixed(nn.Module):
    """A teacher of 1,000 answers without weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-1, 1, 1000).expand(len(x), 1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_size": 16}, "teacher_size must be at least 32, got 16"),
        ({"teacher_weight": -1.0}, "teacher_weight must be at least 0, got -1"),
        ({"teacher_temperature": 0.0}, "teacher_temperature must be greater than 0, got 0"),
    ],
)
def test_numbers_of_a_teacher_that_cannot_work(changes: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(RECIPE, **changes)


def test_the_classifier_averages_over_space():
    model = Classifier(TINY, 5, "bsdnet_s").eval()
    x = torch.randn(2, 3, 64, 96)
    expected = model.linear(model.backbone(x).stage4.flatten(2).mean(2))
    torch.testing.assert_close(model(x), expected)


def test_accuracy_counts_right_answers(images: ZippedImages, monitor: RunMonitor):
    task = make(images, replace(RECIPE, batch_size=8))
    task.network.eval()
    always(task, [0.0, 1.0])
    assert task.evaluate(task.network, monitor) == 0.5


def test_a_kept_backbone_is_gone_on_from(images: ZippedImages, tmp_path: Path):
    file = tmp_path / "backbone.safetensors"
    kept = make(images, replace(RECIPE, seed=RECIPE.seed + 1))
    kept.save_weights(kept.network, file)
    again = PretrainTask(RECIPE, images, torch.device("cpu"), initial=file)
    assert again.description["initial"] == "backbone.safetensors"
    before, after = kept.network.backbone.state_dict(), again.network.backbone.state_dict()
    assert all(torch.equal(before[name].half(), after[name].half()) for name in before)


def test_a_segformer_goes_on_from_no_backbone(tmp_path: Path):
    with pytest.raises(ConfigError, match="--init takes a backbone of a student, not for segformer-b0"):
        build_classifier("segformer-b0", 5, initial=tmp_path / "any.safetensors")


def test_a_name_that_is_no_network_is_refused():
    with pytest.raises(ConfigError, match="model must be s or b for a student, got 'xl'"):
        build_classifier("xl", 5)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Pictures of many sizes in folders of classes, whose colours say their class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for label, kind in enumerate("ab"):
            (tmp_path / split / kind).mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(60, 200, 2)
                picture = np.full((height, width, 3), 50 + 100 * label, np.uint8)
                cv2.imwrite(str(tmp_path / split / kind / f"{number}.JPEG"), picture)
    return tmp_path


def test_pictures_in_files_are_cropped_to_one_size(folders: Path):
    data = open_images(folders, workers=0)
    assert isinstance(data, ImagesInFiles)
    assert (len(data), data.classes) == (16, ("a", "b"))
    recipe = replace(RECIPE, image_size=48)
    for workers in (0, 1):
        data = open_images(folders, workers)
        sampler = PositionSampler(16, 4, seed=0, start=0, stop=8)
        batches = list(data.train(recipe, sampler, CPU))
        assert len(batches) == 8
        for pictures, classes in batches:
            assert pictures.shape == (4, 3, 48, 48)
            assert pictures.is_contiguous(memory_format=torch.channels_last)
            bright = pictures.mean((1, 2, 3)) > 0  # 150 is above ImageNet's mean, 50 is below
            assert torch.equal(bright.long(), classes)
    judged = list(data.val(recipe, CPU, Processes()))
    assert sum(len(classes) for _, classes in judged) == 6
    assert {tuple(pictures.shape[1:]) for pictures, _ in judged} == {(3, 48, 48)}
    shares = [list(data.val(recipe, CPU, Processes(rank=rank, count=2))) for rank in (0, 1)]
    assert [sum(len(classes) for _, classes in share) for share in shares] == [3, 3]


def test_a_damaged_picture_is_one_line_from_any_process(folders: Path):
    (folders / "train" / "a" / "3.JPEG").write_bytes(b"no picture")
    for workers in (0, 1):
        data = open_images(folders, workers)
        sampler = PositionSampler(16, 4, seed=0, start=0, stop=4)
        with pytest.raises(DatasetError, match=r"^\S*3\.JPEG cannot be read as a picture[^\n]*$"):
            list(data.train(replace(RECIPE, image_size=48), sampler, CPU))


@pytest.mark.parametrize("size", [32, 96])
def test_pictures_in_memory_are_shown_at_the_size_that_the_recipe_says(images: ZippedImages, size: int):
    """A picture of its own columns, whole: what is seen runs from one edge to the other, in learning and in judging."""
    images.images[:] = np.arange(0, 128, 2, dtype=np.uint8)[None, None, :, None]
    task = make(images, replace(RECIPE, image_size=size, min_area=1.0))
    judged = next(iter(ImagesInMemory(images, images).val(task.recipe, CPU, Processes())))[0]
    learnt = torch.cat([pictures for pictures, _ in task.batches(0)])
    for pictures in (judged, learnt):
        assert pictures.shape[1:] == (3, size, size)
    red = (judged * IMAGENET_STD[0] + IMAGENET_MEAN[0])[:, 0] * 255
    columns = ((torch.arange(size) + 0.5) * 64 / size - 0.5).clamp(0, 63) * 2
    torch.testing.assert_close(red, columns.expand_as(red), atol=0.01, rtol=0)
    whole = [picture for picture in learnt if picture[0, 0].diff().abs().min() > 0]
    assert whole
    for picture in whole:
        seen = (picture * IMAGENET_STD[0] + IMAGENET_MEAN[0])[0, 0] * 255
        assert seen.min() >= -0.01
        assert seen.max() <= 126.01


def test_small_pictures_in_archives_are_held_in_memory(tmp_path: Path):
    for name in ("train-0.zip", "train-1.zip", "val.zip"):
        zipped(tmp_path / name, [f"{kind}/{i}.png" for kind in "ab" for i in range(4)], size=64)
    data = open_images(tmp_path, workers=0)
    assert isinstance(data, ImagesInMemory)
    assert len(data) == 16


def test_a_random_crop_shows_a_part_in_its_place():
    """A picture of its own coordinates: what a crop shows is a rectangle of it, perhaps mirrored."""
    y, x = np.mgrid[:120, :200].astype(np.uint8)
    picture = np.stack([x, y, x], -1)
    flipped, areas = 0, []
    for seed in range(60):
        crop = random_crop(picture, 32, 0.2, np.random.default_rng(seed)).astype(int)
        assert crop.shape == (32, 32, 3)
        columns, rows = crop[16, :, 0], crop[:, 16, 1]
        flipped += columns[0] > columns[-1]
        areas.append(abs(columns[-1] - columns[0]) * (rows[-1] - rows[0]) / (120 * 200))
        assert (np.diff(rows) >= 0).all()
        assert (np.diff(columns) >= 0).all() or (np.diff(columns) <= 0).all()
    assert 15 < flipped < 45
    assert min(areas) > 0.15
    assert max(areas) > 0.6
    again = random_crop(picture, 32, 0.2, np.random.default_rng(3))
    np.testing.assert_array_equal(again, random_crop(picture, 32, 0.2, np.random.default_rng(3)))
