"""bsdnet-bench: what Ctrl-C leaves."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bsdnet.runtime.timing import Probe
from cli.bench import candidates, measure, pipeline
from tests.cli.conftest import CONFIG
from tests.cli.test_bench import run_bench


@pytest.mark.parametrize(
    "arguments", [("--model", "s", "--size", "64x64", "--model-only", "--no-memory"), ("blocks", "--size", "64x64")]
)
def test_ctrl_c_keeps_the_rounds_that_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
):
    monkeypatch.setitem(candidates.CONFIGS, "s", CONFIG)
    interleave = measure.time_interleaved

    def interrupted(probes: Mapping[object, Probe], *, rounds: int, on_round: Callable[[], None]) -> object:
        """Be interrupted within the fourth round, the second that counts."""
        calls = count()

        def measure_one() -> float:
            if next(calls) == 3 * 6 * len(probes) + 2:
                raise KeyboardInterrupt
            return 2.0

        probes = {key: Probe(measure=measure_one) for key in probes}
        return interleave(probes, rounds=rounds, on_round=on_round)

    monkeypatch.setattr(measure, "time_interleaved", interrupted)
    path = tmp_path / "out.json"
    result = run_bench(*arguments, "--device", "cpu", "--rounds", 3, "--json", path)
    assert result.exit_code == 130
    assert "the figures are of 1 of 3 rounds" in result.stderr
    assert "rounds: 1" in result.stdout
    report = json.loads(path.read_text())
    assert report["settings"]["rounds"] == 1
    assert {row["network"]["samples"] for row in report["rows"] if row["network"]} == {5}


def test_ctrl_c_keeps_the_rounds_of_the_pipeline_that_are_complete(
    weights: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    round_, made = pipeline._round, []

    def interrupted(*arguments: Any) -> dict[str, float]:
        made.append(round_(*arguments))
        if len(made) % 3 == 0:
            raise KeyboardInterrupt
        return made[-1]

    monkeypatch.setattr(pipeline, "_round", interrupted)
    arguments = ("pipeline", clip, "--weights", weights, "--device", "cpu", "--frames", 8)
    result = run_bench(*arguments, "--rounds", 5, "--json", tmp_path / "out.json")
    assert result.exit_code == 130
    assert "the figures are of 2 of 5 rounds" in result.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["rounds"] == 2
    assert report["fps_alone"]["decode"] == statistics.median(one["decode"] for one in made[:2])
    made[:] = made[:2]
    result = run_bench(*arguments, "--json", tmp_path / "none.json")
    assert result.exit_code == 130
    assert not (tmp_path / "none.json").exists()
