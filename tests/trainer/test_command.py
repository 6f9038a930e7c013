import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import torch
from safetensors.torch import load_file

from bsdnet.checkpoint import CheckpointMetadata, load_checkpoint, save_backbone, save_checkpoint
from bsdnet.classes import CITYSCAPES_19
from bsdnet.errors import DatasetError
from bsdnet.modeling import BSDNet
from tests.trainer.test_datasets import zipped
from tests.trainer.tiny import TINY
from trainer.main import cli, main
from trainer.recipes import CAMVID, TINY_IMAGENET
from trainer.segmentation import CONFIGS, SegmentationTask

ROOT = Path(__file__).parents[2]
SMALL = ["--distill", "none", "--batch-size", "2", "--crop-size", "64x64", "--epochs", "2", "--save-every", "3"]
SMALL += ["--eval-every", "4"]

KILLED_WHILE_SAVING = """
import os, signal, torch
from tests.trainer.tiny import TINY
from trainer import main, segmentation

saves = 0

def save(content, handle):
    global saves
    saves += 1
    if saves == 3:
        handle.write(b"torn")
        handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    original(content, handle)

original, torch.save = torch.save, save
segmentation.CONFIGS["s"] = TINY
main.main()
"""
"""Run the command with the tiny network, and kill it in the middle of writing its third state."""


class Result(NamedTuple):
    exit_code: int
    output: str
    stderr: str


def run(*arguments: object) -> Result:
    """Run the command as a shell would."""
    with (
        redirect_stdout(io.StringIO()) as output,
        redirect_stderr(io.StringIO()) as errors,
        pytest.raises(SystemExit) as exit_,
    ):
        main([str(argument) for argument in arguments])
    return Result(exit_.value.code, output.getvalue(), errors.getvalue())


def train(data: Path, output: Path, *more: str) -> Result:
    return run("--dataset", "camvid", "--data-dir", data, "--output", output, *SMALL, *more)


