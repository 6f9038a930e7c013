r"""Train S and B with and without distillation, from their backbones on: one command, which goes on where it stopped.

    python -m benchmarks.accuracy --data data --runs runs/accuracy --output benchmarks/results
    python -m benchmarks.accuracy --data data --runs runs/accuracy --minutes 9 --jobs 3    # a part of it, three at once
    python -m benchmarks.accuracy --data data --runs runs/pairs --only s-none-0,s-sidm-0 --epochs 20 \
        --use teacher=checkpoints/teacher-camvid --use pretrain-s=checkpoints/backbone-s-tiny-imagenet.safetensors

`data` holds `tiny-imagenet/` and `camvid/`. The runs, each a bsdnet-train in a folder of its own: backbones of S and B
on Tiny-ImageNet; an EfficientNet-Lite2 that saw ImageNet, on CamVid, as a teacher; S on labels alone and with SIDM,
three seeds in pairs; B both ways; S and B with SIDM on train + val. Every one is judged after its last step, none by
its best. When a run is finished its scores are kept; a run that is stopped has saved its state. The lengths suit one
accelerator and half an hour, and nothing about them was chosen by the test pictures.
"""

import json
import math
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks.confidence import MOST, half_width
from benchmarks.runs import keep_to_command
from bsdnet.machine import describe_measurement

_CAMVID = ("--dataset", "camvid", "--data-dir", "{data}/camvid")
_MULTI_SCALE = ("--eval-scales", "0.75,1,1.25", "--eval-flip")
_SIDM = ("--set", "cwd_weight=5", "--set", "ofa_weight=0.3")  # as the shipped weights were distilled
_POLL_S = 0.5
_STOP_S = 60.0
_INTERRUPTED = 128 + signal.SIGINT  # how bsdnet-train ends when it has saved its state on Ctrl-C


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training and how it is judged."""

    command: tuple[str, ...]
    """Arguments of bsdnet-train; `{data}` and `{runs}` stand for the folders."""
    epochs: int
    """Passes over the data."""
    needs: tuple[str, ...] = ()
    """Runs that must be finished before."""
    judged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name of the score, the options of bsdnet-train's evaluation; none for a backbone, whose log has its score."""
    weights: str = "last.safetensors"
    """What is judged, in the folder of the run."""


def _pretraining(model: str, epochs: int) -> Run:
    return Run(command=("pretrain", "--data-dir", "{data}/tiny-imagenet", "--model", model), epochs=epochs)


def _student(model: str, distill: str, *, seed: int = 0, trainval: bool = False) -> Run:
    teacher = "teacher-trainval" if trainval else "teacher"
    options = () if distill == "none" else ("--teacher", f"{{runs}}/{teacher}/last", *_SIDM)
    split = ("--train-split", "trainval") if trainval else ()
    judged = {"test": ("--eval", "test"), "test multi-scale": ("--eval", "test", *_MULTI_SCALE)}
    return Run(
        command=(
            *_CAMVID, "--model", model, "--distill", distill, *options, *split, "--seed", str(seed),
            "--pretrained", f"{{runs}}/pretrain-{model}/last.safetensors",
        ),
        epochs=300,
        needs=(f"pretrain-{model}", *((teacher,) if options else ())),
        judged=judged if trainval else {"val": ("--eval", "val"), **judged},
    )  # fmt: skip


def _teacher(*split: str) -> Run:
    return Run(
        command=("teacher", *_CAMVID, *split, "--model", "efficientnet-lite2", "--pretrained", "imagenet"),
        epochs=120,
        judged={"test": ("--eval", "test")} if split else {"val": ("--eval", "val"), "test": ("--eval", "test")},
        weights="last",
    )


