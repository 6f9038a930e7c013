"""bsdnet-train: the command."""

import json
import logging
import math
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from bsdnet.checkpoint import load_checkpoint
from bsdnet.devices import select_device
from bsdnet.errors import BsdnetError, ConfigError, TrainingError
from bsdnet.metrics import ConfusionMatrix
from trainer.datasets.camvid import CamVid
from trainer.datasets.imagenet import ZippedImages
from trainer.device import place
from trainer.engine import Task, train
from trainer.interrupt import StopSignals
from trainer.pretrain import PretrainTask
from trainer.recipes import CAMVID, TINY_IMAGENET, TINY_IMAGENET_SEGFORMER
from trainer.segformer import VARIANTS
from trainer.segmentation import CONFIGS, SegmentationTask, evaluate, format_iou
from trainer.state import FILE_NAME

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _parse_size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Turn `480x352` on the command line into `(352, 480)`."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; expected WIDTHxHEIGHT, such as 480x352", context, parameter)
    return int(match[2]), int(match[1])


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all trainings share."""
    options = [
        click.option("--data-dir", type=_FOLDER, help="Folder of the data set."),
        click.option("--model", type=click.Choice(["s", "b", *VARIANTS]), default="s", show_default=True, help="Network."),
        click.option("--output", type=_FOLDER, help="Folder of the run; made if missing."),
        click.option("--resume", is_flag=True, help="Go on with the run in --output, exactly where it stopped."),
        click.option("--epochs", type=int, help="Passes over the data; default: the recipe's."),
        click.option("--batch-size", type=int, help="Pictures in a step; default: the recipe's."),
        click.option("--lr", type=float, help="Peak learning rate; default: the recipe's."),
        click.option("--seed", type=int, help="Seed of weights, order and augmentation; default: the recipe's."),
        click.option("--eval-every", type=click.IntRange(min=1), help="Steps between evaluations; default: ten a run."),
        click.option("--save-every", type=click.IntRange(min=1), default=200, show_default=True,
                     help="Steps between saved states."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _machine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where to compute and how much to tell."""
    command = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(command)
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")(command)


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.option("--dataset", type=click.Choice(["camvid"]), help="Data set to train on or to evaluate with.")
@_run_options
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
    "--crop-size",
    callback=_parse_size,
    metavar="WIDTHxHEIGHT",
    help="Size of the training crops; default: the recipe's.",
)
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
@_machine_options
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Train BSDNet on a labelled data set, or evaluate weights.

    \b
    bsdnet-train --dataset camvid --data-dir camvid --distill none --output runs/first
    bsdnet-train --dataset camvid --data-dir camvid --eval test --weights runs/first/last.safetensors
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    if context.invoked_subcommand is not None:
        _refuse_options(context)
    elif options["eval_split"] is not None:
        _require(options, "dataset", "data_dir", "weights")
        _evaluate(options)
    else:
        _require(options, "dataset", "data_dir")
        if options["weights"] is not None or options["as_json"]:
            raise click.UsageError("--weights and --json belong to --eval, which is missing")
        _train_segmentation(options)


