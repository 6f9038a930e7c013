import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.moving_average import MovingAverage


def test_a_moving_average_copies_nothing_from_the_cpu():
    """A copy to a GPU waits for all that the GPU still has to do. The device here is one that computes nothing."""

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            result = function(*args, **(kwargs or {}))
            devices |= {x.device.type for x in tree_leaves(result) if isinstance(x, Tensor)}
            assert devices != {"cpu", "meta"}, function
            return result

    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to("meta")
    average = MovingAverage(network, 0.9)
    with Copies():
        for _ in range(3):
            average.update_parameters(network)
    assert average.n_averaged == 3


def test_a_moving_average_is_that_of_pytorch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = MovingAverage(network, 0.9)
    expected = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(4):
        network(torch.randn(2, 3, 4, 4))  # moves the statistics
        with torch.no_grad():
            network[0].weight += torch.randn_like(network[0].weight)
        average.update_parameters(network)
        expected.update_parameters(network)
    states = average.state_dict(), expected.state_dict()
    assert list(states[0]) == list(states[1]), "states of earlier runs resume"
    for found, wanted in zip(*map(dict.values, states), strict=True):
        assert torch.equal(found, wanted)
