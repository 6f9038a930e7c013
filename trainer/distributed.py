"""Several processes that train one network, as `torchrun` starts them; without it there is one."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from bsdnet.devices import select_device
from bsdnet.errors import TrainingError

_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # with gloo beside nccl, a flag need not wait for the GPU


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among all that take part in a run.

    Raises:
        TrainingError: the numbers contradict one another.
    """

    rank: int = 0
    """Number of this process, from 0, over all machines."""
    count: int = 1
    """How many there are, over all machines."""
    local_rank: int = 0
    """Number of this process on its machine, from 0: the number of its GPU."""

    def __post_init__(self) -> None:
        """Reject numbers that contradict one another."""
        if not 0 <= self.local_rank <= self.rank < self.count:
            raise TrainingError(
                f"expected 0 <= LOCAL_RANK <= RANK < WORLD_SIZE, got {self.local_rank}, {self.rank} and {self.count}; "
                "start the processes with torchrun"
            )

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0


@contextmanager
def connect(device_name: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the other processes of the run, and leave them at the end.

    Reads `RANK`, `WORLD_SIZE` and `LOCAL_RANK` of the environment; if there is but one process, nothing is joined.

    Args:
        device_name: as of `bsdnet.devices.select_device`. Of several processes on GPUs each takes the one of its
            `LOCAL_RANK`, so that only `auto`, `cpu` and `cuda` make sense.

    Yields:
        This process among the others, and the device that it computes on.

    Raises:
        TrainingError: the environment is incomplete, a process has no GPU of its own, or the others are not reached.
        ConfigError: no such device name.
        BackendError: this machine has no such device.
    """
    processes = _read_environment()
    device = _own_device(device_name, processes)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # page-locked memory is the current GPU's, and would wake another one
    if processes.count == 1:
        yield processes, device
        return
    # Its functions have the group as a default argument if there is one when it is imported, which
    # DistributedDataParallel does. Gloo's threads then outlive the group, and one that wants the interpreter's lock
    # while that ends aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group(_BACKENDS[device.type], device_id=device if on_gpu else None)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"process {processes.rank} cannot join the {processes.count}: {reason}") from error
    try:
        yield processes, device
    finally:
        dist.destroy_process_group()


def sum_over_processes(tensor: Tensor, processes: Processes) -> Tensor:
    """Add up the tensors that all processes call this with, exactly for integers.

    Args:
        tensor: any shape and dtype, on the CPU or on the process's device; all processes give the same of both.
        processes: what `connect` gave.

    Returns:
        The sum, a new tensor without gradient; with one process the tensor itself.
    """
    if processes.count == 1:
        return tensor
    total = tensor.detach().clone(memory_format=torch.contiguous_format)  # NCCL takes no other
    dist.all_reduce(total)
    return total


def agree(flag: bool, processes: Processes) -> bool:
    """Tell all processes whether one of them says yes: so they stop after the same step when one got a signal.

    Goes from CPU to CPU and so does not wait for a GPU.
    """
    return bool(sum_over_processes(torch.tensor(int(flag)), processes))


def synchronise(processes: Processes) -> None:
    """Wait until every process has come here."""
    if processes.count > 1:
        dist.barrier()


def _read_environment() -> Processes:
    count = _read_number("WORLD_SIZE") if "WORLD_SIZE" in os.environ else 1
    if count == 1:
        return Processes()
    return Processes(rank=_read_number("RANK"), count=count, local_rank=_read_number("LOCAL_RANK"))


def _read_number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        problem = f"is {text!r}, expected a number" if text else "is missing"
        raise TrainingError(f"the environment variable {variable} {problem}; start the processes with torchrun")
    return int(text)


def _own_device(name: str, processes: Processes) -> torch.device:
    device = select_device(name)
    if device.type == "cpu" or processes.count == 1:
        return device
    if ":" in name:
        raise TrainingError(f"{name!r} is one device for {processes.count} processes; with 'cuda' each takes its own")
    found = torch.cuda.device_count()
    if processes.local_rank >= found:
        raise TrainingError(
            f"the process of LOCAL_RANK {processes.local_rank} has no GPU of its own, this machine has {found}: "
            f"start torchrun with --nproc-per-node {found}, or compute on the device 'cpu'"
        )
    return torch.device("cuda", processes.local_rank)
