"""bsdnet-bench: the table of speeds, and what can go wrong."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import click
import cv2
import numpy as np
import pytest
import torch
from torch import nn

from bsdnet.modeling import BSDNet
from bsdnet.picture import Picture
from bsdnet.runtime.cuda_stages import DeviceFrame
from bsdnet.runtime.timing import Timing
from cli.bench import measure
from cli.bench.candidates import count_macs, load_candidate
from cli.bench.main import bench, main
from cli.bench.memory import peak_of_fresh_process
from cli.bench.plot import network_series
from cli.bench.report import as_json, speed_table
from tests.cli.conftest import CONFIG, Result, run_main

GUIDE = Path(__file__).parents[2] / "docs" / "benchmarking.md"
FACTORY = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=8, padding=1, bias=False), nn.BatchNorm2d(8)
    def forward(self, x):
        x = self.norm(self.conv(x))
        return {"main": x, "others": (x[:, :1],)}

class Picky(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

def small(): return Two()
def picky(): return Picky()
def broken(): raise ValueError("no\\nway")
def none(): return 3
def leaves(): raise SystemExit(0)
def narrow(): return nn.Conv2d(4, 8, 3)
"""


def run_bench(*arguments: object) -> Result:
    return run_main(*arguments, main=main)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("factory") / "foreign.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def measured(
    weights: Path, factory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch
) -> tuple[Result, Path]:
    """One run with all there is, and the folder of its files."""
    folder = tmp_path_factory.mktemp("measured")
    monkeypatch_module.setattr(measure, "_BURST_MS", 1.0)
    result = run_bench(
        *("--weights", weights, "--module", f"{factory}:small", "--module", f"{factory}:narrow"),
        *("--size", "96x64", "--size", "512x512", "--backend", "eager", "--backend", "tensorrt"),
        *("--precision", "fp32", "--device", "cpu", "--rounds", 1, "--no-memory"),
        *("--json", folder / "out.json", "--markdown", folder / "out.md"),
        *(("--plot", folder / "out.png") if find_spec("matplotlib") else ()),
    )
    return result, folder


def rows_of(folder: Path) -> dict[tuple[str, str, str], dict]:
    rows = json.loads((folder / "out.json").read_text())["rows"]
    return {(row["model"], row["size"], row["backend"]): row for row in rows}


def test_every_combination_has_a_row(measured: tuple[Result, Path]):
    result, folder = measured
    assert result.exit_code == 0
    keys = [(model, size, backend) for model in ("tiny", "small", "narrow") for size in ("96x64", "512x512")
            for backend in ("eager", "tensorrt")]  # fmt: skip
    assert list(rows_of(folder)) == keys
    table = result.stdout.split("\n\n")[0].splitlines()
    assert len(table) == 2 + len(keys)
    assert len({len(line) for line in table}) == 1, "columns line up"


def test_a_row_has_what_was_measured(measured: tuple[Result, Path]):
    row = rows_of(measured[1])["tiny", "512x512", "eager"]
    assert row["parameters"] == sum(parameter.numel() for parameter in BSDNet(CONFIG).parameters())
    assert row["macs"] == count_macs(BSDNet(CONFIG).eval(), (512, 512))
    assert row["output"] == [1, 11, 64, 64]
    assert (row["precision"], row["weights"], row["folded"]) == ("fp32", "tiny.safetensors, 11 classes", True)
    for name, samples in (("network", 5), ("frame", 5), ("stream", 1)):
        timing = row[name]
        assert timing["samples"] == samples
        assert 0 < timing["p50_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
        assert timing["fps"] == pytest.approx(1000 / timing["p50_ms"])
    assert row["peak_bytes"] is None
    assert row["note"] == ""


def test_other_peoples_modules_are_measured_alone(measured: tuple[Result, Path]):
    row = rows_of(measured[1])["small", "96x64", "eager"]
    assert row["output"] == {"main": [1, 8, 8, 12], "others": [[1, 1, 8, 12]]}
    assert row["macs"] == 3 * 8 * 9 * 8 * 12
    assert row["parameters"] == 3 * 8 * 9 + 16
    assert row["network"] is not None
    assert row["frame"] is row["stream"] is None


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="torch-tensorrt is installed")
def test_what_cannot_run_says_why_and_stops_nobody(measured: tuple[Result, Path]):
    result, folder = measured
    rows = rows_of(folder)
    assert rows["tiny", "96x64", "tensorrt"]["network"] is None
    assert "bsdnet[tensorrt]" in rows["tiny", "96x64", "tensorrt"]["note"]
    assert "4 channels" in rows["narrow", "96x64", "eager"]["note"]
    (line,) = [line for line in result.stdout.splitlines() if "bsdnet[tensorrt]" in line]
    assert line.count("tensorrt fp32") == 6, "one sentence for all that fail alike"


