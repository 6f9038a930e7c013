"""Teachers against the network that they wrap; every SegFormer here is tiny, random and local."""

import logging
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bsdnet.classes import CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import ConfigError, TrainingError
from trainer.teacher import (
    EnsembleTeacher,
    SegFormerTeacher,
    Teacher,
    TeacherChannels,
    TeacherOutput,
    load_teacher,
    read_class_mapping,
)

transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

CPU = torch.device("cpu")
STREET = ClassSet(name="street", names=("road", "thing", "sky"), colors=((1, 1, 1), (2, 2, 2), (3, 3, 3)))
FOREIGN = ("sky", "car", "Road ", "person", "dashboard")
MAPPING = {"road": ["road"], "thing": ["car", "person"], "sky": ["sky"]}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never ask the network, and find nothing in a cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def make_network(names: Sequence[str], seed: int = 0, width: int = 24) -> Any:
    """A SegFormer whose weights and batch-norm statistics all differ from their starting values."""
    torch.manual_seed(seed)
    config = transformers.SegformerConfig(
        hidden_sizes=[16, 16, 32, 48],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=width,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    network = transformers.SegformerForSemanticSegmentation(config)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.1)
    return network


def make_folder(folder: Path, names: Sequence[str], seed: int = 0, width: int = 24) -> tuple[str, Any]:
    network = make_network(names, seed, width)
    network.save_pretrained(folder)
    return str(folder), network.eval()


def one_to_one(network: Any) -> SegFormerTeacher:
    return SegFormerTeacher(network, [[index] for index in range(network.config.num_labels)], CPU)


