import subprocess
import sys

import pytest

from tests.trainer.processes import ROOT

ABANDONED = """
import torch
from torch.utils.data import TensorDataset
from trainer.loading import load_batches

pictures = TensorDataset(torch.zeros(8, 4, 4, 3, dtype=torch.uint8), torch.zeros(8, 4, 4, dtype=torch.uint8))
batches = load_batches(pictures, [[i] for i in range(8)], torch.device("cpu"), workers=2)
images, _ = next(batches)
print(tuple(images.shape))
{then}
"""


@pytest.mark.parametrize("then", ["", "raise SystemExit(3)", "raise ValueError('as a bug would')"])
def test_readers_end_with_a_trainer_that_left_them_at_work(then: str):
    """They outlive a SIGTERM to the group, so what the trainer's own end sends them must be told apart from that."""
    code = ABANDONED.format(then=then)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == "(1, 3, 4, 4)\n"
    assert ended.returncode == {"": 0, "raise SystemExit(3)": 3}.get(then, 1), ended.stderr
