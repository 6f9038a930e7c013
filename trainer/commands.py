"""Commands of bsdnet-train beside the trainings: what is done with trained weights."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from bsdnet.checkpoint import save_checkpoint
from bsdnet.errors import ConfigError
from trainer.averaging import average_weights
from trainer.datasets.video import UnlabelledImages
from trainer.distributed import connect
from trainer.evaluation import EvaluationOptions
from trainer.interrupt import StopSignals
from trainer.labelling import PART, Labelled, label_images
from trainer.options import FILE, FOLDER, debug_option, machine_options, parse_scales
from trainer.recipes import Precision
from trainer.trained import digest_of, open_trained


@click.command()
@click.argument("weights", nargs=-1, required=True, type=FILE)
@click.option("--output", required=True, type=FILE, help="File to write, .safetensors.")
@debug_option
def average(weights: tuple[Path, ...], output: Path) -> None:
    """Average networks that went on from the same weights into one, which often bears unknown pictures better.

    Of an S and a B that began from it, the S is widened first.

    \b
    bsdnet-train average runs/a/last.safetensors runs/b/last.safetensors --output mean.safetensors
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    mean = average_weights(weights)
    save_checkpoint(output, mean.model, mean.metadata)


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--weights",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Who labels: a student's file, a teacher's folder, or FILE.py:FACTORY, a function that gives a PyTorch "
    "network; given again, an ensemble.",
)
@click.option("--output", required=True, type=FOLDER, help="Folder of the data set to write; made if missing.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Of videos and folders of pictures, the step from one frame or picture that is labelled to the next.",
)
@click.option(
    "--surely",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Probability of its likeliest class below which a pixel gets no label.",
)
@click.option(
    "--short-side",
    type=click.IntRange(min=32),
    help="Shorter side of what the networks see, in pixels; default: their own.",
)
@click.option("--flip", is_flag=True, help="Average with the mirrored picture.")
@click.option(
    "--scales", default="1", show_default=True, callback=parse_scales, help="Average over scales, such as 0.75,1,1.25."
)
@click.option(
    "--precision", type=click.Choice(get_args(Precision)), default="fp32", show_default=True, help="Number format."
)
@machine_options
def label(sources: Sequence[Path], weights: Sequence[Path], output: Path, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Label videos and pictures with trained weights, to learn from them or to correct the labels by hand.

    SOURCES are videos, pictures, folders of either, and patterns of such. What is written is a data set for
    --dataset folder and --further folder=FOLDER: pictures, label maps, classes.toml. Labelled pictures are left as
    they are, so the same command goes on where it was stopped. What cannot be read is passed over; the exit code is 1
    then. A pattern may mean --output as well, which is passed over.

    \b
    bsdnet-train label drives/*.mp4 --weights runs/a/last.safetensors --weights teacher --flip --output labelled
    bsdnet-train --dataset camvid --data-dir camvid --distill none --further folder=labelled --output runs/b
    """  # noqa: D301 - click takes the backspace for "keep these lines"
    place = output.resolve()
    others = [str(source) for source in sources if source.resolve() != place]  # drives/* may mean drives/labelled
    if not others:
        raise ConfigError(f"{output} is where the labels go: name videos or pictures that lie elsewhere")
    with connect(options["device"]) as (processes, device):
        trained = open_trained(weights, device)
        looks = EvaluationOptions(
            short_side=options["short_side"] or trained.short_side,
            flip=options["flip"],
            scales=options["scales"],
            precision=options["precision"],
        )
        settings = {
            "weights_sha256": [digest_of(path) for path in weights],
            "short_side": looks.short_side,
            "flip": looks.flip,
            "scales": looks.scales,
            "precision": looks.precision,
            "surely": options["surely"],
        }
        images = UnlabelledImages(others, trained.classes, every=options["every"])
        with StopSignals() as signals:
            done = label_images(
                images, trained, output, device, options=looks, surely=options["surely"], settings=settings,
                processes=processes, should_stop=lambda: signals.received is not None,
            )  # fmt: skip
    code = 0 if not done.unreadable else 1
    if done.stopped:
        code = 128 + (signals.received or signal.SIGTERM)
    if processes.is_main:
        _report(done, output)
    sys.exit(code)


def _report(done: Labelled, output: Path) -> None:
    if done.stopped:
        click.echo("bsdnet-train: stopped; the same command goes on from there", err=True)
        return
    share = f", {100 * done.sure:.0f} % of their pixels surely" if done.written else ""
    before = f", {done.found} had been before" if done.found else ""
    failed = f", {done.unreadable} could not be read" if done.unreadable else ""
    click.echo(f"{done.written} pictures labelled{share}{before}{failed}, in {output / 'images' / PART}")
