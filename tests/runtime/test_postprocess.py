import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bsdnet.runtime.postprocess import LabelUpsampler, confidence_map, labels_on_device


def enlarged(logits, size):
    """The definition: `(C, h, w)` to `(C, H, W)`."""
    batch = torch.from_numpy(logits)[None].double()
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)[0].numpy()


def street_like(num_classes, size, seed):
    noise = np.random.default_rng(seed).standard_normal((num_classes, *size)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(channel, (0, 0), 2.0) * 20 for channel in noise])


def assert_same_labels(logits, size):
    labels = LabelUpsampler(logits.shape[1:], size)(logits)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    scores = enlarged(logits, size)
    chosen = np.take_along_axis(scores, labels[None].astype(np.intp), 0)[0]
    # Another class may be chosen only where both are level, up to fp32's rounding.
    np.testing.assert_allclose(chosen, scores.max(0), rtol=1e-5, atol=1e-5)
    assert (labels == scores.argmax(0)).mean() > 0.999


@pytest.mark.parametrize("num_classes", [1, 2, 11, 19])
@pytest.mark.parametrize(
    ("logits_size", "frame_size"),
    [((44, 80), (540, 960)), ((45, 60), (360, 480)), ((47, 156), (375, 1242)), ((44, 44), (30, 20))],
)
def test_labels_are_those_of_enlarging_all_logits(num_classes, logits_size, frame_size):
    assert_same_labels(street_like(num_classes, logits_size, seed=num_classes), frame_size)


def test_labels_are_right_where_every_cell_is_contested_too():
    # Noise leaves no cell settled, so there are several blocks to decide.
    noise = np.random.default_rng(0).standard_normal((19, 45, 80)).astype(np.float32)
    assert_same_labels(noise, (540, 960))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.integers(1, 5), st.integers(0, 99))
def test_labels_are_right_at_any_size(logits_size, frame_size, num_classes, seed):
    logits = np.random.default_rng(seed).standard_normal((num_classes, *logits_size)).astype(np.float32)
    labels = LabelUpsampler(logits_size, frame_size)(logits)
    scores = enlarged(logits, frame_size)
    chosen = np.take_along_axis(scores, labels[None].astype(np.intp), 0)[0]
    np.testing.assert_allclose(chosen, scores.max(0), rtol=1e-5, atol=1e-5)


def test_a_class_that_wins_at_no_logit_can_win_between_them():
    logits = np.array([[[10.0, -10.0]], [[-10.0, 10.0]], [[3.0, 3.0]]], np.float32)
    labels = LabelUpsampler((1, 2), (8, 16))(logits)
    # Class 0 falls from 10 to -10 over eight pixels: it is above 3 for the first 2.8 of them, class 1 for the last.
    assert labels.tolist() == [[0] * 7 + [2] * 2 + [1] * 7] * 8


def test_an_upsampler_serves_many_frames():
    upsampler = LabelUpsampler((12, 16), (90, 130))
    first, second = (street_like(5, (12, 16), seed) for seed in (1, 2))
    once = upsampler(first)
    kept = once.copy()
    upsampler(second)
    assert np.array_equal(once, kept)  # results belong to the caller
    assert np.array_equal(upsampler(first), kept)


def test_confidence_is_the_softmax_of_the_chosen_class():
    logits = street_like(11, (44, 80), seed=0) / 4
    scores = enlarged(logits, (540, 960))
    expected = 255 * np.exp(scores.max(0) - np.logaddexp.reduce(scores, 0))
    difference = np.abs(confidence_map(logits, (540, 960)) - expected)
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) < 10  # thin ridges between classes


@pytest.mark.parametrize(("logits", "expected"), [([1.0] * 5, 51), ([1e4, 0, 0, 0, 0], 255), ([-1e4, -1e4], 128)])
def test_confidence_of_a_uniform_picture(logits, expected):
    constant = np.broadcast_to(np.array(logits, np.float32)[:, None, None], (len(logits), 4, 5)).copy()
    confidence = confidence_map(constant, (30, 40))
    assert confidence.shape == (30, 40)
    assert confidence.dtype == np.uint8
    assert np.all(np.abs(confidence.astype(int) - expected) <= 1)


def test_on_a_device_the_results_are_the_same():
    logits = street_like(11, (22, 40), seed=3) / 4
    labels, confidence = labels_on_device(torch.from_numpy(logits)[None], (180, 320), confidence=True)
    assert labels.dtype == confidence.dtype == torch.uint8
    assert (labels.numpy() == LabelUpsampler((22, 40), (180, 320))(logits)).mean() > 0.999
    assert np.abs(confidence.numpy().astype(int) - confidence_map(logits, (180, 320))).mean() < 1
    assert labels_on_device(torch.from_numpy(logits)[None], (180, 320), confidence=False)[1] is None
