"""A network small enough that a test trains it in a moment."""

from bsdnet.modeling import BSDNetConfig

TINY = BSDNetConfig(channels=(16, 16, 32, 32), num_kernels=8, dasp_channels=8, decoder_channels=8)
"""Not below 16 channels: with 8, the backward pass of a 1x1 convolution of stride 2 writes beyond its memory in
oneDNN on CPUs with AVX-512 (seen with PyTorch 2.13)."""
