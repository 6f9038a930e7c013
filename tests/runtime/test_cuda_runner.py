"""The order of things in `CudaRunner`, on a simulated device that runs what is queued as late or oddly as it may."""

import threading
from itertools import cycle, islice

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bsdnet.classes import CAMVID_11, ClassSet
from bsdnet.errors import BackendError
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer, RenderStyle
from bsdnet.runtime.cuda_runner import CudaRunner
from bsdnet.runtime.cuda_stages import DeviceFrame, TorchStages
from bsdnet.runtime.postprocess import labels_on_device
from bsdnet.runtime.preprocess import Preprocessor
from bsdnet.runtime.runners import MAX_PENDING, Job

from .conftest import smooth_frame
from .simulated_cuda import SimulatedCuda

BT709 = YuvEncoding(matrix="bt709", full_range=False)
PREPROCESSOR = Preprocessor((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), torch.device("cpu"), torch.float32)
OVERLAY = Renderer(CAMVID_11, RenderStyle(legend=False))
BESIDE = Renderer(CAMVID_11, RenderStyle(view="side-by-side", legend=False))
LARGE_SET = ClassSet(
    name="large", names=tuple(f"{i}" for i in range(30)), colors=tuple((255, 8 * i, 0) for i in range(30))
)
TEMPERS = [("lazy", 0), ("eager", 0), *(("random", seed) for seed in range(4))]


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are so small that threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class StandInNetwork:
    """Maps a picture to logits that tell pictures apart, and overwrites them at the next call as CUDA graphs do."""

    def __init__(self):
        self.calls = 0
        self.mixture = torch.randn(11, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        self.logits = {}

    def __call__(self, x):
        self.calls += 1
        logits = F.conv2d(F.avg_pool2d(x, 8), self.mixture)
        return self.logits.setdefault(x.shape, torch.empty_like(logits)).copy_(logits)


def picture_of(size, seed, encoding=None):
    rgb = smooth_frame(size, seed)
    if encoding is None:
        return Picture(planes=(rgb,))
    padded = np.pad(rgb, ((0, 0), (0, 10), (0, 0)))  # as decoders lay rows out
    chroma = (padded[::2, ::2, channel].copy()[:, : size[1] // 2] for channel in (1, 2))
    return Picture(planes=(padded[..., 0].copy()[:, : size[1]], *chroma), encoding=encoding)


def job_of(seed, size=(48, 64), encoding=None, outputs=("labels", "confidence", "rendered"), renderer=OVERLAY):
    picture = picture_of(size, seed, encoding)
    return Job(picture=picture, size=(32, 64), outputs=frozenset(outputs), renderer=renderer)


def expected_of(job):
    """Labels, confidence and planes of the drawn frame, one step after the other; what is not asked for is None."""
    planes = [torch.from_numpy(plane.copy()) for plane in job.picture.planes]
    with torch.inference_mode():
        logits = StandInNetwork()(PREPROCESSOR.from_tensors(planes, job.picture.encoding, job.size))
        labels, confidence = labels_on_device(logits, job.picture.size, confidence=True)
        drawn = job.renderer.render_torch(planes, labels, job.picture.encoding)
    assert len(labels.unique()) > 1
    return (
        labels.numpy() if "labels" in job.outputs else None,
        confidence.numpy() if "confidence" in job.outputs else None,
        tuple(plane.numpy() for plane in drawn) if "rendered" in job.outputs else None,
    )


def check(prediction, job):
    labels, confidence, drawn = expected_of(job)
    for result, expected in ((prediction.labels, labels), (prediction.confidence, confidence)):
        assert (result is None) == (expected is None)
        assert expected is None or np.array_equal(result, expected)
    assert (prediction.rendered is None) == (drawn is None)
    if drawn is not None:
        assert prediction.rendered.encoding == job.picture.encoding
        assert all(np.array_equal(a, b) for a, b in zip(prediction.rendered.planes, drawn, strict=True))


def runner_on(device, network=None):
    return CudaRunner(network or StandInNetwork(), TorchStages(PREPROCESSOR), device)


@pytest.fixture(params=TEMPERS, ids=lambda temper: f"{temper[0]}-{temper[1]}")
def device(request):
    return SimulatedCuda(*request.param)


@pytest.fixture
def lazy():
    return SimulatedCuda("lazy")


KINDS = [
    {},
    {"outputs": ("labels",)},
    {"encoding": BT709, "outputs": ("rendered",)},
    {"size": (64, 96), "encoding": BT709},
    {"size": (100, 70), "outputs": ("confidence", "rendered"), "renderer": BESIDE},
    {"size": (30, 40), "encoding": BT709, "renderer": BESIDE},
    {"size": (64, 96), "outputs": ("confidence",)},
]


def test_results_are_those_of_one_step_after_the_other(device):
    runner = runner_on(device)
    jobs = [job_of(seed) for seed in range(11)]
    handles = [runner.submit(job) for job in jobs]
    for handle, job in zip(handles, jobs, strict=True):
        check(handle.result(), job)


def test_frames_of_all_kinds_may_be_mixed(device):
    runner = runner_on(device)
    jobs = [job_of(seed, **kind) for seed, kind in enumerate(islice(cycle(KINDS), 2 * len(KINDS)))]
    handles = [runner.submit(job) for job in jobs]
    for handle, job in zip(handles, jobs, strict=True):
        check(handle.result(), job)


def test_a_frame_may_be_overwritten_once_it_is_submitted(device):
    runner = runner_on(device)
    jobs = [job_of(seed) for seed in range(6)]
    frame = np.empty_like(jobs[0].picture.planes[0])
    handles = []
    for job in jobs:
        frame[:] = job.picture.planes[0]
        again = Job(picture=Picture(planes=(frame,)), size=job.size, outputs=job.outputs, renderer=job.renderer)
        handles.append(runner.submit(again))
    for handle, job in zip(handles, jobs, strict=True):
        check(handle.result(), job)


def test_results_stay_valid_while_later_frames_run(device):
    runner = runner_on(device)
    job = job_of(0)
    handle = runner.submit(job)
    prediction = handle.result()
    for seed in range(1, 3 * MAX_PENDING):
        runner.submit(job_of(seed)).result()
    check(prediction, job)
    check(handle.result(), job)


def test_nothing_waits_until_too_many_frames_are_pending(lazy):
    runner = runner_on(lazy)
    handles = [runner.submit(job_of(seed)) for seed in range(MAX_PENDING)]
    assert lazy.waits == 0
    assert not any(handle.done() for handle in handles)
    handles.append(runner.submit(job_of(MAX_PENDING)))
    assert lazy.waits == 1
    assert [handle.done() for handle in handles] == [True] + [False] * MAX_PENDING


def test_results_become_ready_in_the_order_of_the_frames(device):
    runner = runner_on(device)
    handles = [runner.submit(job_of(seed)) for seed in range(MAX_PENDING)]
    handles[2].result()
    assert all(handle.done() for handle in handles[:3])


def test_each_stream_does_its_own_part_and_no_more_waits_than_it_must(lazy):
    runner = runner_on(lazy)
    upload, compute, download = runner._upload, runner._compute, runner._download
    handles = [runner.submit(job_of(seed)) for seed in range(3)]
    upload.synchronize()
    assert lazy.ran_on == [upload] * 3
    handles[0].result()
    assert lazy.ran_on[3:] == [compute, compute, download]
    compute.synchronize()
    assert lazy.ran_on[6:] == [compute] * 4
    assert not handles[1].done()
    handles[2].result()
    assert lazy.ran_on[10:] == [download] * 2


def test_waiting_for_a_result_can_end_early(lazy):
    handle = runner_on(lazy).submit(job_of(0))
    with pytest.raises(TimeoutError, match=r"no prediction within 0\.01 s"):
        handle.result(0.01)
    check(handle.result(), job_of(0))
    check(handle.result(0.01), job_of(0))


def test_times_are_of_this_frame_alone(lazy):
    runner = runner_on(lazy)
    first, second = runner.submit(job_of(0)), runner.submit(job_of(1, outputs=("labels",)))
    runner._upload.synchronize()  # the second frame then waits for the first one's turn, which must not count
    drawn, labelled = first.result(), second.result()
    assert drawn.infer_s == labelled.infer_s == pytest.approx(0.002)  # the simulated clock ticks once a step
    assert drawn.render_s == pytest.approx(0.002)
    assert labelled.render_s == pytest.approx(0.001)
    assert drawn.busy_s == pytest.approx(0.004)


def test_memory_is_kept_from_frame_to_frame(lazy):
    runner = runner_on(lazy)
    for seed in range(MAX_PENDING):
        runner.submit(job_of(seed))
    before = lazy.calls
    runner.submit(job_of(MAX_PENDING))
    assert lazy.calls - before == 5  # upload, infer, draw, download, and memory that the results are handed out in


@pytest.mark.parametrize("outputs", [("rendered",), ("labels", "confidence", "rendered"), ("labels",)], ids="+".join)
@pytest.mark.parametrize("view", ["overlay", "side-by-side"])
def test_a_legend_of_the_frames_own_classes_waits_for_nothing(lazy, monkeypatch, view, outputs):
    renderer = Renderer(LARGE_SET, RenderStyle(view=view))
    runner = runner_on(lazy)
    kind = {"size": (180, 240), "encoding": BT709, "outputs": outputs, "renderer": renderer}
    jobs = [job_of(seed, **kind) for seed in range(MAX_PENDING)]
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", None)  # it would wait on a GPU
        handles = [runner.submit(job) for job in jobs]
        assert lazy.waits == 0
        twice = [(handle.result(), handle.result()) for handle in handles]
    for predictions, job in zip(twice, jobs, strict=True):
        for prediction in predictions:
            check(prediction, job)
    if "rendered" in outputs:
        without = expected_of(job_of(0, **kind | {"renderer": renderer.without_legend}))[2]
        with_legend = expected_of(jobs[0])[2]
        assert not np.array_equal(without[0], with_legend[0]), "there is a legend"


def test_on_the_gpu_there_is_no_legend_of_the_frames_own_classes(lazy):
    renderer = Renderer(LARGE_SET, RenderStyle())
    job = job_of(0, size=(180, 240), outputs=("rendered",), renderer=renderer)
    frame = DeviceFrame.of(job.picture, torch.device("cpu"))
    results = runner_on(lazy).run_resident(frame, job.size, job.outputs, renderer)
    assert lazy.waits == 0
    lazy.caller.synchronize()
    without = job_of(0, size=(180, 240), outputs=("rendered",), renderer=renderer.without_legend)
    assert np.array_equal(results.drawn[0].numpy(), expected_of(without)[2][0])


@pytest.mark.parametrize("failing", range(1, 9))  # three pieces of memory, upload, infer, draw, results, download
def test_a_failure_is_told_in_one_line_and_leaves_nothing_behind(device, failing):
    runner = runner_on(device)
    before = runner.submit(job_of(0))
    device.failing_call = device.calls + failing
    with pytest.raises(BackendError) as caught:
        runner.submit(job_of(1))
    assert str(caught.value) == "inference failed: OutOfMemoryError: CUDA out of memory."
    assert device.idle()
    jobs = [job_of(seed, size=(80, 96)) for seed in range(2, 2 + 2 * MAX_PENDING)]
    handles = [runner.submit(job) for job in jobs]
    for handle, job in zip(handles, jobs, strict=True):
        check(handle.result(), job)
    check(before.result(), job_of(0))


def test_a_backend_that_cannot_be_built_says_so_itself(device):
    def network(x):
        raise BackendError("backend 'tensorrt' failed: no such operator")

    device.temper = "eager"
    runner = runner_on(device, network)
    with pytest.raises(BackendError, match=r"^backend 'tensorrt' failed: no such operator$"):
        runner.submit(job_of(0))


def test_what_fails_on_the_gpu_is_told_by_the_result(lazy):
    def network(x):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nFor debugging ...")

    runner = runner_on(lazy, network)
    handle = runner.submit(job_of(0))
    with pytest.raises(BackendError, match=r"^inference failed: RuntimeError: CUDA error: an illegal .* encountered$"):
        handle.result()
    runner.close()


def test_closing_finishes_what_was_submitted(device):
    runner = runner_on(device)
    jobs = [job_of(seed) for seed in range(3)]
    handles = [runner.submit(job) for job in jobs]
    runner.close()
    runner.close()
    assert device.idle()
    for handle, job in zip(handles, jobs, strict=True):
        assert handle.done()
        check(handle.result(), job)
    with pytest.raises(BackendError, match="closed"):
        runner.submit(job_of(3))


def test_several_threads_may_submit(device):
    runner = runner_on(device)
    results = {}

    def work(seeds):
        for seed in seeds:
            results[seed] = runner.submit(job_of(seed))

    threads = [threading.Thread(target=work, args=(range(start, start + 5),)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for seed, handle in results.items():
        check(handle.result(), job_of(seed))
    assert len(results) == 15


@pytest.mark.parametrize("first", ["caller", "compute"])
@pytest.mark.parametrize("kind", KINDS[:1] + KINDS[3:5], ids=["rgb", "yuv", "beside"])
def test_frames_on_the_gpu_are_worked_on_in_order_with_the_callers_stream(device, kind, first):
    runner = runner_on(device)
    job = job_of(1, **kind)
    planes = tuple(torch.zeros(plane.shape, dtype=torch.uint8) for plane in job.picture.planes)
    kept = [torch.zeros(0)]
    others = [runner.submit(job_of(seed, **kind)) for seed in (2, 3)]

    def fill():
        for target, plane in zip(planes, job.picture.planes, strict=True):
            target.copy_(torch.from_numpy(plane.copy()))

    device.queue(device.caller, fill)
    frame = DeviceFrame(planes=planes, encoding=job.picture.encoding)
    results = runner.run_resident(frame, job.size, job.outputs, job.renderer)
    assert device.waits == 0
    if first == "compute":
        runner._compute.synchronize()  # before the caller's stream has got anywhere by itself
    device.queue(device.caller, lambda: kept.extend(part.clone() for part in (results.labels, *results.drawn)))
    device.queue(device.caller, lambda: [plane.zero_() for plane in planes])
    device.caller.synchronize()

    labels, confidence, drawn = expected_of(
        Job(picture=job.picture, size=job.size, outputs=job.outputs | {"labels"}, renderer=job.renderer)
    )
    assert np.array_equal(kept[1].numpy(), labels)
    assert (results.confidence is None) == (confidence is None)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(kept[2:], drawn, strict=True))
    for seed, handle in zip((2, 3), others, strict=True):
        check(handle.result(), job_of(seed, **kind))
