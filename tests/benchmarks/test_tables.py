"""The documents have the figures of benchmarks/results, and what is wrong with either is said in one line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from benchmarks.tables import __main__ as command
from benchmarks.tables import accuracy, markdown, speed, video
from benchmarks.tables.blocks import BLOCKS
from benchmarks.tables.documents import RESULTS, block_names, documents, update
from bsdnet.checkpoint import default_weights, sha256_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of all documents and results."""
    for path in [*documents(ROOT), *(ROOT / RESULTS).glob("*")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return tmp_path


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# The repository


def test_every_document_agrees_with_the_results():
    assert update(ROOT, BLOCKS, write=False) == []


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("camvid-s.val", "s"), ("camvid-s.test", "s"), ("size-accuracy", "s"), ("precision-cpu", "s"),
        ("temporal-consistency", "s"), ("adaptation", "s"), ("adaptation-ensemble", "s"),
        ("camvid-s-multi-scale.test", "s"),
        ("camvid-b.val", "b"), ("camvid-b.test", "b"),
    ],
)  # fmt: skip
def test_the_figures_are_those_of_the_shipped_weights(name: str, weights: str):
    report = json.loads((ROOT / RESULTS / f"{name}.json").read_text())
    assert report["weights_sha256"] == sha256_of(default_weights(weights))


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_teachers_figures_are_those_of_its_checkpoint(split: str):
    report = json.loads((ROOT / RESULTS / f"camvid-teacher.{split}.json").read_text())
    assert report["weights_sha256"] == sha256_of(ROOT / "checkpoints" / "teacher-camvid" / "model.safetensors")


@pytest.mark.parametrize(("name", "label", "weights"), [("robustness", "shipped", "s"), ("robustness-b", "b", "b")])
def test_the_corruptions_were_shown_to_the_shipped_weights(name: str, label: str, weights: str):
    report = json.loads((ROOT / RESULTS / f"{name}.json").read_text())
    assert report["weights_sha256"] == {label: sha256_of(default_weights(weights))}


def test_every_block_is_in_a_document():
    assert {name for path in documents(ROOT) for name in block_names(path.read_text())} == set(BLOCKS)


@pytest.mark.parametrize("path", documents(ROOT), ids=lambda path: path.name)
def test_no_marker_breaks_a_paragraph_or_a_row(path: Path):
    lines = ["", *path.read_text().splitlines(), ""]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if re.match(r" {0,3}<!--", line):  # to Markdown a line that begins so is a paragraph's end
            assert (before if "results:" in line else after) == "", line
            assert line.count("<!--") == 1
            assert line.endswith("-->")
        if line.startswith("|"):
            assert line.count("<!-- results: ") == line.count("<!-- end -->"), line


# What differs


def test_a_changed_result_is_found_and_written_into_every_document(root: Path):
    change(root / RESULTS / "camvid-s.test.json", miou=0.71249)
    before = {path: path.read_text() for path in documents(root)}
    found = update(root, BLOCKS, write=False)
    assert {path: path.read_text() for path in documents(root)} == before
    assert found == [
        f"README.md: the block 'miou' differs from {RESULTS}",
        f"bsdnet/weights/MODEL_CARD.md: the block 'by-class' differs from {RESULTS}",
    ]
    assert update(root, BLOCKS, write=True) == found
    assert update(root, BLOCKS, write=False) == []
    after = {path: path.read_text() for path in documents(root)}
    miou = markdown.percent(json.loads((ROOT / RESULTS / "camvid-s.test.json").read_text())["miou"])
    readme, card = root / "README.md", root / "bsdnet/weights/MODEL_CARD.md"
    assert after.pop(readme) == before.pop(readme).replace(f"mIoU **{miou}** on test", "mIoU **71.2** on test")
    assert after.pop(card) == before.pop(card).replace(f"** | **{miou}** |", "** | **71.2** |", 1)
    assert after == before


def test_a_figure_that_was_changed_by_hand_is_put_right(root: Path):
    readme = root / "README.md"
    right = readme.read_text()
    readme.write_text(right.replace(" times) | SCTNet-B |", "1 times) | SCTNet-B |"))
    assert update(root, BLOCKS, write=True) == [f"README.md: the block 'peers' differs from {RESULTS}"]
    assert readme.read_text() == right


def test_the_command_checks_writes_and_is_content(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "ROOT", root)
    change(root / RESULTS / "precision-cpu.json", images=48)
    line = f"README.md: the block 'half-precision' differs from {RESULTS}"
    checked = CliRunner().invoke(command.main, ["--check"])
    assert (checked.exit_code, checked.stdout.splitlines()) == (1, [line])
    written = CliRunner().invoke(command.main, [])
    assert (written.exit_code, written.stdout.splitlines()) == (0, [f"{line}: written anew"])
    checked = CliRunner().invoke(command.main, ["--check"])
    assert (checked.exit_code, checked.output) == (0, "")


# What is wrong


