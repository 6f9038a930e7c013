"""bsdnet-bench pipeline, blocks and export."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bsdnet.runtime.segmenter import Segmenter
from bsdnet.stream.frame import Frame
from bsdnet.stream.indexed_source import ArraySource
from cli.bench import candidates
from cli.bench.pipeline import PipelineResult, ReplaySource, _draw_demo
from tests.cli.conftest import CONFIG, SIZE
from tests.cli.test_bench import run_bench
from tests.stream.media import INFO

RESULT = PipelineResult(
    source="clip",
    frame_size=(180, 320),
    network="BSDNet-S",
    frames=10,
    rounds=1,
    alone={"decode": 400.0, "infer": 50.0, "render": 200.0, "encode": 40.0},
    together={"null": 45.0, "file": 36.0},
    drawing=None,
)


def test_the_slowest_stage_is_what_the_whole_is_held_against():
    assert RESULT.bottleneck == "encode"
    assert RESULT.ratio("file") == pytest.approx(36 / 40)
    assert RESULT.ratio("null") == pytest.approx(45 / 50), "nothing is encoded where results are dropped"
    assert RESULT.in_turn == pytest.approx(1 / (1 / 400 + 1 / 50 + 1 / 200 + 1 / 40))


def test_frames_in_memory_are_shown_again_and_again():
    frames = [object(), object()]
    source = ReplaySource(INFO, frames, 5)
    shown = list(source)
    assert len(shown) == 5
    assert set(map(id, shown)) == set(map(id, frames))
    assert source.read() is None


@pytest.mark.parametrize("source", ["clip", "demo"])
def test_the_parts_of_the_pipeline(weights: Path, clip: Path, tmp_path: Path, source: str):
    result = run_bench(
        *("pipeline", clip if source == "clip" else "demo", "--weights", weights, "--device", "cpu"),
        *("--frames", 8, "--rounds", 1, "--json", tmp_path / "out.json", "--markdown", tmp_path / "out.md"),
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["fps_alone"]) == {"decode", "infer", "render", "encode"}
    assert all(fps > 0 for fps in (*report["fps_alone"].values(), *report["fps_together"].values()))
    assert report["fps_alone"][report["bottleneck"]] == min(report["fps_alone"].values())
    assert (report["fps_drawing"] is None) == (source == "clip")
    assert report["frame_size"] == (f"{SIZE[1]}x{SIZE[0]}" if source == "clip" else "1280x720")
    assert f"- bottleneck: {report['bottleneck']}" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.md"]


@pytest.mark.parametrize("change", ["depth=3", "fcbs=2"])
def test_only_blocks_and_contexts_have_alternatives(change: str):
    result = run_bench("--weights", f"s:{change}", "--size", "64x64", "--device", "cpu")
    assert result.exit_code == 2
    assert f"s:{change} names no alternative; expected s:block=NAME or s:context=NAME" in result.stderr


def test_a_source_that_is_shorter_than_was_asked_for_says_so(weights: Path, clip: Path, tmp_path: Path):
    result = run_bench("pipeline", clip, "--weights", weights, "--device", "cpu", "--frames", 90, "--rounds", 1)
    assert result.exit_code == 0, result.stderr
    assert "of 5 frames each" in result.stdout


def test_drawing_is_counted_by_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The demo has fewer frames than may be asked for."""

    class Slow(ArraySource):
        def read(self) -> Frame | None:
            time.sleep(0.02)
            return super().read()

    monkeypatch.setattr("cli.bench.pipeline.open_source", lambda spec: Slow([np.zeros((64, 64, 3), np.uint8)] * 3))
    assert 0 < _draw_demo(tmp_path / "demo.mp4", 1000)[1] <= 50


def test_a_source_without_a_frame_is_an_error(weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cli.bench.pipeline.open_source", lambda spec: ReplaySource(INFO, [], 0))
    result = run_bench("pipeline", "clip.mp4", "--weights", weights, "--device", "cpu")
    assert result.exit_code == 1
    assert "clip.mp4 gave no frame" in result.stderr


def test_a_live_source_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch):
    live = ReplaySource(replace(INFO, live=True), [], 0)
    monkeypatch.setattr("cli.bench.pipeline.open_source", lambda spec: live)
    result = run_bench("pipeline", "camera:0", "--weights", weights)
    assert result.exit_code == 2
    assert "camera:0 is live" in result.stderr


