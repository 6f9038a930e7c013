import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.modeling.bsdnet import TrainingOutput
from trainer.distill import SIDM, align_statistics, channel_wise_distillation, labels_at_stride8, ofa_loss
from trainer.teacher import TeacherChannels, TeacherOutput

VOID = 255


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def cwd_by_loops(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Equations 4 and 5, written out."""
    s, t = student.double().numpy(), teacher.double().numpy()
    batch, channels = s.shape[:2]
    total = 0.0
    for b in range(batch):
        for c in range(channels):
            p_s, p_t = softmax(s[b, c].ravel() / temperature), softmax(t[b, c].ravel() / temperature)
            for i in range(p_s.size):
                total += p_t[i] * math.log(p_t[i] / p_s[i])
    return temperature**2 / channels * total / batch


def ofa_by_loops(student: Tensor, teacher: Tensor, labels: Tensor, theta: float) -> float:
    """Equation 7's first line, written out, averaged over the pixels that have a label."""
    s, t, y = student.double().numpy(), teacher.double().numpy(), labels.numpy()
    losses = []
    for b, i, j in np.ndindex(*y.shape):
        if y[b, i, j] == VOID:
            continue
        p_s, p_t, target = softmax(s[b, :, i, j]), softmax(t[b, :, i, j]), y[b, i, j]
        loss = -((1 + p_t[target]) ** theta) * math.log(p_s[target])
        for c in range(len(p_s)):
            if c != target:
                loss -= p_t[c] * math.log(p_s[c])
        losses.append(loss)
    return float(np.mean(losses))


def example(
    student_channels: tuple[int, int, int] = (16, 32, 16),
    teacher_channels: TeacherChannels = TeacherChannels(24, 40, 20),  # noqa: B008 - immutable
    size: tuple[int, int] = (72, 104),
    seed: int = 0,
) -> tuple[TrainingOutput, TeacherOutput, Tensor]:
    """Random outputs for two pictures with five classes, of a size that no stride but 8 divides, and labels."""
    height, width = size

    def at(channels: int, stride: int, number: int) -> Tensor:
        return noise(2, channels, -(-height // stride), -(-width // stride), seed=10 * seed + number)

    student = TrainingOutput(
        logits=at(5, 8, 1).requires_grad_(),
        stage3=at(student_channels[0], 16, 2).requires_grad_(),
        stage4=at(student_channels[1], 32, 3).requires_grad_(),
        decoder=at(student_channels[2], 8, 4).requires_grad_(),
    )
    teacher = TeacherOutput(
        stage3=at(teacher_channels.stage3, 16, 5).requires_grad_(),
        stage4=at(teacher_channels.stage4, 32, 6).requires_grad_(),
        decoder=at(teacher_channels.decoder, 4, 7).requires_grad_(),
        logits=at(5, 4, 8).requires_grad_(),
    )
    labels = torch.randint(0, 5, (2, *size), generator=torch.Generator().manual_seed(seed))
    return student, teacher, labels


def sidm(*, features: bool = True, logits: bool = True) -> SIDM:
    torch.manual_seed(0)
    return SIDM((16, 32, 16), TeacherChannels(24, 40, 20), temperature=4.0, theta=1.5, features=features, logits=logits)


class TestAlignStatistics:
    def test_the_student_gets_the_teachers_mean_and_deviation_and_keeps_its_pattern(self):
        student, teacher = noise(2, 3, 6, 5, scale=4.0) + 2, noise(2, 3, 4, 7, seed=1, scale=0.3) - 5
        aligned = align_statistics(student, teacher)
        for b, c in np.ndindex(2, 3):
            s, t = student[b, c].double(), teacher[b, c].double()
            expected = (s - s.mean()) / s.std(correction=0) * t.std(correction=0) + t.mean()
            torch.testing.assert_close(aligned[b, c].double(), expected, rtol=1e-3, atol=1e-3)

    def test_epsilon_is_added_to_both_variances_inside_the_root(self):
        student, teacher = torch.tensor([[[[-3.0, 3.0]]]]), torch.tensor([[[[3.0, 11.0]]]])  # variances 9 and 16
        aligned = align_statistics(student, teacher, eps=7.0)
        scale = math.sqrt(23 / 16)
        torch.testing.assert_close(aligned, torch.tensor([[[[7 - 3 * scale, 7 + 3 * scale]]]]))

    def test_a_constant_map_becomes_the_teachers_mean_with_a_finite_gradient(self):
        student, teacher = torch.full((1, 1, 4, 4), 1e4).requires_grad_(), noise(1, 1, 4, 4)
        aligned = align_statistics(student, teacher)
        torch.testing.assert_close(aligned, teacher.mean().expand(1, 1, 4, 4))
        aligned.square().sum().backward()
        assert student.grad is not None
        assert student.grad.isfinite().all()

    def test_no_gradient_reaches_the_teacher_and_the_result_is_fp32(self):
        student, teacher = noise(1, 2, 3, 3).bfloat16().requires_grad_(), noise(1, 2, 3, 3).requires_grad_()
        aligned = align_statistics(student, teacher)
        assert aligned.dtype == torch.float32
        aligned.sum().backward()
        assert teacher.grad is None


class TestChannelWiseDistillation:
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_it_is_equations_4_and_5(self, temperature: float):
        student, teacher = noise(2, 3, 4, 5, scale=3.0), noise(2, 3, 4, 5, seed=1, scale=2.0)
        found = channel_wise_distillation(student, teacher, temperature)
        assert found.item() == pytest.approx(cwd_by_loops(student, teacher, temperature), rel=1e-5)

    def test_two_by_two_by_hand(self):
        # Teacher: logits ln 1, ln 1, ln 1, ln 5 at T = 2 make probabilities 1/8, 1/8, 1/8, 5/8; student: 1/4 each.
        teacher = 2 * torch.tensor([1.0, 1.0, 1.0, 5.0]).log().view(1, 1, 2, 2)
        found = channel_wise_distillation(torch.zeros(1, 1, 2, 2), teacher, 2.0)
        assert found.item() == pytest.approx(4 * (3 / 8 * math.log(1 / 2) + 5 / 8 * math.log(5 / 2)), rel=1e-5)

    def test_maps_equal_up_to_a_shift_of_each_channel_do_not_differ(self):
        teacher = noise(2, 3, 6, 6, scale=5.0)
        shifted = teacher + noise(2, 3, 1, 1, seed=1, scale=100.0)
        assert channel_wise_distillation(shifted, teacher, 4.0).item() == pytest.approx(0, abs=1e-5)
        assert channel_wise_distillation(teacher * 1.5, teacher, 4.0).item() > 0.1

    def test_no_gradient_reaches_the_teacher(self):
        student, teacher = noise(1, 2, 3, 3).requires_grad_(), noise(1, 2, 3, 3, seed=1).requires_grad_()
        channel_wise_distillation(student, teacher, 4.0).backward()
        assert student.grad is not None
        assert teacher.grad is None


class TestOFALoss:
    @pytest.mark.parametrize("theta", [1.0, 1.5, 2.0])
    def test_it_is_equation_7(self, theta: float):
        student, teacher = noise(2, 4, 3, 5, scale=2.0), noise(2, 4, 3, 5, seed=1, scale=2.0)
        labels = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
        labels[0, 1, :3] = VOID
        found = ofa_loss(student, teacher, labels, theta=theta)
        assert found.item() == pytest.approx(ofa_by_loops(student, teacher, labels, theta), rel=1e-5)

    def test_two_by_two_by_hand(self):
        # The student gives 1/2 to both classes everywhere, so each logarithm is -ln 2; the teacher gives 3/4 and 1/4.
        teacher = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 2, 2)
        labels = torch.tensor([[[0, 1], [VOID, VOID]]])
        found = ofa_loss(torch.zeros(1, 2, 2, 2), teacher, labels, theta=2.0)
        first, second = (7 / 4) ** 2 + 1 / 4, (5 / 4) ** 2 + 3 / 4
        assert found.item() == pytest.approx(math.log(2) * (first + second) / 2, rel=1e-5)

    def test_with_theta_1_it_is_equation_6_cross_entropy_and_soft_cross_entropy(self):
        student, teacher = noise(2, 4, 3, 5), noise(2, 4, 3, 5, seed=1)
        labels = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
        expected = F.cross_entropy(student, labels) + F.cross_entropy(student, teacher.softmax(1))
        torch.testing.assert_close(ofa_loss(student, teacher, labels, theta=1.0), expected)

    def test_void_pixels_teach_nothing(self):
        student, teacher = noise(1, 4, 2, 2).requires_grad_(), noise(1, 4, 2, 2, seed=1)
        ofa_loss(student, teacher, torch.tensor([[[0, VOID], [1, VOID]]]), theta=1.5).backward()
        assert student.grad is not None
        assert (student.grad[:, :, :, 1] == 0).all()
        assert (student.grad[:, :, :, 0] != 0).all()

    def test_without_a_valid_pixel_loss_and_gradient_are_zero(self):
        student, teacher = noise(1, 4, 2, 2).requires_grad_(), noise(1, 4, 2, 2, seed=1)
        loss = ofa_loss(student, teacher, torch.full((1, 2, 2), VOID), theta=1.5)
        loss.backward()
        assert loss.item() == 0
        assert student.grad is not None
        assert (student.grad == 0).all()

    def test_a_given_count_takes_the_place_of_the_own_one(self):
        student, teacher = noise(1, 4, 2, 2), noise(1, 4, 2, 2, seed=1)
        labels = torch.tensor([[[0, 1], [2, VOID]]])
        own = ofa_loss(student, teacher, labels, theta=1.5)
        torch.testing.assert_close(
            ofa_loss(student, teacher, labels, theta=1.5, num_valid=torch.tensor(6.0, dtype=torch.float64)), own / 2
        )

    def test_a_position_weighs_as_its_class(self):
        student, teacher = noise(1, 4, 1, 3), noise(1, 4, 1, 3, seed=1)
        labels = torch.tensor([[[2, 0, VOID]]])
        weights = torch.tensor([0.5, 7.0, 3.0, 7.0])
        parts = [ofa_loss(student[..., i : i + 1], teacher[..., i : i + 1], labels[..., i : i + 1], theta=1.5)
                 for i in range(2)]  # fmt: skip
        found = ofa_loss(student, teacher, labels, theta=1.5, class_weights=weights)
        torch.testing.assert_close(found, (3.0 * parts[0] + 0.5 * parts[1]) / 2)

    def test_no_gradient_reaches_the_teacher(self):
        student, teacher = noise(1, 4, 2, 2).requires_grad_(), noise(1, 4, 2, 2, seed=1).requires_grad_()
        ofa_loss(student, teacher, torch.zeros(1, 2, 2, dtype=torch.int64), theta=1.5).backward()
        assert teacher.grad is None


class TestLabelsAtStride8:
    def test_each_position_has_the_label_of_its_middle_pixel(self):
        labels = torch.arange(16 * 24).view(1, 16, 24)
        expected = labels[:, 4::8, 4::8]
        assert torch.equal(labels_at_stride8(labels, (2, 3)), expected)

    def test_sizes_that_8_does_not_divide_are_covered_to_the_edge(self):
        labels = torch.arange(17 * 30).view(1, 17, 30)
        found = labels_at_stride8(labels, (3, 4))
        rows, columns = [math.floor((i + 0.5) * 17 / 3) for i in range(3)], [3, 11, 18, 26]
        assert torch.equal(found, labels[:, rows][:, :, columns])

    def test_void_stays_void_and_does_not_mix(self):
        labels = torch.full((1, 16, 16), VOID)
        labels[:, :, :8] = 3
        assert torch.equal(labels_at_stride8(labels, (2, 2)), torch.tensor([[[3, VOID], [3, VOID]]]))


class TestSIDM:
    def test_cwd_is_the_mean_over_three_projected_resized_and_aligned_maps(self):
        student, teacher, labels = example()
        module = sidm()
        expected = []
        for projection, own, taught in zip(module.projections, student[1:], teacher[:3], strict=True):
            larger = F.interpolate(own, size=taught.shape[2:], mode="bilinear", align_corners=False)
            assert isinstance(projection, nn.Conv2d)
            projected = torch.einsum("oc,bchw->bohw", projection.weight[:, :, 0, 0], larger)  # after the resize here
            expected.append(cwd_by_loops(align_statistics(projected, taught).detach(), taught.detach(), 4.0))
        assert module(student, teacher, labels).cwd.item() == pytest.approx(np.mean(expected), rel=1e-4)

    def test_ofa_compares_at_the_students_stride(self):
        student, teacher, labels = example()
        labels[:, :40] = VOID
        targets = F.interpolate(teacher.logits, size=(9, 13), mode="bilinear", align_corners=False)
        expected = ofa_by_loops(student.logits.detach(), targets.detach(), labels_at_stride8(labels, (9, 13)), 1.5)
        assert sidm()(student, teacher, labels).ofa.item() == pytest.approx(expected, rel=1e-5)
        halved = sidm()(student, teacher, labels, torch.tensor(4 * 13 * 2 * 2))  # four of nine rows are left
        assert halved.ofa.item() == pytest.approx(expected / 2, rel=1e-5)

    def test_gradients_are_those_of_the_whole_batch_at_once(self):
        student, teacher, labels = example()
        module = sidm(logits=False)
        parameters = [*student[1:], *module.parameters()]
        found = torch.autograd.grad(7 * module(student, teacher, labels).cwd, parameters)
        losses = []
        for projection, own, taught in zip(module.projections, student[1:], teacher[:3], strict=True):
            larger = F.interpolate(projection(own), size=taught.shape[2:], mode="bilinear", align_corners=False)
            losses.append(channel_wise_distillation(align_statistics(larger, taught), taught, 4.0))
        expected = torch.autograd.grad(7 * torch.stack(losses).mean(), parameters)
        torch.testing.assert_close(found, expected)

    def test_gradients_reach_the_student_and_the_projections_and_never_the_teacher(self):
        student, teacher, labels = example()
        module = sidm()
        losses = module(student, teacher, labels)
        (losses.cwd + losses.ofa).backward()
        for learnt in (*student, *module.parameters()):
            assert learnt.grad is not None
            assert learnt.grad.abs().max() > 0
        assert all(taught.grad is None for taught in teacher)

    @pytest.mark.parametrize(("features", "logits"), [(True, False), (False, True)])
    def test_each_half_alone(self, features: bool, logits: bool):
        student, teacher, labels = example()
        module, both = sidm(features=features, logits=logits), sidm()(student, teacher, labels)
        alone = module(student, teacher, labels)
        assert alone.cwd.item() == (both.cwd.item() if features else 0)
        assert alone.ofa.item() == (both.ofa.item() if logits else 0)
        assert len(list(module.parameters())) == (3 if features else 0)

    def test_the_size_and_place_of_the_students_features_do_not_matter(self):
        student, teacher, labels = example()
        scaled = student._replace(stage3=student.stage3 * 100 + 7, decoder=student.decoder * 10 - 3)
        torch.testing.assert_close(
            sidm()(scaled, teacher, labels).cwd, sidm()(student, teacher, labels).cwd, rtol=1e-3, atol=1e-5
        )

    @pytest.mark.parametrize("autocast", [True, False])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", ["constant", "huge", "zero"])
    def test_half_precision_stays_finite(self, kind: str, dtype: torch.dtype, autocast: bool):
        student, teacher, labels = example()
        change = {
            "constant": lambda maps: torch.full_like(maps, 1e4),
            "huge": lambda maps: (maps * 1e4).clamp(-6e4, 6e4),
            "zero": torch.zeros_like,
        }[kind]
        student = TrainingOutput(*(change(maps.detach()).to(dtype).requires_grad_() for maps in student))
        teacher = TeacherOutput(*(change(maps.detach()).to(dtype) for maps in teacher))
        module = sidm()
        with torch.autocast("cpu", dtype, enabled=autocast):
            losses = module(student, teacher, labels)
        assert losses.cwd.dtype == losses.ofa.dtype == torch.float32
        (losses.cwd + losses.ofa).backward()
        assert losses.cwd.isfinite()
        assert losses.ofa.isfinite()
        for learnt in (*student, *module.parameters()):
            assert learnt.grad is not None
            assert learnt.grad.isfinite().all()

    def test_autocast_changes_nothing(self):
        student, teacher, labels = example()
        module = sidm()
        expected = module(student, teacher, labels)
        with torch.autocast("cpu", torch.bfloat16):
            found = module(student, teacher, labels)
        assert torch.equal(torch.stack(found), torch.stack(expected))

    def test_a_student_that_learns_by_it_comes_nearer_to_the_teacher(self):
        student, teacher, labels = example()
        module = sidm()
        learnt = [*student, *module.parameters()]
        optimizer = torch.optim.Adam(learnt, lr=0.05)
        first = module(student, teacher, labels)
        for _ in range(15):
            optimizer.zero_grad()
            losses = module(student, teacher, labels)
            (losses.cwd + losses.ofa).backward()
            optimizer.step()
        last = module(student, teacher, labels)
        assert last.cwd < 0.8 * first.cwd
        assert last.ofa < 0.8 * first.ofa
