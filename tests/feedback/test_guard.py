"""SpikeGuard: what it must see, and what it must not."""

import math
import random

import pytest
from tests.feedback.play import factors, play

from stepsize.feedback import SpikeGuard

NAN, INF = math.nan, math.inf
STEPS = 10_000


def falling(t):
    return 2.0 + 8.0 * (1.0 + t / 50.0) ** -0.5


def student(rng):
    return max(-10.0, min(10.0, rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3)))


# Each gives the loss at t.
CALM = {
    "normal noise": lambda t, rng: falling(t) * (1 + 0.05 * rng.gauss(0, 1)),
    "uniform noise of half the loss": lambda t, rng: falling(t) * rng.uniform(0.5, 1.5),
    "heavy tails, bounded": lambda t, rng: falling(t) * (1 + 0.05 * student(rng)),
    "exponential, as batches of one": lambda t, rng: falling(t) * rng.expovariate(1),
    "lognormal": lambda t, rng: falling(t) * math.exp(0.5 * rng.gauss(0, 1)),
    "no noise": lambda t, rng: falling(t),
    "rounding at convergence": lambda t, rng: 1e-12 * (1 + 1e-3 * rng.random()),
    "negative": lambda t, rng: falling(t) - 20 + 0.3 * rng.gauss(0, 1),
    "around zero": lambda t, rng: rng.gauss(0, 1),
    "the first loss high": lambda t, rng: 500.0 if t == 0 else 2 + 0.1 * rng.gauss(0, 1),
    "a slow rise": lambda t, rng: 2 + t / STEPS + 0.05 * rng.gauss(0, 1),
    "a step down": lambda t, rng: (4 if t < STEPS / 2 else 2) + 0.1 * rng.gauss(0, 1),
    "single outliers": lambda t, rng: (3 if t % 50 == 49 else 1) * (2 + 0.1 * rng.gauss(0, 1)),
}


@pytest.mark.parametrize("name", CALM)
def test_an_ordinary_run_is_left_alone(name):
    for seed in range(2):
        rng = random.Random(seed)  # noqa: S311 (noise)
        losses = [CALM[name](t, rng) for t in range(STEPS)]
        assert set(factors(SpikeGuard(), losses)) == {1.0}


def noisy(level, count, seed=0):
    rng = random.Random(seed)  # noqa: S311 (noise)
    return [level * (1 + 0.02 * rng.gauss(0, 1)) for _ in range(count)]


def cuts(updates):
    return [t for t, update in enumerate(updates) if update.note.startswith("the loss was")]


def test_a_spike_is_cut_at_its_second_loss_and_recovered_from():
    updates = play(SpikeGuard(), noisy(2, 300) + noisy(4, 5) + noisy(2, 300, 1))
    assert cuts(updates) == [301]
    assert updates[301].note.startswith("the loss was 3.88")
    assert ", above 2." in updates[301].note
    found = [u.factor for u in updates]
    assert set(found[301:312]) == {0.5}  # held for 10 observations
    assert found[361] == pytest.approx(0.5**0.5)  # half of the 100 observations back
    assert found[410] < 1.0
    assert found[411:] == [1.0] * (len(found) - 411)
    assert updates[411].note == "recovered"
    assert [t for t, u in enumerate(updates) if u.note] == [301, 411]


def test_the_way_back_can_be_linear():
    updates = play(SpikeGuard(along="linear"), [*noisy(2, 300), NAN, *noisy(2, 120, 1)])
    assert updates[300].note == "the loss was nan"
    assert updates[360].factor == pytest.approx(0.75)
    assert updates[410].factor == 1.0


@pytest.mark.parametrize("broken", [NAN, INF, -INF, 1e101, 1e300])
def test_what_is_no_loss_cuts_at_once_even_at_the_start(broken):
    updates = play(SpikeGuard(cold=100), [broken, 2.0])
    assert [u.factor for u in updates] == [0.5, 0.5]
    assert all(math.isfinite(x) for x in updates[-1].state.values())


def test_repeated_spikes_cut_down_to_the_floor_and_no_further():
    updates = play(SpikeGuard(cooldown=0, floor=0.1), [2.0] * 5 + [NAN] * 6)
    assert [u.factor for u in updates[5:]] == [0.5, 0.25, 0.125, 0.1, 0.1, 0.1]
    assert [bool(u.note) for u in updates[5:]] == [True] * 4 + [False] * 2


def test_a_spike_on_the_way_back_cuts_what_was_reached():
    losses = [2.0] * 5 + [NAN] + [2.0] * 60 + [NAN] + [2.0] * 200
    found = factors(SpikeGuard(), losses)
    assert found[65] == pytest.approx(0.5**0.5)
    assert found[66] == pytest.approx(0.5**1.5)
    assert found[176] == 1.0


def test_a_level_that_stays_higher_becomes_the_usual_one():
    updates = play(SpikeGuard(), noisy(2, 500) + noisy(6, 500, 1))
    assert len(cuts(updates)) <= 2
    assert max(cuts(updates)) < 530
    assert updates[-1].factor == 1.0


def test_one_outlier_is_no_spike_unless_asked():
    losses = [*noisy(2, 300), 50.0, *noisy(2, 50, 1)]
    assert set(factors(SpikeGuard(), losses)) == {1.0}
    assert cuts(play(SpikeGuard(consecutive=1), losses)) == [300]


def test_it_only_learns_while_it_is_cold():
    losses = noisy(2, 20) + noisy(20, 5)
    assert factors(SpikeGuard(cold=100), losses)[-1] == 1.0
    assert cuts(play(SpikeGuard(cold=20), losses)) == [21]


def test_a_rise_too_small_to_matter_is_none():
    losses = [2.0] * 300 + [2.1] * 5  # infinitely many deviations, and 5 %
    assert factors(SpikeGuard(), losses)[-1] == 1.0
    assert factors(SpikeGuard(rise=0.01), losses)[-1] == 0.5


def test_the_first_loss_is_never_high():
    assert factors(SpikeGuard(cold=0, consecutive=1), [2.0, 2.0, 9.0]) == [1.0, 1.0, 0.5]


def test_high_losses_during_the_pause_do_not_count():
    guard = SpikeGuard(cold=5, cooldown=2, consecutive=2, sigmas=0.1)
    found = factors(guard, [2.0] * 5 + [4.0, 8.0] + [16.0, 32.0] + [64.0, 128.0])
    assert found[5:] == [1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_the_way_back_starts_at_the_floor_and_waits_at_a_high_loss():
    guard = SpikeGuard(cut=0.01, floor=0.25, cooldown=0, recover=2, cold=5)
    found = factors(guard, [2.0] * 5 + [NAN, 9.0, 2.0, 9.0, 2.0])
    assert found[5:] == [0.25, 0.25, 0.5, 0.5, 1.0]
