from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bsdnet.modeling import BSDNetConfig
from tests.trainer.command import train
from tests.trainer.tiny import TINY
from trainer.trainees import CONFIGS


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


@pytest.fixture(scope="package")
def trained(full_sized: dict[str, BSDNetConfig], street_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 12 steps, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = train(street_camvid, folder)
    assert result.exit_code == 0, result.stderr
    return folder
