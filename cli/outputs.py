"""What bsdnet-run writes to, and what there is of it afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bsdnet.stream.sink import EncoderSettings, FileSink, SegmentSink


def file_sinks(options: dict[str, Any]) -> "list[FileSink | SegmentSink]":
    """Make the sinks of --output and --record.

    Raises:
        SinkError: one of them cannot be written.
        ConfigError: the encoder has no such setting.
    """
    from bsdnet.stream.record_sink import RecordSink
    from bsdnet.stream.sink import EncoderSettings, FileSink, SegmentSink

    encoder = EncoderSettings(name=options["encoder"], crf=options["crf"], preset=options["preset"])
    source_path = options["source"] if Path(options["source"]).is_file() else None
    sinks: list[FileSink | SegmentSink] = []
    if options["output"] is not None and options["segment"] is not None:
        sinks.append(
            SegmentSink(
                options["output"],
                segment_s=options["segment"],
                budget_bytes=options["segment_budget"],
                audio=options["audio"],
                source_path=source_path,
                encoder=encoder,
            )
        )
    elif options["output"] is not None:
        sinks.append(_file_sink(FileSink, "output", options, source_path, encoder))
    if options["record"] is not None:
        sinks.append(_file_sink(RecordSink, "record", options, source_path, encoder))
    return sinks


def written(
    options: dict[str, Any], sinks: "Sequence[FileSink | SegmentSink]", *, finished: bool
) -> dict[str, str | Path]:
    """Name what a run has left, finished or stopped, and how it was encoded."""
    from bsdnet.stream.sink import SegmentSink, partial_path

    names: dict[str, str | Path] = {}
    for sink in sinks:
        if isinstance(sink, SegmentSink) and sink.written:
            first, *_, last = [sink.written[0], *sink.written]
            names["output"] = f"{first} to {last.name}, {len(sink.written)} files" if first != last else first
        if isinstance(sink, SegmentSink) and sink.left_over is not None:
            names["partial"] = sink.left_over
    for name in ("output", "record"):
        if options[name] is None or name in names:
            continue
        if finished:
            names[name] = options[name]
        elif partial_path(options[name]).exists():
            names["partial" if name == "output" else name] = partial_path(options[name])
    if options["masks"] is not None:
        names["masks"] = options["masks"]
    if options["classes_csv"] is not None:
        names["classes"] = options["classes_csv"] if finished else partial_path(options["classes_csv"])
    if sinks and sinks[0].encoder is not None:
        names["encoder"] = f"{sinks[0].encoder.codec}: {sinks[0].encoder.why}"
    return names


def _file_sink(
    kind: "type[FileSink]",
    name: str,
    options: dict[str, Any],
    source_path: str | None,
    encoder: "EncoderSettings",
) -> "FileSink":
    return kind(
        options[name],
        overwrite=options["overwrite"],
        audio=options["audio"],
        source_path=source_path,
        encoder=encoder,
    )
