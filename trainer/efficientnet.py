"""A teacher from an encoder that saw ImageNet: EfficientNet-Lite with a feature pyramid.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the Lite variants
(ReLU6, no squeeze-and-excitation, stem and head unscaled) are TensorFlow's of 2020. The decoder is the one of Orsic et
al., "In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of Road-driving Images",
2019: pooled context, then a ladder of blends up to stride 4.
"""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, as_stored
from bsdnet.errors import ConfigError, TrainingError
from trainer.folder import write_folder
from trainer.imagenet_weights import IMAGENET, load_imagenet

_SCALES = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite1": (1.0, 1.1), "efficientnet-lite2": (1.1, 1.2)}
"""Width and depth as multiples of EfficientNet-B0's."""

EFFICIENTNETS = tuple(_SCALES)
"""The variants whose ImageNet weights are to be had as packages."""

_STAGES = (
    # repeats, kernel, stride, expansion, channels; table 1 of the paper
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPPED = (1, 2, 4, 6)
"""Stages that end a stride: 4, 8, 16 and 32."""
_STEM_CHANNELS = 32
_NORM_EPS, _NORM_MOMENTUM = 1e-3, 0.01
_DECODER_CHANNELS = 128
_HEAD_CHANNELS, _IMAGENET_CLASSES = 1280, 1000
_GRIDS = (8, 4, 2, 1)
"""Rows of the pooled context."""
_FILE, _FORMAT = "model.safetensors", "bsdnet-efficientnet-1"


class Pyramid(NamedTuple):
    """Features of an encoder."""

    stride4: Tensor
    """`(B, c, H/4, W/4)`, rounded up."""
    stride8: Tensor
    """`(B, c, H/8, W/8)`."""
    stride16: Tensor
    """`(B, c, H/16, W/16)`."""
    stride32: Tensor
    """`(B, c, H/32, W/32)`."""


class SegmentationMaps(NamedTuple):
    """All maps that a student may learn from."""

    stage3: Tensor
    """`(B, c, H/16, W/16)`."""
    stage4: Tensor
    """`(B, c, H/32, W/32)`."""
    decoder: Tensor
    """`(B, 128, H/4, W/4)`."""
    logits: Tensor
    """`(B, num_classes, H/4, W/4)`."""


class _SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: what is missing to a whole step goes right and below."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (stride, _), (kernel, _) = self.stride, self.kernel_size
        if stride > 1:
            missing = [max(0, (math.ceil(side / stride) - 1) * stride + kernel - side) for side in x.shape[2:]]
            before = [pad // 2 for pad in missing]
            x = F.pad(x, (before[1], missing[1] - before[1], before[0], missing[0] - before[0]))
        return super().forward(x)


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _SameConv2d(in_channels, out_channels, kernel, stride, groups)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels, eps=_NORM_EPS, momentum=_NORM_MOMENTUM))


