"""The mean of several trained networks as one network, which often bears unknown pictures better than each of them.

Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", 2022. It holds for networks that went on from the same weights; networks that began apart
have no common meaning of their channels, and their mean is noise.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from bsdnet.checkpoint import Checkpoint, load_checkpoint
from bsdnet.errors import ConfigError


def average_weights(paths: Sequence[Path]) -> Checkpoint:
    """Average networks weight by weight, batch norms' statistics too.

    Args:
        paths: files of weights, at least two, of one shape, the same classes and the same kind of pictures.

    Returns:
        Their mean, with the meaning of the first one's.

    Raises:
        CheckpointError: a file cannot be read.
        ConfigError: there are fewer than two, or they do not fit together.
    """
    if len(paths) < 2:
        raise ConfigError("a mean needs at least two files of weights")
    first, *others = (load_checkpoint(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if other.model.config != first.model.config or other.metadata != first.metadata:
            raise ConfigError(f"{path} and {paths[0]} differ in shape, classes or pictures, so they have no mean")
    states = [checkpoint.model.state_dict() for checkpoint in (first, *others)]
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name] for state in states]).mean(0))
    return first
