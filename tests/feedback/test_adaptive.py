"""UpDown against transformers' GreedyLR, step by step, and where it differs on purpose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.feedback.play import factors, play
from transformers.optimization import GreedyLR

from stepsize import FieldError
from stepsize.feedback import UpDown

losses = st.lists(
    st.one_of(st.sampled_from([0.5, 0.9, 1.0, 1.1, 2.0]), st.floats(1e-3, 1e3)),
    min_size=1,
    max_size=80,
)
trends = st.builds(
    lambda start, steps: [start + sum(steps[:i]) for i in range(len(steps))],
    st.just(100.0),
    st.lists(st.sampled_from([-1.0, -1.0, -1.0, 0.0, 1.0]), min_size=20, max_size=80),
)
rules = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "threshold": st.sampled_from([0.0, 1e-6, 0.05]),
        "patience": st.integers(0, 4),
        "cooldown": st.integers(0, 3),
        "factor": st.sampled_from([0.5, 0.8, 0.95]),
    }
)


def greedy_factors(values, *, lr=1.0, eps=0.0, **settings_of_peer):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    peer = GreedyLR(optimizer, eps=eps, **settings_of_peer)
    found = []
    for value in values:
        peer.step(value)
        found.append(optimizer.param_groups[0]["lr"] / lr)
    return found


@settings(max_examples=400)
@given(
    rules=rules,
    values=st.one_of(losses, trends),
    up=st.integers(0, 3),
    reset=st.integers(1, 4),
    bounds=st.sampled_from([(0.01, 10.0), (0.5, 1.0), (0.7, 1.5)]),
)
def test_the_same_as_greedy_lr_at_every_observation(rules, values, up, reset, bounds):
    floor, ceiling = bounds
    ours = UpDown(window=None, cooldown_up=up, floor=floor, ceiling=ceiling, reset=reset, **rules)
    assert factors(ours, values) == greedy_factors(
        values, warmup=up, min_lr=floor, max_lr=ceiling, reset_start=reset, **rules
    )


@settings(max_examples=100)
@given(rules=rules, values=st.one_of(trends), window=st.integers(1, 6))
def test_the_same_as_greedy_lr_with_its_streaming_average(rules, values, window):
    rules["threshold"] = 1e-6  # its running sum rounds differently from ours
    ours = UpDown(window=window, floor=0.01, ceiling=10.0, **rules)
    theirs = greedy_factors(
        values, smooth=True, window_size=window, min_lr=0.01, max_lr=10.0, **rules
    )
    assert factors(ours, values) == theirs


def test_pain_27_greedy_lr_at_a_small_rate_can_only_go_up():
    rising = [1.0 + 0.1 * i for i in range(40)]
    assert set(greedy_factors(rising, lr=5e-5, eps=1e-8)) == {1.0}  # ever worse, never lower
    assert factors(UpDown(window=None), rising)[-1] == pytest.approx(0.95**3)


def test_the_ceiling_and_the_floor_hold_silently():
    falling = play(UpDown(factor=0.5, patience=0, window=None), [9.0, 8.0, 7.0, 6.0])
    assert [u.factor for u in falling] == [2.0] * 4
    assert [u.note for u in falling] == [
        "1 observations of the loss each better than the best", "", "", "",
    ]  # fmt: skip
    rising = play(UpDown(factor=0.1, patience=0, window=None, floor=0.05), [1.0, 2.0, 3.0, 4.0])
    assert [u.factor for u in rising] == pytest.approx([2.0, 0.2, 0.05, 0.05])
    assert not rising[-1].note


def test_it_begins_anew_after_reductions_in_vain():
    found = play(UpDown(factor=0.1, patience=0, window=None, floor=0.1, reset=3), [1.0] * 6)
    assert [u.factor for u in found] == pytest.approx([2.0, 0.2, 0.1, 0.1, 1.0, 2.0])
    assert found[4].note == "3 reductions at the floor: begin anew"


def test_a_pause_passes_observations_over():
    values = [5.0, 9.0, 9.0, 9.0, 1.0, 9.0]
    found = factors(UpDown(factor=0.5, patience=0, window=None, cooldown=3, ceiling=1), values)
    assert found == [1.0, 0.5, 0.5, 0.5, 0.5, 0.25]  # the 1.0 was not noted as the best


def test_an_ema_takes_the_place_of_the_window():
    with pytest.raises(FieldError, match="UpDown.window must be None where ema is given, got 50"):
        UpDown(ema=0.9)
    assert UpDown(ema=0.9, window=None).init()["weight"] == 0.0
