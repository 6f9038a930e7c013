"""What a segmenter does on a GPU beside `submit`: frames that stay there, and kernels that are ready beforehand."""

import numpy as np
import pytest
import torch

from bsdnet import BackendError, ConfigError, RenderStyle, Segmenter
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.cuda_runner import CudaRunner
from bsdnet.runtime.cuda_stages import DeviceFrame, TorchStages
from bsdnet.runtime.smoothing import Smoother

from .conftest import smooth_frame
from .simulated_cuda import SimulatedCuda

CPU = torch.device("cpu")
BT709 = YuvEncoding(matrix="bt709", full_range=False)


class Launches(TorchStages):
    """Notes of each launch what a kernel is compiled for."""

    def __init__(self, preprocessor):
        super().__init__(preprocessor)
        self.kinds = []

    def prepare(self, frame, size):
        self.kinds.append(("normalise", len(frame.planes), frame.size, size))
        return super().prepare(frame, size)

    def decide(self, logits, frame, renderer, results):
        drawn = results.drawn and results.drawn[0].shape[1]
        self.kinds.append(
            ("decide", len(frame.planes), frame.size, logits.dtype, drawn, results.confidence is not None)
        )
        super().decide(logits, frame, renderer, results)


@pytest.fixture
def segmenter(tiny_weights):
    """One that takes the simulated device for its GPU."""
    with Segmenter.load(tiny_weights, device="cpu", precision="bf16", size=(32, 64)) as segmenter:
        own = segmenter._runner
        segmenter._runner = CudaRunner(segmenter._network, Launches(own._preprocessor), SimulatedCuda("eager"))
        segmenter.device = torch.device("cuda", 0)
        yield segmenter
        own.close()


def picture_of(size, encoding, seed=1):
    rgb = smooth_frame(size, seed)
    if encoding is None:
        return Picture(planes=(rgb,))
    return Picture(planes=(rgb[..., 0], rgb[::2, ::2, 1], rgb[::2, ::2, 2]), encoding=encoding)


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
@pytest.mark.parametrize("view", ["overlay", "side-by-side"])
def test_a_frame_on_the_device_gives_what_submit_gives(segmenter, monkeypatch, encoding, view):
    picture, style = picture_of((48, 80), encoding), RenderStyle(view=view)
    outputs = {"labels", "confidence", "rendered"}
    expected = segmenter.submit(picture, outputs=outputs, style=style).result()
    segmenter.device = CPU  # where the simulated device has its memory
    results = segmenter.run_resident(DeviceFrame.of(picture, CPU), outputs=outputs, style=style)
    assert np.array_equal(results.labels, expected.labels)
    assert np.array_equal(results.confidence, expected.confidence)
    for drawn, plane in zip(results.drawn, expected.rendered.planes, strict=True):
        assert np.array_equal(drawn, plane)
    alone = segmenter.run_resident(DeviceFrame.of(picture, CPU), outputs={"labels"}, size=(64, 96))
    assert (alone.confidence, alone.drawn) == (None, ())
    assert segmenter._runner._stages.kinds[-2][-1] == (64, 96)


def test_a_frames_memory_is_kept_while_it_is_read(segmenter):
    segmenter.device = CPU
    frame = DeviceFrame.of(picture_of((48, 80), BT709), CPU)
    segmenter.run_resident(frame, outputs={"labels"})
    runner = segmenter._runner
    assert len(runner._device.kept) == 3
    for plane, (kept, stream) in zip(frame.planes, runner._device.kept, strict=True):
        assert kept is plane
        assert stream is runner._compute


def test_frames_stay_on_a_gpu_only(tiny_weights):
    with Segmenter.load(tiny_weights, device="cpu") as segmenter:
        frame = DeviceFrame.of(picture_of((48, 80), None), CPU)
        with pytest.raises(BackendError, match=r"runs on cpu, frames can stay on a GPU only: .* 'cuda', or use submit"):
            segmenter.run_resident(frame)


PLANES = (torch.zeros(48, 80, dtype=torch.uint8), *torch.zeros(2, 24, 40, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("planes", "encoding", "words"),
    [
        pytest.param((PLANES[0].float(), *PLANES[1:]), BT709, "got torch.float32 on cpu", id="float"),
        pytest.param((PLANES[0].t(), *PLANES[1:]), BT709, r"no gaps .* strides \(1, 80\)", id="turned"),
        pytest.param((torch.zeros(3, 48, 80, dtype=torch.uint8).permute(1, 2, 0),), None, "gaps", id="planar"),
        pytest.param((PLANES[0], PLANES[1], PLANES[2][:, :39]), BT709, "a picture needs planes", id="chroma"),
        pytest.param(PLANES, None, "a picture needs planes", id="three planes of RGB"),
        pytest.param((PLANES[0].to("meta"), *PLANES[1:]), BT709, "on cpu needs .* on meta", id="elsewhere"),
    ],
)
def test_what_is_no_frame_is_refused_before_a_kernel_reads_it(segmenter, planes, encoding, words):
    segmenter.device = CPU
    with pytest.raises(ConfigError, match=words):
        segmenter.run_resident(DeviceFrame(planes=planes, encoding=encoding))
    with pytest.raises(ConfigError, match="outputs must be some of"):
        segmenter.run_resident(DeviceFrame(planes=PLANES, encoding=BT709), outputs={"depth"})
    assert segmenter._runner._stages.kinds == []


@pytest.mark.parametrize("outputs", [{"rendered"}, {"labels", "confidence"}], ids=["drawn", "labels"])
def test_kernels_for_all_formats_are_launched_before_the_first_frame(segmenter, outputs):
    """Compiled is what is launched: a frame of the stream must bring no launch of a new kind."""
    frame_size, sizes = (48, 80), [(32, 64), (64, 96)]
    segmenter.prepare(sizes, frame_size=frame_size, outputs=outputs)
    launches = segmenter._runner._stages
    prepared = set(launches.kinds)
    launches.kinds.clear()
    for size in sizes:
        for encoding in (None, BT709):
            for smoother in (None, Smoother()):
                picture = picture_of(frame_size, encoding)
                segmenter.submit(picture, outputs=outputs, size=size, smoother=smoother).result()
    assert set(launches.kinds) == prepared
    assert len(prepared) == 4 + 4  # two inputs or two types of logits, each of RGB and of YUV


def test_frames_of_odd_sizes_are_rgb(segmenter):
    segmenter.prepare([(32, 64)], frame_size=(47, 80))
    assert {kind[1:3] for kind in segmenter._runner._stages.kinds} == {(1, (47, 80))}


def test_without_a_frame_size_or_a_gpu_only_the_network_is_prepared(segmenter):
    segmenter.prepare([(32, 64)])
    segmenter.device = CPU
    segmenter.prepare([(32, 64)], frame_size=(48, 80))
    assert segmenter._runner._stages.kinds == []
