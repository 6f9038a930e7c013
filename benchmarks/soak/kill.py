"""Kill a process that writes a video at random moments, and see what of the video can be played.

python -m benchmarks.soak.kill --output benchmarks/results/soak-kill.json

A process of its own writes pictures with sound in real time through `FileSink` and says the timestamp of each one
before it hands it over. It gets SIGKILL; then the last timestamp that a plain player decodes must be within a second of
the last one that was said. After that the file is rescued, which must save as many pictures.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import click
import numpy as np

from bsdnet.demo_scene import DemoScene
from bsdnet.machine import describe_measurement
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Prediction
from bsdnet.stream.frame import Frame, StreamInfo, StreamResult
from bsdnet.stream.sink import FileSink, partial_path, rescue

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
MAX_LOSS_S = 1.0
FPS = 25
SIZE = (360, 640)
SOUND_S = 30.0
SoundCodec = Literal["aac", "libopus"]
_SOUND: dict[str, SoundCodec] = {".webm": "libopus"}  # the others have AAC


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill and what it cost."""

    suffix: str
    """The container."""
    given_s: float
    """Timestamp of the last picture that was handed over."""
    decoded_s: float
    """Timestamp of the last picture that can be decoded; -1 if none can."""
    rescued: bool
    """Whether the rescued file has all pictures that can be decoded, and nothing else is left of it."""

    @property
    def loss_s(self) -> float:
        """Seconds of video lost."""
        return self.given_s - self.decoded_s


def write_sound(path: Path, codec: SoundCodec) -> None:
    """Write a tone."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=48_000)
        resampler = av.AudioResampler(format=stream.format.name, layout="stereo", rate=48_000)
        for start in range(0, int(SOUND_S * 48_000), 1024):
            tone = (np.sin(np.arange(start, start + 1024) * 0.05) * 8000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(tone.repeat(2)[None], format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
            for resampled in resampler.resample(frame):
                output.mux(stream.encode(resampled))
        output.mux(stream.encode(None))


def write_for_ever(out: Path, sound: Path) -> None:
    """Write in real time, and say each timestamp before it is handed over."""
    scene = DemoScene(size=SIZE, num_frames=20)
    pictures = [Picture(planes=(scene.frame(number)[0],)) for number in range(20)]
    sink = FileSink(out)
    sink.open(StreamInfo(name="soak", size=SIZE, fps=float(FPS), time_base=Fraction(1, FPS), audio_path=str(sound)))
    started_s = time.monotonic()
    for index in range(int(SOUND_S) * FPS):
        time.sleep(max(0.0, started_s + index / FPS - time.monotonic()))
        frame = Frame(picture=pictures[index % 20], index=index, pts=index, time_s=index / FPS)
        print(index / FPS, flush=True)
        sink.write(StreamResult(frame=frame, prediction=Prediction(rendered=frame.picture)))


def kill_once(folder: Path, suffix: str, after_s: float) -> Kill:
    """Start a writer, kill it some seconds after its first picture, and look at what it has left."""
    sound, out = folder / f"sound{suffix}.mkv", folder / f"out{suffix}"
    if not sound.exists():
        write_sound(sound, _SOUND.get(suffix, "aac"))
    command = [sys.executable, "-m", "benchmarks.soak.kill", "--write", str(out), "--sound", str(sound)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(after_s)
        writer.kill()
        said += writer.stdout.readlines()
    times = decoded_times(partial_path(out))
    rescued = rescue(partial_path(out)) if times else None
    whole = rescued is not None and len(decoded_times(out)) == len(times) and not partial_path(out).exists()
    out.unlink(missing_ok=True)
    return Kill(suffix=suffix, given_s=float(said[-1]), decoded_s=max(times, default=-1.0), rescued=whole)


def decoded_times(path: Path) -> list[float]:
    """Times in seconds, from the first one, of the pictures that a plain player finds up to the first fault."""
    times: list[float] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                if frame.time is None:
                    raise click.ClickException(f"{path.name} has a picture without a time")
                times.append(frame.time)
    except av.FFmpegError:
        pass  # the last packet, of which a part was written
    return [time_s - times[0] for time_s in times]


@click.command()
@click.option("--kills", default=20, show_default=True, help="How many, over the containers in turn.")
@click.option("--suffix", "suffixes", multiple=True, default=SUFFIXES, show_default=True, help="Containers.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the results.")
@click.option("--write", type=click.Path(path_type=Path), hidden=True)
@click.option("--sound", type=click.Path(path_type=Path), hidden=True)
def main(
    kills: int, suffixes: tuple[str, ...], seed: int, output: Path | None, write: Path | None, sound: Path | None
) -> None:
    """Kill a writer at random moments."""
    if write is not None and sound is not None:
        write_for_ever(write, sound)
        return
    moments = random.Random(seed)
    found: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            found.append(kill_once(Path(folder), suffixes[number % len(suffixes)], moments.uniform(0.7, 5.0)))
            kill = found[-1]
            print(
                f"{kill.suffix:5} given {kill.given_s:.2f} s, decoded {kill.decoded_s:.2f} s: {kill.loss_s:.2f} s lost"
            )
    losses = [kill.loss_s for kill in found]
    good = max(losses) <= MAX_LOSS_S and all(kill.rescued for kill in found)
    print(f"{kills} kills, at most {max(losses):.2f} s lost, on average {sum(losses) / kills:.2f} s")
    if output is not None:
        summary = {
            **describe_measurement("python -m benchmarks.soak.kill"),
            "max_loss_s": max(losses),
            "kills": [asdict(kill) | {"loss_s": round(kill.loss_s, 3)} for kill in found],
        }
        output.write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
