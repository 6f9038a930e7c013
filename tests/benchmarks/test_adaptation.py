"""The first half of a drive teaches without labels, the second is judged."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import adaptation
from benchmarks.adaptation import as_markdown, halves, main
from tests.benchmarks.test_robustness import save
from trainer.datasets.camvid import CamVid


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_a_drive_is_divided_in_time(street_camvid: Path) -> None:
    drive = CamVid(street_camvid, "val")
    first, second = halves(drive)
    names = [part.name(index) for part in (first, second) for index in range(len(part))]
    assert names == [drive.name(index) for index in range(len(drive))]
    assert 0 <= len(second) - len(first) <= 1
    rgb, labels = second[0]
    assert (rgb == drive[len(first)][0]).all()
    assert (labels == drive[len(first)][1]).all()


def test_the_first_half_is_learnt_from_and_both_weights_are_judged(
    street_camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer is stood in for: it notes what it was given, and gives other weights back."""
    before, teacher = save(tmp_path / "before.safetensors"), save(tmp_path / "teacher.safetensors", seed=2)
    called: list[dict[str, str]] = []

    def train(*arguments: str) -> None:
        called.append(dict(zip(arguments[::2], arguments[1::2], strict=True)))
        Path(called[-1]["--output"]).mkdir(parents=True)
        save(Path(called[-1]["--output"]) / "last.safetensors", seed=1)
        (Path(called[-1]["--output"]) / "run.json").write_text('{"images": 5}')

    monkeypatch.setattr(adaptation, "_bsdnet_train", train)
    whole = CamVid(street_camvid, "train")
    name = whole.groups[0]
    drive = CamVid(street_camvid, "train", only=[name])
    result = run(
        street_camvid, "--split", "train", "--drive", name, "--weights", before, "--teacher", teacher, "--epochs", 3,
        "--set", "cwd_weight=5", "--runs", tmp_path / "runs", "--output", tmp_path / "found.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (given,) = called
    expected = {"--dataset": "video", "--init": str(before), "--teacher": str(teacher), "--epochs": "3", "--every": "1"}
    assert given.items() >= expected.items() | {("--set", "cwd_weight=5")}
    pictures = sorted(path.stem for path in Path(given["--data-dir"]).iterdir())
    assert pictures == [drive.name(index) for index in range(len(drive) // 2)]
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["pictures"] == {
        "learnt from": 5,  # the trainer keeps some for its own evaluations
        "its second half": len(drive) - len(pictures),
        "other drives": len(whole) - len(drive),
    }
    old, new, mean = report["rows"].values()
    assert old != new != mean != old
    assert result.output.strip() == as_markdown(report)


def test_an_unknown_drive_is_one_line(street_camvid: Path, tmp_path: Path) -> None:
    result = run(street_camvid, "--drive", "9999", "--teacher", "t", "--runs", tmp_path)
    assert result.exit_code == 1
    assert "9999" in result.output
    assert len(result.output.splitlines()) == 1