def pictures(seed: int = 1, size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


class Fixed:
    """A teacher that gives what it was given."""

    def __init__(self, output: TeacherOutput) -> None:
        self.output = output
        self.channels = TeacherChannels(*(maps.shape[1] for maps in output[:3]))
        self.train_size = None

    def __call__(self, images: Tensor) -> TeacherOutput:
        return self.output


class TestSegFormerTeacher:
    def test_features_are_those_that_the_network_itself_uses(self):
        network = make_network(CAMVID_11.names)
        teacher: Teacher = one_to_one(network)
        found = teacher(pictures())
        expected = network(pixel_values=pictures(), output_hidden_states=True)
        torch.testing.assert_close(found.stage3, expected.hidden_states[2])
        torch.testing.assert_close(found.stage4, expected.hidden_states[3])
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(network.decode_head.classifier(found.decoder), expected.logits)
        assert [maps.shape[1] for maps in found] == [*teacher.channels, 11] == [32, 48, 24, 11]
        assert [tuple(maps.shape[2:]) for maps in found] == [(4, 6), (2, 3), (16, 24), (16, 24)]

    def test_strides_round_up_on_odd_sizes(self):
        found = one_to_one(make_network(CAMVID_11.names))(pictures(size=(97, 131)))
        assert [tuple(maps.shape[2:]) for maps in found] == [(7, 9), (4, 5), (25, 33), (25, 33)]

    def test_it_is_in_evaluation_mode_and_never_learns(self):
        network = make_network(CAMVID_11.names).train()
        teacher = one_to_one(network)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        first, second = teacher(pictures().requires_grad_()), teacher(pictures())
        for one, other in zip(first, second, strict=True):  # no dropout
            assert torch.equal(one, other)
            assert not one.requires_grad
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_calls_leave_no_hook_behind_and_do_not_mix(self):
        network = make_network(CAMVID_11.names)
        teacher = one_to_one(network)
        first, other, again = teacher(pictures(1)), teacher(pictures(2)), teacher(pictures(1))
        assert not torch.equal(first.decoder, other.decoder)
        assert torch.equal(first.decoder, again.decoder)
        with pytest.raises((RuntimeError, ValueError)):
            teacher(torch.zeros(1, 4, 64, 64))
        assert not network.decode_head.classifier._forward_pre_hooks


class TestClasses:
    def test_logits_come_in_the_students_order_whatever_the_names_case_and_spaces(self, tmp_path: Path):
        names = [f"{name.upper()} " for name in reversed(CAMVID_11.names)]
        folder, network = make_folder(tmp_path / "teacher", names)
        found = load_teacher([folder], CAMVID_11, CPU)(pictures())
        torch.testing.assert_close(found.logits, network(pixel_values=pictures()).logits.flip(1))

    def test_other_classes_are_refused_by_the_first_differences(self, tmp_path: Path):
        folder, _ = make_folder(tmp_path / "teacher", [f"thing {index}" for index in range(6)] + ["sky", "road"])
        message = (
            f"the 8 classes of the teacher {folder} are not the 11 of camvid-11: it lacks 'building', 'pole', "
            "'pavement', 'tree' and 5 more, and has 'thing 0', 'thing 1', 'thing 2', 'thing 3' and 2 more besides; "
            "say with --teacher-classes"
        )
        with pytest.raises(ConfigError, match=re.escape(message)):
            load_teacher([folder], CAMVID_11, CPU)

    def test_a_teacher_that_lacks_nothing_but_has_more_is_refused(self, tmp_path: Path):
        folder, _ = make_folder(tmp_path / "teacher", (*STREET.names, "dashboard"))
        with pytest.raises(ConfigError, match="it lacks none, and has 'dashboard' besides"):
            load_teacher([folder], STREET, CPU)

    def test_as_many_other_classes_are_refused(self, tmp_path: Path):
        folder, _ = make_folder(tmp_path / "teacher", ("road", "sky", "dashboard"))
        with pytest.raises(ConfigError, match="it lacks 'thing', and has 'dashboard' besides"):
            load_teacher([folder], STREET, CPU)

    def test_mapped_classes_add_their_probabilities(self, tmp_path: Path):
        folder, network = make_folder(tmp_path / "teacher", FOREIGN)
        mapping = {"Road": ["ROAD"], **{name: MAPPING[name] for name in ("sky", "thing")}}
        found = load_teacher([folder], STREET, CPU, class_mapping=mapping)(pictures()).logits.softmax(1)
        p = network(pixel_values=pictures()).logits.softmax(1)
        expected = torch.stack([p[:, 2], p[:, 1] + p[:, 3], p[:, 0]], 1) / (1 - p[:, 4:5])  # the dashboard is left out
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"lamp": ["sky"]}, "'lamp': no class of street"),
            ({"sky": ["heaven", "car"]}, "'heaven': no class of the teacher"),
            ({"sky": None}, "'sky': in street, but not mapped"),
        ],
    )
    def test_a_mapping_that_does_not_fit(self, tmp_path: Path, change: dict[str, list[str] | None], message: str):
        folder, _ = make_folder(tmp_path / "teacher", FOREIGN)
        mapping = {name: entries for name, entries in {**MAPPING, **change}.items() if entries is not None}
        with pytest.raises(ConfigError, match=message):
            load_teacher([folder], STREET, CPU, class_mapping=mapping)

    def test_a_mapping_is_read_from_toml(self, tmp_path: Path):
        path = tmp_path / "classes.toml"
        path.write_text('road = "road"\n"thing" = ["car", "person"]\nsky = ["čistá obloha"]\n', encoding="utf-8")
        expected = {"road": ["road"], "thing": ["car", "person"], "sky": ["čistá obloha"]}
        assert read_class_mapping(path) == expected

    def test_the_guides_example_maps_cityscapes_to_camvid(self, tmp_path: Path):
        guide = Path(__file__).parents[2] / "docs" / "teachers.md"
        path = tmp_path / "classes.toml"
        path.write_text(guide.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0], encoding="utf-8")
        folder, _ = make_folder(tmp_path / "teacher", CITYSCAPES_19.names)
        teacher = load_teacher([folder], CAMVID_11, CPU, class_mapping=read_class_mapping(path))
        assert teacher(pictures()).logits.shape == (2, 11, 16, 24)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "cannot be read: No such file"),
            (b"road = ", "is no TOML file"),
            (b"\xff\xfe", "is no TOML file"),
            (b"road = 3", "'road' must be a list of the teacher's classes"),
            (b"road = []", "'road' must be a list of the teacher's classes"),
            (b"road = ['a', 3]", "'road' must be a list of the teacher's classes"),
            (b"[road]\na = 'b'", "'road' must be a list of the teacher's classes"),
        ],
    )
    def test_a_file_that_is_no_mapping(self, tmp_path: Path, content: bytes | None, message: str):
        path = tmp_path / "classes.toml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=message) as caught:
            read_class_mapping(path)
        assert str(path) in str(caught.value)


