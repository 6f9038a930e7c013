"""The moving average of a network's weights over the steps of its training."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """An exponential moving average of a network, batch norms' statistics included, that waits for no GPU.

    PyTorch's own copies its count of updates to the GPU at each of them, which waits for all that the GPU still has to
    do: it then runs dry while the next step is queued. The average does not depend on the count beyond the first.

    Args:
        network: what to average, on its device; the first update copies it.
        decay: what the average keeps of itself at an update, 0 to 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the network as it is after a step."""
        own, new = _tensors(self.module), _tensors(model)
        if self.n_averaged == 0:  # on the CPU, wherever the network is
            torch._foreach_copy_(own, new)
        else:
            for of_floats in (True, False):
                chosen = [pair for pair in zip(own, new, strict=True) if pair[0].is_floating_point() == of_floats]
                if chosen:
                    self._blend(*map(list, zip(*chosen, strict=True)), None)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in chain(network.parameters(), network.buffers())]
