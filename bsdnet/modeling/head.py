"""The decoder's fusion with stage 2, and the segmentation head."""

from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.modeling.layers import ConvBNAct

_STRIDE_RATIO = 4  # stage 4 and DASP are at stride 32, stage 2 is at stride 8


class Decoder(nn.Module):
    """Fuse the context of stage 4 with the detail of stage 2 (figure 2).

    Both are brought to `channels` by 1x1 convolutions, the context before it is enlarged, where the map is smallest;
    then they are added.

    Args:
        detail_channels: channels of stage 2.
        context_channels: channels of DASP.
        channels: channels of the result.
    """

    def __init__(self, detail_channels: int, context_channels: int, channels: int) -> None:
        super().__init__()
        self.detail = ConvBNAct(detail_channels, channels, act=False)
        self.context = ConvBNAct(context_channels, channels, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map `(B, detail_channels, H/8, W/8)` and `(B, context_channels, H/32, W/32)` to `(B, channels, H/8, W/8)`."""
        detail = self.detail(detail)
        context = self.context(context)
        # By exactly 4, then cut: the strides round up, so the context of a size that is no multiple of 32 reaches
        # beyond the picture, and fitting it into the picture would shift it by up to 24 pixels.
        height, width = _STRIDE_RATIO * context.shape[2], _STRIDE_RATIO * context.shape[3]
        context = F.interpolate(context, size=(height, width), mode="bilinear", align_corners=False)
        y: Tensor = self.act(detail + context[:, :, : detail.shape[2], : detail.shape[3]])
        return y


class SegmentationHead(nn.Module):
    """A 3x3 convolution and the 1x1 classifier.

    Maps `(B, in_channels, H, W)` to logits `(B, num_classes, H, W)`.
    """

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvBNAct(in_channels, hidden_channels, 3)
        self.classifier = nn.Conv2d(hidden_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, num_classes, H, W)`."""
        logits: Tensor = self.classifier(self.conv(x))
        return logits
