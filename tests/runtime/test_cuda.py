import numpy as np
import pytest
import torch

from bsdnet import RenderStyle, Segmenter

from .conftest import smooth_frame

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_the_gpu_agrees_with_the_cpu(tiny_weights, backend):
    frames = [smooth_frame((180, 320), seed) for seed in range(6)]
    with (
        Segmenter.load(tiny_weights, device="cpu", precision="fp32") as on_cpu,
        Segmenter.load(tiny_weights, device="cuda", precision="fp32", backend=backend) as on_gpu,
    ):
        assert on_gpu.backend == backend
        handles = [on_gpu.submit(frame) for frame in frames]  # more than may be pending
        for frame, handle in zip(frames, handles, strict=True):
            assert (handle.result().labels == on_cpu.predict(frame)).mean() > 0.995


def test_the_gpu_draws_its_labels(tiny_weights, frame):
    style = RenderStyle(legend=False, alpha=1)
    with Segmenter.load(tiny_weights, device="cuda", style=style) as segmenter:
        assert segmenter.precision == "fp16"
        prediction = segmenter.submit(frame, outputs={"labels", "confidence", "rendered"}).result(10)
        assert np.array_equal(prediction.rendered, segmenter.classes.palette[prediction.labels])
        assert prediction.confidence.shape == frame.shape[:2]
        assert prediction.infer_s > 0
        assert prediction.render_s > 0


def test_results_stay_valid_while_later_frames_run(tiny_weights):
    with Segmenter.load(tiny_weights, device="cuda", backend="cudagraph") as segmenter:
        first = segmenter.submit(smooth_frame((180, 320), seed=1))
        labels = first.result().labels
        kept = labels.copy()
        for seed in range(2, 8):
            segmenter.predict(smooth_frame((180, 320), seed))
        assert np.array_equal(labels, kept)
        assert np.array_equal(first.result().labels, kept)
