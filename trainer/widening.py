"""A trained network made wider without changing what it computes, as the start of a larger network's training.

Source: Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", 2016 (Net2WiderNet).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from bsdnet.errors import ConfigError
from bsdnet.modeling.bsdnet import Backbone, BSDNet, BSDNetConfig
from bsdnet.modeling.dasp import DASP
from bsdnet.modeling.fcb import FCB
from bsdnet.modeling.layers import BasicBlock, ConvBNAct

_MIN_SHARE, _MAX_SHARE = 0.5, 1.5
_ON_WIDTH = ("channels", "dasp_channels", "decoder_channels")


def widen(network: BSDNet, config: BSDNetConfig, generator: torch.Generator | None = None) -> BSDNet:
    """Make a wider network that computes what a trained one does.

    Every channel of the new network is a copy of one of the old. Where copies are an input, the old weight is divided
    among them by random shares that differ from output to output, so that gradients tell the copies apart.

    Args:
        network: a BSDNet of FCBs and DASP, in any mode.
        config: the new shape: at least as wide everywhere, and else the same.
        generator: draws the shares; by default they are the same every time.

    Returns:
        A network of that shape in the mode of `network`. Its logits are those of `network`, up to rounding, with
        the statistics of batch norm that both keep as well as with those of a batch.

    Raises:
        ConfigError: the shapes differ in more than widths, one is narrower, or blocks or context are an ablation's.
    """
    _check(network.config, config)
    wide = BSDNet(config).train(network.training)
    copy = _Widener(torch.Generator().manual_seed(0) if generator is None else generator)
    channels = _channel_copies(network.config, config)
    _, c2, _, c4 = channels
    context = _copies(network.config.dasp_channels, config.dasp_channels)
    fused = _copies(network.config.decoder_channels, config.decoder_channels)
    with torch.no_grad():
        copy.backbone(network.backbone, wide.backbone, channels)
        copy.dasp(network.dasp, wide.dasp, c4, context)
        copy.conv(network.decoder.detail, wide.decoder.detail, c2, fused)
        copy.conv(network.decoder.context, wide.decoder.context, context, fused)
        copy.conv(network.head.conv, wide.head.conv, fused, fused)
        copy.kernel(network.head.classifier, wide.head.classifier, fused, torch.arange(config.num_classes))
    return wide


def widen_backbone(backbone: Backbone, narrow: BSDNetConfig, config: BSDNetConfig) -> Backbone:
    """Make a wider backbone whose maps are those of a trained one, each channel as often as `widen` copies it.

    Args:
        backbone: what was trained, in any mode.
        narrow: its shape.
        config: the new shape: at least as wide everywhere, and else the same.

    Returns:
        A backbone of the new shape in the mode of the old.

    Raises:
        ConfigError: as `widen`.
    """
    _check(*(replace(shape, context="dasp-avg") for shape in (narrow, config)))  # a backbone has none
    wide = Backbone(config).train(backbone.training)
    with torch.no_grad():
        _Widener(torch.Generator().manual_seed(0)).backbone(backbone, wide, _channel_copies(narrow, config))
    return wide


def _check(old: BSDNetConfig, new: BSDNetConfig) -> None:
    widths = {name: getattr(new, name) for name in _ON_WIDTH}
    if replace(old, **widths) != new or (old.block, old.context) not in (("fcb", "dasp-avg"), ("fcb", "dasp-max")):
        raise ConfigError(
            f"a network is widened in its channels alone, with FCBs and DASP; these shapes are {old} and {new}"
        )
    for name, value in widths.items():
        before = getattr(old, name)
        pairs = zip(before, value, strict=True) if isinstance(value, tuple) else [(before, value)]
        if any(narrow > broad for narrow, broad in pairs):
            raise ConfigError(f"a network is widened, not narrowed: {name} was {before} and would be {value}")


def _channel_copies(old: BSDNetConfig, new: BSDNetConfig) -> list[Tensor]:
    """Give `_copies` of every stage."""
    return [_copies(narrow, broad) for narrow, broad in zip(old.channels, new.channels, strict=True)]


def _copies(narrow: int, broad: int) -> Tensor:
    """Say for each channel of the wider map which one of the narrower it copies, `(broad,)`."""
    return torch.arange(broad) % narrow


class _Widener:
    """Fills layers of a wider network; `sources` and `targets` are `_copies` of a layer's inputs and outputs."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def kernel(self, old: nn.Conv2d, new: nn.Conv2d, sources: Tensor, targets: Tensor) -> None:
        """Fill a convolution; a depthwise one has no inputs to divide a weight among."""
        if old.groups > 1:
            new.weight.copy_(old.weight[targets])
        else:
            weights = old.weight[targets][:, sources]  # (out, in, k, k) -> (wider out, wider in, k, k)
            new.weight.copy_(weights * self._shares(len(targets), sources)[:, :, None, None])
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias[targets])

    def conv(self, old: nn.Module, new: nn.Module, sources: Tensor, targets: Tensor) -> None:
        """Fill a convolution and the batch norm behind it."""
        assert isinstance(old, ConvBNAct) and isinstance(new, ConvBNAct)
        old_kernel, new_kernel = old[0], new[0]
        assert isinstance(old_kernel, nn.Conv2d) and isinstance(new_kernel, nn.Conv2d)
        self.kernel(old_kernel, new_kernel, sources, targets)
        self.norm(old[1], new[1], targets)

    def norm(self, old: nn.Module, new: nn.Module, targets: Tensor) -> None:
        """Fill a batch norm."""
        filled = new.state_dict()
        for name, value in old.state_dict().items():
            filled[name].copy_(value[targets] if value.ndim else value)

    def backbone(self, old: Backbone, new: Backbone, channels: list[Tensor]) -> None:
        """Fill stem and stages; `channels` are the copies that each stage makes."""
        c1, c2, c3, c4 = channels
        self.conv(old.stem[0], new.stem[0], torch.arange(3), c1)
        self.conv(old.stem[1], new.stem[1], c1, c1)
        self.stage(old.stage1, new.stage1, c1, c1)
        self.stage(old.stage2, new.stage2, c1, c2)
        self.stage(old.stage3, new.stage3, c2, c3)
        self.stage(old.stage4, new.stage4, c3, c4)

    def stage(self, old: nn.Sequential, new: nn.Sequential, sources: Tensor, targets: Tensor) -> None:
        """Fill a stage: the first block changes the number of channels, the others keep it."""
        for narrow, broad in zip(old, new, strict=True):
            match narrow, broad:
                case BasicBlock(), BasicBlock():
                    self.conv(narrow.conv1, broad.conv1, sources, targets)
                    self.conv(narrow.conv2, broad.conv2, targets, targets)
                    if isinstance(narrow.shortcut, ConvBNAct):
                        self.conv(narrow.shortcut, broad.shortcut, sources, targets)
                case FCB(), FCB():
                    self.fcb(narrow, broad, targets)
                case _:
                    self.conv(narrow, broad, sources, targets)
            sources = targets

    def fcb(self, old: FCB, new: FCB, channels: Tensor) -> None:
        """Fill an FCB.

        The stripe kernels are keys and values at once: divided among the copies for the one, they are too small for the
        other by the number of copies, by which the detail branch is multiplied instead.
        """
        copies = channels.bincount()[channels]
        narrow, broad = old.attention, new.attention
        for kernels, wider in ((narrow.kernels_h, broad.kernels_h), (narrow.kernels_v, broad.kernels_v)):
            wider.copy_(kernels[:, channels] / copies[:, None, None])
        detail = _copies(_width(narrow.depthwise), _width(broad.depthwise))
        self.conv(narrow.qkv, broad.qkv, channels, detail)
        self.conv(narrow.depthwise, broad.depthwise, detail, detail)
        self.conv(narrow.project, broad.project, detail, channels)
        norm = broad.project[1]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.mul_(copies)
        norm.bias.mul_(copies)
        self.norm(old.norm1, new.norm1, channels)
        hidden = _copies(_width(old.ffn.depthwise), _width(new.ffn.depthwise))
        self.conv(old.ffn.expand, new.ffn.expand, channels, hidden)
        self.conv(old.ffn.depthwise, new.ffn.depthwise, hidden, hidden)
        self.kernel(old.ffn.project, new.ffn.project, hidden, channels)
        self.norm(old.norm2, new.norm2, channels)

    def dasp(self, old: nn.Module, new: nn.Module, sources: Tensor, targets: Tensor) -> None:
        """Fill DASP: its maps are added to one another, so all are copied alike, and concatenated."""
        assert isinstance(old, DASP) and isinstance(new, DASP)
        self.conv(old.first, new.first, sources, targets)
        for narrow, broad in zip((*old.atrous, old.pooled), (*new.atrous, new.pooled), strict=True):
            self.conv(narrow, broad, sources, targets)
        for narrow, broad in zip(old.aggregate, new.aggregate, strict=True):
            self.conv(narrow, broad, targets, targets)
        width = _width(old.first)
        concatenated = torch.cat([number * width + targets for number in range(len(old.aggregate) + 1)])
        self.conv(old.compress, new.compress, concatenated, targets)
        self.conv(old.shortcut, new.shortcut, sources, targets)

    def _shares(self, outputs: int, sources: Tensor) -> Tensor:
        """Draw for every output how its weights are divided among an input's copies, `(outputs, inputs)`."""
        drawn = torch.empty(outputs, len(sources)).uniform_(_MIN_SHARE, _MAX_SHARE, generator=self._generator)
        sums = torch.zeros(outputs, int(sources.max()) + 1).index_add_(1, sources, drawn)
        return drawn / sums[:, sources]


def _width(layer: nn.Module) -> int:
    assert isinstance(layer, ConvBNAct) and isinstance(layer[0], nn.Conv2d)
    return layer[0].out_channels
