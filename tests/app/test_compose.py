"""Pictures are those of the library's own renderer and converter, at the size of the screen."""

import numpy as np
import pytest

from app.compose import Look, class_shares, compose_tiles, full_picture, make_renderer, visible_rgb
from app.engine import SeenPrediction
from app.view_geometry import Rect, ViewGeometry
from bsdnet.classes import CAMVID_11
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer, RenderStyle
from bsdnet.stream.frame import Frame, StreamResult

from .stand_ins import CAR, ROAD

SIZE = (20, 32)


@pytest.fixture
def result() -> StreamResult:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    labels = np.full(SIZE, ROAD, np.uint8)
    labels[:10] = CAR
    return StreamResult(
        frame=Frame(picture=Picture(planes=(rgb,)), index=0, pts=0, time_s=0.0),
        prediction=SeenPrediction(labels=labels, classes=CAMVID_11),
    )


def pixels(result: StreamResult, look: Look, widget: tuple[int, int] = SIZE) -> list[np.ndarray]:
    geometry = ViewGeometry(frame=SIZE, widget=widget, beside=look.mode == "side-by-side")
    tiles = compose_tiles(result, geometry, look, make_renderer(CAMVID_11, look))
    return [tile.pixels[..., 2::-1] for tile in tiles]


@pytest.mark.parametrize("only", [None, frozenset({CAR})])
@pytest.mark.parametrize("mode", ["overlay", "mask"])
def test_at_its_own_size_it_is_what_the_renderer_draws(result, mode, only):
    style = RenderStyle(alpha=0.3, view=mode, only=only, legend=False)
    expected = Renderer(CAMVID_11, style).render(result.frame.rgb, result.prediction.labels)
    (shown,) = pixels(result, Look(mode=mode, alpha=0.3, only=only))
    assert np.array_equal(shown, expected)


def test_the_original_is_the_frame(result):
    (shown,) = pixels(result, Look(mode="original"))
    assert np.array_equal(shown, result.frame.rgb)


def test_split_has_the_frame_first_and_the_classes_second(result):
    plain, drawn = pixels(result, Look(mode="split"))
    assert np.array_equal(plain, result.frame.rgb)
    assert np.array_equal(drawn, pixels(result, Look())[0])


def test_enlarged_classes_keep_hard_edges(result):
    (shown,) = pixels(result, Look(mode="mask"), (SIZE[0] * 3, SIZE[1] * 3))
    colors = {tuple(color) for color in shown.reshape(-1, 3)}
    assert colors == {CAMVID_11.colors[CAR], CAMVID_11.colors[ROAD]}
    assert tuple(shown[29, 0]) == CAMVID_11.colors[CAR]
    assert tuple(shown[30, 0]) == CAMVID_11.colors[ROAD]


def test_side_by_side_is_as_large_as_both(result):
    whole = full_picture(result.frame, result.prediction, CAMVID_11, Look(mode="side-by-side"))
    assert whole.shape == (20, 64, 3)
    assert np.array_equal(whole[:, :32], result.frame.rgb)
    assert not np.array_equal(whole[:, 32:], result.frame.rgb)


def test_the_whole_of_a_yuv_frame_is_its_conversion():
    rng = np.random.default_rng(1)
    planes = tuple(rng.integers(16, 236, size, dtype=np.uint8) for size in ((40, 60), (20, 30), (20, 30)))
    picture = Picture(planes=planes, encoding=YuvEncoding(matrix="bt709", full_range=False))
    assert np.array_equal(visible_rgb(picture, Rect(0, 0, 60, 40), (40, 60)), picture.rgb)


def test_a_part_of_halved_chroma_is_the_same_part():
    luma = np.full((40, 60), 128, np.uint8)
    blue = np.full((20, 30), 128, np.uint8)
    blue[:, 15:] = 220
    picture = Picture(
        planes=(luma, blue, np.full((20, 30), 128, np.uint8)),
        encoding=YuvEncoding(matrix="bt709", full_range=True),
    )
    left, right = (visible_rgb(picture, Rect(x, 0, x + 10, 40), (40, 10)) for x in (10, 40))
    assert left[..., 2].max() <= 130
    assert right[..., 2].min() >= 250


def test_shares_are_of_all_pixels():
    labels = np.full((8, 8), 255, np.uint8)
    labels[:4] = CAR
    shares = class_shares(labels, len(CAMVID_11))
    assert shares[CAR] == 0.5
    assert shares.sum() == 0.5, "pixels of no class belong to none"
