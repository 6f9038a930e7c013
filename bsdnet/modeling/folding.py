"""Batch norms folded into the convolutions before them: the same function in fewer steps, for inference."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fold_batch_norms(model: ModuleT) -> ModuleT:
    """Fold every batch norm that directly follows a convolution into that convolution.

    Directly follows: they are neighbours in an `nn.Sequential`, where the order of the children is the order of
    execution. A batch norm after an addition, as FCB has two, has no convolution to go into and stays.

    Args:
        model: any module; it is left as it is, in its own mode. Fold in fp32 and convert to half precision afterwards,
            so that the products are rounded once.

    Returns:
        A copy in eval mode, on the same device and in the same dtype, whose parameters take no gradient. Its state
        dict has other keys than the model's: it is for running, not for saving.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(folded.modules()):
        # A subclass with a forward of its own may run its children in another order.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_sequence(module)
    return folded


def _fold_sequence(sequence: nn.Sequential) -> None:
    for index in range(len(sequence) - 1, 0, -1):
        conv, norm = sequence[index - 1], sequence[index]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            sequence[index - 1] = fuse_conv_bn_eval(conv, norm)
            del sequence[index]
