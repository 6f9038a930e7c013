"""What Prometheus is told of a running stream, through its own client library."""

from collections.abc import Callable, Iterable
from typing import Self

from bsdnet.errors import ConfigError, SinkError
from bsdnet.stream.report import StreamReport
from cli.report import describe_size

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise ConfigError(
        "--metrics-port needs the package prometheus-client, which is not installed: pip install 'bsdnet[metrics]'"
    ) from None

_QUANTILES = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms"}


class MetricsServer:
    """Serves `http://HOST:PORT/metrics` until the context is left; before and between streams, of the process alone.

    Args:
        host: address to listen on.
        port: from 1 to 65535.

    Raises:
        SinkError: the port cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._collector = _StreamCollector()
        registry.register(self._collector)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise SinkError(
                f"port {port} of {host} cannot be listened on: {error.strerror}; give another --metrics-port or "
                "--metrics-host"
            ) from error

    def follow(self, report: Callable[[], StreamReport] | None) -> None:
        """Tell of this stream from now on; `report` is called by the server's threads. None: of no stream."""
        self._collector.report = report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _StreamCollector(Collector):
    """Asks for a report whenever Prometheus asks."""

    def __init__(self) -> None:
        self.report: Callable[[], StreamReport] | None = None

    def collect(self) -> Iterable[Metric]:
        """Give the metrics of this moment."""
        take = self.report
        return [] if take is None else metrics_of(take())


def metrics_of(report: StreamReport) -> list[Metric]:
    """Turn a report into metrics, named and typed by Prometheus' conventions; docs/statistics.md lists them."""
    stats = report.stats
    inference = InfoMetricFamily("bsdnet_inference", "What infers, and where.")
    inference.add_metric([], {
        "source": report.source, "network": report.network, "backend": report.backend, "precision": report.precision,
        "device": report.device, "input_size": describe_size(report.input_size),
    })  # fmt: skip
    fps = GaugeMetricFamily("bsdnet_frames_per_second", "Frames a second, over the last 1.5 s.", labels=["stage"])
    for stage, value in (("in", stats.fps_in), ("infer", stats.fps_infer), ("out", stats.fps_out)):
        fps.add_metric([stage], value)
    queued = GaugeMetricFamily("bsdnet_queued_frames", "Frames that wait.", labels=["queue"])
    written = CounterMetricFamily("bsdnet_sink_frames", "Frames that a sink has written.", labels=["sink"])
    skipped = CounterMetricFamily(
        "bsdnet_sink_skipped_frames", "Frames that a live sink was not given.", labels=["sink"]
    )
    queued.add_metric(["read_ahead"], stats.read_ahead)
    queued.add_metric(["in_flight"], stats.in_flight)
    for number, sink in enumerate(stats.sinks):
        label = f"{number}:{sink.name}"  # two sinks may have one name
        queued.add_metric([label], sink.queued)
        written.add_metric([label], sink.frames)
        skipped.add_metric([label], sink.skipped)
    signal = stats.signal
    metrics = [
        inference, fps, queued, written, skipped, _latency(report),
        CounterMetricFamily("bsdnet_read_frames", "Frames that the source gave.", value=stats.frames_in),
        CounterMetricFamily("bsdnet_written_frames", "Frames that the main sink has written.", value=stats.frames_out),
        CounterMetricFamily("bsdnet_dropped_frames", "Live frames overtaken before inference.", value=stats.dropped),
        CounterMetricFamily("bsdnet_lost_frames", "Frames not decoded or received.", value=stats.lost),
        CounterMetricFamily("bsdnet_reconnects", "Connections found again.", value=signal.reconnects),
        CounterMetricFamily("bsdnet_outage_seconds", "Time without pictures that should be.", value=signal.outage_s),
        GaugeMetricFamily("bsdnet_silent_seconds", "Time since the last picture, if too long.", value=signal.silent_s),
    ]  # fmt: skip
    if report.gpu_memory is not None:
        memory = GaugeMetricFamily("bsdnet_gpu_memory_bytes", "Memory of the GPU.", labels=["kind"])
        for kind in ("reserved", "used", "total"):
            memory.add_metric([kind], getattr(report.gpu_memory, kind))
        metrics.append(memory)
    return metrics


def _latency(report: StreamReport) -> Metric:
    latency = Metric(
        "bsdnet_stage_latency_seconds", "Time of a frame in a stage; quantiles of the last 1024.", "summary"
    )
    for stage, times in report.stats.latency.items():
        if times.count:
            for quantile, name in _QUANTILES.items():
                labels = {"stage": stage, "quantile": quantile}
                latency.add_sample("bsdnet_stage_latency_seconds", labels, getattr(times, name) / 1000)
            latency.add_sample("bsdnet_stage_latency_seconds_count", {"stage": stage}, times.count)
            total_s = times.count * times.mean_ms / 1000
            latency.add_sample("bsdnet_stage_latency_seconds_sum", {"stage": stage}, total_s)
    return latency
