from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bsdnet.checkpoint import save_backbone
from bsdnet.classes import CAMVID_11
from bsdnet.errors import CheckpointError, ConfigError
from bsdnet.modeling import BSDNet, BSDNetConfig
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG, Backbone
from tests.trainer.test_bsdnet_teacher import make_network, write
from tests.trainer.tiny import TINY
from trainer.recipes import CAMVID_360
from trainer.trainees import CONFIGS, build_student, shape_of
from trainer.widening import widen, widen_backbone

WIDER = {
    "twice": replace(TINY, channels=(32, 32, 64, 64), dasp_channels=16, decoder_channels=16),
    "a half more": replace(TINY, channels=(24, 24, 48, 48), dasp_channels=12, decoder_channels=12),
    "some more, some thrice": replace(TINY, channels=(18, 48, 33, 34), dasp_channels=9, decoder_channels=24),
    "equal": TINY,
    "one part": replace(TINY, dasp_channels=20),
}


@pytest.fixture
def trained_tiny() -> BSDNet:
    """A network all of whose numbers differ, batch norm's as well."""
    torch.manual_seed(0)
    network = BSDNet(TINY)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data.mul_(torch.empty_like(tensor).uniform_(0.8, 1.2)).add_(0.01 * torch.rand_like(tensor))
    return network.eval()


def logits(network: BSDNet, *, training: bool = False) -> Tensor:
    pictures = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.train(training).forward_all(pictures).logits


@pytest.mark.parametrize("config", WIDER.values(), ids=WIDER)
@pytest.mark.parametrize("training", [False, True])
def test_a_widened_network_computes_the_same(trained_tiny: BSDNet, config: BSDNetConfig, training: bool) -> None:
    wide = widen(trained_tiny, config)
    assert wide.config == config
    expected = logits(trained_tiny, training=training)
    assert expected.std() > 0.01  # else anything would agree
    torch.testing.assert_close(logits(wide, training=training), expected, rtol=1e-3, atol=1e-4)


def test_s_becomes_b() -> None:
    torch.manual_seed(0)
    small = BSDNet(replace(S_CONFIG, num_classes=11)).eval()
    wide = widen(small, replace(B_CONFIG, num_classes=11))
    assert not wide.training
    torch.testing.assert_close(logits(wide), logits(small))


def test_copies_of_a_channel_learn_different_things(trained_tiny: BSDNet) -> None:
    wide = widen(trained_tiny, WIDER["twice"]).train()
    wide(torch.randn(2, 3, 64, 96)).logits.square().mean().backward()
    for name, module in wide.named_modules():
        if isinstance(module, nn.Conv2d):
            gradient = module.weight.grad
            assert gradient is not None
            half = len(gradient) // 2
            if name != "head.classifier":  # its outputs are the classes
                assert not torch.allclose(gradient[:half], gradient[half:], rtol=1e-2, atol=0), name


def test_the_shares_are_the_same_every_time(trained_tiny: BSDNet) -> None:
    torch.manual_seed(1)
    one = widen(trained_tiny, WIDER["twice"]).state_dict()
    torch.manual_seed(2)
    two = widen(trained_tiny, WIDER["twice"]).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_student_begins_the_same_whatever_the_runs_seed(tmp_path: Path) -> None:
    initial = Path(write(tmp_path / "s.safetensors", make_network()))
    shape = shape_of(initial) | {"model": "b"}
    recipes = [replace(CAMVID_360, **shape, seed=seed) for seed in (1, 2)]
    one, two = (build_student(recipe, CAMVID_11, initial=initial).network for recipe in recipes)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), two.parameters(), strict=True))


