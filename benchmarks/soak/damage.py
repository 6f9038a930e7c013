"""Read randomly damaged copies of a clip, and look for what FFmpeg decodes of them and FileSource does not.

python -m benchmarks.soak.damage --copies 500 --output benchmarks/results/soak-damage.json

Each copy is read in a process of its own, with a time limit. The reference is the plainest decoding that there is: one
thread, packet by packet, in the FFmpeg that PyAV brings; with `--binary` the `ffmpeg` of this machine beside it. Frames
are compared by hashes of their planes, as multisets.
"""

import contextlib
import hashlib
import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import click

from bsdnet.decoding import plane_pixels
from bsdnet.demo_scene import DemoScene
from bsdnet.errors import BsdnetError
from bsdnet.machine import describe_measurement
from bsdnet.stream.demux import iter_packets
from bsdnet.stream.file_source import FileSource

SUFFIXES = (".mp4", ".mkv", ".ts")
NUM_FRAMES = 60
TIME_LIMIT_S = 30.0
_NUM_DRAWN = 20  # drawing takes longer than all the rest: they are shown three times
_X264 = {"g": "12", "crf": "28", "preset": "veryfast", "sc_threshold": "0", "threads": "1"}  # always the same
_NEAR_HEAD = 4096  # damage of the head is tried too, but not in every copy: it ends most files
_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(["bsdnet.stream.file_source"])  # each child begins with it, in milliseconds


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What came of one copy."""

    hashes: list[str] = field(default_factory=list)
    """MD5 of the planes of each frame, in order."""
    lost: int = 0
    """Frames that were reported as lost."""
    error: str | None = None
    """The error that ended it, of the kind that a user is told; None if it came to its end."""
    fault: str | None = None
    """What must not happen: a hang, a crash, an exception of another kind."""


def make_clips(folder: Path) -> list[Path]:
    """Write the drawn street in each container, H.264 with B-frames and a keyframe every 12 frames."""
    scene = DemoScene(size=(96, 160), num_frames=_NUM_DRAWN)
    drawn = [scene.frame(index).rgb for index in range(_NUM_DRAWN)]
    clips = []
    for suffix in SUFFIXES:
        clips.append(folder / f"clip{suffix}")
        options = {"fflags": "bitexact"} | ({"movflags": "faststart"} if suffix == ".mp4" else {})
        with av.open(str(clips[-1]), "w", options=options) as output:
            video = output.add_stream("libx264", rate=25, options=_X264)
            video.height, video.width, video.pix_fmt = *scene.size, "yuv420p"
            for index in range(NUM_FRAMES):
                output.mux(video.encode(av.VideoFrame.from_ndarray(drawn[index % _NUM_DRAWN], format="rgb24")))
            output.mux(video.encode(None))
    return clips


def damaged(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damage a file once or a few times; the damaged bytes, and in words what was done."""
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(sorted(_DAMAGES))
        first = 0 if rng.random() < 0.1 else min(_NEAR_HEAD, len(data) // 4)
        start = rng.randrange(first, len(data))
        length = min(round(2 ** rng.uniform(0, 13)), len(data) - start)
        data = _DAMAGES[name](data, start, length, rng)
        done.append(f"{name} at {start}, {length} bytes")
    return data, "; ".join(done)


def _flip(data: bytes, start: int, length: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 20)):
        changed[start + rng.randrange(length)] ^= 1 << rng.randrange(8)
    return bytes(changed)


_DAMAGES: dict[str, Callable[[bytes, int, int, random.Random], bytes]] = {
    "flip": _flip,
    "zero": lambda data, start, length, rng: data[:start] + bytes(length) + data[start + length :],
    "drop": lambda data, start, length, rng: data[:start] + data[start + length :],
    "repeat": lambda data, start, length, rng: data[: start + length] + data[start:],
    "truncate": lambda data, start, length, rng: data[: max(start, 1)],
}


def read_ours(path: Path) -> Reading:
    """Read with FileSource."""
    with FileSource(path) as source:
        hashes = [_hash(b"".join(plane.tobytes() for plane in frame.picture.planes)) for frame in source]
        return Reading(hashes=hashes, lost=source.lost_frames)


def read_plainly(path: Path) -> Reading:
    """Decode with one thread, each packet by itself."""
    hashes = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in chain(iter_packets(container, [stream]), (None,)):
            with contextlib.suppress(av.FFmpegError):
                hashes += [_hash(_pixels(picture)) for picture in stream.decode(packet)]
    return Reading(hashes=hashes)


