"""--stats, --classes-csv and --metrics-port of bsdnet-run."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bsdnet.errors import SinkError
from bsdnet.stream.report import GpuMemory
from cli.metrics import MetricsServer, metrics_of
from cli.statistics import Statistics
from tests.cli.conftest import Run
from tests.stream.test_report import report

DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def scrape(port: int) -> dict[str, float]:
    """What Prometheus would read: value by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        ",".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in families
        for sample in family.samples
    }


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_last_line_tells_the_whole_run(run: Run, clip: Path, tmp_path: Path):
    path = tmp_path / "stats.jsonl"
    assert run(clip, "-o", tmp_path / "out.mp4", "--stats", path, "--size", "96x64").exit_code == 0
    last = lines_of(path)[-1]
    assert (last["source"], last["state"]) == ("clip.mp4", "finished")
    assert (last["frames_in"], last["frames_out"], last["lost"]) == (5, 5, 0)
    assert (last["input_width"], last["input_height"], last["device"]) == (96, 64, "cpu")


def test_several_sources_share_a_file(run: Run, clip: Path, tmp_path: Path):
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    run(clip, other, "-o", f"{tmp_path}/out/", "--stats", tmp_path / "stats.jsonl")
    ends = [line["source"] for line in lines_of(tmp_path / "stats.jsonl") if line["state"] == "finished"]
    assert ends == ["clip.mp4", "other.mp4"]


