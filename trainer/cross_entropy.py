"""Cross-entropy at the labels' resolution, of logits at a fraction of it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bsdnet.classes import IGNORE_INDEX


def enlarge(logits: Tensor, labels: Tensor) -> Tensor:
    """Bring logits of any stride to the labels' size, in fp32.

    Args:
        logits: `(B, num_classes, h, w)`.
        labels: `(B, H, W)`.

    Returns:
        `(B, num_classes, H, W)` fp32.
    """
    return F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)


def summed_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Sum the cross-entropy of enlarged logits over all pixels but void ones.

    Picture by picture, with the gradient at once and kept at the logits' size: whole batches of logits at the labels'
    size are among the largest tensors of a step, and take twice as long.

    Args:
        logits: `(B, num_classes, h, w)` of any stride.
        labels: `(B, H, W)` int64, 255 for void.
        class_weights: `(num_classes,)`; None weighs all alike.
        label_smoothing: share of the target that is spread over all classes.

    Returns:
        Scalar fp32.
    """
    total: Tensor = _PictureByPicture.apply(logits, labels, class_weights, label_smoothing)  # type: ignore[no-untyped-call]
    return total


class _PictureByPicture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - PyTorch's
        logits: Tensor,
        labels: Tensor,
        class_weights: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        total = torch.zeros((), device=logits.device)
        gradients: list[Tensor] = []
        for index in range(len(logits)):
            leaf = logits[index : index + 1].detach().float().requires_grad_()
            its_labels = labels[index : index + 1]
            with torch.enable_grad():
                loss = F.cross_entropy(
                    enlarge(leaf, its_labels),
                    its_labels,
                    class_weights,
                    ignore_index=IGNORE_INDEX,
                    label_smoothing=label_smoothing,
                    reduction="sum",
                )
            gradients += torch.autograd.grad(loss, leaf)
            total += loss.detach()
        ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = logits.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - PyTorch's
        (gradient,) = ctx.saved_tensors
        return (gradient * scale).to(ctx.dtype), None, None, None
