import subprocess
import sys
import time
from collections.abc import Set
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import accuracy
from trainer.main import cli as train

_SLEEP = "import time; time.sleep(60)"
_NOTE = "from pathlib import Path; p = Path({order!r}); p.write_text(p.read_text() + {name!r} + ' ')"


@pytest.fixture
def order(tmp_path: Path) -> Path:
    path = tmp_path / "order"
    path.write_text("")
    return path


def _replace_trainings(monkeypatch: pytest.MonkeyPatch, code: dict[str, str]) -> None:
    def start(command: list[str], folder: Path) -> "subprocess.Popen[bytes]":
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, "-c", code[folder.name]], stderr=subprocess.DEVNULL)

    monkeypatch.setattr(accuracy, "_start", start)


def _train(
    names: list[str], folder: Path, *, jobs: int = 1, seconds: float = 60, used: Set[str] = frozenset()
) -> list[str]:
    return accuracy._train({name: [] for name in names}, folder, jobs, time.monotonic() + seconds, used=used)


def _options(folder: Path, **others: object) -> dict[str, object]:
    return {"data": folder, "runs": folder, "iterations": None, "epochs": None, "used": {}, **others}


class TestRuns:
    def test_a_run_needs_only_runs_that_stand_before_it(self) -> None:
        names = list(accuracy.RUNS)
        for name, run in accuracy.RUNS.items():
            assert all(names.index(need) < names.index(name) for need in run.needs)

    @pytest.mark.parametrize("name", accuracy.RUNS)
    def test_every_path_into_another_run_is_a_run_that_is_needed(self, name: str) -> None:
        run = accuracy.RUNS[name]
        inside = {part.split("/")[1] for part in run.command if part.startswith("{runs}")}
        assert inside == set(run.needs)

    @pytest.mark.parametrize("name", accuracy.RUNS)
    def test_bsdnet_train_knows_every_option(self, name: str, tmp_path: Path) -> None:
        arguments = accuracy._command(name, _options(tmp_path))
        for part in (arguments, *accuracy.RUNS[name].judged.values()):
            target = train.commands.get(part[0], train)
            known = {option for parameter in target.params for option in parameter.opts}
            assert {argument for argument in part if argument.startswith("--")} <= known

    def test_paired_runs_differ_in_the_distillation_alone(self) -> None:
        alone, distilled = (accuracy.RUNS[name].command for name in ("s-none-1", "s-sidm-1"))
        sidm = {"sidm", "--teacher", "{runs}/teacher/last", "--set", "cwd_weight=5", "ofa_weight=0.3"}
        assert set(distilled) - set(alone) == sidm
        assert set(alone) - set(distilled) == {"none"}

    def test_weights_that_are_there_take_the_place_of_a_run(self, tmp_path: Path) -> None:
        used = {"teacher": "there/teacher", "pretrain-s": "there/s.safetensors"}
        command = accuracy._command("s-sidm-0", _options(tmp_path, used=used))
        assert [command[command.index(option) + 1] for option in ("--teacher", "--pretrained")] == list(used.values())

    def test_epochs_are_the_students(self, tmp_path: Path) -> None:
        student, teacher = (accuracy._command(name, _options(tmp_path, epochs=7)) for name in ("s-none-0", "teacher"))
        assert [command[command.index("--epochs") + 1] for command in (student, teacher)] == ["7", "120"]

    @pytest.mark.parametrize(
        "entry, message",
        [
            ("banana=x", "no run banana"),
            ("teacher=nowhere", "nowhere does not exist"),
            ("teacher=", "nothing does not exist"),
            ("teacher", "nothing does not exist"),
        ],
    )
    def test_what_cannot_be_used_is_said_before_anything_runs(self, entry: str, message: str, tmp_path: Path) -> None:
        result = CliRunner().invoke(
            accuracy.main, ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--use", entry]
        )
        assert result.exit_code == 2 and message in result.output
        assert not (tmp_path / "runs").exists()


