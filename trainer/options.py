"""The options of bsdnet-train, in groups that its commands share."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import torch

from bsdnet.devices import computes_bf16
from trainer.data import FURTHER
from trainer.overrides import override, parse_settings, read_toml
from trainer.recipes import OptimizerRecipe, Precision

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Recipe = TypeVar("_Recipe", bound=OptimizerRecipe)

logger = logging.getLogger(__name__)

# `main` looks for it among the arguments: errors leave the command before anybody there could know its value.
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")


def parse_size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Turn `480x352` on the command line into `(352, 480)`."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; expected WIDTHxHEIGHT, such as 480x352", context, parameter)
    return int(match[2]), int(match[1])


def parse_scales(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    """Turn `0.75,1,1.25` on the command line into numbers."""
    try:
        return tuple(float(scale) for scale in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers, such as 0.75,1,1.25, got {value!r}", context, parameter) from None


def parse_further(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[tuple[str, Path], ...]:
    """Turn `labelmefacade=FOLDER` on the command line into the name and the folder."""
    parsed = []
    for value in values:
        name, equals, folder = value.partition("=")
        if name not in FURTHER or not equals or not folder:
            names = ", ".join(FURTHER)
            raise click.BadParameter(f"expected NAME=FOLDER with a name of {names}, got {value!r}", context, parameter)
        parsed.append((name, Path(folder)))
    return tuple(parsed)


def run_options(models: Sequence[str]) -> Callable[[_Command], _Command]:
    """Add what all trainings share, each option named as the recipe's field that it overrides."""
    return _all_of(
        click.option("--model", type=click.Choice(models), help="Network; default: the recipe's."),
        click.option("--data-dir", type=FOLDER, help="Folder of the data set."),
        click.option("--output", type=FOLDER, help="Folder of the run; made if missing."),
        click.option("--resume", is_flag=True, help="Go on with the run in --output, exactly where it stopped."),
        click.option("--config", type=FILE, help="TOML file of recipe fields, such as the recipe.toml of a run."),
        click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE",
                     help="Override any field of the recipe; may be given again. Overrides --config."),
        click.option("--iterations", type=int, help="Steps of the run; default: the recipe's."),
        click.option("--epochs", type=int, help="Passes over the data; default: the recipe's."),
        click.option("--batch-size", type=int, help="Pictures in a step, over all processes; default: the recipe's."),
        click.option("--accumulation", type=int, help="Parts that a step is computed in, to save memory; default: 1."),
        click.option("--lr", type=float, help="Peak learning rate; default: the recipe's."),
        click.option("--ema-decay", type=float, help="Keep a moving average of the weights, such as 0.999; 0: none."),
        click.option("--precision", type=click.Choice(get_args(Precision)),
                     help="Number format; default: bf16 where the device computes in it, else fp32; of --eval fp32."),
        click.option("--seed", type=int, help="Seed of weights, order and augmentation; default: the recipe's."),
        click.option("--eval-every", type=click.IntRange(min=1), help="Steps between evaluations; default: ten a run."),
        click.option("--save-every", type=click.IntRange(min=1), default=200, show_default=True,
                     help="Steps between saved states."),
        click.option("--workers", type=click.IntRange(min=0),
                     help="Processes that prepare pictures; default: 0 on a CPU, up to 16 beside a GPU."),
        click.option("--compile", "compile_network", is_flag=True, help="Run torch.compile over the network."),
        click.option("--tensorboard", is_flag=True, help="Write scalars and pictures for TensorBoard into --output."),
    )  # fmt: skip


def crop_options(command: _Command) -> _Command:
    """Add how pictures are augmented and the cross-entropy is weighed; all off in the paper's recipes."""
    return _all_of(
        click.option("--crop-size", callback=parse_size, metavar="WIDTHxHEIGHT",
                     help="Size of the training crops; default: the recipe's."),
        click.option("--color-jitter", type=float, help="Strength of random colours, 0 to 0.9; default: the recipe's."),
        click.option("--degradation", type=float,
                     help="Share of the crops with noise, blur, JPEG, low light, haze, 0 to 1; default: the recipe's."),
        click.option("--class-mix", type=float,
                     help="Share of the crops with half of the classes of another, 0 to 1; default: the recipe's."),
        click.option("--class-balance", type=float,
                     help="Share of the crops that show a class drawn uniformly, 0 to 1; default: the recipe's."),
        click.option("--hard-pixel-share", type=float,
                     help="Share of the pixels that are learnt from, the hardest, up to 1; default: the recipe's."),
    )(command)  # fmt: skip


def further_options(command: _Command) -> _Command:
    """Add other data sets to learn from beside a run's own."""
    return _all_of(
        click.option("--further", multiple=True, callback=parse_further, metavar="NAME=FOLDER",
                     help=f"Another data set ({', '.join(FURTHER)}) to learn from beside --dataset, as far as its "
                     "labels say what that one's do; may be given again."),
        click.option("--further-classes", type=FILE,
                     help="TOML file of which of --further's classes make which; default: those of the same name."),
        click.option("--further-share", type=float,
                     help="Share of the labelled crops that are of --further; default: the recipe's, 0.5."),
    )(command)  # fmt: skip


def refuse_useless(options: dict[str, Any], needed: str, *names: str) -> None:
    """Refuse options that are of no use without another.

    Raises:
        click.UsageError: one of `names` is given, and `needed` is not.
    """
    for name in names:
        if options[name] is not None and not options[needed]:
            raise click.UsageError(f"--{name.replace('_', '-')} is of no use without --{needed}")


def machine_options(command: _Command) -> _Command:
    """Add the options that say where to compute and how much to tell."""
    return _all_of(
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
        debug_option,
    )(command)


def resolve_recipe(recipe: _Recipe, options: dict[str, Any], device: torch.device) -> _Recipe:
    """Apply --config, then --set, then the options that are named as a field.

    A precision that none of them names is one that the device computes in.

    Raises:
        ConfigError: a field is unknown, or its value cannot work.
    """
    config = {} if options["config"] is None else read_toml(options["config"])
    settings = parse_settings(options["settings"], type(recipe))
    fields = recipe.__dataclass_fields__
    given = {name: value for name, value in options.items() if name in fields and value not in (None, ())}
    for changes in (config, settings, given):
        recipe = override(recipe, changes)
    if recipe.precision == "bf16" and not computes_bf16(device):
        if any("precision" in changes for changes in (config, settings, given)):
            logger.warning("warning: %s has no bf16 arithmetic of its own, fp32 is faster", device)
        else:
            recipe = override(recipe, {"precision": "fp32"})
    return recipe


def require(options: dict[str, Any], *names: str) -> None:
    """Refuse a command line that lacks an option.

    Raises:
        click.UsageError: it does.
    """
    for name in names:
        if options[name] in (None, ()):
            raise click.UsageError(f"--{name.replace('_', '-')} is missing")


def _all_of(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
