import pytest
import torch
from torch.nn import functional as F

from trainer.cross_entropy import summed_cross_entropy


@pytest.mark.parametrize("class_weights", [None, torch.linspace(0.5, 2, 5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradient_are_those_of_the_whole_batch_at_once(smoothing: float, class_weights: torch.Tensor | None):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, 6, generator=generator).requires_grad_()
    labels = torch.randint(0, 5, (3, 32, 48), generator=generator)
    labels[1, :20] = 255
    found = summed_cross_entropy(logits, labels, class_weights, smoothing)
    expected = F.cross_entropy(
        F.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False),
        labels,
        class_weights,
        ignore_index=255,
        label_smoothing=smoothing,
        reduction="sum",
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found / 7, logits), torch.autograd.grad(expected / 7, logits))