RUNS: dict[str, Run] = {
    "pretrain-s": _pretraining("s", 60),
    "teacher": _teacher(),
    **{f"s-{distill}-{seed}": _student("s", distill, seed=seed) for seed in range(3) for distill in ("none", "sidm")},
    "pretrain-b": _pretraining("b", 60),
    **{f"b-{distill}-0": _student("b", distill) for distill in ("none", "sidm")},
    "teacher-trainval": _teacher("--train-split", "trainval"),
    "s-sidm-trainval": _student("s", "sidm", trainval=True),
    "b-sidm-trainval": _student("b", "sidm", trainval=True),
}
"""In the order in which they begin where several could."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--runs", type=click.Path(path_type=Path), required=True, help="Folder of the runs.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for accuracy.json and .md; default: --runs.")
@click.option("--only", help="Names of runs, such as pretrain-s,s-none-0; what they need must be finished.")
@click.option("--use", "used", multiple=True, metavar="RUN=PATH", help="Weights to take instead of training a run.")
@click.option("--epochs", type=click.IntRange(min=1), help="Length of the students' runs.")
@click.option("--minutes", type=float, default=math.inf, help="Stop all after so long; the next call goes on.")
@click.option("--jobs", default=1, show_default=True, help="Runs at once.")
@click.option("--single-scale", is_flag=True, help="Leave out the scores at several scales, which take most time.")
@click.option("--iterations", help="Steps of every run, to try all this in a minute; its scores are of no use.")
@click.option("--list", "listing", is_flag=True, help="Print the commands and stop.")
def main(**options: Any) -> None:
    """Train, evaluate, report."""
    names = options["only"].split(",") if options["only"] else list(RUNS)
    if unknown := [name for name in names if name not in RUNS]:
        raise click.UsageError(f"there is no run {', '.join(unknown)}; there are {', '.join(RUNS)}")
    options["used"] = dict(_used(entry) for entry in options["used"])
    names = [name for name in names if name not in options["used"]]
    folder: Path = options["runs"]
    commands = {name: _command(name, options) for name in names}
    if options["listing"]:
        for name, command in commands.items():
            click.echo(" ".join(["bsdnet-train", *command, "--output", str(folder / name)]))
        return
    for name, command in commands.items():
        keep_to_command(folder / name, command)
    deadline = time.monotonic() + 60 * options["minutes"]
    failed = _train(commands, folder, options["jobs"], deadline, used=frozenset(options["used"]))
    for name in names:
        if _finished(folder / name):
            _judge(name, folder, options["data"], single_scale=options["single_scale"])
    report = {
        **describe_measurement("python -m benchmarks.accuracy"),
        **summarize(_scores(folder)),
    }
    output: Path = options["output"] or folder
    output.mkdir(parents=True, exist_ok=True)
    (output / "accuracy.json").write_text(json.dumps(report, indent=2) + "\n")
    (output / "accuracy.md").write_text(markdown(report))
    click.echo(markdown(report))
    waiting = [name for name in names if not _finished(folder / name) and name not in failed]
    if waiting:
        click.echo(f"not finished: {', '.join(waiting)}; the same command goes on", err=True)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}; see log.txt in the folder of each")


def _used(entry: str) -> tuple[str, str]:
    name, _, path = entry.partition("=")
    if name not in RUNS:
        raise click.UsageError(f"there is no run {name}; there are {', '.join(RUNS)}")
    if not path or not Path(path).exists():
        raise click.UsageError(f"--use {entry}: {path or 'nothing'} does not exist")
    return name, path


def _command(name: str, options: Mapping[str, Any]) -> list[str]:
    places = {"data": options["data"], "runs": options["runs"]}
    there = {f"{{runs}}/{run}/{RUNS[run].weights}": path for run, path in options["used"].items()}
    command = [there[part] if part in there else part.format(**places) for part in RUNS[name].command]
    epochs = (options["epochs"] if name.startswith(("s-", "b-")) else None) or RUNS[name].epochs
    length = ["--iterations", options["iterations"]] if options["iterations"] else ["--epochs", str(epochs)]
    return [*command, *length]


def _finished(folder: Path) -> bool:
    return (folder / "finished").is_file()


def _train(
    commands: Mapping[str, list[str]], folder: Path, jobs: int, deadline: float, *, used: Set[str] = frozenset()
) -> list[str]:
    """Carry out what can begin, in order; give the names of those that failed."""
    waiting = [name for name in commands if not _finished(folder / name)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    while True:
        ready = [name for name in waiting if all(need in used or _finished(folder / need) for need in RUNS[name].needs)]
        for name in ready[: max(0, jobs - len(running))] if time.monotonic() < deadline else []:
            waiting.remove(name)
            running[name] = _start(commands[name], folder / name)
            click.echo(f"{name} begins", err=True)
        if not running:
            return failed
        if time.monotonic() >= deadline:
            return [*failed, *_stop(running, folder)]
        time.sleep(_POLL_S)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            click.echo(f"{name} ended", err=True)
            if not _settle(running.pop(name), folder / name):
                failed.append(name)


def _start(command: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    place = ["--output", str(folder), *(["--resume"] if (folder / "state.pt").is_file() else [])]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "trainer.main", *command, *place], stdout=log, stderr=log)


def _settle(process: "subprocess.Popen[bytes]", folder: Path) -> bool:
    if process.returncode == 0:
        (folder / "finished").touch()
    return process.returncode == 0


def _stop(running: "Mapping[str, subprocess.Popen[bytes]]", folder: Path) -> list[str]:
    """Ask runs to save their state; give the names of those that did not manage to."""
    for process in running.values():
        process.send_signal(signal.SIGINT)
    failed = []
    for name, process in running.items():
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if not _settle(process, folder / name) and process.returncode != _INTERRUPTED:
            failed.append(name)
    return failed


def _judge(name: str, folder: Path, data: Path, *, single_scale: bool) -> None:
    """Evaluate a finished run, unless that was done before."""
    for score, options in RUNS[name].judged.items():
        kept = folder / name / f"{score.replace(' ', '-')}.json"
        if kept.is_file() or (single_scale and "multi-scale" in score):
            continue
        dataset = [part.format(data=data) for part in _CAMVID]
        evaluation = subprocess.run(
            [sys.executable, "-m", "trainer.main", *dataset, *options, "--json",
             "--weights", str(folder / name / RUNS[name].weights)],
            capture_output=True, text=True,
        )  # fmt: skip
        if evaluation.returncode:
            raise click.ClickException(f"{name} cannot be evaluated: {evaluation.stderr.strip()}")
        kept.write_text(evaluation.stdout)


def _scores(folder: Path) -> dict[str, dict[str, float]]:
    """Read the mIoU of all runs in per cent, by run and by name of the score."""
    scores: dict[str, dict[str, float]] = {}
    for name, run in RUNS.items():
        for score in run.judged:
            kept = folder / name / f"{score.replace(' ', '-')}.json"
            if kept.is_file():
                scores.setdefault(name, {})[score] = round(100 * json.loads(kept.read_text())["miou"], 2)
    return scores


def summarize(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Put a model with and without distillation side by side, seed by seed.

    Args:
        scores: mIoU in per cent, by run and by name of the score.

    Returns:
        The scores, and `gains` by model and score: the difference of each pair, their mean, and half the width of its
        95 % confidence interval (Student's t; None for a single pair).
    """
    gains: dict[str, dict[str, Any]] = {}
    for model in ("s", "b"):
        for score in ("val", "test"):
            pairs = [
                (scores[alone][score], scores[distilled][score])
                for seed in range(MOST)
                if score in scores.get(alone := f"{model}-none-{seed}", {})
                and score in scores.get(distilled := f"{model}-sidm-{seed}", {})
            ]
            if pairs:
                differences = [distilled_score - alone_score for alone_score, distilled_score in pairs]
                gains[f"{model} {score}"] = {
                    "differences": [round(difference, 2) for difference in differences],
                    "mean": round(statistics.mean(differences), 2),
                    "half_width": half_width(differences),
                }
    return {"scores": {name: dict(row) for name, row in scores.items()}, "gains": gains}


def markdown(report: Mapping[str, Any]) -> str:
    """Lay a summary out as two tables."""
    columns = ("val", "test", "test multi-scale")
    lines = ["| run | " + " | ".join(columns) + " |", "|---|---|---|---|"]
    for name, row in report["scores"].items():
        cells = (f"{row[column]:.2f}" if column in row else "" for column in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| SIDM against labels alone | each pair | mean, 95 % confidence |", "|---|---|---|"]
    for name, gain in report["gains"].items():
        interval = "one pair" if gain["half_width"] is None else f"± {gain['half_width']:.2f}"
        pairs = ", ".join(f"{difference:+.2f}" for difference in gain["differences"])
        lines.append(f"| {name} | {pairs} | {gain['mean']:+.2f} {interval} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