def test_blocks_and_contexts_stand_beside_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(candidates.CONFIGS, "s", CONFIG)
    result = run_bench("blocks", "--size", "64x64", "--rounds", 1, "--device", "cpu", "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.stderr
    rows = {(row["kind"], row["model"]): row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert [name for kind, name in rows if kind == "block"] == ["res", "segformer", "gfa", "mscan", "cf", "fcb"]
    assert [name for kind, name in rows if kind == "context"] == ["aspp", "dappm", "dasp-max", "dasp-avg"]
    assert rows["block", "fcb"]["parameters"] == rows["context", "dasp-avg"]["parameters"]
    assert len({row["parameters"] for row in rows.values()}) >= 8
    assert rows["block", "gfa"]["paper_fps"] == 68.5
    assert rows["context", "aspp"]["paper_parameters_m"] == 17.3
    (fcb,) = [line for line in result.stdout.splitlines() if line.startswith("| FCB ")]
    cells = [cell.strip() for cell in fcb.split("|")]
    assert (cells[6], cells[7], cells[8]) == ("1.00", "70.6", "1.00")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BSDNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_builds_nothing_keeps_nothing(weights: Path, cache: Path):
    result = run_bench(
        *("export", "--weights", weights, "--device", "cpu", "--backend", "eager", "--precision", "fp32"),
        *("--size", "96x64", "--frame-size", "320x180"),
    )
    assert result.exit_code == 0, result.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:4]] for line in result.stdout.splitlines()[2:4]]
    assert lines == [["96x64", "eager fp32", "none kept"], ["128x64", "eager fp32", "none kept"]]
    assert not cache.exists()


def test_engines_are_built_once(weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def build(segmenter: Segmenter, sizes: list[tuple[int, int]], *, frame_size: None) -> None:
        """As the engine cache does: an engine is written, or its time of use is renewed."""
        ((height, width),) = sizes
        cache.mkdir(exist_ok=True)
        engine = cache / f"compile-{width}x{height}-fp32-0123.pt2"
        engine.touch()
        os.utime(engine, ns=(0, engine.stat().st_mtime_ns + 10**9))

    monkeypatch.setattr(Segmenter, "prepare", build)
    export = ("export", "--weights", weights, "--device", "cpu", "--size", "96x64")
    first, second = run_bench(*export), run_bench(*export, "--size", "64x64")
    assert "| built " in first.stdout
    assert [line.split("|")[3].strip() for line in second.stdout.splitlines()[2:4]] == ["was there", "built"]
    assert first.stdout.splitlines()[-1] == f"engines lie in {cache}"
    monkeypatch.setattr(Segmenter, "prepare", lambda *arguments, **options: None)
    assert "engines lie in" not in run_bench(*export[:-1], "128x64").stdout, "there is none of this size"


def test_without_a_home_engines_are_built_and_not_kept(weights: Path, monkeypatch: pytest.MonkeyPatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BSDNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    result = run_bench("export", "--weights", weights, "--device", "cpu", "--backend", "eager", "--size", "64x64")
    assert result.exit_code == 0, result.stderr
    assert "no engine is kept: this user has no home folder" in result.stderr
    assert "engines lie in" not in result.stdout


@pytest.mark.parametrize("command", ["networks", "blocks"])
def test_a_table_without_a_figure_is_a_failure(weights: Path, monkeypatch: pytest.MonkeyPatch, command: str):
    monkeypatch.setitem(candidates.CONFIGS, "s", CONFIG)
    which = ["blocks"] if command == "blocks" else ["--weights", weights]
    result = run_bench(*which, "--size", "64x64", "--device", "cpu", "--backend", "cudagraph")
    assert result.exit_code == 1
    assert f"not measured: {'res' if command == 'blocks' else 'tiny 64x64 cudagraph'}" in result.stdout
    line = result.stderr.splitlines()[-1]
    assert line == "bsdnet-bench: error: nothing could be measured; the lines below the table say why"
