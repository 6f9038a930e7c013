"""Which encoder is taken. No machine of ours has one in hardware, so libx264 plays its part."""

import logging
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bsdnet.errors import ConfigError, SinkError
from bsdnet.stream import encoders
from bsdnet.stream.encoders import HARDWARE, Encoder, EncoderSettings, choose_encoder, probe
from bsdnet.stream.sink import FileSink
from bsdnet.stream.source import ArraySource, FileSource

from .media import SIZE, number_of, numbered, run

FPS = Fraction(25)
SOFTWARE = Encoder(codec="libx264", options={"preset": "ultrafast", "tune": "zerolatency"}, why="")


def choose(container: str = "mp4", **settings: object) -> Encoder:
    return choose_encoder(EncoderSettings(**settings), container, SIZE, FPS)


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> dict[str, Encoder]:
    """Which hardware encoders there are, by name; none at first."""
    working: dict[str, Encoder] = {}
    absent = replace(SOFTWARE, codec="h264_absent")
    monkeypatch.setattr(encoders, "_hardware", lambda name, *_: working.get(name, absent))
    return working


class TestChoice:
    def test_auto_takes_the_first_that_works(self, working: dict[str, Encoder]) -> None:
        working["h264_qsv"] = replace(SOFTWARE, pix_fmt="nv12")
        chosen = choose()
        assert chosen.pix_fmt == "nv12"
        assert "ms a picture" in chosen.why

    def test_auto_falls_back_and_says_why(self, working: dict[str, Encoder], caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "bsdnet"):
            assert choose().options["preset"] == "ultrafast"
        assert all(f"{name}: this FFmpeg has none" in caplog.text for name in HARDWARE)
        assert "encoding with libx264: no hardware encoder works here" in caplog.text

    @pytest.mark.parametrize("settings", [{"crf": 30}, {"preset": "fast"}])
    def test_settings_of_libx264_choose_it(self, working: dict[str, Encoder], settings: dict[str, object]) -> None:
        working["h264_nvenc"] = replace(SOFTWARE, pix_fmt="nv12")
        chosen = choose(**settings)
        assert (chosen.pix_fmt, chosen.why) == ("yuv420p", "crf and preset are its own")
        assert set(map(str, settings.values())) <= set(chosen.options.values())

    def test_one_that_was_asked_for_and_does_not_work_is_an_error(self, working: dict[str, Encoder]) -> None:
        with pytest.raises(SinkError, match=r"h264_nvenc cannot encode 64x48 here .*--encoder auto"):
            choose(name="h264_nvenc")

    def test_libx264_asked_for(self, working: dict[str, Encoder]) -> None:
        working["h264_nvenc"] = replace(SOFTWARE, pix_fmt="nv12")
        assert choose(name="libx264").pix_fmt == "yuv420p"

    @pytest.mark.parametrize("name", HARDWARE)
    def test_what_is_missing_here_is_refused_in_words(self, name: str) -> None:
        try:
            chosen = choose(name=name)
        except SinkError as error:
            assert f"{name} cannot encode 64x48 here" in str(error)
        else:
            assert chosen.codec == name


class TestProbe:
    @pytest.mark.parametrize("size", [(2, 2), SIZE, (720, 1280)])
    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12"])
    def test_a_good_one(self, size: tuple[int, int], pix_fmt: str) -> None:
        assert probe(replace(SOFTWARE, pix_fmt=pix_fmt), size, FPS) > 0

    def test_one_that_makes_garbage(self) -> None:
        with pytest.raises(ValueError, match="grey levels"):
            probe(replace(SOFTWARE, options={"qp": "51", "preset": "ultrafast"}), (96, 96), FPS)

    def test_one_that_is_unknown(self) -> None:
        with pytest.raises(ValueError, match="h264_none"):
            probe(replace(SOFTWARE, codec="h264_none"), SIZE, FPS)

    def test_pictures_that_do_not_come_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoders, "_PROBE_PICTURES", 0)
        with pytest.raises(ValueError, match="max"):
            probe(SOFTWARE, SIZE, FPS)


def test_an_encoder_that_takes_nv12_gets_the_same_colours(working: dict[str, Encoder], tmp_path: Path) -> None:
    working["h264_nvenc"] = replace(SOFTWARE, pix_fmt="nv12")
    red = np.full((*SIZE, 3), (200, 30, 60), np.uint8)
    out = tmp_path / "out.mp4"
    run(ArraySource([red, numbered(4), red]), FileSink(out))
    with FileSource(out) as source:
        first, second, third = (frame.rgb for frame in source)
    np.testing.assert_allclose([first.mean((0, 1)), third.mean((0, 1))], [[200, 30, 60]] * 2, atol=4)
    assert number_of(second) == 4


@pytest.mark.parametrize(
    ("container", "settings", "words"),
    [
        ("mp4", {"name": "x264"}, "'x264'; expected one of auto, libx264"),
        ("mp4", {"preset": "p4"}, "'p4'; expected one of ultrafast"),
        ("mp4", {"name": "h264_nvenc", "preset": "fast"}, "h264_nvenc takes none"),
        ("mp4", {"name": "h264_v4l2m2m", "crf": 20}, "knows a bit rate only"),
        ("mp4", {"crf": 52}, "0 .best. to 51"),
        ("mkv", {"crf": -1}, "0 .best. to 51"),
        ("webm", {"crf": 64}, "0 .best. to 63"),
        ("avi", {"crf": 0}, "1 .best. to 31"),
        ("webm", {"name": "libx264"}, "libx264 makes H.264, which .webm does not hold"),
        ("avi", {"preset": "fast"}, "preset fast is one of libx264's, and .avi holds no H.264"),
    ],
)
def test_settings_that_do_not_go_together(container: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EncoderSettings(**settings).check_container(container)


def test_hardware_is_told_to_make_what_survives_a_kill() -> None:
    for name in HARDWARE:
        encoder = encoders._hardware(name, EncoderSettings(name=name), (720, 1280), FPS)
        assert (encoder.codec, encoder.options["bf"], encoder.options["g"]) == (name, "0", "25")
        quality = {"cq", "global_quality"} & set(encoder.options)
        assert bool(quality) != (encoder.bit_rate is not None), "a constant quality or a bit rate"


@pytest.mark.gpu
@pytest.mark.skipif(sys.platform == "win32", reason="not tried")
def test_nvenc_where_there_is_one(tmp_path: Path) -> None:
    """Data-centre GPUs have none: then auto takes libx264, and the file is as good."""
    out = tmp_path / "out.mp4"
    sink = FileSink(out)
    run(ArraySource([numbered(index, (720, 1280)) for index in range(20)]), sink)
    with FileSource(out) as source:
        assert [number_of(frame.rgb) for frame in source] == list(range(20))
    assert sink.encoder.codec in ("libx264", *HARDWARE)
