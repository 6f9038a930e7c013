from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bsdnet.modeling import BSDNet
from bsdnet.modeling.bsdnet import TrainingOutput
from tests.trainer.tiny import TINY
from trainer.datasets.contract import TAUGHT
from trainer.objective import SegmentationObjective
from trainer.recipes import CAMVID_360
from trainer.teacher import TeacherChannels, TeacherOutput

PLAIN = replace(CAMVID_360, class_weight_offset=None, distill="none", precision="fp32")


class Fixed(nn.Module):
    """Answer the same always, and keep in which precision autocast would have computed."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> TrainingOutput:
        self.autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return TrainingOutput(self.logits, self.logits, self.logits, self.logits)


class Oracle:
    """A teacher that is sure of one class everywhere."""

    channels = TeacherChannels(8, 12, 6)

    def __init__(self, label: int = 3) -> None:
        self.label = label

    def __call__(self, images: torch.Tensor) -> TeacherOutput:
        batch, _, height, width = images.shape
        generator = torch.Generator().manual_seed(0)
        maps = [
            F.conv2d(F.avg_pool2d(images, stride), torch.randn(channels, 3, 1, 1, generator=generator))
            for channels, stride in ((8, 16), (12, 32), (6, 4))
        ]
        logits = torch.zeros(batch, 11, height // 4, width // 4)
        logits[:, self.label] = 20.0
        return TeacherOutput(*maps, logits)


def images_and_labels(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4, 3, 64, 64, generator=generator)
    labels = torch.randint(0, 11, (4, 64, 64), generator=generator)
    labels[0, :50] = 255  # void pixels, unevenly spread
    labels[3, 20:25] = 255
    return images, labels


def student(**changes: object) -> BSDNet:
    torch.manual_seed(0)
    return BSDNet(replace(TINY, num_classes=11, **changes)).train()


def parts(objective: SegmentationObjective, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    return objective(images, labels, objective.count_valid(labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_weighted_smoothed_and_leaves_void_pixels_out(smoothing: float):
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(2, 11, 8, 8, generator=generator),
        torch.randint(0, 11, (2, 64, 64), generator=generator),
    )
    labels[1, :40] = 255
    weights = torch.rand(11, generator=generator) + 0.5
    network = Fixed(logits)
    objective = SegmentationObjective(
        network, replace(PLAIN, label_smoothing=smoothing, precision="bf16"), class_weights=weights
    )
    log_p = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False).log_softmax(1)
    total, weight = 0.0, 0.0
    for b, y, x in (labels != 255).nonzero().tolist():
        label = labels[b, y, x]
        total -= (1 - smoothing) * (weights[label] * log_p[b, label, y, x]).item()
        total -= smoothing / 11 * (log_p[b, :, y, x] * weights).sum().item()
        weight += weights[label].item()
    found = parts(objective, torch.zeros(2, 3, 64, 64), labels)
    assert found["loss"].item() == found["ce"].item() == pytest.approx(total / weight, rel=1e-4)
    assert network.autocast == torch.bfloat16
    objective = SegmentationObjective(network, PLAIN)
    parts(objective, torch.zeros(2, 3, 64, 64), labels)
    assert network.autocast is None


def test_the_real_network_gives_a_loss_near_that_of_chance():
    objective = SegmentationObjective(student(), replace(PLAIN, precision="bf16"))
    assert parts(objective, *images_and_labels())["loss"].item() == pytest.approx(2.398, abs=0.1)  # ln 11


def test_hard_pixels_are_those_of_the_largest_loss():
    logits, labels = torch.randn(1, 11, 8, 8), torch.randint(0, 11, (1, 64, 64))
    labels[:, :16] = 255
    objective = SegmentationObjective(Fixed(logits), replace(PLAIN, hard_pixel_share=0.25))
    enlarged = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    losses = F.cross_entropy(enlarged, labels, ignore_index=255, reduction="none")
    expected = losses[labels != 255].sort(descending=True).values[: 64 * 48 // 4].mean()
    assert parts(objective, torch.zeros(1, 3, 64, 64), labels)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_valid_pixel_is_no_loss_and_no_nan():
    objective = SegmentationObjective(student(), replace(PLAIN, distill="sidm", hard_pixel_share=0.5), teacher=Oracle())
    images, labels = images_and_labels()
    found = parts(objective, images, torch.full_like(labels, 255))
    found["loss"].backward()
    assert found["ce"] == found["ofa"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize(
    ("distill", "names"),
    [("none", {"ce"}), ("cwd", {"ce", "cwd"}), ("ofa", {"ce", "ofa"}), ("sidm", {"ce", "cwd", "ofa"})],
)
def test_the_loss_is_the_weighted_sum_of_what_was_asked_for(distill: str, names: set[str]):
    recipe = replace(PLAIN, distill=distill, cwd_weight=2.0, ofa_weight=0.5)
    found = parts(SegmentationObjective(student(), recipe, teacher=Oracle()), *images_and_labels())
    assert found.keys() == names | {"loss"}
    weights = {"ce": 1.0, "cwd": 2.0, "ofa": 0.5}
    expected = sum(weights[name] * found[name].item() for name in names)
    assert found["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert all(found[name] > 0 for name in names)


def test_the_lovasz_loss_joins_where_it_is_asked_for():
    images, labels = images_and_labels()
    labels[1] = TAUGHT  # learnt from labels alone
    network = student()
    without, found, halves = (
        parts(SegmentationObjective(network, replace(PLAIN, lovasz_weight=weight, accumulation=count)), images, labels)
        for weight, count in ((0.0, 1), (0.5, 1), (0.5, 2))
    )
    assert found.keys() == without.keys() | {"lovasz"}
    assert found["loss"].item() == pytest.approx(found["ce"].item() + 0.5 * found["lovasz"].item(), rel=1e-5)
    assert halves["lovasz"].item() == pytest.approx(found["lovasz"].item() / 2, rel=1e-5)
    void = labels.clone()
    void[1] = 255
    objective = SegmentationObjective(network, replace(PLAIN, lovasz_weight=0.5))
    assert parts(objective, images, void)["lovasz"] == found["lovasz"]


def test_ofa_is_weighed_by_class():
    recipe = replace(PLAIN, distill="sidm")
    images, labels = images_and_labels()
    labels[1] = TAUGHT  # the class is the teacher's there
    alike, twice, one = (
        parts(SegmentationObjective(student(), recipe, teacher=Oracle(3), ofa_class_weights=weights), images, labels)
        for weights in (None, torch.full((11,), 2.0), F.one_hot(torch.tensor(3), 11).float())
    )
    assert twice["ofa"].item() == pytest.approx(2 * alike["ofa"].item(), rel=1e-6)
    assert (twice["ce"], twice["cwd"]) == (alike["ce"], alike["cwd"])
    labels[(labels != 3) & (labels != TAUGHT)] = 255
    objective = SegmentationObjective(student(), recipe, teacher=Oracle(3))
    kept = objective(images, labels, objective.count_valid(images_and_labels()[1]))
    assert one["ofa"].item() == pytest.approx(kept["ofa"].item(), rel=1e-6)


def test_everything_that_learns_gets_a_gradient_and_is_part_of_the_state():
    recipe = replace(PLAIN, distill="sidm", auxiliary_weight=0.4)
    objective = SegmentationObjective(student(), recipe, teacher=Oracle())
    found = parts(objective, *images_and_labels())
    assert found["auxiliary"].item() == pytest.approx(2.398, abs=0.2)
    assert found["loss"].item() == pytest.approx(
        (found["ce"] + 15 * found["cwd"] + 3 * found["ofa"] + 0.4 * found["auxiliary"]).item(), rel=1e-5
    )
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    assert {name.split(".")[0] for name in objective.state_dict()} == {"network", "sidm", "auxiliary"}


def test_without_labels_the_teacher_tells_the_classes_of_valid_pixels():
    images, labels = images_and_labels()
    unlabelled = torch.where(labels == 255, labels, 0)
    told = torch.where(labels == 255, labels, 3)
    recipe = replace(PLAIN, distill="ofa")
    found = parts(SegmentationObjective(student(), recipe, teacher=Oracle(3), labelled=False), images, unlabelled)
    expected = parts(SegmentationObjective(student(), recipe, teacher=Oracle(3)), images, told)
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_beside_labels_the_teacher_alone_tells_what_is_marked_as_taught(share: float):
    images, labels = images_and_labels()
    labels[1] = 255
    taught = labels.clone()
    taught[1] = TAUGHT
    recipe = replace(PLAIN, distill="sidm", hard_pixel_share=share, auxiliary_weight=0.4)
    objective = SegmentationObjective(student(), recipe, teacher=Oracle(3))
    void, found = parts(objective, images, labels), parts(objective, images, taught)
    assert (found["ce"], found["auxiliary"]) == (void["ce"], void["auxiliary"])  # learnt from labels alone
    assert found["cwd"] == void["cwd"]  # features have none
    told = labels.clone()
    told[1] = 3
    assert found["ofa"].item() == pytest.approx(parts(objective, images, told)["ofa"].item(), rel=1e-6)


class Noted(Oracle):
    """Notes what it is shown; what it says depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor) -> TeacherOutput:
        self.seen.append(images)
        found = super().__call__(images)
        return found._replace(logits=20 * F.interpolate(images.mean(1, keepdim=True), scale_factor=0.25)
                              * torch.linspace(-1, 1, 11).view(1, -1, 1, 1))  # fmt: skip


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_what_each_of_them_sees_is_in_one_piece_of_memory(layout: torch.memory_format):
    images, labels = images_and_labels()
    clear, _ = images_and_labels(seed=1)
    network, teacher, shown = student(), Noted(), []
    network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    objective = SegmentationObjective(network, replace(PLAIN, distill="sidm"), teacher=teacher)
    parts(objective, torch.cat([images, clear], 1).contiguous(memory_format=layout), labels)
    for seen, expected in ((shown[0], images), (teacher.seen[0], clear)):
        assert torch.equal(seen, expected)
        assert seen.is_contiguous(memory_format=layout)


