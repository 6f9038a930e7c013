"""Pictures labelled by trained networks, as a data set to learn from, or to correct by hand."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bsdnet.classes import IGNORE_INDEX
from bsdnet.errors import ConfigError, DatasetError
from trainer.datasets.folder import CLASSES_FILE, save_pair, write_bytes, write_classes
from trainer.datasets.video import UnlabelledImages
from trainer.distributed import Processes, sum_over_processes, synchronise
from trainer.evaluation import EvaluationOptions, segment
from trainer.trained import Trained

PART = "train"
"""The part of the data set that labelled pictures are in."""

_SETTINGS_FILE = "labelled.json"
_REPORT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What came of labelling."""

    written: int
    """Pictures that were labelled."""
    found: int
    """Pictures that had been labelled before."""
    unreadable: int
    """Pictures that could not be read, and were passed over."""
    sure: float
    """Share of the pixels written that have a class, 0 to 1; 0 if nothing was written."""
    stopped: bool
    """Whether it was stopped before the end."""


def label_images(
    images: UnlabelledImages,
    trained: Trained,
    folder: Path,
    device: torch.device,
    *,
    options: EvaluationOptions,
    surely: float,
    settings: Mapping[str, object],
    processes: Processes = Processes(),  # noqa: B008 - frozen
    should_stop: Callable[[], bool] = lambda: False,
) -> Labelled:
    """Label pictures and write them as the part `train` of a `LabelledFolder`.

    A picture that is there already is left as it is, so that the same call goes on where another was stopped; one that
    cannot be read is passed over with a warning. Videos and folders are known again by where they lie as seen from
    `folder`, so that all may be moved together: others of the same name become recordings of their own.

    Args:
        images: what to label; each video and each folder of pictures becomes a recording.
        trained: who labels.
        folder: where to; made if missing.
        device: where to compute.
        options: how to look at a picture.
        surely: probability of the likeliest class below which a pixel gets none, 0 to 1.
        settings: what the labels depend on; a folder that was labelled with others is refused.
        processes: who shares the work; each takes every `count`-th picture.
        should_stop: asked before each picture.

    Returns:
        What all processes did.

    Raises:
        ConfigError: `surely` is out of range, or the folder was labelled with other settings.
        DatasetError: what the folder says of itself cannot be read.
        SinkError: the folder cannot be written.
    """
    if not 0 <= surely <= 1:
        raise ConfigError(f"a probability must be from 0 to 1, got {surely}")
    recordings = _agree(images, trained, folder, settings, processes)
    mine = list(_names(images, folder, recordings))[processes.rank :: processes.count]
    todo = {number: name for number, name in enumerate(mine) if not _labels_file(folder, name).is_file()}
    tally = _Tally(len(todo), processes.count)
    for number, name in todo.items():
        if should_stop():
            break
        try:
            rgb = images[number * processes.count + processes.rank][0]
        except DatasetError as error:  # one of thousands: the others are worth their labels
            logger.warning("warning: passed over: %s", error)
            tally.unreadable += 1
            continue
        labels = segment(
            trained.network, rgb, device, options=options, mean=trained.mean, std=trained.std, surely=surely
        )
        save_pair(folder, PART, name, rgb, labels)
        tally.add(labels)
    return tally.of_all(len(mine), processes)


