import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from bsdnet.checkpoint import CheckpointMetadata, load_checkpoint, save_checkpoint
from bsdnet.classes import CAMVID_11, CITYSCAPES_19
from bsdnet.modeling import BSDNet
from tests.trainer.command import assert_one_line, run
from tests.trainer.tiny import TINY
from trainer.datasets.camvid import CamVid
from trainer.evaluation import EvaluationOptions, evaluate
from trainer.teacher import load_teacher


def test_an_evaluation_of_two_drives_counts_all_their_pixels(street_camvid: Path, trained: Path):
    weights = trained / "last.safetensors"
    result = run("--dataset", "camvid", "--data-dir", street_camvid, "--eval", "train", "--weights", weights, "--json")
    report = json.loads(result.output)
    matrix = evaluate(load_checkpoint(weights).model, CamVid(street_camvid, "train"), torch.device("cpu"))
    assert (report["miou"], report["pixel_accuracy"]) == (matrix.mean_iou, matrix.pixel_accuracy)
    assert list(report["miou_by_recording"]) == ["A", "B"]
    assert len({report["miou"], *report["miou_by_recording"].values()}) == 3
    assert result.stderr.count("an excerpt, or not all was unpacked") == 1  # the folder is looked at once


def test_evaluation_as_a_table_and_as_json(street_camvid: Path, trained: Path):
    weights = trained / "last.safetensors"
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--eval", "test", "--weights", weights]
    table, report = run(*arguments), json.loads(run(*arguments, "--json").output, parse_constant=pytest.fail)
    assert table.output.splitlines()[0].split() == ["mIoU", f"{100 * report['miou']:.1f}"]
    assert (report["split"], report["images"], len(report["iou"])) == ("test", 3, 11)
    assert 0 < report["miou"] < 1
    assert report["miou_by_recording"] == {}  # one drive alone
    assert report["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert report["command"].startswith("bsdnet-train")
    assert report["machine"]["torch"] == torch.__version__


def test_weights_are_evaluated_with_their_own_normalisation(street_camvid: Path, trained: Path, tmp_path: Path):
    checkpoint, scores = load_checkpoint(trained / "last.safetensors"), []
    for values in ({}, {"mean": (0.9, 0.9, 0.9)}, {"std": (0.02, 0.02, 0.02)}):
        path = tmp_path / "weights.safetensors"
        save_checkpoint(path, checkpoint.model, replace(checkpoint.metadata, **values))
        result = run("--dataset", "camvid", "--data-dir", street_camvid, "--eval", "val", "--weights", path, "--json")
        scores.append(json.loads(result.output)["pixel_accuracy"])
    assert len(set(scores)) == 3


def test_classes_that_do_not_occur_are_null_in_json(street_camvid: Path, trained: Path, tmp_path: Path):
    for folder in ("test", "testannot"):
        shutil.copytree(street_camvid / folder, tmp_path / folder)
    for label in (tmp_path / "testannot").iterdir():
        cv2.imwrite(str(label), np.zeros((96, 128), np.uint8))
    checkpoint, path = load_checkpoint(trained / "last.safetensors"), tmp_path / "sky.safetensors"
    torch.nn.init.zeros_(checkpoint.model.head.classifier.weight)
    checkpoint.model.head.classifier.bias.data = torch.eye(11)[0]
    save_checkpoint(path, checkpoint.model, checkpoint.metadata)
    result = run("--dataset", "camvid", "--data-dir", tmp_path, "--eval", "test", "--weights", path, "--json")
    report = json.loads(result.output, parse_constant=pytest.fail)
    assert (report["miou"], report["iou"]["sky"], report["iou"]["road"]) == (1.0, 1.0, None)


def test_weights_with_other_classes_are_refused(street_camvid: Path, tmp_path: Path):
    path = tmp_path / "city.safetensors"
    metadata = CheckpointMetadata(architecture="bsdnet_s", class_set=CITYSCAPES_19, train_size=(512, 1024))
    save_checkpoint(path, BSDNet(replace(TINY, num_classes=19)), metadata)
    result = run("--dataset", "camvid", "--data-dir", street_camvid, "--eval", "test", "--weights", path)
    assert_one_line(result, "19 classes of cityscapes-19", "11 of camvid-11", "pass --weights", exit_code=2)


def test_several_weights_are_judged_as_an_ensemble(street_camvid: Path, trained: Path, tmp_path: Path):
    other = tmp_path / "other.safetensors"
    checkpoint = load_checkpoint(trained / "last.safetensors")
    torch.nn.init.normal_(checkpoint.model.head.classifier.weight, std=0.1)
    save_checkpoint(other, checkpoint.model, checkpoint.metadata)
    paths = [trained / "last.safetensors", other]
    given = [argument for path in paths for argument in ("--weights", path)]
    result = run("--dataset", "camvid", "--data-dir", street_camvid, "--eval", "val", *given, "--json")
    report = json.loads(result.output)
    teacher = load_teacher([str(path) for path in paths], CAMVID_11, torch.device("cpu"))
    options = EvaluationOptions(short_side=96)
    matrix = evaluate(lambda x: teacher(x).logits, CamVid(street_camvid, "val"), torch.device("cpu"), options=options)
    assert (report["miou"], report["pixel_accuracy"]) == (matrix.mean_iou, matrix.pixel_accuracy)
    assert report["weights_sha256"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
