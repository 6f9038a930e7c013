"""A trained BSDNet as the teacher of another one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsdnet.checkpoint import CheckpointMetadata, load_checkpoint, save_checkpoint
from bsdnet.classes import CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import CheckpointError, ConfigError
from bsdnet.modeling.bsdnet import BSDNet
from tests.trainer.command import train
from tests.trainer.tiny import TINY
from trainer.teacher import TeacherChannels, load_teacher

CPU = torch.device("cpu")
METADATA = CheckpointMetadata(architecture="bsdnet_s", class_set=CAMVID_11, train_size=(64, 96))


def make_network(seed: int = 0) -> BSDNet:
    """A network whose batch norms have seen pictures."""
    torch.manual_seed(seed)
    network = BSDNet(replace(TINY, num_classes=11))
    for _ in range(20):
        network(torch.randn(4, 3, 64, 96))
    return network.eval()


def write(path: Path, network: BSDNet, classes: ClassSet = CAMVID_11, **fields: object) -> str:
    save_checkpoint(path, network, replace(METADATA, class_set=classes, **fields))
    return str(path)


def pictures() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_it_gives_the_maps_and_logits_of_the_network_in_evaluation_mode(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    teacher = load_teacher([write(path, make_network())], CAMVID_11, CPU)
    network = load_checkpoint(path).model
    found = teacher(pictures().requires_grad_())
    expected = network.forward_all(pictures())
    torch.testing.assert_close(found.logits, network(pictures()), rtol=1e-3, atol=1e-4)
    for name in ("stage3", "stage4", "decoder"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)
    assert not any(maps.requires_grad for maps in found)
    c3, c4 = TINY.channels[2:]
    assert teacher.channels == TeacherChannels(c3, c4, TINY.decoder_channels)
    assert [maps.shape[1] for maps in found] == [*teacher.channels, 11]
    assert [tuple(maps.shape[2:]) for maps in found] == [(4, 6), (2, 3), (8, 12), (8, 12)]


def test_its_classes_are_found_by_name(tmp_path: Path):
    backwards = ClassSet(name="backwards", names=CAMVID_11.names[::-1], colors=CAMVID_11.colors[::-1])
    path = write(tmp_path / "weights.safetensors", make_network(), backwards)
    network = load_checkpoint(Path(path)).model
    found = load_teacher([path], CAMVID_11, CPU)(pictures())
    torch.testing.assert_close(found.logits, network(pictures()).flip(1), rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="lacks 'sidewalk'"):
        load_teacher([path], CITYSCAPES_19, CPU)
    street = ClassSet(name="street", names=("ground", "rest"), colors=((1, 1, 1), (2, 2, 2)))
    mapping = {"ground": ["road", "pavement"], "rest": [n for n in CAMVID_11.names if n not in ("road", "pavement")]}
    found = load_teacher([path], street, CPU, class_mapping=mapping)(pictures())
    both = network(pictures()).flip(1).softmax(1)[:, [3, 4]].sum(1)
    torch.testing.assert_close(found.logits.softmax(1)[:, 0], both, rtol=1e-3, atol=1e-4)


def test_other_normalisation_and_files_that_are_no_weights_are_refused(tmp_path: Path):
    path = write(tmp_path / "weights.safetensors", make_network(), mean=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match=r"weights\.safetensors saw pictures that were normalised otherwise"):
        load_teacher([path], CAMVID_11, CPU)
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        load_teacher([str(tmp_path / "none.safetensors")], CAMVID_11, CPU)


def test_students_teach_a_student_through_the_command(street_camvid: Path, tmp_path: Path):
    teachers = [write(tmp_path / f"{seed}.safetensors", make_network(seed)) for seed in (1, 2)]
    ended = []
    for name, options in (
        ("alone", ["--distill", "none"]),
        ("one", ["--distill", "sidm", "--teacher", teachers[0]]),
        ("both", ["--distill", "sidm", "--teacher", teachers[0], "--teacher", teachers[1]]),
    ):
        result = train(street_camvid, tmp_path / name, *options)
        assert result.exit_code == 0, result.stderr
        ended.append((tmp_path / name / "last.safetensors").read_bytes())
    assert len(set(ended)) == 3
