import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bsdnet.checkpoint import save_backbone
from bsdnet.modeling import BSDNet
from tests.trainer.command import ROOT, SMALL, run, train
from tests.trainer.test_datasets import zipped
from trainer.engine import LoopOptions
from trainer.main import main
from trainer.objective import SegmentationObjective
from trainer.recipes import CAMVID_360, TINY_IMAGENET
from trainer.segmentation import SegmentationTask
from trainer.trainees import CONFIGS

KILLED_WHILE_SAVING = """
import os, signal, torch
from tests.trainer.tiny import TINY
from trainer import main, trainees

saves = 0

def save(content, handle):
    global saves
    saves += 1
    if saves == 6:
        handle.write(b"torn")
        handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    original(content, handle)

original, torch.save = torch.save, save
trainees.CONFIGS["s"] = TINY
main.main()
"""
"""Run the command with the tiny network, and kill it in the middle of writing its sixth state."""


def test_a_run_leaves_weights_state_and_recipe(trained: Path):
    assert {path.name for path in trained.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "state.pt",
        "recipe.toml",
        "run.json",
    }
    recipe = json.loads((trained / "run.json").read_text())
    assert (recipe["batch_size"], recipe["crop_size"], recipe["lr"]) == (2, [64, 64], 0.001)
    assert (recipe["dataset"], recipe["train_split"], recipe["hold_out"]) == ("camvid", "train", None)
    assert recipe["command"].startswith("bsdnet-train")
    assert recipe["machine"]["torch"] == torch.__version__


def assert_same_bits(folder: Path, other: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        tensors, others = load_file(folder / name), load_file(other / name)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors), name
    states = [torch.load(path / "state.pt", weights_only=True) for path in (folder, other)]
    assert states[0]["best_score"] == states[1]["best_score"]


