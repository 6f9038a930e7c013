import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bsdnet.checkpoint import load_checkpoint
from tests.trainer.command import assert_one_line, run, train
from tests.trainer.processes import run_processes
from tests.trainer.test_command import assert_same_bits, interrupt  # noqa: F401 - a fixture
from tests.trainer.tiny import TINY
from trainer import segformer, trainees
from trainer.trainees import CONFIGS

pytest.importorskip("transformers", reason="teachers need the extra 'train'")


def shrink_segformer(patch: pytest.MonkeyPatch) -> None:
    """Let the smallest SegFormer stand for all: the real one is too large for a test."""
    patch.setitem(segformer._WIDTHS, "segformer-b0", (16, 32, 32, 64))
    patch.setitem(segformer._DEPTHS, "segformer-b0", (1, 1, 1, 1))


@pytest.fixture(scope="module")
def teacher(street_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a teacher that has made four steps."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shrink_segformer(patch)
        result = run(
            "teacher", "--dataset", "camvid", "--data-dir", street_camvid, "--output", folder,
            "--model", "segformer-b0", "--iterations", 4, "--batch-size", 2, "--crop-size", "64x64",
            "--set", "train_size=128x96",
        )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder


SIDM = ["--distill", "sidm", "--precision", "fp32"]


@pytest.fixture(scope="module")
def distilled(street_camvid: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished distilled run of 12 steps."""
    folder = tmp_path_factory.mktemp("distilled")
    result = train(street_camvid, folder, *SIDM, "--teacher", str(teacher / "last"))
    assert result.exit_code == 0, result.stderr
    assert "cwd" in result.stderr
    assert "ofa" in result.stderr
    return folder


def test_a_distilled_run_keeps_the_student_alone(distilled: Path, teacher: Path):
    checkpoint = load_checkpoint(distilled / "last.safetensors")
    assert checkpoint.model.config.num_classes == 11
    described = json.loads((distilled / "run.json").read_text())
    assert (described["distill"], described["teachers"]) == ("sidm", [str(teacher / "last")])


def test_an_interrupted_distilled_run_resumes_to_the_same_bits(
    street_camvid: Path,
    teacher: Path,
    distilled: Path,
    tmp_path: Path,
    interrupt: Callable[..., None],  # noqa: F811 - the fixture
):
    interrupt(signal.SIGINT)
    arguments = [*SIDM, "--teacher", str(teacher / "last")]
    assert train(street_camvid, tmp_path, *arguments).exit_code == 130
    resumed = train(street_camvid, tmp_path, *arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert_same_bits(distilled, tmp_path)


def test_a_run_is_repeated_from_its_own_recipe(street_camvid: Path, distilled: Path, tmp_path: Path):
    result = run(
        "--dataset", "camvid", "--data-dir", street_camvid, "--output", tmp_path / "again", "--save-every", 3,
        "--eval-every", 4, "--config", distilled / "recipe.toml",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert_same_bits(distilled, tmp_path / "again")


def test_a_teacher_is_evaluated_as_weights_are(street_camvid: Path, teacher: Path):
    arguments = ["--dataset", "camvid", "--data-dir", street_camvid, "--eval", "train", "--weights", teacher / "best"]
    report = json.loads(run(*arguments, "--json").output)
    assert (report["images"], len(report["iou"])) == (12, 11)
    one = json.loads(run(*arguments, "--json", "--hold-out", "B").output)
    assert (one["images"], one["miou"]) == (6, report["miou_by_recording"]["B"])


def test_a_teacher_goes_on_from_a_trained_one(
    street_camvid: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shrink_segformer(monkeypatch)
    arguments = [
        "teacher", "--dataset", "camvid", "--data-dir", street_camvid, "--model", "segformer-b0", "--iterations", 1,
        "--batch-size", 2, "--crop-size", "64x64", "--set", "train_size=128x96", "--init", teacher / "last",
    ]  # fmt: skip
    result = run(*arguments, "--output", tmp_path / "run", "--lr", 1e-9)
    assert result.exit_code == 0, result.stderr
    before, after = (load_file(folder / "last" / "model.safetensors") for folder in (teacher, tmp_path / "run"))
    torch.testing.assert_close(after["decode_head.classifier.weight"], before["decode_head.classifier.weight"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["initial"] == "last"
    both = run(*arguments, "--output", tmp_path / "no", "--pretrained", "any")
    assert both.exit_code == 2
    assert "only one of them" in both.stderr


def test_two_teachers_form_an_ensemble(street_camvid: Path, teacher: Path, tmp_path: Path):
    both = ["--teacher", str(teacher / "last"), "--teacher", str(teacher / "best")]
    result = train(street_camvid, tmp_path / "run", *SIDM, *both, "--epochs", "1")
    assert result.exit_code == 0, result.stderr


def test_what_cannot_be_distilled_from_is_one_line(street_camvid: Path, teacher: Path, tmp_path: Path):
    missing = train(street_camvid, tmp_path / "a", *SIDM)
    assert_one_line(missing, "no public SegFormer for camvid", "bsdnet-train teacher", "--distill none")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_line(
        train(street_camvid, tmp_path / "b", *SIDM, "--teacher", str(empty)), "empty", "--teacher", "--distill none"
    )
    other = train(street_camvid, tmp_path / "c", "--recipe", "demo", *SIDM, "--model", "s", "--block", "res")
    assert_one_line(other, "no public SegFormer")
    assert not any((tmp_path / name).exists() for name in "abc")  # nothing was begun


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        cv2.imwrite(str(folder / f"{number:02d}.png"), rng.integers(0, 255, (96, 128, 3), np.uint8))
    return folder


def test_weights_are_adapted_to_pictures_without_labels(pictures: Path, trained: Path, teacher: Path, tmp_path: Path):
    arguments = [
        "--dataset", "video", "--data-dir", pictures, "--output", tmp_path / "run", "--teacher", teacher / "last",
        "--iterations", 3, "--batch-size", 2, "--crop-size", "64x64",
    ]  # fmt: skip
    assert_one_line(run(*arguments), "--init is missing", exit_code=2)
    assert_one_line(
        run(*arguments, "--init", trained / "last.safetensors", "--distill", "none"),
        "videos have no labels",
        exit_code=2,
    )
    result = run(*arguments, "--init", trained / "last.safetensors", "--every", 2)
    assert result.exit_code == 0, result.stderr
    files = [folder / "last.safetensors" for folder in (tmp_path / "run", trained)]
    assert run("average", *files, "--output", tmp_path / "mean.safetensors").exit_code == 0, "pictures of one size"
    adapted, before = (load_checkpoint(file).model for file in files)
    assert not torch.equal(adapted.backbone.stem[0][0].weight, before.backbone.stem[0][0].weight)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["every"] == 2


def test_a_recording_without_labels_is_held_out(pictures: Path, trained: Path, teacher: Path, tmp_path: Path):
    (pictures.parent / "videos").mkdir()
    for name in ("a", "b"):
        (pictures.parent / "videos" / f"{name}.avi").touch()
        writer = cv2.VideoWriter(
            str(pictures.parent / "videos" / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96)
        )
        for picture in sorted(pictures.iterdir()):
            writer.write(cv2.imread(str(picture)))
        writer.release()
    arguments = [
        "--dataset", "video", "--data-dir", pictures.parent / "videos", "--output", tmp_path / "run", "--teacher",
        teacher / "last", "--init", trained / "last.safetensors", "--iterations", 2, "--batch-size", 2,
        "--crop-size", "64x64", "--set", "train_size=128x96", "--every", 1,
    ]  # fmt: skip
    assert_one_line(run(*arguments, "--train-split", "trainval"), "videos have no splits", exit_code=2)
    assert_one_line(run(*arguments, "--hold-out", "nothing"), "no recording nothing")
    assert_one_line(
        run(*arguments, "--set", "class_weight_offset=1.1"), "class_weight_offset", "need labels", exit_code=2
    )
    held = str(pictures.parent / "videos" / "b.avi")
    result = run(*arguments, "--hold-out", held)
    assert result.exit_code == 0, result.stderr
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (described["images"], described["val_images"], described["hold_out"]) == (20, 20, held)


def test_init_decides_the_shape(street_camvid: Path, trained: Path, tmp_path: Path):
    arguments = ["--init", str(trained / "last.safetensors")]
    result = train(street_camvid, tmp_path / "run", *arguments, "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    assert_one_line(
        train(street_camvid, tmp_path / "b", *arguments, "--block", "res"), "another shape than the recipe", exit_code=2
    )
    both = train(street_camvid, tmp_path / "d", *arguments, "--pretrained", "x")
    assert (both.exit_code, "only one of them" in both.stderr) == (2, True)


def test_the_weights_of_s_begin_b_and_not_the_other_way(street_camvid: Path, trained: Path, tmp_path: Path):
    arguments = ["--init", str(trained / "last.safetensors"), "--model", "b", "--epochs", "1"]
    result = train(street_camvid, tmp_path / "b", *arguments)
    assert result.exit_code == 0, result.stderr
    wide = load_checkpoint(tmp_path / "b" / "last.safetensors")
    assert (wide.metadata.architecture, wide.model.config.channels) == ("bsdnet_b", CONFIGS["b"].channels)
    back = ["--init", str(tmp_path / "b" / "last.safetensors"), "--model", "s"]
    assert_one_line(
        train(street_camvid, tmp_path / "s", *back), "another shape than the recipe", "not narrowed", exit_code=2
    )


def test_the_same_teacher_by_another_path_resumes(street_camvid: Path, distilled: Path, teacher: Path, tmp_path: Path):
    shutil.copytree(distilled, tmp_path / "run")
    other = f"{teacher}/best/../last/"
    result = train(street_camvid, tmp_path / "run", *SIDM, "--teacher", other, "--resume")
    assert result.exit_code == 0, result.stderr


def worker(folder: Path) -> None:
    trainees.CONFIGS["s"] = TINY
    result = train(folder / "data", folder / "run", "--batch-size", "4")
    assert result.exit_code == 0, result.stderr
    (folder / f"said-{len(list(folder.glob('said-*')))}").write_text(result.output + result.stderr)


def test_the_command_trains_in_two_processes(street_camvid: Path, tmp_path: Path):
    (tmp_path / "data").symlink_to(street_camvid)
    run_processes(2, worker, tmp_path)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best.safetensors", "last.safetensors", "state.pt", "recipe.toml", "run.json",
    }  # fmt: skip
    said = [path.read_text() for path in tmp_path.glob("said-*")]
    assert sorted("best evaluation" in text for text in said) == [False, True]  # one process reports


@pytest.mark.data
def test_cityscapes_end_to_end(data_dir: Path, tmp_path: Path):
    shared = ["--dataset", "cityscapes", "--data-dir", data_dir / "cityscapes-sample"]
    small = ["--recipe", "cityscapes-seg50", "--batch-size", 2, "--crop-size", "128x64", "--set", "train_size=256x128"]
    result = run(*shared, *small, "--distill", "none", "--iterations", 2, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    result = run(
        *shared, "--eval", "val", "--weights", tmp_path / "run" / "last.safetensors", "--json",
        "--predictions", tmp_path / "ids", "--eval-flip", "--eval-scales", "0.5,1",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    (prediction,) = (tmp_path / "ids").iterdir()
    assert cv2.imread(str(prediction), cv2.IMREAD_UNCHANGED).shape == (1024, 2048)