@cli.command()
@_run_options
@_machine_options
def pretrain(**options: Any) -> None:  # noqa: ANN401 - click's values
    """Pretrain the backbone on Tiny-ImageNet.

    --data-dir holds train-*.zip and val.zip, whose entries are <class>/<picture>.

    \b
    bsdnet-train pretrain --data-dir tiny-imagenet --model s --output runs/pretrain-s
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    _require(options, "data_dir", "output")
    base = TINY_IMAGENET if options["model"] in CONFIGS else TINY_IMAGENET_SEGFORMER
    recipe = replace(base, **_overrides(options))
    archives = sorted(options["data_dir"].glob("train-*.zip")) or [options["data_dir"] / "train-0.zip"]
    folder = _run_folder(options)
    train_images = ZippedImages(archives)
    val_images = ZippedImages([options["data_dir"] / "val.zip"], train_images.classes)
    device = select_device(options["device"])
    _run(PretrainTask(recipe, train_images, val_images, device), folder, options)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: errors that a user can mend are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    try:
        cli.main(arguments, prog_name="bsdnet-train", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("bsdnet-train: stopped; a run that has saved a state goes on with --resume", err=True)
        sys.exit(128 + signal.SIGINT)
    except BsdnetError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"bsdnet-train: error: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


def _train_segmentation(options: dict[str, Any]) -> None:
    if options["distill"] is None:
        raise click.UsageError("--distill is missing: pass --distill none to train on the labels alone")
    recipe = replace(CAMVID, **_overrides(options, "color_jitter", "crop_size"))
    _require(options, "output")
    root, held_out, split = options["data_dir"], options["hold_out"], options["train_split"]
    if held_out is None:
        train_set, val_set = CamVid(root, split), CamVid(root, "val")
    else:
        train_set, val_set = CamVid(root, split, without=[held_out]), CamVid(root, split, only=[held_out])
    device = select_device(options["device"])
    folder = _run_folder(options)
    data: dict[str, object] = {"dataset": options["dataset"], "train_split": split, "hold_out": held_out}
    task = SegmentationTask(
        recipe, train_set, val_set, device, data=data, pretrained=options["pretrained"], workers=options["workers"]
    )
    _run(task, folder, options)


def _evaluate(options: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(options["weights"])
    dataset = CamVid(options["data_dir"], options["eval_split"])
    known = checkpoint.metadata.class_set
    if known.names != dataset.classes.names:
        raise ConfigError(
            f"{options['weights']} is made for the {len(known)} classes of {known.name}, the data set has the "
            f"{len(dataset.classes)} of {dataset.classes.name}: pass --weights that were trained on it"
        )
    device = select_device(options["device"])
    model = place(checkpoint.model, device)
    by_drive = {
        drive: evaluate(
            model,
            CamVid(options["data_dir"], options["eval_split"], only=[drive]),
            device,
            mean=checkpoint.metadata.mean,
            std=checkpoint.metadata.std,
        )
        for drive in dataset.drives
    }
    matrix = ConfusionMatrix(len(dataset.classes))
    matrix.counts += sum(part.counts for part in by_drive.values())
    if not options["as_json"]:
        click.echo(format_iou(matrix, dataset.classes))
        for drive, part in by_drive.items():
            click.echo(f"mIoU of drive {drive}  {100 * part.mean_iou:5.1f}")
        return
    named = zip(dataset.classes.names, matrix.iou, strict=True)
    result = {
        "dataset": options["dataset"],
        "split": options["eval_split"],
        "images": len(dataset),
        "miou": _json_number(matrix.mean_iou),
        "pixel_accuracy": _json_number(matrix.pixel_accuracy),
        "miou_by_drive": {drive: _json_number(part.mean_iou) for drive, part in by_drive.items()},
        "iou": {name: _json_number(iou) for name, iou in named},
    }
    click.echo(json.dumps(result, indent=2))


def _json_number(value: float) -> float | None:
    """Give null for NaN, which JSON does not know."""
    return None if math.isnan(value) else float(value)


def _run(task: Task, folder: Path, options: dict[str, Any]) -> None:
    eval_every = options["eval_every"] or max(1, math.ceil(task.iterations / 10))
    if not options["resume"]:
        _write_text(folder / "recipe.json", json.dumps(task.description, indent=2) + "\n")
    with StopSignals() as signals:
        progress = train(
            task,
            folder,
            resume=options["resume"],
            eval_every=eval_every,
            save_every=options["save_every"],
            should_stop=lambda: signals.received is not None,
        )
    if progress.iteration < task.iterations and signals.received is not None:
        click.echo(
            f"bsdnet-train: stopped by {signals.received.name} after {progress.iteration} of {task.iterations} "
            "iterations; the same command with --resume goes on from there",
            err=True,
        )
        sys.exit(128 + signals.received)
    click.echo(f"best evaluation {100 * progress.best_score:.2f} %, weights in {folder}")


def _require(options: dict[str, Any], *names: str) -> None:
    for name in names:
        if options[name] is None:
            raise click.UsageError(f"--{name.replace('_', '-')} is missing")


def _refuse_options(context: click.Context) -> None:
    """Refuse options before a subcommand's name: they would be lost."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} must follow the word {context.invoked_subcommand!r}")


def _overrides(options: dict[str, Any], *more: str) -> dict[str, Any]:
    names = ("model", "epochs", "batch_size", "lr", "seed", *more)
    return {name: options[name] for name in names if options[name] is not None}


def _run_folder(options: dict[str, Any]) -> Path:
    """Make the run's folder; an earlier run is never overwritten."""
    folder: Path = options["output"]
    if options["resume"]:
        return folder
    if (folder / FILE_NAME).exists():
        raise TrainingError(f"{folder} holds a run already: pass --resume to go on with it, or another --output")
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


if __name__ == "__main__":
    main()
