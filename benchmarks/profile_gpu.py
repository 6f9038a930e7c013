"""Say where a GPU's time goes for frames that lie there and stay there, and how long the host takes to queue them.

python -m benchmarks.profile_gpu --model b --size 2048x1024
"""

import time
from collections.abc import Callable

import click
import torch
from torch.profiler import ProfilerActivity, profile

from bsdnet.checkpoint import default_weights, load_checkpoint
from bsdnet.machine import describe_machine
from bsdnet.runtime.backends import BackendName
from bsdnet.runtime.cuda_stages import DeviceFrame
from bsdnet.runtime.segmenter import Segmenter
from cli.bench.measure import as_decoded, drawn_frame
from cli.bench.options import backend_option, parse_exact_size

_WARM_UP_FRAMES = 10


@click.command()
@click.option("--model", type=click.Choice(["s", "b"]), default="b", show_default=True)
@click.option("--size", callback=parse_exact_size, default="seg100", show_default=True, metavar="WIDTHxHEIGHT")
@click.option("--device", default="cuda", show_default=True, help="With cpu nothing is seen: to try the script.")
@backend_option
@click.option("--frames", default=50, show_default=True)
def main(model: str, size: tuple[int, int], device: str, backend: BackendName, frames: int) -> None:
    """Print the time of a frame, the host's share of it, and the kernels by the time that they take."""
    checkpoint = load_checkpoint(default_weights(model))
    picture = as_decoded(drawn_frame(size))
    with Segmenter(checkpoint, device=device, backend=backend, size=size) as segmenter:
        on_gpu = segmenter.device.type == "cuda"
        if on_gpu:
            frame = DeviceFrame.of(picture, segmenter.device)
            run: Callable[[], object] = lambda: segmenter.run_resident(frame)  # noqa: E731
        else:
            run = lambda: segmenter.submit(picture, outputs={"rendered"}).result()  # noqa: E731
        _queue(run, _WARM_UP_FRAMES, on_gpu)
        queued_s, done_s = _queue(run, frames, on_gpu)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiled:
            _queue(run, frames, on_gpu)
        click.echo(f"{describe_machine()}\nBSDNet-{model.upper()} {size[1]}x{size[0]}, {segmenter.backend}")
    done_ms, queued_ms = 1000 * done_s / frames, 1000 * queued_s / frames
    click.echo(f"a frame takes {done_ms:.3f} ms, of which the host is busy queueing it for {queued_ms:.3f} ms")
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    click.echo(profiled.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=100))


def _queue(run: Callable[[], object], frames: int, on_gpu: bool) -> tuple[float, float]:
    """Queue frames; give the seconds until all were queued, and until all were done."""
    start_s = time.perf_counter()
    for _ in range(frames):
        run()
    queued_s = time.perf_counter() - start_s
    if on_gpu:
        torch.cuda.synchronize()
    return queued_s, time.perf_counter() - start_s


if __name__ == "__main__":
    main()
