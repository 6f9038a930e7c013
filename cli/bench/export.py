"""Building engines ahead."""

import logging
import time
from pathlib import Path
from typing import Any

from bsdnet.runtime.engine_cache import default_folder
from bsdnet.runtime.segmenter import Segmenter
from cli.bench.report import number, table
from cli.report import describe_size
from cli.terminal import tell

logger = logging.getLogger(__name__)


def export_engines(options: dict[str, Any]) -> None:
    """Build what the options of `bsdnet-bench export` say, and tell what that took.

    Raises:
        BsdnetError: the weights cannot be loaded, or the backend cannot run here.
    """
    try:
        folder: Path | None = default_folder()
    except OSError as error:
        folder = None
        logger.warning("no engine is kept: %s", error)
    with Segmenter.load(
        options["weights"],
        device=options["device"],
        backend=options["backend"],
        precision=options["precision"],
    ) as segmenter:
        sizes = list(options["sizes"])
        if options["frame_size"] is not None:
            sizes.append(segmenter.size_for(options["frame_size"]))
        lines = []
        for size in dict.fromkeys(sizes):
            before = _engines(folder, size)
            start_s = time.perf_counter()
            segmenter.prepare([size], frame_size=options["frame_size"])
            cost_s = time.perf_counter() - start_s
            fate = _fate(before, _engines(folder, size))
            lines.append([describe_size(size), f"{segmenter.backend} {segmenter.precision}", fate, number(cost_s)])
    tell(table(["input", "backend", "engine", "seconds"], lines, left=3))
    if any(_engines(folder, size) for size in sizes):
        tell(f"\nengines lie in {folder}")


def _engines(folder: Path | None, size: tuple[int, int]) -> dict[Path, int]:
    """Find the engines for an input size and when each was last used, in nanoseconds."""
    found = [] if folder is None else folder.glob(f"[!.]*-{describe_size(size)}-*")
    return {path: path.stat().st_mtime_ns for path in found}


def _fate(before: dict[Path, int], after: dict[Path, int]) -> str:
    if set(after) - set(before):
        return "built"
    return "was there" if after != before else "none kept"
