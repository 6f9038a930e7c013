import dataclasses
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import bsdnet
from bsdnet import BackendError, CheckpointError, ConfigError, RenderStyle, Segmenter
from bsdnet.checkpoint import load_checkpoint
from bsdnet.classes import CAMVID_11
from bsdnet.runtime.backends import Network
from bsdnet.runtime.runners import MAX_PENDING

from .conftest import smooth_frame


@pytest.fixture
def segmenter(tiny_weights):
    with Segmenter.load(tiny_weights, device="cpu", precision="fp32") as segmenter:
        yield segmenter


def test_predict_is_the_argmax_of_the_enlarged_logits(segmenter, tiny_weights):
    checkpoint = load_checkpoint(tiny_weights)
    rgb = smooth_frame((96, 128), seed=100)  # the size of training: nothing is resized on the way in
    x = (torch.from_numpy(rgb) / 255 - torch.tensor(checkpoint.metadata.mean)) / torch.tensor(checkpoint.metadata.std)
    with torch.no_grad():
        logits = checkpoint.model(x.permute(2, 0, 1)[None])
        expected = F.interpolate(logits, size=(96, 128), mode="bilinear", align_corners=False)[0].argmax(0)
    labels = segmenter.predict(rgb)
    assert labels.shape == (96, 128)
    assert labels.dtype == np.uint8
    assert (labels == expected.numpy()).mean() > 0.999
    assert len(np.unique(labels)) > 2  # or the comparison says little


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (97, 131), (360, 640)])
def test_labels_have_the_frames_size(segmenter, size):
    assert segmenter.predict(smooth_frame(size)).shape == size


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda rgb: rgb[::-1], id="upside down"),
        pytest.param(lambda rgb: rgb[:, :, ::-1], id="bgr"),
        pytest.param(lambda rgb: rgb[10:150:2, 20:300], id="cut out"),
        pytest.param(lambda rgb: rgb.transpose(1, 0, 2), id="transposed"),
        pytest.param(lambda rgb: np.broadcast_to(rgb[:1], rgb.shape), id="read-only"),
    ],
)
def test_frames_may_be_views_of_other_arrays(segmenter, frame, view):
    assert np.array_equal(segmenter.predict(view(frame)), segmenter.predict(view(frame).copy()))


def test_render_draws_the_labels(segmenter, frame):
    segmenter.style = RenderStyle(legend=False)
    drawn = segmenter.classes.palette[segmenter.predict(frame)]
    assert np.array_equal(segmenter.render(frame, alpha=1.0), drawn)
    assert np.array_equal(segmenter.render(frame, alpha=0.0), frame)
    half = (frame.astype(int) + drawn) / 2
    assert np.abs(segmenter.render(frame) - half).max() <= 1
    assert np.array_equal(segmenter.render(frame), segmenter.render(frame, alpha=0.5))


def test_only_what_was_asked_for_is_given(segmenter, frame):
    everything = segmenter.submit(frame, outputs={"labels", "confidence", "rendered"}).result()
    assert everything.confidence.shape == everything.labels.shape == frame.shape[:2]
    assert everything.rendered.rgb.shape == frame.shape
    assert everything.infer_s > 0
    assert everything.render_s > 0
    for name in ("labels", "confidence", "rendered"):
        alone = segmenter.submit(frame, outputs={name}).result()
        got, expected = getattr(alone, name), getattr(everything, name)
        assert np.array_equal(*(x.rgb if name == "rendered" else x for x in (got, expected)))
        others = {"labels", "confidence", "rendered"} - {name}
        assert all(getattr(alone, other) is None for other in others)


def test_a_style_may_come_with_the_frame(segmenter, frame):
    beside = segmenter.submit(frame, outputs={"rendered"}, style=RenderStyle(view="side-by-side")).result()
    assert beside.rendered.rgb.shape == (180, 640, 3)
    assert segmenter.render(frame).shape == frame.shape


def test_results_come_in_the_order_of_the_frames(segmenter):
    frames = [smooth_frame((64 + 8 * number, 96), seed=number) for number in range(12)]
    expected = [segmenter.predict(frame) for frame in frames]
    handles = [segmenter.submit(frame) for frame in frames]
    assert handles[-1].result().labels is not None
    assert all(handle.done() for handle in handles)
    for handle, labels in zip(handles, expected, strict=True):
        assert np.array_equal(handle.result().labels, labels)


class Gate:
    """Stands before a segmenter's network: pictures wait until it is opened, and some never pass."""

    def __init__(self, segmenter, monkeypatch):
        self.opened = threading.Event()
        self.error = None
        self.network = segmenter._network
        monkeypatch.setattr(segmenter._runner, "_network", self)

    def __call__(self, x):
        self.opened.wait(10)
        if self.error is not None:
            raise self.error
        return self.network(x)