class TestEnsemble:
    def test_probabilities_are_averaged_and_features_put_side_by_side(self, tmp_path: Path):
        reversed_names = CAMVID_11.names[::-1]
        folders = [
            make_folder(tmp_path / "a", CAMVID_11.names, seed=0),
            make_folder(tmp_path / "b", reversed_names, seed=1, width=16),
        ]
        ensemble = load_teacher([name for name, _ in folders], CAMVID_11, CPU)
        found = ensemble(pictures())
        parts = [one_to_one(network)(pictures()) for _, network in folders]
        mean = (parts[0].logits.softmax(1) + parts[1].logits.softmax(1).flip(1)) / 2
        torch.testing.assert_close(found.logits.softmax(1), mean)
        assert ensemble.channels == TeacherChannels(64, 96, 40) == tuple(maps.shape[1] for maps in found[:3])
        for together, one, other in zip(found[:3], parts[0], parts[1], strict=False):
            torch.testing.assert_close(together, torch.cat([one, other], 1))

    def test_maps_are_brought_to_the_first_teachers_size(self):
        outputs = [
            TeacherOutput(*torch.randn(4, 1, 2, size, size, generator=torch.Generator().manual_seed(size)))
            for size in (4, 6)
        ]
        found = EnsembleTeacher([Fixed(output) for output in outputs])(pictures())
        small = [F.interpolate(maps, size=(4, 4), mode="bilinear", align_corners=False) for maps in outputs[1]]
        for index in range(3):
            torch.testing.assert_close(found[index], torch.cat([outputs[0][index], small[index]], 1))
        torch.testing.assert_close(found.logits.exp(), (outputs[0].logits.softmax(1) + small[3].softmax(1)) / 2)


def without_a_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors_torch.load_file(path)
    del tensors["decode_head.classifier.weight"]
    safetensors_torch.save_file(tensors, path, {"format": "pt"})


def with_another_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors_torch.load_file(path)
    safetensors_torch.save_file({**tensors, "foreign": torch.zeros(1)}, path, {"format": "pt"})


def of_another_shape(folder: Path) -> None:
    make_network(CAMVID_11.names, width=16).save_pretrained(folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder)


def of_another_type(folder: Path) -> None:
    shutil.rmtree(folder)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    transformers.ResNetModel(config).save_pretrained(folder)


def damaged(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"half")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


class TestErrors:
    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            (without_a_tensor, "1 missing keys, such as decode_head.classifier.weight"),
            (with_another_tensor, "1 unexpected keys, such as foreign"),
            (of_another_shape, "mismatched keys, such as decode_head.batch_norm.bias"),
            (of_another_type, "cannot be loaded as a SegFormer: it is a resnet"),
            (damaged, "cannot be loaded as a SegFormer"),
            (emptied, "no file named model.safetensors"),
            (shutil.rmtree, "there is no folder"),
        ],
    )
    def test_a_folder_that_holds_no_teacher(self, tmp_path: Path, harm: Any, message: str):
        folder, _ = make_folder(tmp_path / "teacher", CAMVID_11.names)
        harm(Path(folder))
        with pytest.raises(TrainingError, match=re.escape(message)) as caught:
            load_teacher([folder], CAMVID_11, CPU)
        assert folder in str(caught.value)
        self.check_advice(caught.value)

    def test_a_hub_name_without_a_network(self, caplog: pytest.LogCaptureFixture):
        name = "nvidia/segformer-b2-finetuned-cityscapes-1024-1024"
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(
                TrainingError, match=f"{name} is no folder here, and from Hugging Face it cannot be loaded"
            ) as caught,
        ):
            load_teacher([name], CAMVID_11, CPU)
        self.check_advice(caught.value)
        assert f"teacher {name}: from Hugging Face, or its cache; mind its licence" in caplog.text

    def test_no_name_at_all(self):
        with pytest.raises(TrainingError, match="no teacher is named") as caught:
            load_teacher([], CAMVID_11, CPU)
        self.check_advice(caught.value)

    def test_without_transformers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(TrainingError, match=re.escape("pip install 'bsdnet[train]'")) as caught:
            load_teacher([str(tmp_path)], CAMVID_11, CPU)
        self.check_advice(caught.value)

    @staticmethod
    def check_advice(error: TrainingError) -> None:
        assert "--teacher FOLDER" in str(error)
        assert "--distill none" in str(error)
        assert "\n" not in str(error)
