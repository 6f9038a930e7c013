"""Every block that a document may have: its name, the function that writes it, and the results that this takes."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.tables import accuracy, soak, speed, video


class Block(NamedTuple):
    """A piece of Markdown, and where its figures come from."""

    render: Callable[..., str]
    """Takes the content of each file: what a JSON file holds, or the text of any other."""
    files: tuple[str, ...]
    """Names in benchmarks/results."""


_RUNS = tuple(f"camvid-s-run-{number}.recipe.json" for number in (1, 2, 3))
_SPLITS = ("camvid-s.val.json", "camvid-s.test.json")
_SPLITS_B = ("camvid-b.val.json", "camvid-b.test.json")
_SPLITS_TEACHER = ("camvid-teacher.val.json", "camvid-teacher.test.json")
_PAIRS = (
    "ablation-distill-further.json",
    "ablation-distill-further-seeds-3-5.json",
    "ablation-distill-averaged.json",
    "ablation-distill-averaged-seeds-3-5.json",
)
_PEERS = ("speed-peers-cpu.json",)
_STEADINESS = ("temporal-consistency.json",)
_SMOOTHING = ("smoothing-command-cpu.json",)
_SIZES = ("size-accuracy.json",)

BLOCKS = {
    "parameters-s": Block(partial(speed.parameters, model="BSDNet-S"), _PEERS),
    "parameters-b": Block(partial(speed.parameters, model="BSDNet-B"), _PEERS),
    "miou": Block(accuracy.miou, _SPLITS),
    "miou-b": Block(accuracy.miou, _SPLITS_B),
    "by-class": Block(accuracy.by_class, (*_SPLITS, *_SPLITS_B, *_SPLITS_TEACHER)),
    "multi-scale": Block(accuracy.mean_iou, ("camvid-s-multi-scale.test.json",)),
    "full-size": Block(accuracy.mean_iou, ("camvid-s-full-size.test.json",)),
    "full-size-704": Block(accuracy.mean_iou, ("camvid-s-full-size-704.test.json",)),
    "same-pictures": Block(accuracy.mean_iou, ("camvid-s-same-pictures.test.json",)),
    "same-pictures-704": Block(accuracy.mean_iou, ("camvid-s-same-pictures-704.test.json",)),
    "drive-0001TP": Block(partial(accuracy.drive, "0001TP"), ("camvid-s.test.json",)),
    "drive-Seq05VD": Block(partial(accuracy.drive, "Seq05VD"), ("camvid-s.test.json",)),
    "drive-0001TP-b": Block(partial(accuracy.drive, "0001TP"), ("camvid-b.test.json",)),
    "drive-Seq05VD-b": Block(partial(accuracy.drive, "Seq05VD"), ("camvid-b.test.json",)),
    "recipe": Block(accuracy.recipe, _RUNS),
    "recipe-distilled": Block(accuracy.distilled_recipe, ("camvid-s-run-4.recipe.json",)),
    "recipe-distilled-further": Block(accuracy.distilled_recipe, ("camvid-s-run-5.recipe.json",)),
    "recipe-teacher": Block(accuracy.recipe, ("camvid-teacher.recipe.json",)),
    "recipe-degraded": Block(accuracy.recipe, ("camvid-s-run-6.recipe.json",)),
    "recipe-labelled": Block(accuracy.labelled_recipe, ("camvid-s-run-15.recipe.json",)),
    "recipe-lovasz": Block(accuracy.labelled_recipe, ("camvid-s-run-16.recipe.json",)),
    "recipe-cityscapes": Block(accuracy.labelled_recipe, ("camvid-s-run-17.recipe.json",)),
    "recipe-b": Block(accuracy.distilled_recipe, ("camvid-b-run-2.recipe.json",)),
    "top-1": Block(partial(accuracy.top_1, digits=1), ("pretrain-s.log",)),
    "top-1-exact": Block(partial(accuracy.top_1, digits=2), ("pretrain-s.log",)),
    "top-1-96-exact": Block(partial(accuracy.top_1, digits=2), ("pretrain-s-96.log",)),
    "pretraining-96": Block(accuracy.pretraining, ("pretrain-s-96.recipe.json",)),
    "pretraining-numbers-96": Block(accuracy.pretraining_numbers, ("pretrain-s-96.recipe.json",)),
    "top-1-b-exact": Block(partial(accuracy.top_1, digits=2), ("pretrain-b.log",)),
    "pretraining-b": Block(accuracy.pretraining, ("pretrain-b.recipe.json",)),
    "pretraining-numbers-b": Block(accuracy.pretraining_numbers, ("pretrain-b.recipe.json",)),
    "pretraining": Block(accuracy.pretraining, ("pretrain-s.recipe.json",)),
    "pretraining-numbers": Block(accuracy.pretraining_numbers, ("pretrain-s.recipe.json",)),
    "robustness": Block(accuracy.robustness, ("robustness.json",)),
    "robustness-mean": Block(accuracy.robustness_mean, ("robustness.json",)),
    "robustness-b": Block(accuracy.robustness, ("robustness-b.json",)),
    "robustness-mean-b": Block(accuracy.robustness_mean, ("robustness-b.json",)),
    "robustness-pair": Block(accuracy.robustness_pair, ("robustness-pair.json",)),
    "robustness-means": Block(accuracy.robustness_means, ("robustness-pair.json",)),
    "half-precision": Block(accuracy.half_precision, ("precision-cpu.json",)),
    "teacher": Block(accuracy.teacher, ("teacher-b1-camvid-0001TP.json",)),
    "distillation": Block(accuracy.distillation, ("ablation-distill.json",)),
    "pairs": Block(accuracy.pairs, _PAIRS),
    "adaptation": Block(accuracy.adaptation, ("adaptation.json", "adaptation-ensemble.json")),
    "peers": Block(speed.peers, _PEERS),
    "naive-pipeline": Block(speed.naive_pipeline, ("naive-pipeline-s-cpu.json", "naive-pipeline-b-cpu.json")),
    "naive-pipeline-without-bf16": Block(speed.naive_pipeline_without_bf16, ("naive-pipeline-s-cpu-fp32.json",)),
    "whole-command": Block(
        speed.whole_command, ("end-to-end-cpu.json", "end-to-end-seg50-cpu.json", "pipeline-cpu.json")
    ),
    "smoothing-share": Block(speed.smoothing_share, _SMOOTHING),
    "smoothing-pairs": Block(speed.smoothing_pairs, _SMOOTHING),
    "training": Block(
        speed.training, ("training-speed-cpu.json", "training-speed-sidm-cpu.json", "training-memory-b-cpu.json")
    ),
    "schemes": Block(video.schemes, _STEADINESS),
    "other-frames": Block(video.other_frames, _STEADINESS),
    "smoothed-classes": Block(video.smoothed_classes, _STEADINESS),
    "losing-classes": Block(video.losing_classes, _STEADINESS),
    "cuts": Block(video.cuts, _STEADINESS),
    "smoothing-cost": Block(video.cost, _STEADINESS),
    "smoothing-own-share": Block(video.own_share, _STEADINESS),
    "sizes": Block(video.sizes, _SIZES),
    "size-losses": Block(video.size_losses, _SIZES),
    "damage": Block(soak.damage, ("soak-damage.json",)),
    "kills": Block(soak.kills, ("soak-kill.json",)),
    "latency": Block(soak.latency, ("live-latency-rtsp.json",)),
    "outages": Block(soak.outages, ("live-memory-rtsp.json",)),
    "viewer": Block(soak.viewer, ("viewer-cpu.json",)),
}
