"""Mean intersection over union, from a confusion matrix."""

import numpy as np
from numpy.typing import NDArray


class ConfusionMatrix:
    """Pixels counted by true and predicted class; those whose true class is 255, or none of the classes, are left out.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """Pixels, `(true class, predicted class)`."""

    def update(self, true: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Count one picture.

        Args:
            true: class indices, any integer dtype, any shape.
            predicted: class indices of the same shape.

        Raises:
            ValueError: the shapes differ, or a counted pixel is predicted as a class that does not exist.
        """
        if true.shape != predicted.shape:
            raise ValueError(f"labels have shape {true.shape}, predictions {predicted.shape}")
        num_classes = len(self.counts)
        valid = (true >= 0) & (true < num_classes)
        found = predicted[valid].astype(np.int64)
        if found.size and not 0 <= found.min() <= found.max() < num_classes:
            raise ValueError(f"predictions must be classes 0 to {num_classes - 1}, got {found.min()} to {found.max()}")
        pairs = true[valid].astype(np.int64) * num_classes + found
        self.counts += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class, 0 to 1; NaN for a class that is neither there nor predicted."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        iou = np.full(len(hits), np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        return iou

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN if none does."""
        known = self.iou[~np.isnan(self.iou)]
        return float(known.mean()) if known.size else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose class is right, 0 to 1; NaN if none was counted."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")
