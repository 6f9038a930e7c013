"""The thread that paints: always the newest, never a queue, nothing of a stream that is gone."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from app.compose import Look
from app.composer import Composer
from app.engine import SeenPrediction
from app.view_geometry import ViewGeometry
from bsdnet.classes import CAMVID_11
from bsdnet.stream.frame import Frame, StreamResult
from tests.stream.fakes import eventually

from .stand_ins import SIZE, gray

GEOMETRY = ViewGeometry(frame=SIZE, widget=SIZE)


class Told:
    """Counts how often there was something to fetch."""

    def __init__(self) -> None:
        self.count = 0
        self.event = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.event.set()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def composer(told: Told) -> Iterator[Composer]:
    composer = Composer(told)
    composer.clear(1)
    yield composer
    composer.close()


def result(index: int) -> StreamResult:
    prediction = SeenPrediction(labels=np.zeros(SIZE, np.uint8), classes=CAMVID_11)
    return StreamResult(frame=Frame(picture=gray(), index=index, pts=index, time_s=index / 10), prediction=prediction)


def fetch(composer: Composer, told: Told):
    assert told.event.wait(5)
    told.event.clear()
    return composer.take()


def test_tells_once_however_many_come(composer, told):
    composer.show(Look(), GEOMETRY)
    composer.offer(1, result(0))
    assert told.event.wait(5)
    for index in range(1, 30):
        composer.offer(1, result(index))
    assert eventually(lambda: composer._picture.result.frame.index == 29)
    assert told.count == 1
    assert composer.take().result.frame.index == 29
    assert composer.take() is None


def test_what_comes_too_late_of_another_stream_is_dropped(composer, told):
    composer.clear(2)
    composer.offer(1, result(0))
    assert not told.event.wait(0.1)
    composer.offer(2, result(1))
    assert fetch(composer, told).result.frame.index == 1


def test_another_look_is_the_same_frame_anew(composer, told):
    composer.show(Look(), GEOMETRY)
    composer.offer(1, result(0))
    first = fetch(composer, told)
    composer.show(Look(mode="mask"), GEOMETRY)
    second = fetch(composer, told)
    assert second.result is first.result
    assert second.number == first.number
    assert not np.array_equal(first.tiles[0].pixels, second.tiles[0].pixels)
    composer.show(Look(mode="mask"), GEOMETRY)
    assert not told.event.wait(0.1), "the same look again is no work"


def test_a_frame_of_another_size_waits_for_its_geometry(composer, told):
    composer.show(Look(), ViewGeometry(frame=(10, 10), widget=SIZE))
    composer.offer(1, result(0))
    composed = fetch(composer, told)
    assert composed.tiles == ()
    assert composed.geometry is None
    composer.show(Look(), GEOMETRY)
    assert len(fetch(composer, told).tiles) == 1