def test_a_killed_run_resumes_to_the_same_bits(street_camvid: Path, trained: Path, tmp_path: Path):
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--output", tmp_path, *SMALL]
    # The threads decide the order of sums: the runs that are compared need equal numbers.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, *arguments], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "state.pt.part").read_bytes() == b"torn"
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == 6
    resumed = run(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert_same_bits(trained, tmp_path)
    assert not (tmp_path / "state.pt.part").exists()


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make a run receive signals in its fifth step."""

    def install(*numbers: int) -> None:
        calls = []
        forward = SegmentationObjective.forward

        def interrupted(objective: SegmentationObjective, *arguments: torch.Tensor) -> dict[str, torch.Tensor]:
            calls.append(None)
            if len(calls) == 5:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return forward(objective, *arguments)

        monkeypatch.setattr(SegmentationObjective, "forward", interrupted)

    return install


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_says_how_to_go_on(
    street_camvid: Path, trained: Path, tmp_path: Path, interrupt: Callable[..., None], number: int, exit_code: int
):
    before = signal.getsignal(number)
    interrupt(number)
    stopped = train(street_camvid, tmp_path)
    assert stopped.exit_code == exit_code
    assert stopped.stderr.splitlines()[-1] == (
        f"bsdnet-train: stopped by {signal.Signals(number).name} after 5 of 12 iterations; "
        "the same command with --resume goes on from there"
    )
    assert signal.getsignal(number) is before
    assert train(street_camvid, tmp_path, "--resume").exit_code == 0
    assert_same_bits(trained, tmp_path)


def test_a_second_signal_stops_at_once(street_camvid: Path, tmp_path: Path, interrupt: Callable[..., None]):
    interrupt(signal.SIGTERM, signal.SIGINT)
    stopped = train(street_camvid, tmp_path)
    assert stopped.exit_code == 130
    assert "goes on with --resume" in stopped.stderr.splitlines()[-1]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == 4  # that of the evaluation before


def test_a_signal_to_the_whole_group_reaches_no_worker(street_camvid: Path, tmp_path: Path):
    """As torchrun sends it, or a terminal: the processes that read pictures must live until the run has saved."""
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--output", tmp_path / "run", *SMALL]
    arguments += ["--epochs", "10000", "--eval-every", "1000000", "--workers", "1"]
    code = "from tests.trainer.tiny import TINY; from trainer import main, trainees; "
    code += "trainees.CONFIGS['s'] = TINY; main.main()"
    started = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (tmp_path / "run" / "state.pt").exists() or saved_iteration(tmp_path / "run") < 3:
            assert started.poll() is None, started.stderr.read()
            time.sleep(0.1)
        os.killpg(started.pid, signal.SIGTERM)
        said = started.communicate(timeout=60)[1]
    finally:
        started.kill()
    assert started.returncode == 143, said
    assert "stopped by SIGTERM after" in said.splitlines()[-1]


def saved_iteration(folder: Path) -> int:
    return torch.load(folder / "state.pt", weights_only=True)["iteration"]


def test_a_run_with_another_process_for_the_pictures_gives_the_same_bits(
    street_camvid: Path, trained: Path, tmp_path: Path, interrupt: Callable[..., None]
):
    interrupt(signal.SIGINT)
    assert train(street_camvid, tmp_path, "--workers", "1").exit_code == 130
    resumed = train(street_camvid, tmp_path, "--workers", "1", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert_same_bits(trained, tmp_path)


class Stopped(Exception):
    """The training was about to begin."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[SegmentationTask, LoopOptions]]:
    """Run the command up to the training, as on a CPU that computes in bf16; give the task and how it would run."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    seen = []

    def begin(task: SegmentationTask, folder: Path, options: LoopOptions, **_: object) -> None:
        seen.append((task, options))
        raise Stopped

    monkeypatch.setattr("trainer.run.Loop", begin)

    def command(*arguments: object) -> tuple[SegmentationTask, LoopOptions]:
        with pytest.raises(Stopped):
            main([str(argument) for argument in arguments])
        return seen[-1]

    return command


def test_the_options_reach_the_run(street_camvid: Path, tmp_path: Path, begun: Callable[..., tuple]):
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--distill", "none", "--output"]
    task, options = begun(*arguments, tmp_path / "plain")
    assert task.recipe == replace(CAMVID_360, distill="none")
    assert (task._data.train.groups, task._data.val.groups, task._workers) == (["A", "B"], ["C"], 0)
    assert (options.resume, options.eval_every, options.save_every) == (False, 24, 200)  # 240 iterations
    backbone = tmp_path / "backbone.safetensors"
    save_backbone(backbone, BSDNet(CONFIGS["b"]).backbone, "bsdnet_b")
    task, options = begun(
        *arguments, tmp_path / "all", "--model", "b", "--epochs", 7, "--batch-size", 3, "--lr", 0.25, "--seed", 5,
        "--crop-size", "96x64", "--color-jitter", 0.1, "--degradation", 0.25, "--class-mix", 0.75,
        "--set", "theta=1.25", "--set", "lr=9", "--ema-decay", 0.5, "--workers", 1, "--pretrained", backbone,
        "--train-split", "trainval", "--hold-out", "A", "--eval-every", 11, "--save-every", 13,
    )  # fmt: skip
    assert task.recipe == replace(
        CAMVID_360,
        model="b",
        epochs=7,
        batch_size=3,
        lr=0.25,
        seed=5,
        crop_size=(64, 96),
        color_jitter=0.1,
        degradation=0.25,
        class_mix=0.75,
        distill="none",
        theta=1.25,
        ema_decay=0.5,
    )
    assert (task._data.train.groups, task._data.val.groups, task._workers) == (["B", "C"], ["A"], 1)
    assert (options.eval_every, options.save_every) == (11, 13)
    assert task.description["pretrained"] == backbone.name
    recipe = json.loads((tmp_path / "all" / "run.json").read_text())
    assert (recipe["train_split"], recipe["hold_out"], recipe["pretrained"]) == ("trainval", "A", backbone.name)
    task, _ = begun(*arguments, tmp_path / "trainval", "--train-split", "trainval")
    assert (task._data.train.groups, task._data.val.groups) == (["A", "B", "C"], ["C"])


def test_pretraining_learns_from_train_and_is_judged_by_val(tmp_path: Path, begun: Callable[..., tuple]):
    for name, count in (("train-0.zip", 4), ("train-1.zip", 3), ("val.zip", 2)):
        zipped(tmp_path / name, [f"{kind}/{i}.png" for kind in "ab" for i in range(count)], size=64)
    task, _ = begun("pretrain", "--data-dir", tmp_path, "--output", tmp_path / "run", "--model", "b", "--epochs", 3)
    assert (len(task._data), len(task._data._val)) == (14, 4)
    assert task.recipe == replace(TINY_IMAGENET, model="b", epochs=3)
    assert task.network.linear.in_features == CONFIGS["b"].channels[3]


def test_a_held_out_drive_is_evaluated_and_not_trained_on(street_camvid: Path, tmp_path: Path):
    result = train(street_camvid, tmp_path / "run", "--hold-out", "B", "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["iteration"] == 3  # 6 pictures, not 12


def test_pretraining_from_archives(tmp_path: Path):
    for name in ("train-0.zip", "train-1.zip", "val.zip"):
        zipped(tmp_path / name, [f"{kind}/{i}.png" for kind in "ab" for i in range(4)], size=64)
    result = run("pretrain", "--data-dir", tmp_path, "--output", tmp_path / "run", "--epochs", 1, "--batch-size", 8)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "last.safetensors").is_file()
