"""The training loop: steps, evaluations, checkpoints. What is trained comes in as a task."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bsdnet.errors import TrainingError
from trainer.recipes import OptimizerRecipe
from trainer.schedule import build_optimizer, learning_rate
from trainer.state import Progress, load_state, save_state

logger = logging.getLogger(__name__)

_LOSS_WINDOW = 50


class Task(Protocol):
    """What is trained, on what, and how it is judged."""

    @property
    def model(self) -> nn.Module:
        """The network, on its device."""
        ...

    @property
    def recipe(self) -> OptimizerRecipe:
        """The numbers of the run."""
        ...

    @property
    def description(self) -> dict[str, object]:
        """All that decides the result, recipe and data, as plain values: a run resumes only under the same."""
        ...

    @property
    def iterations(self) -> int:
        """Steps of the whole run."""
        ...

    def batches(self, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Give pictures and targets of every step from `start` on, on the device."""
        ...

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Give the scalar loss of one step."""
        ...

    def evaluate(self) -> float:
        """Judge the network, 0 to 1, and report."""
        ...

    def save_weights(self, path: Path) -> None:
        """Write the weights for others to use."""
        ...


def train(
    task: Task,
    folder: Path,
    *,
    resume: bool,
    eval_every: int,
    save_every: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train to the end of the recipe, or to the step after which `should_stop` says so.

    Writes `state.pt` (for resuming), `best.safetensors` and `last.safetensors` into the folder.

    Args:
        task: what to train.
        folder: where the run lives; exists.
        resume: continue from `state.pt` instead of starting anew.
        eval_every: steps between evaluations; the last step is always evaluated.
        save_every: steps between states.
        should_stop: asked after each step; True saves the state and ends the call.

    Returns:
        How far the run has come.

    Raises:
        TrainingError: the loss or its gradient is not finite, or the state cannot be written or read.
        CheckpointError: the weights cannot be written.
    """
    description = task.description
    optimizer = build_optimizer(task.model, task.recipe)
    progress = load_state(folder, task.model, optimizer, description) if resume else Progress()
    bar = tqdm(
        total=task.iterations, initial=progress.iteration, unit="it", disable=None, dynamic_ncols=True, file=sys.stderr
    )
    meter = _Meter(task.recipe.batch_size)
    task.model.train()
    with bar:
        for images, targets in task.batches(progress.iteration):
            lr = learning_rate(task.recipe, progress.iteration, task.iterations)
            meter.add(_step(task, optimizer, images, targets, lr, progress.iteration))
            progress = Progress(iteration=progress.iteration + 1, best_score=progress.best_score)
            bar.update()
            bar.set_postfix_str(f"loss {meter.loss:.3f}, lr {lr:.1e}, {meter.images_per_s:.1f} images/s", refresh=False)
            last = progress.iteration == task.iterations
            if last or progress.iteration % eval_every == 0:
                bar.clear()
                _log_progress(task, progress, lr, meter)
                progress = _evaluate(task, folder, progress)
                meter.restart_clock()
            stopping = should_stop()
            if last or stopping or progress.iteration % save_every == 0:
                save_state(folder, task.model, optimizer, description, progress)
            if stopping:
                break
    if progress.iteration == task.iterations:
        task.save_weights(folder / "last.safetensors")
    return progress


def _step(
    task: Task, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, lr: float, iteration: int
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = task.loss(images, targets)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss became {value} at iteration {iteration}; a lower --lr may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(nn.utils.clip_grad_norm_(task.model.parameters(), task.recipe.clip_grad_norm))
    if not math.isfinite(norm):
        raise TrainingError(f"the gradient became {norm} at iteration {iteration}; a lower --lr may help")
    optimizer.step()
    return value


def _log_progress(task: Task, progress: Progress, lr: float, meter: "_Meter") -> None:
    """Say what the bar shows: a run whose output goes to a file has no bar."""
    left_s = (task.iterations - progress.iteration) * task.recipe.batch_size / meter.images_per_s
    logger.info(
        "iteration %d of %d: loss %.3f, lr %.1e, %.1f images/s, %s left without evaluations",
        progress.iteration, task.iterations, meter.loss, lr, meter.images_per_s, tqdm.format_interval(left_s),
    )  # fmt: skip


def _evaluate(task: Task, folder: Path, progress: Progress) -> Progress:
    task.model.eval()
    score = task.evaluate()
    task.model.train()
    if score <= progress.best_score:
        return progress
    task.save_weights(folder / "best.safetensors")
    return Progress(iteration=progress.iteration, best_score=score)


class _Meter:
    """Running loss and speed of the last steps."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._losses: list[float] = []
        self._steps = 0
        self._start_s = time.perf_counter()

    def add(self, loss: float) -> None:
        self._losses = [*self._losses[-_LOSS_WINDOW + 1 :], loss]
        self._steps += 1

    def restart_clock(self) -> None:
        self._steps = 0
        self._start_s = time.perf_counter()

    @property
    def loss(self) -> float:
        return sum(self._losses) / len(self._losses)

    @property
    def images_per_s(self) -> float:
        return self._steps * self._batch_size / max(time.perf_counter() - self._start_s, 1e-9)
