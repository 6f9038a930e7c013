import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bsdnet import Segmenter
from bsdnet.classes import CAMVID_11
from bsdnet.errors import ConfigError, DatasetError
from bsdnet.metrics import ConfusionMatrix
from bsdnet.modeling import BSDNet
from tests.trainer.processes import run_processes
from tests.trainer.tiny import TINY
from trainer.device import normalize
from trainer.distributed import connect
from trainer.evaluation import EvaluationOptions, _spans, evaluate, evaluation_as_dict, format_iou, segment

CPU = torch.device("cpu")
AS_IS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # the network gets 0 to 255
SIZES = ((75, 101), (64, 96), (33, 47), (101, 75), (80, 80))
WINDOW = (48, 64)


class Pictures:
    """Noise with noisy labels, in several sizes."""

    classes = CAMVID_11

    def __init__(self, sizes: tuple[tuple[int, int], ...] = SIZES) -> None:
        rng = np.random.default_rng(0)
        self.pairs = [
            (rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 12, size, np.uint8)) for size in sizes
        ]
        for rgb, labels in self.pairs:
            labels[labels == 11] = 255
            rgb[:, :, 0] = labels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index]

    def name(self, index: int) -> str:
        return f"picture {index}"


@dataclass
class Spy:
    """A network that keeps the shapes that it saw."""

    network: Callable[[Tensor], Tensor]
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.network(x)

    @property
    def sizes(self) -> set[tuple[int, ...]]:
        return {tuple(x.shape[2:]) for x in self.seen}


def read_red(x: Tensor) -> Tensor:
    """Know the class of each pixel by its red, at stride 1."""
    return -100 * (x[:, :1] - torch.arange(11.0)[:, None, None]).abs()


