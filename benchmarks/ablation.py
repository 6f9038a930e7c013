r"""Run one of the paper's ablation tables at a small budget: paired seeds, one bsdnet-train for every row and seed.

    python -m benchmarks.ablation distill --data-dir camvid --teacher runs/teacher/best --iterations 600 \
        --pretrained checkpoints/backbone-s-tiny-imagenet.safetensors --hold-out 0001TP --runs runs/ablation

    python -m benchmarks.ablation distill --row "student alone" --row "+ SIDM" --data-dir camvid --split test \
        --teacher checkpoints/teacher-camvid --init s.safetensors --average --iterations 300 --crop-size 480x352 \
        --set cwd_weight=5 --set ofa_weight=0.3 --set lr=4e-4 --set warmup_iterations=20 --runs runs/pairs

Each row is the recipe with the options below changed; rows of one seed share their initial weights, the order of the
pictures and every augmentation, so that their difference is worth more than their spread. Runs that are finished are
kept: the same command goes on where it was stopped. All are judged after their last step, none by its best.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from benchmarks.runs import keep_to_command
from bsdnet.machine import describe_measurement

TABLES: dict[str, dict[str, list[str]]] = {
    "distill": {
        "student alone": ["--distill", "none"],
        "+ CWD": ["--distill", "cwd"],
        "+ OFA": ["--distill", "ofa"],
        "+ SIDM": ["--distill", "sidm"],
    },
    "theta": {f"theta {theta}": ["--distill", "sidm", "--theta", theta] for theta in
              ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6")},
    "block": {block: ["--distill", "none", "--block", block] for block in
              ("res", "segformer", "gfa", "mscan", "cf", "fcb")},
    "context": {context: ["--distill", "none", "--context", context] for context in
                ("aspp", "dappm", "dasp-max", "dasp-avg")},
    "components": {
        "residual blocks, DAPPM": ["--distill", "none", "--block", "res", "--context", "dappm"],
        "+ FCB": ["--distill", "none", "--context", "dappm"],
        "+ DASP": ["--distill", "none"],
        "+ SIDM": ["--distill", "sidm"],
    },
}  # fmt: skip
"""The paper's tables 6, 4 and 5, figure 7 and table 7: by row, what differs. Differences are to a table's first row."""


@click.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.option("--dataset", default="camvid", show_default=True, help="As of bsdnet-train.")
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--teacher", help="As of bsdnet-train, for rows that distil.")
@click.option("--pretrained", type=click.Path(path_type=Path), help="Backbone; default: random weights.")
@click.option("--init", "initial", type=click.Path(path_type=Path), help="Weights of a whole network to go on from.")
@click.option("--average", is_flag=True, help="Judge the mean of each run's weights and those of --init.")
@click.option("--row", "chosen", multiple=True, help="A row to run; the first one is what others are compared with.")
@click.option("--model", default="s", show_default=True)
@click.option("--hold-out", help="Recording to judge by, left out of training; default: judge by --split.")
@click.option(
    "--split", type=click.Choice(["val", "test"]), default="val", show_default=True, help="Pictures to judge by."
)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--iterations", default=600, show_default=True, help="Steps of each run.")
@click.option("--crop-size", default="352x256", show_default=True, help="WIDTHxHEIGHT.")
@click.option("--set", "settings", multiple=True, help="As of bsdnet-train, for every row.")
@click.option("--runs", type=click.Path(path_type=Path), required=True, help="Folder of the runs.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for TABLE.json, .md and .png; default: --runs.")
@click.option("--note", default="", help="A sentence for the report, such as what the teacher scores.")
def main(table: str, **options: Any) -> None:
    """Run TABLE and write its report."""
    if table == "theta" and importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("the curve needs matplotlib: pip install 'bsdnet[bench]'")
    if options["average"] and not options["initial"]:
        raise click.UsageError("--average is the mean with --init, which is not given")
    names = options["chosen"] or list(TABLES[table])
    if unknown := [name for name in names if name not in TABLES[table]]:
        raise click.UsageError(f"{table} has no row {', '.join(unknown)}; it has {', '.join(TABLES[table])}")
    rows = {name: TABLES[table][name] for name in names}
    seeds = [int(seed) for seed in options["seeds"].split(",")]
    output = options["output"] or options["runs"]
    if not output.is_dir() and output != options["runs"]:
        raise click.UsageError(f"--output {output} is no folder")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for seed in seeds:  # all rows of a seed before the next one: a run that is stopped leaves whole pairs
        for name, arguments in rows.items():
            folder = options["runs"] / f"{table}-{'-'.join(part.strip('-') for part in arguments)}-seed{seed}"
            results[name].append(_run(folder, arguments, seed, options))
    report = _report(table, results, seeds, options)
    (output / f"ablation-{table}.json").write_text(json.dumps(report, indent=2) + "\n")
    (output / f"ablation-{table}.md").write_text(_markdown(report))
    if table == "theta":
        _draw(report, output / f"ablation-{table}.png")
    click.echo(_markdown(report))


def _run(folder: Path, arguments: list[str], seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one row with one seed, as far as that was not done before."""
    split = "train" if options["hold_out"] else options["split"]
    command = _command(arguments, seed, options)
    keep_to_command(folder, command)
    kept = folder / f"result-{split}{'-mean' if options['average'] else ''}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    seconds = _train(folder, command)
    weights = folder / "last.safetensors"
    if options["average"]:
        weights = folder / "mean.safetensors"
        _bsdnet_train("average", options["initial"], folder / "last.safetensors", "--output", weights)
    found = _bsdnet_train(*_data(options), "--eval", split, "--weights", weights, "--json")
    result = {"seed": seed, "seconds": seconds, **json.loads(found)}
    kept.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(f"{folder.name}: mIoU {100 * result['miou']:.2f}, {seconds / 60:.1f} minutes", err=True)
    return result


