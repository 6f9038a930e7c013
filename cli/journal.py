"""What bsdnet-run has finished in a folder, so that it need not do it again."""

import contextlib
import glob
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "bsdnet-run.jsonl"
"""The journal's name in the folder: one JSON object a line, one line for each finished output."""

_WITHOUT_EFFECT = frozenset(
    {
        "source",
        "sources",
        "camera",
        "output",
        "masks",
        "into_folder",
        "overwrite",
        "debug",
        "device",
        "backend",
        "hwaccel",
        "stats",
        "metrics_port",
        "metrics_host",
    }
)
"""Options that do not change what an output shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One finished output."""

    source: str
    """Where it comes from: an absolute path."""
    source_stamp: list[int]
    """Bytes and newest time of change, in nanoseconds, of the source's files."""
    output: str
    """Its name in the folder."""
    output_bytes: int
    """Its size."""
    options: dict[str, Any]
    """What it was made with."""
    frames: int
    """Frames in it."""
    lost: int
    """Frames of the source that could not be decoded."""


class Journal:
    """The journal of a folder.

    Args:
        folder: that of the outputs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: dict[str, Entry] = {}
        """The newest entry of each source."""
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / NAME).read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a line that a killed run has not finished
                    self._note(Entry(**json.loads(line)))

    def add(self, entry: Entry) -> None:
        """Write an entry down, so that it survives a loss of power."""
        with (self._folder / NAME).open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a killed run, or a full disk, left half a line
            file.write(torn + json.dumps(asdict(entry)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._note(entry)

    def finished(self, source: str, options: dict[str, Any]) -> Entry | None:
        """Give the entry of a source whose output is there as it was made, of the same source with the same options.

        Masks that are wanted must be there as well.
        """
        entry = self.entries.get(source_key(source))
        if entry is None or entry.source_stamp != stamp(source) or entry.options != fingerprint(options):
            return None
        output = self._folder / entry.output
        masks = options["masks"]
        has_masks = masks is None or (masks / output.stem).is_dir()
        return entry if has_masks and output.is_file() and output.stat().st_size == entry.output_bytes else None

    def _note(self, entry: Entry) -> None:
        self.entries[entry.source] = entry


def source_key(source: str) -> str:
    """Name a source the same from wherever it is seen."""
    return str(Path(source).absolute()) if source != "demo" else source


def stamp(source: str) -> list[int]:
    """Tell a source's content by its size in bytes and its newest change in nanoseconds; zeros for the demo."""
    path = Path(source)
    if path.is_dir():
        files = list(path.iterdir())
    else:
        files = [path] if path.is_file() else [*map(Path, glob.glob(source, recursive=True))]  # noqa: PTH207 - absolute ones too
    stats = [file.stat() for file in files if file.is_file()]
    return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def fingerprint(options: dict[str, Any]) -> dict[str, Any]:
    """Give the options that change what an output shows, as JSON has them; a file of weights with its stamp."""
    chosen = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    if options["weights"] is not None and Path(options["weights"]).is_file():
        chosen["weights"] = [str(Path(options["weights"]).absolute()), *stamp(options["weights"])]
    plain: dict[str, Any] = json.loads(json.dumps(chosen, default=str))
    return plain
