"""The whole network: size, shapes, numerics, export."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from bsdnet.errors import ConfigError
from bsdnet.modeling import BSDNet, BSDNetConfig, TrainingOutput, bsdnet_b, bsdnet_s
from bsdnet.modeling.fcb import FCB
from bsdnet.modeling.layers import BasicBlock, ConvBNAct

from .parameters import randomised

TINY = BSDNetConfig(
    num_classes=5,
    channels=(4, 6, 8, 10),
    num_kernels=4,
    groups=2,
    kernel_size=3,
    dasp_channels=7,
    dasp_rates=(1, 2),
    decoder_channels=9,
)


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def stride(size: int, by: int) -> int:
    return math.ceil(size / by)


@pytest.mark.parametrize(("build", "millions"), [(bsdnet_s, 4.4), (bsdnet_b, 16.1)])
def test_parameters_are_within_three_per_cent_of_the_papers(build: Callable[[], BSDNet], millions: float) -> None:
    assert sum(parameter.numel() for parameter in build().parameters()) == pytest.approx(millions * 1e6, rel=0.03)


@pytest.mark.parametrize("build", [bsdnet_s, bsdnet_b])
def test_plain_blocks_first_fcbs_later(build: Callable[[], BSDNet]) -> None:
    backbone = build().backbone
    kinds = [[type(block) for block in stage] for stage in (backbone.stage1, backbone.stage2, backbone.stage3)]
    assert kinds == [[BasicBlock], [BasicBlock] * 2, [BasicBlock] * 2 + [FCB]]
    assert [type(block) for block in backbone.stage4] == [ConvBNAct, FCB, FCB]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47), (375, 1242), (32, 32)])
def test_logits_at_stride_8_for_any_size(height: int, width: int) -> None:
    with torch.no_grad():
        logits = bsdnet_s(num_classes=7).eval()(image(height, width))
    assert logits.shape == (1, 7, stride(height, 8), stride(width, 8))
    assert logits.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47)])
def test_training_output(height: int, width: int) -> None:
    model = BSDNet(TINY).train()
    output = model(image(height, width, batch=2))
    assert isinstance(output, TrainingOutput)
    sizes = {by: (stride(height, by), stride(width, by)) for by in (8, 16, 32)}
    assert output.logits.shape == (2, 5, *sizes[8])
    assert output.stage3.shape == (2, 8, *sizes[16])
    assert output.stage4.shape == (2, 10, *sizes[32])
    assert output.decoder.shape == (2, 9, *sizes[8])
    torch.testing.assert_close(model.head(output.decoder), output.logits)


def test_the_maps_of_the_training_output_are_the_ones_behind_the_logits() -> None:
    # In training mode, but with fixed statistics: the same function as at inference.
    model = randomised(BSDNet(TINY))
    logits = model(image(64, 96))
    model.training = True  # the network's own switch only; its batch norms stay in eval mode
    output = model(image(64, 96))
    torch.testing.assert_close(output.logits, logits)
    features = model.backbone(image(64, 96))
    torch.testing.assert_close(output.stage3, features.stage3)
    torch.testing.assert_close(output.stage4, features.stage4)
    torch.testing.assert_close(output.decoder, model.decoder(features.stage2, model.dasp(features.stage4)))


def test_the_gradient_reaches_every_parameter() -> None:
    # Batch norms with fixed statistics: batch statistics undo some shifts exactly (FCB's first batch norm is followed
    # by another one on both its paths), and their gradient is then zero without any fault.
    model = randomised(bsdnet_s(num_classes=11))
    model.training = True
    output = model(image(64, 96, batch=2))
    output.logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_fresh_network_has_no_opinion_and_its_first_gradient_is_finite() -> None:
    torch.manual_seed(0)
    model = bsdnet_s(num_classes=11).train()
    output = model(image(64, 96, batch=2))
    assert output.logits.softmax(1).max() < 2 / 11
    loss = nn.functional.cross_entropy(output.logits, torch.randint(11, (2, 8, 12)))
    assert loss.item() == pytest.approx(math.log(11), rel=0.05)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("strict", [True, False])
def test_export_equals_eager(strict: bool) -> None:
    model = randomised(BSDNet(TINY))
    x = image(64, 96)
    exported = torch.export.export(model, (x,), strict=strict)
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 3.0, 100.0])
def test_half_precision_stays_finite_on_flat_and_on_huge_images(dtype: torch.dtype, value: float) -> None:
    # 100 is some forty times the largest normalised pixel. At 1000 plain convolutions leave fp16's range.
    torch.manual_seed(0)
    model = BSDNet(TINY).eval().to(dtype)
    x = torch.full((1, 3, 128, 256), value, dtype=dtype)
    x[..., :100] = -value
    with torch.no_grad():
        assert model(x).isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.03), (torch.bfloat16, 0.2)])
def test_half_precision_agrees_with_fp32(dtype: torch.dtype, tolerance: float) -> None:
    model = randomised(bsdnet_s())
    x = image(128, 192)
    with torch.no_grad():
        logits = model(x)
        half = model.to(dtype)(x.to(dtype)).float()
    assert (half - logits).abs().mean() < tolerance * logits.abs().mean()


def test_channels_last_gives_the_same_result() -> None:
    model = randomised(bsdnet_s())
    x = image(64, 96)
    with torch.no_grad():
        logits = model(x)
        actual = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, logits, rtol=0, atol=1e-5 * logits.abs().max().item())


def test_the_same_seed_draws_the_same_network_and_the_same_logits() -> None:
    def logits() -> torch.Tensor:
        torch.manual_seed(3)
        with torch.no_grad():
            return BSDNet(TINY).eval()(image(64, 96))

    assert torch.equal(logits(), logits())


def test_a_fresh_network_has_kernels_of_the_scale_of_their_group() -> None:
    # A depthwise 3x3 sees 9 values, whatever the number of channels.
    depthwise = bsdnet_s().backbone.stage4[1].ffn.depthwise[0]
    assert depthwise.groups == depthwise.in_channels
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)


def test_equal_configurations_take_each_others_weights() -> None:
    source, target = BSDNet(TINY), BSDNet(replace(TINY))
    target.load_state_dict(source.state_dict())
    x = image(64, 96)
    assert torch.equal(source.eval()(x), target.eval()(x))


@pytest.mark.parametrize("build", [bsdnet_s, bsdnet_b])
def test_the_number_of_classes_changes_the_classifier_alone(build: Callable[[int], BSDNet]) -> None:
    eleven, nineteen = build(11), build(19)
    assert eleven.config.num_classes == 11
    other = {name: value.shape for name, value in nineteen.state_dict().items()}
    differing = {name for name, value in eleven.state_dict().items() if value.shape != other[name]}
    assert differing == {"head.classifier.weight", "head.classifier.bias"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 0),
        ("num_classes", 2.5),
        ("num_classes", True),
        ("channels", (32, 64, 128)),
        ("channels", (32, 64, 128, 0)),
        ("depths", (0, 2, 2)),
        ("depths", (1, 2)),
        ("fcbs", (1, -1)),
        ("fcbs", (1,)),
        ("num_kernels", 30),
        ("num_kernels", 0),
        ("groups", 0),
        ("kernel_size", 4),
        ("kernel_size", -1),
        ("detail_ratio", 0.0),
        ("detail_ratio", float("nan")),
        ("ffn_ratio", 0),
        ("dasp_channels", -3),
        ("dasp_rates", (6, 0)),
        ("decoder_channels", 0),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        BSDNetConfig(**{field: value})
    assert str(value) in str(caught.value)


def test_variants_refuse_a_wrong_number_of_classes() -> None:
    with pytest.raises(ConfigError, match="num_classes"):
        bsdnet_s(num_classes=-1)
