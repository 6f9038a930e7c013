"""What the command's options do."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import av
import cv2
import numpy as np
import pytest
import torch

from bsdnet.checkpoint import default_weights
from bsdnet.classes import CAMVID_11
from bsdnet.errors import CheckpointError, SourceError
from bsdnet.runtime.segmenter import Segmenter
from cli import run as run_module
from tests.cli.conftest import GRAY, SIZE, Run, run_main
from tests.stream.media import decoded_times, sound_packets, write_clip

ROAD = np.array(CAMVID_11.colors[CAMVID_11.names.index("road")])
TOLERANCE = 6  # of H.264


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shown(path: Path, *, left: int = 160) -> np.ndarray:
    """The mean colour of an area that neither legend nor HUD covers."""
    return frames_of(path)[:, 70:120, left : left + 120].mean(axis=(0, 1, 2))


def assert_color(path: Path, expected: np.ndarray | float, *, left: int = 160) -> None:
    np.testing.assert_allclose(shown(path, left=left), expected, atol=TOLERANCE)


def test_a_video_becomes_a_video_with_its_times_and_sound(run: Run, clip: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    result = run(clip, "-o", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert_color(out, (ROAD + GRAY) / 2)
    assert decoded_times(out) == pytest.approx(decoded_times(clip), abs=0.03)
    assert [sound for sound, _ in sound_packets(out)] == [sound for sound, _ in sound_packets(clip)]
    with av.open(str(out)) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_on_a_gpu_all_is_built_for_the_frames_before_the_first_one(run: Run, clip: Path, tmp_path, monkeypatch):
    calls = []
    submit = Segmenter.submit
    monkeypatch.setattr(Segmenter, "prepare", lambda _, sizes, *, frame_size: calls.append((list(sizes), frame_size)))
    monkeypatch.setattr(Segmenter, "submit", lambda *args, **kwargs: calls.append("submit") or submit(*args, **kwargs))
    assert run(clip, "-o", tmp_path / "cpu.mp4").exit_code == 0
    assert calls == ["submit"] * 5
    calls.clear()
    load = run_module._load_segmenter

    def load_as_on_gpu(options: dict[str, Any]) -> Segmenter:
        segmenter = load(options)
        segmenter.device = torch.device("meta")  # any but the CPU
        return segmenter

    monkeypatch.setattr(run_module, "_load_segmenter", load_as_on_gpu)
    assert run(clip, "-o", tmp_path / "gpu.mp4").exit_code == 0
    assert calls == [([(64, 128)], SIZE)] + ["submit"] * 5


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", ("none", 0)), ("auto", ("auto", 0)), ("cuda", ("auto", 0)), ("cuda:1", ("auto", 1))],
)
def test_the_gpu_that_computes_decodes(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, expected: tuple[str, int]
):
    asked = []

    def refuse(spec: str, *, fps: float | None, hwaccel: str, gpu: int) -> NoReturn:
        asked.append((hwaccel, gpu))
        raise SourceError("not today")

    monkeypatch.setattr("bsdnet.stream.source.open_source", refuse)
    assert run(clip, "-o", tmp_path / "out.mp4", "--device", device).exit_code == 1
    assert asked == [expected]


def test_the_summary_says_what_was_done_and_how_fast(run: Run, clip: Path, tmp_path: Path):
    summary = run(clip, "-o", tmp_path / "out.mp4", "--precision", "fp32").summary
    assert summary["frames"] == "5 in, 5 out"
    assert "fps" in summary["speed"]
    assert "first frame after" in summary["speed"]
    stages = [stage.split()[0] for stage in summary["stages"].split(" (")[0].split(", ")]
    assert stages == ["decode", "infer", "render", "encode"]
    assert summary["network"] == "BSDNet-S 128x64, cpu fp32 eager"
    assert summary["output"] == str(tmp_path / "out.mp4")


def test_words_and_legend_are_on_the_picture(run: Run, clip: Path, tmp_path: Path):
    run(clip, "-o", tmp_path / "out.mp4", "--alpha", 0)
    first, last = frames_of(tmp_path / "out.mp4")[[0, -1]].astype(int)
    changed = (np.abs(last - GRAY) > 40).any(axis=2)
    assert changed[5:60, 5:80].mean() > 0.5, "the HUD, top left"
    assert changed[140:, 40:280].mean() > 0.3, "the legend, below"
    assert not changed[70:120].any()
    assert (first[5:60, 5:80] > 180).sum() > 100, "bright letters"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--alpha", "0"], GRAY),
        (["--alpha", "1"], ROAD),
        (["--alpha", "0.25"], 0.25 * ROAD + 0.75 * GRAY),
        (["--view", "mask"], ROAD),
        (["--only", "road", "--alpha", "1"], ROAD),
        (["--only", "ROAD, sky", "--alpha", "1"], ROAD),
        (["--only", "car,sky", "--alpha", "1"], GRAY),
        (["--only", "car", "--view", "mask"], GRAY * 64 / 255),
    ],
)
def test_what_a_frame_shows(run: Run, clip: Path, tmp_path: Path, arguments: list[str], expected: np.ndarray | float):
    assert run(clip, "-o", tmp_path / "out.mp4", *arguments).exit_code == 0
    assert_color(tmp_path / "out.mp4", expected)


def test_side_by_side(run: Run, clip: Path, tmp_path: Path):
    out = tmp_path / "out.mkv"
    assert run(clip, "-o", out, "--view", "side-by-side", "--alpha", 1).exit_code == 0
    assert frames_of(out).shape[1:3] == (SIZE[0], 2 * SIZE[1])
    assert_color(out, GRAY)
    assert_color(out, ROAD, left=160 + SIZE[1])


def test_masks_alone_and_beside_a_video(run: Run, clip: Path, tmp_path: Path):
    alone = run(clip, "--masks", tmp_path / "alone")
    both = run(clip, "--masks", tmp_path / "both", "-o", tmp_path / "out.mov", "--frames", 2)
    assert (alone.exit_code, both.exit_code) == (0, 0)
    assert alone.summary["masks"] == str(tmp_path / "alone")
    assert "render" not in alone.summary["stages"]
    assert both.summary["output"] == str(tmp_path / "out.mov")
    assert len(decoded_times(tmp_path / "out.mov")) == 2
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["000000.png", "000001.png"]
    masks = sorted((tmp_path / "alone").iterdir())
    assert len(masks) == 5
    colors = cv2.imread(str(masks[0]))
    assert colors.shape[:2] == SIZE
    assert (colors[..., ::-1] == ROAD).all()


def test_fewer_frames(run: Run, clip: Path, tmp_path: Path):
    assert run(clip, "-o", tmp_path / "out.mp4", "--frames", 1).summary["frames"] == "1 in, 1 out"
    assert len(decoded_times(tmp_path / "out.mp4")) == 1


def test_more_frames_than_there_are(run: Run, clip: Path, tmp_path: Path):
    assert run(clip, "-o", tmp_path / "out.mp4", "--frames", 9).summary["frames"] == "5 in, 5 out"


@pytest.mark.parametrize(("size", "used"), [("64x32", "64x32"), ("100x70", "100x70"), ("seg50", "1024x512")])
def test_the_size_that_the_network_sees(run: Run, clip: Path, tmp_path: Path, size: str, used: str):
    result = run(clip, "-o", tmp_path / "out.mp4", "--size", size, "--frames", 1)
    assert result.exit_code == 0, result.stderr
    assert f" {used}," in result.summary["network"]
    assert frames_of(tmp_path / "out.mp4").shape[1:3] == SIZE


def test_without_sound(run: Run, clip: Path, tmp_path: Path):
    assert run(clip, "-o", tmp_path / "out.mp4", "--no-audio").exit_code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_overwriting(run: Run, clip: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"old")
    assert run(clip, "-o", out).exit_code == 1
    assert out.read_bytes() == b"old"
    assert run(clip, "-o", out, "-y").exit_code == 0
    assert len(decoded_times(out)) == 5


def test_what_a_killed_run_has_left_is_replaced_only_on_demand(run: Run, clip: Path, tmp_path: Path):
    part = tmp_path / "out.mp4.part"
    part.write_bytes(b"all that is left")
    assert "out.mp4.part" in run(clip, "-o", tmp_path / "out.mp4").stderr
    assert part.read_bytes() == b"all that is left"
    assert run(clip, "-o", tmp_path / "out.mp4", "-y").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(("arguments", "rate"), [([], 15), (["--fps", "5"], 5)])
def test_images_and_their_rate(run: Run, tmp_path: Path, arguments: list[str], rate: int):
    (tmp_path / "frames").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), np.full((*SIZE, 3), GRAY, np.uint8))
    for source in (tmp_path / "frames", tmp_path / "frames" / "*.png"):
        assert run(source, "-o", tmp_path / "out.mp4", "-y", *arguments).exit_code == 0
        assert decoded_times(tmp_path / "out.mp4") == pytest.approx([0, 1 / rate, 2 / rate], abs=0.001)


def test_the_demo_needs_no_file(run: Run, tmp_path: Path):
    result = run("demo", "-o", tmp_path / "out.mp4", "--frames", 2)
    assert (result.exit_code, result.summary["frames"]) == (0, "2 in, 2 out")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision(run: Run, clip: Path, tmp_path: Path, precision: str):
    result = run(clip, "-o", tmp_path / "out.mp4", "--precision", precision)
    assert result.exit_code == 0, result.stderr
    assert f"cpu {precision} eager" in result.summary["network"]
    assert_color(tmp_path / "out.mp4", (ROAD + GRAY) / 2)
    for line in result.stderr.splitlines():  # of a format that this CPU is slow in
        assert line.startswith("bsdnet-run: warning: this CPU has no fast")


@pytest.mark.parametrize("size", [(1, 1), (77, 101), (320, 180), (8, 2000)])
def test_frames_of_any_shape(run: Run, tmp_path: Path, size: tuple[int, int]):
    source = write_clip(tmp_path / "a b ü.mkv", [np.full((*size, 3), 9, np.uint8)] * 2, codec="ffv1", pix_fmt="bgr0")
    for view in ("overlay", "side-by-side"):
        result = run(source, "-o", tmp_path / "ö b.mp4", "-y", "--view", view)
        assert result.exit_code == 0, result.stderr
        width = size[1] * (2 if view == "side-by-side" else 1)
        assert frames_of(tmp_path / "ö b.mp4").shape[:3] == (2, size[0] + size[0] % 2, width + width % 2)


def test_names_that_look_like_options(run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("-i.mp4").write_bytes(clip.read_bytes())
    result = run("-o", "-o.mp4", "--", "-i.mp4")
    assert (result.exit_code, result.summary["output"]) == (0, "-o.mp4")
    assert len(decoded_times(tmp_path / "-o.mp4")) == 5


def test_frames_that_are_lost_have_an_exit_code_of_their_own(run: Run, tmp_path: Path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((*SIZE, 3), GRAY, np.uint8))
    (tmp_path / "1.png").write_bytes(b"broken")
    result = run(tmp_path, "-o", tmp_path / "out.mp4")
    assert (result.exit_code, result.summary["frames"]) == (3, "2 in, 2 out, 1 could not be decoded")


def test_debug_tells_more(run: Run, clip: Path, tmp_path: Path):
    result = run(clip, "-o", tmp_path / "out.mp4", "--debug")
    assert result.exit_code == 0
    assert "ms cli.run: started" in result.stderr


def test_version():
    assert metadata.version("bsdnet") in run_main("--version").stdout


def test_the_shipped_weights_are_the_default(clip: Path, tmp_path: Path):
    try:
        default_weights()
    except CheckpointError:
        pytest.skip("no weights are in bsdnet/weights")
    result = run_main(clip, "-o", tmp_path / "out.mp4", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert result.summary["network"].startswith("BSDNet-S 960x544")


def test_help_and_mistakes_do_not_wait_for_pytorch():
    script = (
        "import sys; from cli.run import main\n"
        "try: main(['none.mp4', '-o', 'none/out.mp4'])\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "False\n")


def test_the_installed_module(weights: Path, clip: Path, tmp_path: Path):
    command = [sys.executable, "-m", "cli.run", clip, "-o", tmp_path / "out.mp4", "--weights", weights]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("frames   5 in, 5 out\n")


@pytest.mark.data
def test_a_dashcam_clip(run: Run, data_dir: Path, tmp_path: Path):
    source = data_dir / "video" / "vehicle_detection_test.mp4"
    result = run(source, "-o", tmp_path / "out.mp4", "--size", "96x64")
    assert result.exit_code == 0, result.stderr
    assert result.summary["frames"] == "38 in, 38 out"
    assert [sound for sound, _ in sound_packets(tmp_path / "out.mp4")] == [sound for sound, _ in sound_packets(source)]
