"""The training loop: steps, evaluations, checkpoints. What is trained comes in as a task."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol, cast

import torch
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.nn.parallel import DistributedDataParallel

from bsdnet.devices import cudnn_search
from bsdnet.errors import TrainingError, first_line
from trainer.distributed import Processes, agree, sum_over_processes
from trainer.monitor import RunMonitor
from trainer.moving_average import MovingAverage
from trainer.recipes import OptimizerRecipe
from trainer.schedule import learning_rate, set_learning_rate
from trainer.state import Progress, Stateful, load_state, save_state

logger = logging.getLogger(__name__)

_BAD_BATCH = "not-finite.pt"


class Task(Protocol):
    """What is trained, on what, and how it is judged."""

    @property
    def objective(self) -> nn.Module:
        """All that learns, on its device; it maps pictures, targets and counts to the parts of the loss.

        The parts are scalars by name; `loss` is their weighted sum.
        """
        ...

    @property
    def network(self) -> nn.Module:
        """The part of the objective that is evaluated and kept."""
        ...

    @property
    def recipe(self) -> OptimizerRecipe:
        """The numbers of the run."""
        ...

    @property
    def description(self) -> Mapping[str, object]:
        """All that decides the result, recipe and data, as plain values: a run resumes only under the same."""
        ...

    @property
    def iterations(self) -> int:
        """Steps of the whole run."""
        ...

    def optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer over the objective's parameters; each group has an `lr_factor`."""
        ...

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give this process's pictures and targets of every step from `start` on, on the device."""
        ...

    def count(self, targets: Tensor) -> Tensor:
        """Count what the sums of the loss are divided by, one number each, `(n,)`."""
        ...

    def evaluate(self, network: nn.Module, monitor: RunMonitor) -> float:
        """Judge the network, 0 to 1, and report."""
        ...

    def save_weights(self, network: nn.Module, path: Path) -> None:
        """Write the weights for others to use."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How a run is carried out; nothing here decides what it learns."""

    resume: bool = False
    """Go on from `state.pt` instead of starting anew."""
    eval_every: int
    """Steps between evaluations; the last step is always evaluated."""
    save_every: int = 200
    """Steps between states."""
    compile_network: bool = False
    """Whether `torch.compile` runs over the network."""
    tensorboard: bool = False
    """Whether scalars and pictures are written for TensorBoard."""


@dataclass
class _Step:
    """A step whose numbers have not been read yet: on a GPU they are on their way, behind what it still has to do."""

    iteration: int
    images: Tensor
    targets: Tensor
    names: list[str]
    """Of the parts of the loss."""
    numbers: Tensor
    """Those parts and the gradient's norm, `(len(names) + 1,)` fp32, on the CPU."""
    arrived: torch.cuda.Event | None
    """After which `numbers` may be read; None: at once."""
    lr: float
    data_s: float


