"""Running bsdnet-train within the tests."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from trainer.main import main

ROOT = Path(__file__).parents[2]
SMALL = ["--distill", "none", "--batch-size", "2", "--crop-size", "64x64", "--epochs", "2", "--save-every", "3"]
SMALL += ["--eval-every", "4", "--set", "train_size=128x96"]


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


def assert_one_line(result: Result, *words: str, exit_code: int = 1) -> None:
    assert result.exit_code == exit_code
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("bsdnet-train: error: ")
    assert all(word in lines[-1] for word in words), lines[-1]
    assert "Traceback" not in result.stderr
