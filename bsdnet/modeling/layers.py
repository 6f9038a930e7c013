"""Convolution, batch norm and activation: the plain parts of the network."""

from torch import Tensor, nn


class ConvBNAct(nn.Sequential):
    """Convolution, batch norm and, unless told otherwise, ReLU.

    Maps `(B, in_channels, H, W)` to `(B, out_channels, ceil(H/stride), ceil(W/stride))`: the padding keeps the
    size at stride 1. The convolution has no bias, since the batch norm has one.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
        stride: step of the convolution in pixels.
        dilation: spacing of the kernel's taps in pixels.
        groups: groups of the convolution; `in_channels` makes it depthwise.
        act: whether a ReLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=False
        )
        layers: list[nn.Module] = [conv, nn.BatchNorm2d(out_channels)]
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class BasicBlock(nn.Module):
    """The residual block of ResNet-18: two 3x3 convolutions around a shortcut.

    Maps `(B, in_channels, H, W)` to `(B, out_channels, ceil(H/stride), ceil(W/stride))`. Where the shape changes,
    the shortcut is a 1x1 convolution.
    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, figure 2.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(in_channels, out_channels, 3, stride=stride)
        self.conv2 = ConvBNAct(out_channels, out_channels, 3, act=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvBNAct(in_channels, out_channels, stride=stride, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, ceil(H/stride), ceil(W/stride))`."""
        y: Tensor = self.act(self.conv2(self.conv1(x)) + self.shortcut(x))
        return y
