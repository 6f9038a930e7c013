"""Building engines ahead."""

import time
from typing import Any

from bsdnet.runtime.segmenter import Segmenter
from cli.bench.report import number, size_text, table
from cli.terminal import tell


def export_engines(options: dict[str, Any]) -> None:
    """Build what the options of `bsdnet-bench export` say, and tell what that took.

    Raises:
        BsdnetError: the weights cannot be loaded, or the backend cannot run here.
    """
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
            start_s = time.perf_counter()
            segmenter.prepare([size])
            cost_s = time.perf_counter() - start_s
            lines.append([size_text(size), f"{segmenter.backend} {segmenter.precision}", number(cost_s)])
        tell(table(["input", "backend", "seconds"], lines, left=2))
