import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import ablation

MIOU = {"0": 0.60, "1": 0.62}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What bsdnet-train is called with; it trains nothing, and SIDM is a point better than labels alone."""
    called: list[list[str]] = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        arguments = command[3:]
        called.append(arguments)
        text = ""
        if "--eval" in arguments:
            weights = arguments[arguments.index("--weights") + 1]
            miou = MIOU[Path(weights).parent.name[-1]] + (0.01 if "sidm" in weights else 0)
            text = json.dumps({"miou": miou, "iou": {"sky": miou}})
        return subprocess.CompletedProcess(command, 0, stdout=text, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return called


def ablate(folder: Path, *more: str) -> Result:
    pair = ["--row", "student alone", "--row", "+ SIDM", "--seeds", "0,1", "--teacher", "t"]
    return CliRunner().invoke(ablation.main, ["distill", "--data-dir", "camvid", "--runs", str(folder), *pair, *more])


def test_pairs_are_compared_seed_by_seed(tmp_path: Path, commands: list[list[str]]) -> None:
    assert ablate(tmp_path, "--init", "s.safetensors", "--split", "test").exit_code == 0
    report = json.loads((tmp_path / "ablation-distill.json").read_text())
    assert [row["miou"] for row in report["rows"]] == [[60, 62], [61, 63]]
    assert report["rows"][1]["difference"] == [1, 1]
    trainings = [command for command in commands if "--output" in command]
    assert len(trainings) == 4 and all(("t" in command) != ("none" in command) for command in trainings)
    assert all(command[command.index("--init") + 1] == "s.safetensors" for command in trainings)
    assert {command[command.index("--eval") + 1] for command in commands if "--eval" in command} == {"test"}


def test_what_is_trained_is_not_trained_again_to_be_judged_otherwise(tmp_path: Path, commands: list[list[str]]) -> None:
    for more in ([], [], ["--split", "test"], ["--average"]):
        assert ablate(tmp_path, "--init", "s.safetensors", *more).exit_code == 0
    assert sum("--iterations" in command for command in commands) == 4
    assert sum("--eval" in command for command in commands) == 3 * 4
    means = [command for command in commands if command[0] == "average"]
    assert len(means) == 4 and all(command[1] == "s.safetensors" for command in means)


@pytest.mark.parametrize("other", [["--hold-out", "0006R0"], ["--iterations", "500"], ["--set", "lr=1e-3"]])
def test_scores_of_other_runs_are_not_taken_for_these(
    tmp_path: Path, commands: list[list[str]], other: list[str]
) -> None:
    assert ablate(tmp_path, "--hold-out", "0001TP").exit_code == 0
    begun = len(commands)
    result = ablate(tmp_path, "--hold-out", "0001TP", *other)
    assert result.exit_code == 1
    assert "holds the run of another command" in result.output
    assert len(commands) == begun


def test_a_run_that_fails_is_named_with_its_reason(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run

    def fail(command: list[str], **more: object) -> "subprocess.CompletedProcess[str]":
        if "--eval" in command:
            return subprocess.CompletedProcess(command, 1, stdout="", stderr="a\nbsdnet-train: error: no such split\n")
        return done(command, **more)

    monkeypatch.setattr(subprocess, "run", fail)
    assert "error: no such split" in ablate(tmp_path).output
    (tmp_path / "distill-distill-none-seed0" / "seconds").unlink()
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    assert "has failed; the reason is in" in ablate(tmp_path).output


def test_what_cannot_be_asked_for(tmp_path: Path, commands: list[list[str]]) -> None:
    assert "no row banana" in ablate(tmp_path, "--row", "banana").output
    assert "--init, which is not given" in ablate(tmp_path, "--average").output
    assert "is no folder" in ablate(tmp_path, "--output", str(tmp_path / "none")).output
    assert commands == []
