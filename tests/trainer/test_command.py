import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.test_datasets import zipped
from trainer.main import main

SMALL = ["--distill", "none", "--batch-size", "2", "--crop-size", "64x64", "--epochs", "2", "--save-every", "3"]


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


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(street_camvid: Path, trained: Path, tmp_path: Path):
    command = [sys.executable, "-m", "trainer.main", "--dataset", "camvid", "--data-dir", street_camvid]
    command += ["--output", tmp_path / "run", *SMALL]
    # The threads decide the order of sums: the runs that are compared need equal numbers.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "run" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert torch.load(state, weights_only=True)["iteration"] < 12
    resumed = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    expected, got = (load_file(folder / "last.safetensors") for folder in (trained, tmp_path / "run"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert load_file(tmp_path / "run" / "best.safetensors").keys() == expected.keys()


def test_evaluation_as_a_table_and_as_json(street_camvid: Path, trained: Path):
    weights = trained / "last.safetensors"
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--eval", "test", "--weights", weights]
    table, report = run(*arguments), json.loads(run(*arguments, "--json").output)
    assert table.output.splitlines()[0].split() == ["mIoU", f"{100 * report['miou']:.1f}"]
    assert (report["split"], report["images"], len(report["iou"])) == ("test", 3, 11)
    assert 0 < report["miou"] < 1
    assert report["miou_by_drive"] == {"D": report["miou"]}  # the one drive of the test pictures
    assert table.output.splitlines()[-1].split() == ["mIoU", "of", "drive", "D", f"{100 * report['miou']:.1f}"]


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--dataset is missing"),
        (["--dataset", "camvid"], "--data-dir is missing"),
        (["--dataset", "camvid", "--data-dir", "x"], "--distill none"),
        (["--dataset", "camvid", "--data-dir", "x", "--distill", "none"], "--output is missing"),
        (["--dataset", "camvid", "--data-dir", "x", "--eval", "val"], "--eval needs --weights"),
        (["--crop-size", "64"], "WIDTHxHEIGHT"),
        (["pretrain"], "--data-dir is missing"),
    ],
)
def test_usage_errors_say_what_is_missing(arguments: list[str], words: str):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_loss_that_is_not_finite_ends_the_run(street_camvid: Path, tmp_path: Path):
    assert_one_line(train(street_camvid, tmp_path / "run", "--lr", "1e30"), "the loss became", "lower --lr")
