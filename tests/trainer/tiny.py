"""A network small enough that a test trains it in a moment."""

from bsdnet.modeling import BSDNetConfig

TINY = BSDNetConfig(channels=(8, 8, 16, 16), num_kernels=8, dasp_channels=8, decoder_channels=8)
