"""Where results go."""

from collections.abc import Callable

from bsdnet.runtime.prediction import Output
from bsdnet.stream.encoders import DEFAULT_CRF, DEFAULT_PRESET, ENCODERS, PRESETS, EncoderSettings
from bsdnet.stream.file_sink import FileSink
from bsdnet.stream.frame import StreamInfo, StreamResult
from bsdnet.stream.interfaces import VideoSink
from bsdnet.stream.mask_sink import MaskFolderSink
from bsdnet.stream.partial_file import partial_path
from bsdnet.stream.rescue import Rescued, rescue
from bsdnet.stream.segment_sink import SegmentSink
from bsdnet.stream.video_writer import FORMATS

__all__ = [
    "DEFAULT_CRF",
    "DEFAULT_PRESET",
    "ENCODERS",
    "FORMATS",
    "PRESETS",
    "CallbackSink",
    "EncoderSettings",
    "FileSink",
    "MaskFolderSink",
    "NullSink",
    "Rescued",
    "SegmentSink",
    "VideoSink",
    "partial_path",
    "rescue",
]


class CallbackSink(VideoSink):
    """Hands each result to a function.

    Args:
        callback: called on the pipeline's thread; what it raises ends the pipeline.
        live: True: the newest result only, as for a window; False: every result, and the pipeline waits for it.
        wants: what the function needs of a prediction.
        name: for messages and statistics.
    """

    def __init__(
        self,
        callback: Callable[[StreamResult], None],
        *,
        live: bool,
        wants: frozenset[Output] = frozenset({"rendered"}),
        name: str = "callback",
    ) -> None:
        self.name = name
        self.wants = wants
        self.live = live
        self._callback = callback

    def open(self, info: StreamInfo) -> None:
        """There is nothing to open."""

    def write(self, result: StreamResult) -> None:
        """Call the function."""
        self._callback(result)

    def finish(self) -> None:
        """There is nothing to finish."""

    def abort(self) -> None:
        """There is nothing to abort."""


class NullSink(CallbackSink):
    """Counts results and drops them, for measurements.

    Args:
        wants: what to ask of the pipeline all the same.
    """

    def __init__(self, wants: frozenset[Output] = frozenset({"labels"})) -> None:
        super().__init__(self._count, live=False, wants=wants, name="null")
        self.num_results = 0

    def _count(self, result: StreamResult) -> None:
        self.num_results += 1
