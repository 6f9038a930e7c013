"""The adaptive segmenter around a real one, and in a stream."""

import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bsdnet.errors import ConfigError
from bsdnet.picture import Picture
from bsdnet.rendering import RenderStyle
from bsdnet.runtime.adaptive import AdaptiveSegmenter, size_ladder
from bsdnet.runtime.prediction import Prediction
from bsdnet.runtime.segmenter import Segmenter
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.sink import NullSink
from bsdnet.stream.source import ArraySource
from bsdnet.stream.stats import StatsRecorder
from cli.report import Hud
from tests.cli.conftest import run_main, save_tiny
from tests.stream.media import numbered, write_clip

FRAME_SIZE = (180, 320)
LADDER = size_ladder((352, 640))
TARGET_FPS = 30.0
BUILD_S = 1.0


class FakeHandle:
    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def result(self, timeout_s: float | None = None) -> Prediction:
        return self.prediction

    def done(self) -> bool:
        return True


class FakeSegmenter:
    """Takes `busy_s` at the largest size; of that, all but the share `fixed` goes with the pixels.

    The first frame of each size takes a second more.
    """

    def __init__(self, busy_s: float, fixed: float = 0.0) -> None:
        self.busy_s = busy_s
        self.fixed = fixed
        self.prepared: list[tuple[int, int]] = []
        self.asked: list[dict] = []

    def size_for(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        return LADDER[0]

    def prepare(self, sizes: list[tuple[int, int]], *, frame_size: tuple[int, int]) -> None:
        assert not self.asked
        self.prepared += sizes

    def submit(self, picture: np.ndarray | Picture, **options: object) -> FakeHandle:
        size = options.get("size") or LADDER[0]
        ready = size in [asked.get("size") for asked in self.asked]
        self.asked.append(options)
        height, width = size
        share = self.fixed + (1 - self.fixed) * height * width / (LADDER[0][0] * LADDER[0][1])
        return FakeHandle(Prediction(busy_s=self.busy_s * share + (0 if ready else BUILD_S)))


def frame(size: tuple[int, int] = FRAME_SIZE) -> Picture:
    return Picture(planes=(np.zeros((*size, 3), np.uint8),))


def run(segmenter: AdaptiveSegmenter, frames: int) -> None:
    for _ in range(frames):
        segmenter.submit(frame()).result()


def test_all_sizes_are_prepared_and_run_before_the_first_frame():
    fake = FakeSegmenter(0.01)
    adaptive = AdaptiveSegmenter(fake, FRAME_SIZE, TARGET_FPS)
    assert fake.prepared == LADDER
    assert {asked["size"] for asked in fake.asked} == set(LADDER)
    assert {asked["outputs"] for asked in fake.asked} == {frozenset({"rendered"})}
    assert adaptive.size == LADDER[0]
    assert adaptive.frames_per_size == {}
    assert adaptive.capacity_fps is None


def test_frames_are_asked_for_at_the_size_of_the_moment_with_everything_else_as_given():
    fake = FakeSegmenter(1.4 / TARGET_FPS)
    adaptive = AdaptiveSegmenter(fake, FRAME_SIZE, TARGET_FPS)
    style = RenderStyle(alpha=0.1)
    fake.asked.clear()
    for _ in range(40):
        adaptive.submit(frame(), outputs={"rendered"}, style=style).result()
    assert [asked["size"] for asked in fake.asked] == [LADDER[0]] * 28 + [LADDER[2]] * 12
    assert all(asked["outputs"] == {"rendered"} and asked["style"] is style for asked in fake.asked)
    assert adaptive.frames_per_size == {LADDER[0]: 28, LADDER[2]: 12}
    assert list(adaptive.frames_per_size) == [LADDER[0], LADDER[2]], "largest first"


def test_what_a_size_brings_is_measured_and_not_guessed():
    """With half of the time fixed, only a smaller size than the pixels promise holds the target."""
    adaptive = AdaptiveSegmenter(FakeSegmenter(1.4 / TARGET_FPS, fixed=0.5), FRAME_SIZE, TARGET_FPS)
    run(adaptive, 28)
    assert adaptive.size == LADDER[4]
    assert 1.4 * (0.5 + 0.5 * 256 * 480 / (352 * 640)) > 1


def test_a_frame_counts_once_however_often_its_result_is_fetched():
    adaptive = AdaptiveSegmenter(FakeSegmenter(9.0), FRAME_SIZE, TARGET_FPS)
    handle = adaptive.submit(frame())
    assert handle.done()
    predictions = [handle.result() for _ in range(50)]
    assert predictions[0] is predictions[-1]
    assert adaptive.frames_per_size == {LADDER[0]: 1}
    assert adaptive.size == LADDER[0]


def test_a_frame_of_another_size_is_left_to_the_segmenter():
    """A source may change its picture's size; the sizes here have the aspect ratio of the first ones."""
    fake = FakeSegmenter(9.0)
    adaptive = AdaptiveSegmenter(fake, FRAME_SIZE, TARGET_FPS)
    fake.asked.clear()
    for picture in (frame((320, 180)), np.zeros((320, 180, 3), np.uint8)):
        for _ in range(50):
            adaptive.submit(picture).result()
    assert all(asked.get("size") is None for asked in fake.asked)
    assert adaptive.size == LADDER[0]
    assert adaptive.frames_per_size == {}


def test_it_says_what_it_chose_and_why(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        run(AdaptiveSegmenter(FakeSegmenter(1.4 / TARGET_FPS), FRAME_SIZE, TARGET_FPS), 100)
    assert [record.getMessage() for record in caplog.records] == [
        "input sizes for 30 fps: 640x352 (46.7 ms), 576x320 (38.2 ms), 480x256 (25.5 ms), 416x224 (19.3 ms), "
        "352x192 (14.0 ms)",
        "input size 640x352 -> 480x256: 21.4 fps could be done, 30 are wanted",
    ]


def test_a_target_out_of_reach_is_said_once(caplog: pytest.LogCaptureFixture):
    adaptive = AdaptiveSegmenter(FakeSegmenter(9.0), FRAME_SIZE, TARGET_FPS)
    run(adaptive, 300)
    assert adaptive.size == LADDER[-1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "30 fps cannot be held: even at 352x192" in caplog.text


def test_a_target_that_is_no_rate_is_refused_before_anything_is_prepared():
    fake = FakeSegmenter(0.01)
    with pytest.raises(ConfigError, match="target_fps"):
        AdaptiveSegmenter(fake, FRAME_SIZE, 0)
    assert not fake.prepared


def test_a_real_segmenter_in_a_stream_switches_and_loses_nothing(tiny_weights: Path):
    frames = np.random.default_rng(0).integers(0, 256, (80, 96, 128, 3), np.uint8)
    seen: list[tuple[int, int]] = []
    with Segmenter.load(tiny_weights, device="cpu") as segmenter:
        adaptive = AdaptiveSegmenter(segmenter, (96, 128), 1e6)
        sink = NullSink()
        with StreamPipeline(
            ArraySource(list(frames)), adaptive, [sink], in_flight=3, annotate=lambda picture, stats: picture
        ) as pipeline:
            pipeline.start()
            pipeline.wait(60)
            seen += adaptive.frames_per_size.items()
        labels = adaptive.submit(frames[0]).result().labels
    with Segmenter.load(tiny_weights, device="cpu", size=adaptive.size) as small:
        expected = small.predict(frames[0])
    assert sink.num_results == 80
    assert seen[0][0] == (96, 128)
    assert len(seen) == 2
    assert sum(count for _, count in seen) == 80
    assert labels.shape == (96, 128)
    np.testing.assert_array_equal(labels, expected)


def test_the_time_that_frames_take_together_is_what_the_work_took(tiny_weights: Path):
    """Two are worked on at once, so that the sum of their own times is longer than the work."""
    pictures = [np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8) for seed in range(30)]
    with Segmenter.load(tiny_weights, device="cpu") as segmenter:
        segmenter.predict(pictures[0])
        started_s = time.perf_counter()
        handles = [segmenter.submit(picture) for picture in pictures]
        done = [handle.result() for handle in handles]
        took_s = time.perf_counter() - started_s
        time.sleep(2)
        pause_s = segmenter.submit(pictures[0]).result().busy_s
    busy_s = sum(prediction.busy_s for prediction in done)
    assert busy_s <= took_s + 0.01
    assert busy_s < 0.75 * sum(prediction.infer_s for prediction in done)
    assert busy_s > 0.5 * took_s
    assert pause_s < 1, "a pause is not work"


def test_the_command_says_which_sizes_it_used(tmp_path: Path):
    weights = save_tiny(tmp_path / "tiny.safetensors")
    clip = write_clip(tmp_path / "clip.mp4", [numbered(number % 28) for number in range(60)])
    result = run_main(
        clip, "--masks", tmp_path / "masks", "--weights", weights, "--device", "cpu",
        "--target-fps", "1e6",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "cannot be held: even at 64x32" in result.stderr
    assert result.summary["frames"] == "60 in, 60 out"
    found = re.search(r"BSDNet-S 96x64 \((\d+) frames\), 64x32 \((\d+) frames\), cpu", result.summary["network"])
    assert found is not None
    assert int(found[1]) + int(found[2]) == 60
    assert len(list((tmp_path / "masks").iterdir())) == 60


def test_the_command_refuses_a_target_that_is_no_rate(tmp_path: Path):
    assert run_main("demo", "-o", tmp_path / "out.mp4", "--target-fps", "0").exit_code == 2


def test_the_picture_shows_the_size_in_use():
    """The HUD's line differs from one size to the other, and nothing else does."""
    adaptive = AdaptiveSegmenter(FakeSegmenter(1.4 / TARGET_FPS), FRAME_SIZE, TARGET_FPS)
    segmenter = SimpleNamespace(
        architecture="bsdnet_s", device="cpu", precision="fp32", backend="eager", size_for=lambda size: LADDER[0]
    )
    hud = Hud(segmenter, FRAME_SIZE, adaptive)
    stats = StatsRecorder([("null", False)]).snapshot()
    before = hud.draw(frame(), stats).rgb.copy()
    again = hud.draw(frame(), stats).rgb.copy()
    run(adaptive, 40)
    after = hud.draw(frame(), stats).rgb.copy()
    np.testing.assert_array_equal(before, again)
    assert (before != after).any()