def test_the_share_of_classes(run: Run, clip: Path, tmp_path: Path):
    path = tmp_path / "classes.csv"
    result = run(clip, "--classes-csv", path)
    assert (result.exit_code, result.summary["classes"]) == (0, str(path))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["frame"]), float(row["time_s"]), float(row["road"])) for row in rows] == [
        (index, pytest.approx(index / 25), 1.0) for index in range(5)
    ]
    again = run(clip, "--classes-csv", path)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{clip}", "{clip}", "-o", "{out}/", "--classes-csv", "{out}/c.csv"], "is for one source"),
        (["{clip}", "--classes-csv", "{out}/c", "--stats", "{out}/c"], "--classes-csv and --stats both name"),
        (["{clip}", "-o", "{out}/o.mp4", "--metrics-port", "70000"], "--metrics-port"),
    ],
)
def test_wrong_usage(run: Run, clip: Path, tmp_path: Path, arguments: list[str], words: str):
    result = run(*(argument.format(clip=clip, out=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_input_is_not_spoilt(run: Run, clip: Path, tmp_path: Path):
    before = clip.read_bytes()
    for option in ("--stats", "--classes-csv"):
        result = run(clip, "-o", tmp_path / "out.mp4", option, clip, "-y")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert clip.read_bytes() == before
    assert not (tmp_path / "out.mp4").exists()


def test_lines_come_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr("cli.statistics.time.monotonic", lambda: clock[0])
    with Statistics(tmp_path / "stats.jsonl", host="", port=None) as statistics:
        statistics.tick()
        with statistics.follow(report):
            counts = []
            for clock[0] in (100.5, 101.0, 101.5, 101.9, 102.1, 109.0, 109.5, 110.1):
                statistics.tick()
                counts.append(len(lines_of(tmp_path / "stats.jsonl")))
        statistics.tick()
    assert counts == [0, 1, 1, 1, 2, 3, 3, 4]
    assert len(lines_of(tmp_path / "stats.jsonl")) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="it needs SIGKILL")
def test_a_kill_leaves_whole_lines(weights: Path, tmp_path: Path):
    path = tmp_path / "stats.jsonl"
    arguments = ["demo", "--classes-csv", tmp_path / "classes.csv", "--stats", path, "--weights", weights]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cli.run", *arguments, "--device", "cpu"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        while not path.exists() or not any(line["frames_out"] for line in lines_of(path)):
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    assert all(line["state"] == "running" for line in lines_of(path))
    with (tmp_path / "classes.csv.part").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= lines_of(path)[-1]["frames_out"] > 0
    assert None not in rows[-1].values()


class TestMetrics:
    def test_what_prometheus_reads(self):
        port = free_port()
        with MetricsServer("127.0.0.1", port) as server:
            assert not [name for name in scrape(port) if name.startswith("bsdnet")]
            server.follow(report)
            read = scrape(port)
            server.follow(None)
            assert not [name for name in scrape(port) if name.startswith("bsdnet")]
        expected = {
            "bsdnet_read_frames_total": 1,
            "bsdnet_written_frames_total": 1,
            "bsdnet_dropped_frames_total": 1,
            "bsdnet_lost_frames_total": 7,
            "bsdnet_sink_frames_total,sink=0:out.mp4": 1,
            "bsdnet_sink_skipped_frames_total,sink=1:window": 0,
            "bsdnet_reconnects_total": 2,
            "bsdnet_outage_seconds_total": 1.5,
            "bsdnet_silent_seconds": 0.25,
            "bsdnet_queued_frames,queue=read_ahead": 3,
            "bsdnet_queued_frames,queue=0:out.mp4": 4,
            "bsdnet_stage_latency_seconds,quantile=0.95,stage=infer": 0.02,
            "bsdnet_stage_latency_seconds_count,stage=infer": 1,
            "bsdnet_stage_latency_seconds_sum,stage=infer": 0.02,
            "bsdnet_inference_info,backend=eager,device=cpu,input_size=640x352,network=bsdnet_s,precision=bf16,"
            "source=camera 0": 1,
        }
        assert {name: read.get(name) for name in expected} == pytest.approx(expected)
        assert "bsdnet_stage_latency_seconds_count,stage=render" not in read, "nothing was rendered"
        if sys.platform.startswith("linux"):
            assert read["process_resident_memory_bytes"] > 0

    @pytest.mark.skipif(not DOCS.is_file(), reason="an installed package has no docs")
    def test_every_metric_is_documented(self):
        from dataclasses import replace

        metrics = metrics_of(replace(report(), gpu_memory=GpuMemory(reserved=1, used=2, total=3)))
        suffixes = {"counter": "_total", "info": "_info"}
        table = DOCS.read_text().split("| metric |")[1].split("\n\n")[0]
        rows = {metric.name: row for metric in metrics for row in table.splitlines() if f"`{metric.name}" in row}
        for metric in metrics:
            assert f"`{metric.name}{suffixes.get(metric.type, '')}`" in rows[metric.name]
            assert f"| {metric.type} |" in rows[metric.name]

    def test_it_listens_here_only_and_stops(self):
        port = free_port()
        threads = threading.active_count()
        with MetricsServer("127.0.0.1", port):
            scrape(port)
            with pytest.raises(SinkError, match=f"port {port} .*in use.*--metrics-port"):
                MetricsServer("127.0.0.1", port)
        with pytest.raises(urllib.error.URLError):
            scrape(port)
        assert threading.active_count() == threads

    def test_a_stream_that_has_ended_is_not_told_of(self):
        port = free_port()
        with Statistics(None, host="127.0.0.1", port=port) as statistics:
            with statistics.follow(report):
                assert "bsdnet_lost_frames_total" in scrape(port)
            assert "bsdnet_lost_frames_total" not in scrape(port)

    def test_a_port_in_use_ends_the_command_before_it_begins(self, run: Run, clip: Path, tmp_path: Path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            result = run(clip, "-o", tmp_path / "out.mp4", "--metrics-port", taken.getsockname()[1])
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())

    def test_a_run_is_served(self, run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        port = free_port()
        seen = []
        monkeypatch.setattr(Statistics, "tick", lambda self: seen.append(scrape(port)))
        monkeypatch.setattr("cli.run._WAIT_S", 0.001)
        assert run(clip, "-o", tmp_path / "out.mp4", "--metrics-port", port).exit_code == 0
        assert "bsdnet_read_frames_total" in seen[-1]

    def test_without_the_package(self, run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        monkeypatch.delitem(sys.modules, "cli.metrics")
        result = run(clip, "-o", tmp_path / "out.mp4", "--metrics-port", free_port())
        assert result.exit_code == 2
        assert "bsdnet[metrics]" in result.stderr
        assert result.stderr.count("\n") == 1
