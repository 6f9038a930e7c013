"""What bsdnet-view takes to show 1080p at 60 frames a second: GUI thread, all threads, and memory over a long time.

QT_QPA_PLATFORM=offscreen python -m benchmarks.soak.viewer --minutes 10 --output benchmarks/results/viewer-cpu.json

Run it in the repository's root. The network is a stand-in whose labels are ready at once, so that what is measured is
the way from a decoded picture to the screen. Frames are YUV 4:2:0 as decoders give them, and are scaled to the window.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Set
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
import torch
from PySide6.QtCore import QSettings, QTimer
from PySide6.QtWidgets import QApplication

from app.engine import EngineChoice
from app.player import Player
from app.settings import Settings
from app.window import Window
from benchmarks.soak.memory import resident_mib, slope
from bsdnet.classes import CAMVID_11
from bsdnet.demo_scene import DemoScene
from bsdnet.errors import SourceError
from bsdnet.machine import describe_measurement
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.runtime.prediction import Output, Prediction
from bsdnet.runtime.smoothing import Smoother
from bsdnet.stream.frame import Frame, StreamInfo
from bsdnet.stream.source import VideoSource

SIZE = (1080, 1920)
WINDOW_PX = (2300, 1220)  # beside the panels, the picture is a little larger than it is
NUM_PICTURES = 8
WARM_UP_S = 10.0
ENCODING = YuvEncoding(matrix="bt709", full_range=False)


class Street(VideoSource):
    """A few pictures of the drawn street, again and again."""

    def __init__(self, fps: float) -> None:
        scene = DemoScene(size=SIZE)
        frames = [scene.frame(10 * number) for number in range(NUM_PICTURES)]
        self.pictures = [to_yuv(frame.rgb) for frame in frames]
        self.labels = [np.where(frame.labels == 255, 0, frame.labels).astype(np.uint8) for frame in frames]
        self._info = StreamInfo(
            name="street", size=SIZE, fps=fps, time_base=Fraction(1, 90_000), num_frames=10**7, seekable=True
        )
        self._fps = fps
        self._next = 0

    @property
    def info(self) -> StreamInfo:
        """What is known of it."""
        return self._info

    @property
    def lost_frames(self) -> int:
        """None."""
        return 0

    def read(self) -> Frame:
        """Give the next one."""
        index, self._next = self._next, self._next + 1
        time_s = index / self._fps
        return Frame(
            picture=self.pictures[index % NUM_PICTURES], index=index, pts=round(time_s * 90_000), time_s=time_s
        )

    def seek(self, time_s: float) -> None:
        """Raise."""
        raise SourceError("nobody seeks in a measurement")

    def close(self) -> None:
        """Nothing is open."""


class StandIn:
    """A network that has seen these pictures before."""

    classes = CAMVID_11
    architecture = "bsdnet_s"
    device = torch.device("cpu")
    precision = "fp32"
    backend = "eager"

    def __init__(self, street: Street) -> None:
        self._labels = {id(picture): labels for picture, labels in zip(street.pictures, street.labels, strict=True)}

    def size_for(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """Any."""
        return 352, 640

    def prepare(self, sizes: Iterable[tuple[int, int]], *, frame_size: tuple[int, int], outputs: Set[Output]) -> None:
        """Nothing is built."""

    def submit(
        self, picture: Picture, *, outputs: Set[Output], smoother: Smoother | None = None
    ) -> "Future[Prediction]":
        """Give the labels, as a copy: they are another array for each frame of a real network."""
        future: Future[Prediction] = Future()
        future.set_result(Prediction(labels=self._labels[id(picture)].copy(), infer_s=1e-4))
        return future

    def close(self) -> None:
        """Nothing is open."""


def to_yuv(rgb: np.ndarray) -> Picture:
    """Convert as an encoder does, chroma being that of the upper left pixel."""
    matrix = ENCODING.from_rgb()
    yuv = np.clip(np.rint(rgb @ matrix.T + ENCODING.black), 0, 255).astype(np.uint8)
    y, u, v = (np.ascontiguousarray(yuv[..., channel]) for channel in range(3))
    planes = (y, np.ascontiguousarray(u[::2, ::2]), np.ascontiguousarray(v[::2, ::2]))
    return Picture(planes=planes, encoding=ENCODING)


class Meter:
    """Notes once a second, on the GUI thread, what was used."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.samples: list[dict[str, float]] = []
        self._timer = QTimer()
        self._timer.timeout.connect(self._note)
        self._timer.start(1000)

    def _note(self) -> None:
        self.samples.append(
            {
                "second": time.perf_counter(),
                "gui_s": time.thread_time(),
                "all_s": time.process_time(),
                "display_fps": self._window.video.display_fps,
                "memory_mib": resident_mib(),
            }
        )

    def report(self) -> dict[str, object]:
        """Sum up what came after the warm-up."""
        start_s = self.samples[0]["second"] + WARM_UP_S
        kept = [sample for sample in self.samples if sample["second"] >= start_s]
        first, last = kept[0], kept[-1]
        span_s = last["second"] - first["second"]
        half = kept[len(kept) // 2 :]
        return {
            "display_fps": {
                "median": float(np.median([sample["display_fps"] for sample in kept])),
                "lowest": min(sample["display_fps"] for sample in kept),
            },
            "gui_thread_share_of_a_core": round((last["gui_s"] - first["gui_s"]) / span_s, 3),
            "all_threads_share_of_a_core": round((last["all_s"] - first["all_s"]) / span_s, 3),
            "memory_mib": {
                "first": first["memory_mib"],
                "last": last["memory_mib"],
                "mib_per_hour": round(slope([(s["second"], s["memory_mib"]) for s in half]) * 3600, 1),
            },
            "seconds": round(span_s),
        }


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="How long to measure.")
@click.option("--fps", default=60.0, show_default=True, help="Frames per second.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(minutes: float, fps: float, output: Path | None) -> None:
    """Measure the viewer without a screen."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    app = QApplication([])
    app.setQuitOnLastWindowClosed(False)
    street = Street(fps)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(QSettings(str(Path(folder) / "settings.ini"), QSettings.Format.IniFormat))
        player = Player(lambda spec: street, lambda choice: StandIn(street))
        window = Window(player, settings)
        window.resize(*WINDOW_PX)
        window.show()
        player.network.choose(EngineChoice(device="cpu"))
        player.open("street")
        meter = Meter(window)
        QTimer.singleShot(round(1000 * (60 * minutes + WARM_UP_S)), window.close)
        player.closed.connect(lambda ended: app.exit(0 if ended else 1))
        painted: dict[str, float | None] = {}
        QTimer.singleShot(5000, lambda: painted.update(zoom=window.video.view.zoom if window.video.view else None))
        app.exec()
    report = {
        **describe_measurement("python -m benchmarks.soak.viewer"),
        "frame": f"{SIZE[1]}x{SIZE[0]}",
        "fps": fps,
        "zoom": painted["zoom"],
        **meter.report(),
    }
    click.echo(json.dumps(report, indent=2))
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
