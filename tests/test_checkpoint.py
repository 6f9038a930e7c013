import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from bsdnet.checkpoint import (
    CheckpointMetadata,
    backbone_architecture,
    default_weights,
    load_backbone,
    load_checkpoint,
    save_backbone,
    save_checkpoint,
)
from bsdnet.classes import CAMVID_11
from bsdnet.errors import CheckpointError
from bsdnet.modeling import BSDNet, BSDNetConfig

TINY = BSDNetConfig(num_classes=11, channels=(8, 8, 16, 16), dasp_channels=8, decoder_channels=8, dasp_rates=(1, 2))
METADATA = CheckpointMetadata(
    architecture="bsdnet_s", class_set=CAMVID_11, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), train_size=(360, 480)
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, BSDNet(TINY), METADATA)
    return path


def rewrite(path: Path, **metadata: str) -> None:
    """Replace a file by one with the same tensors and other metadata."""
    tensors = load_file(path)
    texts = {
        "format": "bsdnet-1",
        "kind": "network",
        "architecture": "bsdnet_s",
        "config": json.dumps({**TINY.__dict__}),
        "class_set": json.dumps({"name": "x", "names": CAMVID_11.names, "colors": CAMVID_11.colors}),
        "preprocessing": json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1], "train_size": [360, 480]}),
        **metadata,
    }
    save_file(tensors, path, texts)


def test_a_network_comes_back_as_it_was(saved: Path):
    torch.manual_seed(0)
    expected = BSDNet(TINY).eval()
    for parameter in expected.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()
    checkpoint = load_checkpoint(saved)
    image = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(checkpoint.model(image), expected(image), rtol=0, atol=0)
    assert checkpoint.metadata == METADATA
    assert checkpoint.model.config == TINY
    assert not checkpoint.model.training


def test_the_file_stands_alone_and_is_readable_by_all(saved: Path):
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.stat().st_mode & 0o777 == 0o644


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, in_place = tmp_path / "net.safetensors", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: in_place.append(path.exists()))
    save_checkpoint(path, BSDNet(TINY), METADATA)
    assert in_place == [False]


def test_a_backbone_fits_networks_with_another_head(tmp_path: Path):
    path = tmp_path / "backbone.safetensors"
    source = BSDNet(TINY).backbone
    source.stem[0][1].running_var.fill_(1 / 3)  # batch norms stay fp32
    save_backbone(path, source, "bsdnet_s")
    target = BSDNet(replace(TINY, num_classes=19)).backbone
    load_backbone(path, target)
    assert backbone_architecture(path) == "bsdnet_s"
    for name, tensor in source.state_dict().items():
        expected = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(target.state_dict()[name], expected), name


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"whole")

    def refuse(*_: object) -> None:  # root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors cannot be read: Permission denied"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\xff" * 64])
def test_a_broken_file(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no safetensors file, or it is damaged"):
        load_checkpoint(path)


def test_a_truncated_file(saved: Path):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(saved)


def test_weights_of_another_program(tmp_path: Path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="another program"):
        load_checkpoint(path)


def test_a_backbone_is_no_network(tmp_path: Path):
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, BSDNet(TINY).backbone, "bsdnet_s")
    with pytest.raises(CheckpointError, match="holds a backbone, expected a network"):
        load_checkpoint(path)


def test_tensors_that_do_not_fit_the_shape(saved: Path):
    rewrite(saved, config=json.dumps({**replace(TINY, decoder_channels=16).__dict__}))
    with pytest.raises(CheckpointError, match="another shape"):
        load_checkpoint(saved)


def test_a_tensor_too_few_or_too_many(saved: Path):
    tensors = load_file(saved)
    with safe_open(saved, "pt") as opened:
        texts = opened.metadata()
    fewer = {name: tensor for name, tensor in tensors.items() if name != "head.classifier.bias"}
    for changed in ({**tensors, "more": torch.zeros(1)}, fewer):
        save_file(changed, saved, texts)
        with pytest.raises(CheckpointError, match="another shape"):
            load_checkpoint(saved)


@pytest.mark.parametrize(
    "metadata",
    [
        {"config": "{}}"},
        {"config": json.dumps({"unknown": 1})},
        {"config": json.dumps({"num_classes": 0})},
        {"config": "[1]"},
        {"config": json.dumps({**TINY.__dict__, "dasp_channels": 10**12})},
        {"config": json.dumps({**TINY.__dict__, "dasp_channels": 10**30})},
        {"class_set": json.dumps({"name": "x", "names": list(range(11)), "colors": [[0, 0, 0]] * 11})},
        {"preprocessing": "{}"},
        {"preprocessing": "[1]"},
        {"preprocessing": json.dumps({"mean": [0.5, 0.5], "std": [1, 1, 1], "train_size": [64, 96]})},
        {"preprocessing": json.dumps({"mean": [0, 0, 0], "std": [1, 0, 1], "train_size": [64, 96]})},
        {"preprocessing": json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1], "train_size": [0, 96]})},
        {"preprocessing": json.dumps({"mean": [0, 0, 0], "std": [1, 1, 1], "train_size": "large"})},
        {"preprocessing": json.dumps({"mean": [0, 0, "a"], "std": [1, 1, 1], "train_size": [64, 96]})},
        {"class_set": json.dumps({"name": "x", "names": ["a"], "colors": []})},
    ],
)
def test_metadata_that_cannot_be_used(saved: Path, metadata: dict[str, str]):
    rewrite(saved, **metadata)
    with pytest.raises(CheckpointError, match="metadata cannot be used"):
        load_checkpoint(saved)


def test_class_names_must_match_the_network(saved: Path):
    rewrite(saved, class_set=json.dumps({"name": "x", "names": ["a"], "colors": [[0, 0, 0]]}))
    with pytest.raises(CheckpointError, match="names 1 classes for a network of 11"):
        load_checkpoint(saved)


def test_weights_that_are_no_numbers(saved: Path):
    tensors = load_file(saved)
    name = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
    tensors[name].view(-1)[3] = float("nan")
    with safe_open(saved, framework="pt") as opened:
        texts = opened.metadata()
    save_file(tensors, saved, texts)
    with pytest.raises(CheckpointError, match=f"is damaged: {name} is not finite"):
        load_checkpoint(saved)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.uint8], ids=str)
def test_weights_in_a_format_that_no_network_computes_in(saved: Path, dtype: torch.dtype):
    with safe_open(saved, framework="pt") as opened:
        texts = opened.metadata()
    save_file({name: tensor.to(dtype) for name, tensor in load_file(saved).items()}, saved, texts)
    with pytest.raises(CheckpointError, match=f"as {dtype}; expected fp16, bf16 or fp32"):
        load_checkpoint(saved)


def test_weights_that_fp16_cannot_hold(tmp_path: Path):
    model = BSDNet(TINY)
    model.head.classifier.weight.data[:] = 1e6
    with pytest.raises(CheckpointError, match="not finite in fp16"):
        save_checkpoint(tmp_path / "net.safetensors", model, METADATA)


def test_a_folder_that_is_missing(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "missing" / "net.safetensors", BSDNet(TINY), METADATA)


def test_shipped_weights_by_name():
    with pytest.raises(CheckpointError, match="no weights 'x' ship"):
        default_weights("x")


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fill(*arguments: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("bsdnet.checkpoint.save_file", fill)
    with pytest.raises(CheckpointError, match=r"cannot be written to .*net\.safetensors: .*No space left on device"):
        save_checkpoint(tmp_path / "net.safetensors", BSDNet(TINY), METADATA)
    assert not list(tmp_path.iterdir())
