import cv2
import numpy as np
import pytest

from bsdnet.errors import ConfigError
from bsdnet.picture import Picture, YuvEncoding, empty_like

LIMITED_601 = YuvEncoding(matrix="bt601", full_range=False)


@pytest.mark.parametrize(
    ("encoding", "rgb", "expected"),
    [  # BT.601 and BT.709 write these numbers out
        (LIMITED_601, (255, 255, 255), (235, 128, 128)),
        (LIMITED_601, (0, 0, 0), (16, 128, 128)),
        (LIMITED_601, (255, 0, 0), (81, 90, 240)),
        (LIMITED_601, (0, 0, 255), (41, 240, 110)),
        (YuvEncoding(matrix="bt709", full_range=False), (255, 0, 0), (63, 102, 240)),
        (YuvEncoding(matrix="bt709", full_range=False), (0, 255, 0), (173, 42, 26)),
        (YuvEncoding(matrix="bt601", full_range=True), (255, 0, 0), (76, 85, 255.5)),
        (YuvEncoding(matrix="bt2020", full_range=True), (0, 0, 255), (15, 255.5, 118)),
    ],
)
def test_encodings_are_those_of_the_recommendations(encoding, rgb, expected):
    yuv = encoding.from_rgb() @ rgb + encoding.black
    np.testing.assert_allclose(yuv, expected, atol=0.6)
    np.testing.assert_allclose(encoding.to_rgb() @ (yuv - encoding.black), rgb, atol=1e-9)


def test_a_yuv_picture_becomes_rgb():
    y = np.repeat(np.array([[81, 41]], np.uint8), 4, axis=1).repeat(4, axis=0)
    u = np.repeat(np.array([[90, 240]], np.uint8), 2, axis=1).repeat(2, axis=0)
    v = np.repeat(np.array([[240, 110]], np.uint8), 2, axis=1).repeat(2, axis=0)
    rgb = Picture(planes=(y, u, v), encoding=LIMITED_601).rgb
    assert rgb.dtype == np.uint8
    assert np.abs(rgb[:, :2].astype(int) - (255, 0, 0)).max() <= 2
    assert np.abs(rgb[:, -2:].astype(int) - (0, 0, 255)).max() <= 2
    extremes = Picture(
        planes=(np.full((2, 2), 255, np.uint8), *[np.full((1, 1), 255, np.uint8)] * 2), encoding=LIMITED_601
    )
    assert extremes.rgb.tolist() == [[[255, 125, 255]] * 2] * 2  # out of gamut: cut, not wrapped


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_rgb_is_near_to_the_exact_values(matrix, full_range):
    rng, encoding = np.random.default_rng(1), YuvEncoding(matrix=matrix, full_range=full_range)
    y, u, v = (rng.integers(0, 256, size, dtype=np.uint8) for size in ((40, 60), (20, 30), (20, 30)))
    yuv = np.stack([y, *(cv2.resize(plane.astype(np.float32), (60, 40)) for plane in (u, v))], axis=-1)
    exact = np.clip((yuv - encoding.black) @ encoding.to_rgb().T, 0, 255)
    error = np.abs(Picture(planes=(y, u, v), encoding=encoding).rgb - exact)
    assert error.max() <= 2
    assert error.mean() < 0.5


def test_an_rgb_picture_is_its_plane():
    rgb = np.zeros((3, 5, 3), np.uint8)
    assert Picture(planes=(rgb,)).rgb is rgb
    assert Picture(planes=(rgb,)).size == (3, 5)


def test_an_empty_one_has_the_format_and_may_be_wider():
    yuv = Picture(planes=(np.zeros((6, 8), np.uint8), *[np.zeros((3, 4), np.uint8)] * 2), encoding=LIMITED_601)
    wider = empty_like(yuv, width=16)
    assert [plane.shape for plane in wider.planes] == [(6, 16), (3, 8), (3, 8)]
    assert wider.encoding == LIMITED_601
    assert empty_like(Picture(planes=(np.zeros((3, 5, 3), np.uint8),))).planes[0].shape == (3, 5, 3)


@pytest.mark.parametrize(
    ("shapes", "encoding"),
    [
        ([(4, 6)], None),
        ([(4, 6, 4)], None),
        ([(0, 6, 3)], None),
        ([(4, 6, 3)], LIMITED_601),
        ([(4, 6), (2, 3)], LIMITED_601),
        ([(4, 6), (2, 3), (4, 6)], LIMITED_601),
        ([(5, 6), (2, 3), (2, 3)], LIMITED_601),
        ([], None),
    ],
)
def test_what_is_no_picture_is_refused(shapes, encoding):
    with pytest.raises(ConfigError, match="a picture needs planes of uint8"):
        Picture(planes=tuple(np.zeros(shape, np.uint8) for shape in shapes), encoding=encoding)


def test_other_numbers_than_bytes_are_refused():
    with pytest.raises(ConfigError, match="uint8"):
        Picture(planes=(np.zeros((4, 6, 3), np.float32),))
