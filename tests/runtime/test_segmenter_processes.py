"""A segmenter and processes other than its own."""

import copy
import os
import pickle
import warnings

import pytest

from bsdnet import BackendError, Segmenter


@pytest.fixture
def segmenter(tiny_weights):
    with Segmenter.load(tiny_weights, device="cpu", precision="fp32") as segmenter:
        yield segmenter


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_is_told_to_load_one_of_its_own(segmenter, frame):
    """The threads that would do the work are not forked: a result would never come."""
    segmenter.predict(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of threads
        child = os.fork()
    if not child:
        code = 1
        try:
            segmenter.submit(frame)
        except BackendError as error:
            segmenter.close()
            code = 0 if "loaded by another process" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert segmenter.predict(frame).shape == frame.shape[:2]


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_segmenter_stays_in_its_process(segmenter, attempt):
    with pytest.raises(TypeError, match="load one in each process"):
        attempt(segmenter)
