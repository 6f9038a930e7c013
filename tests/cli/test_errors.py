"""What can go wrong costs one line on stderr, and never an existing file."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bsdnet.errors import SourceError
from cli.run import main
from tests.cli.conftest import CONFIG, Result, Run, run_main, save_tiny
from tests.stream.media import numbered, snapshot, write_clip, write_sound


@pytest.fixture
def work(tmp_path: Path, clip: Path) -> Path:
    """A folder with a clip, an older output, and things that are none."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    (tmp_path / "out.mp4").write_bytes(b"the old output")
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 50)
    write_sound(tmp_path / "song.m4a", "aac")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "clip.mp4")
    return tmp_path


def assert_one_line(result: Result, *words: str, exit_code: int = 1) -> None:
    assert result.exit_code == exit_code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("bsdnet-run: error: ")
    for word in words:
        assert word in line


@pytest.fixture
def refused(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run in the folder, and check that it costs a line with these words and nothing else."""

    def check(arguments: list[object], *words: str, exit_code: int = 1) -> None:
        before = snapshot(work)
        monkeypatch.chdir(work)
        assert_one_line(run(*arguments), *words, exit_code=exit_code)
        assert snapshot(work) == before

    return check


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.mp4", ["no file none.mp4"]),
        ("empty", ["folder empty", "no image"]),
        ("none/*.png", ["none/*.png", "no image"]),
        ("text.mp4", ["text.mp4", "not a video"]),
        ("zero.mp4", ["zero.mp4", "0 bytes"]),
        ("song.m4a", ["song.m4a", "no video stream"]),
        ("", ["empty name"]),
        ("camera:97", ["camera 97"]),
        ("rtsp://me:secret@127.0.0.1:9/1", ["rtsp://127.0.0.1:9: connection refused"]),
        ("a" * 5000, ["too long"]),
    ],
)
def test_sources_that_cannot_be_read(refused: Callable[..., None], source: str, words: list[str]):
    refused([source, "-o", "out.mp4", "-y"], *words)


def test_a_video_cut_off_before_its_index(refused: Callable[..., None], work: Path):
    os.truncate(work / "clip.mp4", 1000)
    refused(["clip.mp4", "-o", "out.mp4", "-y"], "clip.mp4", "damaged")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out.mp4"], ["out.mp4 exists"]),
        (["-o", "none/out.mp4", "-y"], ["none", "does not exist", "mkdir -p none"]),
        (["-o", "clip.mp4", "-y"], ["clip.mp4 is the input"]),
        (["-o", "clip.mp4"], ["clip.mp4 is the input"]),
        (["-o", "link.mp4", "-y"], ["link.mp4 is the input"]),
        (["-o", "empty/../clip.mp4", "-y"], ["is the input"]),
        (["-o", "a" * 5000 + ".mp4"], ["too long"]),
        (["--masks", "."], ["not empty"]),
        (["--classes-csv", "."], [". is a folder"]),
        (["--classes-csv", "/"], ["/ is a folder"]),
        (["-o", "none/out.mp4", "--stats", "stats.jsonl"], ["mkdir -p none"]),
        (["--masks", "out.mp4", "-y"], ["out.mp4 is a file"]),
        (["--masks", "none/masks"], ["mkdir -p none"]),
    ],
)
def test_outputs_that_cannot_be_written(refused: Callable[..., None], arguments: list[str], words: list[str]):
    refused(["clip.mp4", *arguments], *words)


def test_masks_never_replace_other_pictures(refused: Callable[..., None], work: Path):
    cv2.imwrite(str(work / "empty" / "000000.png"), numbered(3))
    refused(["clip.mp4", "--masks", "empty", "-y"], "000000.png", "no mask")


def test_an_output_that_is_too_large_for_h264(refused: Callable[..., None], work: Path):
    write_clip(work / "wide.mkv", [np.zeros((2, 9000, 3), np.uint8)], codec="ffv1", pix_fmt="bgr0")
    refused(["wide.mkv", "-o", "out.mp4", "-y", "--view", "side-by-side"], "18000x2", "H.264")


def test_a_folder_that_may_not_be_written_to(weights: Path):
    with unprivileged_folder() as folder:
        result = run_main("demo", "-o", folder / "out.mp4", "--weights", weights)
    assert_one_line(result, str(folder), "permission denied")


def truncated(weights: Path, path: Path) -> None:
    path.write_bytes(weights.read_bytes()[:-100])


def other_program(weights: Path, path: Path) -> None:
    save_file({"conv.weight": torch.zeros(3)}, path)


def pickled(weights: Path, path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, path)


def text(weights: Path, path: Path) -> None:
    path.write_text("not weights")


def other_shape(weights: Path, path: Path) -> None:
    """The tensors of one network under the description of another."""
    save_tiny(path, replace(CONFIG, channels=(8, 16, 16, 24)))
    with safe_open(path, framework="pt") as described, safe_open(weights, framework="pt") as held:
        tensors, description = {name: held.get_tensor(name) for name in held.keys()}, described.metadata()  # noqa: SIM118
    save_file(tensors, path, description)


def backbone(weights: Path, path: Path) -> None:
    with safe_open(weights, framework="pt") as held:
        save_file({}, path, held.metadata() | {"kind": "backbone"})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (truncated, ["damaged"]),
        (other_program, ["another program"]),
        (pickled, ["no safetensors file"]),
        (text, ["no safetensors file"]),
        (other_shape, ["another shape"]),
        (backbone, ["a backbone, expected a network"]),
        (lambda weights, path: None, ["does not exist"]),
        (lambda weights, path: path.mkdir(), ["is a folder"]),
    ],
)
def test_weights_that_do_not_load(
    refused: Callable[..., None], work: Path, weights: Path, make: Callable[[Path, Path], None], words: list[str]
):
    make(weights, work / "broken.safetensors")
    refused(["clip.mp4", "-o", "out.mp4", "-y", "--weights", "broken.safetensors"], "broken.safetensors", *words)


def test_a_name_of_weights_that_do_not_ship(refused: Callable[..., None]):
    refused(["clip.mp4", "-o", "out.mp4", "-y", "--weights", "S"], "no weights 'S' ship with bsdnet; shipped: b, s")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(refused: Callable[..., None]):
    refused(["clip.mp4", "-o", "out.mp4", "-y", "--device", "cuda"], "device 'cuda'", "sees 0 CUDA devices")


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="torch-tensorrt is installed")
def test_tensorrt_without_its_package(refused: Callable[..., None]):
    refused(["clip.mp4", "-o", "out.mp4", "-y", "--backend", "tensorrt"], "tensorrt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "road,caar"], ["'caar'", "its classes are: sky, building"]),
        (["--fps", "10"], ["clip.mp4 has its own timestamps"]),
        (["-o", "out.wmv"], ["out.wmv", ".mp4 .mov .mkv .webm .avi"]),
        (["-o", "out"], [".mp4 .mov .mkv"]),
        (["-o", "out.webm", "--encoder", "libx264"], ["libx264 makes H.264", ".webm"]),
        (["--encoder", "h264"], ["'h264'", "libx264"]),
        (["--crf", "52"], ["52", "0 (best) to 51"]),
        (["--preset", "hasty"], ["'hasty'", "ultrafast"]),
    ],
)
def test_values_that_cannot_work_are_wrong_usage(refused: Callable[..., None], arguments: list[str], words: list[str]):
    refused(["clip.mp4", "-o", "out.mp4", "-y", *arguments], *words, exit_code=2)


def test_a_backend_that_this_machine_does_not_have(refused: Callable[..., None]):
    refused(["clip.mp4", "-o", "out.mp4", "-y", "--backend", "cudagraph"], "CUDA")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one thing to segment: SOURCE or --camera"),
        (["clip.mp4"], "nothing to write"),
        (["clip.mp4", "-o", ""], "the path is empty"),
        (["clip.mp4", "--masks", ""], "the path is empty"),
        (["clip.mp4", "-o", "out.mp4", "--masks", "out.mp4"], "both name out.mp4"),
        (["clip.mp4", "-o", "empty/o.mp4", "--record", "./empty/../empty/o.mp4"], "both name empty/o.mp4"),
        (["clip.mp4", "-o", "new.mp4", "--stats", "new.mp4.part"], "--output and --stats both name new.mp4"),
        (["clip.mp4", "-o", "link.mp4", "--classes-csv", "clip.mp4"], "--output and --classes-csv"),
        (["--camera", "clip.mp4", "-o", "new.mp4"], "give it as SOURCE"),
        (["clip.mp4", "--camera", "0", "-o", "new.mp4"], "give one thing to segment: SOURCE or --camera"),
        (["empty", "--masks", "./empty/", "-y"], "--masks names the source, empty"),
        (["clip.mp4", "-o", "out.mp4", "--size", "1x1"], "32 to 9999"),
        (["clip.mp4", "-o", "out.mp4", "--size", "large"], "seg50, seg75, seg100 or auto"),
        (["clip.mp4", "-o", "out.mp4", "--only", ","], "names no class"),
        (["clip.mp4", "-o", "out.mp4", "--alpha", "1.5"], "0<=x<=1"),
        (["clip.mp4", "-o", "out.mp4", "--alpha", "nan"], "'nan' is not a finite number"),
        (["clip.mp4", "-o", "out.mp4", "--duration", "nan"], "'nan' is not a finite number"),
        (["clip.mp4", "-o", "out.mp4", "--segment", "inf"], "'inf' is not a finite number"),
        (["clip.mp4", "-o", "out.mp4", "--target-fps", "nan"], "'nan' is not a finite number"),
        (["demo", "-o", "out.mp4", "--fps", "0"], "x>0"),
        (["clip.mp4", "-o", "out.mp4", "--device", "gpu"], "expected auto, cpu, cuda or cuda:N"),
        (["clip.mp4", "-o", "out.mp4", "--weights", ""], "the name is empty"),
        (["clip.mp4", "-o", "out.mp4", "--frames", "0"], "x>=1"),
        (["clip.mp4", "-o", "out.mp4", "--view", "both"], "'overlay', 'mask', 'side-by-side'"),
        (["clip.mp4", "-o", "out.mp4", "--backend", "onnx"], "'eager'"),
        (["clip.mp4", "-o", "out.mp4", "--precision", "int8"], "'bf16'"),
        (["clip.mp4", "other.mp4", "-o", "out.mp4"], "2 sources need a folder"),
        (["clip.mp4", "-o", "empty/", "--segment", "60"], "--segment is for one source"),
        (["clip.mp4", "-o", "empty/", "--record", "r.mp4"], "--record is for one source"),
        (["clip.mp4", "rtsp://me:secret@host/1", "-o", "empty/"], "a live source has no end and no name"),
        (["clip.mp4", "camera:0", "-o", "empty/"], "a live source has no end and no name"),
        (["clip.mp4", "--masks", "masks", "--segment", "60"], "--segment needs a name"),
        (["clip.mp4", "-o", "out.mp4", "--segment-budget", "1GB"], "--segment-budget needs --segment"),
        (["clip.mp4", "-o", "out.mp4", "--segment", "60", "--segment-budget", "much"], "such as 10GB"),
        (["clip.mp4", "--rescue", "out.mp4.part"], "--rescue takes no SOURCE"),
        (["--camera", "0", "--rescue", "out.mp4.part"], "--rescue takes no SOURCE"),
        (["clip.mp4", "-o", "out.mp4", "--colour"], "No such option"),
    ],
)
def test_wrong_usage_exits_with_two(
    run: Run, work: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(work)
    before = snapshot(work)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert snapshot(work) == before


def test_a_disk_that_fills_up_keeps_the_old_output(run: Run, clip: Path, tmp_path: Path):
    resource = pytest.importorskip("resource")
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old output")
    limit, ceiling = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, ceiling))
    try:
        result = run(clip, "-o", out, "-y")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, ceiling))
    assert_one_line(result, "out.mp4 cannot be written", "File too large")
    assert out.read_bytes() == b"the old output"


def test_debug_shows_the_traceback(work: Path):
    with pytest.raises(SourceError, match="no file"):
        main([str(work / "none.mp4"), "-o", str(work / "new.mp4"), "--debug"])


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """A folder that may not be written to, seen without the rights of root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.setresuid(65534, 65534, 0)
        try:
            yield folder
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            folder.chmod(0o755)
