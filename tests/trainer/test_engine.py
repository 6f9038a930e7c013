import io
import logging
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bsdnet.errors import TrainingError
from trainer.engine import train
from trainer.recipes import OptimizerRecipe
from trainer.schedule import build_optimizer
from trainer.state import Progress, load_state


@dataclass
class Line:
    """Fit a line: a task whose every step takes microseconds. It writes down what the engine asks of it."""

    scores: list[float] = field(default_factory=lambda: [0.5])
    recipe: OptimizerRecipe = field(
        default_factory=lambda: OptimizerRecipe(epochs=1, batch_size=4, lr=0.1, warmup_iterations=2)
    )
    iterations: int = 10
    scale: float = 1.0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.description: dict[str, object] = {"lr": self.recipe.lr}
        self.seen: list[tuple[str, int]] = []
        self.steps = 0

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, self.iterations):
            self.steps = step + 1
            images = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            yield images, images.sum(1, keepdim=True)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        assert self.model.training
        return (self.model(images) - targets).square().mean() * self.scale

    def evaluate(self) -> float:
        assert not self.model.training
        self.seen.append(("evaluate", self.steps))
        return self.scores.pop(0) if len(self.scores) > 1 else self.scores[0]

    def save_weights(self, path: Path) -> None:
        self.seen.append((path.name, self.steps))


def run(task: Line, folder: Path, **options: object) -> Progress:
    folder.mkdir(exist_ok=True)
    return train(task, folder, **{"resume": False, "eval_every": 4, "save_every": 100} | options)


def test_evaluations_at_their_steps_and_at_the_end_keep_the_best(tmp_path: Path):
    task = Line(scores=[0.2, 0.2, 0.7, 0.1], iterations=15)
    progress = run(task, tmp_path)
    best, last = "best.safetensors", "last.safetensors"
    assert task.seen == [
        ("evaluate", 4), (best, 4), ("evaluate", 8), ("evaluate", 12), (best, 12), ("evaluate", 15), (last, 15),
    ]  # fmt: skip
    assert progress == Progress(iteration=15, best_score=0.7)
    assert task.model.training


def test_even_a_score_of_zero_leaves_weights(tmp_path: Path):
    task = Line(scores=[0.0])
    run(task, tmp_path)
    assert ("best.safetensors", 4) in task.seen


def test_it_learns(tmp_path: Path):
    task = Line(iterations=200)
    run(task, tmp_path)
    torch.testing.assert_close(task.model.weight, torch.ones(1, 3), rtol=0, atol=0.05)