def test_submit_waits_while_too_many_frames_are_pending(segmenter, frame, monkeypatch):
    gate = Gate(segmenter, monkeypatch)
    handles = [segmenter.submit(frame) for _ in range(MAX_PENDING)]
    late = threading.Thread(target=lambda: handles.append(segmenter.submit(frame)))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    assert not handles[0].done()
    gate.opened.set()
    late.join(10)
    assert len(handles) == MAX_PENDING + 1
    assert all(handle.result(10).labels is not None for handle in handles)


@pytest.mark.skipif(torch.get_num_threads() < 2, reason="one core works on one frame at a time")
def test_two_frames_are_worked_on_at_once_and_still_come_in_order(segmenter, frame, monkeypatch):
    first_waits, second_passed = threading.Event(), threading.Event()
    network, calls = segmenter._network, iter((lambda: first_waits.wait(10), second_passed.set))

    def gated(x):
        next(calls)()
        return network(x)

    monkeypatch.setattr(segmenter._runner, "_network", gated)
    first, second = segmenter.submit(frame), segmenter.submit(frame)
    assert second_passed.wait(10)  # while the first one is still at work
    with pytest.raises(TimeoutError):
        second.result(0.3)
    first_waits.set()
    assert second.result(10).labels is not None
    assert first.done()


def test_waiting_for_a_result_can_end_early(segmenter, frame, monkeypatch):
    gate = Gate(segmenter, monkeypatch)
    handle = segmenter.submit(frame)
    with pytest.raises(TimeoutError):
        handle.result(0.05)
    gate.opened.set()
    assert handle.result(10).labels is not None


def test_a_failure_reaches_who_asked_and_nobody_else(segmenter, frame, monkeypatch):
    gate = Gate(segmenter, monkeypatch)
    gate.opened.set()
    gate.error = RuntimeError("out of memory")
    for _ in range(MAX_PENDING + 1):  # a failed frame is pending no longer
        with pytest.raises(BackendError, match="inference failed: RuntimeError: out of memory") as raised:
            segmenter.predict(frame)
        assert raised.value.__cause__ is gate.error
    gate.error = None
    assert segmenter.predict(frame).shape == frame.shape[:2]


def test_closing_finishes_what_was_taken_and_refuses_more(segmenter, frame, monkeypatch):
    gate = Gate(segmenter, monkeypatch)
    handles = [segmenter.submit(frame) for _ in range(MAX_PENDING)]
    threading.Timer(0.1, gate.opened.set).start()
    segmenter.close()
    assert all(handle.result(0).labels is not None for handle in handles)
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        segmenter.predict(frame)


def test_closing_releases_who_waits_to_submit(segmenter, frame, monkeypatch):
    gate = Gate(segmenter, monkeypatch)
    for _ in range(MAX_PENDING):
        segmenter.submit(frame)
    errors = []

    def submit():
        try:
            segmenter.submit(frame)
        except BackendError as error:
            errors.append(error)

    waiting = threading.Thread(target=submit)
    waiting.start()
    closing = threading.Thread(target=segmenter.close)
    while not segmenter._closed:
        if not closing.is_alive():
            closing.start()
        time.sleep(0.01)
    gate.opened.set()
    waiting.join(10)
    closing.join(10)
    assert not waiting.is_alive()
    assert [str(error) for error in errors] == ["this segmenter is closed; load another one"]


def test_an_endless_time_is_no_failed_inference(segmenter, frame):
    assert segmenter.submit(frame).result(float("inf")).labels is not None


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [[[0, 0, 0]]],
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=lambda bad: f"{getattr(bad, 'shape', bad)}",
)
def test_what_is_no_frame_is_refused(segmenter, bad):
    with pytest.raises(ConfigError, match=r"a frame must be .*uint8 RGB.*, got"):
        segmenter.predict(bad)


@pytest.mark.parametrize("outputs", [set(), {"mask"}, {"labels", "mask"}, "labels", ["labels"]])
def test_unknown_outputs_are_refused(segmenter, frame, outputs):
    with pytest.raises(ConfigError, match="labels, confidence, rendered"):
        segmenter.submit(frame, outputs=outputs)


def test_what_is_known_of_a_segmenter(segmenter):
    assert segmenter.classes == CAMVID_11
    assert segmenter.classes.palette.shape == (11, 3)
    assert (segmenter.device.type, segmenter.backend, segmenter.precision) == ("cpu", "eager", "fp32")


