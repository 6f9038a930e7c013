"""Whole networks with each block and each context module of the paper's ablations."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bsdnet.checkpoint import CheckpointMetadata, default_weights, load_checkpoint, save_checkpoint
from bsdnet.classes import CAMVID_11
from bsdnet.errors import ConfigError
from bsdnet.modeling import BLOCKS, CONTEXTS, BSDNet, BSDNetConfig, TrainingOutput, fold_batch_norms
from bsdnet.modeling.alternative_blocks import CFBlock, GFABlock, MSCANBlock, SegFormerBlock
from bsdnet.modeling.alternative_contexts import ASPP, DAPPM
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG
from bsdnet.modeling.dasp import DASP
from bsdnet.modeling.fcb import FCB
from bsdnet.modeling.layers import BasicBlock

from .parameters import randomised

TINY = BSDNetConfig(
    num_classes=11,
    channels=(16, 16, 16, 24),
    depths=(1, 1, 1),
    fcbs=(1, 1),
    num_kernels=8,
    dasp_channels=8,
    dasp_rates=(1, 2),
    decoder_channels=16,
)

PARTNERS = [*({"block": name} for name in BLOCKS[1:]), *({"context": name} for name in CONTEXTS[1:])]
each_partner = pytest.mark.parametrize("partner", PARTNERS, ids=lambda partner: "-".join(partner.values()))

# With 19 classes and nothing folded: block or context, S, B.
PARAMETERS = [
    ({"block": "fcb"}, 4_366_483, 16_246_451),
    ({"block": "res"}, 5_064_915, 19_707_699),
    ({"block": "segformer"}, 4_277_459, 16_494_387),
    ({"block": "gfa"}, 5_361_107, 20_889_907),
    ({"block": "mscan"}, 4_135_123, 15_783_731),
    ({"block": "cf"}, 5_639_635, 20_857_139),
    ({"context": "dasp-avg"}, 4_366_483, 16_246_451),
    ({"context": "dasp-max"}, 4_366_483, 16_246_451),
    ({"context": "aspp"}, 3_885_107, 14_580_371),
    ({"context": "dappm"}, 3_680_979, 13_695_859),
    ({"block": "res", "context": "dappm"}, 4_379_411, 17_157_107),  # where table 7 starts
]


def image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("partner", "small", "base"), PARAMETERS, ids=lambda value: str(value))
def test_parameters(partner: dict[str, str], small: int, base: int) -> None:
    for config, expected in ((S_CONFIG, small), (B_CONFIG, base)):
        with torch.device("meta"):
            model = BSDNet(replace(config, **partner))
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fcb", FCB),
        ("res", BasicBlock),
        ("segformer", SegFormerBlock),
        ("gfa", GFABlock),
        ("mscan", MSCANBlock),
        ("cf", CFBlock),
    ],
)
def test_the_block_stands_where_fcbs_stand(name: str, kind: type) -> None:
    backbone = BSDNet(replace(S_CONFIG, block=name)).backbone
    assert [type(block) for block in backbone.stage3] == [BasicBlock, BasicBlock, kind]
    assert [type(block) for block in backbone.stage4[1:]] == [kind, kind]


@pytest.mark.parametrize(
    ("name", "kind", "max_pooling"),
    [("dasp-avg", DASP, False), ("dasp-max", DASP, True), ("aspp", ASPP, None), ("dappm", DAPPM, None)],
)
def test_the_context_stands_where_dasp_stands(name: str, kind: type, max_pooling: bool | None) -> None:
    context = BSDNet(replace(S_CONFIG, context=name)).dasp
    assert type(context) is kind
    assert getattr(context, "max_pooling", None) is max_pooling


def test_the_rates_reach_aspp() -> None:
    atrous = BSDNet(replace(S_CONFIG, context="aspp", dasp_rates=(2, 4))).dasp.atrous
    assert [conv[0].dilation for conv in atrous] == [(2, 2), (4, 4)]


def test_segformers_heads_and_reduction_are_its_own_at_each_stride() -> None:
    backbone = BSDNet(replace(S_CONFIG, block="segformer")).backbone
    stage3, stage4 = backbone.stage3[-1].attention, backbone.stage4[-1].attention
    assert (stage3.heads, stage3.reduce[0].stride) == (4, (2, 2))
    assert (stage4.heads, type(stage4.reduce)) == (8, torch.nn.Identity)


@each_partner
@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47)])
def test_odd_sizes_in_training_and_at_inference(partner: dict[str, str], height: int, width: int) -> None:
    torch.manual_seed(0)
    model = BSDNet(replace(TINY, **partner))
    size = (-(-height // 8), -(-width // 8))
    output = model.train()(image(height, width, batch=2))
    assert isinstance(output, TrainingOutput)
    assert output.logits.shape == (2, 11, *size)
    with torch.no_grad():
        logits = model.eval()(image(height, width))
    assert logits.shape == (1, 11, *size)
    assert logits.isfinite().all()


@each_partner
def test_the_gradient_reaches_every_parameter(partner: dict[str, str]) -> None:
    # Batch norms with fixed statistics, as batch statistics undo some shifts exactly.
    model = randomised(BSDNet(replace(TINY, **partner)))
    model.training = True
    model(image(64, 96, batch=2)).logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        if partner.get("block") == "gfa" and name.endswith("norm1.bias"):
            continue  # GFA's keys see one pixel, so the softmax over space undoes every shift before it
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@each_partner
def test_a_fresh_network_has_no_opinion_and_its_first_gradient_is_finite(partner: dict[str, str]) -> None:
    torch.manual_seed(0)
    model = BSDNet(replace(TINY, **partner)).train()
    logits = model(image(64, 96, batch=2)).logits
    assert logits.softmax(1).max() < 2 / 11
    torch.nn.functional.cross_entropy(logits, torch.randint(11, logits.shape[2:]).expand(2, -1, -1)).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_segformers_linear_layers_are_drawn_small() -> None:
    block = BSDNet(replace(S_CONFIG, block="segformer")).backbone.stage4[-1]
    linear = [block.attention.query, block.attention.key_value, block.attention.project, block.ffn[0], block.ffn[3]]
    assert block.linear_layers() == linear
    for layer in linear:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(module.bias.any() for module in block.modules() if isinstance(module, torch.nn.Conv2d))


@each_partner
def test_folding_equals_eager(partner: dict[str, str]) -> None:
    model = randomised(BSDNet(replace(TINY, **partner)))
    x = image(64, 96)
    with torch.no_grad():
        logits = model(x)
        folded = fold_batch_norms(model)(x)
    assert (folded - logits).abs().max() <= 1e-4 * logits.abs().max()


@each_partner
@pytest.mark.parametrize("value", [3.0, 1e4])
def test_bf16_autocast_trains_on_flat_and_on_huge_images(partner: dict[str, str], value: float) -> None:
    torch.manual_seed(0)
    model = BSDNet(replace(TINY, **partner)).train()
    x = torch.full((2, 3, 64, 96), value)
    x[1, :, :, :40] = -value  # the first image stays flat
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x).logits
    assert logits.isfinite().all()
    logits.float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@each_partner
def test_a_checkpoint_brings_the_network_back(partner: dict[str, str], tmp_path: Path) -> None:
    model = randomised(BSDNet(replace(TINY, **partner)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # what the file keeps in half precision
                parameter.copy_(parameter.half())
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, CheckpointMetadata(architecture="tiny", class_set=CAMVID_11, train_size=(64, 96)))
    loaded = load_checkpoint(path).model
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(image(64, 96)), model(image(64, 96)))


def test_weights_saved_before_there_was_a_choice_are_fcb_and_dasp(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    metadata = CheckpointMetadata(architecture="tiny", class_set=CAMVID_11, train_size=(64, 96))
    save_checkpoint(path, BSDNet(TINY), metadata)
    with safe_open(path, "pt") as opened:
        texts = opened.metadata()
    old = {name: value for name, value in asdict(TINY).items() if name not in ("block", "context")}
    save_file(load_file(path), path, {**texts, "config": json.dumps(old)})
    assert load_checkpoint(path).model.config == TINY


def test_the_shipped_weights_are_fcb_and_dasp() -> None:
    config = load_checkpoint(default_weights()).model.config
    assert (config.block, config.context) == ("fcb", "dasp-avg")


@pytest.mark.parametrize(
    ("field", "value", "choices"),
    [
        ("block", "resnet", "fcb, res, segformer, gfa, mscan, cf"),
        ("block", None, "fcb, res, segformer, gfa, mscan, cf"),
        ("context", "dasp", "dasp-avg, dasp-max, aspp, dappm"),
        ("context", "", "dasp-avg, dasp-max, aspp, dappm"),
    ],
)
def test_an_unknown_partner_is_refused_with_the_known_ones(field: str, value: object, choices: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BSDNetConfig(**{field: value})
    assert str(caught.value) == f"{field} must be one of {choices}, got {value!r}"


@pytest.mark.parametrize("block", ["segformer", "gfa"])
@pytest.mark.parametrize("channels", [(16, 16, 12, 16), (16, 16, 16, 20)])
def test_channels_that_cannot_be_parted_are_refused(block: str, channels: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="channels must be multiples of 8") as caught:
        BSDNetConfig(block=block, channels=channels)
    assert str(channels) in str(caught.value)
    BSDNetConfig(block="cf", channels=channels)
