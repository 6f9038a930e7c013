"""Time networks alone: one picture to logits at stride 8, interleaved, medians.

    python benchmarks/network_speed.py --size 1024x512 --output benchmarks/results/network-speed-cpu.json
    python benchmarks/network_speed.py --module ddrnet.py:slim --module sctnet.py:small

Every network runs in the same dtype and memory format, in evaluation mode, with the batch norms that directly follow a
convolution folded into it: ours by `fold_batch_norms`, the others by torch.fx where it can trace them.
"""

import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from bsdnet.modeling import bsdnet_b, bsdnet_s, fold_batch_norms
from bsdnet.runtime.machine import describe_machine

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@click.command()
@click.option("--size", default="1024x512", show_default=True, help="Input size, WIDTHxHEIGHT.")
@click.option("--precision", type=click.Choice(list(DTYPES)), default="bf16", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--rounds", default=30, show_default=True, help="Timed runs of each network.")
@click.option("--module", "modules", multiple=True, metavar="FILE.py:FACTORY", help="Another network to time.")
@click.option("--large", is_flag=True, help="Time BSDNet-B too.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
@torch.inference_mode()
def main(
    size: str, precision: str, device: str, rounds: int, modules: tuple[str, ...], large: bool, output: Path | None
) -> None:
    """Time networks alone, interleaved."""
    width, height = (int(side) for side in size.split("x"))
    factories: dict[str, Callable[[], nn.Module]] = {"BSDNet-S": bsdnet_s}
    if large:
        factories["BSDNet-B"] = bsdnet_b
    for module in modules:
        factories[module.rpartition(":")[2]] = _factory(module)
    image = torch.randn(1, 3, height, width)
    networks, results = {}, {}
    for name, factory in factories.items():
        network = factory().eval()
        parameters = sum(parameter.numel() for parameter in network.parameters())
        logits = network(image)
        folded = _fold(network)
        networks[name] = (folded or network).to(device, DTYPES[precision], memory_format=torch.channels_last)
        results[name] = {
            "parameters_m": round(parameters / 1e6, 3),
            "logits": list(logits.shape),
            "folded": folded is not None,
        }
    prepared = image.to(device, DTYPES[precision], memory_format=torch.channels_last)
    for name, times in _time(networks, prepared, rounds).items():
        results[name] |= {"median_ms": round(statistics.median(times), 2), "min_ms": round(min(times), 2)}
    _report(results)
    if output is not None:
        report = {
            "command": " ".join(["python", "benchmarks/network_speed.py", *map(_public, sys.argv[1:])]),
            "machine": describe_machine(),
            "size": size,
            "precision": precision,
            "device": device,
            "rounds": rounds,
            "results": results,
        }
        output.write_text(json.dumps(report, indent=2) + "\n")


def _time(networks: dict[str, nn.Module], image: Tensor, rounds: int) -> dict[str, list[float]]:
    def run(network: nn.Module) -> float:
        start = time.perf_counter()
        network(image)
        if image.device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)

    for network in networks.values():
        for _ in range(3):
            run(network)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            times[name].append(run(network))
    return times


def _fold(network: nn.Module) -> nn.Module | None:
    if type(network).__module__.startswith("bsdnet."):
        return fold_batch_norms(network)
    try:
        folded: nn.Module = fuse(network)
    except Exception as error:  # whatever a network does that cannot be traced
        click.echo(f"{type(network).__name__} is timed unfolded, torch.fx cannot trace it: {error}", err=True)
        return None
    return folded


def _factory(module: str) -> Callable[[], nn.Module]:
    path, _, name = module.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise click.BadParameter(f"{module}: expected FILE.py:FACTORY")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    factory: Callable[[], nn.Module] = getattr(loaded, name)
    return factory


def _public(argument: str) -> str:
    """Leave out where a file lay: that is this machine's business."""
    return (
        Path(argument.rpartition(":")[0]).name + ":" + argument.rpartition(":")[2] if ".py:" in argument else argument
    )


def _report(results: dict[str, dict[str, object]]) -> None:
    first = next(iter(results.values()))["median_ms"]
    for name, row in results.items():
        ratio = row["median_ms"] / first  # type: ignore[operator]
        click.echo(f"{name:24} {row['parameters_m']:7.2f} M  {row['median_ms']:7.2f} ms  {ratio:5.2f}x BSDNet-S")


if __name__ == "__main__":
    main()
