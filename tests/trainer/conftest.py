from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from bsdnet.modeling import BSDNetConfig
from tests.trainer.tiny import TINY
from trainer.segmentation import CONFIGS


@pytest.fixture(scope="package", autouse=True)
def full_sized() -> Iterator[dict[str, BSDNetConfig]]:
    """The real shapes of the networks; while the trainer's tests run, tiny ones stand in their place.

    One thread: tiny tensors gain nothing from more, and bitwise comparisons need equal numbers.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    real = dict(CONFIGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, "s", TINY)
        patch.setitem(CONFIGS, "b", replace(TINY, channels=(16, 32, 32, 64)))
        yield real
    torch.set_num_threads(threads)
