"""Compare the whole command with the network alone at the same size: decode, infer, draw and encode against infer.

python -m benchmarks.end_to_end dashcam.mp4 --output benchmarks/results/end-to-end-cpu.json
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from bsdnet import Segmenter
from bsdnet.checkpoint import default_weights, load_checkpoint
from bsdnet.machine import describe_measurement
from bsdnet.runtime.backends import Network
from bsdnet.stream.source import open_source


@click.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default="auto", show_default=True, help="Input size, as bsdnet-run takes it.")
@click.option("--rounds", default=3, show_default=True, help="Pairs of measurements.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(video: Path, size: str, rounds: int, output: Path | None) -> None:
    """Compare the whole command with the network alone, in turn."""
    network, device, shape = _network(video, size)
    pairs = []
    for number in range(rounds):
        alone_fps = _alone_fps(network, device, shape)
        whole = _whole(video, size)
        pairs.append({"network_fps": alone_fps, **whole, "ratio": whole["fps"] / alone_fps})
        click.echo(f"{number}: network alone {alone_fps:.1f} fps, whole command {whole['fps']:.1f} fps")
    medians = {name: round(statistics.median(pair[name] for pair in pairs), 3) for name in pairs[0]}
    click.echo(json.dumps(medians))
    if output is not None:
        report = {
            **describe_measurement("python -m benchmarks.end_to_end"),
            "video": video.name,
            "network_size": f"{shape[3]}x{shape[2]}",
            "medians": medians,
            "pairs": pairs,
        }
        output.write_text(json.dumps(report, indent=2) + "\n")


def _network(video: Path, size: str) -> tuple[Network, torch.device, tuple[int, int, int, int]]:
    from cli.options import NAMED_SIZES

    asked = NAMED_SIZES.get(size)
    if asked is None and size != "auto":
        width, height = (int(side) for side in size.split("x"))
        asked = (height, width)
    with Segmenter.load(size=asked) as segmenter, open_source(video) as source:
        height, width = segmenter.size_for(source.info.size)
        model = load_checkpoint(default_weights()).model
        network = Network(model, segmenter.device, segmenter.precision, "auto")
        return network, segmenter.device, (1, 3, height, width)


@torch.inference_mode()
def _alone_fps(network: Network, device: torch.device, shape: tuple[int, int, int, int]) -> float:
    image = torch.randn(shape).to(device, network.dtype, memory_format=torch.channels_last)
    times = []
    for number in range(60):
        start = time.perf_counter()
        network(image)
        if number >= 10:
            times.append(time.perf_counter() - start)
    return 1 / statistics.median(times)


def _whole(video: Path, size: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cli.run", str(video), "-o", f"{folder}/out.mp4", "--size", size]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall_s = time.perf_counter() - start
    found = re.search(r"([\d.]+) fps, ([\d.]+) s, first frame after ([\d.]+) s", done.stdout)
    if found is None:
        raise click.ClickException(f"bsdnet-run printed no speed: {done.stdout}")
    fps, stream_s, first_s = (float(value) for value in found.groups())
    return {"fps": fps, "start_to_first_frame_s": wall_s - stream_s + first_s, "command_s": wall_s}


if __name__ == "__main__":
    main()
