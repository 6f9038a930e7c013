import threading
from collections.abc import Iterator

import pytest

from .fakes import eventually
from .running import pipeline_threads


@pytest.fixture
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(pipeline_threads()) - before, 2.0)
