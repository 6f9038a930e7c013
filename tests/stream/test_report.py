import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bsdnet.errors import SinkError
from bsdnet.stream.frame import Signal
from bsdnet.stream.report import GpuMemory, StatsFile, StreamReport, take_report
from bsdnet.stream.stats import STAGES, StatsRecorder

DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"


def engine(device: str = "cpu") -> SimpleNamespace:
    return SimpleNamespace(architecture="bsdnet_s", device=torch.device(device), precision="bf16", backend="eager")


def report(device: str = "cpu") -> StreamReport:
    recorder = StatsRecorder([("out.mp4", False), ("window", True)])
    recorder.start()
    recorder.frame_read(0.004)
    recorder.frame_inferred(0.02, None)
    recorder.frame_written(0, 0.003, 0.03)
    recorder.frame_dropped()
    signal = Signal(reconnects=2, outage_s=1.5, silent_s=0.25)
    stats = recorder.snapshot(lost=7, signal=signal, read_ahead=3, in_flight=1, queued=[4, 1])
    return take_report(stats, engine(device), source="camera 0", state="running", input_size=(352, 640))


def test_a_record_says_all_that_is_known():
    record = json.loads(json.dumps(report().as_record()))
    expected = {
        "source": "camera 0", "state": "running", "frames_in": 1, "frames_out": 1, "dropped": 1, "lost": 7,
        "read_ahead": 3, "in_flight": 1, "reconnects": 2, "outage_s": 1.5, "silent_s": 0.25, "network": "bsdnet_s",
        "input_height": 352, "input_width": 640, "backend": "eager", "precision": "bf16", "device": "cpu",
        "gpu_memory_bytes": None,
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected
    assert set(record["latency"]) == set(STAGES)
    assert record["latency"]["infer"] == {"count": 1, "mean_ms": 20.0, "p50_ms": 20.0, "p95_ms": 20.0, "p99_ms": 20.0}
    assert record["latency"]["render"] is None, "nothing was rendered, which is not 0 ms"
    assert record["sinks"][0] == {"name": "out.mp4", "frames": 1, "skipped": 0, "fps": 0.0, "queued": 4}
    assert record["memory_bytes"] is None or record["memory_bytes"] > 10_000_000
    assert record["time"].endswith("+00:00")


def test_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
    taken = report("cuda:0")
    assert taken.gpu_memory == GpuMemory(reserved=200, used=700, total=1000)
    assert taken.as_record()["gpu_memory_bytes"] == {"reserved": 200, "used": 700, "total": 1000}


@pytest.mark.skipif(not DOCS.is_file(), reason="an installed package has no docs")
def test_every_field_is_documented():
    table = DOCS.read_text().split("| field |")[1].split("\n\n")[0]
    fields = {name for row in table.splitlines()[2:] for name in row.split("|")[1].replace("`", "").split(", ")}
    assert {name.strip() for name in fields if "." not in name} - {"p95_ms", "p99_ms "} - {"p99_ms"} == {
        name for name in map(str.strip, report().as_record())
    }


class TestStatsFile:
    def test_lines_are_there_at_once_and_those_of_before_are_kept(self, tmp_path: Path):
        path = tmp_path / "stats.jsonl"
        for run in range(2):
            with StatsFile(path) as file:
                file.write({"run": run})
                assert json.loads(path.read_text().splitlines()[-1]) == {"run": run}
        assert [json.loads(line) for line in path.read_text().splitlines()] == [{"run": 0}, {"run": 1}]

    def test_a_line_that_was_cut_off_stands_alone(self, tmp_path: Path):
        path = tmp_path / "stats.jsonl"
        path.write_text('{"a": 1}\n{"a": ')
        with StatsFile(path) as file:
            file.write({"a": 3})
        assert path.read_text() == '{"a": 1}\n{"a": \n{"a": 3}\n'

    def test_another_file_is_not_touched(self, tmp_path: Path):
        path = tmp_path / "clip.mp4"
        path.write_bytes(b"\0\0\0 ftyp")
        with pytest.raises(SinkError, match=r"clip\.mp4 holds no statistics"):
            StatsFile(path)
        assert path.read_bytes() == b"\0\0\0 ftyp"

    @pytest.mark.parametrize("name", ["none/stats.jsonl", "."])
    def test_what_cannot_be_opened(self, tmp_path: Path, name: str):
        with pytest.raises(SinkError):
            StatsFile(tmp_path / name)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
    def test_a_full_disk_is_named_once_and_ends_nothing(self, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.WARNING)
        with StatsFile(Path("/dev/full")) as file:
            for _ in range(3):
                file.write({"a": 1})
        assert [record.getMessage() for record in caplog.records] == [
            "statistics cannot be written to /dev/full: No space left on device; the run goes on"
        ]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_a_pipe_without_a_reader_is_refused_at_once(self, tmp_path: Path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SinkError, match="nobody reads this pipe"):
            StatsFile(tmp_path / "pipe")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_a_pipe_that_nobody_reads_stops_nothing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        with open(reader, "rb", buffering=0) as pipe, StatsFile(tmp_path / "pipe") as file:  # noqa: PTH123 - a number
            for number in range(2000):
                file.write({"number": number, "filling": 100 * "x"})
            (record,) = caplog.records
            assert "nobody reads them; the run goes on" in record.getMessage()
            before = pipe.read(2**20)
            file.write({"number": -1})
            lines = (before + pipe.read(2**20)).splitlines()
        assert json.loads(lines[-1]) == {"number": -1}
        assert [json.loads(line)["number"] for line in lines[:300]] == list(range(300))

    def test_half_a_line_is_ended_before_the_next_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = tmp_path / "stats.jsonl"
        with StatsFile(path) as file:
            whole = file._file
            monkeypatch.setattr(file, "_file", SimpleNamespace(write=lambda line: whole.write(line[:4])))
            file.write({"a": 1})
            monkeypatch.undo()
            file.write({"a": 2})
            file.write({"a": 3})
        assert path.read_text() == '{"a"\n{"a": 2}\n{"a": 3}\n'
