"""bsdnet-bench and other people's modules."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cli.bench.candidates import fold_foreign, load_candidate, load_candidates
from cli.bench.memory import peak_of_fresh_process
from tests.cli.test_bench import FACTORY, run_bench


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("factory") / "foreign.py"
    path.write_text(FACTORY)
    return path


def test_networks_that_need_values_are_neither_counted_nor_folded(factory: Path):
    """What it does depends on values: neither torch.fx nor a network without values can follow."""
    result = run_bench(
        *("--model", "s", "--module", f"{factory}:picky", "--size", "64x64", "--device", "cpu", "--precision", "fp32"),
        *("--rounds", 1, "--model-only", "--no-memory"),
    )
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("| picky")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert (cells[3], cells[4]) == ("0.00", "–")  # noqa: RUF001
    assert "torch.fx cannot trace it: picky\n" in result.stdout


def test_foreign_batch_norms_are_folded_wherever_they_are(factory: Path):
    model = load_candidate(f"{factory}:small").model
    nn.init.uniform_(model.norm.running_var, 1, 2)
    folded = fold_foreign(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(folded(x)["main"], model(x)["main"])


@pytest.mark.parametrize("place", ["beside", "put on the path by the file"])
def test_files_of_two_projects_get_their_own_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for project, channels in (("one", 1), ("two", 2)):
        folder = tmp_path / project / ("" if place == "beside" else "lib")
        (folder / "models").mkdir(parents=True)
        (folder / "models" / "__init__.py").touch()
        (folder / "models" / "head.py").write_text(f"channels = {channels}\n")
        path = "" if place == "beside" else f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        lines = "from torch import nn\nfrom models.head import channels\n"
        (tmp_path / project / "net.py").write_text(f"{path}{lines}def build(): return nn.Conv2d(3, channels, 1)\n")
    path_before, modules_before = sys.path.copy(), sys.modules.copy()
    made = [load_candidate(f"{tmp_path}/{project}/net.py:build").model.out_channels for project in ("one", "two")]
    assert made == [1, 2]
    assert sys.path[: len(path_before)] == path_before, "what they bring hides nothing of ours"
    assert not {"models", "models.head", "net"} & set(sys.modules) - set(modules_before)


@pytest.mark.parametrize("name", ["shapes", "logging"])
def test_a_file_may_define_what_looks_its_own_module_up(tmp_path: Path, name: str):
    """A dataclass whose annotations are texts does."""
    (tmp_path / f"{name}.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Shape:\n    channels: int = 4\n"
        "def build(): return nn.Conv2d(3, Shape().channels, 1)\n"
    )
    before = sys.modules.get(name)
    assert load_candidate(f"{tmp_path}/{name}.py:build").model.out_channels == 4
    assert sys.modules.get(name) is before, "whatever the file is called"


def test_files_that_are_called_alike_are_told_apart_by_their_folders(weights: Path, factory: Path, tmp_path: Path):
    """As the `last.safetensors` of two runs: rows and lines of a plot would be one network's otherwise."""
    specs = []
    for folder in ("runs/a", "runs/b", "older/b"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(weights, tmp_path / folder / "last.safetensors")
        specs.append(str(tmp_path / folder / "last.safetensors"))
    shutil.copy(factory, tmp_path / "runs" / "other.py")
    specs += [f"{factory}:small", f"{tmp_path}/runs/other.py:small", f"{factory}:picky", "s", "s"]
    names = [candidate.name for candidate in load_candidates(specs)]
    assert names[:3] == ["a/last", "runs/b/last", "older/b/last"]
    assert names[3:] == ["foreign:small", "other:small", "picky", "BSDNet-S", "BSDNet-S"]


def test_memory_is_found_behind_what_foreign_code_prints(tmp_path: Path):
    (tmp_path / "chatty.py").write_text(
        "from torch import nn\ndef build():\n    print('loading ...', end='')\n    return nn.Conv2d(3, 8, 3)\n"
    )
    peak = peak_of_fresh_process(f"{tmp_path}/chatty.py:build", (64, 96), "eager", "fp32")
    assert peak is None or peak > 0
