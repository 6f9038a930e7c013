import re
from pathlib import Path

import click
import pytest

from bsdnet.errors import DatasetError
from tests.trainer.command import ROOT, SMALL, assert_one_line, run, train
from trainer.main import cli, main


def test_errors_are_one_line(street_camvid: Path, trained: Path, tmp_path: Path):
    assert_one_line(train(tmp_path / "none", tmp_path / "run"), "none/train", "is missing")
    assert_one_line(train(street_camvid, trained), "holds a run already", "--resume")
    assert_one_line(train(street_camvid, tmp_path / "new", "--resume"), "nothing to resume")
    assert_one_line(train(street_camvid, trained, "--resume", "--lr", "0.1"), "lr = 0.001", "0.1")
    assert_one_line(train(street_camvid, trained, "--resume", "--hold-out", "A"), "hold_out = None", "'A'")
    assert_one_line(train(street_camvid, tmp_path / "run", "--lr", "-1"), "lr must be greater than 0", exit_code=2)
    assert_one_line(train(street_camvid, tmp_path / "run", "--hold-out", "X"), "no recording X")
    assert_one_line(train(street_camvid, tmp_path / "run", "--device", "gpu"), "device must be auto", exit_code=2)
    evaluation = ["--dataset", "camvid", "--data-dir", street_camvid, "--eval", "val", "--weights"]
    assert_one_line(run(*evaluation, tmp_path / "none.safetensors"), "does not exist")
    (trained / "state.pt").rename(tmp_path / "kept.pt")
    (trained / "state.pt").write_bytes(b"rubbish")
    assert_one_line(train(street_camvid, trained, "--resume"), "cannot be resumed from")
    (tmp_path / "kept.pt").replace(trained / "state.pt")


def test_a_path_that_the_system_refuses_is_one_line(tmp_path: Path):
    name = "x" * 300
    assert_one_line(train(tmp_path / name, tmp_path / "run"), f"{name}", "File name too long")


def test_what_cannot_be_written_is_one_line(street_camvid: Path, tmp_path: Path):
    for name, words in (
        ("state.pt.part", "the run's state cannot be written to"),
        ("best.safetensors", "weights cannot be written to"),
        ("recipe.toml", "recipe.toml cannot be written: Is a directory"),
        ("run.json", "run.json cannot be written: Is a directory"),
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


def test_a_run_that_cannot_begin_leaves_no_folder(street_camvid: Path, tmp_path: Path):
    (tmp_path / "rubbish.safetensors").write_bytes(b"rubbish")
    (tmp_path / "classes.toml").touch()
    for arguments, exit_code in (
        (["--pretrained", "rubbish.safetensors"], 1),
        (["--teacher-classes", "classes.toml"], 2),
    ):
        result = train(street_camvid, tmp_path / "run", arguments[0], tmp_path / arguments[1])
        assert result.exit_code == exit_code
        assert not (tmp_path / "run").exists()
    assert "--teacher-classes is of no use with --distill none" in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"train\w* is missing"):
        main(["--dataset", "camvid", "--data-dir", str(tmp_path), *SMALL, "--output", str(tmp_path), "--debug"])


def test_a_loss_that_is_not_finite_ends_the_run(street_camvid: Path, tmp_path: Path):
    assert_one_line(train(street_camvid, tmp_path / "run", "--lr", "1e30"), "the loss became", "lower --lr")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--dataset is missing"),
        (["--dataset", "camvid"], "--output is missing"),
        (["--dataset", "camvid", "--data-dir", "x", "--distill", "none"], "--output is missing"),
        (["--dataset", "camvid", "--data-dir", "x", "--eval", "val"], "--weights is missing"),
        (["--dataset", "camvid", "--output", "x", "--weights", "w"], "--weights belongs to --eval"),
        (["--dataset", "camvid", "--output", "x", "--json"], "--json belongs to --eval"),
        (["teacher"], "--dataset is missing"),
        (["--dataset", "camvid", "--output", "x", "--eval-flip"], "--eval-flip belongs to --eval"),
        (["--dataset", "camvid", "--eval", "val", "--weights", "w", "--lr", "1"], "--lr belongs to training"),
        (["--dataset", "camvid", "--eval", "val", "--weights", "w", "--eval-scales", "x"], "expected numbers"),
        (["--crop-size", "64"], "WIDTHxHEIGHT"),
        (["pretrain"], "--data-dir is missing"),
        (["--model", "b", "pretrain"], "--model must follow the word 'pretrain'"),
    ],
)
def test_usage_errors_say_what_is_missing(arguments: list[str], words: str):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


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


def test_the_guide_explains_the_options_that_there_are():
    tables = re.findall(r"\| option[^\n]*\n((?:\|[^\n]*\n)+)", (ROOT / "docs" / "training.md").read_text())
    rows = [row for table in tables for row in table.splitlines()[1:]]
    explained = [name for row in rows for name in re.findall(r"`(--[a-z-]+)`", row.split("|")[1])]
    commands = (cli, *cli.commands.values())
    options = {option.opts[0] for command in commands for option in command.params if isinstance(option, click.Option)}
    assert sorted(explained) == sorted(options | {"--help"})
