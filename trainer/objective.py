"""What one training step of segmentation computes: from pictures and labels to the parts of the loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.classes import IGNORE_INDEX
from bsdnet.modeling.bsdnet import BSDNet, TrainingOutput
from bsdnet.modeling.head import SegmentationHead
from trainer.cross_entropy import enlarge, summed_cross_entropy
from trainer.datasets.contract import TAUGHT
from trainer.device import autocast
from trainer.distill import SIDM, labels_at_stride8
from trainer.lovasz import lovasz_softmax
from trainer.recipes import SegmentationRecipe
from trainer.teacher import Teacher


class SegmentationObjective(nn.Module):
    """Cross-entropy on labels, distillation from a teacher, and an auxiliary head if the recipe has one.

    Everything that learns is a part of this module, so that one wrapper synchronises all of it; the teacher is not.

    Args:
        network: a `BSDNet`, or any network that maps pictures to logits where there is neither teacher nor auxiliary
            head.
        recipe: which losses, and their weights.
        class_weights: weight of each class in the cross-entropy, `(num_classes,)`.
        ofa_class_weights: likewise in the logits' distillation; None weighs all alike.
        teacher: what to learn from; required unless the recipe's `distill` is `none` and labels exist.
        labelled: whether labels hold classes; if not, they mark valid pixels, whose classes the teacher tells.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: SegmentationRecipe,
        *,
        class_weights: Tensor | None = None,
        ofa_class_weights: Tensor | None = None,
        teacher: Teacher | None = None,
        labelled: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.sidm: SIDM | None = None
        self.auxiliary: SegmentationHead | None = None
        self._teacher, self._labelled = teacher, labelled
        self._class_weights: Tensor | None
        self.register_buffer("_class_weights", class_weights, persistent=False)
        self._weight_by_label: Tensor
        self.register_buffer("_weight_by_label", _weight_by_label(class_weights), persistent=False)
        if isinstance(network, BSDNet):
            config = network.config
            if teacher is not None and recipe.distill != "none":
                self.sidm = SIDM(
                    (*config.channels[2:], config.decoder_channels),
                    teacher.channels,
                    temperature=recipe.temperature,
                    theta=recipe.theta,
                    features=recipe.distill in ("cwd", "sidm"),
                    logits=recipe.distill in ("ofa", "sidm"),
                    class_weights=ofa_class_weights,
                )
            if recipe.auxiliary_weight > 0:
                self.auxiliary = SegmentationHead(config.channels[2], config.decoder_channels, config.num_classes)

    def count_valid(self, labels: Tensor) -> Tensor:
        """Count what a step's sums are divided by, `(2,)` fp64: weighted pixels, and positions at stride 8.

        Args:
            labels: `(B, H, W)` int64, 255 where there is none.
        """
        pixels = self._weight_by_label[labels].sum(dtype=torch.float64)
        height, width = labels.shape[-2:]
        positions = labels_at_stride8(labels, (-(-height // 8), -(-width // 8))) != IGNORE_INDEX
        return torch.stack([pixels, positions.sum().double()])

    def forward(self, images: Tensor, labels: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Compute one step's loss.

        Args:
            images: normalised pictures, `(B, 3, H, W)`, or `(B, 6, H, W)`: what the student sees, then what the
                teacher sees of the same.
            labels: `(B, H, W)` int64, 255 where there is none, `TAUGHT` where the teacher alone tells the class.
            counts: what the sums are divided by, as from `count_valid`, `(2,)`: over several processes, each one's mean
                share of the whole batch's.

        Returns:
            Scalars: the parts, unweighted, and their weighted sum as `loss`. Summed over the parts of an accumulated
            step and averaged over the processes, they are those of the whole batch; but where only a share of hard
            pixels counts, these are the hardest of each part by itself, and the Lovasz loss is that of each part.
        """
        recipe = self.recipe
        images, clear = _as_seen(images)
        with autocast(images.device, recipe.precision):
            taught = None if self._teacher is None else self._teacher(clear)
            output = self.network(images)
            auxiliary = None if self.auxiliary is None else self.auxiliary(output.stage3)
        if taught is not None and not self._labelled:
            labels = torch.where(labels == IGNORE_INDEX, labels, enlarge(taught.logits, labels).argmax(1))
        known = labels.masked_fill(labels == TAUGHT, IGNORE_INDEX)
        parts = {"ce": self._cross_entropy(_logits(output), known, counts[0])}
        loss = parts["ce"]
        if self.sidm is not None and taught is not None:
            distilled = self.sidm(output, taught, labels, counts[1])
            if recipe.distill in ("cwd", "sidm"):
                parts["cwd"] = distilled.cwd / recipe.accumulation  # a mean over pictures, not a sum over pixels
                loss = loss + recipe.cwd_weight * parts["cwd"]
            if recipe.distill in ("ofa", "sidm"):
                parts["ofa"] = distilled.ofa
                loss = loss + recipe.ofa_weight * parts["ofa"]
        if recipe.lovasz_weight > 0:
            parts["lovasz"] = lovasz_softmax(_logits(output), known) / recipe.accumulation
            loss = loss + recipe.lovasz_weight * parts["lovasz"]
        if auxiliary is not None:
            parts["auxiliary"] = self._cross_entropy(auxiliary, known, counts[0])
            loss = loss + recipe.auxiliary_weight * parts["auxiliary"]
        return {"loss": loss, **parts}

    def _cross_entropy(self, logits: Tensor, labels: Tensor, valid_pixels: Tensor) -> Tensor:
        share, smoothing = self.recipe.hard_pixel_share, self.recipe.label_smoothing
        if share == 1:
            total = summed_cross_entropy(logits, labels, self._class_weights, smoothing)
        else:
            losses = F.cross_entropy(
                enlarge(logits, labels),
                labels,
                self._class_weights,
                ignore_index=IGNORE_INDEX,
                label_smoothing=smoothing,
                reduction="none",
            )
            # Void pixels have a loss of zero, so they are never among the largest while others are left.
            hard = max(1, int(share * int((labels != IGNORE_INDEX).sum())))
            total = losses.flatten().topk(hard, sorted=False).values.sum() / share
        return total / valid_pixels.clamp(min=1).to(total.dtype)


def _weight_by_label(class_weights: Tensor | None) -> Tensor:
    """Give the weight of a pixel by its label, `(256,)`: looking it up waits for no GPU, choosing pixels would."""
    if class_weights is None:
        weights = torch.ones(256)
    else:
        weights = torch.zeros(256, device=class_weights.device)
        weights[: len(class_weights)] = class_weights
    weights[[TAUGHT, IGNORE_INDEX]] = 0
    return weights


def _as_seen(images: Tensor) -> tuple[Tensor, Tensor]:
    """Give what the student and what the teacher sees, each in one piece of memory."""
    if images.shape[1] == 3:
        return images, images
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return images[:, :3].contiguous(memory_format=layout), images[:, 3:].contiguous(memory_format=layout)


def _logits(output: Tensor | TrainingOutput) -> Tensor:
    return output.logits if isinstance(output, TrainingOutput) else output
