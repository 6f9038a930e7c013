import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pytest
import torch

from bsdnet.checkpoint import CheckpointMetadata, save_checkpoint
from bsdnet.classes import CAMVID_11
from bsdnet.modeling import BSDNet, BSDNetConfig
from cli.run import main
from tests.stream.media import write_clip

CONFIG = BSDNetConfig(
    num_classes=11,
    channels=(8, 16, 16, 16),
    depths=(1, 1, 1),
    fcbs=(1, 1),
    num_kernels=8,
    groups=2,
    dasp_channels=8,
    decoder_channels=8,
)
SIZE = (180, 320)
GRAY = 100


class Result(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, str]:
        """The closing lines, by their first word."""
        lines = (line.split(maxsplit=1) for line in self.stdout.splitlines())
        return {name: value for name, value in lines}


Run = Callable[..., Result]


def run_main(*arguments: object, main: Callable[[Sequence[str]], NoReturn] = main) -> Result:
    """Run a command, by default bsdnet-run, as a shell would."""
    with (
        redirect_stdout(io.StringIO()) as output,
        redirect_stderr(io.StringIO()) as errors,
        pytest.raises(SystemExit) as exit_,
    ):
        main([str(argument) for argument in arguments])
    return Result(exit_.value.code, output.getvalue(), errors.getvalue())


def save_tiny(path: Path, config: BSDNetConfig = CONFIG) -> Path:
    """Weights of a tiny network that sees a road everywhere, trained at 96x64."""
    torch.manual_seed(0)
    model = BSDNet(config).eval()
    with torch.no_grad():
        model.head.classifier.weight.zero_()
        model.head.classifier.bias.copy_(torch.eye(11)[CAMVID_11.names.index("road")])
    metadata = CheckpointMetadata(architecture="bsdnet_s", class_set=CAMVID_11, train_size=(64, 96))
    save_checkpoint(path, model, metadata)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five grey frames, 320x180 at 25 Hz, with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_clip(path, [np.full((*SIZE, 3), GRAY, np.uint8)] * 5, sound="aac", sound_s=0.2)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """More threads only wait for each other in so small a network."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with the tiny network on the CPU, unless `arguments` say something else; quiet even if slow."""
    monkeypatch.setattr("cli.terminal.LINE_EVERY_S", 3600.0)
    return lambda *arguments: run_main("--weights", weights, "--device", "cpu", *arguments)
