"""bsdnet-train: the command."""

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
import torch
from click.core import ParameterSource

from bsdnet.checkpoint import holds_backbone
from bsdnet.errors import BsdnetError, ConfigError, one_line
from bsdnet.machine import describe_measurement
from bsdnet.modeling import BLOCKS, CONTEXTS
from trainer.commands import average, label
from trainer.data import (
    DATASETS,
    RECIPES,
    SPLITS,
    TaughtImages,
    default_recipe,
    default_teacher_recipe,
    open_data,
    with_further,
    with_teachers,
    with_unlabelled,
)
from trainer.distributed import connect
from trainer.efficientnet import EFFICIENTNETS
from trainer.evaluation import EvaluationOptions
from trainer.loading import default_workers
from trainer.options import (
    FILE,
    crop_options,
    further_options,
    machine_options,
    parse_scales,
    parse_size,
    refuse_useless,
    require,
    resolve_recipe,
    run_options,
)
from trainer.overrides import override
from trainer.pretrain import PretrainTask
from trainer.pretrain_data import ImagesInMemory, open_images
from trainer.recipes import IMAGENET, TINY_IMAGENET, TINY_IMAGENET_SEGFORMER, Distillation
from trainer.report import evaluate_weights
from trainer.run import make_folder, run_task
from trainer.segformer import VARIANTS
from trainer.segmentation import SegmentationData, SegmentationTask
from trainer.teacher import load_teacher, read_class_mapping
from trainer.trained import digest_of
from trainer.trainees import CONFIGS, build_future_teacher, build_student, shape_of, train_size_of, variant_of

