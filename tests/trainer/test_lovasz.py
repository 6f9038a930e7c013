import pytest
import torch
from torch.nn import functional as F

from trainer.lovasz import lovasz_softmax


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at stride 8 and labels of two pictures, of classes of different sizes; a part is void."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 6, 8, generator=generator)
    labels = torch.randint(0, 4, (2, 48, 64), generator=generator).clamp(max=2)  # of 3 and 4 there are none
    labels[:, :10, :30] = 255
    return logits, labels


def mean_iou(predicted: torch.Tensor, labels: torch.Tensor, classes: list[int]) -> float:
    valid = labels != 255
    ious = []
    for label in classes:
        found, wanted = (predicted == label) & valid, labels == label
        ious.append(((found & wanted).sum() / (found | wanted).sum()).item())
    return sum(ious) / len(ious)


def test_of_hard_predictions_it_is_one_minus_the_mean_iou():
    logits, labels = scene()
    hard = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False).argmax(1)
    sure = 1e4 * F.one_hot(hard, 5).movedim(-1, 1).float()  # at the labels' size
    expected = 1 - mean_iou(hard, labels, [0, 1, 2])  # the classes that the labels show
    assert 0.5 < expected < 0.95
    assert lovasz_softmax(sure, labels, step=1).item() == pytest.approx(expected, abs=1e-5)


def test_it_is_the_lovasz_extension_of_the_iou_loss():
    """By its definition: the sum over sorted errors, weighed by what each more wrong pixel costs in IoU."""
    logits, labels = scene(1)
    probabilities = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False).softmax(1)
    valid = labels != 255
    total = 0.0
    for label in (0, 1, 2):
        hits = (labels == label)[valid]
        errors = (hits.float() - probabilities[:, label][valid]).abs()
        before, wrong = 0.0, torch.zeros_like(hits)
        for pixel in errors.argsort(descending=True).tolist():
            wrong[pixel] = True
            called = hits ^ wrong  # what is of this class if these pixels are wrong
            lost = 1 - ((called & hits).sum() / (called | hits).sum()).item()
            total += errors[pixel].item() * (lost - before)
            before = lost
    assert lovasz_softmax(logits, labels, step=1).item() == pytest.approx(total / 3, rel=1e-4)


def test_a_part_of_the_pixels_stands_for_all():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 24, 24, generator=generator)
    labels = torch.randint(0, 5, (2, 192, 192), generator=generator)
    exact = lovasz_softmax(logits, labels, step=1).item()
    assert lovasz_softmax(logits, labels).item() == pytest.approx(exact, rel=0.01)


def test_its_gradient_lowers_it():
    logits, labels = scene(2)
    before = None
    for _ in range(20):
        logits = logits.detach().requires_grad_()
        loss = lovasz_softmax(logits, labels)
        loss.backward()
        assert before is None or loss.item() < before
        before = loss.item()
        logits = logits - 20 * logits.grad


@pytest.mark.parametrize("shape", [(48, 64), (1, 1)])
def test_where_all_is_void_it_is_zero(shape: tuple[int, int]):
    logits = torch.randn(1, 5, 6, 8, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((1, *shape), 255))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_computed_in_fp32(dtype: torch.dtype):
    logits, labels = scene()
    rounded = logits.to(dtype)
    assert lovasz_softmax(rounded, labels) == lovasz_softmax(rounded.float(), labels)
    assert lovasz_softmax(rounded, labels).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees():
    logits, labels = scene()
    found = lovasz_softmax(logits.cuda(), labels.cuda())
    assert found.item() == pytest.approx(lovasz_softmax(logits, labels).item(), rel=1e-5)
