"""SIDM: what the student learns from the teacher's features and logits.

Source: the BSDNet paper, section 3.3, equations 4 to 7. What it leaves open is decided in `docs/adr/`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bsdnet.classes import IGNORE_INDEX
from bsdnet.modeling.bsdnet import TrainingOutput
from trainer.datasets.contract import TAUGHT
from trainer.teacher import TeacherChannels, TeacherOutput, resize


class DistillationLosses(NamedTuple):
    """Scalars, unweighted; zero for what was not asked for."""

    cwd: Tensor
    """Of the features: the mean over stage 3, stage 4 and the decoder."""
    ofa: Tensor
    """Of the logits."""


class SIDM(nn.Module):
    """The Semantic Information Distillation Module, which exists in training only.

    It brings the student's features to the teacher's channels by 1x1 projections, to its resolution and to its
    statistics, and compares them channel by channel; logits are compared as they are, at the student's stride.
    All of it is computed in fp32, whatever autocast says.

    Args:
        student_channels: channels of the student's stage 3, stage 4 and decoder.
        teacher_channels: channels of the teacher's maps.
        temperature: T of equation 4.
        theta: exponent of equation 7.
        features: whether the features are distilled.
        logits: whether the logits are.
        class_weights: weight of each class in the logits' distillation, `(num_classes,)`; None weighs all alike.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        student_channels: tuple[int, int, int],
        teacher_channels: TeacherChannels,
        *,
        temperature: float,
        theta: float,
        features: bool,
        logits: bool,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        # No bias: the alignment of the statistics would undo it.
        pairs = zip(student_channels, teacher_channels, strict=True) if features else ()
        self.projections = nn.ModuleList(nn.Conv2d(own, taught, 1, bias=False) for own, taught in pairs)
        self.temperature, self.theta, self.logits = temperature, theta, logits

    def forward(
        self, student: TrainingOutput, teacher: TeacherOutput, labels: Tensor, num_valid: Tensor | None = None
    ) -> DistillationLosses:
        """Compare the student with the teacher.

        Args:
            student: its maps and logits.
            teacher: likewise; no gradient reaches it.
            labels: `(B, H, W)` int64, 255 for void, `TAUGHT` for what the teacher alone tells.
            num_valid: scalar that the sum over positions at stride 8 is divided by; None counts the valid ones.
        """
        cwd = ofa = student.logits.new_zeros((), dtype=torch.float32)
        with torch.autocast(student.logits.device.type, enabled=False):
            if len(self.projections):
                cwd = self._compare_features(student, teacher)
            if self.logits:
                size = (student.logits.shape[2], student.logits.shape[3])
                targets = resize(teacher.logits.float(), size)
                positions = labels_at_stride8(labels, size)
                positions = torch.where(positions == TAUGHT, targets.argmax(1), positions)
                ofa = ofa_loss(
                    student.logits,
                    targets,
                    positions,
                    theta=self.theta,
                    num_valid=num_valid,
                    class_weights=self.class_weights,
                )
        return DistillationLosses(cwd, ofa)

    def _compare_features(self, student: TrainingOutput, teacher: TeacherOutput) -> Tensor:
        own, taught = (student.stage3, student.stage4, student.decoder), teacher[:3]
        losses: list[Tensor] = [
            _PictureByPicture.apply(projection(a.float()), b, self.temperature)  # type: ignore[no-untyped-call]
            for projection, a, b in zip(self.projections, own, taught, strict=True)
        ]
        return torch.stack(losses).mean()


