import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from bsdnet.classes import CAMVID_11, ClassSet
from bsdnet.errors import TrainingError
from trainer.monitor import RunMonitor, side_by_side

CPU = torch.device("cpu")
CLASSES = ClassSet(name="two", names=("sky", "traffic light"), colors=((10, 20, 30), (40, 50, 60)))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal() -> Iterator[Terminal]:
    with redirect_stderr(Terminal()) as stream:
        yield stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only when a test says so."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr("trainer.monitor.time", SimpleNamespace(perf_counter=lambda: now.s))
    return now


def monitor(folder: Path, device: torch.device = CPU, start: int = 0, **options: bool) -> RunMonitor:
    return RunMonitor(folder, 200, start, 8, device, **options)


def make_steps(run: RunMonitor, clock: SimpleNamespace, count: int, loss: float = 2.0, norm: float = 1.0) -> None:
    """Steps of half a second, a tenth of which is waiting."""
    for _ in range(count):
        clock.s += 0.5
        run.step({"loss": loss, "cwd": loss / 4}, lr=4e-4, data_s=0.05, gradient_norm=norm)


def test_the_bar_shows_losses_rate_speed_waiting_and_what_is_left(tmp_path: Path, clock: SimpleNamespace):
    with terminal() as stream, monitor(tmp_path, start=20) as run:
        make_steps(run, clock, 10)
    shown = stream.getvalue().split("\r")[-1]
    assert "loss 2.000, cwd 0.500, lr 4.0e-04, 16.0 images/s, data 10 %" in shown
    assert "GiB" not in shown
    assert re.search(r"30/200 \[\d+:\d+<\d+:\d+", shown)


def test_the_bar_shows_the_gpus_memory(tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    device = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda asked: 3 * 2**29 if asked == device else 0)
    with terminal() as stream, monitor(tmp_path, device) as run:
        make_steps(run, clock, 1)
    assert "data 10 %, 1.5 GiB" in stream.getvalue()


def test_without_a_terminal_there_is_no_bar_but_a_line(
    tmp_path: Path, clock: SimpleNamespace, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO), monitor(tmp_path) as run:
        run.log_line()  # nothing to say yet
        make_steps(run, clock, 20)
        run.log_line()
    expected = "loss 2.000, cwd 0.500, lr 4.0e-04, 16.0 images/s, data 10 %, 01:30 left without evaluations"
    assert caplog.messages == [f"iteration 20 of 200: {expected}"]
    assert capfd.readouterr().err == ""


def test_without_a_terminal_a_line_a_minute_shows_that_it_lives(
    tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO), monitor(tmp_path) as run:
        make_steps(run, clock, 75)  # 37.5 s
        run.log_line()  # an evaluation follows
        with run.paused():
            clock.s += 1000
        make_steps(run, clock, 119)  # 97 s
        assert [line.split(":")[0] for line in caplog.messages] == ["iteration 75 of 200"]
        make_steps(run, clock, 1)
        run.log_line()  # and another one: no need to say it again
    assert [line.split(":")[0] for line in caplog.messages] == ["iteration 75 of 200", "iteration 195 of 200"]


def test_above_a_bar_there_is_no_line_a_minute(
    tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
):
    with terminal(), caplog.at_level(logging.INFO), monitor(tmp_path) as run:
        make_steps(run, clock, 150)
    assert caplog.messages == []


def test_other_processes_than_the_main_one_are_silent(
    tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
):
    with (
        terminal() as stream,
        caplog.at_level(logging.INFO),
        monitor(tmp_path, enabled=False, tensorboard=True) as run,
    ):
        make_steps(run, clock, 50)
        run.log_line()
        assert not run.draws_pictures
        with run.paused():
            run.evaluation(0.5, {"sky": 0.5})
            run.pictures(np.zeros((1, 8, 8, 3), np.uint8), *np.zeros((2, 1, 8, 8), np.uint8), CLASSES)
    assert (stream.getvalue(), caplog.messages, list(tmp_path.iterdir())) == ("", [], [])


def test_means_run_over_the_last_50_steps(tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), monitor(tmp_path) as run:
        clock.s += 1000  # the first steps compile
        make_steps(run, clock, 10, loss=9)
        make_steps(run, clock, 25, loss=1)
        run.step({"loss": 1.0}, lr=1e-3, data_s=0.05, gradient_norm=1)  # a step without cwd
        clock.s += 0.5
        make_steps(run, clock, 24, loss=3)
        run.log_line()
    assert "loss 1.960, cwd 0.495, lr 4.0e-04, 16.0 images/s, data 10 %" in caplog.text


def test_a_pause_is_not_the_steps_time(tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), monitor(tmp_path) as run:
        make_steps(run, clock, 5)
        with pytest.raises(KeyError), run.paused():
            clock.s += 60
            raise KeyError
        make_steps(run, clock, 5)
        run.log_line()
    assert "16.0 images/s, data 10 %, 01:35 left" in caplog.text


