"""Files that get their name when they are finished, and what may be written where."""

import contextlib
import errno
import io
import os
import shlex
import sys
from pathlib import Path
from typing import BinaryIO, cast

from bsdnet.errors import ConfigError, SinkError

if sys.platform != "win32":
    import fcntl


PARTIAL_SUFFIX = ".part"
"""What the name of a file ends in until it is finished."""


def partial_path(path: Path) -> Path:
    """Where a file is written until it is finished."""
    return path.parent / f"{path.name}{PARTIAL_SUFFIX}"


class PartialFile:
    """A file that is written as `NAME.part`, and is called `NAME` when it is finished.

    No other run can write it at the same time, where the system has locks.

    Args:
        target: the name that it will have.
        overwrite: whether a file of that name may be replaced, and a `.part` of an earlier run.
        path: another name to write it under.
    """

    def __init__(self, target: Path, *, overwrite: bool, path: Path | None = None) -> None:
        self.target = target
        self.path = path or partial_path(target)
        self._overwrite = overwrite
        self._file: BinaryIO | None = None

    def check_free(self, *, partial: bool = True) -> None:
        """Refuse to replace what must not be.

        Raises:
            SinkError: there is a file of that name already, or (if `partial`) what an earlier run has left; or there is
                a device or a pipe, which no file may take the place of, whatever `overwrite` says.
        """
        for name in (self.target, self.path):
            if name.exists() and not name.is_file():
                raise SinkError(f"{name} is no ordinary file and is not replaced by one; give another name")
        if self._overwrite:
            return
        if self.target.exists():
            raise SinkError(
                f"{self.target} exists already; give another name, or pass -y to replace it (overwrite=True)"
            )
        if partial and self.path.exists():
            raise SinkError(
                f"{self.path} is left from a run that did not finish, or still goes on, and may hold its video; rescue "
                f"it: bsdnet-run --rescue {shlex.quote(str(self.path))}, or pass -y to replace it (overwrite=True)"
            )

    def check_not_input(self, source_path: str | Path) -> None:
        """Refuse to write over the input.

        Raises:
            SinkError: it is one of the two files, by whatever name.
        """
        source = Path(source_path)
        for written in (self.target, self.path):
            is_same = os.path.realpath(written) == os.path.realpath(source)
            if is_same or (written.exists() and source.exists() and written.samefile(source)):
                raise SinkError(f"{written} is the input, which must not be written over; give the output another name")

    def create(self) -> BinaryIO:
        """Open the partial file, and empty it once it is certain that no other run is writing it.

        Raises:
            SinkError: one of the names is taken, or the file cannot be created.
        """
        self.check_free()
        flags = os.O_RDWR | os.O_CREAT | (0 if self._overwrite else os.O_EXCL)
        flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)  # what a link leads to is not ours to empty
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise SinkError(f"{self.path} cannot be created: {error.strerror}") from error
        file = cast(BinaryIO, _WholeWrites(descriptor, "wb"))
        if not lock(file, self.path):
            file.close()
            raise SinkError(f"{self.path} is being written by another run; give the output another name")
        file.truncate(0)
        self._file = file
        return file

    def check_there(self) -> None:
        """See that the file has not vanished while it is written.

        Raises:
            FileNotFoundError: it has, with its folder or without.
        """
        try:
            is_there = self._file is not None and os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise FileNotFoundError(errno.ENOENT, "it was removed or renamed while it was written", str(self.path))

    def commit(self) -> None:
        """Give the file its name, so that it survives a loss of power.

        Raises:
            SinkError: the name has been taken meanwhile.
            OSError: the file system refuses.
        """
        if self._file is None:
            raise SinkError(f"{self.path} was not open any more when it was to be finished")
        os.fsync(self._file.fileno())
        self.check_there()
        self.check_free(partial=False)
        self.release(keep=True)
        self.path.replace(self.target)
        sync_folder(self.path.parent)

    def release(self, *, keep: bool) -> None:
        """Close the partial file, and remove it unless it is to be kept. Calling it again does nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
                if not keep:
                    self.path.unlink()
        self._file = None


def check_target(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a name that no video can have.

    Raises:
        ConfigError: its suffix is not one of those.
        SinkError: it is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give the name of a video file in it")
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path} has no suffix that tells a video format; expected one of {' '.join(suffixes)}")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written to.

    Raises:
        SinkError: it is missing or not writable.
    """
    if not folder.is_dir():
        raise SinkError(f"the folder {folder} does not exist; make it first: mkdir -p {shlex.quote(str(folder))}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SinkError(f"the folder {folder} may not be written to: permission denied")


def lock(file: BinaryIO, path: Path) -> bool:
    """Keep other runs from a file until it is closed; False if one has it, or has just moved it to its target."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return True


def sync_folder(folder: Path) -> None:
    """Make a renaming survive a loss of power, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _WholeWrites(io.FileIO):
    """An unbuffered file that writes all it is given, or fails: PyAV does not look at what a write has left over."""

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        return len(data)