def test_the_file_says_on_what_and_how(measured: tuple[Result, Path]):
    report = json.loads((measured[1] / "out.json").read_text())
    assert report["machine"]["torch"] == torch.__version__
    assert report["settings"] == {"device": "cpu", "rounds": 1, "in_flight": 3, "frame_size": None}
    assert report["command"].startswith("bsdnet-bench")
    assert report["date"].startswith("20")


def test_the_paper_stands_beside_it_as_the_papers(measured: tuple[Result, Path]):
    result, folder = measured
    assert "its own hardware, not this machine" in result.stdout
    assert "FPS on NVIDIA A6000" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("| BSDNet-B")]
    assert [cell.strip() for cell in line.split("|")[1:5]] == ["BSDNet-B", "512x512", "3", "180.7"]
    assert (folder / "out.md").read_text().startswith(result.stdout.strip())


def test_the_plot_is_wide_enough_for_a_page(measured: tuple[Result, Path]):
    pytest.importorskip("matplotlib")
    picture = cv2.imread(str(measured[1] / "out.png"))
    assert picture.shape[1] == 1800


def test_without_names_it_is_the_shipped_weights(monkeypatch: pytest.MonkeyPatch):
    def pretend(
        cases: Sequence[measure.Case], settings: measure.Settings
    ) -> tuple[list[measure.Row], measure.Settings]:
        rows = [
            measure.Row(case=case, backend="auto", precision="fp32", macs=None, network=Timing.of([8.0]))
            for case in cases
        ]
        return rows, settings

    monkeypatch.setattr(measure, "measure", pretend)
    lines = run_bench().stdout.splitlines()
    inputs = ["512x512", "1024x512", "960x720", "1536x768", "2048x1024"]
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| BSDNet-S ")][:5] == inputs
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| BSDNet-B ")][:5] == inputs
    (line,) = [line for line in lines if line.startswith("| BSDNet-B") and "(Seg100)" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells == ["BSDNet-B", "2048x1024 (Seg100)", "1", "70.6", "125.0", "–"]  # noqa: RUF001
    assert load_candidate("s").weights == "bsdnet-s-camvid.safetensors, 11 classes"
    big = load_candidate("b")
    assert (big.name, big.weights) == ("BSDNet-B", "bsdnet-b-camvid.safetensors, 11 classes")
    assert 16.0e6 < big.parameters < 16.5e6


def test_multiply_accumulates_are_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)
    )
    assert count_macs(network, (8, 8)) == 3 * 8 * 9 * 64 + 512 * 5


def test_reports_are_written_whatever_the_language_of_the_system(tmp_path: Path):
    """The table's dash is in no ASCII."""
    code = f"""
from pathlib import Path
from cli.bench.report import publish
made = {{"machine": {{}}, "command": "", "date": ""}}
publish("\\u2013", {{}}, {{"json": None, "markdown": Path({str(tmp_path / "out.md")!r})}}, made)
"""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "out.md").read_text(encoding="utf-8").startswith("\u2013")


def test_a_burst_keeps_three_frames_under_way():
    under_way, most = [], []

    class Handle:
        def result(self) -> None:
            under_way.remove(self)

    def submit() -> Handle:
        under_way.append(handle := Handle())
        most.append(len(under_way))
        return handle

    assert measure.time_burst(submit, 10) >= 0
    assert (len(most), max(most), under_way) == (10, measure.IN_FLIGHT, [])


