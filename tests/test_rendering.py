"""Masks on frames: against arithmetic written out, torch against OpenCV, and where words may be drawn."""

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bsdnet.classes import CAMVID_11, CITYSCAPES_19, ClassSet
from bsdnet.errors import ConfigError
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Corner, Renderer, RenderStyle, View, draw_hud
from bsdnet.rendering.panels import legend_panel
from bsdnet.rendering.renderer import DIMMED

Image = NDArray[np.uint8]
MANY = ClassSet(
    name="many", names=tuple(f"class {i}" for i in range(255)), colors=tuple((255, i, 0) for i in range(255))
)
HUD = ["58.3 FPS", "BSDNet-S  640x352  cpu bf16"]


def _scene(height: int, width: int, num_classes: int = 11) -> tuple[Image, Image]:
    rng = np.random.default_rng(height * 10_000 + width)
    labels = rng.integers(0, num_classes + 1, (height, width)).astype(np.uint8)
    labels[labels == num_classes] = 255
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), labels


def _on_torch(renderer: Renderer, rgb: Image, labels: Image, device: str = "cpu") -> Image:
    (out,) = renderer.render_torch([torch.from_numpy(rgb).to(device)], torch.from_numpy(labels).to(device))
    assert out.device.type == device
    return out.cpu().numpy()


def _yuv(size: tuple[int, int], encoding: YuvEncoding) -> Picture:
    """A picture of smooth random colours."""
    rgb = cv2.resize(np.random.default_rng(1).integers(30, 226, (3, 4, 3)).astype(np.uint8), size[::-1])
    yuv = np.rint(rgb @ encoding.from_rgb().T + encoding.black).astype(np.uint8)
    return Picture(planes=(yuv[..., 0], yuv[::2, ::2, 1].copy(), yuv[::2, ::2, 2].copy()), encoding=encoding)


def _blocks(size: tuple[int, int], num_classes: int = 11) -> Image:
    """Labels in blocks of 16x16 pixels, some of them 255."""
    labels = np.random.default_rng(2).integers(0, num_classes + 1, (size[0] // 16, size[1] // 16)).astype(np.uint8)
    labels[labels == num_classes] = 255
    return labels.repeat(16, 0).repeat(16, 1)


def _blend(rgb: Image, color: Image, opacity: int) -> Image:
    """The nearest integer of the blend, in integers: `opacity` is of 255."""
    doubled = 2 * (rgb.astype(np.int64) * (255 - opacity) + color.astype(np.int64) * opacity)
    return ((doubled + 255) // 510).astype(np.uint8)


def test_every_blend_of_two_values_is_exact_on_both_paths() -> None:
    rgb = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 255, 1).repeat(3, 2)
    labels = np.repeat(np.arange(255, dtype=np.uint8)[None], 256, 0)
    colors = MANY.palette[labels]
    for opacity in (*range(0, 256, 7), 127, 128, 254, 255):
        renderer = Renderer(MANY, RenderStyle(alpha=opacity / 255, legend=False))
        expected = _blend(rgb, colors, opacity)
        np.testing.assert_array_equal(renderer.render(rgb, labels), expected)
        np.testing.assert_array_equal(_on_torch(renderer, rgb, labels), expected)


@pytest.mark.parametrize("stranger", [-1, 11, "road", 1.5])
def test_classes_that_are_not_in_the_set_cannot_be_drawn(stranger: object) -> None:
    with pytest.raises(ConfigError, match=rf"no such class in camvid-11: \[{stranger!r}\]; indices are 0 to 10"):
        Renderer(CAMVID_11, RenderStyle(only=frozenset({3, stranger})))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "half", None])
def test_what_is_no_opacity_is_refused(alpha: object) -> None:
    with pytest.raises(ConfigError, match=f"alpha must be an opacity from 0 to 1, got {alpha!r}"):
        RenderStyle(alpha=alpha)