_OF_EVALUATION = {
    "eval_split", "weights", "eval_size", "eval_window", "eval_flip", "eval_scales", "predictions", "as_json",
}  # fmt: skip
_OF_BOTH = {"dataset", "data_dir", "hold_out", "precision", "device", "debug"}


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.option("--dataset", type=click.Choice(DATASETS), help="Data set to train on or to evaluate with.")
@click.option("--recipe", "recipe_name", type=click.Choice(list(RECIPES)), help="Recipe; default: the data set's.")
@run_options([*CONFIGS])
@click.option(
    "--distill",
    type=click.Choice(get_args(Distillation)),
    help="What is learnt from the teacher: its features (cwd), its logits (ofa), both; none learns from the "
    "labels alone. Default: the recipe's, sidm.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="FOLDER|NAME|FILE",
    help="Teacher from 'bsdnet-train teacher', SegFormer of Hugging Face, or a BSDNet's .safetensors; given again, an "
    "ensemble. Default: the data set's public one.",
)
@click.option(
    "--teacher-classes", type=FILE, help="TOML file that says which of the teacher's classes make one of ours."
)
@click.option("--theta", type=float, help="Exponent of OFA's target term; default: the recipe's, 1.5.")
@click.option(
    "--block",
    type=click.Choice(BLOCKS),
    help="Block of stages 3 and 4; default: fcb. The others are ablations.",
)
@click.option(
    "--context",
    type=click.Choice(CONTEXTS),
    help="Context module; default: dasp-avg. The others are ablations.",
)
@click.option("--auxiliary-weight", type=float, help="Weight of an auxiliary head on stage 3; default: 0, none.")
@crop_options
@click.option(
    "--pretrained",
    type=FILE,
    help="Backbone from 'bsdnet-train pretrain', or weights of a network of other classes, of which all but the "
    "classifier is taken; those of S also for --model b; default: random weights.",
)
@click.option(
    "--init",
    "initial",
    type=FILE,
    help="Weights of a whole network to go on from, of the same classes; those of s are widened for --model b.",
)
@click.option(
    "--train-split",
    type=click.Choice(["train", "trainval"]),
    default="train",
    show_default=True,
    help="Pictures to train on.",
)
@click.option(
    "--hold-out",
    help="Drive or city to evaluate on, left out of training; default: val, and with --eval all of the split.",
)
@click.option(
    "--unlabelled",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Videos or pictures, a folder of them, or Tiny-ImageNet's folder, to learn from beside the data set, by the "
    "teacher's word alone; may be given again.",
)
@click.option(
    "--unlabelled-share", type=float, help="Share of the crops that are of --unlabelled; default: the recipe's, 0.25."
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Of videos and folders of pictures, the step from one frame or picture that is learnt from to the next.",
)
@further_options
@click.option("--eval", "eval_split", type=click.Choice(SPLITS), help="Evaluate --weights on this split.")
@click.option(
    "--weights",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Weights to evaluate: a student's file, a teacher's folder, FILE.py:FACTORY; given again, an ensemble.",
)
@click.option(
    "--eval-size",
    callback=parse_size,
    metavar="WIDTHxHEIGHT",
    help="Size that the network sees pictures at; default: the weights' own. They are scored at the labels' size.",
)
@click.option("--eval-window", callback=parse_size, metavar="WIDTHxHEIGHT", help="Slide a window of this size.")
@click.option("--eval-flip", is_flag=True, help="Average with the mirrored picture.")
@click.option(
    "--eval-scales",
    default="1",
    show_default=True,
    callback=parse_scales,
    help="Average over scales, such as 0.75,1,1.25.",
)
@click.option(
    "--predictions",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for one PNG of label ids a picture, as the Cityscapes benchmark takes them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON.")
@machine_options
@click.version_option(package_name="bsdnet")
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Train BSDNet, with a teacher or on labels alone, or evaluate weights.

    Exit codes: 0 done; 1 error; 2 wrong usage; 130 and 143 stopped by a signal, to go on with --resume.

    \b
    bsdnet-train --dataset cityscapes --data-dir cityscapes --output runs/city
    bsdnet-train --dataset camvid --data-dir camvid --distill none --output runs/first
    bsdnet-train --dataset camvid --data-dir camvid --eval test --weights runs/first/last.safetensors
    torchrun --nproc-per-node 4 -m trainer.main --dataset cityscapes --data-dir cityscapes --output runs/city
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    if context.invoked_subcommand is not None:
        _refuse_options(context)
    elif options["eval_split"] is not None:
        require(options, "dataset", "weights")
        for name in sorted(_given(context) - _OF_EVALUATION - _OF_BOTH):
            raise click.UsageError(f"{_option(context, name)} belongs to training, and --eval was given")
        _evaluate(options)
    else:
        require(options, "dataset", "output")
        for name in sorted(_given(context) & _OF_EVALUATION):
            raise click.UsageError(f"{_option(context, name)} belongs to --eval, which is missing")
        _train(options)


@cli.command()
@run_options([*CONFIGS, *VARIANTS])
@click.option(
    "--init", "initial", type=FILE, help="Backbone from 'bsdnet-train pretrain' to go on from; S's may become a B."
)
@click.option(
    "--teacher",
    type=click.Choice(EFFICIENTNETS),
    help="EfficientNet that saw ImageNet, whose answers on its 1,000 classes s or b learns beside the data's own.",
)
@machine_options
def pretrain(**options: Any) -> None:  # noqa: ANN401 - click's values
    """Pretrain a backbone, of the student or of a teacher, on pictures of classes.

    --data-dir holds train-*.zip and val.zip with entries <class>/<picture>, all of one size, which are held in memory
    (Tiny-ImageNet); or the folders train/<class>/ and val/<class>/, or zips of them (ImageNet).

    \b
    bsdnet-train pretrain --data-dir tiny-imagenet --model s --output runs/pretrain-s
    bsdnet-train pretrain --data-dir tiny-imagenet --model segformer-b1 --output runs/pretrain-b1
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    require(options, "data_dir", "output")
    with connect(options["device"]) as (processes, device):
        data = open_images(options["data_dir"], _workers(options, device))
        base = TINY_IMAGENET if isinstance(data, ImagesInMemory) else IMAGENET
        if base is TINY_IMAGENET and options["model"] in VARIANTS:
            base = TINY_IMAGENET_SEGFORMER
        recipe = resolve_recipe(base, options, device)
        folder = make_folder(options, processes)
        task = PretrainTask(recipe, data, device, initial=options["initial"], processes=processes)
        run_task(task, folder, options, processes)


@cli.command()
@click.option("--dataset", type=click.Choice([name for name in DATASETS if name != "video"]), help="Data set.")
@run_options((*VARIANTS, *EFFICIENTNETS))
@crop_options
@click.option(
    "--pretrained",
    metavar="FOLDER|NAME",
    help="Encoder from 'bsdnet-train pretrain', or of Hugging Face, such as nvidia/mit-b2; of an EfficientNet, "
    "'imagenet' or its .pth file; default: random.",
)
@click.option("--init", "initial", metavar="FOLDER|NAME", help="A trained teacher of the same classes to go on from.")
@click.option(
    "--train-split",
    type=click.Choice(["train", "trainval"]),
    default="train",
    show_default=True,
    help="Pictures to train on.",
)
@click.option("--hold-out", help="Drive or city to leave out of training and to evaluate on instead of val.")
@further_options
@machine_options
def teacher(**options: Any) -> None:  # noqa: ANN401 - click's values
    """Train a SegFormer or an EfficientNet on labels, to be a teacher.

    Evaluate it as any weights: --eval val --weights FOLDER.

    \b
    bsdnet-train teacher --dataset camvid --data-dir camvid --model efficientnet-lite2 --pretrained imagenet --output t
    bsdnet-train teacher --dataset camvid --data-dir camvid --pretrained nvidia/mit-b2 --output runs/teacher
    bsdnet-train --dataset camvid --data-dir camvid --teacher runs/teacher/best --output runs/camvid
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    require(options, "dataset", "output")
    refuse_useless(options, "further", "further_share", "further_classes")
    if options["initial"] is not None and options["pretrained"] is not None:
        raise click.UsageError("--pretrained gives an encoder and --init the whole teacher: only one of them")
    with connect(options["device"]) as (processes, device):
        data = open_data(options["dataset"], options["data_dir"], options["train_split"], options["hold_out"])
        if options["initial"] is not None and options["model"] is None:
            options = {**options, "model": variant_of(options["initial"])}
        recipe = resolve_recipe(default_teacher_recipe(options["dataset"], data), options, device)
        data = _described(data, options, "pretrained", "initial")
        data = with_further(
            data, options["dataset"], options["further"], options["further_classes"], root=options["data_dir"]
        )
        folder = make_folder(options, processes)
        trainee = build_future_teacher(
            recipe, data.train.classes, pretrained=options["pretrained"], initial=options["initial"]
        )
        workers = _workers(options, device)
        task = SegmentationTask(recipe, trainee, data, device, processes=processes, workers=workers)
        run_task(task, folder, options, processes)


cli.add_command(average)
cli.add_command(label)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: errors that a user can mend are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    is_main = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_main else logging.ERROR, format="%(message)s", stream=sys.stderr, force=True
    )
    try:
        cli.main(arguments, prog_name="bsdnet-train", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("bsdnet-train: stopped; a run that has saved a state goes on with --resume", err=True)
        sys.exit(128 + signal.SIGINT)
    except (BsdnetError, OSError) as error:
        if "--debug" in arguments:
            raise
        click.echo(f"bsdnet-train: error: {one_line(error)}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    sys.exit(0)


def _train(options: dict[str, Any]) -> None:
    name = options["dataset"]
    refuse_useless(options, "unlabelled", "unlabelled_share")
    refuse_useless(options, "further", "further_share", "further_classes")
    if options["initial"] is not None and options["pretrained"] is not None:
        raise click.UsageError("--pretrained gives a part of a network and --init the whole: only one of them")
    with connect(options["device"]) as (processes, device):
        data = open_data(
            name, options["data_dir"], options["train_split"], options["hold_out"],
            initial=options["initial"], every=options["every"],
        )  # fmt: skip
        base = RECIPES[options["recipe_name"]] if options["recipe_name"] else default_recipe(name, data)
        start = options["initial"] or options["pretrained"]
        shape = {} if start is None or holds_backbone(start) else shape_of(start)
        if name == "video" and options["initial"] is not None:
            shape["train_size"] = train_size_of(options["initial"])  # else the mean with them would mean nothing
        recipe = with_teachers(resolve_recipe(override(base, shape), options, device), name)
        data = _described(data, options, "pretrained", "initial", "teacher_classes")
        found = None
        for option, value in (("--teacher", options["teachers"]), ("--teacher-classes", options["teacher_classes"])):
            if recipe.distill == "none" and value:
                raise click.UsageError(f"{option} is of no use with --distill none")
        if recipe.distill != "none":
            mapping = options["teacher_classes"] and read_class_mapping(options["teacher_classes"])
            found = load_teacher(recipe.teachers, data.train.classes, device, class_mapping=mapping)
            if not data.labelled:
                looks = EvaluationOptions(short_side=min(recipe.train_size), precision=recipe.precision)
                data = replace(data, val=TaughtImages(data.val, found, device, looks))
        data = with_unlabelled(data, options["unlabelled"], options["every"], recipe)
        data = with_further(data, name, options["further"], options["further_classes"], root=options["data_dir"])
        student = build_student(
            recipe, data.train.classes, pretrained=options["pretrained"], initial=options["initial"]
        )
        folder = make_folder(options, processes)
        workers = _workers(options, device)
        task = SegmentationTask(recipe, student, data, device, teacher=found, processes=processes, workers=workers)
        run_task(task, folder, options, processes)


def _evaluate(options: dict[str, Any]) -> None:
    evaluation = EvaluationOptions(
        size=options["eval_size"],
        window=options["eval_window"],
        flip=options["eval_flip"],
        scales=options["eval_scales"],
        precision=options["precision"] or "fp32",
    )
    with connect(options["device"]) as (processes, device):
        report = evaluate_weights(
            options["weights"], options["dataset"], options["data_dir"], options["eval_split"], device,
            options=evaluation, processes=processes, hold_out=options["hold_out"], predictions=options["predictions"],
        )  # fmt: skip
        if processes.is_main and options["as_json"]:
            sums = [digest_of(path) for path in options["weights"]]
            made = {**describe_measurement("bsdnet-train"), "weights_sha256": sums[0] if len(sums) == 1 else sums}
            click.echo(json.dumps({**made, **report.as_dict()}, indent=2))
        elif processes.is_main:
            click.echo(report.as_table())


def _described(data: SegmentationData, options: dict[str, Any], *names: str) -> SegmentationData:
    """Add to what a run is resumed under the files that it starts from, by name: they may lie elsewhere by then."""
    files = {name: options[name] and Path(options[name]).name for name in names}
    return replace(data, description={**data.description, **files})


def _workers(options: dict[str, Any], device: torch.device) -> int:
    return default_workers(device) if options["workers"] is None else int(options["workers"])


def _refuse_options(context: click.Context) -> None:
    """Refuse options before a subcommand's name: they would be lost."""
    for name in sorted(_given(context)):
        raise click.UsageError(f"{_option(context, name)} must follow the word {context.invoked_subcommand!r}")


def _given(context: click.Context) -> set[str]:
    """Name the parameters that the command line gives."""
    names = [parameter.name or "" for parameter in context.command.params]
    return {name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _option(context: click.Context, name: str) -> str:
    return next(parameter.opts[0] for parameter in context.command.params if parameter.name == name)


if __name__ == "__main__":
    main()
