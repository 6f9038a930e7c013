"""Pictures labelled by trained networks, as a data set."""

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bsdnet.checkpoint import load_checkpoint
from bsdnet.classes import CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import ConfigError, SinkError
from bsdnet.modeling.bsdnet import BSDNet
from tests.stream.media import numbered, write_clip
from tests.trainer import trees
from tests.trainer.command import Result, assert_one_line, run, train
from tests.trainer.processes import run_processes
from tests.trainer.test_bsdnet_teacher import make_network, write
from tests.trainer.test_efficientnet import segmenter
from tests.trainer.tiny import TINY
from trainer import labelling
from trainer.datasets.folder import LabelledFolder, save_pair, write_classes
from trainer.datasets.video import UnlabelledImages
from trainer.distributed import connect
from trainer.efficientnet import EfficientNetSegmenter
from trainer.evaluation import EvaluationOptions, segment
from trainer.labelling import label_images
from trainer.recipes import FOLDER
from trainer.teacher import load_teacher
from trainer.trained import open_trained
from trainer.trainees import build_student

CPU = torch.device("cpu")


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Two folders of pictures of the same names, and a video."""
    for number, name in enumerate(("monday/front/a.png", "monday/front/b.jpg", "tuesday/front/a.png")):
        trees.write(tmp_path / "drives" / name, trees.picture(number, (72, 96)))
    write_clip(tmp_path / "drives" / "film.mp4", [numbered(index) for index in range(5)])
    return tmp_path / "drives"


@pytest.fixture
def weights(tmp_path: Path) -> list[str]:
    return [write(tmp_path / f"{seed}.safetensors", make_network(seed)) for seed in range(2)]


def label(
    drives: Path,
    weights: list[str],
    output: Path,
    *more: object,
    sources: Sequence[str] = ("monday/front", "tuesday/front", "film.mp4"),
) -> Result:
    given = [argument for path in weights for argument in ("--weights", path)]
    return run("label", *(drives / source for source in sources), *given, "--output", output, *more)


def test_labelled_pictures_are_a_data_set(drives: Path, weights: list[str], tmp_path: Path):
    result = label(drives, weights[:1], tmp_path / "out", "--every", "2", "--surely", "0")
    assert result.exit_code == 0, result.stderr
    assert result.output == f"5 pictures labelled, 100 % of their pixels surely, in {tmp_path / 'out/images/train'}\n"
    assert "labelled 5 of 5 pictures, 100 % of the pixels surely, 0:00 left" in result.stderr
    found = LabelledFolder(tmp_path / "out", "train")
    names = ["film/000000", "film/000002", "film/000004", "front/a", "front-2/a"]
    assert [found.name(index) for index in range(len(found))] == names
    assert found.groups == ["film", "front", "front-2"]
    assert found.classes == CAMVID_11
    rgb = trees.picture(0, (72, 96))
    network = load_checkpoint(Path(weights[0])).model.eval()
    expected = segment(network, rgb, CPU, options=EvaluationOptions(short_side=64))
    np.testing.assert_array_equal(found[3][1], expected)
    assert len(np.unique(expected)) > 1


def test_recordings_are_named_after_their_folders(weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("drive.1/a.b.png", "drive.2/a.b.png", ".hidden/.c.png"):
        trees.write(tmp_path / name, trees.picture(0, (72, 96)))
    (tmp_path / "drive.1" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "drive.1" / "below")
    sources = ["..", tmp_path / "drive.2", tmp_path / ".hidden" / ".c.png"]
    result = run("label", *sources, "--weights", weights[0], "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    found = LabelledFolder(tmp_path / "out", "train")
    names = [found.name(index) for index in range(len(found))]
    assert names == ["drive.1/a.b", "drive.2/a.b", "hidden/c"]


def label_in_processes(folder: Path) -> None:
    images = UnlabelledImages([folder / "drives" / name for name in ("monday/front", "film.mp4")], CAMVID_11)
    with connect("cpu") as (processes, device):
        trained = open_trained([folder / "0.safetensors"], device)
        done = label_images(
            images, trained, folder / "out", device, options=EvaluationOptions(), surely=0, settings={},
            processes=processes,
        )  # fmt: skip
        (folder / f"{processes.rank}.txt").write_text(f"{done.written} {done.found} {done.stopped}")


def test_processes_share_the_pictures(drives: Path, weights: list[str], tmp_path: Path):
    run_processes(2, label_in_processes, tmp_path)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["7 0 False"] * 2
    found = LabelledFolder(tmp_path / "out", "train")
    network = load_checkpoint(Path(weights[0])).model.eval()
    assert len(found) == 7
    for name, number in (("front/a", 0), ("front/b", 1)):
        index = [found.name(index) for index in range(7)].index(name)
        labels = segment(network, UnlabelledImages([drives / "monday/front"], CAMVID_11)[number][0], CPU)
        np.testing.assert_array_equal(found[index][1], labels)
    run_processes(2, label_in_processes, tmp_path)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["0 7 False"] * 2


def test_a_picture_that_cannot_be_read_is_passed_over(drives: Path, weights: list[str], tmp_path: Path):
    (drives / "monday" / "front" / "a.png").write_bytes(b"rubbish")
    for written, before in ((2, ""), (0, ", 2 had been before")):
        result = label(
            drives,
            weights[:1],
            tmp_path / "out",
            "--every",
            "1",
            "--surely",
            "0",
            sources=["monday/front", "tuesday/front"],
        )
        assert result.exit_code == 1
        assert f"passed over: {drives / 'monday/front/a.png'} cannot be read as a picture" in result.stderr
        assert result.output.startswith(f"{written} pictures labelled")
        assert f"{before}, 1 could not be read, in " in result.output
    assert len(LabelledFolder(tmp_path / "out", "train")) == 2


def test_what_is_not_sure_has_no_label(drives: Path, weights: list[str], tmp_path: Path):
    network = load_checkpoint(Path(weights[0])).model.eval()
    seen: list[torch.Tensor] = []
    options = EvaluationOptions(short_side=64)
    segment(lambda x: seen.append(network(x)) or seen[0], trees.picture(0, (72, 96)), CPU, options=options)
    median = float(F.interpolate(seen[0], (72, 96), mode="bilinear").softmax(1).amax(1).median())
    assert label(drives, weights[:1], tmp_path / "all", "--surely", "0", "--every", "9").exit_code == 0
    result = label(drives, weights[:1], tmp_path / "some", "--surely", median, "--every", "9")
    assert result.exit_code == 0, result.stderr
    found, some = (LabelledFolder(tmp_path / name, "train") for name in ("all", "some"))
    assert found.name(1) == "front/a"
    labels, surely = found[1][1], some[1][1]
    unsure = surely == 255
    assert 0.4 < unsure.mean() < 0.6
    np.testing.assert_array_equal(surely[~unsure], labels[~unsure])
    sure, sizes = zip(
        *[((pair[1] != 255).sum(), pair[1].size) for pair in (some[index] for index in range(3))], strict=True
    )
    assert f", {100 * sum(sure) / sum(sizes):.0f} % of their pixels surely" in result.output


def test_several_weights_are_averaged(drives: Path, weights: list[str], tmp_path: Path):
    assert label(drives, weights, tmp_path / "both", "--surely", "0", "--every", "9").exit_code == 0
    rgb = trees.picture(0, (72, 96))
    options = EvaluationOptions(short_side=64)
    both = load_teacher(weights, CAMVID_11, CPU)
    expected = segment(lambda x: both(x).logits, rgb, CPU, options=options)
    found = LabelledFolder(tmp_path / "both", "train")
    index = [found.name(number) for number in range(len(found))].index("front/a")
    np.testing.assert_array_equal(found[index][1], expected)
    alone = segment(load_checkpoint(Path(weights[0])).model.eval(), rgb, CPU, options=options)
    assert (alone != expected).any()


def test_it_goes_on_where_it_was_stopped(drives: Path, weights: list[str], tmp_path: Path):
    images = UnlabelledImages([drives / "monday" / "front", drives / "tuesday" / "front"], CAMVID_11)
    trained = open_trained([Path(weights[0])], CPU)
    asked = iter([False, True])

    def go_on(should_stop=lambda: False):
        return label_images(
            images, trained, tmp_path / "out", CPU, options=EvaluationOptions(), surely=0, settings={"a": 1},
            should_stop=should_stop,
        )  # fmt: skip

    first = go_on(lambda: next(asked))
    assert (first.written, first.found, first.stopped) == (1, 0, True)
    written = next((tmp_path / "out" / "labels").rglob("*.png"))
    before = written.stat().st_mtime_ns
    rest = go_on()
    assert (rest.written, rest.found, rest.stopped) == (2, 1, False)
    assert written.stat().st_mtime_ns == before
    nothing = go_on()
    assert (nothing.written, nothing.found, nothing.sure) == (0, 3, 0.0)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_signal_stops_the_command(drives: Path, weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = labelling.save_pair

    def save_and_press(*arguments: object) -> None:
        real(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(labelling, "save_pair", save_and_press)
    result = label(drives, weights[:1], tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.endswith("stopped; the same command goes on from there\n")
    monkeypatch.undo()
    assert "had been before" in label(drives, weights[:1], tmp_path / "out").output


def test_a_folder_of_other_settings_or_other_things_is_left_alone(drives: Path, weights: list[str], tmp_path: Path):
    assert label(drives, weights[:1], tmp_path / "out", "--every", "9").exit_code == 0
    again = label(drives, weights[1:], tmp_path / "out", "--every", "9")
    assert_one_line(again, f"{tmp_path / 'out'} was labelled with other settings", exit_code=2)
    other = label(drives, weights[:1], tmp_path / "out", "--every", "9", "--flip")
    assert_one_line(other, "was labelled with other settings", exit_code=2)
    settings = json.loads((tmp_path / "out" / "labelled.json").read_text())["settings"]
    assert (settings["short_side"], settings["flip"], settings["surely"]) == (64, False, 0.5)
    assert_one_line(label(drives, weights[:1], drives), "holds something else than labelled pictures", exit_code=2)
    assert sorted(path.name for path in drives.iterdir()) == ["film.mp4", "monday", "tuesday"]


def test_recordings_of_the_same_name_are_told_apart_in_later_calls(drives: Path, weights: list[str], tmp_path: Path):
    def label_one(folder: Path) -> str:
        return run("label", folder, "--weights", weights[0], "--output", tmp_path / "out", "--every", "1").output

    assert label_one(drives / "tuesday" / "front").startswith("1 pictures labelled")
    assert label_one(drives / "monday" / "front").startswith("2 pictures labelled")
    assert label_one(drives / "tuesday" / ".." / "tuesday" / "front").startswith("0 pictures labelled, 1 had been")
    assert "3 had been before" in label(drives, weights[:1], tmp_path / "out", "--every", "1").output
    found = LabelledFolder(tmp_path / "out", "train")
    assert found.groups == ["film", "front", "front-2"]
    assert [found.name(index) for index in range(5, 8)] == ["front/a", "front-2/a", "front-2/b"]


def test_sources_and_labels_may_be_moved_together(drives: Path, weights: list[str], tmp_path: Path):
    project = (drives / "monday").rename(tmp_path / "project")
    for place, expected in (("project", "2 pictures"), ("moved", "0 pictures labelled, 2 had been before")):
        project = project.rename(tmp_path / place)
        arguments = ("--weights", weights[0], "--every", "1", "--output", project / "out")
        assert run("label", project / "front", *arguments).output.startswith(expected)


def test_a_folder_lacks_no_classes_after_a_full_disk(
    drives: Path, weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise SinkError("classes.toml cannot be written: No space left on device")

    monkeypatch.setattr(labelling, "write_classes", fail)
    assert_one_line(label(drives, weights[:1], tmp_path / "out"), "No space left on device")
    monkeypatch.undo()
    assert label(drives, weights[:1], tmp_path / "out").exit_code == 0
    assert LabelledFolder(tmp_path / "out", "train").classes == CAMVID_11
    own = replace(CAMVID_11, name="corrected")
    write_classes(tmp_path / "out", own)
    assert label(drives, weights[:1], tmp_path / "out").exit_code == 0
    assert LabelledFolder(tmp_path / "out", "train").classes == own


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"settings": {}}', b'{"settings": {}, "recordings": []}', b"\xff"])
def test_a_damaged_note_is_named(drives: Path, weights: list[str], tmp_path: Path, content: bytes):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labelled.json").write_bytes(content)
    assert_one_line(
        label(drives, weights[:1], tmp_path / "out"), "labelled.json is none that", "wrote, or it is damaged"
    )


def test_sizes_and_views_are_as_asked(drives: Path, weights: list[str], tmp_path: Path):
    more = ("--short-side", "32", "--scales", "1,2", "--flip", "--surely", "0", "--every", "9")
    assert label(drives, weights[:1], tmp_path / "out", *more).exit_code == 0
    network = load_checkpoint(Path(weights[0])).model.eval()
    options = EvaluationOptions(short_side=32, scales=(1.0, 2.0), flip=True)
    expected = segment(network, trees.picture(0, (72, 96)), CPU, options=options)
    found = LabelledFolder(tmp_path / "out", "train")
    index = [found.name(number) for number in range(len(found))].index("front/a")
    np.testing.assert_array_equal(found[index][1], expected)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--surely", "1.5"], "--surely"),
        (["--scales", "a"], "expected numbers, such as 0.75,1,1.25, got 'a'"),
        (["--every", "0"], "--every"),
        (["--short-side", "8"], "--short-side"),
    ],
)
def test_wrong_usage(drives: Path, weights: list[str], tmp_path: Path, more: list[str], message: str):
    result = label(drives, weights, tmp_path / "out", *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_its_own_output_is_no_source(drives: Path, weights: list[str], tmp_path: Path):
    (output := drives / "labelled").mkdir()
    for expected in ("5 pictures labelled", "0 pictures labelled, 5 had been before"):  # sources as of drives/*
        result = label(drives, weights[:1], output, "--every", "1", sources=["film.mp4", "labelled"])
        assert (result.exit_code, expected in result.output) == (0, True), result.stderr
    alone = label(drives, weights[:1], output, sources=["labelled"])
    assert_one_line(alone, f"{output} is where the labels go: name videos or pictures that lie elsewhere", exit_code=2)


def test_weights_are_looked_for_here_alone(drives: Path, weights: list[str], tmp_path: Path):
    missing = label(drives, [weights[0], str(tmp_path / "teacher")], tmp_path / "out")
    assert_one_line(missing, f"of weights {tmp_path / 'teacher'} does not exist; expected a .safetensors file")
    assert "Hugging Face" not in missing.stderr
    renamed = Path(weights[1]).rename(tmp_path / "renamed.weights")
    both = label(drives, [weights[0], str(renamed)], tmp_path / "out", "--every", "9")
    assert both.exit_code == 0, both.stderr


def test_weights_of_other_classes_do_not_label_together(drives: Path, weights: list[str], tmp_path: Path):
    city = write(tmp_path / "city.safetensors", BSDNet(replace(TINY, num_classes=19)), CITYSCAPES_19)
    result = label(drives, [weights[0], city], tmp_path / "out")
    assert_one_line(
        result, "city.safetensors", "are not the 11 of camvid-11", "pass weights that were all", exit_code=2
    )


def test_probabilities_are_from_0_to_1(drives: Path, weights: list[str], tmp_path: Path):
    images = UnlabelledImages([drives / "film.mp4"], CAMVID_11)
    trained = open_trained([Path(weights[0])], CPU)
    with pytest.raises(ConfigError, match="from 0 to 1, got -1"):
        label_images(images, trained, tmp_path, CPU, options=EvaluationOptions(), surely=-1, settings={})


def test_a_teacher_alone_labels_in_published_classes(drives: Path, tmp_path: Path):
    segmenter().save(tmp_path / "teacher")
    trained = open_trained([tmp_path / "teacher"], CPU)
    assert trained.classes == CAMVID_11
    assert trained.short_side == 96


def test_a_teacher_alone_of_nobodys_classes_is_refused(tmp_path: Path):
    own = EfficientNetSegmenter("efficientnet-lite0", ("gravel", "bin"), (96, 128))
    own.save(tmp_path / "teacher")
    with pytest.raises(ConfigError, match="tells 2 classes apart whose colours nobody says"):
        open_trained([tmp_path / "teacher"], CPU)
    classes = ClassSet(name="yard", names=("gravel", "bin"), colors=((1, 2, 3), (4, 5, 6)))
    assert open_trained([tmp_path / "teacher"], CPU, classes).classes == classes


def test_a_run_learns_from_labelled_pictures(drives: Path, weights: list[str], street_camvid: Path, tmp_path: Path):
    assert label(drives, weights, tmp_path / "out").exit_code == 0
    further = ("--further", f"folder={tmp_path / 'out'}", "--further-share", "0.5")
    result = train(street_camvid, tmp_path / "run", *further)
    assert result.exit_code == 0, result.stderr
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (described["further"], described["further_images"]) == (["folder"], 3)


def test_a_run_learns_own_classes(drives: Path, weights: list[str], tmp_path: Path):
    own = ClassSet(name="yard", names=("gravel", "bin"), colors=((1, 2, 3), (4, 5, 6)))
    write_classes(tmp_path / "own", own)
    for part in ("train", "val"):
        for number in range(4):
            trees.write(tmp_path / f"own/images/{part}/{number % 2}/{number}.png", trees.picture(number, (72, 96)))
            labels = np.full((72, 96), number % 2, np.uint8)
            trees.write(tmp_path / f"own/labels/{part}/{number % 2}/{number}.png", labels)
    arguments = ["--dataset", "folder", "--data-dir", tmp_path / "own"]
    small = ["--distill", "none", "--iterations", "2", "--batch-size", "2", "--crop-size", "64x64"]
    small += ["--set", "train_size=64x96"]
    refused = run(*arguments, *small, "--output", tmp_path / "run", "--init", weights[0])
    assert_one_line(refused, "classes of camvid-11, the data are yard; as --pretrained it gives all but", exit_code=2)
    write_classes(tmp_path / "street", CAMVID_11)
    save_pair(tmp_path / "street", "train", "a", trees.picture(0), np.zeros(trees.SIZE, np.uint8))
    refused = run(*arguments, *small, "--output", tmp_path / "run", "--further", f"folder={tmp_path / 'street'}")
    assert_one_line(refused, "camvid-11 has no class of yard", exit_code=2)
    result = run(*arguments, *small, "--output", tmp_path / "run", "--pretrained", weights[0], "--hold-out", "1")
    assert result.exit_code == 0, result.stderr
    last = tmp_path / "run" / "last.safetensors"
    assert load_checkpoint(last).metadata.class_set == own
    judged = run(*arguments, "--eval", "val", "--weights", last)
    assert judged.exit_code == 0, judged.stderr
    assert "mIoU of 1" in judged.output
    write_classes(tmp_path / "own", replace(own, names=("bin", "gravel")))
    again = run(
        *arguments, *small, "--output", tmp_path / "run", "--pretrained", weights[0], "--hold-out", "1", "--resume"
    )
    assert_one_line(again, "was made with classes = ['gravel', 'bin'], this run has ['bin', 'gravel']")


def test_a_network_of_other_classes_gives_all_but_its_classifier(weights: list[str]):
    own = ClassSet(name="yard", names=("gravel", "bin"), colors=((1, 2, 3), (4, 5, 6)))
    recipe = replace(FOLDER, dasp_rates=TINY.dasp_rates)
    drawn = build_student(recipe, own).network.state_dict()
    given = load_checkpoint(Path(weights[0])).model.state_dict()
    network = build_student(recipe, own, pretrained=Path(weights[0])).network
    assert network.config.num_classes == 2
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, (drawn if "classifier" in name else given)[name], rtol=0, atol=0)
    wide = build_student(replace(recipe, model="b"), own, pretrained=Path(weights[0])).network
    x = torch.randn(1, 3, 64, 64)
    before = load_checkpoint(Path(weights[0])).model.forward_all(x)
    found = wide.eval().forward_all(x)
    torch.testing.assert_close(found.stage4[:, : before.stage4.shape[1]], before.stage4, rtol=1e-2, atol=1e-2)