def test_memory_is_that_of_a_fresh_process(weights: Path):
    peak = peak_of_fresh_process(str(weights), (64, 96), "eager", "fp32")
    assert peak is None or 2**20 < peak < 2**29


def test_memory_that_cannot_be_measured_is_no_reason_to_stop(caplog: pytest.LogCaptureFixture):
    assert peak_of_fresh_process("nothing.safetensors", (64, 96), "eager", "fp32") is None
    assert "does not exist" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--module", "{0}:broken"], 2, ["foreign.py:broken cannot be loaded: ValueError: no way"]),
        (["--module", "{0}:none"], 2, ["none() gave a int", "torch.nn.Module"]),
        (["--module", "{0}:missing"], 2, ["missing"]),
        (["--module", "{0}:leaves"], 2, ["foreign.py:leaves cannot be loaded: SystemExit: 0"]),
        (["--module", "no.py:f"], 2, ["no file no.py", "FILE.py:FACTORY"]),
        (["--weights", "no.safetensors"], 1, ["no.safetensors", "does not exist"]),
        (["pipeline", "no.mp4"], 1, ["no file no.mp4"]),
    ],
)
def test_errors_are_one_line(factory: Path, arguments: list[str], exit_code: int, words: list[str]):
    result = run_bench(*(argument.format(factory) for argument in arguments))
    assert (result.exit_code, result.stdout) == (exit_code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("bsdnet-bench: error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "auto"], "'auto' needs a video"),
        (["--size", "big"], "is no size"),
        (["--rounds", "0"], "x>=1"),
        (["--json", "none/out.json"], "the folder none does not exist"),
        (["--markdown", "."], "is no file"),
        (["--json", "out", "--markdown", "./out"], "overwrite each other"),
        (["pipeline", __file__, "--json", __file__], "is read, a report would overwrite it"),
        (["--weights", __file__, "--markdown", __file__], "is read, a report would overwrite it"),
        (["--module", f"{__file__}:build", "--json", __file__], "is read, a report would overwrite it"),
        (["--device", "gpu"], "expected auto, cpu, cuda or cuda:N"),
        (["--module", "clip.mp4:F"], "'clip.mp4:F' is not FILE.py:FACTORY"),
        (["--rounds", "3", "pipeline"], "come after its name"),
        (["export"], "nothing to build"),
        (["export", "--frame-size", "auto"], "'auto' needs a video"),
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str], words: str):
    result = run_bench(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_report_that_may_not_be_written_is_refused_as_early(tmp_path: Path):
    tmp_path.chmod(0o500)
    result = run_bench("--json", str(tmp_path / "out.json"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "may not be written" in result.stderr


def test_a_plot_that_cannot_be_drawn_is_known_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run_bench("--plot", "out.png")
    assert result.exit_code == 2
    assert "pip install 'bsdnet[bench]'" in result.stderr


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")
@pytest.mark.parametrize("name", ["out.xyz", "out"])
def test_a_plot_of_an_unknown_format_is_refused_as_early(name: str):
    result = run_bench("--plot", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"'{name}' must end in .png, .svg, .pdf" in result.stderr


COMMANDS: dict[str, click.Command] = {"": bench, **bench.commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str):
    shown = " ".join(run_bench(*([name] if name else []), "--help").stdout.split())
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            assert re.fullmatch(r"[A-Z].*\.(  \[default: .*\])?", option.help or ""), option.name
            assert " ".join((option.help or "").split()) in shown


@pytest.mark.skipif(not GUIDE.is_file(), reason="an installed package has no guide")
@pytest.mark.parametrize("name", COMMANDS)
def test_the_guide_names_exactly_the_options(name: str):
    title = f"bsdnet-bench {name}".strip()
    table = GUIDE.read_text().split(f"| option of `{title}` |")[1].split("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    named = {found for cell in first_cells for found in re.findall(r"`(-[-\w]+)`", cell)}
    options = [option for option in COMMANDS[name].params if isinstance(option, click.Option)]
    assert named == {text for option in options for text in (*option.opts, *option.secondary_opts)} | {"--help"}


def test_frames_may_be_larger_than_the_input(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[tuple[int, ...]] = []
    original = measure.drawn_frame
    monkeypatch.setattr(measure, "drawn_frame", lambda size: drawn.append(original(size).shape) or original(size))
    monkeypatch.setattr(measure, "_BURST_MS", 1.0)
    result = run_bench(
        *("--weights", weights, "--size", "96x64", "--frame-size", "320x180", "--device", "cpu", "--rounds", 1),
        *("--no-memory", "--json", tmp_path / "out.json"),
    )
    assert drawn == [(180, 320, 3)]
    assert "at 320x180, one at a time" in result.stdout
    assert json.loads((tmp_path / "out.json").read_text())["settings"]["frame_size"] == "320x180"


def test_lines_of_the_plot_go_from_small_to_large(factory: Path):
    candidate = load_candidate(f"{factory}:small")
    cases = [
        measure.Case(candidate=candidate, size=size, backend="auto", precision="auto")
        for size in ((128, 64), (64, 64), (96, 64))
    ]
    speeds = {(128, 64): 4.0, (64, 64): 1.0}  # the third could not be measured
    rows = [
        measure.Row(
            case=case,
            backend=backend,
            precision="fp32",
            macs=None,
            network=Timing.of([speeds[case.size]]) if case.size in speeds else None,
        )
        for case in cases
        for backend in ("eager", "compile")
    ]
    points = [((64, 64), 1000.0), ((128, 64), 250.0)]
    assert network_series(rows) == ({"small eager fp32": points, "small compile fp32": points}, {})
    assert list(network_series(rows[::2])[0]) == ["small"], "what all have in common is not said"


def test_frames_on_the_device_are_timed_in_bursts_of_the_decoders_format(monkeypatch: pytest.MonkeyPatch):
    """On the wall clock of a stand-in for a GPU."""
    seen: list[DeviceFrame] = []
    segmenter = SimpleNamespace(
        device=torch.device("cpu"), run_resident=lambda frame: seen.append(frame) or sleep(0.001)
    )
    monkeypatch.setattr(measure, "_BURST_MS", 20.0)
    rgb = measure.drawn_frame((48, 64))
    probe = measure.resident_probe(segmenter, rgb)
    seen.clear()
    assert probe.measure() >= 1, "milliseconds of each frame"
    assert 4 <= len(seen) <= 20
    assert len({id(frame) for frame in seen}) == min(len(seen), 16), "frames in turn"
    assert len({frame.planes[0].numpy().tobytes() for frame in seen[:8]}) > 1
    (y, u, _), encoding = seen[0].planes, seen[0].encoding
    assert (y.shape, u.shape) == ((48, 64), (24, 32))
    restored = Picture(planes=tuple(plane.numpy() for plane in seen[0].planes), encoding=encoding).rgb
    assert np.abs(restored.astype(int) - rgb).mean() < 4
    assert measure.as_decoded(rgb[:47]).encoding is None


def test_what_stays_on_the_gpu_has_a_column_there(factory: Path):
    case = measure.Case(candidate=load_candidate(f"{factory}:small"), size=(64, 64), backend="auto", precision="auto")
    row = measure.Row(case=case, backend="cudagraph", precision="fp16", macs=None, resident=Timing.of([0.5]))
    on_gpu, on_cpu = (
        speed_table([row], measure.Settings(device=torch.device(device), rounds=1, with_frame=True))
        for device in ("cuda", "cpu")
    )
    header, _, cells = (line.split("|") for line in on_gpu.splitlines()[:3])
    assert (header[-2].strip(), cells[-2].strip()) == ("resident FPS", "2000.0")
    assert "- resident: YUV 4:2:0 on the GPU" in on_gpu
    assert "resident" not in on_cpu
    assert as_json(row)["resident"]["fps"] == 2000
