"""Weights that look at pictures, anybody's networks among them."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bsdnet.classes import CAMVID_11
from bsdnet.errors import ConfigError
from tests.trainer import trees
from tests.trainer.command import assert_one_line, run
from tests.trainer.test_bsdnet_teacher import make_network, write
from trainer.teacher import average_probabilities
from trainer.trained import digest_of, open_trained

CPU = torch.device("cpu")

FACTORY = """
import torch
from torch import nn

class Bands(nn.Module):
    '''The class of each pixel by its brightness alone, at stride 2.'''

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        assert not self.training
        grey = nn.functional.avg_pool2d(images.mean(1, keepdim=True), 2)
        return -(grey - torch.arange(self.classes).view(1, -1, 1, 1) / self.classes).abs() * 9

class Fails(nn.Module):
    def forward(self, images):
        raise ValueError("no way")

class Gives(nn.Module):
    def forward(self, images):
        return {"out": images}

def bands(): return Bands(11)
def few(): return Bands(3)
def fails(): return Fails()
def gives(): return Gives()
def broken(): raise OSError("no weights")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(FACTORY)
    return tmp_path / "net.py"


def bands(images: torch.Tensor) -> torch.Tensor:
    grey = nn.functional.avg_pool2d(images.mean(1, keepdim=True), 2)
    return -(grey - torch.arange(11).view(1, -1, 1, 1) / 11).abs() * 9


def test_anybodys_network_looks_alone(file: Path):
    trained = open_trained([Path(f"{file}:bands")], CPU, CAMVID_11)
    assert trained.short_side is None
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(trained.network(images), bands(images))


def test_anybodys_network_is_one_of_several(file: Path, tmp_path: Path):
    student = make_network(1)
    trained = open_trained([Path(f"{file}:bands"), Path(write(tmp_path / "s.safetensors", student))], CPU)
    assert trained.classes == CAMVID_11
    assert trained.short_side == 64, "the student's: anybody's network says none"
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = average_probabilities([bands(images), student.eval()(images)])
        torch.testing.assert_close(trained.network(images), expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(expected.exp().sum(1), torch.ones(1, 32, 48))


def test_it_is_known_again_by_its_file_and_factory(file: Path):
    assert digest_of(Path(f"{file}:bands")) == hashlib.sha256(FACTORY.encode()).hexdigest() + ":bands"


def test_it_is_evaluated_as_weights_are(file: Path):
    arguments = ("--dataset", "demo", "--eval", "val", "--eval-size", "96x64", "--json", "--device", "cpu")
    result = run(*arguments, "--weights", f"{file}:bands")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert 0 < found["miou"] < 0.5
    assert found["weights_sha256"] == digest_of(Path(f"{file}:bands"))


def test_it_labels_beside_a_student(file: Path, tmp_path: Path):
    trees.write(tmp_path / "drive" / "a.png", trees.picture(0, (64, 96)))
    student = write(tmp_path / "s.safetensors", make_network(1))
    arguments = ("--weights", student, "--weights", f"{file}:bands", "--output", tmp_path / "out", "--device", "cpu")
    result = run("label", tmp_path / "drive", *arguments)
    assert result.exit_code == 0, result.output
    noted = json.loads((tmp_path / "out" / "labelled.json").read_text())["settings"]
    assert noted["weights_sha256"] == [digest_of(Path(student)), digest_of(Path(f"{file}:bands"))]
    file.write_text(FACTORY + "# changed\n")
    assert_one_line(run("label", tmp_path / "drive", *arguments), "was labelled with other settings", exit_code=2)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("few", "net.py:few gave (1, 3, 32, 48), expected logits (1, 11, h, w) of the classes of camvid-11"),
        ("gives", "net.py:gives gave dict, expected logits"),
        ("fails", "net.py:fails failed: ValueError: no way"),
        ("broken", "net.py:broken cannot be loaded: OSError: no weights"),
        ("missing", "net.py:missing cannot be loaded: AttributeError"),
    ],
)
def test_what_gives_something_else_is_one_line(file: Path, tmp_path: Path, factory: str, said: str):
    trees.write(tmp_path / "drive" / "a.png", trees.picture(0, (64, 96)))
    student = write(tmp_path / "s.safetensors", make_network(1))
    arguments = ("--weights", student, "--weights", f"{file}:{factory}", "--output", tmp_path / "out")
    assert_one_line(run("label", tmp_path / "drive", *arguments, "--device", "cpu"), said, exit_code=2)


def test_it_does_not_say_its_classes(file: Path):
    with pytest.raises(ConfigError, match=r"net\.py:bands does not say which classes .* a student of the same"):
        open_trained([Path(f"{file}:bands")], CPU)
    with pytest.raises(ConfigError, match=r"there is no file no\.py; expected FILE\.py:FACTORY"):
        open_trained([Path("no.py:bands")], CPU, CAMVID_11)
