import hashlib
import pickle
import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest

from bsdnet.classes import CAMVID_11, IGNORE_INDEX
from bsdnet.demo_scene import DemoFrame, DemoScene
from bsdnet.demo_scene.labels import Label
from bsdnet.errors import ConfigError

SIZE = (180, 320)


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return DemoScene(size=SIZE)


def digest(frame: DemoFrame) -> str:
    return hashlib.sha256(frame.rgb.tobytes() + frame.labels.tobytes()).hexdigest()


def label_shares(scene: DemoScene, indices: range) -> np.ndarray:
    """Mean share of each label over some frames, `(256,)`."""
    counts = sum(np.bincount(scene.frame(index).labels.ravel(), minlength=256) for index in indices)
    return counts / counts.sum()


def test_labels_are_those_of_the_class_set() -> None:
    named = {label.name.lower(): int(label) for label in Label if label is not Label.VOID}

    assert named == {name: index for index, name in enumerate(CAMVID_11.names)}
    assert Label.VOID == IGNORE_INDEX


@pytest.mark.parametrize("size", [(96, 128), (101, 333), (375, 1242), (360, 256)])
def test_frames_have_the_size_and_type_that_was_asked_for(size: tuple[int, int]) -> None:
    frame = DemoScene(size=size, num_frames=3).frame(2)

    assert frame.rgb.shape == (*size, 3) and frame.rgb.dtype == np.uint8 and frame.rgb.flags.c_contiguous
    assert frame.labels.shape == size and frame.labels.dtype == np.uint8
    assert set(np.unique(frame.labels)) <= {*range(len(CAMVID_11)), IGNORE_INDEX}


