"""bsdnet-run on a live server, a process of its own."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from bsdnet.picture import Picture
from bsdnet.stream.frame import Signal
from bsdnet.stream.stats import StatsRecorder
from cli.report import Hud
from tests.cli.conftest import Result, run_main, save_tiny
from tests.stream.media import decoded_times
from tests.stream.servers import Server, serving
from tests.stream.stamped import read_stamp


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def run_live(tmp_path: Path, weights: Path) -> Callable[..., Result]:
    def run(address: str, *more: object) -> Result:
        return run_main(address, "-o", tmp_path / "out.mp4", "--weights", weights, "--device", "cpu", *more)

    return run


def frames_of(path: Path) -> list[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    return frames


def test_duration_and_record(serve: Callable[..., Server], run_live: Callable[..., Result], tmp_path: Path):
    result = run_live(serve("http").address(), "--duration", 1.5, "--record", tmp_path / "plain.mp4")
    assert result.exit_code == 0, result
    assert result.summary["record"] == str(tmp_path / "plain.mp4")
    times = decoded_times(tmp_path / "out.mp4")
    assert times == decoded_times(tmp_path / "plain.mp4")
    assert 0 < times[-1] < 1.5
    numbers = [read_stamp(frame)[0] for frame in frames_of(tmp_path / "plain.mp4")]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] == pytest.approx(30 * times[-1], abs=4)
    drawn = frames_of(tmp_path / "out.mp4")[-1].astype(int) - frames_of(tmp_path / "plain.mp4")[-1]
    assert np.abs(drawn).mean() > 10


def test_an_outage_is_told_and_the_output_goes_on(
    serve: Callable[..., Server], run_live: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bsdnet.stream.receiver.random.uniform", lambda shortest_s, longest_s: 0.25)
    server, output = serve("http"), tmp_path / "out.mp4.part"

    def interrupt() -> None:
        while not output.exists() or not output.stat().st_size:
            time.sleep(0.05)
        time.sleep(0.5)
        server.kill()
        time.sleep(1.2)
        server.start()

    interruption = threading.Thread(target=interrupt)
    interruption.start()
    result = run_live(server.address(), "--duration", 8)
    interruption.join()
    assert result.exit_code == 3
    assert "1 reconnects" in result.summary["signal"]
    assert f"http://127.0.0.1:{server.port} is lost: " in result.stderr
    assert "is back after" in result.stderr
    times = decoded_times(tmp_path / "out.mp4")
    assert times[-1] > 4
    assert max(np.diff(times)) > 1  # then the last picture was shown again


def test_the_hud_says_for_how_long_there_was_no_signal(weights: Path):
    from bsdnet.runtime.segmenter import Segmenter

    recorder = StatsRecorder([("sink", False)])
    with Segmenter.load(weights, device="cpu") as segmenter:
        hud = Hud(segmenter, (360, 640))
        panels = []
        for silent_s in (0.0, 12.3, 12.4, 13.0):
            blank = Picture(planes=(np.zeros((360, 640, 3), np.uint8),))
            stats = recorder.snapshot(signal=Signal(silent_s=silent_s))
            panels.append(hud.draw(blank, stats).planes[0])
    assert (panels[0] != panels[1]).any()
    assert (panels[1] == panels[2]).all()
    assert (panels[2] != panels[3]).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--camera", "97", "-o", "out.mp4"], "there is no /dev/video97"),
        (["--camera", "/dev/none", "-o", "out.mp4"], "there is no /dev/none"),
    ],
)
def test_a_camera_that_is_not_there(arguments: list[str], words: str):
    result = run_main(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out.mp4"], "SOURCE or --camera"),
        (["rtsp://me:hunter2@host/1", "--camera", "0", "-o", "out.mp4"], "SOURCE or --camera"),
        (["demo", "-o", "out.mp4", "--record", "out.mp4"], "--output and --record both name out.mp4"),
        (["demo", "--record", "out.mp4"], "nothing to write"),
        (["demo", "-o", "out.mp4", "--duration", "0"], "--duration"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str):
    result = run_main(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "hunter2" not in result.stderr