class _Tally:
    """Counts what one process has labelled, and says now and then how far it is.

    Args:
        todo: pictures that it is to label.
        processes: how many share the work.
    """

    def __init__(self, todo: int, processes: int) -> None:
        self.written = self.unreadable = self.sure = self.pixels = 0
        self._todo = todo
        self._whose = f" of one of {processes} processes" if processes > 1 else ""
        self._begun = self._reported = time.monotonic()

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Count the labels of one more picture, `(H, W)` with 255 for none."""
        self.written += 1
        self.pixels += labels.size
        self.sure += int(np.count_nonzero(labels != IGNORE_INDEX))
        now = time.monotonic()
        left = self._todo - self.written - self.unreadable
        if left and now - self._reported < _REPORT_S:
            return
        self._reported = now
        logger.info(
            "labelled %d of %d pictures%s, %.0f %% of the pixels surely, %d:%02d left",
            *(self.written, self._todo, self._whose, 100 * self.sure / self.pixels),
            *divmod(round((now - self._begun) / self.written * left), 60),
        )

    def of_all(self, pictures: int, processes: Processes) -> Labelled:
        """Say what all processes did, of which this one had so many pictures, labelled before or not."""
        counts = torch.tensor([self.written, self.unreadable, self._todo, pictures, self.sure, self.pixels])
        written, unreadable, missing, total, sure, pixels = sum_over_processes(counts, processes).tolist()
        return Labelled(
            written=written,
            found=total - missing,
            unreadable=unreadable,
            sure=sure / pixels if pixels else 0.0,
            stopped=written + unreadable < missing,
        )


def _agree(
    images: UnlabelledImages, trained: Trained, folder: Path, settings: Mapping[str, object], processes: Processes
) -> dict[str, str]:
    """Take a folder for these labels, and give each recording its name, alike in all processes."""
    settings = json.loads(json.dumps(settings))  # as they are read back
    recordings = _recordings(images, folder, _claimed(folder, settings))
    synchronise(processes)  # no process writes before each has looked
    if processes.is_main:
        _claim(folder, trained, settings, recordings)
    synchronise(processes)
    return recordings


def _claimed(folder: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """Read the recordings that a folder was labelled with, as `_recordings` gives them; refuse what is something else.

    Raises:
        ConfigError: the folder was labelled with other settings, or holds something else.
        DatasetError: it cannot be read.
    """
    path = folder / _SETTINGS_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else None
        is_foreign = text is None and folder.exists() and any(folder.iterdir())
        content = {"settings": settings, "recordings": {}} if text is None else json.loads(text)
        before, recordings = content["settings"], dict(content["recordings"].items())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is none that 'bsdnet-train label' wrote, or it is damaged: {error}") from error
    if is_foreign:
        raise ConfigError(f"{folder} holds something else than labelled pictures: choose an empty folder")
    if before != settings:
        raise ConfigError(f"{folder} was labelled with other settings, see {path}: choose another folder")
    return recordings


def _claim(folder: Path, trained: Trained, settings: Mapping[str, object], recordings: Mapping[str, str]) -> None:
    """Note what the labels in a folder depend on and what they are of, and say their classes."""
    text = json.dumps({"settings": settings, "recordings": recordings}, indent=2) + "\n"
    write_bytes(folder / _SETTINGS_FILE, text.encode())
    if not (folder / CLASSES_FILE).exists():  # which the user may have changed, or a full disk have left out
        write_classes(folder, trained.classes)


def _recordings(images: UnlabelledImages, folder: Path, known: Mapping[str, str]) -> dict[str, str]:
    """Give each video and folder of pictures, by its place, a name that no other has; known ones keep theirs."""
    recordings = dict(known)
    for index in range(len(images)):
        path = _absolute(images.group(index))
        place = _place(path, folder)
        if place not in recordings:
            name = path.name if path.is_dir() else path.stem
            recordings[place] = _free(_visible(name), set(recordings.values()))
    return recordings


def _names(images: UnlabelledImages, folder: Path, recordings: Mapping[str, str]) -> Iterator[str]:
    """Give each picture a name that no other has: its recording's, as a folder, and its own."""
    taken: set[str] = set()
    for index in range(len(images)):
        recording = recordings[_place(_absolute(images.group(index)), folder)]
        name = _free(f"{recording}/{_visible(images.short_name(index))}", taken)
        taken.add(name)
        yield name


def _place(path: Path, folder: Path) -> str:
    """Say where a video or a folder lies as seen from the data set's folder."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return path.as_posix()


def _absolute(group: str) -> Path:
    """Give a path its name: `.` and `..` have one, too."""
    return Path(os.path.abspath(group))  # noqa: PTH100 - resolve() would follow links, whose names the user chose


def _visible(name: str) -> str:
    """Take away what hides a file: hidden ones are no pictures of a data set."""
    return name.lstrip(".") or "pictures"


def _labels_file(folder: Path, name: str) -> Path:
    return folder / "labels" / PART / f"{name}.png"


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
