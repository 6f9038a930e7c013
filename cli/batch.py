"""Several sources into a folder: `bsdnet-run clips/*.mp4 -o out/`."""

import glob
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bsdnet.errors import BackendError, BsdnetError, CheckpointError, ConfigError, SinkError, one_line
from bsdnet.stream.partial_file import check_folder
from cli.command import EXIT_ERROR, EXIT_OK, EXIT_USAGE
from cli.journal import Entry, Journal, fingerprint, source_key, stamp

if TYPE_CHECKING:
    from bsdnet.stream.stats import StreamStats

EXIT_LOST_FRAMES = 3
_HEADINGS = ("file", "frames", "lost", "fps", "result")


class Outcome(NamedTuple):
    """How the run of one source ended."""

    stats: "StreamStats"
    """Its statistics."""
    finished: bool
    """Whether the outputs have their names."""
    signal_code: int | None
    """The exit code of the signal that ended it early, or None."""
    report: str
    """The closing lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table at the end."""

    source: str
    """As the user wrote it."""
    result: str
    """For people: where the output is, or why there is none."""
    frames: int = 0
    """Frames in the output."""
    lost: int = 0
    """Frames that could not be decoded, or were not recorded because a live source was gone."""
    fps: float | None = None
    """Frames per second; None if nothing was run."""
    failed: bool = False
    """Whether there is no output."""
    misused: bool = False
    """Whether there is none because an option has a value that cannot work."""
    signal_code: int | None = None
    """The exit code of the signal that ended it early, or None."""


def run_batch(
    sources: Sequence[str], folder: Path, options: dict[str, Any], run_one: Callable[[dict[str, Any]], Outcome]
) -> int:
    """Segment each source into a file of its own in a folder, which is made if it is missing.

    What is done already is left out: the journal in the folder has the source as it is now and the options, and the
    output is as it was written. A source that fails does not keep the others from being run.

    Args:
        sources: files, folders or patterns of images, `demo`; each once.
        folder: for the outputs.
        options: the command's.
        run_one: segments `options["source"]` into `options["output"]` (and `options["masks"]`).

    Returns:
        The exit code: that of a signal; else 1 if a source gave nothing, or 2 if that was for wrong options alone; else
        3 if frames were lost, in this run or when an output was made that is left out now; else 0.

    Raises:
        CheckpointError, BackendError: the network, which is the same for all, cannot be loaded.
        SinkError, OSError: a folder cannot be made, or the journal not be written.
    """
    from cli.terminal import tell

    for needed in filter(None, (folder, options["masks"])):
        _make_folder(needed)
    journal = Journal(folder)
    rows: list[Row] = []
    taken = {Path(entry.output).stem: source for source, entry in journal.entries.items()}
    unique = list({source_key(source): source for source in sources}.values())
    for number, source in enumerate(unique, 1):
        try:
            entry, before = journal.finished(source, options), stamp(source)
            output = _output_name(source, journal, taken) if entry is None else entry.output
        except OSError as error:  # it may not even be looked at
            rows.append(_failure(source, error))
        else:
            if entry is not None:
                result = f"{folder / output} was done before"
                rows.append(Row(source=source, frames=entry.frames, lost=entry.lost, result=result))
            else:
                taken[Path(output).stem] = source_key(source)
                rows.append(_run(source, before, folder / output, options, journal, run_one))
        tell(f"[{number}/{len(unique)}] {_line(rows[-1])}")
        if rows[-1].signal_code is not None:
            break
    tell(_table(rows))
    return _exit_code(rows)