def test_a_missing_file_is_named(root: Path):
    (root / RESULTS / "speed-peers-cpu.json").unlink()
    with pytest.raises(click.ClickException) as error:
        update(root, BLOCKS, write=False)
    assert error.value.message == (
        "README.md: the block 'peers' needs benchmarks/results/speed-peers-cpu.json, which is missing"
    )


def test_a_figure_that_is_not_in_its_file_is_named(root: Path):
    path = root / RESULTS / "teacher-b1-camvid-0001TP.json"
    path.write_text("{}")
    with pytest.raises(click.ClickException, match=r"^README.md: the block 'teacher' needs 'miou' in teacher-b1.*json"):
        update(root, BLOCKS, write=False)


def test_a_broken_file_is_named_and_nothing_is_written(root: Path):
    change(root / RESULTS / "camvid-s.test.json", miou=0.9)
    (root / RESULTS / "temporal-consistency.json").write_text('{"schemes": {')
    before = (root / "README.md").read_text()
    with pytest.raises(click.ClickException, match=r"^docs/smoothing.md: .* temporal-consistency.json is broken: Exp"):
        update(root, BLOCKS, write=True)
    assert (root / "README.md").read_text() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results: mious -->1<!-- end -->", r"README.md: there is no block 'mious', only .*\bmiou\b"),
        ("\na <!-- end -->", "README.md:2: <!-- end --> ends no block"),
        ("\na <!-- results: miou -->1", "README.md:2: <!-- results: miou --> has no <!-- end -->"),
        (
            "a <!-- results: miou -->\n<!-- results: peers -->1<!-- end -->",
            "README.md:1: <!-- results: miou --> has no <!-- end -->",
        ),
        ("<!-- results: miou -->1<!-- end -->\n<!-- end -->", "README.md:2: <!-- end --> ends no block"),
    ],
)
def test_a_wrong_marker_is_named_in_one_line(root: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str):
    monkeypatch.setattr(command, "ROOT", root)
    (root / "README.md").write_text(text)
    result = CliRunner().invoke(command.main, [])
    assert result.exit_code == 1
    assert re.fullmatch(f"Error: {message}.*\n", result.stderr)
    assert (root / "README.md").read_text() == text


# The pieces


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(60.355, 2, "60.36"), (82.05, 1, "82.1"), (66.1, 0, "66"), (-0.04, 1, "0.0"), (0.5, 0, "1"), (-1.25, 1, "-1.3")],
)
def test_halves_go_up_as_by_hand(value: float, digits: int, text: str):
    assert markdown.fixed(value, digits) == text


def test_signs_shares_and_powers():
    assert [markdown.signed(value) for value in (0.45, 0.0, -1.84)] == ["+0.5", "+0.0", "-1.8"]
    assert markdown.percent(0.588302280086364) == "58.8"
    assert [markdown.power(value) for value in (0.001, 0.00025, 2.0)] == ["1e-3", "2.5e-4", "2e0"]


def test_a_table():
    assert markdown.table(["", "ms"], [["a", "1"], ["b", ""]]) == "| | ms |\n|---|---|\n| a | 1 |\n| b | |"


def test_val_comes_before_test():
    val = {"miou": 0.7, "iou": {"road": 0.9, "car": 0.5}}
    test = {"miou": 0.6, "iou": {"road": 0.8, "car": 0.4}}
    big = {"miou": 0.75, "iou": {"road": 0.95, "car": 0.55}}
    assert accuracy.by_class(val, test, big, test).splitlines()[2:] == [
        "| **mIoU** | **70.0** | **60.0** | **75.0** | **60.0** |",
        "| road | 90.0 | 80.0 | 95.0 | 80.0 |",
        "| car | 50.0 | 40.0 | 55.0 | 40.0 |",
    ]
    assert accuracy.miou(val, test) == "mIoU **60.0** on test and\n70.0 on validation"


def test_peers_are_compared_with_ours_before_anything_is_rounded():
    times = {"BSDNet-S": 10.04, "SCTNet_S": 12.06, "DDRNet_23_slim": 15.06, "PIDNet_S": 20.08,
             "BSDNet-B": 50.0, "SCTNet_B": 60.0, "DDRNet_23": 80.0}  # fmt: skip
    report = {"rows": [{"model": name, "network": {"p50_ms": time}} for name, time in times.items()]}
    assert speed.peers(report).splitlines()[2:] == [
        "| **BSDNet-S** | **10.0** | **BSDNet-B** | **50.0** |",
        "| SCTNet-S | 12.1 (1.20 times) | SCTNet-B | 60.0 (1.20 times) |",
        "| DDRNet-23-slim | 15.1 (1.50 times) | DDRNet-23 | 80.0 (1.60 times) |",
        "| PIDNet-S | 20.1 (2.00 times) | | |",
    ]


