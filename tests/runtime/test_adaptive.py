"""How the input size is chosen, with a segmenter that is only simulated: its time goes with size and load."""

from collections.abc import Callable

import numpy as np
import pytest

from bsdnet.errors import ConfigError
from bsdnet.runtime.adaptive import SizeController, Switch, size_ladder

LADDER = size_ladder((352, 640))
TARGET_FPS = 30.0
Load = Callable[[int], float]


def relative_time(size: tuple[int, int], fixed: float) -> float:
    """Time at a size, that at the largest being 1; the share `fixed` does not shrink with the input."""
    return fixed + (1 - fixed) * size[0] * size[1] / (LADDER[0][0] * LADDER[0][1])


PIXELS = {size: float(size[0] * size[1]) for size in LADDER}


class Simulation:
    """Frames one after the other; `load` is the time at the largest size as a share of what the target allows.

    The controller believes that time goes with the pixels, while in truth the share `fixed` does not, unless `known`.
    """

    def __init__(
        self,
        load: Load,
        *,
        fixed: float = 0.2,
        known: bool = False,
        noise: float = 0.1,
        paired: bool = False,
        seed: int = 0,
    ):
        costs = {size: 0.02 * relative_time(size, fixed) for size in LADDER} if known else PIXELS
        self.controller = SizeController(costs, TARGET_FPS)
        self.load = load
        self.fixed = fixed
        self.noise = noise
        self.paired = paired
        self.random = np.random.default_rng(seed)
        self.switches: dict[int, Switch] = {}
        self.shares: list[float] = []  # of the time that the target allows, without noise
        self.used: list[tuple[int, int]] = []

    def run(self, frames: int) -> "Simulation":
        for frame in range(len(self.used), len(self.used) + frames):
            size = self.controller.size
            share = self.load(frame) * relative_time(size, self.fixed)
            factor = max(0.2, self.random.normal(1, self.noise))
            if self.paired:  # two at once that end together: the second one after no time at all
                factor *= 2 * (frame % 2)
            if switch := self.controller.record(size, share * factor / TARGET_FPS):
                self.switches[frame] = switch
            self.shares.append(share)
            self.used.append(size)
        return self


def constant(load: float) -> Load:
    return lambda frame: load


def step(before: float, after: float, at: int) -> Load:
    return lambda frame: before if frame < at else after


def test_the_ladder_keeps_the_aspect_ratio_in_multiples_of_32():
    assert LADDER == [(352, 640), (320, 576), (256, 480), (224, 416), (192, 352)]
    assert size_ladder((1024, 2048)) == [(1024, 2048), (896, 1792), (768, 1536), (640, 1280), (512, 1024)]


def test_the_ladder_of_an_upright_frame_stands_upright():
    assert size_ladder((640, 352)) == [(width, height) for height, width in LADDER]


@pytest.mark.parametrize(("largest", "ladder"), [((32, 64), [(32, 64)]), ((64, 64), [(64, 64), (32, 32)])])
def test_small_sizes_have_few_steps(largest: tuple[int, int], ladder: list[tuple[int, int]]):
    assert size_ladder(largest)[0] == largest
    assert size_ladder(largest)[-1] == ladder[-1]
    assert len(set(size_ladder(largest))) == len(size_ladder(largest))


def test_an_odd_size_that_was_asked_for_is_the_first_one():
    assert size_ladder((70, 100))[0] == (70, 100)
    assert all(height % 32 == width % 32 == 0 for height, width in size_ladder((70, 100))[1:])


@pytest.mark.parametrize("load", [0.3, 0.9, 0.96])
def test_what_is_fast_enough_stays_at_the_largest_size(load: float):
    simulation = Simulation(constant(load), noise=0.02).run(2000)
    assert not simulation.switches