def test_a_frame_is_the_same_in_another_process_and_in_any_order(scene: DemoScene) -> None:
    scene.frame(200)
    here = digest(scene.frame(33))
    code = (
        "import hashlib; from bsdnet.demo_scene import DemoScene;"
        f"f = DemoScene(size={SIZE}).frame(33);"
        "print(hashlib.sha256(f.rgb.tobytes() + f.labels.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    assert there == here


def test_a_frame_belongs_to_the_caller(scene: DemoScene) -> None:
    first = scene.frame(5)
    before = digest(first)
    first.rgb[:] = 0
    first.labels[:] = 0

    assert digest(scene.frame(5)) == before


def test_a_scene_can_be_sent_to_another_process(scene: DemoScene) -> None:
    frame = scene.frame(7)
    sent = pickle.dumps(scene)

    assert len(sent) < 1000
    assert digest(pickle.loads(sent).frame(7)) == digest(frame)


def test_time_counts_not_the_number_of_the_frame() -> None:
    slow, fast = DemoScene(size=SIZE, fps=10, num_frames=11), DemoScene(size=SIZE, fps=20, num_frames=21)

    assert np.array_equal(slow.frame(10).labels, fast.frame(20).labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_appears_with_a_plausible_share(seed: int) -> None:
    shares = label_shares(DemoScene(size=SIZE, seed=seed), range(0, 250, 10))

    assert (shares[: len(CAMVID_11)] > 0.0005).all(), dict(zip(CAMVID_11.names, shares, strict=False))
    assert shares[IGNORE_INDEX] < 0.02
    assert 0.2 < shares[Label.ROAD] < 0.5
    for large, small in ((Label.ROAD, Label.CAR), (Label.BUILDING, Label.FENCE), (Label.TREE, Label.POLE)):
        assert shares[large] > shares[small]


def test_the_road_is_below_and_the_sky_above(scene: DemoScene) -> None:
    for index in range(0, 250, 50):
        labels = scene.frame(index).labels
        lowest, middle = labels[-SIZE[0] // 6 :], round(0.52 * SIZE[0])
        assert np.bincount(lowest.ravel()).argmax() == Label.ROAD
        assert not (labels[middle:] == Label.SKY).any()
        assert not np.isin(labels[: middle // 2], (Label.ROAD, Label.PAVEMENT)).any()


def test_edges_of_the_picture_lie_on_the_borders_of_the_labels(scene: DemoScene) -> None:
    """Shifting the labels by a few pixels must lower the contrast across their borders: they are in place."""

    def contrast(dx: int, dy: int) -> float:
        total, count = 0.0, 0
        for index in range(0, 250, 50):
            frame = scene.frame(index)
            rgb, labels = frame.rgb.astype(np.float32)[8:-8, 8:-8], np.roll(frame.labels, (dy, dx), (0, 1))[8:-8, 8:-8]
            for axis in (0, 1):
                border = np.diff(labels.astype(int), axis=axis) != 0
                steps = np.abs(np.diff(rgb, axis=axis)).mean(axis=2)
                total, count = total + float(steps[border].sum()), count + int(border.sum())
        return total / count

    aligned = contrast(0, 0)

    assert aligned > 15
    for shift in ((3, 0), (-3, 0), (0, 3), (0, -3)):
        assert aligned > 1.5 * contrast(*shift)


def test_classes_have_colours_of_their_own(scene: DemoScene) -> None:
    """What is labelled sky is bright and bluish, trees are green, the road is grey: labels are not swapped."""
    pixels: dict[int, list[np.ndarray]] = {label: [] for label in Label}
    for index in range(0, 250, 25):
        frame = scene.frame(index)
        for label in pixels:
            pixels[label].append(frame.rgb[frame.labels == label])
    mean = {label: np.concatenate(parts).mean(axis=0) for label, parts in pixels.items() if sum(map(len, parts))}

    assert mean[Label.SKY][2] > mean[Label.SKY][0] and mean[Label.SKY].mean() > 150
    assert mean[Label.TREE].argmax() == 1 and mean[Label.TREE].mean() < 130
    assert np.ptp(mean[Label.ROAD]) < 15 and 50 < mean[Label.ROAD].mean() < 130
    assert mean[Label.PAVEMENT].mean() > mean[Label.ROAD].mean() + 10
    assert mean[Label.BUILDING][0] > mean[Label.BUILDING][2]


def test_labels_of_the_half_size_are_the_full_size_ones_subsampled() -> None:
    full, half = DemoScene(size=(480, 854)), DemoScene(size=(240, 427))
    for index in (0, 125):
        small = cv2.resize(full.frame(index).labels, (427, 240), interpolation=cv2.INTER_NEAREST)
        assert (small == half.frame(index).labels).mean() > 0.96


def test_things_move_and_the_ego_car_moves_on(scene: DemoScene) -> None:
    first, second, later = scene.frame(0), scene.frame(1), scene.frame(50)
    near = np.abs(first.rgb.astype(int) - second.rgb).mean()
    far = np.abs(first.rgb.astype(int) - later.rgb).mean()

    assert 1 < near < far
    assert 0.002 < (first.labels != second.labels).mean() < (first.labels != later.labels).mean()


def test_motion_is_smooth(scene: DemoScene) -> None:
    """No frame differs from the one before by much more than its neighbours do: nothing large pops up."""
    labels = [scene.frame(index).labels for index in range(100, 130)]
    changes = [float((a != b).mean()) for a, b in pairwise(labels)]

    assert max(changes) < 0.12
    assert max(changes) < 3 * float(np.median(changes))


def test_seeds_give_different_streets(scene: DemoScene) -> None:
    other = DemoScene(size=SIZE, seed=1)

    assert (scene.frame(0).labels != other.frame(0).labels).mean() > 0.1
    assert np.abs(scene.frame(0).rgb.astype(int) - other.frame(0).rgb).mean() > 10


def test_a_street_has_no_end() -> None:
    frame = DemoScene(size=SIZE, num_frames=100_000).frame(99_999)

    assert len(np.unique(frame.labels)) >= 7


@pytest.mark.parametrize("index", [-1, 10])
def test_a_frame_outside_the_scene_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=r"only 0 to 9"):
        DemoScene(size=SIZE, num_frames=10).frame(index)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"size": (95, 320)}, "size"),
        ({"size": (720, 3841)}, "size"),
        ({"fps": 0.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"num_frames": 0}, "num_frames"),
        ({"seed": -1}, "seed"),
        ({"size": (96.0, 128.0)}, "size"),
        ({"size": (96,)}, "size"),
        ({"size": "96x128"}, "size"),
        ({"num_frames": 2.5}, "num_frames"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_a_field_that_cannot_work_is_named(fields: dict, name: str) -> None:
    with pytest.raises(ConfigError, match=f"demo scene: {name} is"):
        DemoScene(**fields)