def test_overlay_leaves_unknown_and_unwanted_classes_untouched() -> None:
    rgb, labels = _scene(90, 160)
    only = frozenset({3, 8})
    drawn = np.isin(labels, list(only))[..., None]
    out = Renderer(CAMVID_11, RenderStyle(alpha=0.6, only=only, legend=False)).render(rgb, labels)
    palette = np.vstack([CAMVID_11.palette, np.zeros((245, 3), np.uint8)])
    np.testing.assert_array_equal(out, np.where(drawn, _blend(rgb, palette[labels], 153), rgb))

    everything = Renderer(CAMVID_11, RenderStyle(alpha=1.0, legend=False)).render(rgb, labels)
    np.testing.assert_array_equal(everything[labels == 255], rgb[labels == 255])
    assert (everything[labels == 3] == CAMVID_11.palette[3]).all()


def test_mask_view_is_opaque_and_dims_the_rest() -> None:
    rgb, labels = _scene(90, 160)
    out = Renderer(CAMVID_11, RenderStyle(alpha=0.1, view="mask", only=frozenset({0}), legend=False)).render(
        rgb, labels
    )
    assert (out[labels == 0] == CAMVID_11.palette[0]).all()
    np.testing.assert_array_equal(out[labels != 0], _blend(rgb, np.zeros_like(rgb), 255 - DIMMED)[labels != 0])


def test_side_by_side_is_the_frame_and_the_overlay() -> None:
    rgb, labels = _scene(180, 320)
    out = Renderer(CAMVID_11, RenderStyle(view="side-by-side")).render(rgb, labels)
    assert out.shape == (180, 640, 3)
    np.testing.assert_array_equal(out[:, :320], rgb)
    np.testing.assert_array_equal(out[:, 320:], Renderer(CAMVID_11, RenderStyle()).render(rgb, labels))


@pytest.mark.parametrize("view", ["overlay", "mask", "side-by-side"])
@pytest.mark.parametrize("only", [None, frozenset[int](), frozenset({3, 8})])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (4, 3), (3, 4), (181, 323), (360, 480)])
def test_torch_draws_the_same_pixels(view: View, only: frozenset[int] | None, size: tuple[int, int]) -> None:
    renderer = Renderer(CAMVID_11, RenderStyle(alpha=0.45, view=view, only=only))
    rgb, labels = _scene(*size)
    np.testing.assert_array_equal(_on_torch(renderer, rgb, labels), renderer.render(rgb, labels))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("view", ["overlay", "mask", "side-by-side"])
def test_cuda_draws_the_same_pixels(view: View) -> None:
    renderer = Renderer(CITYSCAPES_19, RenderStyle(alpha=0.45, view=view))
    rgb, labels = _scene(540, 960, 19)
    expected = renderer.render(rgb, labels)
    np.testing.assert_array_equal(_on_torch(renderer, rgb, labels, "cuda"), expected)


