"""The context modules that the paper compares DASP with (table 5), for DASP's place on stage 4.

Each maps `(B, in_channels, H, W)` to `(B, out_channels, H, W)`, in the network at stride 32. Each has a batch norm
behind a global pooling, as DASP has, so a training batch needs at least two images. DASP with max pooling is `DASP`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.modeling.layers import ConvBNAct


class ASPP(nn.Module):
    """Atrous Spatial Pyramid Pooling: atrous convolutions side by side, and one global feature.

    A 1x1 convolution, a 3x3 convolution of each rate and the image's mean through a 1x1 convolution are concatenated
    and compressed by a 1x1 convolution. DASP differs in the aggregation of neighbours and in the shortcut.

    Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (DeepLab v3), 2017,
    section 3.3 and figure 5.

    Args:
        in_channels: channels of x.
        branch_channels: channels of every branch.
        out_channels: channels of the result.
        rates: the atrous convolutions' rates in pixels of the map.
    """

    def __init__(self, in_channels: int, branch_channels: int, out_channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.first = ConvBNAct(in_channels, branch_channels)
        self.atrous = nn.ModuleList(ConvBNAct(in_channels, branch_channels, 3, dilation=rate) for rate in rates)
        self.pooled = ConvBNAct(in_channels, branch_channels)
        self.compress = ConvBNAct(branch_channels * (len(rates) + 2), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, H, W)`."""
        branches = [self.first(x), *(conv(x) for conv in self.atrous)]
        branches.append(self.pooled(x.mean((2, 3), keepdim=True)).expand_as(branches[0]))
        y: Tensor = self.compress(torch.cat(branches, 1))
        return y


class DAPPM(nn.Module):
    """Deep Aggregation Pyramid Pooling Module: ever coarser means of x, each added to the finer result.

    `y1 = C1x1(x)`; `yi = C3x3(U(C1x1(mean_k(x))) + y(i-1))` for windows of k = 5, 9, 17 pixels at strides of 2, 4, 8
    and for the whole map. The results are concatenated, compressed by a 1x1 convolution, and a 1x1 shortcut from x is
    added. Batch norm and ReLU stand before each convolution; U is bilinear.

    Source: Pan et al., "Deep Dual-Resolution Networks for Real-Time and Accurate Semantic Segmentation of Traffic
    Scenes" (DDRNet), 2022, the section on DAPPM. As in the released network, the windows count the padding's zeros.

    Args:
        in_channels: channels of x.
        branch_channels: channels of every y.
        out_channels: channels of the result.
    """

    def __init__(self, in_channels: int, branch_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = NormActConv(in_channels, branch_channels)
        self.scales = nn.ModuleList(NormActConv(in_channels, branch_channels) for _ in range(4))
        self.aggregate = nn.ModuleList(NormActConv(branch_channels, branch_channels, 3) for _ in range(4))
        self.compress = NormActConv(branch_channels * 5, out_channels)
        self.shortcut = NormActConv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, H, W)`."""
        pooled = [F.avg_pool2d(x, 2 * stride + 1, stride, stride) for stride in (2, 4, 8)]
        pooled.append(x.mean((2, 3), keepdim=True))
        maps = [self.first(x)]
        for mean, scale, aggregate in zip(pooled, self.scales, self.aggregate, strict=True):
            upsampled = F.interpolate(scale(mean), size=x.shape[2:], mode="bilinear", align_corners=False)
            maps.append(aggregate(upsampled + maps[-1]))
        y: Tensor = self.compress(torch.cat(maps, 1)) + self.shortcut(x)
        return y


class NormActConv(nn.Sequential):
    """Batch norm, ReLU and a convolution without a bias: the order of a pre-activation network.

    Maps `(B, in_channels, H, W)` to `(B, out_channels, H, W)`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        )
