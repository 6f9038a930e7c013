"""The mean of several trained networks as one network, which often bears unknown pictures better than each of them.

Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", 2022. It holds for networks that went on from the same weights; networks that began apart
have no common meaning of their channels, and their mean is noise.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bsdnet.checkpoint import Checkpoint, load_checkpoint
from bsdnet.errors import ConfigError
from bsdnet.modeling.bsdnet import BSDNetConfig
from trainer.widening import widen


def average_weights(paths: Sequence[Path]) -> Checkpoint:
    """Average networks weight by weight, batch norms' statistics too.

    A narrower network is widened first, just as the training of a wider one begins from it (`trainer.widening`).

    Args:
        paths: files of weights, at least two, of one shape up to the widths, the same classes and the same kind of
            pictures.

    Returns:
        Their mean, with the shape and the meaning of the widest.

    Raises:
        CheckpointError: a file cannot be read.
        ConfigError: there are fewer than two, or they do not fit together.
    """
    if len(paths) < 2:
        raise ConfigError("a mean needs at least two files of weights")
    checkpoints = [load_checkpoint(path) for path in paths]
    widest = max(range(len(paths)), key=lambda index: _widths(checkpoints[index].model.config))
    mean = checkpoints[widest]
    states = []
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        try:
            if replace(checkpoint.metadata, architecture=mean.metadata.architecture) != mean.metadata:
                raise ConfigError("classes or pictures differ")
            same = checkpoint.model.config == mean.model.config
            network = checkpoint.model if same else widen(checkpoint.model, mean.model.config)
        except ConfigError as error:
            message = f"{path} and {paths[widest]} differ in shape, classes or pictures, so they have no mean: {error}"
            raise ConfigError(message) from error
        states.append(network.state_dict())
    for name, tensor in mean.model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name] for state in states]).mean(0))
    return mean


def _widths(config: BSDNetConfig) -> tuple[int, ...]:
    return *config.channels, config.dasp_channels, config.decoder_channels