def read_by_binary(path: Path) -> Reading:
    """Decode with the `ffmpeg` of this machine."""
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    command += ["-autoscale", "0", "-f", "framehash", "-hash", "md5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S)
    return Reading(hashes=[line.split(",")[-1].strip() for line in done.stdout.splitlines() if line[:1] != "#"])


def _pixels(picture: av.VideoFrame) -> bytes:
    return b"".join(plane_pixels(plane).tobytes() for plane in picture.planes)


def _hash(pixels: bytes) -> str:
    return hashlib.md5(pixels, usedforsecurity=False).hexdigest()


def _answer(read: Callable[[Path], Reading], path: Path, connection: Connection) -> None:
    try:
        reading = read(path)
    except (BsdnetError, av.FFmpegError) as error:
        known = read is not read_ours or isinstance(error, BsdnetError)
        reading = Reading(error=str(error)) if known else Reading(fault=repr(error))
    except BaseException as error:
        reading = Reading(fault=repr(error))
    connection.send(reading)


def in_a_child(read: Callable[[Path], Reading], path: Path, time_limit_s: float = TIME_LIMIT_S) -> Reading:
    """Read in a process of its own, which may hang or crash."""
    ours, childs = _CHILDREN.Pipe(duplex=False)
    child = _CHILDREN.Process(target=_answer, args=(read, path, childs), daemon=True)
    child.start()
    childs.close()
    try:
        if not ours.poll(time_limit_s):
            return Reading(fault=f"nothing came for {time_limit_s} s")
        reading: Reading = ours.recv()
        return reading
    except EOFError:
        child.join()
        return Reading(fault=f"the process ended with {child.exitcode}")
    finally:
        child.kill()
        child.join()
        ours.close()


def try_copy(clip: Path, number: int, folder: Path, *, binary: bool = False) -> dict[str, Any]:
    """Damage a clip in the way of this number, read it, and compare; what is wrong stands under `wrong`."""
    data, what = damaged(clip.read_bytes(), random.Random(f"{clip.name} {number}"))
    copy = folder / f"{number:04d}{clip.suffix}"
    copy.write_bytes(data)
    ours, plain = in_a_child(read_ours, copy), in_a_child(read_plainly, copy)
    outcome: dict[str, Any] = {"copy": copy.name, "damage": what, "frames": len(ours.hashes), "lost": ours.lost}
    outcome |= {"error": ours.error, "plain": len(plain.hashes)}
    missing = _missing(ours, plain)
    outcome["wrong"] = ours.fault or (f"{missing} frames are missing" if missing else None)
    if binary:
        outcome["missing_of_binary"] = _missing(ours, in_a_child(read_by_binary, copy))
    if not outcome["wrong"]:
        copy.unlink()
    return outcome


def _missing(ours: Reading, reference: Reading) -> int:
    return (Counter(reference.hashes) - Counter(ours.hashes)).total()


def summarise(outcomes: list[dict[str, Any]]) -> dict[str, int]:
    """Count copies by what came of them."""
    read = [outcome for outcome in outcomes if outcome["error"] is None]
    short = [outcome for outcome in read if outcome["frames"] < NUM_FRAMES]
    return {
        "copies": len(outcomes),
        "wrong": sum(outcome["wrong"] is not None for outcome in outcomes),
        "nothing decodable": len(outcomes) - len(read),
        "with all frames": len(read) - len(short),
        "with fewer frames": len(short),
        "with fewer frames, and none reported as lost": sum(not outcome["lost"] for outcome in short),
        "lacking a frame of the ffmpeg command's": sum(bool(o.get("missing_of_binary")) for o in outcomes),
    }


def notable(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with which something is wrong, or that lack frames without saying so, or have fewer than others find."""
    return [
        outcome
        for outcome in outcomes
        if outcome["wrong"]
        or outcome.get("missing_of_binary")
        or (outcome["error"] is None and outcome["frames"] < NUM_FRAMES and not outcome["lost"])
    ]


@click.command()
@click.option("--copies", default=500, show_default=True, help="Damaged copies to read.")
@click.option("--first", default=0, show_default=True, help="Number of the first one: each is damaged in its own way.")
@click.option("--binary/--no-binary", default=shutil.which("ffmpeg") is not None, help="Ask the ffmpeg command too.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the copies with which something is wrong.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(copies: int, first: int, binary: bool, keep: Path | None, output: Path | None) -> None:
    """Read damaged copies; exit code 1 if one hung, crashed or lacks a frame."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        clips = make_clips(Path(temporary))
        outcomes = []
        for number in range(first, first + copies):
            outcomes.append(try_copy(clips[number % len(clips)], number, folder, binary=binary))
            if outcomes[-1]["wrong"]:
                click.echo(json.dumps(outcomes[-1]))
    summary = summarise(outcomes)
    click.echo(json.dumps(summary, indent=2))
    if output is not None:
        made = describe_measurement("python -m benchmarks.soak.damage")
        made["machine"]["ffmpeg"] = _binary_version() if binary else None
        report = {**made, "summary": summary, "notable": notable(outcomes)}
        output.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(bool(summary["wrong"]))


def _binary_version() -> str:
    shown = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return shown.split()[2]


if __name__ == "__main__":
    main()
