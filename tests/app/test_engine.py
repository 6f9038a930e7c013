"""What is used when what was asked for cannot be had, or fails."""

import numpy as np
import pytest

from app.engine import Engine, EngineChoice, SeenPrediction, choice_below, is_out_of_memory
from bsdnet.classes import CAMVID_11
from bsdnet.errors import BackendError, CheckpointError
from bsdnet.picture import Picture

from .stand_ins import SIZE, StandInSegmenter, gray

OUTPUTS = frozenset({"labels", "confidence"})


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's own."""


def out_of_memory() -> BackendError:
    error = BackendError("inference failed: OutOfMemoryError: CUDA out of memory")
    error.__cause__ = OutOfMemoryError()
    return error


@pytest.mark.parametrize(
    ("choice", "error", "below"),
    [
        (EngineChoice(device="cuda", backend="tensorrt"), BackendError("no"), ("cuda", "eager")),
        (EngineChoice(device="cuda", backend="tensorrt"), out_of_memory(), ("cpu", "auto")),
        (EngineChoice(device="cuda"), BackendError("no"), ("cpu", "auto")),
        (EngineChoice(device="cuda", backend="eager"), BackendError("no"), ("cpu", "auto")),
        (EngineChoice(device="cpu", backend="compile"), BackendError("no"), ("cpu", "eager")),
        (EngineChoice(device="cpu"), BackendError("no"), None),
    ],
)
def test_goes_down_step_by_step(choice, error, below):
    found = choice_below(choice, error)
    assert (found and (found.device, found.backend)) == below


def test_keeps_weights_and_size_on_the_way_down():
    choice = EngineChoice(weights="mine", device="cuda", precision="fp16", size=(64, 128))
    below = choice_below(choice, out_of_memory())
    assert below == EngineChoice(weights="mine", device="cpu", size=(64, 128))


def test_finds_a_full_memory_however_deep():
    assert is_out_of_memory(out_of_memory())
    assert not is_out_of_memory(BackendError("no"))


def test_opens_what_is_below_and_says_so():
    said = []

    def load(choice: EngineChoice) -> StandInSegmenter:
        if choice.backend == "tensorrt":
            raise BackendError("backend 'tensorrt' is not here")
        return StandInSegmenter(choice)

    engine = Engine(EngineChoice(device="cpu", backend="tensorrt"), said.append, load)
    assert engine.choice.backend == "eager"
    assert said == ["Backend 'tensorrt' is not here. Going on with plain PyTorch."]


def test_is_made_ready_for_the_frames_that_are_playing():
    segmenters = []

    def load(choice: EngineChoice) -> StandInSegmenter:
        segmenters.append(StandInSegmenter(choice))
        if choice.device == "cuda":
            segmenters[-1].cannot_prepare = out_of_memory()
        return segmenters[-1]

    said = []
    engine = Engine(EngineChoice(device="cuda", size=(64, 96)), said.append, load, frame_size=SIZE)
    assert engine.choice.device == "cpu"
    assert said == ["The GPU's memory is full. Going on with the CPU."]
    assert [segmenter.closed for segmenter in segmenters] == [True, False]
    assert segmenters[1].prepared == [([(64, 96)], SIZE, OUTPUTS)]


def test_weights_that_cannot_be_read_are_no_reason_to_step_down():
    def load(choice: EngineChoice) -> StandInSegmenter:
        raise CheckpointError("damaged")

    with pytest.raises(CheckpointError):
        Engine(EngineChoice(device="cuda"), pytest.fail, load)


@pytest.mark.parametrize("when", ["fails_of", "refuses_with"])
def test_a_frame_that_fails_is_done_again_on_what_is_below(when):
    said, loaded = [], []

    def load(choice: EngineChoice) -> StandInSegmenter:
        loaded.append(StandInSegmenter(choice))
        return loaded[-1]

    engine = Engine(EngineChoice(device="cuda"), said.append, load)
    setattr(loaded[0], when, out_of_memory())
    handles = []
    if when == "fails_of":
        handles = [engine.submit(gray(), outputs=OUTPUTS) for _ in range(2)]  # both are on the way when it happens
    handles.append(engine.submit(gray(), outputs=OUTPUTS))
    predictions = [handle.result() for handle in handles]
    assert all(prediction.labels.shape == SIZE for prediction in predictions)
    assert said == ["The GPU's memory is full. Going on with the CPU."]
    assert len(loaded) == 2
    assert loaded[0].closed
    assert str(engine.segmenter.device) == "cpu"


def test_with_nothing_below_the_error_comes_out():
    segmenter = StandInSegmenter()
    segmenter.fails_of = BackendError("broken")
    engine = Engine(EngineChoice(device="cpu"), pytest.fail, lambda choice: segmenter)
    with pytest.raises(BackendError, match="broken"):
        engine.submit(gray(), outputs=OUTPUTS).result()


def test_a_closed_engine_does_not_open_another():
    loads = []

    def load(choice: EngineChoice) -> StandInSegmenter:
        loads.append(choice)
        return StandInSegmenter(choice)

    engine = Engine(EngineChoice(device="cuda"), pytest.fail, load)
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.submit(gray(), outputs=OUTPUTS)
    assert len(loads) == 1


def test_predictions_know_their_classes():
    engine = Engine(EngineChoice(device="cpu"), pytest.fail, StandInSegmenter)
    prediction = engine.submit(gray(), outputs=OUTPUTS).result()
    assert isinstance(prediction, SeenPrediction)
    assert prediction.classes is CAMVID_11
    assert prediction.confidence is not None


def test_confidence_is_left_out_where_nobody_looks():
    engine = Engine(EngineChoice(device="cpu"), pytest.fail, StandInSegmenter)
    engine.confidence = False
    picture = Picture(planes=(np.zeros((4, 4, 3), np.uint8),))
    assert engine.submit(picture, outputs=OUTPUTS).result().confidence is None