@pytest.mark.parametrize(
    ("train_size", "frame_size", "expected"),
    [
        ((360, 480), (360, 480), (352, 480)),
        ((360, 480), (540, 960), (352, 640)),
        ((360, 480), (1080, 1920), (352, 640)),
        ((360, 480), (1920, 1080), (640, 352)),
        ((360, 480), (100, 150), (352, 544)),
        ((1024, 2048), (1080, 1920), (1024, 1824)),
        ((96, 128), (1000, 10), (768, 32)),
        ((360, 480), (32, 10_000), (32, 2880)),
    ],
)
def test_the_default_size_keeps_the_aspect_and_the_scale_of_training(tiny_weights, train_size, frame_size, expected):
    checkpoint = load_checkpoint(tiny_weights)
    metadata = dataclasses.replace(checkpoint.metadata, train_size=train_size)
    with Segmenter(dataclasses.replace(checkpoint, metadata=metadata), device="cpu") as segmenter:
        assert segmenter.size_for(frame_size) == expected


def test_a_size_that_was_asked_for_is_used(tiny_weights, frame):
    with Segmenter.load(tiny_weights, device="cpu", size=(64, 160)) as segmenter:
        assert segmenter.size_for((1080, 1920)) == (64, 160)
        assert segmenter.predict(frame).shape == frame.shape[:2]


@pytest.mark.parametrize(
    "size", [(0, 64), (64, 31), (-5, 64), (64,), (64.5, 64), (float("inf"), 64), (float("nan"), 64), ("a", 64), 64]
)
def test_a_size_that_cannot_work_is_refused(tiny_weights, segmenter, frame, size):
    for ask in (
        lambda: Segmenter.load(tiny_weights, device="cpu", size=size),
        lambda: segmenter.prepare([size]),
        lambda: segmenter.submit(frame, size=size),
    ):
        with pytest.raises(ConfigError, match=r"size must be \(height, width\)"):
            ask()


def test_a_size_may_be_of_whole_numbers_of_any_type(tiny_weights, frame):
    with Segmenter.load(tiny_weights, device="cpu", size=(64.0, np.int64(96))) as segmenter:
        assert segmenter.size_for((10, 10)) == (64, 96)
        assert segmenter.predict(frame).shape == frame.shape[:2]


def test_memory_that_does_not_suffice_is_a_clear_error(tiny_weights, segmenter, monkeypatch):
    """A traceback ends the commands, and `is_out_of_memory` of the viewer looks for the cause."""

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.\nSee the documentation")

    for name in ("__init__", "prepare"):
        with monkeypatch.context() as patch:
            patch.setattr(Network, name, full)
            with pytest.raises(BackendError, match=r"on cpu: CUDA out of memory.*MiB\.$") as caught:
                Segmenter.load(tiny_weights, device="cpu") if name == "__init__" else segmenter.prepare([(64, 64)])
            assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_a_segmenter_that_is_loaded_beside_another_gets_all_threads(four_threads, tiny_weights, frame):
    """PyTorch gives a thread that is new to it the number that any other set last: half of them, for two at once."""

    def busy(segmenter):
        for handle in [segmenter.submit(frame) for _ in range(MAX_PENDING)]:
            handle.result(30)

    def load():
        with ThreadPoolExecutor(1) as fresh:
            return fresh.submit(Segmenter.load, tiny_weights, device="cpu").result()

    segmenters = [Segmenter.load(tiny_weights, device="cpu")]
    for _ in range(2):
        busy(segmenters[-1])
        segmenters.append(load())
    assert [segmenter._runner._threads for segmenter in segmenters] == [4] * 3
    busy(segmenters[-1])
    for segmenter in segmenters:
        segmenter.close()
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == 4


def test_a_segmenter_takes_the_threads_that_its_user_has_set(four_threads, tiny_weights):
    with Segmenter.load(tiny_weights, device="cpu") as first:
        torch.set_num_threads(3)
        with Segmenter.load(tiny_weights, device="cpu") as second:
            assert (first._runner._threads, second._runner._threads) == (4, 3)


def test_loading_says_what_is_wrong(tiny_weights, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="nowhere"):
        Segmenter.load(tmp_path / "nowhere.safetensors")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="'cuda' was asked for"):
        Segmenter.load(tiny_weights, device="cuda")
    with pytest.raises(BackendError, match="'cudagraph' needs a CUDA device"):
        Segmenter.load(tiny_weights, device="cpu", backend="cudagraph")
    with pytest.raises(ConfigError, match="precision"):
        Segmenter.load(tiny_weights, precision="half")
    with pytest.raises(ConfigError, match="alpha"):
        Segmenter.load(tiny_weights).render(smooth_frame((32, 32)), alpha=2)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, bsdnet; raise SystemExit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    for name in bsdnet.__all__:
        assert getattr(bsdnet, name) is not None
        assert name in dir(bsdnet), "or no editor offers it"
    with pytest.raises(AttributeError, match="segmentor"):
        _ = bsdnet.segmentor


def test_the_version_is_the_projects():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert bsdnet.__version__ == project["project"]["version"]