@pytest.fixture(scope="module")
def trained(street_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = train(street_camvid, folder)
    assert result.exit_code == 0, result.stderr
    return folder


def test_a_run_leaves_weights_state_and_recipe(trained: Path):
    assert {path.name for path in trained.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "state.pt",
        "recipe.json",
    }
    recipe = json.loads((trained / "recipe.json").read_text())
    assert (recipe["batch_size"], recipe["crop_size"], recipe["lr"]) == (2, [64, 64], 0.001)
    assert (recipe["dataset"], recipe["train_split"], recipe["hold_out"]) == ("camvid", "train", None)


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
        loss = SegmentationTask.loss

        def interrupted(task: SegmentationTask, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            calls.append(None)
            if len(calls) == 5:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return loss(task, images, targets)

        monkeypatch.setattr(SegmentationTask, "loss", interrupted)

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
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == 3


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
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[SegmentationTask, dict[str, object]]]:
    """Run the command up to the training; give the task and how it would be trained."""
    seen = []

    def begin(task: SegmentationTask, folder: Path, **options: object) -> None:
        seen.append((task, options))
        raise Stopped

    monkeypatch.setattr("trainer.main.train", begin)

    def command(*arguments: object) -> tuple[SegmentationTask, dict[str, object]]:
        with pytest.raises(Stopped):
            main([str(argument) for argument in arguments])
        return seen[-1]

    return command


def test_the_options_reach_the_run(street_camvid: Path, tmp_path: Path, begun: Callable[..., tuple]):
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--distill", "none", "--output"]
    task, options = begun(*arguments, tmp_path / "plain")
    assert task.recipe == CAMVID
    assert (task._train.drives, task._val.drives, task._workers) == (["A", "B"], ["C"], 0)
    assert (options["resume"], options["eval_every"], options["save_every"]) == (False, 18, 200)  # 180 iterations
    backbone = tmp_path / "backbone.safetensors"
    save_backbone(backbone, BSDNet(CONFIGS["b"]).backbone, "bsdnet_b")
    task, options = begun(
        *arguments, tmp_path / "all", "--model", "b", "--epochs", 7, "--batch-size", 3, "--lr", 0.25, "--seed", 5,
        "--crop-size", "96x64", "--color-jitter", 0.1, "--workers", 1, "--pretrained", backbone,
        "--train-split", "trainval", "--hold-out", "C", "--eval-every", 11, "--save-every", 13,
    )  # fmt: skip
    assert task.recipe == replace(
        CAMVID, model="b", epochs=7, batch_size=3, lr=0.25, seed=5, crop_size=(64, 96), color_jitter=0.1
    )
    assert (task._train.drives, task._val.drives, task._workers) == (["A", "B"], ["C"], 1)
    assert (options["eval_every"], options["save_every"]) == (11, 13)
    assert task.description["pretrained"] == backbone.name
    recipe = json.loads((tmp_path / "all" / "recipe.json").read_text())
    assert (recipe["train_split"], recipe["hold_out"], recipe["pretrained"]) == ("trainval", "C", backbone.name)


def test_pretraining_learns_from_train_and_is_judged_by_val(tmp_path: Path, begun: Callable[..., tuple]):
    for name, count in (("train-0.zip", 4), ("train-1.zip", 3), ("val.zip", 2)):
        zipped(tmp_path / name, [f"{kind}/{i}.png" for kind in "ab" for i in range(count)], size=64)
    task, _ = begun("pretrain", "--data-dir", tmp_path, "--output", tmp_path / "run", "--model", "b", "--epochs", 3)
    assert (len(task._train), len(task._val)) == (14, 4)
    assert task.recipe == replace(TINY_IMAGENET, model="b", epochs=3)
    assert task.model.linear.in_features == CONFIGS["b"].channels[3]


def test_evaluation_as_a_table_and_as_json(street_camvid: Path, trained: Path):
    weights = trained / "last.safetensors"
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--eval", "test", "--weights", weights]
    table, report = run(*arguments), json.loads(run(*arguments, "--json").output, parse_constant=pytest.fail)
    assert table.output.splitlines()[0].split() == ["mIoU", f"{100 * report['miou']:.1f}"]
    assert (report["split"], report["images"], len(report["iou"])) == ("test", 3, 11)
    assert 0 < report["miou"] < 1
    assert report["miou_by_drive"] == {"D": report["miou"]}  # the one drive of the test pictures
    assert table.output.splitlines()[-1].split() == ["mIoU", "of", "drive", "D", f"{100 * report['miou']:.1f}"]


def test_weights_are_evaluated_with_their_own_normalisation(street_camvid: Path, trained: Path, tmp_path: Path):
    checkpoint, scores = load_checkpoint(trained / "last.safetensors"), []
    for values in ({}, {"mean": (0.9, 0.9, 0.9)}, {"std": (0.02, 0.02, 0.02)}):
        path = tmp_path / "weights.safetensors"
        save_checkpoint(path, checkpoint.model, replace(checkpoint.metadata, **values))
        result = run("--dataset", "camvid", "--data-dir", street_camvid, "--eval", "val", "--weights", path, "--json")
        scores.append(json.loads(result.output)["pixel_accuracy"])
    assert len(set(scores)) == 3


def test_debug_shows_the_traceback(tmp_path: Path):
    with pytest.raises(DatasetError, match="train is missing"):
        main(["--dataset", "camvid", "--data-dir", str(tmp_path), *SMALL, "--output", str(tmp_path), "--debug"])


def test_weights_with_other_classes_are_refused(street_camvid: Path, tmp_path: Path):
    path = tmp_path / "city.safetensors"
    metadata = CheckpointMetadata(architecture="bsdnet_s", class_set=CITYSCAPES_19, train_size=(512, 1024))
    save_checkpoint(path, BSDNet(replace(TINY, num_classes=19)), metadata)
    result = run("--dataset", "camvid", "--data-dir", street_camvid, "--eval", "test", "--weights", path)
    assert_one_line(result, "19 classes of cityscapes-19", "11 of camvid-11", "pass --weights")


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


def assert_one_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("bsdnet-train: error: ")
    assert all(word in lines[-1] for word in words), lines[-1]
    assert "Traceback" not in result.stderr


def test_errors_are_one_line(street_camvid: Path, trained: Path, tmp_path: Path):
    assert_one_line(train(tmp_path / "none", tmp_path / "run"), "none/train is missing")
    assert_one_line(train(street_camvid, trained), "holds a run already", "--resume")
    assert_one_line(train(street_camvid, tmp_path / "new", "--resume"), "nothing to resume")
    assert_one_line(train(street_camvid, trained, "--resume", "--lr", "0.1"), "lr = 0.001", "0.1")
    assert_one_line(train(street_camvid, trained, "--resume", "--hold-out", "A"), "hold_out = None", "'A'")
    assert_one_line(train(street_camvid, tmp_path / "run", "--lr", "-1"), "lr must be greater than 0")
    assert_one_line(train(street_camvid, tmp_path / "run", "--hold-out", "X"), "no drive X")
    assert_one_line(train(street_camvid, tmp_path / "run", "--device", "gpu"), "device must be auto")
    evaluation = ["--dataset", "camvid", "--data-dir", street_camvid, "--eval", "val", "--weights"]
    assert_one_line(run(*evaluation, tmp_path / "none.safetensors"), "does not exist")
    (trained / "state.pt").rename(tmp_path / "kept.pt")
    (trained / "state.pt").write_bytes(b"rubbish")
    assert_one_line(train(street_camvid, trained, "--resume"), "cannot be resumed from")
    (tmp_path / "kept.pt").replace(trained / "state.pt")


def test_what_cannot_be_written_is_one_line(street_camvid: Path, tmp_path: Path):
    for name, words in (
        ("state.pt.part", "the run's state cannot be written to"),
        ("best.safetensors", "weights cannot be written to"),
        ("recipe.json", "recipe.json cannot be written: Is a directory"),
    ):
        (tmp_path / name / name).mkdir(parents=True)
        assert_one_line(train(street_camvid, tmp_path / name, "--epochs", "1"), words)
    (tmp_path / "file").touch()
    assert_one_line(train(street_camvid, tmp_path / "file" / "run"), "file/run cannot be made: Not a directory")
    result = train(street_camvid, tmp_path / "file")
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_a_full_disk_is_one_line(street_camvid: Path, tmp_path: Path):
    (tmp_path / "state.pt.part").symlink_to("/dev/full")
    assert_one_line(train(street_camvid, tmp_path, "--epochs", "1"), "cannot be written to", "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--dataset is missing"),
        (["--dataset", "camvid"], "--data-dir is missing"),
        (["--dataset", "camvid", "--data-dir", "x"], "--distill none"),
        (["--dataset", "camvid", "--data-dir", "x", "--distill", "none"], "--output is missing"),
        (["--dataset", "camvid", "--data-dir", "x", "--eval", "val"], "--weights is missing"),
        (["--dataset", "camvid", "--data-dir", "x", "--weights", "w"], "--weights and --json belong to --eval"),
        (["--crop-size", "64"], "WIDTHxHEIGHT"),
        (["pretrain"], "--data-dir is missing"),
        (["--model", "b", "pretrain"], "--model must follow the word 'pretrain'"),
    ],
)
def test_usage_errors_say_what_is_missing(arguments: list[str], words: str):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_loss_that_is_not_finite_ends_the_run(street_camvid: Path, tmp_path: Path):
    assert_one_line(train(street_camvid, tmp_path / "run", "--lr", "1e30"), "the loss became", "lower --lr")


@pytest.mark.parametrize("arguments", [["--help"], ["pretrain", "--help"]])
def test_the_help_shows_examples_line_by_line_and_explains_each_option(arguments: list[str]):
    result = run(*arguments)
    assert result.exit_code == 0
    assert "\\b" not in result.output
    examples = [line.strip() for line in result.output.splitlines() if line.strip().startswith("bsdnet-train ")]
    assert examples
    for example in examples:
        assert run(*example.split()[1:]).exit_code == 1  # no usage error: only the data are missing
    command = cli.commands["pretrain"] if "pretrain" in arguments else cli
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_the_readme_explains_the_options_that_there_are():
    table = (ROOT / "README.md").read_text().partition("| option of `bsdnet-train` |")[2].partition("\n\n")[0]
    explained = [name for row in table.splitlines()[2:] for name in re.findall(r"`(--[a-z-]+)`", row.split("|")[1])]
    options = {parameter.opts[0] for command in (cli, *cli.commands.values()) for parameter in command.params}
    assert sorted(explained) == sorted(options | {"--help"})
