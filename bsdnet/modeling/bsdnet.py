"""BSDNet: the CNN student that runs at inference.

Source: the BSDNet paper, section 3.1 and figure 2. What the paper leaves open is decided in `docs/adr/`.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bsdnet.errors import ConfigError
from bsdnet.modeling.alternative_blocks import CFBlock, GFABlock, MSCANBlock, SegFormerBlock
from bsdnet.modeling.alternative_contexts import ASPP, DAPPM
from bsdnet.modeling.dasp import DASP
from bsdnet.modeling.fcb import FCB, FFN
from bsdnet.modeling.head import Decoder, SegmentationHead
from bsdnet.modeling.layers import BasicBlock, ConvBNAct

BLOCKS = ("fcb", "res", "segformer", "gfa", "mscan", "cf")
"""The paper's FCB, and the blocks that table 4 compares it with."""
CONTEXTS = ("dasp-avg", "dasp-max", "aspp", "dappm")
"""The paper's DASP, and the context modules that table 5 compares it with."""


@dataclass(frozen=True, kw_only=True)
class BSDNetConfig:
    """The shape of a BSDNet. Two networks with equal configurations take each other's weights.

    Raises:
        ConfigError: a field has a value that no network can be built with; the message names it.
    """

    num_classes: int = 19
    """Classes that the head tells apart."""
    channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    """Channels of the four stages, at strides 4, 8, 16 and 32."""
    depths: tuple[int, int, int] = (1, 2, 2)
    """BasicBlocks of stages 1 to 3."""
    block: str = "fcb"
    """What stands in the FCBs' places, one of `BLOCKS`. `num_kernels` to `ffn_ratio` shape FCB alone."""
    context: str = "dasp-avg"
    """What gathers context at stride 32, one of `CONTEXTS`."""
    fcbs: tuple[int, int] = (1, 2)
    """FCBs, or what stands in their places, that close stage 3 and that form stage 4."""
    num_kernels: int = 32
    """Learnable stripe kernels of each direction in DEC attention."""
    groups: int = 4
    """Groups of the double normalisation."""
    kernel_size: int = 7
    """Length of the stripe kernels in pixels, odd."""
    detail_ratio: float = 0.5
    """Channels of q, k and v in the detail branch, as a fraction of the block's."""
    ffn_ratio: int = 4
    """Hidden channels of the feed-forward network as a multiple of the block's."""
    dasp_channels: int = 112
    """Channels of each of the context module's maps, and of its result."""
    dasp_rates: tuple[int, ...] = (6, 12, 18)
    """Rates of DASP's and ASPP's atrous convolutions, in pixels at stride 32."""
    decoder_channels: int = 64
    """Channels of the fused map at stride 8, and of the head."""

    def __post_init__(self) -> None:
        """Reject values that no network can be built with."""
        for name, low, values in (
            ("num_classes", 1, (self.num_classes,)),
            ("channels", 1, self.channels),
            ("depths", 1, self.depths),
            ("fcbs", 0, self.fcbs),
            ("num_kernels", 1, (self.num_kernels,)),
            ("groups", 1, (self.groups,)),
            ("ffn_ratio", 1, (self.ffn_ratio,)),
            ("dasp_channels", 1, (self.dasp_channels,)),
            ("dasp_rates", 1, self.dasp_rates),
            ("decoder_channels", 1, (self.decoder_channels,)),
        ):
            if any(isinstance(value, bool) or not isinstance(value, int) or value < low for value in values):
                raise ConfigError(f"{name} must be whole numbers of at least {low}, got {getattr(self, name)!r}")
        for name, count in (("channels", 4), ("depths", 3), ("fcbs", 2)):
            if len(getattr(self, name)) != count:
                raise ConfigError(f"{name} must have {count} entries, got {getattr(self, name)!r}")
        if self.num_kernels % self.groups:
            raise ConfigError(f"num_kernels must be a multiple of groups ({self.groups}), got {self.num_kernels}")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be an odd number of at least 1, got {self.kernel_size}")
        if not 0 < self.detail_ratio <= 4:
            raise ConfigError(f"detail_ratio must be in (0, 4], got {self.detail_ratio}")
        for name, choices in (("block", BLOCKS), ("context", CONTEXTS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.block in ("segformer", "gfa") and any(channels % 8 for channels in self.channels[2:]):
            raise ConfigError(
                f"the last two of channels must be multiples of 8 with block {self.block!r}, got {self.channels!r}"
            )


class StageFeatures(NamedTuple):
    """What the backbone hands on: the maps of stages 2, 3 and 4."""

    stage2: Tensor
    """`(B, channels[1], H/8, W/8)`."""
    stage3: Tensor
    """`(B, channels[2], H/16, W/16)`."""
    stage4: Tensor
    """`(B, channels[3], H/32, W/32)`."""


class TrainingOutput(NamedTuple):
    """What the losses need, returned by `BSDNet.forward` in training mode, and by `forward_all`."""

    logits: Tensor
    """`(B, num_classes, H/8, W/8)`."""
    stage3: Tensor
    """`(B, channels[2], H/16, W/16)`."""
    stage4: Tensor
    """`(B, channels[3], H/32, W/32)`."""
    decoder: Tensor
    """`(B, decoder_channels, H/8, W/8)`: stage 2 fused with DASP."""


class Backbone(nn.Module):
    """Stem and four stages: BasicBlocks first, FCBs (or what `block` names) later.

    The stem is two 3x3 convolutions of stride 2; one 3x3 convolution of stride 2 leads into stage 4.
    Every division by two rounds up, so any input size works.
    """

    def __init__(self, config: BSDNetConfig) -> None:
        super().__init__()
        c1, c2, c3, c4 = config.channels
        self.stem = nn.Sequential(ConvBNAct(3, c1, 3, stride=2), ConvBNAct(c1, c1, 3, stride=2))
        self.stage1 = _basic_stage(c1, c1, config.depths[0], stride=1)
        self.stage2 = _basic_stage(c1, c2, config.depths[1], stride=2)
        self.stage3 = nn.Sequential(
            *_basic_stage(c2, c3, config.depths[2], stride=2),
            *(_block(c3, config, stride=16) for _ in range(config.fcbs[0])),
        )
        self.stage4 = nn.Sequential(
            ConvBNAct(c3, c4, 3, stride=2), *(_block(c4, config, stride=32) for _ in range(config.fcbs[1]))
        )
        _init_weights(self)

    def forward(self, x: Tensor) -> StageFeatures:
        """Map the normalised image `(B, 3, H, W)` to the maps of stages 2, 3 and 4."""
        x = self.stage1(self.stem(x))  # (B, 3, H, W) -> (B, c1, H/4, W/4)
        stage2 = self.stage2(x)
        stage3 = self.stage3(stage2)
        return StageFeatures(stage2, stage3, self.stage4(stage3))


class BSDNet(nn.Module):
    """The network: backbone, DASP (or what `context` names) on stage 4, fusion with stage 2, head.

    Args:
        config: the shape.
    """

    def __init__(self, config: BSDNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        width = config.decoder_channels
        self.dasp = _context(config)  # the name that the weights know it by, whatever stands here
        self.decoder = Decoder(config.channels[1], config.dasp_channels, width)
        self.head = SegmentationHead(width, width, config.num_classes)
        for part in (self.dasp, self.decoder, self.head):
            _init_weights(part)

    def forward(self, x: Tensor) -> Tensor | TrainingOutput:
        """Segment a batch of images.

        Args:
            x: RGB, normalised with the weights' mean and deviation, `(B, 3, H, W)`; any H and W of at least 32.

        Returns:
            The logits at stride 8, `(B, num_classes, ceil(H/8), ceil(W/8))`; in training mode a `TrainingOutput`.
        """
        output = self.forward_all(x)
        return output if self.training else output.logits

    def forward_all(self, x: Tensor) -> TrainingOutput:
        """Segment a batch of images as `forward` does, and give the maps besides, whatever the mode."""
        features = self.backbone(x)
        decoded = self.decoder(features.stage2, self.dasp(features.stage4))
        return TrainingOutput(self.head(decoded), features.stage3, features.stage4, decoded)


S_CONFIG = BSDNetConfig()
B_CONFIG = BSDNetConfig(channels=(64, 128, 256, 512), dasp_channels=208, decoder_channels=128)


def bsdnet_s(num_classes: int = 19) -> BSDNet:
    """Build BSDNet-S: 4.4 M parameters with 19 classes, weights drawn at random.

    Raises:
        ConfigError: `num_classes` is not a positive whole number.
    """
    return BSDNet(replace(S_CONFIG, num_classes=num_classes))


def bsdnet_b(num_classes: int = 19) -> BSDNet:
    """Build BSDNet-B: 16.2 M parameters with 19 classes, weights drawn at random.

    Raises:
        ConfigError: `num_classes` is not a positive whole number.
    """
    return BSDNet(replace(B_CONFIG, num_classes=num_classes))


def _basic_stage(in_channels: int, channels: int, depth: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride=stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(depth - 1)))


def _block(channels: int, config: BSDNetConfig, *, stride: int) -> nn.Module:
    match config.block:
        case "res":
            return BasicBlock(channels, channels)
        case "segformer":  # SegFormer's at these strides, but 4 heads for its 5
            heads, reduction = (4, 2) if stride == 16 else (8, 1)
            return SegFormerBlock(channels, heads=heads, reduction=reduction)
        case "gfa":
            return GFABlock(channels)
        case "mscan":
            return MSCANBlock(channels)
        case "cf":
            return CFBlock(channels)
    return FCB(
        channels,
        num_kernels=config.num_kernels,
        groups=config.groups,
        kernel_size=config.kernel_size,
        detail_ratio=config.detail_ratio,
        ffn_ratio=config.ffn_ratio,
    )


def _context(config: BSDNetConfig) -> nn.Module:
    shape = (config.channels[3], config.dasp_channels, config.dasp_channels)
    match config.context:
        case "aspp":
            return ASPP(*shape, config.dasp_rates)
        case "dappm":
            return DAPPM(*shape)
    return DASP(*shape, config.dasp_rates, max_pooling=config.context == "dasp-max")


def _init_weights(part: nn.Module) -> None:
    """Draw the kernels: He's normal by fan-out, that of one group where a convolution is grouped; biases are zero."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight.numel() // module.in_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in part.modules():
        if isinstance(module, FFN):  # a small branch beside the identity, as in SegFormer
            nn.init.trunc_normal_(module.project.weight, std=0.02)
        elif isinstance(module, SegFormerBlock):
            for linear in module.linear_layers():
                nn.init.trunc_normal_(linear.weight, std=0.02)
        elif isinstance(module, SegmentationHead):  # the loss starts at the logarithm of the number of classes
            nn.init.normal_(module.classifier.weight, std=0.01)
            module.classifier.bias = nn.Parameter(torch.zeros(module.classifier.out_channels))