def test_a_pause_does_not_count_in_the_bars_own_estimate(tmp_path: Path):
    with terminal(), monitor(tmp_path) as run:
        run._bar._time = lambda: run._bar.last_print_t + 60
        before_s = run._bar.start_t
        with run.paused():
            pass
        assert run._bar.start_t == before_s + 60


def test_log_lines_stand_above_the_bar(tmp_path: Path, clock: SimpleNamespace):
    root = logging.getLogger()
    with terminal() as stream:
        handler = logging.StreamHandler(stream)
        root.addHandler(handler)
        before = list(root.handlers)
        try:
            with monitor(tmp_path) as run:
                make_steps(run, clock, 2)
                logging.getLogger("any").warning("something else")
            assert root.handlers == before
        finally:
            root.removeHandler(handler)
    assert "\rsomething else\n\r" in stream.getvalue()


def curves(folder: Path) -> dict[str, list[tuple[int, float | bytes]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["images"]:
        found[tag] = [(event.step, event.encoded_image_string) for event in events.Images(tag)]
    return found


def test_curves_have_a_point_every_50_steps(tmp_path: Path, clock: SimpleNamespace):
    with monitor(tmp_path, tensorboard=True) as run:
        make_steps(run, clock, 50, loss=2.0, norm=3.0)
        make_steps(run, clock, 60, loss=4.0, norm=5.0)
        run.evaluation(0.25, {"sky": 0.5, "traffic light": float("nan")})
    assert curves(tmp_path) == {
        "loss/loss": [(50, 2.0), (100, 4.0)],
        "loss/cwd": [(50, 0.5), (100, 1.0)],
        "lr": [(50, pytest.approx(4e-4)), (100, pytest.approx(4e-4))],
        "gradient_norm": [(50, 3.0), (100, 5.0)],
        "speed/images_per_s": [(50, 16.0), (100, 16.0)],
        "speed/data_share": [(50, pytest.approx(0.1)), (100, pytest.approx(0.1))],
        "evaluation/score": [(110, 0.25)],
        "iou/sky": [(110, 0.5)],
    }


def test_a_resumed_run_hides_what_was_written_after_its_state(tmp_path: Path, clock: SimpleNamespace):
    with monitor(tmp_path, tensorboard=True) as run:
        make_steps(run, clock, 150, loss=1.0)
    with monitor(tmp_path, tensorboard=True, start=50) as run:
        make_steps(run, clock, 50, loss=2.0)
    assert curves(tmp_path)["loss/loss"] == [(50, 1.0), (100, 2.0)]


def test_pictures_show_input_labels_and_prediction(tmp_path: Path):
    rng = np.random.default_rng(0)
    rgb = [rng.integers(0, 256, size, np.uint8) for size in ((6, 8, 3), (8, 6, 3))]
    labels, predicted = ([rng.integers(0, 2, image.shape[:2], np.uint8) for image in rgb] for _ in range(2))
    with monitor(tmp_path, tensorboard=True, start=7) as run:
        assert run.draws_pictures
        run.pictures(rgb, labels, predicted, CLASSES)
    shown = curves(tmp_path)
    assert sorted(shown) == ["pictures/0", "pictures/1"]
    for number in range(2):
        ((step, png),) = shown[f"pictures/{number}"]
        decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert step == 7
        np.testing.assert_array_equal(decoded, side_by_side(rgb[number], labels[number], predicted[number], CLASSES))


def test_a_picture_has_three_panels_in_the_palette_and_void_is_black():
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    labels, predicted = np.array([[0, 255], [1, 0]], np.uint8), np.array([[1, 1], [0, 1]], np.uint8)
    sky, light, black = CLASSES.palette[0], CLASSES.palette[1], np.zeros(3, np.uint8)
    drawn = side_by_side(rgb, labels, predicted, CLASSES)
    panels = [drawn[:, :2], drawn[:, 6:8], drawn[:, 12:]]
    np.testing.assert_array_equal(panels, [rgb, [[sky, black], [light, sky]], [[light, light], [sky, light]]])
    assert (drawn[:, 2:6] == 255).all()


def test_a_large_picture_is_shrunk_without_mixed_classes():
    rng = np.random.default_rng(0)
    rgb, labels = np.full((1024, 2048, 3), 90, np.uint8), rng.integers(0, 11, (1024, 2048), np.uint8)
    drawn = side_by_side(rgb, labels, labels, CAMVID_11)
    assert drawn.shape == (256, 3 * 512 + 8, 3)
    assert (drawn[:, :512] == 90).all()
    assert {tuple(color) for color in drawn[:, 516:1028].reshape(-1, 3).tolist()} == set(CAMVID_11.colors)


def test_tensorboard_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TrainingError, match=r"not installed: pip install 'bsdnet\[train\]'"):
        monitor(tmp_path, tensorboard=True)


def test_files_that_cannot_be_written_are_one_line(tmp_path: Path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(TrainingError, match=r"TensorBoard's files cannot be written to .*tensorboard: "):
        monitor(tmp_path, tensorboard=True)
