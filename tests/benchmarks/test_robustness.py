"""The benchmark gives every weights the same pictures, evaluates as the trainer does, and says what it found."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.corruptions import CORRUPTIONS, corrupt
from benchmarks.robustness import Corrupted, as_markdown, main
from bsdnet.checkpoint import CheckpointMetadata, load_checkpoint, save_checkpoint
from bsdnet.classes import CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.modeling import BSDNet
from tests.trainer.tiny import TINY
from trainer.datasets.camvid import CamVid
from trainer.evaluation import EvaluationOptions, evaluate


def save(path: Path, classes: ClassSet = CAMVID_11, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = BSDNet(replace(TINY, num_classes=len(classes)))
    save_checkpoint(path, network, CheckpointMetadata(architecture="bsdnet_s", class_set=classes, train_size=(64, 96)))
    return path


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_pictures_are_corrupted_by_name_and_labels_are_not(street_camvid: Path):
    taken = CamVid(street_camvid, "train")
    pictures = Corrupted(pictures=taken, step=5, corruption="noise", strength=4, seed=3)
    assert len(pictures) == 3
    assert [pictures.name(index) for index in range(3)] == [taken.name(index) for index in (0, 5, 10)]
    rgb, labels = taken[5]
    np.testing.assert_array_equal(pictures[1][0], corrupt(rgb, "noise", 4, seed=3, picture=taken.name(5)))
    np.testing.assert_array_equal(pictures[1][1], labels)
    np.testing.assert_array_equal(Corrupted(pictures=taken)[5][0], rgb)


def test_a_report_has_every_figure(street_camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib")
    first, second = save(tmp_path / "one.safetensors"), save(tmp_path / "two.safetensors", seed=1)
    output, plot, sheet = tmp_path / "out.json", tmp_path / "plot.png", tmp_path / "sheet.png"
    arguments = [
        street_camvid, "--weights", f"a={first}", "--weights", f"b={second}", "--weights", f"again={first}",
        "--split", "train", "--hold-out", "B", "--step", 6, "--seed", 7, "--device", "cpu",
        "--output", output, "--plot", plot, "--sheet", sheet,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["robustness.py", *map(str, arguments)])
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text())
    assert report["command"] == (
        f"python -m benchmarks.robustness {street_camvid.name} --weights a=one.safetensors --weights b=two.safetensors "
        "--weights again=one.safetensors --split train --hold-out B --step 6 --seed 7 --device cpu "
        "--output out.json --plot plot.png --sheet sheet.png"
    )
    assert (report["images"], report["seed"], report["split"], report["hold_out"]) == (1, 7, "train", "B")
    assert report["weights"]["a"] == report["weights"]["again"] != report["weights"]["b"]
    assert list(report["weights"]["a"]["corrupted"]) == list(CORRUPTIONS)

    checkpoint, pictures = load_checkpoint(first), CamVid(street_camvid, "train", only=["B"])
    for kind, strength, found in (
        (None, 1, report["weights"]["a"]["clean"]),
        ("night", 4, {key: row[3] for key, row in report["weights"]["a"]["corrupted"]["night"].items()}),
    ):
        seen = Corrupted(pictures=pictures, step=6, corruption=kind, strength=strength, seed=7)
        matrix = evaluate(checkpoint.model, seen, torch.device("cpu"), options=EvaluationOptions(short_side=64))
        road = 100 * matrix.iou[CAMVID_11.names.index("road")]
        assert found == pytest.approx({"miou_percent": 100 * matrix.mean_iou, "road_iou_percent": road}, abs=0.006)

    assert cv2.imread(str(sheet)).shape == (9 * 48, 5 * 64, 3)
    assert cv2.imread(str(plot)).std() > 5
    assert result.stdout.strip().endswith(as_markdown(report["weights"]))


def test_the_table_has_means():
    rows = {name: {"miou_percent": [40.0, 30.0, 20.0, 10.0, 0.0]} for name in CORRUPTIONS}
    rows["rain"] = {"miou_percent": [50.0 + 9 * strength for strength in (0, 1, 2, 3, 4)]}
    table = as_markdown({"w": {"clean": {"miou_percent": 66.6}, "corrupted": rows}}).splitlines()
    assert {line.count("|") for line in table} == {10}
    assert "| noise | w | 66.6 | 40.0 | 30.0 | 20.0 | 10.0 | 0.0 | 20.0 |" in table
    assert "| rain (not trained for) | w | 66.6 | 50.0 | 59.0 | 68.0 | 77.0 | 86.0 | 68.0 |" in table
    assert table[-1] == "| all | w | 66.6 | 41.1 | 33.2 | 25.3 | 17.4 | 9.6 | 25.3 |"


@pytest.mark.parametrize("given", ["file.safetensors", "=file.safetensors"])
def test_weights_need_a_label(street_camvid: Path, given: str):
    result = run(street_camvid, "--weights", given)
    assert result.exit_code == 2
    assert "LABEL=FILE" in result.output


def test_a_label_stands_once(street_camvid: Path, tmp_path: Path):
    path = save(tmp_path / "one.safetensors")
    assert "label of its own" in run(street_camvid, "--weights", f"a={path}", "--weights", f"a={path}").output


def test_what_cannot_work_is_said_in_a_line(street_camvid: Path, tmp_path: Path):
    foreign = save(tmp_path / "city.safetensors", CITYSCAPES_19)
    assert "not for CamVid's classes" in run(street_camvid, "--weights", f"a={foreign}").output
    for arguments, words in (
        (["--weights", f"a={tmp_path / 'none.safetensors'}"], "none.safetensors"),
        (["--hold-out", "Z"], "Z"),
        (["--output", tmp_path / "none" / "out.json"], "none does not exist"),
    ):
        result = run(street_camvid, *arguments)
        assert result.exit_code in (1, 2)
        assert words in result.output.splitlines()[-1]
