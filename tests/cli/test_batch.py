"""Several sources into a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli import run as run_module
from cli.batch import _output_name, run_batch
from cli.journal import NAME, Entry, Journal
from tests.cli.conftest import SIZE, Result, Run
from tests.stream.media import decoded_times, numbered, write_clip

HEADING = "file frames lost fps result"


@pytest.fixture
def clips(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `a.mp4`, `b.mkv` and `sub/a.mp4`, which is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    shutil.copy(clip, "a.mp4")
    write_clip(Path("b.mkv"), [np.full((*SIZE, 3), 9, np.uint8)] * 3)
    write_clip(Path("sub/a.mp4"), [np.full((*SIZE, 3), 9, np.uint8)] * 2)
    return tmp_path


def rows(result: Result) -> list[list[str]]:
    """The table's lines, after its heading, in words."""
    lines = result.stdout.splitlines()
    heading = next(
        number for number, line in enumerate(lines) if line.split() == ["file", "frames", "lost", "fps", "result"]
    )
    return [line.split() for line in lines[heading + 1 :]]


def outputs(folder: str | Path = "out") -> set[str]:
    return {path.name for path in Path(folder).iterdir()} - {NAME}


def test_each_source_becomes_a_file_of_its_own(run: Run, clips: Path):
    result = run("a.mp4", "b.mkv", "sub/a.mp4", "demo", "-o", "out/", "--frames", 4)
    assert (result.exit_code, result.stderr) == (0, "")
    assert outputs() == {"a.mp4", "b.mkv", "sub-a.mp4", "demo.mp4"}
    frames = {name: len(decoded_times(Path("out") / name)) for name in outputs()}
    assert frames == {"a.mp4": 4, "b.mkv": 3, "sub-a.mp4": 2, "demo.mp4": 4}
    assert [(row[0], row[1], row[2], row[4]) for row in rows(result)] == [
        ("a.mp4", "4", "0", "out/a.mp4"),
        ("b.mkv", "3", "0", "out/b.mkv"),
        ("sub/a.mp4", "2", "0", "out/sub-a.mp4"),
        ("demo", "4", "0", "out/demo.mp4"),
    ]
    assert all(float(row[3]) > 0 for row in rows(result))
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:4]] == [
        "[1/4] a.mp4", "[2/4] b.mkv", "[3/4] sub/a.mp4", "[4/4] demo",
    ]  # fmt: skip


def test_the_network_is_loaded_once_and_not_at_all_if_everything_is_done(
    run: Run, clips: Path, monkeypatch: pytest.MonkeyPatch
):
    load, loaded = run_module._load_segmenter, []
    monkeypatch.setattr(run_module, "_load_segmenter", lambda options: loaded.append(1) or load(options))
    assert run("a.mp4", "b.mkv", "-o", "out/").exit_code == 0
    assert loaded == [1]
    result = run("a.mp4", "b.mkv", "-o", "out")
    assert (result.exit_code, loaded) == (0, [1])
    assert [(row[1], " ".join(row[3:])) for row in rows(result)] == [
        ("5", "out/a.mp4 was done before"),
        ("3", "out/b.mkv was done before"),
    ]


