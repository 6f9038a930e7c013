"""Latency, memory and reconnects on a real live server over a long time, with inference slower than the frame rate.

python -m benchmarks.soak.live_latency --kind rtsp --minutes 10 --output benchmarks/results/live-latency-rtsp.json

Run it in the repository's root. The server is a process of its own and draws number and time on every picture, so that
the latency is that from the moment at which the server drew a picture until the sink has its result.
"""

import json
import statistics
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.soak.memory import resident_mib, slope
from bsdnet.machine import describe_measurement
from bsdnet.picture import Picture
from bsdnet.runtime.prediction import Output, Prediction
from bsdnet.stream.frame import StreamResult
from bsdnet.stream.network_source import NetworkSource
from bsdnet.stream.pipeline import StreamPipeline
from bsdnet.stream.sink import CallbackSink
from tests.stream.servers import Server, serving
from tests.stream.stamped import clock_ms, read_stamp

WARM_UP_S = 5.0
WINDOW_S = 10.0
OUTAGE_S = 5.0


class SlowSegmenter:
    """Takes a fixed time for each frame and computes nothing, so that the latency is that of the stream."""

    def __init__(self, infer_s: float) -> None:
        self._infer_s = infer_s

    def submit(self, picture: Picture, *, outputs: frozenset[Output]) -> "SlowSegmenter":
        """Begin."""
        return self

    def result(self, timeout_s: float | None = None) -> Prediction:
        """Take the time."""
        time.sleep(self._infer_s)
        return Prediction(infer_s=self._infer_s)

    def done(self) -> bool:
        """Never at once."""
        return False


@click.command()
@click.option("--kind", type=click.Choice(["rtsp", "tcp", "http", "udp"]), default="rtsp", show_default=True)
@click.option("--minutes", default=10.0, show_default=True, help="How long to measure.")
@click.option("--fps", default=30, show_default=True, help="Frames per second of the server.")
@click.option("--infer-ms", default=100.0, show_default=True, help="What inference takes.")
@click.option("--outage-every-s", type=float, help="Kill the server so often and start it five seconds later.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    kind: str, minutes: float, fps: int, infer_ms: float, outage_every_s: float | None, output: Path | None
) -> None:
    """Measure the latency from the server's drawing of a picture to the sink, in windows of ten seconds."""
    samples: list[tuple[float, float]] = []  # second of the run, latency in ms

    def note(result: StreamResult) -> None:
        if not result.frame.repeated:
            latency_ms = (clock_ms() - read_stamp(result.frame.rgb)[1]) % (1 << 32)
            samples.append((time.monotonic() - started_s, latency_ms))

    memory: list[tuple[float, float]] = []  # second of the run, MiB
    with serving() as serve:
        server = serve(kind, fps=fps)
        source = NetworkSource(server.address())
        sink = CallbackSink(note, live=False, wants=frozenset())
        with StreamPipeline(source, SlowSegmenter(infer_ms / 1000), [sink]) as pipeline:
            started_s = time.monotonic()
            pipeline.start()
            _watch(server, started_s, minutes * 60, outage_every_s, memory)
            stats = pipeline.stats
    warm = [sample for sample in samples if sample[0] >= WARM_UP_S]
    latencies_ms = [latency_ms for _, latency_ms in warm]
    windows = [
        statistics.median(found)
        for start_s in np.arange(WARM_UP_S, minutes * 60, WINDOW_S)
        if (found := [latency_ms for second, latency_ms in samples if start_s <= second < start_s + WINDOW_S])
    ]
    report = {
        **describe_measurement("python -m benchmarks.soak.live_latency"),
        "kind": kind,
        "minutes": minutes,
        "fps": fps,
        "infer_ms": infer_ms,
        "limit_ms": round(2000 / fps + infer_ms, 1),
        "latency_ms": {
            f"p{percent}": round(float(np.percentile(latencies_ms, percent)), 1) for percent in (50, 95, 99, 100)
        },
        "median_ms_of_windows": {
            "lowest": min(windows),
            "highest": max(windows),
            "all": windows,
        },
        "drift_ms_per_minute": round(slope(warm) * 60, 2),
        "reported_total_p50_ms": round(stats.latency["total"].p50_ms, 1),
        "frames": {"in": stats.frames_in, "out": stats.frames_out, "dropped": stats.dropped, "lost": stats.lost},
        "reconnects": stats.signal.reconnects,
        "outage_s": round(stats.signal.outage_s, 1),
        "memory_mib": {
            "first": memory[0][1],
            "last": memory[-1][1],
            "mib_per_hour": round(slope(memory[len(memory) // 2 :]) * 3600, 2),  # when all caches are full
        },
    }
    click.echo(json.dumps(report, indent=2))
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n")


def _watch(
    server: Server, started_s: float, duration_s: float, outage_every_s: float | None, memory: list[tuple[float, float]]
) -> None:
    """Note the memory once a second, and interrupt the server from time to time."""
    outage_at_s = outage_every_s or float("inf")
    back_at_s = float("inf")
    while (second := time.monotonic() - started_s) < duration_s:
        if second >= WARM_UP_S:
            memory.append((second, resident_mib()))
        if second >= outage_at_s:
            server.kill()
            outage_at_s += outage_every_s or 0.0
            back_at_s = second + OUTAGE_S
        if second >= back_at_s:
            server.start()
            back_at_s = float("inf")
        time.sleep(1.0)


if __name__ == "__main__":
    main()
