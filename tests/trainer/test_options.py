"""How a command's options make a recipe; the options themselves are tested with the commands."""

from pathlib import Path

import pytest
import torch

from trainer.options import resolve_recipe
from trainer.recipes import CAMVID_360, SegmentationRecipe

CPU = torch.device("cpu")


def resolved(*settings: str, config: Path | None = None, precision: str | None = None) -> SegmentationRecipe:
    return resolve_recipe(CAMVID_360, {"config": config, "settings": settings, "precision": precision}, CPU)


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)


def test_bf16_is_the_default_where_the_processor_computes_in_it(monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert resolved().precision == "bf16"
    assert not caplog.records


@pytest.mark.usefixtures("no_bf16")
def test_elsewhere_fp32_is(caplog):
    assert resolved("lr=0.1").precision == "fp32"
    assert not caplog.records


@pytest.mark.usefixtures("no_bf16")
@pytest.mark.parametrize("where", ["option", "setting", "config"])
def test_what_is_asked_for_is_done_with_a_warning(tmp_path, caplog, where):
    config = tmp_path / "recipe.toml"
    config.write_text('precision = "bf16"\n')
    given = {"option": {"precision": "bf16"}, "config": {"config": config}, "setting": {}}[where]
    recipe = resolved(*(["precision=bf16"] if where == "setting" else []), **given)
    assert recipe.precision == "bf16"
    assert "fp32 is faster" in caplog.text
