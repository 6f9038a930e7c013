import logging
import sys

import pytest
import torch

import bsdnet.runtime
from bsdnet.errors import ConfigError
from bsdnet.picture import YuvEncoding
from bsdnet.runtime.cuda_stages import DeviceFrame, TorchStages, select_stages
from bsdnet.runtime.preprocess import Preprocessor

CPU = torch.device("cpu")
PREPROCESSOR = Preprocessor((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), CPU, torch.float32)


def test_without_triton_torch_does_it_and_the_reason_is_told(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device", torch.device)  # there need be no GPU
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "bsdnet.runtime.kernels", raising=False)
    monkeypatch.delattr(bsdnet.runtime, "kernels", raising=False)
    with caplog.at_level(logging.WARNING):
        stages = select_stages(PREPROCESSOR, CPU, torch.float32)
    assert isinstance(stages, TorchStages)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "triton" in caplog.text


def test_kernels_that_cannot_be_compiled_are_not_used(monkeypatch, caplog):
    def no_compiler(*args):
        raise RuntimeError("Failed to find C compiler.\nMore")

    monkeypatch.setattr("bsdnet.runtime.cuda_stages.KernelStages", no_compiler)
    monkeypatch.setattr(torch.cuda, "device", torch.device)
    with caplog.at_level(logging.WARNING):
        assert isinstance(select_stages(PREPROCESSOR, CPU, torch.float32), TorchStages)
    assert caplog.messages == [
        "frames are prepared and drawn in many small steps, without fused kernels: Failed to find C compiler."
    ]


def test_u_and_v_have_rows_equally_far_apart():
    y, u, wide = (torch.zeros(size, dtype=torch.uint8) for size in ((8, 8), (4, 4), (4, 16)))
    encoding = YuvEncoding(matrix="bt601", full_range=False)
    DeviceFrame(planes=(y, u, u.clone()), encoding=encoding).check(CPU)
    DeviceFrame(planes=(y, wide[:, :4], wide[:, 4:8]), encoding=encoding).check(CPU)
    with pytest.raises(ConfigError, match=r"U and V must lie equally far apart; got strides \(4, 1\) and \(16, 1\)"):
        DeviceFrame(planes=(y, u, wide[:, :4]), encoding=encoding).check(CPU)
