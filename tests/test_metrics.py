import numpy as np
import pytest

from bsdnet.metrics import ConfusionMatrix


def test_iou_of_a_hand_counted_picture():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 1], [1, 255, 1], [0, 3, -1]]), np.array([[0, 1, 1], [1, 0, 0], [1, 2, 2]]))
    np.testing.assert_array_equal(matrix.counts, [[1, 2, 0], [1, 2, 0], [0, 0, 0]])  # (true class, predicted class)
    # class 0: 1 hit, 2 missed, 1 false -> 1/4; class 1: 2 hits, 1 missed, 2 false -> 2/5; class 2 does not occur.
    np.testing.assert_allclose(matrix.iou, [1 / 4, 2 / 5, np.nan])
    assert matrix.mean_iou == pytest.approx(13 / 40)
    assert matrix.pixel_accuracy == pytest.approx(1 / 2)


def test_a_class_that_is_only_predicted_counts_as_zero():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 0]), np.array([0, 1]))
    np.testing.assert_allclose(matrix.iou, [1 / 2, 0])


def test_pictures_add_up():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, (2, 4, 9, 7))
    together, apart = ConfusionMatrix(5), ConfusionMatrix(5)
    together.update(true, predicted)
    for a, b in zip(true.astype(np.uint8), predicted, strict=True):
        apart.update(a, b)
    np.testing.assert_array_equal(together.counts, apart.counts)


def test_nothing_counted_is_nan():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([255]), np.array([0]))
    assert np.isnan(matrix.mean_iou)
    assert np.isnan(matrix.pixel_accuracy)


def test_what_does_not_fit_is_refused():
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="shape"):
        matrix.update(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="classes 0 to 1"):
        matrix.update(np.zeros(1, int), np.array([2]))
