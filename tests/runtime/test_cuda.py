import importlib.util

import cv2
import numpy as np
import pytest
import torch

from bsdnet import BackendError, RenderStyle, Segmenter
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.cuda_runner import CudaRunner
from bsdnet.runtime.cuda_stages import DeviceFrame, KernelStages, TorchStages
from bsdnet.runtime.runners import Job

from .conftest import smooth_frame
from .simulated_cuda import SimulatedCuda

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

EVERYTHING = frozenset({"labels", "confidence", "rendered"})
BT709 = YuvEncoding(matrix="bt709", full_range=False)


def picture_of(size, seed, encoding=None):
    rgb = smooth_frame(size, seed)
    if encoding is None:
        return Picture(planes=(rgb,))
    height, width = size
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    y, u, v = np.split(i420, [height * width, height * width * 5 // 4])
    chroma = (height // 2, width // 2)
    return Picture(planes=(y.reshape(size), u.reshape(chroma), v.reshape(chroma)), encoding=encoding)


@pytest.fixture(scope="module")
def on_cpu(tiny_weights):
    with Segmenter.load(tiny_weights, device="cpu", precision="fp32") as segmenter:
        yield segmenter


@pytest.fixture
def reference(on_cpu, monkeypatch):
    """What torch makes of a picture on the CPU, by the GPU's way: the CPU's own rounds to whole levels in between.

    The tests' network is drawn at random and changes its mind at once, so that even this turns some of its labels.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    runner = CudaRunner(on_cpu._network, TorchStages(on_cpu._runner._preprocessor), SimulatedCuda("eager"))

    def predict(picture, style=None):
        renderer = on_cpu._renderer_for(style or on_cpu.style)
        size = on_cpu.size_for(picture.size)
        return runner.submit(Job(picture=picture, size=size, outputs=EVERYTHING, renderer=renderer)).result()

    return predict


def assert_close(prediction, expected):
    same = prediction.labels == expected.labels
    assert same.mean() > 0.995
    assert np.abs(prediction.confidence.astype(int) - expected.confidence)[same].max() <= 2
    for drawn, plane in zip(prediction.rendered.planes, expected.rendered.planes, strict=True):
        assert drawn.shape == plane.shape
        assert (drawn == plane).mean() > 0.99


@pytest.fixture(params=["kernels", "torch"])
def stages(request, monkeypatch):
    """Which code prepares and draws; the kernels have to work where triton is installed."""
    if request.param == "kernels" and importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton")
    if request.param == "torch":
        monkeypatch.setattr("bsdnet.runtime.cuda_stages.KernelStages", None)
    return KernelStages if request.param == "kernels" else TorchStages


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_the_gpu_agrees_with_the_cpu(tiny_weights, on_cpu, reference, stages, backend, encoding):
    with Segmenter.load(tiny_weights, device="cuda", precision="fp32", backend=backend) as on_gpu:
        assert on_gpu.backend == backend
        assert isinstance(on_gpu._runner._stages, stages)
        for size in ((180, 320), (96, 128), (64, 100), (400, 704)):
            pictures = [picture_of(size, seed, encoding) for seed in range(9)]  # more than may be pending
            handles = [on_gpu.submit(picture, outputs=EVERYTHING) for picture in pictures]
            for picture, handle in zip(pictures, handles, strict=True):
                prediction = handle.result()
                assert_close(prediction, reference(picture))
                assert (prediction.labels == on_cpu.submit(picture).result().labels).mean() > 0.9


def test_sizes_formats_and_outputs_may_change_from_frame_to_frame(tiny_weights, reference, stages):
    beside = RenderStyle(view="side-by-side")
    jobs = [
        (picture_of(size, seed, encoding), style)
        for seed, size in enumerate([(180, 320), (360, 640), (96, 128)])
        for encoding in (None, BT709)
        for style in (None, beside)
    ]
    with Segmenter.load(tiny_weights, device="cuda", precision="fp32", backend="eager") as on_gpu:
        handles = [on_gpu.submit(picture, outputs=EVERYTHING, style=style) for picture, style in jobs]
        alone = on_gpu.submit(jobs[0][0], outputs={"confidence"}).result()
        for (picture, style), handle in zip(jobs, handles, strict=True):
            assert_close(handle.result(), reference(picture, style))
        assert np.array_equal(alone.confidence, handles[0].result().confidence)
        assert alone.labels is None
        assert alone.rendered is None


def test_the_gpu_draws_its_labels(tiny_weights, frame):
    style = RenderStyle(legend=False, alpha=1)
    with Segmenter.load(tiny_weights, device="cuda", style=style) as segmenter:
        assert segmenter.precision == "fp16"
        prediction = segmenter.submit(frame, outputs=EVERYTHING).result(10)
        assert np.array_equal(prediction.rendered.rgb, segmenter.classes.palette[prediction.labels])
        assert prediction.confidence.shape == frame.shape[:2]
        assert prediction.infer_s > 0
        assert prediction.render_s >= 0
        assert prediction.busy_s == pytest.approx(prediction.infer_s + prediction.render_s)


@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_results_stay_valid_while_later_frames_run(tiny_weights, backend):
    with Segmenter.load(tiny_weights, device="cuda", backend=backend) as segmenter:
        first = segmenter.submit(smooth_frame((180, 320), seed=1), outputs=EVERYTHING)
        prediction = first.result()
        kept = prediction.labels.copy(), prediction.rendered.rgb.copy()
        for seed in range(2, 40):
            segmenter.submit(smooth_frame((180, 320), seed), outputs=EVERYTHING)  # nobody keeps these
        segmenter.predict(smooth_frame((180, 320), seed=40))
        assert np.array_equal(prediction.labels, kept[0])
        assert np.array_equal(prediction.rendered.rgb, kept[1])
        assert np.array_equal(first.result().labels, kept[0])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_nothing_in_the_stream_waits_for_the_gpu(tiny_weights, stages, backend):
    with Segmenter.load(tiny_weights, device="cuda", backend=backend) as segmenter:
        picture = picture_of((180, 320), 0, BT709)
        frame = DeviceFrame.of(picture, segmenter.device)
        segmenter.submit(picture, outputs=EVERYTHING).result()  # builds, and uploads tables
        torch.cuda.set_sync_debug_mode("error")
        try:
            handles = [segmenter.submit(picture, outputs=EVERYTHING) for _ in range(12)]
            segmenter.run_resident(frame)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        labels = [handle.result().labels for handle in handles]
        assert all(np.array_equal(labels[0], other) for other in labels[1:])


def test_running_out_of_memory_is_told_and_survived(tiny_weights, frame):
    with Segmenter.load(tiny_weights, device="cuda", backend="eager") as segmenter:
        expected = segmenter.predict(frame)
        torch.cuda.set_per_process_memory_fraction(0.01)
        try:
            with pytest.raises(BackendError, match=r"^inference failed: OutOfMemoryError: .*$"):
                segmenter.submit(frame, size=(32768, 32768))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert np.array_equal(segmenter.predict(frame), expected)


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
def test_frames_may_lie_on_the_gpu_and_results_stay_there(tiny_weights, stages, encoding):
    with Segmenter.load(tiny_weights, device="cuda", backend="cudagraph") as segmenter:
        pictures = [picture_of((180, 320), seed, encoding) for seed in range(8)]
        expected = [segmenter.submit(picture, outputs=EVERYTHING).result() for picture in pictures]
        results = []
        for picture in pictures:
            frame = DeviceFrame.of(picture, segmenter.device)
            results.append(segmenter.run_resident(frame, outputs=EVERYTHING))
        for result, prediction in zip(results, expected, strict=True):
            assert np.array_equal(result.labels.cpu().numpy(), prediction.labels)
            assert np.array_equal(result.confidence.cpu().numpy(), prediction.confidence)
            for drawn, plane in zip(result.drawn, prediction.rendered.planes, strict=True):
                assert np.array_equal(drawn.cpu().numpy(), plane)