ENCODINGS = [
    YuvEncoding(matrix="bt601", full_range=False),
    YuvEncoding(matrix="bt709", full_range=True),
    YuvEncoding(matrix="bt2020", full_range=False),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("view", ["overlay", "mask", "side-by-side"])
@pytest.mark.parametrize("only", [None, frozenset[int](), frozenset({3, 8})])
def test_yuv_frames_are_drawn_as_rgb_ones(encoding: YuvEncoding, view: View, only: frozenset[int] | None) -> None:
    picture, labels = _yuv((256, 480), encoding), _blocks((256, 480))
    renderer = Renderer(CAMVID_11, RenderStyle(alpha=0.45, view=view, only=only))
    drawn = renderer.render_picture(picture, labels)
    assert drawn.encoding == encoding
    difference = np.abs(drawn.rgb.astype(int) - renderer.render(picture.rgb, labels))
    # Chroma is interpolated over the edges of classes and letters; elsewhere nothing but rounding differs.
    assert np.percentile(difference, 60) <= 3
    assert difference.mean() < 4.1
    on_torch = renderer.render_torch([torch.from_numpy(p) for p in picture.planes], torch.from_numpy(labels), encoding)
    for plane, expected in zip(on_torch, drawn.planes, strict=True):
        np.testing.assert_array_equal(plane.numpy(), expected)


def test_chroma_takes_the_label_of_the_upper_left_pixel() -> None:
    encoding = ENCODINGS[0]
    picture = _yuv((4, 4), encoding)
    labels = np.array([[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2, np.uint8)
    drawn = Renderer(CAMVID_11, RenderStyle(alpha=1, legend=False)).render_picture(picture, labels)
    palette = np.rint(CAMVID_11.palette @ encoding.from_rgb().T + encoding.black)
    np.testing.assert_array_equal(drawn.planes[0], palette[labels, 0])
    np.testing.assert_array_equal(drawn.planes[1], palette[[[0, 2], [4, 6]], 1])
    np.testing.assert_array_equal(drawn.planes[2], palette[[[0, 2], [4, 6]], 2])


@pytest.mark.parametrize("corner", ["top-left", "bottom-right"])
def test_hud_on_yuv_looks_as_on_rgb(corner: Corner) -> None:
    picture = _yuv((482, 854), ENCODINGS[0])  # the panel begins on odd rows and columns, too
    expected = picture.rgb.copy()
    draw_hud(picture, HUD, corner=corner)
    draw_hud(expected, HUD, corner=corner)
    difference = np.abs(picture.rgb.astype(int) - expected)
    assert difference.max() < 25
    assert difference.mean() < 0.5


def test_inputs_stay_as_they_are_and_may_be_views() -> None:
    rgb, labels = _scene(120, 200)
    before = rgb.copy(), labels.copy()
    renderer = Renderer(CAMVID_11)
    expected = renderer.render(rgb[::-1, ::-2, ::-1].copy(), labels[::-1, ::-2].copy())
    np.testing.assert_array_equal(renderer.render(rgb[::-1, ::-2, ::-1], labels[::-1, ::-2]), expected)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    np.testing.assert_array_equal(renderer.render(planes.transpose(1, 2, 0), labels), renderer.render(rgb, labels))
    np.testing.assert_array_equal(rgb, before[0])
    np.testing.assert_array_equal(labels, before[1])


def _legend_alone(classes: ClassSet, size: tuple[int, int], only: frozenset[int] | None = None) -> Image:
    """The legend on a black frame on which no class is drawn."""
    black, nothing = np.zeros((*size, 3), np.uint8), np.full(size, 255, np.uint8)
    return Renderer(classes, RenderStyle(only=only)).render(black, nothing)


def _classes_shown(picture: Image, classes: ClassSet) -> list[int]:
    """The classes whose exact colour is somewhere in the picture."""
    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    there = set(np.unique(packed[picture.any(axis=2)]).tolist())
    return [i for i, (r, g, b) in enumerate(classes.colors) if (r << 16 | g << 8 | b) in there]


@pytest.mark.parametrize("size", [(360, 480), (480, 854), (540, 960), (1080, 1920), (2160, 3840), (1280, 720)])
@pytest.mark.parametrize("classes", [CAMVID_11, CITYSCAPES_19], ids=lambda classes: classes.name)
def test_legend_shows_every_class_in_the_lowest_quarter(classes: ClassSet, size: tuple[int, int]) -> None:
    picture = _legend_alone(classes, size)
    assert _classes_shown(picture, classes) == list(range(len(classes)))
    rows, columns = np.nonzero(picture.any(axis=2))
    assert rows.min() >= 0.75 * size[0]
    assert abs((columns.min() + columns.max()) / 2 - size[1] / 2) <= 2  # centred


def test_legend_grows_with_the_frame() -> None:
    heights = [
        panel.keep.shape[0]
        for size in ((480, 854), (2160, 3843))
        if (panel := legend_panel(CAMVID_11, tuple(range(11)), size)) is not None
    ]
    assert heights[1] / heights[0] == pytest.approx(2160 / 480, rel=0.1)


def test_legend_shows_only_the_wanted_classes() -> None:
    picture = _legend_alone(CAMVID_11, (360, 480), frozenset({3, 8}))
    assert _classes_shown(picture, CAMVID_11) == [3, 8]
    assert not _legend_alone(CAMVID_11, (360, 480), frozenset()).any()


def test_legend_of_a_large_set_shows_the_most_frequent_classes_of_the_frame() -> None:
    rare, frequent = range(100, 106), list(range(7, 7 + 19 * 9, 9))
    stripes = [index for index in rare for _ in range(2)] + [index for index in frequent for _ in range(7)]
    labels = np.broadcast_to(np.repeat(np.array(stripes, np.uint8), 8), (720, 8 * len(stripes)))  # 25 classes
    black = np.zeros((*labels.shape, 3), np.uint8)
    renderer = Renderer(MANY, RenderStyle(alpha=0.0))
    picture = renderer.render(black, labels)
    assert _classes_shown(picture, MANY) == frequent
    np.testing.assert_array_equal(_on_torch(renderer, black, labels.copy()), picture)


def test_legend_is_left_out_where_it_has_no_room() -> None:
    wordy = ClassSet(name="wordy", names=("a name as long as a street " * 9, "b"), colors=((1, 2, 3), (4, 5, 6)))
    assert not _legend_alone(wordy, (360, 480)).any()
    assert not _legend_alone(CAMVID_11, (40, 60)).any()
    rgb, labels = _scene(40, 60)
    plain = Renderer(CAMVID_11, RenderStyle(legend=False)).render(rgb, labels)
    np.testing.assert_array_equal(Renderer(CAMVID_11).render(rgb, labels), plain)


@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
@pytest.mark.parametrize("value", [0, 255])
def test_hud_touches_its_corner_alone(corner: Corner, value: int) -> None:
    picture = np.full((480, 854, 3), value, np.uint8)
    draw_hud(picture, HUD, corner=corner)
    rows, columns = np.nonzero((picture != value).any(axis=2))
    upper, left = rows.max() < 240, columns.max() < 427
    assert (upper or rows.min() >= 240) and (left or columns.min() >= 427)
    assert ("top" if upper else "bottom") + ("-left" if left else "-right") == corner
    assert picture.max() > 230  # bright words on a dark panel, whatever the frame
    panel = picture[rows.min() : rows.max(), columns.min() : columns.max()]
    assert np.median(panel) < 110


def test_hud_keeps_its_size_while_numbers_change() -> None:
    def extent(text: str) -> tuple[int, int]:
        picture = np.zeros((480, 854, 3), np.uint8)
        draw_hud(picture, [text])
        rows, columns = np.nonzero(picture.any(axis=2))
        return int(rows.max()), int(columns.max())

    assert extent("11.1 FPS") == extent("58.3 FPS") == extent("88.8 FPS")
    assert extent("123.4 FPS") > extent("11.1 FPS")


def test_hud_draws_nothing_without_words_or_room() -> None:
    for size, lines in (((480, 854), []), ((30, 40), HUD)):
        picture = np.full((*size, 3), 77, np.uint8)
        draw_hud(picture, lines)
        assert (picture == 77).all()


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_alpha_beyond_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        RenderStyle(alpha=alpha)


def test_unknown_view_class_and_corner_are_refused() -> None:
    with pytest.raises(ConfigError, match="side-by-side, got 'both'"):
        RenderStyle(view="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"camvid-11: \[-1, 11\]; indices are 0 to 10"):
        Renderer(CAMVID_11, RenderStyle(only=frozenset({3, 11, -1})))
    with pytest.raises(ConfigError, match="bottom-right, got 'middle'"):
        draw_hud(np.zeros((48, 64, 3), np.uint8), ["1"], corner="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rgb", "labels"),
    [
        (np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)),
        (np.zeros((4, 6, 4), np.uint8), np.zeros((4, 6), np.uint8)),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8)),
        (np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8)),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.int64)),
        (np.zeros((0, 6, 3), np.uint8), np.zeros((0, 6), np.uint8)),
    ],
)
def test_wrong_shapes_and_types_are_refused(rgb: Image, labels: Image) -> None:
    with pytest.raises(ConfigError, match=r"needs (planes of uint8 \(H, W, 3\) RGB|labels of that size)"):
        Renderer(CAMVID_11).render(rgb, labels)


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(H, W, 3\) RGB"):
        draw_hud(np.zeros((4, 6), np.uint8), HUD)