def test_other_shares_can_be_drawn(trained_tiny: BSDNet) -> None:
    one, two, other = (
        widen(trained_tiny, WIDER["twice"], torch.Generator().manual_seed(seed)).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.conv.0.weight"], other["head.conv.0.weight"])


def test_the_old_network_is_left_as_it_was(trained_tiny: BSDNet) -> None:
    before = {name: tensor.clone() for name, tensor in trained_tiny.state_dict().items()}
    widen(trained_tiny, WIDER["twice"])
    assert all(torch.equal(before[name], tensor) for name, tensor in trained_tiny.state_dict().items())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (replace(TINY, channels=(16, 16, 16, 32)), r"channels was \(16, 16, 32, 32\) and would be \(16, 16, 16, 32\)"),
        (replace(TINY, dasp_channels=4), "dasp_channels was 8 and would be 4"),
        (replace(TINY, decoder_channels=7), "decoder_channels was 8 and would be 7"),
        (replace(TINY, num_kernels=16), "in its channels alone"),
        (replace(TINY, num_classes=11), "in its channels alone"),
        (replace(TINY, depths=(2, 2, 2)), "in its channels alone"),
    ],
)
def test_another_shape_is_refused(trained_tiny: BSDNet, config: BSDNetConfig, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        widen(trained_tiny, config)


@pytest.mark.parametrize("ablation", [{"block": "res"}, {"context": "aspp"}])
def test_an_ablations_network_is_refused(ablation: dict[str, str]) -> None:
    config = replace(TINY, **ablation)
    with pytest.raises(ConfigError, match="with FCBs and DASP"):
        widen(BSDNet(config), replace(config, decoder_channels=16))


@pytest.mark.parametrize("training", [False, True])
def test_a_widened_backbone_repeats_the_maps(trained_tiny: BSDNet, training: bool) -> None:
    config = WIDER["some more, some thrice"]
    narrow = trained_tiny.backbone.train(training)
    wide = widen_backbone(narrow, TINY, config)
    assert wide.training == training
    pictures = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for map_, wider in zip(narrow(pictures), wide(pictures), strict=True):
            copies = torch.arange(wider.shape[1]) % map_.shape[1]
            torch.testing.assert_close(wider, map_[:, copies], rtol=1e-3, atol=1e-4)


def test_a_backbone_of_s_becomes_that_of_b(tmp_path: Path, trained_tiny: BSDNet) -> None:
    save_backbone(tmp_path / "s.safetensors", trained_tiny.backbone, "bsdnet_s")
    recipe = replace(CAMVID_360, model="b", dasp_rates=TINY.dasp_rates)
    network = build_student(recipe, CAMVID_11, pretrained=tmp_path / "s.safetensors").network
    pictures = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, wider = trained_tiny.backbone(pictures).stage4, network.eval().backbone(pictures).stage4
    assert wider.shape[1] > maps.shape[1]
    torch.testing.assert_close(wider[:, : maps.shape[1]], maps, rtol=2e-2, atol=2e-2)  # kernels were kept in fp16


def test_a_backbone_is_widened_whatever_context_stands_on_it(tmp_path: Path, trained_tiny: BSDNet) -> None:
    save_backbone(tmp_path / "s.safetensors", trained_tiny.backbone, "bsdnet_s")
    recipe = replace(CAMVID_360, model="b", context="aspp")
    assert build_student(recipe, CAMVID_11, pretrained=tmp_path / "s.safetensors").network.config.context == "aspp"
    with pytest.raises(CheckpointError, match="another shape"):
        build_student(replace(recipe, block="res"), CAMVID_11, pretrained=tmp_path / "s.safetensors")


def test_a_backbone_that_is_read_leaves_chance_as_it_was(tmp_path: Path, trained_tiny: BSDNet) -> None:
    save_backbone(tmp_path / "s.safetensors", trained_tiny.backbone, "bsdnet_s")
    build_student(CAMVID_360, CAMVID_11)
    expected = torch.rand(1)
    build_student(CAMVID_360, CAMVID_11, pretrained=tmp_path / "s.safetensors")
    assert torch.rand(1) == expected


def test_a_backbone_of_b_does_not_become_that_of_s(tmp_path: Path) -> None:
    save_backbone(tmp_path / "b.safetensors", Backbone(CONFIGS["b"]), "bsdnet_b")
    with pytest.raises(ConfigError, match=r"b\.safetensors has another shape than the network: .* narrowed"):
        build_student(CAMVID_360, CAMVID_11, pretrained=tmp_path / "b.safetensors")
