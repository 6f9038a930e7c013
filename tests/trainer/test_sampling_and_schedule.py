from dataclasses import replace
from itertools import chain

import pytest
import torch

from bsdnet.errors import ConfigError
from tests.trainer.tiny import TINY
from trainer.distributed import Processes
from trainer.pretrain import Classifier
from trainer.recipes import CAMVID_360, CITYSCAPES_SEG50, TEACHER_CAMVID_360, TINY_IMAGENET, iterations_of
from trainer.sampling import PositionSampler
from trainer.schedule import build_optimizer, learning_rate, set_learning_rate


def drawn(start: int, stop: int, seed: int = 3) -> list[tuple[int, int]]:
    return [pair for batch in PositionSampler(10, 4, seed=seed, start=start, stop=stop) for pair in batch]


def test_each_pass_shows_every_example_once():
    examples = [example for example, _ in drawn(0, 10)]
    passes = [examples[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_a_resumed_run_draws_what_was_left():
    assert drawn(3, 10) == drawn(0, 10)[12:]
    assert [position for _, position in drawn(3, 10)] == list(range(12, 40))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_each_batch(count: int):
    shares = [
        list(PositionSampler(10, 8, seed=3, start=0, stop=5, processes=Processes(rank=rank, count=count)))
        for rank in range(count)
    ]
    whole = list(PositionSampler(10, 8, seed=3, start=0, stop=5))
    assert [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)] == whole


def test_another_seed_draws_another_order():
    assert drawn(0, 10) != drawn(0, 10, seed=4)


def test_the_rate_rises_then_falls_to_zero():
    recipe = replace(CAMVID_360, lr=1.0, warmup_iterations=10)
    rates = [learning_rate(recipe, iteration, 100) for iteration in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5**0.9)
    assert rates[99] == pytest.approx((1 / 90) ** 0.9)
    assert rates.index(max(rates)) == 9
    assert learning_rate(replace(recipe, poly_power=2.0), 55, 100) == pytest.approx(0.25)


def test_a_short_run_still_warms_up_and_decays():
    rates = [learning_rate(replace(CAMVID_360, warmup_iterations=200), iteration, 4) for iteration in range(4)]
    assert rates[1] > rates[0]
    assert rates[3] < rates[2]


def test_only_kernels_decay():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    decayed, kept = build_optimizer(model, CAMVID_360).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert (decayed["weight_decay"], kept["weight_decay"], len(kept["params"])) == (CAMVID_360.weight_decay, 0, 3)
    model[0].requires_grad_(False)
    assert [len(group["params"]) for group in build_optimizer(model, CAMVID_360).param_groups] == [0, 2]


def test_a_head_learns_at_a_rate_of_its_own():
    encoder, head = torch.nn.Linear(2, 3), torch.nn.Linear(3, 4)
    model = torch.nn.Sequential(encoder, head)
    optimizer = build_optimizer(model, CAMVID_360, head=list(head.parameters()), head_lr_factor=10)
    set_learning_rate(optimizer, 0.01)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == pytest.approx([0.01, 0.01, 0.1, 0.1])
    assert [decays[id(p)] for p in model.parameters()] == [CAMVID_360.weight_decay, 0, CAMVID_360.weight_decay, 0]


def test_stripe_kernels_and_linear_layers_decay_too():
    model = Classifier(TINY, 5, "bsdnet_s")
    decayed = {id(parameter) for parameter in build_optimizer(model, CAMVID_360).param_groups[0]["params"]}
    kernels = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert {"linear.weight", "backbone.stage4.1.attention.kernels_h", "backbone.stem.0.0.weight"} <= kernels
    assert not any(name.endswith("bias") or "norm" in name for name in kernels)


def test_iterations_count_whole_batches():
    assert iterations_of(replace(CAMVID_360, epochs=3, batch_size=8), 10) == 3
    assert iterations_of(replace(CAMVID_360, epochs=None, iterations=7), 10) == 7


@pytest.mark.parametrize(
    ("recipe", "field", "value"),
    [
        (CAMVID_360, "epochs", 0),
        (CAMVID_360, "epochs", None),
        (CAMVID_360, "iterations", 5),
        (CAMVID_360, "accumulation", 0),
        (CAMVID_360, "ema_decay", 1.0),
        (CAMVID_360, "precision", "int8"),
        (CAMVID_360, "distill", "some"),
        (CAMVID_360, "theta", 0.0),
        (CAMVID_360, "temperature", -1.0),
        (CAMVID_360, "cwd_weight", -1.0),
        (CAMVID_360, "hard_pixel_share", 0.0),
        (CAMVID_360, "class_balance", 1.1),
        (CAMVID_360, "lovasz_weight", -0.1),
        (CAMVID_360, "auxiliary_weight", float("nan")),
        (TEACHER_CAMVID_360, "distill", "cwd"),
        (TEACHER_CAMVID_360, "head_lr_factor", 0.0),
        (CAMVID_360, "batch_size", 1),
        (CAMVID_360, "lr", 0.0),
        (CAMVID_360, "lr", float("nan")),
        (CAMVID_360, "weight_decay", -1.0),
        (CAMVID_360, "scale_range", (2.0, 0.5)),
        (CAMVID_360, "flip_probability", 1.5),
        (CAMVID_360, "color_jitter", 1.0),
        (CAMVID_360, "degradation", 1.1),
        (CAMVID_360, "class_mix", -0.1),
        (CAMVID_360, "crop_size", (16, 480)),
        (CAMVID_360, "class_weight_offset", 1.0),
        (CITYSCAPES_SEG50, "ofa_class_weights", True),
        (TINY_IMAGENET, "min_area", 0.0),
        (TINY_IMAGENET, "label_smoothing", 1.0),
    ],
)
def test_a_recipe_names_the_field_that_cannot_work(recipe, field, value):
    with pytest.raises(ConfigError, match=field):
        replace(recipe, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dasp_rates", (2, 4, 6)),
        ("block", "res"),
        ("context", "aspp"),
        ("auxiliary_weight", 0.4),
        ("teachers", ("runs/teacher",)),
        ("theta", 1.4),
        ("temperature", 1.0),
        ("cwd_weight", 5.0),
        ("ofa_weight", 0.3),
        ("ofa_class_weights", True),
        ("unlabelled_share", 0.5),
    ],
)
def test_a_teacher_takes_no_setting_that_only_a_student_has(field, value):
    with pytest.raises(ConfigError, match=f"^{field} is a student's, and a teacher has none"):
        replace(TEACHER_CAMVID_360, **{field: value})
