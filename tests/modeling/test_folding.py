"""Batch norms folded into convolutions."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bsdnet.modeling import BSDNet, bsdnet_b, bsdnet_s, fold_batch_norms
from bsdnet.modeling.fcb import FCB

from .parameters import randomised


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("build", [bsdnet_s, bsdnet_b])
def test_logits_stay_and_only_the_batch_norms_after_additions_are_left(build: Callable[[], BSDNet]) -> None:
    model = randomised(build())
    folded = fold_batch_norms(model)
    assert count(folded, nn.BatchNorm2d) == 2 * count(model, FCB) == 6
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, actual = model(x), folded(x)
    assert (actual - logits).abs().max() <= 1e-4 * logits.abs().max()


def test_the_model_is_left_as_it_is() -> None:
    model = randomised(bsdnet_s()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norms(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in folded.parameters())


def test_the_result_is_for_inference() -> None:
    folded = fold_batch_norms(bsdnet_s().train())
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_a_convolution_with_a_bias() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    x = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norms(model)
    assert count(folded, nn.BatchNorm2d) == 0
    torch.testing.assert_close(folded(x), model(x))


def test_a_batch_norm_that_follows_something_else_stays() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)))
    assert count(fold_batch_norms(model), nn.BatchNorm2d) == 1


class Backwards(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in reversed(self):
            x = module(x)
        return x


def test_children_that_run_in_another_order_are_left_alone() -> None:
    model = randomised(Backwards(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    x = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fold_batch_norms(model)(x), model(x))
