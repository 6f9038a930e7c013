import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from bsdnet.errors import BackendError, ConfigError, TrainingError
from tests.trainer.processes import run_processes
from trainer.distributed import Processes, agree, connect, sum_over_processes, synchronise

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
BIG = 2**53 + 1  # the first whole number that a double cannot hold


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def started_as(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}])
def test_one_process_is_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch, variables: dict[str, int]):
    started_as(monkeypatch, **variables)
    with connect("cpu") as (processes, device):
        assert processes == Processes(rank=0, count=1, local_rank=0)
        assert processes.is_main
        assert device == torch.device("cpu")
        assert not dist.is_initialized()
        counts = torch.arange(3)
        assert sum_over_processes(counts, processes) is counts
        assert (agree(True, processes), agree(False, processes)) == (True, False)
        synchronise(processes)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a number"),
        ({"WORLD_SIZE": 2}, "RANK is missing; start the processes with torchrun"),
        ({"WORLD_SIZE": 2, "RANK": 1}, "LOCAL_RANK is missing"),
        ({"WORLD_SIZE": 2, "RANK": 2, "LOCAL_RANK": 0}, "got 0, 2 and 2; start the processes with torchrun"),
        ({"WORLD_SIZE": 0, "RANK": 0, "LOCAL_RANK": 0}, "got 0, 0 and 0"),
        ({"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0}, "process 0 cannot join the 2: .*MASTER_ADDR"),
    ],
)
def test_an_incomplete_environment_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, object], message: str
):
    started_as(monkeypatch, **variables)
    with pytest.raises(TrainingError, match=message), connect("cpu"):
        pass


def test_others_that_are_not_reached_are_one_line(monkeypatch: pytest.MonkeyPatch):
    def fail(backend: str, device_id: None) -> None:
        raise dist.DistNetworkError("timed out\n  after 1 s")

    monkeypatch.setattr(dist, "init_process_group", fail)
    started_as(monkeypatch, WORLD_SIZE=2, RANK=1, LOCAL_RANK=0)
    with pytest.raises(TrainingError, match=r"^process 1 cannot join the 2: timed out after 1 s$"):
        connect("cpu").__enter__()


def test_every_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    started_as(monkeypatch, WORLD_SIZE=4, RANK=2, LOCAL_RANK=2)
    for name in ("cuda", "auto"):
        with pytest.raises(TrainingError, match=r"LOCAL_RANK 2 .* has 2: start torchrun with --nproc-per-node 2"):
            connect(name).__enter__()
    with pytest.raises(TrainingError, match="'cuda:1' is one device for 4 processes"):
        connect("cuda:1").__enter__()
    with pytest.raises(ConfigError, match="'tpu'"):
        connect("tpu").__enter__()
    with pytest.raises(BackendError, match="'cuda:2'"):
        connect("cuda:2").__enter__()


@pytest.mark.parametrize("failing", [False, True])
def test_on_gpus_each_process_joins_by_nccl_with_its_own_and_leaves(monkeypatch: pytest.MonkeyPatch, failing: bool):
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, device_id: calls.extend((backend, device_id)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    started_as(monkeypatch, WORLD_SIZE=4, RANK=3, LOCAL_RANK=1)
    try:
        with connect("auto") as (processes, device):
            assert processes == Processes(rank=3, count=4, local_rank=1)
            assert not processes.is_main
            if failing:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert failing
    assert device == torch.device("cuda:1")
    assert calls == [device, "cpu:gloo,cuda:nccl", device, "left"]


def meet(folder: Path) -> None:
    with pytest.raises(KeyError), connect("cpu") as (processes, _):
        rank = processes.rank
        mine = torch.tensor([[BIG, rank], [0, 1]]).t()  # not contiguous
        total = sum_over_processes(mine, processes)
        assert total.tolist() == [[2 * BIG, 0], [1, 2]]
        assert mine[0, 0] == BIG
        weights = torch.ones(2, requires_grad=True)
        assert not sum_over_processes(weights, processes).requires_grad
        assert [agree(rank == 1, processes), agree(False, processes), agree(True, processes)] == [True, False, True]
        if processes.is_main:
            time.sleep(0.3)
            (folder / "written").touch()
        synchronise(processes)
        assert (folder / "written").exists()
        raise KeyError
    assert not dist.is_initialized()


def test_two_processes_agree(tmp_path: Path):
    run_processes(2, meet, tmp_path)