class TestDoneBefore:
    """What counts as done; a change makes it to be done again, which -y allows."""

    @pytest.fixture(autouse=True)
    def done(self, run: Run, clips: Path) -> None:
        self.run = run
        assert run("a.mp4", "-o", "out/").exit_code == 0
        self.before = Path("out/a.mp4").stat().st_mtime_ns

    def is_redone(self, *arguments: str) -> bool:
        result = self.run("a.mp4", "-o", "out/", "-y", *arguments)
        assert result.exit_code == 0
        return Path("out/a.mp4").stat().st_mtime_ns != self.before

    def test_nothing_changed(self) -> None:
        assert not self.is_redone()

    def test_options_without_effect(self) -> None:
        assert not self.is_redone("--backend", "eager", "--hwaccel", "none", "--device", "auto")

    def test_statistics_do_not_matter(self) -> None:
        assert not self.is_redone("--stats", "stats.jsonl")

    def test_masks_that_are_asked_for_must_be_there(self) -> None:
        assert self.is_redone("--masks", "masks")
        self.before = Path("out/a.mp4").stat().st_mtime_ns
        assert not self.is_redone("--masks", "masks")

    def test_another_option(self) -> None:
        assert self.is_redone("--alpha", "0.7")

    def test_other_weights_of_the_same_name(self, weights: Path) -> None:
        own = shutil.copy(weights, "own.safetensors")
        assert self.is_redone("--weights", own)
        self.before = Path("out/a.mp4").stat().st_mtime_ns
        assert not self.is_redone("--weights", own)
        os.utime(own, ns=(1, 1))
        assert self.is_redone("--weights", own)

    def test_another_source(self) -> None:
        os.utime("a.mp4", ns=(1, 1))
        assert self.is_redone()

    def test_output_is_cut_off(self) -> None:
        with Path("out/a.mp4").open("r+b") as file:
            file.truncate(1000)
        assert self.is_redone()

    def test_output_is_gone(self) -> None:
        Path("out/a.mp4").unlink()
        assert self.is_redone()

    def test_without_y_an_output_that_is_out_of_date_is_kept(self) -> None:
        result = self.run("a.mp4", "-o", "out/", "--alpha", "0.7")
        assert result.exit_code == 1
        assert "out/a.mp4 exists already" in result.stdout
        assert Path("out/a.mp4").stat().st_mtime_ns == self.before

    def test_a_line_that_was_not_finished(self) -> None:
        with Path("out", NAME).open("a") as file:
            file.write('{"source": "/x')
        assert not self.is_redone()

    def test_what_is_finished_after_such_a_line_is_known_as_well(self) -> None:
        with Path("out", NAME).open("a") as file:
            file.write('{"source": "/x')
        assert self.run("b.mkv", "-o", "out/").exit_code == 0
        before = Path("out/b.mkv").stat().st_mtime_ns
        assert self.run("a.mp4", "b.mkv", "-o", "out/").exit_code == 0
        assert Path("out/b.mkv").stat().st_mtime_ns == before

    def test_a_source_of_the_same_name_gets_another(self) -> None:
        assert self.run("sub/a.mp4", "-o", "out/").exit_code == 0
        assert outputs() == {"a.mp4", "sub-a.mp4"}
        assert Path("out/a.mp4").stat().st_mtime_ns == self.before

    def test_the_same_source_twice_is_one(self) -> None:
        result = self.run("b.mkv", "./b.mkv", str(Path("b.mkv").absolute()), "-o", "out/")
        assert len(rows(result)) == 1


def test_a_failure_does_not_stop_the_others_and_wins_over_losses(run: Run, clips: Path):
    Path("bad.mp4").write_bytes(b"no video")
    Path("images").mkdir()
    for number in range(2):
        shutil.copy(_png(clips), f"images/{number}.png")
    Path("images/2.png").write_bytes(b"broken")
    result = run("bad.mp4", "images", "none.mp4", "a.mp4", "-o", "out/")
    assert result.exit_code == 1
    found = rows(result)
    assert [row[0] for row in found] == ["bad.mp4", "images", "none.mp4", "a.mp4"]
    assert [row[1:3] for row in found] == [["0", "0"], ["2", "1"], ["0", "0"], ["5", "0"]]
    assert [row[3] for row in found if row[1] == "0"] == ["failed:", "failed:"]
    assert outputs() == {"images.mp4", "a.mp4"}
    lossy = run("images", "a.mp4", "-o", "out/")
    assert lossy.exit_code == 3, "what was lost stays lost, even if it was done before"
    assert "was done before" in lossy.stdout


def test_wrong_options_alone_are_wrong_usage(run: Run, clips: Path):
    assert run("a.mp4", "b.mkv", "-o", "out/", "--crf", "99").exit_code == 2
    assert run("a.mp4", "sub", "-o", "out/", "--fps", "9").exit_code == 1, "there may be pictures in sub later"


def test_a_source_that_may_not_be_looked_at_does_not_stop_the_others(run: Run, clips: Path):
    name = "x" * 300  # root may look at everything, but not at such a name
    result = run(f"{name}.mp4", "a.mp4", "-o", "out/")
    assert (result.exit_code, outputs()) == (1, {"a.mp4"})
    assert "File name too long" in result.stdout


@pytest.mark.parametrize("source", ["deep/**/*.png", "deep/down"])
def test_pictures_in_a_folder_or_below_a_pattern_are_part_of_its_stamp(run: Run, clips: Path, source: str):
    Path("deep/down").mkdir(parents=True)
    shutil.copy(_png(clips), "deep/down/0.png")
    assert rows(run(source, "a.mp4", "-o", "out/"))[0][1] == "1"
    shutil.copy(_png(clips), "deep/down/1.png")
    assert rows(run(source, "a.mp4", "-o", "out/", "-y"))[0][1] == "2"


def test_masks_go_into_folders_of_their_own(run: Run, clips: Path):
    assert run("a.mp4", "b.mkv", "-o", "out/", "--masks", "masks").exit_code == 0
    assert {path.name: len(list(path.iterdir())) for path in Path("masks").iterdir()} == {"a": 5, "b": 3}


