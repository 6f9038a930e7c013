"""A loss that is, for hard predictions, one minus the mean IoU: what the networks are judged by."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bsdnet.classes import IGNORE_INDEX

SAMPLING_STEP = 5
"""Distance of the pixels that count, in pixels. It has no factor in common with the logits' stride of 8: so they lie
everywhere between the logits' positions. All pixels would be 25 times as many to sort."""


def lovasz_softmax(logits: Tensor, labels: Tensor, step: int = SAMPLING_STEP) -> Tensor:
    """Compute the Lovasz-softmax loss over all pictures of a batch together (Berman et al., CVPR 2018).

    It averages over the classes that the labels show: rare ones count as much as the others, as in the mean IoU.
    Nothing waits for a GPU.

    Args:
        logits: `(B, num_classes, h, w)` of any stride, enlarged bilinearly.
        labels: `(B, H, W)` int64, 255 for void.
        step: every so many-th row and column counts.

    Returns:
        Scalar fp32 from 0 to 1; 0 if all is void.
    """
    rows, columns = (_sampled(size, step, labels.device) for size in labels.shape[-2:])
    known = labels[:, rows[:, None], columns].flatten()
    errors, hits = _errors(_look_up(logits, labels, rows, columns), known)
    errors, order = errors.sort(dim=1, descending=True)
    hits = hits.gather(1, order)
    count = hits.sum(1, keepdim=True)
    # The IoU's loss if the first, the first two, ... of the worst pixels were wrong; its increments are the gradient of
    # the Lovasz extension.
    lost = 1 - (count - hits.cumsum(1)) / (count + (1 - hits).cumsum(1)).clamp(min=1)
    steps = torch.cat([lost[:, :1], lost.diff(dim=1)], 1)
    losses, shown = (errors * steps).sum(1), count[:, 0] > 0
    return (losses * shown).sum() / shown.sum().clamp(min=1)


def _errors(probabilities: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Give for each class how far each pixel is from its label, and whether it is of that class, `(num_classes, N)`.

    Void pixels have no error and no class: they are sorted to the end, where they change nothing.
    """
    classes = torch.arange(len(probabilities), device=known.device)
    hits = (known == classes[:, None]).float()
    return (hits - probabilities).abs() * (known != IGNORE_INDEX), hits


def _sampled(size: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(min(step // 2, size - 1), size, step, device=device)


def _look_up(logits: Tensor, labels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Give the classes' probabilities at pixels of the labels, as if the logits were enlarged, `(num_classes, N)`."""
    height, width = labels.shape[-2:]
    y, x = (rows + 0.5) / height * 2 - 1, (columns + 0.5) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(len(logits), -1, -1, -1)
    values = F.grid_sample(logits.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.softmax(1).transpose(0, 1).flatten(1)