@pytest.mark.parametrize("fixed", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("load", [1.1, 1.4, 1.8, 2.4])
def test_it_converges_soon_to_a_size_that_holds_the_target(load: float, fixed: float):
    simulation = Simulation(constant(load), fixed=fixed).run(600)
    reachable = load * relative_time(LADDER[-1], fixed) < 0.97
    assert max(simulation.switches) < 4 * 28 + 4, "each step down takes 28 frames at most"
    if reachable:
        assert simulation.shares[-1] < 1
    else:
        assert simulation.used[-1] == LADDER[-1]


def test_far_too_slow_goes_down_several_sizes_at_once():
    simulation = Simulation(constant(2.0), fixed=0).run(100)
    assert list(simulation.switches) == [27]
    assert simulation.controller.size == LADDER[3]
    assert simulation.switches[27].before == LADDER[0]
    assert simulation.switches[27].capacity_fps == pytest.approx(TARGET_FPS / 2, rel=0.1)


def test_no_smaller_than_needed():
    """The next larger size would not have held the target."""
    for load in (1.2, 1.5, 2.0, 2.5):
        simulation = Simulation(constant(load), fixed=0).run(600)
        larger = LADDER[LADDER.index(simulation.controller.size) - 1]
        assert load * relative_time(larger, 0) > 0.95


@pytest.mark.parametrize(("known", "paired"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(2))
def test_under_a_constant_load_it_never_swings(seed: int, known: bool, paired: bool):
    """Whatever the load, 100 s with 10 % of noise show no size that is left for a larger one."""
    for load in np.arange(0.8, 2.4, 0.1):
        simulation = Simulation(constant(load), seed=seed, known=known, paired=paired).run(3000)
        rises = [switch for switch in simulation.switches.values() if switch.after > switch.before]
        assert len(simulation.switches) <= 3
        assert not rises


def test_costs_that_are_known_find_the_size_at_once():
    """Most of the time is fixed, so that pixels alone would promise too much going down and too little going up."""
    simulation = Simulation(constant(1.3), fixed=0.6, known=True).run(300)
    assert [switch.after for switch in simulation.switches.values()] == [LADDER[4]]
    simulation.load = constant(0.8)
    simulation.run(300)
    assert simulation.controller.size == LADDER[0]


def test_when_the_load_goes_it_returns_to_the_largest_size():
    simulation = Simulation(step(2.0, 0.6, at=300)).run(300)
    assert simulation.controller.size < LADDER[0]
    simulation.run(300)
    assert simulation.controller.size == LADDER[0]
    rises = [frame for frame, switch in simulation.switches.items() if switch.after > switch.before]
    assert 300 < min(rises) <= max(rises) < 300 + 3 * 76


def test_a_larger_size_is_tried_only_with_time_to_spare():
    """0.9 of the time that the target allows at the largest size is not enough to return to it."""
    simulation = Simulation(step(1.5, 0.9, at=300), fixed=0).run(2000)
    assert simulation.controller.size < LADDER[0]
    assert simulation.shares[-1] < 0.9


def test_a_ramp_is_followed_down_and_up_without_swinging():
    simulation = Simulation(lambda frame: 0.7 + 1.4 * (1 - abs(frame - 1500) / 1500)).run(3000)
    directions = [switch.after > switch.before for switch in simulation.switches.values()]
    assert directions == sorted(directions), "first down, then up"
    assert simulation.controller.size == LADDER[0]
    assert np.mean(np.array(simulation.shares) > 1) < 0.06, "too slow only until it is noticed"


def test_one_hiccup_moves_nothing():
    simulation = Simulation(lambda frame: 40.0 if frame in (50, 51, 52) else 0.9, noise=0.02).run(400)
    assert not simulation.switches


def test_a_load_that_comes_and_goes_is_waited_out_longer_and_longer():
    """Each return to a larger size fails, so that the next is tried after twice as many frames."""
    simulation = Simulation(lambda frame: 1.6 if frame % 160 < 50 else 0.6).run(10_000)
    rises = [frame for frame, switch in simulation.switches.items() if switch.after > switch.before]
    assert len(rises) < 16, "62 periods"
    naps = np.diff(rises)
    assert naps[-1] > 4 * naps[0]


def test_a_size_that_is_slower_than_its_pixels_promise_is_not_tried_for_ever():
    """The largest size takes twice what the smaller ones let expect, as when it does not fit a cache."""
    controller = SizeController(PIXELS, TARGET_FPS)
    rises = 0
    for _ in range(20_000):
        busy = 1.4 if controller.size == LADDER[0] else 0.7 * relative_time(controller.size, 0)
        switch = controller.record(controller.size, busy / TARGET_FPS)
        rises += switch is not None and switch.after > switch.before
    assert 15 <= rises <= 22, "it would be 190 if each try came as soon, and 8 if the wait grew for ever"


def test_patience_returns_when_a_larger_size_proves_itself():
    def load(frame: int) -> float:
        if frame < 3000:  # three failures in a row
            return 1.6 if frame % 160 < 50 else 0.6
        return 1.6 if frame % 1000 < 300 else 0.6

    simulation = Simulation(load).run(12_000)
    rises = [frame for frame, switch in simulation.switches.items() if switch.after > switch.before]
    assert max(np.diff([frame for frame in rises if frame < 3000])) > 600
    assert {frame // 1000 for frame in rises if frame >= 9000} == {9, 10, 11}, "in every calm"


def test_frames_of_the_size_before_do_not_count():
    controller = SizeController(PIXELS, TARGET_FPS)
    for _ in range(28):
        switch = controller.record(LADDER[0], 1.5 / TARGET_FPS)
    assert switch is not None
    assert switch.after == controller.size == LADDER[2]
    for _ in range(1000):
        assert controller.record(LADDER[0], 9.0) is None
    assert controller.capacity_fps is None


def test_capacity_is_what_was_measured_lately():
    controller = SizeController(PIXELS, 10)
    for frame in range(500):
        controller.record(LADDER[0], 0.05 if frame < 400 else 0.04)
    assert controller.capacity_fps == pytest.approx(25)


@pytest.mark.parametrize("target_fps", [0, -1, float("nan"), float("inf")])
def test_a_target_that_is_no_rate_is_refused(target_fps: float):
    with pytest.raises(ConfigError, match="target_fps"):
        SizeController(PIXELS, target_fps)


def test_no_sizes_are_refused():
    with pytest.raises(ConfigError, match="sizes"):
        SizeController({}, 30)
