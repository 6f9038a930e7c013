import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from bsdnet.classes import CAMVID_11
from bsdnet.errors import ConfigError, DatasetError
from bsdnet.stream.file_source import FileSource
from tests.stream.media import number_of, numbered, write_clip
from tests.trainer import trees
from trainer.datasets import video
from trainer.datasets.video import UnlabelledImages

NUM_FRAMES = 30
CODINGS = {
    "keyframes-only.mp4": "keyint=1",
    "b-frames.mp4": "keyint=8:bframes=3:b-adapt=0:scenecut=0",
    "open-gop.mp4": "keyint=8:bframes=3:b-adapt=0:scenecut=0:open-gop=1",
    "open-gop.mkv": "keyint=8:bframes=3:b-adapt=0:scenecut=0:open-gop=1",
    "b-frames.ts": "keyint=8:bframes=3:b-adapt=0:scenecut=0",
    "intra-refresh.mp4": "keyint=8:bframes=0:intra-refresh=1",
}


@pytest.fixture(scope="module")
def motion() -> list[np.ndarray]:
    """Frames of a moving pattern, each unlike all others."""
    large = cv2.GaussianBlur(cv2.resize(trees.picture(0, (60, 60)), (240, 240)), (0, 0), 2)
    return [np.ascontiguousarray(large[2 * i : 2 * i + 96, 3 * i : 3 * i + 128]) for i in range(NUM_FRAMES)]


def played(path: Path) -> list[np.ndarray]:
    """All frames, decoded from the first to the last by what plays videos."""
    frames = []
    with FileSource(path) as source:
        while (frame := source.read()) is not None:
            frames.append(frame.rgb)
    return frames


def check_frames(dataset: UnlabelledImages, expected: Sequence[np.ndarray], order: Sequence[int]) -> None:
    for index in order:
        rgb, labels = dataset[index]
        np.testing.assert_array_equal(rgb, expected[index])
        assert labels.shape == rgb.shape[:2] and not labels.any()


@pytest.mark.parametrize("name", CODINGS)
def test_each_index_gives_the_frame_that_playing_gives(tmp_path: Path, motion: list[np.ndarray], name: str):
    path = write_clip(tmp_path / name, motion, options={"x264-params": CODINGS[name]})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert sum(packet.is_keyframe for packet in packets) > 2
    reordered = any(one.pts > other.pts for one, other in pairwise(packets))
    assert reordered == ("b-frames" in name or "open-gop" in name)
    expected = played(path)
    assert len(expected) == NUM_FRAMES
    dataset = UnlabelledImages([path], CAMVID_11)
    assert len(dataset) == NUM_FRAMES
    check_frames(dataset, expected, np.random.default_rng(0).permutation(NUM_FRAMES).tolist())


