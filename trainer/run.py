"""One run from the command line: its folder, its signals, and what is said at its end."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import click

from bsdnet.errors import TrainingError
from bsdnet.machine import describe_measurement
from trainer.distributed import Processes, synchronise
from trainer.engine import Loop, LoopOptions, Task
from trainer.interrupt import StopSignals
from trainer.overrides import write_toml
from trainer.state import FILE_NAME


def run_task(task: Task, folder: Path, options: dict[str, Any], processes: Processes) -> None:
    """Train, and leave by the signal's exit code if one came.

    Args:
        task: what to train.
        folder: the run's folder, as from `make_folder`.
        options: the values of `trainer.options.run_options`.
        processes: the group of processes that trains together.

    Raises:
        TrainingError: the run cannot start, go on or be written.
        CheckpointError: the weights cannot be written.
    """
    loop_options = LoopOptions(
        resume=options["resume"],
        eval_every=options["eval_every"] or max(1, math.ceil(task.iterations / 10)),
        save_every=options["save_every"],
        compile_network=options["compile_network"],
        tensorboard=options["tensorboard"],
    )
    if processes.is_main and not options["resume"]:
        write_toml(folder / "recipe.toml", task.recipe)
        run = {**describe_measurement("bsdnet-train"), **task.description}
        _write_text(folder / "run.json", json.dumps(run, indent=2) + "\n")
    with StopSignals() as signals:
        loop = Loop(task, folder, loop_options, processes=processes, should_stop=lambda: signals.received is not None)
        progress = loop.run()
    if progress.iteration < task.iterations:
        # Of several processes only some may have had the signal themselves.
        name = signals.received.name if signals.received is not None else "a signal to another process"
        if processes.is_main:
            click.echo(
                f"bsdnet-train: stopped by {name} after {progress.iteration} of {task.iterations} iterations; "
                "the same command with --resume goes on from there",
                err=True,
            )
        sys.exit(128 + (signals.received or 15))
    if processes.is_main:
        click.echo(f"best evaluation {100 * progress.best_score:.2f} %, weights in {folder}")


def make_folder(options: dict[str, Any], processes: Processes) -> Path:
    """Make the run's folder; an earlier run is never overwritten.

    Raises:
        TrainingError: it holds a run and --resume was not given, or it cannot be made.
    """
    folder: Path = options["output"]
    if options["resume"]:
        return folder
    if (folder / FILE_NAME).exists():
        raise TrainingError(f"{folder} holds a run already: pass --resume to go on with it, or another --output")
    synchronise(processes)  # no process writes before each has looked
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    return folder


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error
