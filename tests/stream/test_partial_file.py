"""Files that get their name when they are finished."""

import errno
import os
import sys
from pathlib import Path

import pytest

from bsdnet.stream.partial_file import PartialFile, lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other locks, and cannot force folders")


def test_what_has_its_name_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[tuple[int, bool]] = []

    def note(descriptor: int) -> None:
        forced.append((os.fstat(descriptor).st_ino, (tmp_path / "out.mp4").exists()))

    part = PartialFile(tmp_path / "out.mp4", overwrite=False)
    part.create().write(b"x")
    monkeypatch.setattr(os, "fsync", note)
    part.commit()
    # The file before it has its name, and then the folder, which holds the name.
    assert forced == [((tmp_path / "out.mp4").stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_file_that_has_just_been_finished_is_not_taken_for_a_partial_one(tmp_path: Path) -> None:
    """Another run may have opened it before it got its name."""
    path = tmp_path / "out.mp4.part"
    with path.open("w+b") as file:
        path.rename(tmp_path / "out.mp4")
        assert not lock(file, path)
        path.touch()
        assert not lock(file, path)


def test_where_there_are_no_locks_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    part = PartialFile(tmp_path / "out.mp4", overwrite=False)
    part.create().write(b"x")
    part.commit()
    assert (tmp_path / "out.mp4").read_bytes() == b"x"
