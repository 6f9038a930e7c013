"""Two processes on the CPU train as one does."""

import copy
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bsdnet.classes import CAMVID_11
from bsdnet.modeling.bsdnet import BSDNet
from tests.trainer.processes import run_processes
from tests.trainer.test_objective import Oracle, images_and_labels
from tests.trainer.test_segmentation import Needle
from tests.trainer.tiny import TINY
from trainer.distributed import Processes, connect
from trainer.engine import Loop, LoopOptions
from trainer.monitor import RunMonitor
from trainer.objective import SegmentationObjective
from trainer.recipes import CAMVID_360
from trainer.segmentation import SegmentationData, SegmentationTask
from trainer.trainees import build_student

RECIPE = replace(
    CAMVID_360, epochs=None, iterations=3, batch_size=8, lr=1e-2, precision="fp32", distill="sidm",
    auxiliary_weight=0.4, clip_grad_norm=1e9, warmup_iterations=0,
)  # fmt: skip
WEIGHTS = torch.linspace(0.5, 2, 11)


def whole_batch(iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight pictures; most void pixels are in the first half of them."""
    (images, labels), (more, more_labels) = images_and_labels(iteration), images_and_labels(iteration + 100)
    labels[1:3] = 255
    return torch.cat([images, more]), torch.cat([labels, more_labels])


class FrozenTask:
    """Batches whose void pixels lie in one process's share, for a network whose batch norm does not look at them."""

    def __init__(self, processes: Processes, accumulation: int = 1) -> None:
        self.recipe = replace(RECIPE, accumulation=accumulation)
        self.iterations, self.description = 3, {}
        self._processes = processes
        torch.manual_seed(0)
        network = BSDNet(replace(TINY, num_classes=11))
        self.objective = SegmentationObjective(network, self.recipe, class_weights=WEIGHTS, teacher=Oracle())
        self.network = network
        self.gradients: list[torch.Tensor] = []
        self.drawn: list[float] = []
        network.register_forward_hook(self._leave_traces)

    def _leave_traces(self, network: BSDNet, *_: object) -> None:
        """Count as batch norm would, each process for itself, and draw as dropout would."""
        norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        norm.num_batches_tracked += self._processes.rank
        self.drawn.append(torch.rand(()).item())

    def optimizer(self) -> torch.optim.Optimizer:
        # Plain descent: AdamW's first steps depend on the gradients' signs, which makes much of rounding.
        return torch.optim.SGD([{"params": list(self.objective.parameters()), "lr_factor": 1.0}], lr=1.0)

    def batches(self, start: int):
        for iteration in range(start, 3):
            if iteration:
                self.gradients.append(torch.cat([p.grad.flatten() for p in self.objective.parameters()]))
            for module in self.objective.modules():  # the loop puts it into training mode before this
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            images, labels = whole_batch(iteration)
            rank, count = self._processes.rank, self._processes.count
            yield images.chunk(count)[rank], labels.chunk(count)[rank]

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        return self.objective.count_valid(labels)

    def evaluate(self, network: nn.Module, monitor: RunMonitor) -> float:
        return 0.5

    def save_weights(self, network: nn.Module, path: Path) -> None:
        torch.save(network.state_dict(), path)


def train(processes: Processes, folder: Path, accumulation: int = 1) -> dict[str, object]:
    task = FrozenTask(processes, accumulation)
    Loop(task, folder, LoopOptions(eval_every=3, save_every=100), processes=processes).run()
    return {"gradients": task.gradients, "weights": task.objective.state_dict(), "drawn": task.drawn}


def worker(folder: Path) -> None:
    torch.set_num_threads(1)
    with connect("cpu") as (processes, _):
        for accumulation in (1, 2):
            part = folder / f"accumulation-{accumulation}"
            part.mkdir(exist_ok=True)
            torch.save(train(processes, part, accumulation), part / f"rank-{processes.rank}.pt")
    if sys.platform == "linux":  # one that outlived the group could abort the process at its end
        threads = []
        for comm in Path("/proc/self/task").glob("*/comm"):
            with suppress(OSError):  # it has just ended
                threads.append(comm.read_text())
        assert not [name for name in threads if "gloo" in name], threads


def test_two_processes_learn_what_one_does_from_twice_the_batch(tmp_path: Path):
    """With frozen batch norm: the same gradients, whichever process has the void pixels, and so the same weights."""
    labels = whole_batch(0)[1]
    assert (labels[:4] == 255).sum() > 2 * (labels[4:] == 255).sum() > 0
    alone = train(Processes(), tmp_path)
    run_processes(2, worker, tmp_path)
    for accumulation in (1, 2):
        folder = tmp_path / f"accumulation-{accumulation}"
        first, second = (torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
        for step, gradient in enumerate(alone["gradients"]):
            torch.testing.assert_close(first["gradients"][step], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max())
        for name, tensor in alone["weights"].items():
            assert torch.equal(first["weights"][name], second["weights"][name]), name
            torch.testing.assert_close(first["weights"][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
        assert not set(first["drawn"]) & set(second["drawn"])
        assert (folder / "last.safetensors").is_file()
        assert sorted(path.name for path in folder.iterdir()) == [
            "best.safetensors", "last.safetensors", "rank-0.pt", "rank-1.pt", "state.pt",
        ]  # fmt: skip


def worker_on_gpu(folder: Path) -> None:
    # By gloo, which two processes can share one GPU with; NCCL wants a GPU for each.
    dist.init_process_group("gloo")
    torch.backends.cudnn.allow_tf32 = False  # it rounds more than the tolerance below
    processes, device = Processes(rank=dist.get_rank(), count=2, local_rank=dist.get_rank()), torch.device("cuda:0")
    recipe = replace(RECIPE, distill="none", class_weight_offset=None)
    student = build_student(recipe, CAMVID_11)
    alone = copy.deepcopy(student.network).to(device).train()
    data = SegmentationData(train=Needle(), val=Needle(), description={})
    task = SegmentationTask(recipe, student, data, device, processes=processes)
    images = images_and_labels()[0].to(device)
    task.network.train()(images.chunk(2)[processes.rank])
    alone(images)
    for (name, found), expected in zip(task.network.named_buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)
    (folder / f"done-{processes.rank}").touch()
    dist.destroy_process_group()


@pytest.mark.gpu
def test_batch_norm_on_gpus_looks_at_the_whole_batch(tmp_path: Path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    run_processes(2, worker_on_gpu, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
