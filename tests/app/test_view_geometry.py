"""Where pictures lie: by examples that can be checked by hand, and laws that hold for all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.view_geometry import MAX_ZOOM, Rect, ViewGeometry

WIDE = ViewGeometry(frame=(50, 100), widget=(200, 200))

geometries = st.builds(
    ViewGeometry,
    frame=st.tuples(st.integers(2, 400), st.integers(2, 400)),
    widget=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    beside=st.booleans(),
    scaling=st.sampled_from(["fit", "fill", "actual", "free"]),
    free_zoom=st.floats(0.1, MAX_ZOOM),
    center=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)


def test_fits_with_bare_edges_above_and_below():
    assert WIDE.zoom == 2
    assert WIDE.target(Rect(0, 0, 100, 50)) == Rect(0, 50, 200, 150)


def test_fills_without_bare_edges():
    filled = replace(WIDE, scaling="fill")
    assert filled.zoom == 4
    assert filled.target(Rect(0, 0, 100, 50)) == Rect(-100, 0, 300, 200)


def test_one_to_one():
    assert replace(WIDE, scaling="actual").target(Rect(0, 0, 100, 50)) == Rect(50, 75, 150, 125)


def test_side_by_side_shows_the_frame_twice():
    beside = replace(WIDE, beside=True)
    left, right = beside.tiles("side-by-side")
    assert (left.drawn, right.drawn) == (False, True)
    assert left.crop == right.crop == Rect(0, 0, 100, 50)
    assert left.target == Rect(0, 75, 100, 125)
    assert right.target == Rect(100, 75, 200, 125)
    assert beside.pixel_at(150, 100) == (25, 50) == beside.pixel_at(50, 100)


def test_split_paints_both_at_the_same_place():
    plain, drawn = WIDE.tiles("split")
    assert (plain.drawn, drawn.drawn) == (False, True)
    assert plain.target == drawn.target


@pytest.mark.parametrize(("mode", "drawn"), [("overlay", True), ("mask", True), ("original", False)])
def test_other_modes_have_one_tile(mode, drawn):
    (tile,) = WIDE.tiles(mode)
    assert tile.drawn is drawn


def test_nothing_beside_the_picture():
    assert WIDE.pixel_at(100, 49) is None
    assert WIDE.pixel_at(100, 50) == (0, 50)
    assert WIDE.pixel_at(100, 150) is None


def test_zooms_around_the_cursor():
    before = WIDE.to_picture(150, 100)
    zoomed = WIDE.zoomed(3, 150, 100)
    assert zoomed.zoom == pytest.approx(6)
    assert zoomed.to_picture(150, 100) == pytest.approx(before)


def test_zoom_ends_somewhere():
    zoomed = WIDE
    for _ in range(50):
        zoomed = zoomed.zoomed(2, 100, 100)
    assert zoomed.zoom == MAX_ZOOM
    for _ in range(50):
        zoomed = zoomed.zoomed(0.5, 100, 100)
    assert 0 < zoomed.zoom < WIDE.zoom


def test_pans_to_the_edge_and_no_farther():
    zoomed = WIDE.zoomed(4, 100, 100)
    far = zoomed.panned(10_000, 0)
    assert far.to_widget(0, 0)[0] == pytest.approx(0)
    assert far.panned(-8, 0).to_widget(0, 0)[0] == pytest.approx(-8), "it comes back from the edge at once"


@given(geometries)
def test_there_and_back(geometry):
    x, y = geometry.to_picture(*geometry.to_widget(3.0, 5.0))
    assert (x, y) == pytest.approx((3.0, 5.0), abs=1e-6)


@given(geometries)
def test_what_is_cut_covers_what_is_seen(geometry):
    seen = geometry.visible()
    assert seen is not None, "panning is clamped, so there is always something to see"
    height, width = geometry.picture
    assert seen.left % 2 == seen.top % 2 == 0
    assert seen.right % 2 == 0 or seen.right == width
    assert seen.bottom % 2 == 0 or seen.bottom == height
    target = geometry.target(seen)
    whole = geometry.target(Rect(0, 0, width, height))
    assert target.left <= max(0, whole.left)
    assert target.right >= min(geometry.widget[1], whole.right)
    assert target.top <= max(0, whole.top)
    assert target.bottom >= min(geometry.widget[0], whole.bottom)


@given(geometries)
def test_tiles_lie_within_the_frame(geometry):
    for tile in geometry.tiles("side-by-side" if geometry.beside else "split"):
        left, top, right, bottom = tile.crop
        assert 0 <= left < right <= geometry.frame[1]
        assert 0 <= top < bottom <= geometry.frame[0]
