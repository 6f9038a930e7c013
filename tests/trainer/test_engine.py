import errno
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bsdnet.errors import TrainingError
from trainer.device import send
from trainer.engine import Loop, LoopOptions
from trainer.monitor import RunMonitor
from trainer.recipes import OptimizerRecipe
from trainer.recipes.base import Precision
from trainer.schedule import build_optimizer
from trainer.state import Progress, save_state

RECIPE = OptimizerRecipe(epochs=1, batch_size=4, lr=0.1, warmup_iterations=2)


class LineObjective(nn.Module):
    """The mean square of what a line misses, in two parts that add up to `loss`; it counts steps as batch norm does."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.network = nn.Linear(3, 1)
        self.network.register_buffer("steps", torch.zeros(1))
        self.scale = scale

    def forward(self, images: Tensor, targets: Tensor, counts: Tensor) -> dict[str, Tensor]:
        assert self.training
        self.network.steps += 1
        square = (self.network(images) - targets).square().sum() / counts[0].float() * self.scale
        return {"loss": square * 3, "square": square}


def state_of(network: nn.Module) -> Tensor:
    """Weights and buffer."""
    return torch.cat([network.weight.detach().flatten(), network.steps])


@dataclass
class Line:
    """Fit a line: a task whose every step takes microseconds. It writes down what the engine asks of it."""

    scores: list[float] = field(default_factory=lambda: [0.5])
    recipe: OptimizerRecipe = RECIPE
    iterations: int = 10
    scale: float = 1.0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.objective = LineObjective(self.scale)
        self.network = self.objective.network
        self.description: dict[str, object] = {"lr": self.recipe.lr}
        self.seen: list[tuple[str, int]] = []
        self.judged: list[Tensor] = []
        self.steps = 0

    def optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.objective, self.recipe)

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, self.iterations):
            self.steps = step + 1
            images = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            yield images, images.sum(1, keepdim=True)

    def count(self, targets: Tensor) -> Tensor:
        return torch.tensor([float(len(targets))], dtype=torch.float64)

    def evaluate(self, network: nn.Module, monitor: RunMonitor) -> float:
        assert not network.training
        self.seen.append(("evaluate", self.steps))
        self.judged.append(state_of(network))
        return self.scores.pop(0) if len(self.scores) > 1 else self.scores[0]

    def save_weights(self, network: nn.Module, path: Path) -> None:
        self.seen.append((path.name, self.steps))


def run(task: Line, folder: Path, *, should_stop: Callable[[], bool] = lambda: False, **options: object) -> Progress:
    folder.mkdir(exist_ok=True)
    return Loop(
        task, folder, LoopOptions(**{"eval_every": 4, "save_every": 100} | options), should_stop=should_stop
    ).run()


def test_evaluations_at_their_steps_and_at_the_end_keep_the_best(tmp_path: Path):
    task = Line(scores=[0.2, 0.2, 0.7, 0.1], iterations=15)
    progress = run(task, tmp_path)
    best, last = "best.safetensors", "last.safetensors"
    assert task.seen == [
        ("evaluate", 4), (best, 4), ("evaluate", 8), ("evaluate", 12), (best, 12), ("evaluate", 15), (last, 15),
    ]  # fmt: skip
    assert progress == Progress(iteration=15, best_score=0.7, evaluated_at=15)
    assert task.network.training


def test_even_a_score_of_zero_leaves_weights(tmp_path: Path):
    task = Line(scores=[0.0])
    run(task, tmp_path)
    assert ("best.safetensors", 4) in task.seen


def test_it_learns(tmp_path: Path):
    task = Line(iterations=200)
    run(task, tmp_path)
    torch.testing.assert_close(task.network.weight, torch.ones(1, 3), rtol=0, atol=0.05)


def gradients(task: Line) -> list[Tensor]:
    """The gradients of the first step."""
    images, targets = next(task.batches(0))
    loss = task.objective(images, targets, task.count(targets))["loss"]
    return list(torch.autograd.grad(loss, list(task.network.parameters())))


def test_the_first_step_by_hand(tmp_path: Path):
    """AdamW's first step moves each weight by the rate, against the gradient's sign; decay shrinks kernels before."""
    task = Line(recipe=replace(RECIPE, warmup_iterations=4, weight_decay=0.5))
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    weight, bias = gradients(task)
    run(task, tmp_path, should_stop=lambda: True)
    rate = 0.1 / 4  # the first of four steps of warm-up
    expected = before["weight"] * (1 - rate * 0.5) - rate * weight.sign()
    torch.testing.assert_close(task.network.weight, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(task.network.bias, before["bias"] - rate * bias.sign(), rtol=0, atol=1e-6)


def test_parts_of_a_step_add_up_to_the_whole(tmp_path: Path):
    whole, parts = Line(), Line(recipe=replace(RECIPE, accumulation=2))
    run(whole, tmp_path / "whole")
    run(parts, tmp_path / "parts")
    torch.testing.assert_close(parts.network.weight, whole.network.weight, rtol=0, atol=1e-5)
    with pytest.raises(TrainingError, match="batch_size 4 is no multiple of 1 processes times accumulation 3"):
        run(Line(recipe=replace(RECIPE, accumulation=3)), tmp_path)
    with pytest.raises(TrainingError, match="fewer than 2 pictures"):
        run(Line(recipe=replace(RECIPE, accumulation=4)), tmp_path)


def test_a_moving_average_is_judged_and_kept(tmp_path: Path):
    plain, averaged = Line(), Line(recipe=replace(RECIPE, ema_decay=0.75))
    states = []
    run(plain, tmp_path / "plain", should_stop=lambda: bool(states.append(state_of(plain.network))))
    run(averaged, tmp_path / "averaged")
    expected, at = states[0], {}
    for step, state in enumerate(states[1:], 2):
        expected = 0.75 * expected + 0.25 * state
        at[step] = expected
    for judged, step in zip(averaged.judged, (4, 8, 10), strict=True):
        torch.testing.assert_close(judged, at[step], rtol=0, atol=1e-6)
    assert torch.equal(averaged.network.weight, plain.network.weight)


def test_a_moving_average_resumes(tmp_path: Path):
    recipe = replace(RECIPE, ema_decay=0.75)
    task, whole, resumed = Line(recipe=recipe), Line(recipe=recipe), Line(recipe=recipe)
    run(task, tmp_path, should_stop=lambda: task.steps == 7)
    run(resumed, tmp_path, resume=True)
    run(whole, tmp_path / "whole")
    assert torch.equal(resumed.judged[-1], whole.judged[-1])


class Killed(BaseException):
    """Nothing catches it, as nothing catches a signal that kills."""


@pytest.mark.parametrize("step", [4, 10])
@pytest.mark.parametrize("when", ["evaluate", "save_weights"])
def test_an_evaluation_that_was_killed_is_made_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, when: str
):
    task, whole, resumed = (Line(scores=[0.2, 0.6, 0.9]) for _ in range(3))
    run(whole, tmp_path / "whole")

    def kill(*_: object) -> float:
        if task.steps == step:
            raise Killed
        return 0.2

    monkeypatch.setattr(task, when, kill)
    with pytest.raises(Killed):
        run(task, tmp_path / "run")
    resumed.scores = resumed.scores[{4: 0, 10: 2}[step] :]
    progress = run(resumed, tmp_path / "run", resume=True)
    assert torch.equal(resumed.judged[0], whole.judged[{4: 0, 10: 2}[step]])
    assert torch.equal(resumed.judged[-1], whole.judged[-1])
    assert progress.best_score == 0.9
    assert ("best.safetensors", resumed.steps) in resumed.seen


def test_what_was_evaluated_is_not_evaluated_again(tmp_path: Path):
    task, resumed = Line(), Line()
    run(task, tmp_path, should_stop=lambda: task.steps == 4)
    run(resumed, tmp_path, resume=True)
    assert [step for what, step in resumed.seen if what == "evaluate"] == [8, 10]


def test_fp16_scales_its_gradients_and_leaves_out_a_step_that_overflows(tmp_path: Path):
    """The first scale of 65536 overflows this loss: the weights must not take that step, and the run goes on."""
    task = Line(recipe=replace(RECIPE, precision="fp16"), scale=1e33, iterations=40)
    before, after = task.network.weight.detach().clone(), []
    run(task, tmp_path, should_stop=lambda: bool(after.append(task.network.weight.detach().clone())))
    assert torch.equal(after[0], before)
    assert after[-1].isfinite().all()
    assert not torch.equal(after[-1], before)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_gradients_are_clipped_and_do_not_add_up(tmp_path: Path, scale: float, precision: Precision):
    task = Line(scale=scale, recipe=replace(RECIPE, precision=precision))
    norms, expected, plain = [], [], task.objective.forward

    def norm_of(tensors: list[Tensor]) -> float:
        return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()

    def watched(images: Tensor, targets: Tensor, counts: Tensor) -> dict[str, Tensor]:
        alone = torch.autograd.grad(plain(images, targets, counts)["loss"], list(task.network.parameters()))
        expected.append(min(norm_of(list(alone)), 5.0))
        return plain(images, targets, counts)

    task.objective.forward = watched
    run(task, tmp_path, should_stop=lambda: bool(norms.append(norm_of([p.grad for p in task.network.parameters()]))))
    assert norms == pytest.approx(expected, rel=1e-4)
    assert len(norms) == 10


@pytest.mark.parametrize(("scale", "what"), [(math.nan, "loss became nan"), (5e37, "gradient became inf")])
def test_what_is_not_finite_ends_the_run_and_keeps_its_batch(tmp_path: Path, scale: float, what: str):
    task = Line(scale=scale)
    with pytest.raises(TrainingError, match=rf"{what} at iteration 0; its batch is kept in .*; a lower --lr"):
        run(task, tmp_path, save_every=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not-finite.pt", "state.pt"]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == 0  # none after the bad step
    kept = torch.load(tmp_path / "not-finite.pt", weights_only=True)
    images, targets = next(task.batches(0))
    assert torch.equal(kept["images"], images)
    assert torch.equal(kept["targets"], targets)
    assert (kept["iteration"], set(kept["losses"])) == (0, {"loss", "square"})


def test_a_batch_that_cannot_be_kept_does_not_hide_the_reason(tmp_path: Path):
    (tmp_path / "not-finite.pt").mkdir()
    with pytest.raises(TrainingError, match="loss became nan at iteration 0; its batch could not be kept"):
        run(Line(scale=math.nan), tmp_path)


def test_a_stop_saves_the_step_that_was_running(tmp_path: Path):
    task = Line()
    assert run(task, tmp_path, should_stop=lambda: task.steps == 7).iteration == 7
    assert [name for name, _ in task.seen] == ["evaluate", "best.safetensors"]  # no last.safetensors
    resumed, whole = Line(), Line()
    progress = run(resumed, tmp_path, resume=True)
    run(whole, tmp_path / "whole")
    assert progress == Progress(iteration=10, best_score=0.5, evaluated_at=10)
    assert torch.equal(resumed.network.weight, whole.network.weight)
    assert [step for name, step in resumed.seen if name == "evaluate"] == [8, 10]


def test_states_are_saved_at_their_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = []
    monkeypatch.setattr("trainer.engine.save_state", lambda *arguments: saved.append(arguments[-1].iteration))
    run(Line(), tmp_path, save_every=3)
    assert saved == [0, 3, 4, 4, 6, 8, 8, 9, 10, 10]  # twice around an evaluation


def test_chance_in_the_network_depends_on_the_step_alone(tmp_path: Path):
    def drawn(task: Line, folder: Path, **options: object) -> list[float]:
        values, plain = [], task.objective.forward

        def watched(*arguments: Tensor) -> dict[str, Tensor]:
            values.append(torch.rand(1).item())
            return plain(*arguments)

        task.objective.forward = watched
        run(task, folder, **options)
        return values

    whole, first = Line(), Line()
    expected = drawn(whole, tmp_path / "whole")
    drawn(first, tmp_path, should_stop=lambda: first.steps == 6)
    torch.manual_seed(99)
    assert drawn(Line(), tmp_path, resume=True) == expected[6:]
    assert len(set(expected)) == 10
    assert drawn(Line(recipe=replace(RECIPE, seed=1)), tmp_path / "other") != expected


def test_a_state_of_something_else_is_refused(tmp_path: Path):
    task = Line()
    run(task, tmp_path, should_stop=lambda: True)
    task.description = {"lr": 0.2}
    with pytest.raises(TrainingError, match=r"made with lr = 0\.1, this run has 0\.2"):
        run(task, tmp_path, resume=True)
    task = Line()
    task.objective.network = nn.Linear(2, 1)
    with pytest.raises(TrainingError, match="state of another run"):
        run(task, tmp_path, resume=True)
    torch.save({"iteration": 3}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="state of another run"):
        run(Line(), tmp_path, resume=True)


class Intruder:
    """What a foreign file could hold: reading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_foreign_state_runs_no_code(tmp_path: Path):
    torch.save({"description": Intruder(tmp_path / "made")}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        run(Line(), tmp_path, resume=True)
    assert not (tmp_path / "made").exists()


def test_a_full_disk_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = Line()
    run(task, tmp_path, should_stop=lambda: task.steps == 3)
    old = (tmp_path / "state.pt").read_bytes()

    def fill(content: object, handle: io.BufferedWriter) -> None:
        handle.write(b"the first half")
        raise RuntimeError("PytorchStreamWriter failed writing file\nframe #0")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(TrainingError, match=r"state cannot be written to .*: PytorchStreamWriter failed writing file$"):
        run(Line(), tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == old


def test_a_state_is_on_the_disk_before_it_takes_the_old_ones_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    in_place: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: in_place.append((tmp_path / "state.pt").exists()))
    save_state(tmp_path, {}, {}, Progress())
    assert in_place == [False]


def test_a_full_disk_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """PyTorch's words about a file that it cannot end hide the system's."""

    def fill(content: object, handle: io.BufferedWriter) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 20145920 vs 20145808")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(TrainingError, match=r"state cannot be written to .*: No space left on device$"):
        run(Line(), tmp_path)


class SlowObjective(LineObjective):
    """Each step keeps the GPU busy for some 50 ms."""

    def forward(self, images: Tensor, targets: Tensor, counts: Tensor) -> dict[str, Tensor]:
        torch.cuda._sleep(100_000_000)
        return super().forward(images, targets, counts)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_has_work_while_the_numbers_of_a_step_are_read(tmp_path: Path):
    device = torch.device("cuda", 0)
    idle: list[bool] = []

    class OnGpu(Line):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.objective = SlowObjective().to(device)
            self.network = self.objective.network

        def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
            for images, targets in super().batches(start):
                idle.append(torch.cuda.current_stream(device).query())
                yield send(images, device), send(targets, device)

        def count(self, targets: Tensor) -> Tensor:
            return torch.full((1,), float(len(targets)), dtype=torch.float64, device=device)

    run(OnGpu(), tmp_path, eval_every=1000, save_every=1000)
    # The first step waits for nothing yet, and after some steps libraries have all that they set up at their first use.
    assert not any(idle[3:]), idle