def test_names_that_look_like_patterns_are_names(run: Run, clips: Path):
    for name in ("a [x1].mp4", "what?.mkv", "star*.mp4"):
        shutil.copy("a.mp4" if name.endswith("mp4") else "b.mkv", name)
    Path("f[1]").mkdir()
    shutil.copy("a.mp4", "f[1]/in.mp4")
    result = run("a [x1].mp4", "what?.mkv", "star*.mp4", "f[1]/in.mp4", "-o", "out/")
    assert result.exit_code == 0, result.stderr
    assert outputs() == {"a [x1].mp4", "what?.mkv", "star*.mp4", "in.mp4"}


def test_names_differ_in_more_than_the_suffix_so_that_masks_do(run: Run, clips: Path):
    shutil.copy("b.mkv", "a.mkv")
    assert run("a.mp4", "a.mkv", "-o", "out/", "--masks", "masks").exit_code == 0
    folder = clips.name
    assert outputs() == {"a.mp4", f"{folder}-a.mkv"}
    assert {path.name: len(list(path.iterdir())) for path in Path("masks").iterdir()} == {"a": 5, f"{folder}-a": 3}


def test_where_all_folders_around_do_not_tell_names_apart_a_number_does(clips: Path):
    shutil.copy("a.mp4", "drive-1.mp4")
    names = ["drive-1"]
    for parent in clips.parts[:0:-1]:
        names.append(f"{parent}-{names[-1]}")
    taken = dict.fromkeys(names, "another source")
    assert _output_name("drive-1.mp4", Journal(clips), taken) == f"{names[-1]}-2.mp4"
    taken[f"{names[-1]}-2"] = "a third one"
    assert _output_name("drive-1.mp4", Journal(clips), taken) == f"{names[-1]}-3.mp4"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "a.mp4/"], "a.mp4 is a file"),
        (["-o", "out/", "--masks", "a.mp4"], "a.mp4 is a file"),
        (["-o", "none/out/"], "mkdir -p none"),
    ],
)
def test_folders_that_cannot_be_made(run: Run, clips: Path, arguments: list[str], words: str):
    result = run("b.mkv", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_an_input_is_never_written_over(run: Run, clips: Path):
    before = Path("a.mp4").read_bytes()
    result = run("a.mp4", "-o", ".", "-y")
    assert (result.exit_code, Path("a.mp4").read_bytes()) == (1, before)
    assert "is the input" in result.stdout


def test_weights_that_cannot_be_loaded_stop_everything(run: Run, clips: Path):
    result = run("a.mp4", "b.mkv", "-o", "out/", "--weights", "none.safetensors")
    assert result.exit_code == 1
    assert "none.safetensors" in result.stderr
    assert outputs() == set()


def test_a_programming_error_is_not_taken_for_a_bad_source(clips: Path):
    def broken(options: dict[str, object]) -> None:
        raise ZeroDivisionError

    options = {"masks": None, "weights": None}
    with pytest.raises(ZeroDivisionError):
        run_batch(["a.mp4"], Path("out"), options, broken)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_finishes_the_current_source_and_leaves_out_the_rest(weights: Path, tmp_path: Path):
    for name in ("one.mp4", "two.mp4"):
        write_clip(tmp_path / name, [numbered(1)] * 4000, options={"preset": "ultrafast"})
    command = [sys.executable, "-m", "cli.run", "one.mp4", "two.mp4", "-o", "out/", "--weights", str(weights)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        assert _eventually(lambda: _size(tmp_path / "out/one.mp4.part") > 20_000)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert outputs(tmp_path / "out") == {"one.mp4"}
    assert 0 < len(decoded_times(tmp_path / "out/one.mp4")) < 4000
    assert stdout.splitlines()[-1].startswith("one.mp4 ")
    assert Journal(tmp_path / "out").entries == {}, "half a video is not done"


def test_the_journal_is_json_line_by_line(run: Run, clips: Path):
    run("a.mp4", "b.mkv", "-o", "out/")
    entries = [json.loads(line) for line in Path("out", NAME).read_text().splitlines()]
    assert [(entry["source"], entry["frames"], entry["lost"]) for entry in entries] == [
        (str(clips / "a.mp4"), 5, 0),
        (str(clips / "b.mkv"), 3, 0),
    ]


def test_an_entry_is_on_the_disk_once_it_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append((tmp_path / NAME).read_text().count("\n")))
    entry = Entry(source="/a.mp4", source_stamp=[1, 2], output="a.mp4", output_bytes=3, options={}, frames=4, lost=0)
    Journal(tmp_path).add(entry)
    assert forced == [1]
    assert Journal(tmp_path).entries == {"/a.mp4": entry}


def _png(folder: Path) -> Path:
    import cv2

    path = folder / "grey.png"
    cv2.imwrite(str(path), np.full((*SIZE, 3), 9, np.uint8))
    return path


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return condition()
