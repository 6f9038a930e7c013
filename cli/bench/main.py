"""bsdnet-bench: how fast it is here, and against others."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from cli.bench.options import (
    DEFAULT_SIZES,
    backend_option,
    json_option,
    markdown_option,
    parse_exact_size,
    parse_modules,
    parse_plot,
    rounds_option,
    sizes_option,
    weights_option,
)
from cli.command import configure_logging, run_command
from cli.options import BACKENDS, PRECISIONS, debug_option, device_option, options, precision_option

_NAME = "bsdnet-bench"
_FRAME_SIZE = click.option(
    "--frame-size",
    callback=parse_exact_size,
    metavar="SIZE",
    help="Size of the whole frames, as --size.  [default: the network's input]",
)


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@options(
    click.option(
        "--model",
        "models",
        type=click.Choice(["s", "b"]),
        multiple=True,
        help="BSDNet-S or -B with the weights that ship; may be given again.  [default: s and b]",
    ),
    click.option(
        "--weights", multiple=True, metavar="FILE", help="Network from bsdnet-train to measure; may be given again."
    ),
    click.option(
        "--module",
        "modules",
        multiple=True,
        callback=parse_modules,
        metavar="FILE.py:FACTORY",
        help="Anybody's torch.nn.Module, made by calling FACTORY(), to measure alone; may be given again.",
    ),
    sizes_option(DEFAULT_SIZES),
    click.option(
        "--backend",
        "backends",
        type=click.Choice(BACKENDS),
        multiple=True,
        default=("auto",),
        show_default=True,
        help="How the networks are run; may be given again.",
    ),
    click.option(
        "--precision",
        "precisions",
        type=click.Choice(PRECISIONS),
        multiple=True,
        default=("auto",),
        show_default=True,
        help="Number format of the networks; may be given again.",
    ),
    device_option,
    rounds_option(10),
    click.option(
        "--with-frame/--model-only",
        "with_frame",
        default=True,
        show_default=True,
        help="Whether whole frames, from RGB to the drawn overlay, are measured too.",
    ),
    _FRAME_SIZE,
    click.option("--memory/--no-memory", default=True, show_default=True, help="Whether to measure peak memory."),
    json_option,
    markdown_option,
    click.option(
        "--plot",
        callback=parse_plot,
        metavar="FILE",
        help="Picture of speed over size beside the paper's, such as .png; needs matplotlib.",
    ),
    debug_option,
)
@click.version_option(package_name="bsdnet")
@click.pass_context
def bench(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401 - click's values
    """Measure the speed of networks, of whole frames and of the parts of the pipeline.

    Without a command: a table of model, input size, backend and precision, all interleaved in one run; what cannot
    run here says why. Ctrl-C ends it with the rounds that are complete. Exit codes: 0 done; 1 error; 2 wrong usage;
    130 stopped by Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        given = [name for name in values if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise click.UsageError(f"options of {context.invoked_subcommand} come after its name")
        return
    _configure(values)
    from bsdnet.devices import select_device
    from cli.bench.candidates import load_candidates
    from cli.bench.measure import Case, Settings, measure, require_any
    from cli.bench.progress import require_all
    from cli.bench.report import write_speed

    settings = Settings(
        device=select_device(values["device"]),
        rounds=values["rounds"],
        with_frame=values["with_frame"],
        frame_size=values["frame_size"],
        memory=values["memory"],
    )
    models = values["models"] or (() if values["weights"] else ("s", "b"))
    candidates = load_candidates([*models, *values["weights"], *values["modules"]])
    cases = [
        Case(candidate=candidate, size=size, backend=backend, precision=precision)
        for candidate in candidates
        for size in values["sizes"]
        for backend in values["backends"]
        for precision in values["precisions"]
    ]
    rows, measured = measure(cases, settings)
    write_speed(rows, measured, values)
    require_all(measured.rounds, settings.rounds)
    require_any(rows)


@bench.command()
@options(
    click.argument("source", default="demo"),
    weights_option,
    click.option(
        "--size",
        callback=parse_exact_size,
        metavar="SIZE",
        help="Size at which the network sees frames: WIDTHxHEIGHT, seg50, seg75 or seg100.  [default: as bsdnet-run]",
    ),
    device_option,
    backend_option,
    precision_option,
    click.option(
        "--frames", type=click.IntRange(min=8), default=100, show_default=True, help="Frames of each measurement."
    ),
    rounds_option(3),
    json_option,
    markdown_option,
    debug_option,
)
def pipeline(**values: Any) -> None:  # noqa: ANN401
    """Measure decode, infer, render and encode alone, then together, and name the bottleneck.

    SOURCE is a video file, a folder or glob pattern of images, or demo: the drawn street, which is drawn and written
    to a temporary video first.  [default: demo]
    """
    _configure(values)
    from cli.bench.pipeline import measure_pipeline, write_pipeline
    from cli.bench.progress import require_all

    result = measure_pipeline(values)
    write_pipeline(result, values)
    require_all(result.rounds, values["rounds"])


@bench.command()
@options(
    click.option("--model", type=click.Choice(["s", "b"]), default="s", show_default=True, help="BSDNet-S or -B."),
    sizes_option(("seg50",)),
    device_option,
    backend_option,
    precision_option,
    rounds_option(20),
    json_option,
    markdown_option,
    debug_option,
)
def blocks(**values: Any) -> None:  # noqa: ANN401
    """Measure the paper's blocks and context modules in BSDNet side by side (its tables 4 and 5)."""
    _configure(values)
    from cli.bench.blocks import measure_blocks

    measure_blocks(values)


@bench.command()
@options(
    weights_option,
    sizes_option(()),
    click.option(
        "--frame-size",
        callback=parse_exact_size,
        metavar="SIZE",
        help="Size of a video or camera: builds for the input size that bsdnet-run would choose for it.",
    ),
    device_option,
    backend_option,
    precision_option,
    debug_option,
)
def export(**values: Any) -> None:  # noqa: ANN401
    """Build engines ahead, so that bsdnet-run starts at once."""
    if not values["sizes"] and values["frame_size"] is None:
        raise click.UsageError("nothing to build: give --size, --frame-size, or both")
    _configure(values)
    from cli.bench.export import export_engines

    export_engines(values)


def _configure(values: dict[str, Any]) -> None:
    targets = [target for name in ("json", "markdown", "plot") if (target := values.get(name)) is not None]
    if len({target.resolve() for target in targets}) < len(targets):
        raise click.UsageError("the reports would overwrite each other; give each a file of its own")
    for path in targets:
        if path.resolve() in _read_by(values):
            raise click.UsageError(f"{path} is read, a report would overwrite it")
    configure_logging(_NAME, debug=values["debug"], level=logging.INFO)


def _read_by(values: dict[str, Any]) -> set[Path]:
    """The files that a command's options have it read."""
    weights = values.get("weights", ())
    texts = [
        *((weights,) if isinstance(weights, str) else weights),
        *(spec.rpartition(":")[0] for spec in values.get("modules", ())),
        values.get("source", ""),
    ]
    return {path.resolve() for path in map(Path, texts) if path.is_file()}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: errors that a user can mend are one line on stderr."""
    run_command(bench, _NAME, arguments)


if __name__ == "__main__":
    main()