def lopsided() -> nn.Module:
    """A network at stride 8 that sees left and right differently."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 11, 9, stride=8, padding=4)).requires_grad_(False)


def expected(predict: Callable[[Tensor], Tensor], pictures: Pictures) -> np.ndarray:
    """Count what a network says that gives `(11, H, W)` for a normalised picture."""
    matrix = ConfusionMatrix(11)
    for rgb, labels in pictures.pairs:
        image = normalize(torch.from_numpy(rgb)[None], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        matrix.update(labels, predict(image).argmax(0).numpy())
    return matrix.counts


@pytest.mark.parametrize("changes", [{}, {"window": WINDOW}, {"window": (32, 32), "overlap": 0.0, "flip": True}])
def test_a_network_that_knows_everything_is_right_everywhere(changes: dict[str, object]):
    pictures = Pictures()
    matrix = evaluate(read_red, pictures, CPU, options=EvaluationOptions(**changes), **AS_IS)
    assert (matrix.mean_iou, matrix.pixel_accuracy) == (1.0, 1.0)
    assert matrix.counts.sum() == sum((labels != 255).sum() for _, labels in pictures.pairs)


@pytest.mark.parametrize("network", [lopsided(), BSDNet(replace(TINY, num_classes=11)).eval().requires_grad_(False)])
def test_a_single_view_is_judged_by_its_enlarged_logits(network: nn.Module):
    def predict(image: Tensor) -> Tensor:
        return F.interpolate(network(image), size=image.shape[2:], mode="bilinear", align_corners=False)[0]

    pictures = Pictures()
    wanted = expected(predict, pictures)
    for options in (EvaluationOptions(), EvaluationOptions(window=(128, 128)), EvaluationOptions(scales=(1.0,))):
        np.testing.assert_array_equal(evaluate(network, pictures, CPU, options=options).counts, wanted)


def windows_by_hand(network: nn.Module, image: Tensor, flip: bool) -> Tensor:
    """Average the probabilities of windows that overlap by a third, each enlarged to its own pixels."""
    height, width = image.shape[2:]
    (h, w), total, seen = WINDOW, torch.zeros(11, height, width), torch.zeros(height, width)
    h, w = min(h, height), min(w, width)
    for top in sorted({*range(0, height - h, 32), height - h}):
        for left in sorted({*range(0, width - w, 42), width - w}):
            part = image[:, :, top : top + h, left : left + w]
            for logits in [network(part)] + [network(part.flip(3)).flip(3)] * flip:
                enlarged = F.interpolate(logits, size=(h, w), mode="bilinear", align_corners=False)
                total[:, top : top + h, left : left + w] += enlarged[0].softmax(0)
                seen[top : top + h, left : left + w] += 1
    return total / seen


@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_are_averaged_over_windows_and_mirrored_views(flip: bool):
    network, pictures = lopsided(), Pictures()
    wanted = expected(lambda image: windows_by_hand(network, image, flip), pictures)
    matrix = evaluate(network, pictures, CPU, options=EvaluationOptions(window=WINDOW, flip=flip))
    np.testing.assert_array_equal(matrix.counts, wanted)


@pytest.mark.parametrize("flip", [False, True])
def test_of_equal_classes_the_first_is_taken(flip: bool):
    predicted = segment(lambda x: torch.zeros(1, 11, 2, 2), Pictures()[0][0], CPU, options=EvaluationOptions(flip=flip))
    assert not predicted.any()


def test_one_picture_is_segmented_as_it_is_judged():
    network, pictures, matrix = lopsided(), Pictures(), ConfusionMatrix(11)
    options = EvaluationOptions(window=WINDOW, flip=True, scales=(1.0, 0.75), short_side=64)
    for rgb, labels in pictures.pairs:
        predicted = segment(network, rgb, CPU, options=options, **AS_IS)
        assert predicted.dtype == np.uint8
        matrix.update(labels, predicted)
    np.testing.assert_array_equal(evaluate(network, pictures, CPU, options=options, **AS_IS).counts, matrix.counts)


def test_scales_weigh_alike_however_many_windows_they_have():
    network, pictures = lopsided(), Pictures(((75, 101), (64, 96)))

    def predict(image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        half = F.interpolate(image, size=((height + 1) // 2, (width + 1) // 2), mode="bilinear", antialias=True)
        enlarged = F.interpolate(network(half), size=(height, width), mode="bilinear", align_corners=False)
        return (windows_by_hand(network, image, False) + enlarged[0].softmax(0)) / 2

    options = EvaluationOptions(window=WINDOW, scales=(1.0, 0.5))
    wanted = expected(predict, pictures)
    np.testing.assert_array_equal(evaluate(network, pictures, CPU, options=options).counts, wanted)


def test_mirroring_changes_nothing_for_a_network_that_does_not_know_left_from_right():
    torch.manual_seed(0)
    network, pictures = nn.Conv2d(3, 11, 1).requires_grad_(False), Pictures()
    plain, mirrored = (evaluate(network, pictures, CPU, options=EvaluationOptions(flip=flip)) for flip in (False, True))
    np.testing.assert_array_equal(plain.counts, mirrored.counts)


@given(st.integers(1, 400), st.integers(1, 200), st.floats(0, 0.95))
def test_windows_cover_every_pixel_and_never_stick_out(length: int, window: int, overlap: float):
    spans = _spans(length, window, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert {end - start for start, end in spans} == {min(length, window)}
    for (_, end), (start, _) in pairwise(spans):
        assert end - start >= min(overlap * window, window - 1) - 1e-9


def test_windows_are_no_more_than_the_overlap_asks_for():
    assert _spans(2048, 1024, 1 / 3) == [(0, 1024), (682, 1706), (1024, 2048)]
    assert _spans(2048, 1024, 0) == [(0, 1024), (1024, 2048)]


def test_the_network_sees_windows_of_their_size_or_the_whole_side():
    spy = Spy(lopsided())
    evaluate(spy, Pictures(), CPU, options=EvaluationOptions(window=WINDOW))
    assert spy.sizes == {(48, 64), (33, 47)}


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, {(75, 101), (101, 75)}),
        ({"size": (40, 60)}, {(40, 60)}),
        ({"short_side": 150}, {(160, 192), (192, 160)}),
        ({"size": (40, 60), "scales": (0.5, 1.25)}, {(20, 30), (50, 75)}),
        ({"short_side": 50, "scales": (2.0,), "window": (64, 64)}, {(64, 64)}),
        ({"short_side": 32, "scales": (0.4,)}, {(32, 32)}),
    ],
)
def test_pictures_are_brought_to_a_size(options: dict[str, object], sizes: set[tuple[int, int]]):
    spy = Spy(lopsided())
    matrix = evaluate(spy, Pictures(((75, 101), (101, 75))), CPU, options=EvaluationOptions(**options))
    assert spy.sizes == sizes
    assert matrix.counts.sum() > 0.9 * 2 * 75 * 101


def test_the_short_side_gives_the_size_that_users_get():
    spy = Spy(lopsided())
    with Segmenter.load(device="cpu") as segmenter:
        expected = {segmenter.size_for(size) for size in ((360, 480), (540, 960))}
    evaluate(spy, Pictures(((360, 480), (540, 960))), CPU, options=EvaluationOptions(short_side=540))
    assert spy.sizes == expected == {(544, 736), (544, 960)}


def test_fine_lines_do_not_vanish_when_a_picture_shrinks():
    pictures, spy = Pictures(((128, 128),)), Spy(read_red)
    pictures.pairs[0][0][:] = 0
    pictures.pairs[0][0][:, ::4] = 200
    evaluate(spy, pictures, CPU, options=EvaluationOptions(size=(32, 32)), **AS_IS)
    torch.testing.assert_close(spy.seen[0][..., 1:-1], torch.full((1, 3, 32, 30), 50.0), rtol=0, atol=2)


def test_pictures_are_normalised_and_computed_in_the_precision():
    def network(x: Tensor) -> Tensor:
        formats.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        torch.testing.assert_close(x, normalize(torch.from_numpy(pictures[0][0])[None], mean, std))
        return torch.zeros(1, 11, 1, 1)

    formats: list[torch.dtype] = []
    pictures, mean, std = Pictures(((64, 64),)), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    for precision in ("fp32", "bf16", "fp16"):
        evaluate(network, pictures, CPU, options=EvaluationOptions(precision=precision), mean=mean, std=std)
    assert formats == [torch.float32, torch.bfloat16, torch.float16]


def test_other_classes_than_the_data_sets_are_refused():
    with pytest.raises(ConfigError, match="tells 3 classes apart, the data set has 11"):
        evaluate(nn.Conv2d(3, 3, 1), Pictures(), CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (31, 64)}, "size must be a height and a width of at least 32"),
        ({"window": (64,)}, "window must be"),
        ({"short_side": 16}, "short_side must be at least 32"),
        ({"size": (64, 64), "short_side": 64}, "at most one of size and short_side"),
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\)"),
        ({"scales": ()}, "scales must be"),
        ({"scales": (1.0, 0.0)}, "scales must be"),
        ({"precision": "int8"}, "precision must be bf16, fp16 or fp32, got 'int8'"),
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        EvaluationOptions(**changes)


class Shelf(Pictures):
    """Pictures of which the first two must be asked for at once; the last may be broken."""

    def __init__(self, count: int, broken: bool = False) -> None:
        super().__init__(((40, 40),) * count)
        self.broken, self.read = broken, 0
        self.two = threading.Barrier(2, timeout=10)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index < 2:
            self.two.wait()
        self.read += 1
        if self.broken and index == len(self) - 1:
            raise DatasetError("the last one is torn")
        return super().__getitem__(index)


def test_pictures_are_read_ahead_but_not_all_at_once():
    def network(x: Tensor) -> Tensor:
        ahead.append(shelf.read - len(ahead))
        return read_red(x)

    shelf = Shelf(40)
    ahead: list[int] = []
    assert evaluate(network, shelf, CPU, **AS_IS).mean_iou == 1.0
    assert shelf.read == len(ahead) == 40
    assert max(ahead) <= 9


def test_a_picture_that_cannot_be_read_ends_the_evaluation():
    with pytest.raises(DatasetError, match="torn"):
        evaluate(read_red, Shelf(4, broken=True), CPU, **AS_IS)


def share(folder: Path) -> None:
    torch.set_num_threads(1)
    with connect("cpu") as (processes, device):
        spy = Spy(lopsided())
        for number in (5, 1):
            pictures = Pictures(SIZES[:number])
            counts = evaluate(spy, pictures, device, processes=processes).counts
            np.save(folder / f"{number}-{processes.rank}.npy", counts)
        assert len(spy.seen) == (4 if processes.is_main else 2)


def test_two_processes_count_as_one(tmp_path: Path):
    run_processes(2, share, tmp_path)
    for number in (5, 1):
        whole = evaluate(lopsided(), Pictures(SIZES[:number]), CPU).counts
        for rank in range(2):
            np.testing.assert_array_equal(np.load(tmp_path / f"{number}-{rank}.npy"), whole)


def half_right() -> ConfusionMatrix:
    matrix = ConfusionMatrix(11)
    matrix.update(np.array([0, 1, 1]), np.array([0, 1, 0]))
    return matrix


def test_the_table_names_every_class():
    lines = format_iou(half_right(), CAMVID_11).splitlines()
    assert [line.split() for line in lines[:3]] == [["mIoU", "50.0"], ["sky", "50.0"], ["building", "50.0"]]
    assert lines[3].split() == ["pole", "nan"]
    assert len(lines) == 12


def test_the_result_is_json_without_nan():
    result = json.loads(json.dumps(evaluation_as_dict(half_right(), CAMVID_11, images=2), allow_nan=False))
    assert list(result) == ["images", "miou", "pixel_accuracy", "iou"]
    assert (result["images"], result["miou"], result["pixel_accuracy"]) == (2, 0.5, pytest.approx(2 / 3))
    assert list(result["iou"]) == list(CAMVID_11.names)
    assert (result["iou"]["sky"], result["iou"]["pole"]) == (0.5, None)
    empty = evaluation_as_dict(ConfusionMatrix(11), CAMVID_11, images=0)
    assert (empty["miou"], empty["pixel_accuracy"]) == (None, None)