def test_the_first_step_by_hand(tmp_path: Path):
    """AdamW's first step moves each weight by the rate, against the gradient's sign; decay shrinks kernels before."""
    recipe = OptimizerRecipe(epochs=1, batch_size=4, lr=0.1, warmup_iterations=4, weight_decay=0.5)
    task = Line(recipe=recipe)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    images, targets = next(task.batches(0))
    gradients = torch.autograd.grad(task.loss(images, targets), list(task.model.parameters()))
    run(task, tmp_path, should_stop=lambda: True)
    rate = 0.1 / 4  # the first of four steps of warm-up
    weight = before["weight"] * (1 - rate * 0.5) - rate * gradients[0].sign()
    torch.testing.assert_close(task.model.weight, weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(task.model.bias, before["bias"] - rate * gradients[1].sign(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_gradients_are_clipped_and_do_not_add_up(tmp_path: Path, scale: float):
    task = Line(scale=scale)
    norms = []

    def stop() -> bool:
        """After each step, compare what the optimizer was given with the gradient of this step alone."""
        norms.append(torch.cat([parameter.grad.flatten() for parameter in task.model.parameters()]).norm().item())
        return False

    expected = []
    loss = task.loss

    def watched(images: Tensor, targets: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss(images, targets), list(task.model.parameters()))
        expected.append(min(torch.cat([gradient.flatten() for gradient in gradients]).norm().item(), 5.0))
        return loss(images, targets)

    task.loss = watched
    run(task, tmp_path, should_stop=stop)
    assert norms == pytest.approx(expected, rel=1e-4)
    assert len(norms) == 10


@pytest.mark.parametrize(("scale", "what"), [(math.nan, "loss became nan"), (1e38, "gradient became inf")])
def test_what_is_not_finite_ends_the_run_before_the_weights_take_it(tmp_path: Path, scale: float, what: str):
    task = Line(scale=scale)
    with pytest.raises(TrainingError, match=rf"{what} at iteration 0; a lower --lr"):
        run(task, tmp_path)
    assert all(parameter.isfinite().all() for parameter in task.model.parameters())


def test_a_stop_saves_the_step_that_was_running(tmp_path: Path):
    task = Line()
    assert run(task, tmp_path, should_stop=lambda: task.steps == 7).iteration == 7
    assert [name for name, _ in task.seen] == ["evaluate", "best.safetensors"]  # no last.safetensors
    resumed, whole = Line(), Line()
    progress = run(resumed, tmp_path, resume=True)
    run(whole, tmp_path / "whole")
    assert progress == Progress(iteration=10, best_score=0.5)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert [step for name, step in resumed.seen if name == "evaluate"] == [8, 10]


def test_states_are_saved_at_their_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = []
    monkeypatch.setattr("trainer.engine.save_state", lambda *arguments: saved.append(arguments[-1].iteration))
    run(Line(), tmp_path, save_every=3)
    assert saved == [3, 6, 9, 10]


def test_the_state_holds_chance_and_the_best_score(tmp_path: Path):
    task = Line()
    run(task, tmp_path, should_stop=lambda: task.steps == 5)
    expected = torch.rand(3)
    other = Line()
    torch.manual_seed(99)
    progress = load_state(tmp_path, other.model, build_optimizer(other.model, other.recipe), other.description)
    assert progress == Progress(iteration=5, best_score=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_a_state_of_something_else_is_refused(tmp_path: Path):
    task = Line()
    run(task, tmp_path, should_stop=lambda: True)
    task.description = {"lr": 0.2}
    with pytest.raises(TrainingError, match=r"made with lr = 0\.1, this run has 0\.2"):
        run(task, tmp_path, resume=True)
    task = Line()
    task.model = nn.Linear(2, 1)
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_loss_rate_speed_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)  # no thread that outlives the test
    task = Line()
    run(task, tmp_path, should_stop=lambda: task.steps == 6)
    run(Line(), tmp_path, resume=True)
    bars = [line.split("\r")[-1] for line in sys.stderr.getvalue().split("\n")[:-1]]
    for bar, steps in zip(bars, ("6/10", "10/10"), strict=True):
        shown = rf"{steps} \[\d\d:\d\d<\d\d:\d\d, .*it/s, loss \d\.\d{{3}}, lr \d\.\de-02, [\d.]+ images/s\]"
        assert re.search(shown, bar), bar


def test_speed_and_time_left_count_steps_and_not_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    clock = [0.0]

    class Slow(Line):
        """A second a step, a hundred an evaluation; the loss is the number of the step."""

        def loss(self, images: Tensor, targets: Tensor) -> Tensor:
            clock[0] += 1
            return self.model(images).sum() * 0 + self.steps

        def evaluate(self) -> float:
            clock[0] += 100
            return 0.5

    monkeypatch.setattr("trainer.engine.time.perf_counter", lambda: clock[0])
    with caplog.at_level(logging.INFO):
        run(Slow(iterations=100), tmp_path, eval_every=40)
    told = [re.findall(r"loss ([\d.]+)|([\d.]+) images/s|(\S+) left", line) for line in caplog.messages]
    assert [[max(groups) for groups in line] for line in told] == [
        ["20.500", "4.0", "01:00"],
        ["55.500", "4.0", "00:20"],  # the mean of the last 50 steps
        ["75.500", "4.0", "00:00"],
    ]


def test_without_a_terminal_each_evaluation_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        run(Line(), tmp_path)
    assert sys.stderr.getvalue() == ""
    assert [line.partition(":")[0] for line in caplog.messages] == [f"iteration {i} of 10" for i in (4, 8, 10)]
    assert re.search(r": loss \d\.\d{3}, lr \d\.\de-\d\d, [\d.]+ images/s, \d\d:\d\d left", caplog.messages[0])
