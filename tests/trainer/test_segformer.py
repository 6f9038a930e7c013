"""SegFormers that are trained here: their shapes, and what is kept of them."""

from pathlib import Path

import pytest
import torch

from bsdnet.classes import CAMVID_11, CITYSCAPES_19
from bsdnet.errors import ConfigError, TrainingError
from trainer.segformer import VARIANTS, SegFormerClassifier, SegFormerSegmenter
from trainer.teacher import SegFormerTeacher, load_teacher

pytest.importorskip("transformers")

MILLIONS = (3.8, 13.7, 27.5, 47.3, 64.1, 84.7)
"""Parameters with 150 classes, B0 to B5: table 1 of the SegFormer paper."""


def segmenter(variant: str = "segformer-b0") -> SegFormerSegmenter:
    torch.manual_seed(0)
    return SegFormerSegmenter(variant, CAMVID_11, (96, 128))


@pytest.mark.parametrize(("variant", "millions"), [*zip(VARIANTS, MILLIONS, strict=True)])
def test_each_variant_has_the_papers_parameters(variant: str, millions: float):
    with torch.device("meta"):
        network = SegFormerSegmenter(variant, CAMVID_11, (96, 128))
    classifier = network.network.decode_head.classifier
    count = sum(parameter.numel() for parameter in network.parameters()) + (150 - 11) * (classifier.in_channels + 1)
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("build", [lambda: SegFormerClassifier("mit-b0", 3), lambda: segmenter("mit-b0")])
def test_an_unknown_variant(build: object):
    with pytest.raises(ConfigError, match="no SegFormer 'mit-b0'; expected one of segformer-b0, "):
        build()  # type: ignore[operator]


def test_what_is_saved_teaches(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    network = segmenter().eval()
    images = torch.randn(1, 3, 64, 96)
    network.save(tmp_path / "best")
    network.save(tmp_path / "best")  # over the one before
    teacher = load_teacher([str(tmp_path / "best")], CAMVID_11, torch.device("cpu"))
    torch.testing.assert_close(teacher(images).logits, network(images))
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert capfd.readouterr().err == ""  # no progress bars between those of the run


def test_what_was_trained_here_says_at_which_size(tmp_path: Path):
    network = segmenter()
    network.save(tmp_path / "ours")
    teacher = load_teacher([str(tmp_path / "ours")], CAMVID_11, torch.device("cpu"))
    assert isinstance(teacher, SegFormerTeacher)
    assert teacher.train_size == (96, 128)
    for number, foreign in enumerate((None, "large", [96], [0, 128], [96.5, 128])):
        network.network.config.bsdnet_train_size = foreign
        network.save(tmp_path / str(number))
        other = load_teacher([str(tmp_path / str(number))], CAMVID_11, torch.device("cpu"))
        assert isinstance(other, SegFormerTeacher)
        assert other.train_size is None


def test_a_teacher_kept_in_half_precision_teaches_in_fp32(tmp_path: Path):
    segmenter().half().save(tmp_path / "small")
    found = load_teacher([str(tmp_path / "small")], CAMVID_11, torch.device("cpu"))(torch.randn(1, 3, 64, 64))
    assert found.logits.dtype == found.stage3.dtype == torch.float32


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written"):
        segmenter().save(tmp_path / "file" / "best")


def test_the_decoder_is_all_that_is_not_the_encoder():
    network = segmenter()
    head = {id(parameter) for parameter in network.head_parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) not in head}
    assert head
    assert names
    assert all(name.startswith("network.segformer.") for name in names)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SegFormerClassifier, str]:
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(1)
    classifier = SegFormerClassifier("segformer-b0", 7)
    classifier.save(folder / "last.safetensors")
    return classifier, str(folder / "last")


def test_an_encoder_is_taken_over_whole(pretrained: tuple[SegFormerClassifier, str]):
    classifier, folder = pretrained
    network = segmenter()
    head = {name: tensor.clone() for name, tensor in network.network.decode_head.state_dict().items()}
    network.load_encoder(folder)
    for name, tensor in classifier.network.segformer.state_dict().items():
        assert torch.equal(network.network.segformer.state_dict()[name], tensor)
    assert all(torch.equal(tensor, head[name]) for name, tensor in network.network.decode_head.state_dict().items())


def test_another_variants_encoder_is_refused(pretrained: tuple[SegFormerClassifier, str], tmp_path: Path):
    with pytest.raises(TrainingError, match="has another shape"):
        segmenter("segformer-b1").load_encoder(pretrained[1])
    SegFormerClassifier("segformer-b1", 7).save(tmp_path / "last")  # as wide as B2, but not as deep
    with pytest.raises(TrainingError, match="has another shape"):
        segmenter("segformer-b2").load_encoder(str(tmp_path / "last"))


def test_a_teacher_is_no_encoder(tmp_path: Path):
    segmenter().save(tmp_path / "teacher")
    with pytest.raises(TrainingError, match="missing keys, such as classifier"):
        segmenter().load_encoder(str(tmp_path / "teacher"))


def test_a_trained_one_is_gone_on_from(tmp_path: Path):
    trained, network = segmenter(), segmenter()
    for parameter in trained.parameters():
        parameter.data.add_(0.5)
    trained.save(tmp_path / "last")
    network.go_on_from(str(tmp_path / "last"))
    before, after = trained.state_dict(), network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(TrainingError, match="another shape than the model"):
        segmenter("segformer-b1").go_on_from(str(tmp_path / "last"))
    with pytest.raises(ConfigError, match="was trained on other classes: sky"):
        SegFormerSegmenter("segformer-b0", CITYSCAPES_19, (96, 128)).go_on_from(str(tmp_path / "last"))
