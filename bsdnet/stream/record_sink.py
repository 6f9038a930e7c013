"""Recording the source beside its segmentation."""

from dataclasses import replace

from bsdnet.runtime.prediction import Output, Prediction
from bsdnet.stream.file_sink import FileSink
from bsdnet.stream.frame import StreamResult


class RecordSink(FileSink):
    """Writes the segmented frames as they came, with nothing drawn on them; otherwise as `FileSink`.

    Of a live source these are the frames that inference was free for, so that the two videos show the same moments.
    """

    wants: frozenset[Output] = frozenset()

    def write(self, result: StreamResult) -> None:
        """Encode the frame itself."""
        super().write(replace(result, prediction=Prediction(rendered=result.frame.picture)))
