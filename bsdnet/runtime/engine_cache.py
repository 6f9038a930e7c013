"""Built engines on disk, so that what takes minutes to build is built once.

The folder is `BSDNET_CACHE`, or `bsdnet` in the user's cache folder. Loading an engine runs the code in it, so one is
only trusted if nobody but this user could have written it, and if it is byte for byte what was written for its key: its
name ends with the SHA-256 of both. Whatever is not trusted or does not load is built again.
"""

import errno
import hashlib
import json
import logging
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from bsdnet.errors import first_line

if sys.platform != "win32":
    import fcntl

ENGINE_FORMAT = 1
"""Raised whenever engines of before must not be used any more though their key is the same."""
MAX_ENGINES = 32
"""Engines that are kept; those that were not used for longest are removed. BSDNet-S takes about 12 MB each."""

_ROOM_BYTES = 256 * 2**20
"""What must be free where an engine is built: PyTorch ends the process where it cannot finish writing a package."""
_SUFFIX = ".pt2"  # PyTorch refuses to write a package under another name
_BUILDING = ".building-"

EngineT = TypeVar("EngineT")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """All that an engine depends on: with another key it must not be used."""

    backend: str
    """What built it."""
    size: tuple[int, int]
    """Height and width of the input in pixels."""
    precision: str
    """Number format of weights and activations."""
    network: str
    """See `fingerprint`."""
    environment: Mapping[str, str]
    """Versions and hardware: see `hardware`; backends add what they depend on."""

    @property
    def name(self) -> str:
        """A file name for people, made unique by a hash of everything."""
        everything = json.dumps([ENGINE_FORMAT, asdict(self)], sort_keys=True)
        digest = hashlib.sha256(everything.encode()).hexdigest()[:24]
        height, width = self.size
        return f"{self.backend}-{width}x{height}-{self.precision}-{digest}"


def fingerprint(model: nn.Module) -> str:
    """Hash what a network computes: its structure, the source files of its modules, and its weights."""
    digest = hashlib.sha256(repr(model).encode())
    sources = {getattr(sys.modules.get(type(module).__module__), "__file__", None) for module in model.modules()}
    for source in sorted(filter(None, sources)):
        digest.update(Path(source).read_bytes())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def hardware(device: torch.device) -> dict[str, str]:
    """Name PyTorch and the processor that an engine is built for; a CPU with all of its instruction sets."""
    facts = {"torch": torch.__version__, "device": str(device)}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return {**facts, "gpu": torch.cuda.get_device_name(device), "capability": f"{major}.{minor}"}
    return {**facts, "cpu": f"{platform.machine()} {_processor()}"}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    telling = ("model name", "flags", "CPU part", "Features")  # the latter two on ARM
    return "\n".join(sorted({line for line in lines if line.startswith(telling)}))


def default_folder() -> Path:
    """Find where engines are kept: `BSDNET_CACHE`, or `bsdnet` in the cache folder that the system has for users.

    Raises:
        OSError: this user has no home folder, and so none for caches.
    """
    if chosen := os.environ.get("BSDNET_CACHE"):
        return Path(chosen)
    try:
        return _cache_of_the_user()
    except RuntimeError as error:
        raise FileNotFoundError("this user has no home folder; set BSDNET_CACHE to one for built engines") from error


def _cache_of_the_user() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = base if base.is_absolute() else Path.home() / ".cache"
    return base / "bsdnet"


