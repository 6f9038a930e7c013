"""When decoding begins again, where, and what is given, with decoders that do what a test says."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace

import av
import pytest
from av.video.frame import PictureType

from bsdnet.stream.losses import Losses
from bsdnet.stream.whole_decoding import decode_whole

NUM_PACKETS = 200
KEYFRAME_EVERY = 10
TYPES = {"I": PictureType.I, "P": PictureType.P, "B": PictureType.B}


class FakeFile:
    """A file and its decoder, which gives for each packet what `decode` does; at the end it gets NUM_PACKETS."""

    name = "fake"

    def __init__(self, decode: Callable[[int], list[SimpleNamespace]], *, corrupt: int = -1) -> None:
        self.decode_number = decode
        self.corrupt = corrupt
        self.decoded: list[int] = []
        self.closed = False
        self.codec_context = SimpleNamespace(options={"a": "b"}, thread_count=0)

    def demux(self, stream: object) -> Iterator[SimpleNamespace]:
        for number in range(NUM_PACKETS):
            is_keyframe = number % KEYFRAME_EVERY == 0
            yield SimpleNamespace(size=1, pts=1000 + number, is_keyframe=is_keyframe, is_corrupt=number == self.corrupt)

    def decode(self, packet: SimpleNamespace | None) -> list[SimpleNamespace]:
        number = NUM_PACKETS if packet is None else packet.pts
        self.decoded.append(number)
        return self.decode_number(number)

    def __enter__(self) -> "FakeFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True


def picture(number: int, kind: str = "P", *, is_corrupt: bool = False) -> SimpleNamespace:
    return SimpleNamespace(pts=number, pict_type=TYPES[kind], is_corrupt=is_corrupt)


def each(number: int) -> list[SimpleNamespace]:
    return [picture(number)] if number < NUM_PACKETS else []


def failing_at(*broken: int) -> Callable[[int], list[SimpleNamespace]]:
    def decode(number: int) -> list[SimpleNamespace]:
        if number in broken:
            raise av.InvalidDataError(1, "broken")
        return each(number)

    return decode


def run(first: FakeFile, second: FakeFile | None = None) -> tuple[list[int], Losses]:
    """The packets whose pictures were given, by their timestamps."""
    losses = Losses(Fraction(1, 25))
    again = (lambda: (second, second)) if second else (lambda: pytest.fail("it was opened again"))
    pictures = decode_whole(first, first, again, losses)
    return [given.pts - 1000 for given in pictures], losses


def test_a_whole_file_is_decoded_once_by_threads_that_bear_nothing():
    whole = FakeFile(each)
    given, losses = run(whole)
    assert given == list(range(NUM_PACKETS))
    assert whole.codec_context.options == {"a": "b", "err_detect": "explode"}
    assert whole.codec_context.thread_count == 0
    assert not losses.damaged


def test_an_error_lets_one_thread_begin_at_a_keyframe_long_before():
    second = FakeFile(failing_at(150, 170))
    given, losses = run(FakeFile(failing_at(150)), second)
    assert given == [number for number in range(NUM_PACKETS) if number not in (150, 170)]
    assert second.decoded[0] == 80, "64 packets may be on their way, and those before need a keyframe"
    assert second.codec_context.thread_count == 1
    assert "err_detect" not in second.codec_context.options
    assert (losses.damaged, losses.count) == (True, 2)
    assert second.closed


def test_what_threads_could_not_decode_is_given_by_one():
    given, losses = run(FakeFile(failing_at(150)), FakeFile(each))
    assert given == list(range(NUM_PACKETS))
    assert losses.count == 0


def test_a_packet_that_is_marked_is_not_decoded_by_threads():
    first = FakeFile(each, corrupt=100)
    given, losses = run(first, FakeFile(each))
    assert given == list(range(NUM_PACKETS))
    assert first.decoded[-1] == 99
    assert losses.damaged


def test_a_picture_that_is_marked_is_replaced_with_those_made_of_it():
    """Two B-pictures are made of the damaged P-picture that is shown after them."""

    def threads(number: int) -> list[SimpleNamespace]:
        kinds = {107: "B", 108: "B", 109: "P"}
        if number not in kinds:
            return each(number)
        return [picture(number, kinds[number], is_corrupt=number == 109)]

    first, second = FakeFile(threads), FakeFile(each)
    given = list(decode_whole(first, first, lambda: (second, second), Losses(Fraction(1, 25))))
    assert [one.pts - 1000 for one in given] == list(range(NUM_PACKETS))
    assert [one.pict_type for one in given[107:110]] == [PictureType.P] * 3, "those of the second decoding"


def test_many_pictures_of_kind_b_do_not_pile_up():
    first = FakeFile(lambda number: [picture(number, "B")] if number < NUM_PACKETS else [])
    losses = Losses(Fraction(1, 25))
    pictures = decode_whole(first, first, lambda: pytest.fail("it was opened again"), losses)
    next(pictures)
    assert len(first.decoded) < 12


def test_packets_at_the_end_that_give_nothing_are_decoded_again():
    first = FakeFile(lambda number: each(number) if number < NUM_PACKETS - 3 else [])
    given, losses = run(first, FakeFile(each))
    assert given == list(range(NUM_PACKETS))
    assert losses.count == 0


def test_packets_that_never_give_a_picture_are_no_damage_in_the_middle():
    """Such as the hidden frames of VP8."""
    given, losses = run(FakeFile(lambda number: [] if number == 50 else each(number)))
    assert given == [number for number in range(NUM_PACKETS) if number != 50]
    assert not losses.damaged
