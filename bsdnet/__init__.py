"""Real-time street-scene segmentation of video.

    from bsdnet import Segmenter

    with Segmenter.load() as segmenter:
        labels = segmenter.predict(rgb)  # (H, W, 3) uint8 RGB -> (H, W) uint8
        print(segmenter.classes.names[labels[0, 0]])

What needs PyTorch is imported when it is first used: `import bsdnet` itself takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bsdnet.classes import CAMVID_11, CITYSCAPES_19, IGNORE_INDEX, ClassSet
from bsdnet.errors import (
    BackendError,
    BsdnetError,
    CheckpointError,
    ConfigError,
    DatasetError,
    PipelineError,
    SinkError,
    SourceError,
    TrainingError,
)
from bsdnet.version import __version__

if TYPE_CHECKING:
    from bsdnet.rendering import RenderStyle
    from bsdnet.runtime.prediction import Prediction, PredictionHandle
    from bsdnet.runtime.segmenter import Segmenter

__all__ = [
    "CAMVID_11",
    "CITYSCAPES_19",
    "IGNORE_INDEX",
    "BackendError",
    "BsdnetError",
    "CheckpointError",
    "ClassSet",
    "ConfigError",
    "DatasetError",
    "PipelineError",
    "Prediction",
    "PredictionHandle",
    "RenderStyle",
    "Segmenter",
    "SinkError",
    "SourceError",
    "TrainingError",
    "__version__",
]

_LATE = {
    "Prediction": "bsdnet.runtime.prediction",
    "PredictionHandle": "bsdnet.runtime.prediction",
    "RenderStyle": "bsdnet.rendering",
    "Segmenter": "bsdnet.runtime.segmenter",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