class EngineCache:
    """Engines in a folder, safe for several processes and threads.

    Args:
        folder: None for `default_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def fetch(self, key: EngineKey, *, load: Callable[[Path], EngineT], build: Callable[[Path], EngineT]) -> EngineT:
        """Load an engine, or build it and keep it for the next time.

        One process builds at a time; the others wait and load what it built. Where the folder cannot be used, which
        is logged, the engine is built for this process alone.

        Args:
            key: what the engine is for.
            load: reads an engine from a file.
            build: builds an engine, and writes it to a file if it can be kept; beside that file, others of the same
                name with another suffix may be written, which are removed.

        Raises:
            OSError: there is no room for an engine, nor for temporary files.
            MemoryError, torch.OutOfMemoryError: there is none to load the engine into; it is kept.
            Exception: what `build` raises.
        """
        with ExitStack() as stack:
            try:
                folder = _trusted(self._folder or default_folder())
                engine = _load(folder, key, load)
                if engine is not None:
                    return engine
                _require_room(folder)
                stack.enter_context(_only_builder(folder))
            except OSError as error:
                logger.warning("the engine is built for this run alone: %s", error)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bsdnet-")))
                _require_room(folder)
            engine = _load(folder, key, load)  # another process may have built it meanwhile
            return _build(folder, key, build) if engine is None else engine


def _trusted(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _others_may_write(folder.stat()):
        raise PermissionError(f"{folder} must belong to this user and be writable by nobody else: chmod 700 {folder}")
    return folder


def _require_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _ROOM_BYTES:
        reason = f"{os.strerror(errno.ENOSPC)}: {free >> 20} of {_ROOM_BYTES >> 20} MiB are free to build an engine in"
        raise OSError(errno.ENOSPC, reason, str(folder))


def _others_may_write(status: os.stat_result) -> bool:
    if sys.platform == "win32":  # the user's own folders are closed to others by inherited rights
        return False
    return status.st_uid != os.geteuid() or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _load(folder: Path, key: EngineKey, load: Callable[[Path], EngineT]) -> EngineT | None:
    for path in folder.glob(f"{key.name}-*{_SUFFIX}"):
        try:
            _check(path, key)
            engine = load(path)
        except (MemoryError, torch.OutOfMemoryError):  # whoever takes it may go again, and the engine is good
            raise
        except Exception as error:  # a file that is not what it should be makes loaders raise anything
            logger.warning("%s is not used, but built again: %s", path, first_line(error))
            path.unlink(missing_ok=True)
            continue
        with suppress(OSError):
            os.utime(path)  # it was used just now
        return engine
    return None


def _check(path: Path, key: EngineKey) -> None:
    if _others_may_write(path.stat()):
        raise PermissionError("somebody else could have written it")
    if path.name != _file_name(path, key):
        raise ValueError("it is damaged or belongs to another key")


def _file_name(path: Path, key: EngineKey) -> str:
    """Name an engine by its key and a hash of both that and its content."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.sha256(key.name.encode())).hexdigest()
    return f"{key.name}-{digest}{_SUFFIX}"


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds; the system drops a lock when its holder dies."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process that is building an engine")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            _remove(folder, f"{_BUILDING}*")  # of builders that were killed
        yield
    finally:
        os.close(descriptor)


def _build(folder: Path, key: EngineKey, build: Callable[[Path], EngineT]) -> EngineT:
    height, width = key.size
    logger.info("building the %s engine for %dx%d: this can take minutes, once", key.backend, width, height)
    start_s = time.monotonic()
    path = folder / f"{_BUILDING}{os.getpid()}{_SUFFIX}"
    try:
        engine = build(path)
        if path.is_file():
            _keep(path, key)
    finally:
        _remove(folder, f"{path.stem}.*")
    logger.info("built the %s engine for %dx%d in %.0f s", key.backend, width, height, time.monotonic() - start_s)
    return engine


def _keep(path: Path, key: EngineKey) -> None:
    try:
        path.chmod(0o600)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.replace(path.with_name(_file_name(path, key)))
        engines = sorted(path.parent.glob(f"[!.]*{_SUFFIX}"), key=lambda engine: engine.stat().st_mtime)
        for engine in engines[:-MAX_ENGINES]:
            engine.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the engine is built for this run alone: %s", error)


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        with suppress(OSError):
            path.unlink()
