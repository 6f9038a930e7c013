"""Reading pictures in worker processes."""

import atexit
import os
import signal
from collections.abc import Iterable, Iterator
from ctypes import c_byte
from functools import partial
from multiprocessing import RawValue
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from bsdnet.errors import DatasetError
from trainer.device import normalize

_ending = RawValue("b", 0)
"""Shared with the workers: 1 once the trainer itself ends."""


@atexit.register  # runs before the handler of multiprocessing, which terminates the workers and waits for them
def _end() -> None:
    _ending.value = 1


def default_workers(device: torch.device) -> int:
    """Say how many processes read pictures unless one is told: beside a GPU the CPU's cores are free for it.

    On a CPU they would take them from the network: 0, this process reads itself.
    """
    if device.type == "cpu":
        return 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # the processes on this machine share its cores
    return min(16, max(1, (os.cpu_count() or 2) // here - 1))


def load_batches(
    dataset: Dataset[tuple[Tensor, Tensor]], batches: Iterable[list[Any]], device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give normalised pictures `(B, C, H, W)` and int64 targets on the device, batch by batch.

    Args:
        dataset: pictures `(H, W, C)` uint8 RGB and integer targets; more than three channels are several pictures.
        batches: which examples make each batch, as the data set's `__getitem__` takes them.
        device: where they go.
        workers: processes that read them; 0 reads them in this one.

    Raises:
        DatasetError: a picture cannot be read.
    """
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=partial(_prepare_worker, ending=_ending),
        pin_memory=device.type == "cuda",
    )
    try:
        for images, targets in loader:
            normalized = normalize(images.to(device, non_blocking=True), IMAGENET_MEAN, IMAGENET_STD)
            yield normalized, targets.to(device, non_blocking=True).long()
    except DatasetError as error:  # from another process it comes with that process's traceback in its text
        raise DatasetError(str(error).strip().rpartition("DatasetError: ")[2]) from error


def _prepare_worker(number: int, *, ending: c_byte) -> None:
    """Leave signals, which reach the whole group of processes, to the trainer; and its cores to the other workers."""

    def end_with_the_trainer(*_: object) -> None:
        if ending.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_with_the_trainer)
    cv2.setNumThreads(0)
