"""Time training steps as bsdnet-train makes them against the same steps made naively, interleaved, medians.

    python -m benchmarks.training_speed --data-dir camvid --output benchmarks/results/training-speed-cpu.json
    python -m benchmarks.training_speed --data-dir camvid --teacher runs/teacher/best --device cuda --workers 8
    python -m benchmarks.training_speed --memory --model b --crop-size 1024x1024 --device cuda

Naive is fp32, PyTorch's default memory order, a cross-entropy over the whole batch at once, and pictures that are read
and augmented between the steps. Ours is what the command does by default: half precision where the device computes in
it, channels_last, and worker processes where there are cores for them.
"""

import json
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from bsdnet.classes import CAMVID_11
from bsdnet.devices import computes_bf16
from bsdnet.machine import describe_measurement
from trainer.data import default_recipe, open_data
from trainer.device import place
from trainer.objective import SegmentationObjective
from trainer.options import parse_size
from trainer.recipes import CAMVID_360, SegmentationRecipe
from trainer.segmentation import SegmentationTask
from trainer.teacher import load_teacher
from trainer.trainees import build_student


@click.command()
@click.option("--dataset", default="camvid", show_default=True, help="As of bsdnet-train.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--model", default="s", show_default=True)
@click.option("--teacher", help="Folder or name; default: none, labels alone.")
@click.option("--crop-size", callback=parse_size, metavar="WIDTHxHEIGHT", help="Default: the recipe's.")
@click.option("--batch-size", default=8, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--workers", default=0, show_default=True, help="Of our steps; the naive ones have none.")
@click.option("--steps", default=12, show_default=True, help="Timed steps of each, after two that are not.")
@click.option("--memory", is_flag=True, help="Measure the memory of one step on random pictures instead.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(**options: Any) -> None:
    """Time training steps, or measure the memory of one."""
    device = torch.device(options["device"])
    results = _memory(device, options) if options["memory"] else _speed(device, options)
    report = {
        **describe_measurement("python -m benchmarks.training_speed"),
        "results": results,
    }
    click.echo(json.dumps(results, indent=2))
    if options["output"] is not None:
        options["output"].write_text(json.dumps(report, indent=2) + "\n")


def _speed(device: torch.device, options: dict[str, Any]) -> dict[str, Any]:
    data = open_data(options["dataset"], options["data_dir"], "train", None)
    recipe = _recipe(default_recipe(options["dataset"], data), options)
    teacher = load_teacher([options["teacher"]], data.train.classes, device) if options["teacher"] else None
    runs = {}
    for name, workers, changed in (
        ("ours", options["workers"], recipe),
        ("naive", 0, replace(recipe, precision="fp32", channels_last=False)),
    ):
        student = build_student(changed, data.train.classes)
        task = SegmentationTask(changed, student, data, device, teacher=teacher, workers=workers)
        if name == "naive":
            task.objective.__class__ = _NaiveObjective  # all that the task has given it stays
        runs[name] = _steps(task, device)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options["steps"] + 2):
        for name, run in runs.items():
            times[name].append(next(run))
    results: dict[str, Any] = {}
    for name, pairs in times.items():
        data_s, step_s = (statistics.median(column) for column in zip(*pairs[2:], strict=True))
        results[name] = {
            "images_per_s": round(recipe.batch_size / step_s, 2),
            "step_s": round(step_s, 4),
            "data_share": round(data_s / step_s, 4),
        }
    results["ratio"] = round(results["ours"]["images_per_s"] / results["naive"]["images_per_s"], 2)
    return results


class _NaiveObjective(SegmentationObjective):
    """Enlarges the logits of the whole batch at once."""

    def _cross_entropy(self, logits: Tensor, labels: Tensor, valid_pixels: Tensor) -> Tensor:
        enlarged = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        weights = self._class_weights
        return F.cross_entropy(enlarged, labels, weights, ignore_index=255, reduction="sum") / valid_pixels


def _steps(task: SegmentationTask, device: torch.device) -> Iterator[tuple[float, float]]:
    """Make training steps; give the seconds that each waited for its pictures, and that it took in all."""
    objective, optimizer = task.objective.train(), task.optimizer()
    batches = iter(task.batches(0))
    while True:
        start_s = time.perf_counter()
        images, labels = next(batches)
        data_s = time.perf_counter() - start_s
        _step(objective, optimizer, images, labels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield data_s, time.perf_counter() - start_s


def _step(objective: SegmentationObjective, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    objective(images, labels, objective.count_valid(labels))["loss"].backward()
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 5.0)
    optimizer.step()


def _memory(device: torch.device, options: dict[str, Any]) -> dict[str, Any]:
    """Measure the peak of a step of a fresh process; on a CPU that of the whole process, as the system counts it."""
    recipe = _recipe(CAMVID_360, options)
    teacher = load_teacher([options["teacher"]], CAMVID_11, device) if options["teacher"] else None
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    student = build_student(recipe, CAMVID_11)
    network = place(student.network, device)
    objective = SegmentationObjective(network, recipe, teacher=teacher).to(device).train()
    optimizer = torch.optim.AdamW(objective.parameters())
    height, width = recipe.crop_size
    images = torch.randn(recipe.batch_size, 3, height, width, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 11, (recipe.batch_size, height, width), device=device)
    for _ in range(2):  # the second one has the optimizer's moments
        _step(objective, optimizer, images, labels)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * 1024
    return {"model": recipe.model, "batch_size": recipe.batch_size, "crop_size": [height, width],
            "distill": recipe.distill, "precision": recipe.precision, "peak_gib": round(peak / 2**30, 2)}  # fmt: skip


def _recipe(recipe: SegmentationRecipe, options: dict[str, Any]) -> SegmentationRecipe:
    return replace(
        recipe,
        precision=recipe.precision if computes_bf16(torch.device(options["device"])) else "fp32",
        model=options["model"],
        batch_size=options["batch_size"],
        crop_size=options["crop_size"] or recipe.crop_size,
        epochs=None,
        iterations=10_000,
        distill="sidm" if options["teacher"] else "none",
    )


if __name__ == "__main__":
    main()