def test_a_recipe_names_what_is_switched_on():
    recipe = json.loads((ROOT / RESULTS / "camvid-s-run-1.recipe.json").read_text())
    recipe |= {"epochs": None, "iterations": 900, "color_jitter": 0.0, "class_weight_offset": None, "ema_decay": 0.999,
               "hard_pixel_share": 1.0, "crop_size": [320, 448], "train_size": [540, 720], "seed": 3}  # fmt: skip
    assert accuracy.recipe(recipe) == (
        f"900 steps, batches of {recipe['batch_size']} crops of 448x320, pictures at 720x540, AdamW, peak rate 1e-3, "
        "polynomial decay 0.9, scales 0.5 to 2, flips,\nmoving average of the weights with decay 0.999, seed 3"
    )
    longer = recipe | {"iterations": 2000, "seed": 4}
    assert accuracy.recipe(recipe, longer, longer | {"seed": 5}).endswith(
        "seed 3;\nthen 2000 steps more from these weights, the rate beginning anew, seed 4"
        ";\nthen 2000 steps more from these weights, the rate beginning anew, seed 5"
    )
    with pytest.raises(ValueError, match="more than length and seed"):
        accuracy.recipe(recipe, longer | {"color_jitter": 0.5})


def test_a_distilled_recipe_names_what_was_learnt_from():
    run = json.loads((ROOT / RESULTS / "camvid-s-run-1.recipe.json").read_text())
    run |= {"epochs": None, "iterations": 500, "unlabelled_share": 0.25, "unlabelled_images": 7, "cwd_weight": 5.0,
            "ofa_weight": 3.0, "seed": 9}  # fmt: skip
    assert accuracy.distilled_recipe(run).startswith("500 steps, batches of 8 crops of ")
    assert accuracy.distilled_recipe(run).endswith(
        ";\na share of 0.25 of them of 7 mosaics without labels; SIDM with weights 5 for CWD and 3 for OFA, seed 9"
    )


def test_pretraining_is_as_good_as_its_log_says_at_the_end():
    log = "top-1 accuracy on validation pictures: 13.78 %\nbest evaluation 38.64 %, weights in runs/x\n"
    assert (accuracy.top_1(log, digits=1), accuracy.top_1(log, digits=2)) == ("38.6 % top-1", "38.64 % top-1")
    with pytest.raises(KeyError, match="best evaluation"):
        accuracy.top_1("killed", digits=1)


def test_the_row_that_others_are_compared_with_has_no_difference():
    rows = [{"row": name, "mean": 30.0, "deviation": 1.0, "difference": [change, -change]}
            for name, change in (("student alone", 0.0), ("+ SIDM", 2.25))]  # fmt: skip
    assert accuracy.distillation({"seeds": [0, 1], "rows": rows}).splitlines()[2:] == [
        "| student alone | 30.0 | 1.0 | |", "| with both (SIDM) | 30.0 | 1.0 | +2.3, -2.3 |"
    ]  # fmt: skip


def test_pairs_of_several_reports_are_counted_together():
    def report(average: bool, labels: list[float], distilled: list[float]) -> dict[str, object]:
        differences = [after - before for before, after in zip(labels, distilled, strict=True)]
        return {"table": "distill", "dataset": "camvid", "model": "s", "split": "test", "iterations": 300,
                "crop_size": "480x352", "settings": ["lr=4e-4"], "average": average,
                "rows": [{"miou": labels}, {"miou": distilled, "difference": differences}]}  # fmt: skip

    alone, more = report(False, [60.0, 62.0], [61.0, 63.0]), report(False, [61.0], [64.0])
    mean = report(True, [60.0], [61.5])
    after, averaged = accuracy.pairs(alone, mean, more).splitlines()[2:]
    assert after == "| after the last step | 61.0 | 62.7 | +1.00, +1.00, +3.00 | +1.67 ± 2.87 |"
    assert averaged == "| averaged with what they went on from | 60.0 | 61.5 | +1.50 | +1.50 |"
    with pytest.raises(ValueError, match="more than their seeds"):
        accuracy.pairs(alone, mean, more | {"iterations": 600})


def test_adaptation_is_told_by_teacher_and_by_what_is_judged():
    def report(*scores: float) -> dict[str, object]:
        names = ("before", "after", "mean of both")
        return {"rows": {name: {"here": {"miou_percent": score}} for name, score in zip(names, scores, strict=True)}}

    assert accuracy.adaptation(report(60.04, 61.0, 62.0), report(60.04, 63.0, 64.0)).splitlines() == [
        "| taught by | judged on | before | after | mean of both |",
        "|---|---|---|---|---|",
        "| the teacher | here | 60.0 | 61.0 | 62.0 |",
        "| the teacher and S itself | here | 60.0 | 63.0 | 64.0 |",
    ]


def test_smoothing_costs_the_median_pair():
    report = {"pairs": [{"off_fps": 50.0, "smooth_fps": fps} for fps in (25.0, 45.0, 49.5)]}
    assert speed.smoothing_share(report) == "about 10 %"
    assert speed.smoothing_pairs(report).endswith("fps, so 10 % in the median pair, from 1 to 50 %")


def test_sizes_go_from_large_to_small_whatever_their_order_in_the_file():
    report = json.loads((ROOT / RESULTS / "size-accuracy.json").read_text())
    turned = {**report, "rows": report["rows"][::-1]}
    assert (video.sizes(turned), video.size_losses(turned)) == (video.sizes(report), video.size_losses(report))