def _data(options: dict[str, Any]) -> list[str]:
    hold_out = ["--hold-out", options["hold_out"]] if options["hold_out"] else []
    return ["--dataset", options["dataset"], "--data-dir", str(options["data_dir"]), *hold_out]


def _bsdnet_train(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "trainer.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else " ".join(command))
    return done.stdout


def _command(arguments: list[str], seed: int, options: dict[str, Any]) -> list[str]:
    """Write down how one row with one seed is trained."""
    iterations = str(options["iterations"])
    command = [
        *_data(options), *arguments, "--model", options["model"], "--seed", str(seed), "--iterations", iterations,
        "--eval-every", iterations, "--crop-size", options["crop_size"],
        *(part for setting in options["settings"] for part in ("--set", setting)),
    ]  # fmt: skip
    for option, path in (("--pretrained", options["pretrained"]), ("--init", options["initial"])):
        if path:
            command += [option, str(path)]
    if "none" not in arguments and options["teacher"]:
        command += ["--teacher", options["teacher"]]
    return command


def _train(folder: Path, command: list[str]) -> int:
    """Train, unless that was done before; give the seconds that it took, since it was last resumed."""
    trained = folder / "seconds"
    if trained.is_file():
        return int(trained.read_text())
    place = ["--output", str(folder), *(["--resume"] if (folder / "state.pt").is_file() else [])]
    start_s = time.perf_counter()
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run([sys.executable, "-m", "trainer.main", *command, *place], stderr=log, stdout=log)
    if done.returncode:
        raise click.ClickException(f"{folder.name} has failed; the reason is in {folder / 'log.txt'}")
    seconds = round(time.perf_counter() - start_s)
    trained.write_text(f"{seconds}\n")
    return seconds


def _report(
    table: str, results: dict[str, list[dict[str, Any]]], seeds: list[int], options: dict[str, Any]
) -> dict[str, Any]:
    scores = {name: [100 * run["miou"] for run in runs] for name, runs in results.items()}
    base = next(iter(scores.values()))
    rows = []
    for name, row in scores.items():
        differences = [score - other for score, other in zip(row, base, strict=True)]
        rows.append(
            {
                "row": name,
                "options": TABLES[table][name],
                "miou": [round(score, 2) for score in row],
                "mean": round(statistics.mean(row), 2),
                "deviation": round(_deviation(row), 2),
                "difference": [round(difference, 2) for difference in differences],
                "mean_difference": round(statistics.mean(differences), 2),
                "difference_deviation": round(_deviation(differences), 2),
                "iou": {key: _mean_iou(run["iou"][key] for run in results[name]) for key in results[name][0]["iou"]},
                "minutes": round(statistics.mean(run["seconds"] for run in results[name]) / 60, 1),
            }
        )  # fmt: skip
    budget = {
        key: options[key]
        for key in ("dataset", "model", "hold_out", "iterations", "crop_size", "settings", "average", "note")
    }
    budget["split"] = None if options["hold_out"] else options["split"]
    started = {"pretrained": bool(options["pretrained"]), "initial": bool(options["initial"]), "seeds": seeds}
    return {"table": table, **describe_measurement("python -m benchmarks.ablation"), **budget, **started, "rows": rows}


def _mean_iou(shares: Iterable[float | None]) -> float | None:
    """Average in per cent; None for a class that is nowhere."""
    known = [share for share in shares if share is not None]
    return round(100 * statistics.mean(known), 1) if known else None


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _markdown(report: dict[str, Any]) -> str:
    judged = f"the held-out recording {report['hold_out']}" if report["hold_out"] else report["split"]
    start = "a pretrained backbone" if report["pretrained"] else "random weights"
    if report["initial"]:
        start = "trained weights"
    averaged = ", averaged with what they went on from" if report["average"] else ""
    lines = [
        f"# Ablation: {report['table']}",
        "",
        f"BSDNet-{report['model'].upper()} on {report['dataset']}, {report['iterations']} steps of crops of "
        f"{report['crop_size']} from {start}, seeds {', '.join(map(str, report['seeds']))}, judged by {judged} after "
        f"the last step{averaged}; mIoU in per cent. The difference is to the first row, pair by pair of seeds.",
        *(["", report["note"]] if report["note"] else []),
        "",
        "| | mIoU of each seed | mean | deviation | difference of each seed | mean difference | deviation | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        scores, differences = (" ".join(f"{value:{form}}" for value in row[key])
                               for key, form in (("miou", ".2f"), ("difference", "+.2f")))  # fmt: skip
        lines.append(
            f"| {row['row']} | {scores} | {row['mean']:.2f} | {row['deviation']:.2f} | {differences} | "
            f"{row['mean_difference']:+.2f} | {row['difference_deviation']:.2f} | {row['minutes']} |"
        )
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return "\n".join([*lines, "", f"Machine: {machine}.", ""])


def _draw(report: dict[str, Any], path: Path) -> None:
    """Draw the curve over theta, the paper's figure 7."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    thetas = [float(row["row"].removeprefix("theta ")) for row in report["rows"]]
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for index in range(len(report["seeds"])):
        scores = [row["miou"][index] for row in report["rows"]]
        axes.plot(thetas, scores, "o", color="0.7", label="each seed" if index == 0 else None)
    axes.plot(thetas, [row["mean"] for row in report["rows"]], "o-", color="tab:blue", label="mean")
    axes.set(xlabel="θ", ylabel="mIoU (%)", title=f"{report['dataset']}, {report['iterations']} steps")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