class _PictureByPicture(torch.autograd.Function):
    """Distillation of one pair of maps, averaged over the pictures, of which only one is in fp32 at a time.

    The gradient is computed with the loss and kept at the student's resolution. A teacher's decoder map at stride 4 is
    the largest tensor of a step, and autograd would keep four such maps of the whole batch in fp32.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ANN401
        student = student.contiguous()
        gradient, loss = torch.empty_like(student), student.new_zeros(())
        for index in range(len(student)):
            taught = teacher[index : index + 1]
            with torch.enable_grad():
                own = student[index : index + 1].detach().requires_grad_()
                # The 1x1 projection and the resize commute, so the smaller map was projected.
                aligned = align_statistics(resize(own, taught.shape[2:]), taught)
                part = channel_wise_distillation(aligned, taught, temperature) / len(student)
            (gradient[index : index + 1],) = torch.autograd.grad(part, own)
            loss += part.detach()
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def align_statistics(student: Tensor, teacher: Tensor, eps: float = 1e-5) -> Tensor:
    """Give each channel of each picture the teacher's mean and deviation over space.

    Args:
        student: `(B, C, H, W)`.
        teacher: `(B, C, h, w)`; no gradient reaches it.
        eps: added to the variances, inside the square root.

    Returns:
        `(B, C, H, W)` fp32.
    """
    own, taught = student.float().flatten(2), teacher.detach().float().flatten(2)
    normalized = F.layer_norm(own, own.shape[2:], eps=eps)  # over space; on a CPU var_mean takes ten times as long
    mean = taught.mean(2, keepdim=True)
    deviation = ((taught - mean).square().mean(2, keepdim=True) + eps).sqrt()
    return torch.addcmul(mean, normalized, deviation).view(student.shape)


def channel_wise_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compare where each channel is strong: equations 4 and 5, averaged over the pictures.

    Args:
        student: `(B, C, H, W)`.
        teacher: `(B, C, H, W)`; no gradient reaches it.
        temperature: T; the larger, the softer the distributions.

    Returns:
        Scalar fp32: the Kullback-Leibler divergence between the softmaxes over space, times T squared, over C.
    """
    batch, channels = student.shape[:2]
    log_student = (student.float() / temperature).flatten(2).log_softmax(2)
    log_teacher = (teacher.detach().float() / temperature).flatten(2).log_softmax(2)
    divergence = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence * (temperature**2 / (batch * channels))


def ofa_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    theta: float,
    num_valid: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Compare logits, the more on the target class the surer the teacher is of it: equation 7 in closed form.

    `-(1 + p_T[t])^theta log p_S[t] - sum over c != t of p_T[c] log p_S[c]`, t being the label's class.

    Args:
        student: logits, `(B, num_classes, H, W)`.
        teacher: logits of the same shape; no gradient reaches it.
        labels: t by position, `(B, H, W)` int64, 255 for positions that are left out.
        theta: exponent; 1 gives equation 6.
        num_valid: scalar that the sum is divided by; None counts the valid positions.
        class_weights: weight of a position by its t, `(num_classes,)`; None weighs all alike.

    Returns:
        Scalar fp32; zero if no position is valid.
    """
    valid = labels != IGNORE_INDEX
    target = labels.masked_fill(~valid, 0)[:, None]
    log_student = student.float().log_softmax(1)
    p_teacher = teacher.detach().float().softmax(1)
    p_target = p_teacher.gather(1, target)
    # The sum over all classes has p_T[t] log p_S[t] once, which the target's own weight takes out again.
    weight = (1 + p_target) ** theta - p_target
    losses = -weight * log_student.gather(1, target) - (p_teacher * log_student).sum(1, keepdim=True)
    if class_weights is not None:
        losses = losses * class_weights[target]
    count = valid.sum() if num_valid is None else num_valid
    return losses[:, 0].masked_fill(~valid, 0).sum() / count.clamp(min=1).float()


def labels_at_stride8(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring labels to the logits' size by their nearest pixel.

    Args:
        labels: `(B, H, W)` int64.
        size: height and width of the logits.

    Returns:
        `(B, *size)` int64.
    """
    planes = labels[:, None].float()  # exact: classes are far below 2^24
    return F.interpolate(planes, size=size, mode="nearest-exact")[:, 0].long()
