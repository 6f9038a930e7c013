"""bsdnet-train: the command."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from bsdnet.checkpoint import load_checkpoint
from bsdnet.errors import BsdnetError, ConfigError, TrainingError
from trainer.datasets.camvid import CamVid
from trainer.datasets.imagenet import ZippedImages
from trainer.device import choose_device
from trainer.engine import Task, train
from trainer.pretrain import PretrainTask
from trainer.recipes import CAMVID, TINY_IMAGENET, recipe_as_dict
from trainer.segmentation import CONFIGS, SegmentationTask, evaluate, format_iou
from trainer.state import FILE_NAME

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all trainings share."""
    options = [
        click.option("--data-dir", type=_FOLDER, required=True, help="Folder of the data set."),
        click.option("--model", type=click.Choice(["s", "b"]), default="s", show_default=True, help="Network."),
        click.option("--output", type=_FOLDER, help="Folder of the run; made if missing."),
        click.option("--resume", is_flag=True, help="Go on with the run in --output, exactly where it stopped."),
        click.option("--epochs", type=int, help="Passes over the data; default: the recipe's."),
        click.option("--batch-size", type=int, help="Pictures in a step; default: the recipe's."),
        click.option("--lr", type=float, help="Peak learning rate; default: the recipe's."),
        click.option("--seed", type=int, help="Seed of weights, order and augmentation; default: the recipe's."),
        click.option("--eval-every", type=click.IntRange(min=1), help="Steps between evaluations; default: ten a run."),
        click.option("--save-every", type=click.IntRange(min=1), default=200, show_default=True,
                     help="Steps between saved states."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.option("--dataset", type=click.Choice(["camvid"]), help="Data set to train on or to evaluate with.")
@click.option("--distill", type=click.Choice(["none"]), help="Distillation; none trains on the labels alone.")
@click.option("--pretrained", type=_FILE, help="Backbone from 'bsdnet-train pretrain'; default: random weights.")
@click.option(
    "--train-split",
    type=click.Choice(["train", "trainval"]),
    default="train",
    show_default=True,
    help="Pictures to train on.",
)
@click.option("--hold-out", help="Drive to leave out of training and to evaluate on instead of val, such as 0001TP.")
@click.option("--color-jitter", type=float, help="Strength of random colours, 0 to 0.9; default: the recipe's.")
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that prepare pictures."
)
@click.option(
    "--eval",
    "eval_split",
    type=click.Choice(["train", "val", "test"]),
    help="Evaluate --weights on this split instead of training.",
)
@click.option("--weights", type=_FILE, help="Weights to evaluate.")
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON.")
@click.pass_context
def cli(context: click.Context, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Train BSDNet on a labelled data set, or evaluate weights.

    \b
    bsdnet-train --dataset camvid --data-dir camvid --distill none --output runs/first
    bsdnet-train --dataset camvid --data-dir camvid --eval test --weights runs/first/last.safetensors
    """
    if context.invoked_subcommand is None:
        raise click.UsageError("not reached")


def main() -> None:
    """Run the command: errors that a user can mend are one line, exit code 1."""
    cli()


_ = (
    json,
    logging,
    sys,
    replace,
    torch,
    load_checkpoint,
    BsdnetError,
    ConfigError,
    TrainingError,
    CamVid,
    ZippedImages,
    choose_device,
    Task,
    train,
    PretrainTask,
    CAMVID,
    TINY_IMAGENET,
    recipe_as_dict,
    CONFIGS,
    SegmentationTask,
    evaluate,
    format_iou,
    FILE_NAME,
)
