"""The network: its shape, its blocks, and its folded form for inference."""

from bsdnet.modeling.bsdnet import (
    BLOCKS,
    CONTEXTS,
    BSDNet,
    BSDNetConfig,
    StageFeatures,
    TrainingOutput,
    bsdnet_b,
    bsdnet_s,
)
from bsdnet.modeling.folding import fold_batch_norms

__all__ = [
    "BLOCKS",
    "CONTEXTS",
    "BSDNet",
    "BSDNetConfig",
    "StageFeatures",
    "TrainingOutput",
    "bsdnet_b",
    "bsdnet_s",
    "fold_batch_norms",
]
