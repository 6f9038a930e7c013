"""Deep Aggregation Atrous Convolution Pyramid Pooling (DASP).

Source: the BSDNet paper, section 3.4, equation 8 and figure 4.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bsdnet.modeling.layers import ConvBNAct


class DASP(nn.Module):
    """Atrous convolutions of growing rate, each added to its neighbour's result before a 3x3 convolution.

    Equation 8: `f1 = C1x1(x)`; `fi = C3x3(D3x3(x) + f(i-1))` for each rate; and for the last,
    `fn = C3x3(U(C1x1(mean(x))) + f(n-1))`, U being the broadcast of the global feature over the map.
    Table 5 compares the mean with the maximum.
    The maps are concatenated, compressed by a 1x1 convolution, and a 1x1 shortcut from x is added.

    Maps `(B, in_channels, H, W)` to `(B, out_channels, H, W)`, in the network at stride 32.

    Args:
        in_channels: channels of x.
        branch_channels: channels of every f.
        out_channels: channels of the result.
        rates: the atrous convolutions' rates in pixels of the map.
        max_pooling: whether the global feature is each channel's maximum, and not its mean.
    """

    def __init__(
        self,
        in_channels: int,
        branch_channels: int,
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        *,
        max_pooling: bool = False,
    ) -> None:
        super().__init__()
        self.max_pooling = max_pooling
        self.first = ConvBNAct(in_channels, branch_channels)
        self.atrous = nn.ModuleList(ConvBNAct(in_channels, branch_channels, 3, dilation=rate) for rate in rates)
        self.pooled = ConvBNAct(in_channels, branch_channels)
        self.aggregate = nn.ModuleList(ConvBNAct(branch_channels, branch_channels, 3) for _ in range(len(rates) + 1))
        self.compress = ConvBNAct(branch_channels * (len(rates) + 2), out_channels, act=False)
        self.shortcut = ConvBNAct(in_channels, out_channels, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, H, W)`."""
        maps = [self.first(x)]
        # A mean over (2, 3), not adaptive pooling: every exporter takes it.
        globally = x.amax((2, 3), keepdim=True) if self.max_pooling else x.mean((2, 3), keepdim=True)
        neighbours = [*(conv(x) for conv in self.atrous), self.pooled(globally)]
        for neighbour, aggregate in zip(neighbours, self.aggregate, strict=True):
            maps.append(aggregate(neighbour + maps[-1]))
        y: Tensor = self.act(self.compress(torch.cat(maps, 1)) + self.shortcut(x))
        return y