class _InvertedResidual(nn.Module):
    """Widen, convolve channel by channel, narrow; with a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = _conv_norm(in_channels, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_norm(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _conv_norm(hidden, out_channels, 1)
        self._widens, self._has_shortcut = expansion > 1, stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x), inplace=True) if self._widens else x
        # On a CPU the gradient of a depthwise convolution takes five times as long in bf16 as in fp32.
        slow = y.device.type == "cpu" and torch.is_grad_enabled()
        with torch.autocast("cpu", enabled=False) if slow else nullcontext():
            y = F.relu6(self.depthwise(y.float() if slow else y), inplace=True)
        projected: Tensor = self.project(y)
        return x + projected if self._has_shortcut else projected


class EfficientNetEncoder(nn.Module):
    """EfficientNet-Lite up to its last stage. Batch norms keep ImageNet's statistics, in training too.

    Args:
        variant: one of `EFFICIENTNETS`.

    Raises:
        ConfigError: there is no such variant.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        if variant not in _SCALES:
            raise ConfigError(f"no EfficientNet {variant!r}; expected one of {', '.join(EFFICIENTNETS)}")
        width, depth = _SCALES[variant]
        self.stem = _conv_norm(3, _STEM_CHANNELS, 3, 2)
        blocks: list[_InvertedResidual] = []
        channels = _STEM_CHANNELS
        ends: list[tuple[int, int]] = []  # of each stage: its last block, and the channels of that
        for index, (repeats, kernel, stride, expansion, base) in enumerate(_STAGES):
            at_end = index in (0, len(_STAGES) - 1)  # whose depth the Lite variants do not scale
            out = _round_to_8(base * width)
            for number in range(repeats if at_end else math.ceil(repeats * depth)):
                blocks.append(_InvertedResidual(channels, out, kernel, 1 if number else stride, expansion))
                channels = out
            ends.append((len(blocks) - 1, channels))
        self.blocks = nn.ModuleList(blocks)
        self._taps, self.channels = zip(*(ends[index] for index in _TAPPED), strict=True)
        # What the first layers look for is the same everywhere, and their gradient takes as long as all others'.
        for part in (self.stem, *blocks[: self._taps[0] + 1]):
            part.requires_grad_(False)
        # TensorFlow's pictures lie in -1 to 1; ours are normalised with ImageNet's mean and deviation.
        scale = torch.tensor(IMAGENET_STD) * 2
        self.register_buffer("_scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", (torch.tensor(IMAGENET_MEAN) * 2 - 1).view(1, 3, 1, 1), persistent=False)
        self._scale: Tensor
        self._shift: Tensor

    def forward(self, x: Tensor) -> Pyramid:
        """Map pictures `(B, 3, H, W)`, normalised with ImageNet's mean and deviation, to features."""
        x = F.relu6(self.stem(x * self._scale + self._shift), inplace=True)
        features: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._taps:
                features.append(x)
        return Pyramid(*features)

    def train(self, mode: bool = True) -> "EfficientNetEncoder":
        """Set the mode, of all but the batch norms: a few street scenes have poorer statistics than ImageNet."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                module.eval()
        return self


class _ConvNormAct(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class _PooledContext(nn.Module):
    """What is seen in coarse cells of the picture, beside every position."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.reduce = _ConvNormAct(in_channels, channels, 1)
        self.branches = nn.ModuleList(_ConvNormAct(channels, channels // len(_GRIDS), 1) for _ in _GRIDS)
        self.fuse = _ConvNormAct(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        height, width = x.shape[2:]
        maps = [x]
        for rows, branch in zip(_GRIDS, self.branches, strict=True):
            grid = (min(rows, height), min(max(1, round(rows * width / height)), width))
            pooled = branch(F.adaptive_avg_pool2d(x, grid))
            maps.append(F.interpolate(pooled, size=(height, width), mode="bilinear", align_corners=False))
        fused: Tensor = self.fuse(torch.cat(maps, 1))
        return fused


class EfficientNetSegmenter(nn.Module):
    """EfficientNet-Lite with a decoder, to be trained as a teacher.

    Args:
        variant: one of `EFFICIENTNETS`.
        classes: names of what the logits mean; kept with the weights, as is `train_size`.
        train_size: height and width of the training pictures: the scale that the network sees objects at.

    Raises:
        ConfigError: there is no such variant.
    """

    def __init__(self, variant: str, classes: Sequence[str], train_size: tuple[int, int]) -> None:
        super().__init__()
        self.variant, self.class_names, self.train_size = variant, tuple(classes), train_size
        self.encoder = EfficientNetEncoder(variant)
        self.decoder_channels = _DECODER_CHANNELS
        *sides, last = self.encoder.channels
        self.context = _PooledContext(last, _DECODER_CHANNELS)
        self.laterals = nn.ModuleList(_ConvNormAct(channels, _DECODER_CHANNELS, 1) for channels in reversed(sides))
        self.blends = nn.ModuleList(_ConvNormAct(_DECODER_CHANNELS, _DECODER_CHANNELS, 3) for _ in sides)
        self.classifier = nn.Conv2d(_DECODER_CHANNELS, len(classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes, H/4, W/4)`."""
        return self.forward_all(x).logits

    def forward_all(self, x: Tensor) -> SegmentationMaps:
        """Map normalised pictures `(B, 3, H, W)` to all maps that a student may learn from."""
        features = self.encoder(x)
        y = self.context(features.stride32)
        sides = (features.stride16, features.stride8, features.stride4)
        for side, lateral, blend in zip(sides, self.laterals, self.blends, strict=True):
            larger = F.interpolate(y, size=side.shape[2:], mode="bilinear", align_corners=False)
            y = blend(larger + lateral(side))
        return SegmentationMaps(features.stride16, features.stride32, y, self.classifier(y))

    def head_parameters(self) -> list[nn.Parameter]:
        """Give the decoder's parameters, which start from random weights unless a trained network is gone on from."""
        parts = (self.context, self.laterals, self.blends, self.classifier)
        return [parameter for part in parts for parameter in part.parameters()]

    def load_encoder(self, name: str) -> None:
        """Take over the encoder's ImageNet weights.

        Args:
            name: `imagenet` for those of the variant's package, or the path of such a `.pth` file.

        Raises:
            TrainingError: the package is not installed, or the file cannot be read or does not fit.
        """
        load_imagenet(self.encoder, self.variant, name)

    def go_on_from(self, name: str) -> None:
        """Take over the weights of a trained one, whole.

        Args:
            name: folder that `save` wrote.

        Raises:
            TrainingError: it cannot be read, or is another variant's.
            ConfigError: it was trained on other classes.
        """
        other = load_efficientnet(Path(name))
        if other.variant != self.variant:
            raise TrainingError(f"{name} is an {other.variant}, not an {self.variant}")
        if [label.strip().lower() for label in other.class_names] != [label.lower() for label in self.class_names]:
            raise ConfigError(f"{name} was trained on other classes: {', '.join(other.class_names)}")
        self.load_state_dict(other.state_dict(), strict=True)

    def save(self, folder: Path) -> None:
        """Write a folder that `load_efficientnet` reads: kernels in fp16, batch norms and biases in fp32.

        Raises:
            TrainingError: it cannot be written.
            CheckpointError: a weight is not finite in fp16.
        """
        tensors = {name: as_stored(name, tensor) for name, tensor in self.state_dict().items()}
        meaning = {"variant": self.variant, "classes": self.class_names, "train_size": self.train_size}
        texts = {"format": _FORMAT, "network": json.dumps(meaning)}
        write_folder(lambda partial: save_file(tensors, partial / _FILE, texts), folder)


class ImageNetClassifier(nn.Module):
    """EfficientNet-Lite with its head of ImageNet's 1,000 classes, in evaluation mode: a teacher of backbones.

    Args:
        variant: one of `EFFICIENTNETS`.
        name: `imagenet` for the weights of the variant's package, or the path of such a `.pth` file.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: the package is not installed, or the file cannot be read or does not fit.
    """

    def __init__(self, variant: str, name: str = IMAGENET) -> None:
        super().__init__()
        self.encoder = EfficientNetEncoder(variant)
        self.head = _conv_norm(self.encoder.channels[-1], _HEAD_CHANNELS, 1)
        self.linear = nn.Linear(_HEAD_CHANNELS, _IMAGENET_CLASSES)
        load_imagenet(self, variant, name, encoder="encoder.")
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(B, 3, H, W)`, normalised with ImageNet's mean and deviation, to logits `(B, 1000)`."""
        y = F.relu6(self.head(self.encoder(x).stride32))
        logits: Tensor = self.linear(y.mean((2, 3)))
        return logits


def holds_efficientnet(folder: Path) -> bool:
    """Tell whether a folder is one that `EfficientNetSegmenter.save` wrote, and not one of transformers."""
    return (folder / _FILE).is_file() and not (folder / "config.json").exists()


def load_efficientnet(folder: Path) -> EfficientNetSegmenter:
    """Read a folder that `EfficientNetSegmenter.save` wrote.

    Raises:
        TrainingError: it cannot be read, or holds something else.
    """
    try:
        with safe_open(folder / _FILE, framework="pt") as opened:
            texts = opened.metadata() or {}
        if texts.get("format") != _FORMAT:
            raise ValueError("its weights are another program's")
        meaning = json.loads(texts["network"])
        height, width = meaning["train_size"]
        network = EfficientNetSegmenter(meaning["variant"], meaning["classes"], (height, width))
        network.load_state_dict(load_file(folder / _FILE), strict=True)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrainingError(f"the folder {folder} cannot be loaded as an EfficientNet: {reason}") from error
    return network


def _round_to_8(channels: float) -> int:
    """Round to a multiple of 8, and never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