def check_batch(sources: Sequence[str], options: dict[str, Any]) -> None:
    """Refuse what cannot be done for several sources or without a name for the output.

    Raises:
        click.UsageError: as said.
    """
    if not options["into_folder"]:
        raise click.UsageError(f"{len(sources)} sources need a folder to go into, such as -o out/")
    for name in ("record", "segment"):
        if options[name] is not None:
            raise click.UsageError(f"--{name} is for one source and one output file: -o out.mp4")
    if any(source.startswith("camera:") or "://" in source for source in sources):
        raise click.UsageError("a live source has no end and no name: give it an output file of its own: -o out.mp4")
    if options["classes_csv"] is not None:
        raise click.UsageError("--classes-csv is for one source: its rows do not say of which one they are")


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    check_folder(folder.parent)
    if folder.exists():
        raise SinkError(f"{folder} is a file; give the name of a folder")
    folder.mkdir()


def _failure(source: str, error: Exception) -> Row:
    result = f"failed: {one_line(error)}"
    return Row(source=source, failed=True, misused=isinstance(error, ConfigError), result=result)


def _run(
    source: str,
    before: list[int],
    output: Path,
    options: dict[str, Any],
    journal: Journal,
    run_one: Callable[[dict[str, Any]], Outcome],
) -> Row:
    masks = None if options["masks"] is None else options["masks"] / output.stem
    try:
        outcome = run_one({**options, "source": source, "output": output, "masks": masks})
    except (CheckpointError, BackendError):
        raise
    except (BsdnetError, OSError) as error:
        return _failure(source, error)
    stats = outcome.stats
    row = Row(
        source=source,
        result=str(output) if outcome.finished else "stopped; what there was is in its .part",
        frames=stats.frames_out,
        lost=stats.lost,
        fps=stats.frames_out / stats.elapsed_s if stats.elapsed_s else 0.0,
        failed=not outcome.finished,
        signal_code=outcome.signal_code,
    )
    if outcome.finished and outcome.signal_code is None:
        journal.add(
            Entry(
                source=source_key(source),
                source_stamp=before,
                output=output.name,
                output_bytes=output.stat().st_size,
                options=fingerprint(options),
                frames=row.frames,
                lost=row.lost,
            )
        )
    return row


def _output_name(source: str, journal: Journal, taken: dict[str, str]) -> str:
    """Name an output after its source; with the names of the folders around it where another has the name already.

    Names differ in more than the suffix, because the folders for masks have none.
    """
    from bsdnet.stream.sink import FORMATS

    key = source_key(source)
    if key in journal.entries:
        return journal.entries[key].output
    path = Path(key)
    while not path.exists() and glob.has_magic(path.name):  # a pattern of images is called like its folder
        path = path.parent
    suffix = path.suffix.lower() if path.suffix.lower() in FORMATS else ".mp4"
    name = path.stem if path.is_file() else path.name or "images"
    for parent in filter(None, (parent.name for parent in path.parents)):
        if _is_free(name, key, taken):
            break
        name = f"{parent}-{name}"
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(free for free in numbered if _is_free(free, key, taken)) + suffix


def _is_free(name: str, key: str, taken: dict[str, str]) -> bool:
    return taken.get(name, key) == key


def _exit_code(rows: Collection[Row]) -> int:
    for row in rows:
        if row.signal_code is not None:
            return row.signal_code
    failed = [row for row in rows if row.failed]
    if failed:
        return EXIT_USAGE if all(row.misused for row in failed) else EXIT_ERROR
    return EXIT_LOST_FRAMES if any(row.lost for row in rows) else EXIT_OK


def _line(row: Row) -> str:
    if row.failed:
        return f"{row.source}: {row.result}"
    lost = f", {row.lost} lost" if row.lost else ""
    fps = f", {row.fps:.1f} fps" if row.fps is not None else ""
    return f"{row.source}: {row.frames} frames{lost}{fps}: {row.result}"


def _table(rows: Sequence[Row]) -> str:
    cells = [
        (row.source, str(row.frames), str(row.lost), "" if row.fps is None else f"{row.fps:.1f}", row.result)
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (_HEADINGS, *cells)) for column in range(4)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(line[n].rjust(widths[n]) for n in (1, 2, 3)), line[4]])
        for line in (_HEADINGS, *cells)
    ]
    return "\n".join(lines)
