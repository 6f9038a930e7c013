import mmap
import sys
import time
from collections.abc import Callable

import pytest
import torch

import bsdnet
from bsdnet import machine
from bsdnet.runtime.timing import PeakMemory, Probe, Timing, device_clock, time_interleaved, wall_clock

CPU = torch.device("cpu")
MIB = 2**20
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_percentiles_are_by_nearest_rank():
    timing = Timing.of(range(100, 0, -1))
    assert (timing.samples, timing.p50_ms, timing.p95_ms, timing.p99_ms) == (100, 50, 95, 99)
    assert timing.fps == 20
    few = Timing.of([3.0, 1.0, 2.0])
    assert (few.p50_ms, few.p95_ms, few.p99_ms) == (2, 3, 3)


def recorder(name: str, calls: list[str]) -> Callable[[], float]:
    def measure() -> float:
        calls.append(name)
        return float(len(calls))

    return measure


def interrupted_at(call: int, calls: list[str]) -> Callable[[], float]:
    def measure() -> float:
        calls.append("")
        if len(calls) == call:
            raise KeyboardInterrupt
        return 1.0

    return measure


def test_all_have_their_turn_in_every_round():
    calls: list[str] = []
    rounds: list[int] = []
    probes = {name: Probe(measure=recorder(name, calls), untimed=1, timed=2) for name in "abc"}
    timings = time_interleaved(probes, rounds=6, on_round=lambda: rounds.append(len(calls)))
    assert list(timings) == ["a", "b", "c"]
    assert all(timing.samples == 12 for timing in timings.values())
    turns = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert all(len(set(turn)) == 1 for turn in turns), "a turn is not interrupted"
    orders = ["".join(turn[0] for turn in turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert len(orders) == 8, "two rounds that do not count, and six that do"
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1, "nobody always comes after the same one"
    assert rounds == [9 * number for number in range(3, 9)]


def test_what_comes_first_does_not_count():
    calls: list[str] = []
    measure = recorder("a", calls)
    timing = time_interleaved({"a": Probe(measure=measure, untimed=2, timed=1)}, rounds=3)["a"]
    assert timing == Timing.of([9, 12, 15]), "two rounds of three calls, then the third call of each"


@pytest.mark.parametrize("call", [1, 8, 9, 10])
def test_an_interrupt_before_a_whole_round_leaves_nothing(call: int):
    calls: list[str] = []
    probes = {name: Probe(measure=interrupted_at(call, calls), untimed=1, timed=1) for name in "ab"}
    with pytest.raises(KeyboardInterrupt):
        time_interleaved(probes, rounds=4)


@pytest.mark.parametrize("call", [13, 14, 15, 16])
def test_an_interrupt_later_leaves_the_whole_rounds(call: int):
    """Of a round that one has seen and the other has not, none counts."""
    calls: list[str] = []
    rounds: list[int] = []
    probes = {name: Probe(measure=interrupted_at(call, calls), untimed=1, timed=1) for name in "ab"}
    timings = time_interleaved(probes, rounds=4, on_round=lambda: rounds.append(len(calls)))
    assert rounds == [12]
    assert [timing.samples for timing in timings.values()] == [1, 1]


def test_the_wall_clock_counts_milliseconds():
    assert 20 <= wall_clock(lambda: time.sleep(0.02)) < 2000
    assert device_clock(CPU) is wall_clock


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peak_memory_is_that_of_the_block():
    def use(num_bytes: int) -> None:
        """Touch memory that nobody has had before: malloc would hand out again what other tests have freed."""
        with mmap.mmap(-1, num_bytes) as pages:
            for start in range(0, num_bytes, mmap.PAGESIZE):
                pages[start] = 1

    with PeakMemory(CPU) as memory:
        use(64 * MIB)
    assert memory.peak_bytes is not None
    assert 60 * MIB < memory.peak_bytes < 80 * MIB
    with PeakMemory(CPU) as smaller:
        use(8 * MIB)
    assert smaller.peak_bytes is not None
    assert smaller.peak_bytes < 20 * MIB, "an earlier peak is not seen again"


def test_peak_memory_where_nobody_tells(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr("bsdnet.runtime.timing._PROCESS", tmp_path / "none")
    with PeakMemory(CPU) as memory:
        pass
    assert memory.peak_bytes is None
    (tmp_path / "clear_refs").mkdir()  # a kernel that does not let the peak be set back
    (tmp_path / "status").write_text("VmRSS: 5 kB\n")
    monkeypatch.setattr("bsdnet.runtime.timing._PROCESS", tmp_path)
    with PeakMemory(CPU) as memory:
        pass
    assert memory.peak_bytes is None
    (tmp_path / "clear_refs").rmdir()
    with PeakMemory(CPU) as memory:
        pass
    assert memory.peak_bytes is None, "the system does not tell the peak"


@pytest.mark.gpu
@NEEDS_CUDA
def test_the_gpu_is_timed_by_its_own_clock():
    device = torch.device("cuda", 0)
    clock = device_clock(device)
    x = torch.randn(2048, 2048, device=device)
    clock(lambda: x @ x)
    once, often = (clock(lambda n=n: [x @ x for _ in range(n)]) for n in (1, 50))
    assert 0 < once < often, "the work itself is timed, not its launch"


@pytest.mark.gpu
@NEEDS_CUDA
def test_peak_memory_on_the_gpu():
    device = torch.device("cuda", 0)
    with PeakMemory(device) as memory:
        big = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
        del big
    assert 64 * MIB <= memory.peak_bytes <= 65 * MIB, "a cached block may be up to 1 MiB larger than what it serves for"


def test_the_machine_is_described():
    described = machine.describe_machine()
    assert described["torch"] == torch.__version__
    assert described["threads"] == torch.get_num_threads()
    assert "torch-tensorrt" in described or not machine._version("torch-tensorrt")
    assert machine._version("no such package") is None


def test_without_a_repository_there_is_a_version_for_a_commit(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    monkeypatch.setattr(machine.metadata, "version", lambda name: None)  # nor need it be installed
    assert machine.describe_machine()["bsdnet"] == bsdnet.__version__