class TestTrain:
    def test_what_is_used_need_not_be_finished(
        self, tmp_path: Path, order: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _replace_trainings(monkeypatch, {"s-none-0": _NOTE.format(order=str(order), name="s")})
        assert _train(["s-none-0"], tmp_path) == []
        assert order.read_text() == ""
        assert _train(["s-none-0"], tmp_path, used=frozenset({"pretrain-s"})) == []
        assert order.read_text() == "s "

    def test_what_is_needed_comes_first(self, tmp_path: Path, order: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ["s-none-0", "pretrain-s"]
        _replace_trainings(monkeypatch, {name: _NOTE.format(order=str(order), name=name) for name in names})
        assert _train(names, tmp_path, jobs=2) == []
        assert order.read_text().split() == ["pretrain-s", "s-none-0"]

    def test_a_finished_run_is_not_run_again(
        self, tmp_path: Path, order: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _replace_trainings(monkeypatch, {"pretrain-s": _NOTE.format(order=str(order), name="s")})
        for _ in range(2):
            assert _train(["pretrain-s"], tmp_path) == []
        assert order.read_text() == "s "

    def test_a_failed_run_is_named_and_what_needs_it_does_not_begin(
        self, tmp_path: Path, order: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = _NOTE.format(order=str(order), name="b")
        fail = "raise SystemExit(1)"
        _replace_trainings(monkeypatch, {"pretrain-s": fail, "s-none-0": note, "pretrain-b": note})
        assert _train(["pretrain-s", "s-none-0", "pretrain-b"], tmp_path) == ["pretrain-s"]
        assert order.read_text() == "b "

    def test_at_the_deadline_runs_are_interrupted_and_none_counts_as_finished(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved = "import signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(130))\ntime.sleep(60)"
        _replace_trainings(monkeypatch, {"pretrain-s": saved, "pretrain-b": _SLEEP})
        began = time.monotonic()
        # The other one is killed by the signal, so its state cannot be relied upon.
        assert _train(["pretrain-s", "pretrain-b"], tmp_path, jobs=2, seconds=3) == ["pretrain-b"]
        assert time.monotonic() - began < 30
        assert not accuracy._finished(tmp_path / "pretrain-s")


class TestJudge:
    @pytest.mark.parametrize(
        "single_scale, scores", [(True, {"val", "test"}), (False, {"val", "test", "test-multi-scale"})]
    )
    def test_each_score_is_kept_and_those_at_several_scales_can_be_left_out(
        self, single_scale: bool, scores: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluated: list[list[str]] = []

        def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
            evaluated.append(command)
            return subprocess.CompletedProcess(command, 0, stdout='{"miou": 0.5}', stderr="")

        monkeypatch.setattr(subprocess, "run", run)
        (tmp_path / "s-none-0").mkdir()
        for _ in range(2):
            accuracy._judge("s-none-0", tmp_path, tmp_path, single_scale=single_scale)
        assert {path.stem for path in (tmp_path / "s-none-0").iterdir()} == scores
        assert len(evaluated) == len(scores)  # not a second time


class TestSummary:
    def test_gain_is_the_mean_of_the_pairs_with_students_interval(self) -> None:
        scores = {
            **{f"s-none-{seed}": {"val": 60.0} for seed in range(3)},
            **{f"s-sidm-{seed}": {"val": 60.0 + gain} for seed, gain in enumerate((0.5, 1.0, 1.5))},
        }
        gain = accuracy.summarize(scores)["gains"]["s val"]
        assert gain == {"differences": [0.5, 1.0, 1.5], "mean": 1.0, "half_width": 1.24}  # 4.303 * 0.5 / sqrt(3)

    def test_a_seed_without_its_partner_is_left_out(self) -> None:
        scores = {"s-none-0": {"test": 60.0}, "s-sidm-0": {"test": 61.0}, "s-sidm-1": {"test": 90.0}}
        gains = accuracy.summarize(scores)["gains"]
        assert gains == {"s test": {"differences": [1.0], "mean": 1.0, "half_width": None}}

    def test_table_shows_what_was_not_scored_as_nothing(self) -> None:
        text = accuracy.markdown(accuracy.summarize({"teacher": {"val": 61.5}}))
        assert "| teacher | 61.50 |  |  |" in text