class Loop:
    """One run of a task: construct, then `run` it.

    Writes `state.pt` (for resuming), `best` and `last` weights into the folder, from the main process.

    Args:
        task: what to train.
        folder: where the run lives; exists.
        options: how to carry it out.
        processes: the group of processes that trains together.
        should_stop: asked after each step; True saves the state and ends the run.

    Raises:
        TrainingError: the batch cannot be shared evenly, or the state cannot be read.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        options: LoopOptions,
        *,
        processes: Processes = Processes(),  # noqa: B008 - frozen
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        recipe = task.recipe
        if recipe.batch_size % (processes.count * recipe.accumulation):
            raise TrainingError(
                f"batch_size {recipe.batch_size} is no multiple of {processes.count} processes times accumulation "
                f"{recipe.accumulation}"
            )
        if recipe.batch_size < 2 * processes.count * recipe.accumulation:
            raise TrainingError(
                f"batch_size {recipe.batch_size} gives each of {processes.count} processes times accumulation "
                f"{recipe.accumulation} fewer than 2 pictures, and batch norm needs 2"
            )
        self._task, self._folder, self._options = task, folder, options
        self._processes, self._should_stop = processes, should_stop
        self._device = next(task.objective.parameters()).device
        self._optimizer = task.optimizer()
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=recipe.precision == "fp16")
        self._average = MovingAverage(task.network, recipe.ema_decay) if recipe.ema_decay > 0 else None
        self._stateful: dict[str, Stateful | None] = {
            "objective": task.objective, "optimizer": self._optimizer, "scaler": self._scaler, "average": self._average,
        }  # fmt: skip
        self._progress = Progress()
        if options.resume:
            self._progress = load_state(folder, self._stateful, task.description)
        if options.compile_network:
            task.network.compile()
        self._objective: nn.Module = task.objective
        if processes.count > 1:
            self._objective = DistributedDataParallel(task.objective)
        self._unread: _Step | None = None

    def run(self) -> Progress:
        """Train to the end of the recipe, or to the step after which `should_stop` says so.

        Returns:
            How far the run has come.

        Raises:
            TrainingError: the loss or its gradient is not finite, the state cannot be written, or the GPU's memory
                does not suffice.
            CheckpointError: the weights cannot be written.
        """
        try:
            with cudnn_search(True):  # all crops have one size
                return self._run()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "the GPU's memory does not suffice: a larger --accumulation computes a step in smaller parts, a "
                f"smaller --batch-size or --crop-size makes it smaller ({first_line(error)})"
            ) from error

    def _run(self) -> Progress:
        task, options = self._task, self._options
        task.objective.train()
        if self._progress.iteration == 0:
            self._save()  # from here on the folder holds a run, which resumes
        with RunMonitor(
            self._folder,
            task.iterations,
            self._progress.iteration,
            task.recipe.batch_size,
            self._device,
            enabled=self._processes.is_main,
            tensorboard=options.tensorboard,
        ) as monitor:
            if self._is_due(self._progress.iteration):  # killed while it was evaluated, or before that was written down
                self._evaluate(monitor)
                self._save()
            for images, targets, data_s in _timed(task.batches(self._progress.iteration)):
                step = self._step(images, targets, data_s)
                self._read(monitor)
                self._unread = step
                iteration = step.iteration + 1
                self._progress = replace(self._progress, iteration=iteration)
                judging = self._is_due(iteration)
                if judging:
                    self._read(monitor)
                    self._save()  # whatever happens in the evaluation, which may take long, the steps are kept
                    self._evaluate(monitor)
                stopping = agree(self._should_stop(), self._processes)
                if judging or stopping or iteration % options.save_every == 0:
                    self._read(monitor)
                    self._save()
                if stopping:
                    break
            self._read(monitor)
        if self._progress.iteration == task.iterations and self._processes.is_main:
            task.save_weights(self._best_network(), self._folder / "last.safetensors")
        return self._progress

    def _is_due(self, iteration: int) -> bool:
        """Whether an evaluation is to follow a step."""
        planned = iteration == self._task.iterations or iteration % self._options.eval_every == 0
        return planned and iteration != self._progress.evaluated_at

    def _step(self, images: Tensor, targets: Tensor, data_s: float) -> _Step:
        recipe, iteration = self._task.recipe, self._progress.iteration
        # Chance in the network depends on the seed, the step and the process alone: a resumed run draws the same.
        torch.manual_seed((recipe.seed * 0x9E3779B1 + iteration * 0x85EBCA6B + self._processes.rank) % 2**32)
        lr = learning_rate(recipe, iteration, self._task.iterations)
        set_learning_rate(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._backward(images, targets)
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._task.objective.parameters(), recipe.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update_parameters(self._task.network)
        numbers = torch.stack([*losses.values(), norm]).to("cpu", non_blocking=True)
        arrived = None
        if self._device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return _Step(iteration, images, targets, list(losses), numbers, arrived, lr, data_s)

    def _backward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Add the gradients of all parts of this process's share, as if they had been one."""
        parts = self._task.recipe.accumulation
        # DistributedDataParallel averages over the processes, so each divides by its mean share of the whole count.
        counts = sum_over_processes(self._task.count(targets), self._processes) / self._processes.count
        total: dict[str, Tensor] = {}
        for number, (some_images, some_targets) in enumerate(
            zip(images.chunk(parts), targets.chunk(parts), strict=True)
        ):
            wrapped = self._objective
            waits = isinstance(wrapped, DistributedDataParallel) and number < parts - 1
            context = cast(DistributedDataParallel, wrapped).no_sync() if waits else torch.enable_grad()
            with context:
                losses = wrapped(some_images, some_targets, counts)
                self._scaler.scale(losses["loss"]).backward()
            total = {name: total.get(name, 0) + loss.detach() for name, loss in losses.items()}
        return total

    def _read(self, monitor: RunMonitor) -> None:
        """Read the numbers of the step before. The next one is queued already: the GPU does not run dry meanwhile."""
        step, self._unread = self._unread, None
        if step is None:
            return
        if step.arrived is not None:
            step.arrived.synchronize()
        *parts, norm = step.numbers.tolist()
        losses = dict(zip(step.names, parts, strict=True))
        if not math.isfinite(losses["loss"]):
            self._give_up(step, f"the loss became {losses['loss']}", losses)
        # In fp16 a gradient that overflows is no accident: the scaler leaves the step out and scales less.
        if not math.isfinite(norm) and self._task.recipe.precision != "fp16":
            self._give_up(step, f"the gradient became {norm}", losses)
        monitor.step(losses, lr=step.lr, data_s=step.data_s, gradient_norm=norm)

    def _give_up(self, step: _Step, reason: str, losses: dict[str, float]) -> NoReturn:
        path = self._folder / (_BAD_BATCH if self._processes.is_main else f"{self._processes.rank}-{_BAD_BATCH}")
        content = {"iteration": step.iteration, "losses": losses, "images": step.images, "targets": step.targets}
        try:
            torch.save(
                {key: value.cpu() if isinstance(value, Tensor) else value for key, value in content.items()}, path
            )
            where = f"its batch is kept in {path}"
        except (OSError, RuntimeError):  # the loss is the news, not the disk
            where = "its batch could not be kept"
        raise TrainingError(f"{reason} at iteration {step.iteration}; {where}; a lower --lr may help")

    def _evaluate(self, monitor: RunMonitor) -> None:
        network = self._best_network()
        if self._processes.count > 1:  # batch norm's statistics are each process's own since the last step began
            for buffer in network.buffers():
                broadcast(buffer, src=0)
        network.eval()
        monitor.log_line()
        with monitor.paused(), cudnn_search(False):  # pictures may have many
            score = self._task.evaluate(network, monitor)
        self._task.objective.train()
        if score > self._progress.best_score:
            if self._processes.is_main:
                self._task.save_weights(network, self._folder / "best.safetensors")
            self._progress = replace(self._progress, best_score=score)
        self._progress = replace(self._progress, evaluated_at=self._progress.iteration)

    def _best_network(self) -> nn.Module:
        """Give the network whose weights are kept: the moving average where there is one."""
        return self._task.network if self._average is None else self._average.module

    def _save(self) -> None:
        if self._processes.is_main:
            save_state(self._folder, self._stateful, self._task.description, self._progress)


def _timed(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Add to each batch the seconds that it was waited for."""
    start_s = time.perf_counter()
    for images, targets in batches:
        yield images, targets, time.perf_counter() - start_s
        start_s = time.perf_counter()
