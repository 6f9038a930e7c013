from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bsdnet.checkpoint import load_checkpoint
from bsdnet.classes import CITYSCAPES_19
from bsdnet.errors import ConfigError
from bsdnet.modeling.bsdnet import BSDNet
from tests.trainer.command import assert_one_line, run
from tests.trainer.test_bsdnet_teacher import make_network, pictures, write
from tests.trainer.tiny import TINY
from trainer.averaging import average_weights
from trainer.widening import widen


def test_every_weight_and_statistic_is_the_mean(tmp_path: Path):
    paths = [Path(write(tmp_path / f"{seed}.safetensors", make_network(seed))) for seed in range(3)]
    result = run("average", *paths, "--output", tmp_path / "mean.safetensors")
    assert result.exit_code == 0, result.stderr
    found = load_checkpoint(tmp_path / "mean.safetensors")
    assert found.metadata == load_checkpoint(paths[0]).metadata
    states = [load_checkpoint(path).model.state_dict() for path in paths]
    for name, tensor in found.model.state_dict().items():
        if tensor.is_floating_point():
            expected = sum(state[name] for state in states) / 3
            torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-6)  # kernels are kept in fp16
            assert not torch.equal(tensor, states[0][name]) or torch.equal(states[0][name], states[1][name])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_narrower_network_is_widened_as_training_would(order: tuple[int, int], tmp_path: Path):
    narrow = make_network()
    wider = replace(narrow.config, channels=tuple(2 * count for count in narrow.config.channels))
    paths = [write(tmp_path / "narrow.safetensors", narrow)]
    started = widen(load_checkpoint(Path(paths[0])).model, wider)
    paths.append(write(tmp_path / "wide.safetensors", started, architecture="bsdnet_b"))
    mean = average_weights([Path(paths[index]) for index in order])
    assert (mean.model.config, mean.metadata.architecture) == (wider, "bsdnet_b")
    for name, tensor in mean.model.state_dict().items():  # the shares are the same ones, or it would not be a mean
        torch.testing.assert_close(tensor, started.state_dict()[name], rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(mean.model.eval()(pictures()), narrow(pictures()), rtol=2e-2, atol=2e-2)


def test_networks_that_do_not_fit_together(tmp_path: Path):
    first = write(tmp_path / "a.safetensors", make_network())
    others = {
        "shape": (replace(TINY, num_classes=11, depths=(2, 2, 2)), {}),
        "scale": (replace(TINY, num_classes=11), {"train_size": (128, 192)}),
        "classes": (replace(TINY, num_classes=19), {"classes": CITYSCAPES_19}),
    }
    for name, (config, fields) in others.items():
        other = write(tmp_path / f"{name}.safetensors", BSDNet(config), **fields)
        assert_one_line(
            run("average", first, other, "--output", tmp_path / "mean.safetensors"), f"{name}.safetensors and ",
            "they have no mean", exit_code=2,
        )  # fmt: skip
    assert not (tmp_path / "mean.safetensors").exists()
    with pytest.raises(ConfigError, match="at least two"):
        average_weights([Path(first)])


def test_a_file_that_is_missing(tmp_path: Path):
    first = write(tmp_path / "a.safetensors", make_network())
    result = run("average", first, tmp_path / "b.safetensors", "--output", tmp_path / "mean.safetensors")
    assert_one_line(result, "b.safetensors does not exist")
