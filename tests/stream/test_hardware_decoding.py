"""Decoding on a GPU: the reasons against it, told by the real FFmpeg, and what follows when a device fails.

No device is needed: a "device" here is software that reads a copy of the file, damaged where the device shall fail.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import av
import av.logging
import numpy as np
import pytest
import torch
from av.codec.hwaccel import hwdevices_available
from av.container import InputContainer

from bsdnet.decoding import decoded_picture
from bsdnet.errors import ConfigError
from bsdnet.stream.file_source import FileSource
from bsdnet.stream.hardware_decoding import open_on_device, why_not_decoded_on_device, why_not_on_device
from bsdnet.stream.source import open_source

from .media import numbered, write_clip

H264 = {"g": "12", "bf": "2"}
NO_CUDA = not torch.cuda.is_available()


def noise(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


def damaged_copy(clip: Path, *numbers: int) -> Path:
    """A copy of a clip whose packets of these numbers hold only zeros."""
    with av.open(str(clip)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(clip.read_bytes())
    for number in numbers:
        start, size = places[number]
        content[start : start + size] = bytes(size)
    copy = clip.with_name(f"damaged-{clip.name}")
    copy.write_bytes(content)
    return copy


def truncated_copy(clip: Path, packets: int) -> Path:
    """A copy of a clip that ends after so many packets, with an index of all of them."""
    copy = clip.with_name(f"truncated-{clip.name}")
    with av.open(str(clip)) as container, av.open(str(copy), "w", options={"movflags": "faststart"}) as output:
        stream = container.streams.video[0]
        added = output.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.size:
                packet.stream = added
                output.mux(packet)
    with av.open(str(copy)) as container:
        ends = sorted(packet.pos + packet.size for packet in container.demux(video=0) if packet.size)
    os.truncate(copy, ends[packets - 1])
    return copy


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """A device that reads, instead of each file named in it, another one."""
    instead: dict[str, Path] = {}

    def open_instead(path: Path, gpu: int) -> InputContainer:
        container = av.open(str(instead.get(path.name, path)))
        container.streams.video[0].codec_context.thread_count = 1
        return container

    module = "bsdnet.stream.file_source"
    monkeypatch.setattr(f"{module}.why_not_on_device", lambda codec, gpu: None)
    monkeypatch.setattr(f"{module}.open_on_device", open_instead)
    monkeypatch.setattr(f"{module}.why_not_decoded_on_device", lambda stream: None)
    return instead


def read_all(source: FileSource) -> list[tuple[int, int, float, bytes]]:
    return [
        (frame.index, frame.pts, frame.time_s, b"".join(plane.tobytes() for plane in frame.picture.planes))
        for frame in source
    ]


class TestReasons:
    def test_a_device_that_this_ffmpeg_was_built_without(self) -> None:
        reason = why_not_on_device(av.Codec("h264", "r"), device_type="videotoolbox")
        assert "knows no device 'videotoolbox'" in reason
        assert all(name in reason for name in hwdevices_available())

    def test_a_codec_that_the_device_does_not_know(self) -> None:
        assert why_not_on_device(av.Codec("prores", "r")) == "FFmpeg's decoder prores does not work on a 'cuda' device"

    @pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")
    def test_no_driver(self) -> None:
        """FFmpeg itself says only that the operation is not permitted."""
        reason = why_not_on_device(av.Codec("h264", "r"))
        assert "'cuda' device 0 cannot be opened" in reason
        assert "libcuda" in reason
        assert "\n" not in reason

    def test_asking_leaves_the_log_as_it_was(self) -> None:
        before = av.logging.get_level()
        av.logging.set_level(None)
        why_not_on_device(av.Codec("h264", "r"))
        assert av.logging.get_level() is None
        av.logging.set_level(before)

    def test_a_picture_that_came_from_software(self, tmp_path: Path) -> None:
        with av.open(str(write_clip(tmp_path / "clip.mp4", noise(3)))) as container:
            stream = container.streams.video[0]
            next(container.decode(stream))
            reason = why_not_decoded_on_device(stream)
        assert "h264" in reason
        assert "yuv420p" in reason

    def test_unknown_choice(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="auto, none"):
            FileSource(tmp_path / "clip.mp4", hwaccel="cuda")  # type: ignore[arg-type]


class TestChoice:
    @pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")
    def test_without_a_device_it_is_software_and_the_reason_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        clip = write_clip(tmp_path / "clip.mp4", noise(20), options=H264)
        with caplog.at_level(logging.INFO), FileSource(clip, hwaccel="auto") as source:
            found = read_all(source)
        with FileSource(clip) as source:
            assert found == read_all(source)
        assert [(record.levelname, record.name) for record in caplog.records] == [("INFO", "bsdnet.stream.file_source")]
        assert "clip.mp4 is decoded in software: 'cuda' device 0" in caplog.text

    def test_nobody_asked(self, tmp_path: Path, device: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO), FileSource(write_clip(tmp_path / "clip.mp4", noise(3))):
            assert not caplog.records

    def test_a_device_that_works(
        self, tmp_path: Path, device: dict[str, Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        clip = write_clip(tmp_path / "clip.mp4", noise(3))
        with caplog.at_level(logging.INFO), open_source(clip, hwaccel="auto") as source:
            assert len(read_all(source)) == 3
        assert [record.getMessage() for record in caplog.records] == ["clip.mp4 is decoded on the GPU"]

    def test_the_gpu_that_was_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """FFmpeg takes the first one otherwise."""
        asked: list[tuple[str, str | None]] = []

        def refuse(device_type: str, device: str | None = None) -> NoReturn:
            asked.append((device_type, device))
            raise av.FFmpegError(1, "no such device")

        monkeypatch.setattr("bsdnet.stream.hardware_decoding.HWAccel", refuse)
        clip = write_clip(tmp_path / "clip.mp4", noise(3))
        with open_source(clip, hwaccel="auto", gpu=1) as source:
            assert len(read_all(source)) == 3
        assert asked == [("cuda", "1")]

    def test_what_cannot_be_sought_in_is_decoded_in_software(
        self, tmp_path: Path, device: dict[str, Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        clip = write_clip(tmp_path / "clip.h264", [numbered(i) for i in range(6)], options={"bf": "0"})
        with caplog.at_level(logging.INFO), FileSource(clip, hwaccel="auto") as source:
            assert len(read_all(source)) == 6
        assert "does not say where its frames are" in caplog.text

    def test_a_device_that_cannot_be_opened_after_all(
        self, tmp_path: Path, device: dict[str, Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        clip = write_clip(tmp_path / "clip.mp4", noise(6))
        device["clip.mp4"] = tmp_path / "nothing.mp4"
        with caplog.at_level(logging.INFO), FileSource(clip, hwaccel="auto") as source:
            assert len(read_all(source)) == 6
        assert "the GPU does not take it" in caplog.text

    def test_a_format_that_the_device_leaves_to_software(
        self,
        tmp_path: Path,
        device: dict[str, Path],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """FFmpeg goes over to software by itself, with one thread: it is opened again for all."""
        monkeypatch.setattr("bsdnet.stream.file_source.why_not_decoded_on_device", why_not_decoded_on_device)
        clip = write_clip(tmp_path / "clip.mp4", noise(20), options=H264)
        with caplog.at_level(logging.INFO), FileSource(clip, hwaccel="auto") as source:
            found = read_all(source)
            assert source.lost_frames == 0
        with FileSource(clip) as source:
            assert found == read_all(source)
        assert "takes no h264" in caplog.text
        assert "on the GPU" not in caplog.text


@pytest.mark.parametrize("takes_format", [True, False])
def test_what_a_truncated_file_lacks_is_counted_once(
    tmp_path: Path, device: dict[str, Path], monkeypatch: pytest.MonkeyPatch, takes_format: bool
) -> None:
    """The count of the frames that are there survives both ways of leaving the device."""
    if not takes_format:
        monkeypatch.setattr("bsdnet.stream.file_source.why_not_decoded_on_device", why_not_decoded_on_device)
    clip = truncated_copy(write_clip(tmp_path / "clip.mp4", noise(30), options={"bf": "0"}), 20)
    device[clip.name] = damaged_copy(clip, 9)
    with FileSource(clip, hwaccel="auto") as source:
        assert [frame.index for frame in source] == list(range(20))
        assert source.lost_frames == 10


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("clip.mp4", {"options": H264}),
        ("clip.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "color_range": 2}),
    ],
)
class TestFailure:
    @pytest.mark.parametrize("number", [0, 1, 17, 29])
    def test_a_device_that_fails_costs_no_frame(
        self,
        tmp_path: Path,
        device: dict[str, Path],
        name: str,
        properties: dict,
        number: int,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        clip = write_clip(tmp_path / name, noise(30), **properties)
        device[name] = damaged_copy(clip, number)
        with caplog.at_level(logging.INFO), FileSource(clip, hwaccel="auto") as source:
            found, lost = read_all(source), source.lost_frames
        with FileSource(clip) as source:
            assert found == read_all(source)
        assert len(found) == 30
        assert lost == 0
        assert "from here on: the GPU failed" in caplog.text

    def test_a_damaged_file_gives_what_software_gives(
        self, tmp_path: Path, device: dict[str, Path], name: str, properties: dict
    ) -> None:
        clip = damaged_copy(write_clip(tmp_path / name, noise(30), **properties), 4, 17, 26)
        with FileSource(clip) as source:
            expected, expected_lost = read_all(source), source.lost_frames
        with FileSource(clip, hwaccel="auto") as source:
            assert read_all(source) == expected
            assert source.lost_frames == expected_lost
        assert expected_lost > 0

    def test_a_device_that_fails_while_seeking(
        self, tmp_path: Path, device: dict[str, Path], name: str, properties: dict
    ) -> None:
        clip = write_clip(tmp_path / name, noise(30), **properties)
        device[name] = damaged_copy(clip, 13, 14, 15)
        with FileSource(clip, hwaccel="auto") as source, FileSource(clip) as software:
            for number in range(3):
                assert source.read().index == software.read().index == number
            for time_s in (0.6, 0.2):
                source.seek(time_s)
                software.seek(time_s)
                assert source.read().time_s == software.read().time_s == pytest.approx(time_s)
            assert read_all(source) == read_all(software)


def test_nv12_of_a_device_is_the_same_picture(tmp_path: Path) -> None:
    """Devices give chroma interleaved; what comes out must be the software decoder's planes, bit by bit."""
    with av.open(str(write_clip(tmp_path / "clip.mp4", noise(1)))) as container:
        stream = container.streams.video[0]
        picture = next(container.decode(stream))
        reformatter = av.video.reformatter.VideoReformatter()
        downloaded = reformatter.reformat(picture, format="nv12")
        expected = decoded_picture(picture, reformatter, 1)
        found = decoded_picture(downloaded, reformatter, 1)
    assert found.encoding == expected.encoding
    for plane, expected_plane in zip(found.planes, expected.planes, strict=True):
        np.testing.assert_array_equal(plane, expected_plane)


@pytest.mark.gpu
@pytest.mark.skipif(NO_CUDA, reason="needs a CUDA device")
def test_a_real_device_gives_the_pictures_of_software(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if reason := why_not_on_device(av.Codec("h264", "r")):
        pytest.skip(reason)
    frames = [np.full((240, 320, 3), 8 * number, np.uint8) for number in range(30)]  # NVDEC takes no tiny pictures
    clip = write_clip(tmp_path / "clip.mp4", frames, options=H264)
    open_on_device(clip).close()
    with caplog.at_level(logging.INFO), FileSource(clip, hwaccel="auto") as source, FileSource(clip) as software:
        pairs = list(zip(source, software, strict=True))
        assert source.lost_frames == 0
    assert len(pairs) == 30
    if "from here on: the GPU's decoder takes no" in caplog.text:
        pytest.skip("the driver has no video decoder here, as in a container without the capability 'video'")
    assert "decoded on the GPU" in caplog.text
    for found, expected in pairs:
        assert (found.pts, found.picture.encoding) == (expected.pts, expected.picture.encoding)
        for plane, expected_plane in zip(found.picture.planes, expected.picture.planes, strict=True):
            assert np.abs(plane.astype(int) - expected_plane).max() <= 2