def test_without_labels_the_teacher_tells_the_classes_of_the_clear_picture():
    (images, labels), (clear, _) = images_and_labels(), images_and_labels(seed=1)
    labels = torch.where(labels == 255, labels, 0)
    objective = SegmentationObjective(student(), replace(PLAIN, distill="ofa"), teacher=Noted(), labelled=False)
    told = F.interpolate(Noted()(clear).logits, size=(64, 64), mode="bilinear", align_corners=False).argmax(1)
    taught = SegmentationObjective(student(), replace(PLAIN, distill="ofa"), teacher=Noted())
    both = torch.cat([images, clear], 1)
    expected = parts(taught, both, torch.where(labels == 255, labels, told))
    assert parts(objective, both, labels)["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_teacher_may_see_another_picture_than_the_student(layout: torch.memory_format):
    images, labels = images_and_labels()
    other, _ = images_and_labels(seed=1)
    objective = SegmentationObjective(student(), replace(PLAIN, distill="sidm"), teacher=Oracle())

    def losses(own: torch.Tensor, taught: torch.Tensor) -> list[float]:
        both = torch.cat([own, taught], 1).contiguous(memory_format=layout)
        found = parts(objective, both, labels)
        return [found["ce"].item(), found["cwd"].item()]

    same = parts(objective, images.contiguous(memory_format=layout), labels)
    assert losses(images, images) == [same["ce"].item(), same["cwd"].item()]
    one, two = losses(images, other), losses(other, images)
    assert one[0] == same["ce"].item() != two[0], "labels judge what the student sees"
    assert one[1] != same["cwd"].item()


@pytest.mark.parametrize("class_weights", [None, torch.full((11,), 2.0)])
def test_pixels_that_the_teacher_tells_are_no_pixels_of_the_cross_entropy(class_weights: torch.Tensor | None):
    objective = SegmentationObjective(student(), PLAIN, class_weights=class_weights)
    _, labels = images_and_labels()
    labels[1] = TAUGHT
    pixels, positions = objective.count_valid(labels).tolist()
    weight = 1 if class_weights is None else 2
    assert pixels == weight * int(((labels != 255) & (labels != TAUGHT)).sum())
    labels[1] = 0
    assert positions == objective.count_valid(labels)[1]  # those of the logits' distillation are


def frozen(network: BSDNet) -> BSDNet:
    """Keep batch norm from looking at the batch: what one picture gives must not depend on the others."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


@pytest.mark.parametrize("accumulation", [2, 4])
def test_parts_of_a_batch_add_up_to_its_loss_and_gradients(accumulation: int):
    """Divided by the counts of the whole batch, however unevenly void pixels are spread over its parts."""
    images, labels = images_and_labels()
    recipe = replace(PLAIN, distill="sidm", auxiliary_weight=0.4, class_weight_offset=1.1)
    weights = torch.linspace(0.5, 2, 11)
    results = []
    for count in (1, accumulation):
        torch.manual_seed(1)
        objective = SegmentationObjective(
            frozen(student()),
            replace(recipe, accumulation=count),
            teacher=Oracle(),
            class_weights=weights,
            ofa_class_weights=weights.flip(0),
        )
        if objective.auxiliary is not None:
            objective.auxiliary.eval()
        counts = objective.count_valid(labels)
        total = 0.0
        for some, some_labels in zip(images.chunk(count), labels.chunk(count), strict=True):
            loss = objective(some, some_labels, counts)["loss"]
            loss.backward()
            total += loss.item()
        results.append((total, {name: p.grad for name, p in objective.named_parameters()}))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