def test_no_more_is_decoded_than_from_the_last_keyframe_on(
    tmp_path: Path, motion: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    path = write_clip(tmp_path / "clip.mp4", motion, options={"x264-params": "keyint=8:bframes=0:scenecut=0"})
    dataset = UnlabelledImages([path], CAMVID_11)
    decoded: list[int] = []
    decode = video._decode_packet
    monkeypatch.setattr(video, "_decode_packet", lambda *args: decoded.append(args[1].pts) or decode(*args))
    dataset[26]
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert decoded[:3] == times[24:27]


def test_frames_are_upright_and_of_the_colours_that_playing_shows(tmp_path: Path, motion: list[np.ndarray]):
    path = write_clip(tmp_path / "turned.mp4", motion[:3], matrix=Colorspace.ITU709, rotation=90, colorspace=1)
    check_frames(UnlabelledImages([path], CAMVID_11), played(path), range(3))
    assert UnlabelledImages([path], CAMVID_11)[0][0].shape == (128, 96, 3)
    assert UnlabelledImages([trees.turned(tmp_path / "turned.jpg")], CAMVID_11)[0][0].shape == (16, 8, 3)


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Two clips of 7 and 3 frames, a folder of 5 pictures, and what must not disturb."""
    (tmp_path / "clips").mkdir()
    for name, frames in (("a.mp4", range(7)), ("b.mp4", range(10, 13))):
        write_clip(tmp_path / "clips" / name, [numbered(number) for number in frames])
    for number in range(5):
        trees.write(tmp_path / "stills" / f"{number:03d}.png", numbered(20 + number))
    (tmp_path / "stills" / "notes.txt").write_text("not a picture")
    (tmp_path / "stills" / "._000.png").write_text("not a picture either")
    return tmp_path


def numbers_of(dataset: UnlabelledImages) -> list[int]:
    return [number_of(rgb) for rgb, _ in dataset]


def test_sources_are_files_folders_and_patterns(footage: Path):
    clips, stills = footage / "clips", footage / "stills"
    assert numbers_of(UnlabelledImages([clips / "b.mp4"], CAMVID_11)) == [10, 11, 12]
    assert numbers_of(UnlabelledImages([clips], CAMVID_11)) == [*range(7), 10, 11, 12]
    assert numbers_of(UnlabelledImages([f"{clips}/[b-z].*", stills], CAMVID_11)) == [10, 11, 12, *range(20, 25)]
    assert numbers_of(UnlabelledImages([stills / "003.png"], CAMVID_11)) == [23]
    assert numbers_of(UnlabelledImages([stills, stills / "003.png", stills], CAMVID_11)) == [*range(20, 25)]


def test_every_nth_frame_of_each_recording(footage: Path):
    dataset = UnlabelledImages([footage / "clips", footage / "stills"], CAMVID_11, every=3)
    assert numbers_of(dataset) == [0, 3, 6, 10, 20, 23]
    assert dataset.name(1) == f"{footage}/clips/a.mp4#3"
    assert dataset.name(5) == f"{footage}/stills/003.png"


def test_recordings_can_be_kept_and_left_out(footage: Path):
    sources = [footage / "clips", footage / "stills"]
    groups = [f"{footage}/clips/a.mp4", f"{footage}/clips/b.mp4", f"{footage}/stills"]
    assert UnlabelledImages(sources, CAMVID_11).groups == groups
    assert numbers_of(UnlabelledImages(sources, CAMVID_11, only=groups[1:2])) == [10, 11, 12]
    assert UnlabelledImages(sources, CAMVID_11, without=groups[:1]).groups == groups[1:]


def test_only_the_packets_are_read_to_index_a_video(tmp_path: Path):
    """A video of which one frame is broken is indexed, and gives all others."""
    path = write_clip(
        tmp_path / "clip.mp4", [trees.picture(number, (96, 128)) for number in range(24)], options={"g": "1", "bf": "0"}
    )
    expected = played(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    with path.open("r+b") as file:
        file.seek(packet.pos)
        file.write(b"\xff" * packet.size)
    dataset = UnlabelledImages([path], CAMVID_11)
    with pytest.raises(DatasetError, match=rf"{re.escape(str(path))}: frame 20 cannot be decoded.*convert it to MP4"):
        dataset[20]
    check_frames(dataset, expected, [*range(20), 21, 22, 23])


def test_what_cannot_be_looked_up_by_time_is_refused(tmp_path: Path, motion: list[np.ndarray]):
    """AVI stores no times, so frames that are not stored in the order of playing get wrong ones."""
    path = write_clip(tmp_path / "clip.avi", motion, options={"x264-params": CODINGS["b-frames.mp4"]})
    with pytest.raises(DatasetError, match=r"clip\.avi does not say reliably at which time.*convert it to MP4"):
        UnlabelledImages([path], CAMVID_11)
    raw = write_clip(tmp_path / "clip.h264", motion)
    with pytest.raises(DatasetError, match=r"clip\.h264 does not say reliably"):
        UnlabelledImages([raw], CAMVID_11)


def test_what_is_wrong_is_said(tmp_path: Path, footage: Path):
    with pytest.raises(ConfigError, match="every must be at least 1, got 0"):
        UnlabelledImages([footage / "clips"], CAMVID_11, every=0)
    with pytest.raises(ConfigError, match="at least one video"):
        UnlabelledImages([], CAMVID_11)
    for missing in ("nowhere.mp4", "*.mov"):
        with pytest.raises(DatasetError, match=re.escape(f"there is no video, picture or folder {tmp_path}/{missing}")):
            UnlabelledImages([tmp_path / missing], CAMVID_11)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds neither pictures .* nor videos"):
        UnlabelledImages([tmp_path / "empty"], CAMVID_11)
    whole = (footage / "clips" / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index, at the end, is not there
    with pytest.raises(DatasetError, match=r"cut\.mp4 has no video stream .* cut off"):
        UnlabelledImages([tmp_path / "cut.mp4"], CAMVID_11)
    with av.open(str(tmp_path / "sound.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
        output.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(DatasetError, match=r"sound\.wav has no video stream"):
        UnlabelledImages([tmp_path / "sound.wav"], CAMVID_11)
    (footage / "stills" / "002.png").write_bytes(b"rubbish")
    with pytest.raises(DatasetError, match=r"002\.png cannot be read as a picture"):
        UnlabelledImages([footage / "stills"], CAMVID_11)[2]


@pytest.mark.data
def test_a_dashcam_clip_gives_the_frames_that_playing_gives(data_dir: Path):
    path = data_dir / "video" / "solidWhiteRight.mp4"
    dataset = UnlabelledImages([path], CAMVID_11, every=10)
    expected = played(path)[::10]
    assert len(dataset) == len(expected) == 23
    check_frames(dataset, expected, [22, 0, 3, 11, 21, 7])
