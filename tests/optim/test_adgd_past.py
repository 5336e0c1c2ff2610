"""What AdGD keeps between steps: where it may keep it without a copy, and what it may not trust."""

import copy
import weakref

import pytest
import torch
from tests.optim.test_adgd import (
    CURVATURES,
    START,
    compare,
    loss_of,
    slope,
    split,
    transcribed,
    walk,
)

from stepsize.optim import AdGD

TOLD = [*transcribed(slope, START, 12, rule="adgd", first=0.01)]


def made(**options):
    params = split(START, 1)
    return params, AdGD(params, **{"initial_step": 0.01, **options})


def kept(optimizer, p):
    return optimizer.state[p]["previous_gradient"]


def loss_apart(params):
    """Give the loss so that every gradient has memory of its own; that of `cat` is cut in two."""
    curvatures = torch.tensor(CURVATURES).split([len(p) for p in params])
    parts = zip(curvatures, params, strict=True)
    return sum((c * p.cosh().log() + 0.05 * p * p).sum() for c, p in parts)


def run(optimizer, params, steps, *, to_none=True, after=lambda: None):
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=to_none)
        loss_apart(params).backward()
        optimizer.step()
        after()
        yield optimizer.sizes_of(params[0]), torch.cat([p.detach() for p in params]).numpy()


def one_more(optimizer, params):
    [(size, _)] = run(optimizer, params, 1)
    return size


def test_new_gradients_are_kept_where_they_are():
    params, optimizer = made()
    [*run(optimizer, params, 1)]
    assert kept(optimizer, params[0]) is not params[0].grad  # not known yet
    [*run(optimizer, params, 1)]
    assert all(kept(optimizer, p) is p.grad for p in params)
    assert "previous_parameter" not in optimizer.state[params[0]]
    assert optimizer.param_groups[0]["gradients"] == "fresh"


def test_gradients_in_the_same_memory_are_copied():
    params, optimizer = made()
    compare(run(optimizer, params, 12, to_none=False), TOLD)
    assert kept(optimizer, params[0]) is not params[0].grad
    assert optimizer.param_groups[0]["gradients"] == "reused"


def test_gradients_that_share_a_bucket_are_copied():
    params, optimizer = made()
    bucket = torch.zeros(4, dtype=torch.float64)
    found = []
    for _ in range(12):
        optimizer.zero_grad()
        bucket.copy_(torch.tensor(slope(torch.cat([p.detach() for p in params]).numpy())))
        params[0].grad, params[1].grad = bucket[:1], bucket[1:]
        optimizer.step()
        found.append((optimizer.sizes_of(params[0]), torch.cat(params).detach().numpy()))
    compare(found, TOLD)


def test_a_bucket_of_one_is_found_out_one_step_late():
    [w] = [torch.tensor(START).requires_grad_()]
    optimizer = AdGD([w], initial_step=0.01)
    bucket = torch.zeros(4, dtype=torch.float64)
    sizes = []
    for _ in range(12):
        optimizer.zero_grad()
        bucket.copy_(torch.tensor(slope(w.detach().numpy())))
        w.grad = bucket.view(4)
        optimizer.step()
        sizes.append(optimizer.sizes_of(w))
    held = [k for k in range(2, 12) if sizes[k] == sizes[k - 1]]
    assert len(held) <= 1
    assert optimizer.param_groups[0]["gradients"] == "reused"


def test_a_gradient_that_is_written_over_later_costs_one_measurement():
    params, optimizer = made()
    before = [*run(optimizer, params, 5)][-1][0]
    for p in params:
        p.grad.zero_()  # which is the kept one
    found = [*run(optimizer, params, 6)]
    assert found[0][0] == before
    assert optimizer.param_groups[0]["gradients"] == "reused"
    assert found[1][0] != found[0][0]
    [*run(optimizer, params, 20)]
    assert loss_of(torch.cat(params)) < 1e-3


def test_what_is_kept_keeps_no_graph_alive():
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w])
    for _ in range(3):
        inner = w * 2
        seen = weakref.ref(inner)
        [w.grad] = torch.autograd.grad(inner.square().sum(), w, create_graph=True)
        optimizer.step()
        del inner
        optimizer.zero_grad()
        assert seen() is None
    assert optimizer.param_groups[0]["gradients"] == "fresh"


def projected(params):
    with torch.no_grad():
        for p in params:
            p.clamp_(min=-1.2)


def test_a_projection_is_seen_and_from_then_on_measured():
    def found(**options):
        params, optimizer = made(**options)
        return optimizer, [*run(optimizer, params, 12, after=lambda: projected(params))]

    (blind, late), (told, right) = found(), found(exact_displacement=True)
    assert late[1][0] == 0.01  # the way of the first step is not known
    assert blind.param_groups[0]["exact_displacement"]
    assert [size for size, _ in late[2:]] != [0.01] * 10
    x, before, g, size, theta = START, None, None, 0.01, float("inf")
    for chosen, place in right:
        now = slope(x)
        if before is not None:
            curvature = sum((now - g) ** 2) ** 0.5 / sum((x - before) ** 2) ** 0.5
            new = min((1 + theta) ** 0.5 * size, 0.5 / curvature)
            theta, size = new / size, new
        before, g = x, now
        x = (x - size * now).clip(min=-1.2)
        assert chosen == pytest.approx(size, rel=1e-12)
        torch.testing.assert_close(place, x, rtol=1e-12, atol=1e-12)
    assert told.state_dict()["state"][0].keys() == {"previous_gradient", "previous_parameter"}


@pytest.mark.parametrize("disturb", ["place", "gradient"])
@pytest.mark.parametrize("way", ["file", "copy"])
def test_what_was_disturbed_before_saving_is_disturbed_after(disturb, way):
    params, optimizer = made()

    def after():
        if disturb == "place":
            projected(params)
        else:
            params[0].grad.neg_()

    [*run(optimizer, params, 4, after=after)]
    if way == "file":
        others, again = made()
        for p, other in zip(params, others, strict=True):
            other.data.copy_(p.data)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        others, again = copy.deepcopy((params, optimizer))
    compare(run(optimizer, params, 6), run(again, others, 6))


def test_values_put_in_place_and_back_again_cost_one_measurement():
    """As where an average is evaluated."""
    params, optimizer = made()
    before = [*run(optimizer, params, 4)][-1][0]
    held = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, value in zip(params, held, strict=True):
            p.zero_()
            p.copy_(value)
    assert one_more(optimizer, params) == before
    with torch.no_grad():
        for p in params:
            p.copy_(p.clone())
    assert one_more(optimizer, params) != before  # now places are compared


def test_what_has_no_gradient_for_a_while_is_left_out():
    params, optimizer = made()
    options = {"initial_step": 0.01}
    [*run(optimizer, params, 3)]
    params[0].requires_grad_(False)
    alone = torch.tensor(CURVATURES[1:])
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        w = params[1]
        (alone * w.cosh().log() + 0.05 * w * w).sum().backward()
        optimizer.step()
        seen.append(optimizer.sizes_of(w))
    assert optimizer.param_groups[0]["exact_displacement"]
    assert options["initial_step"] < min(seen)
    assert len(set(seen[1:])) == 3
    params[0].requires_grad_(True)
    [*run(optimizer, params, 20)]
    assert loss_of(torch.cat(params)) < 1e-3


def test_low_precision_is_measured_where_it_really_went():
    w = torch.full((64,), 4.0, dtype=torch.bfloat16, requires_grad=True)
    optimizer = AdGD([w], initial_step=0.3)
    for _ in range(2):
        optimizer.zero_grad()
        (0.5 * w.float().square()).sum().backward()
        optimizer.step()
    assert optimizer.param_groups[0]["exact_displacement"]
    assert optimizer.sizes_of(w) == pytest.approx(0.5, rel=1e-6)  # 1/(2L), to float32
    assert optimizer.state[w]["previous_gradient"].dtype == torch.bfloat16


def test_large_tensors_are_cut_and_any_order_in_memory_is_the_same():
    shape = (3, 64, 40, 40)
    gradients = [torch.randn(shape, generator=torch.manual_seed(0)) for _ in range(4)]
    found = []
    for way in (torch.contiguous_format, torch.channels_last):
        for foreach in (True, False):
            x = torch.zeros(shape).contiguous(memory_format=way).requires_grad_()
            optimizer = AdGD([x], foreach=foreach)
            for g in gradients:
                x.grad = g.contiguous(memory_format=way).clone()
                optimizer.step()
            found.append((x.detach(), optimizer.sizes_of(x)))
    for x, size in found[1:]:
        assert size == pytest.approx(found[0][1], rel=1e-5)
        torch.testing.assert_close(x, found[0][0], rtol=1e-5, atol=1e-7)


def test_a_reloaded_state_of_the_same_optimizer_is_trusted():
    params, optimizer = made()
    compare(run(optimizer, params, 4), TOLD[:4])
    held = copy.deepcopy(([p.detach() for p in params], optimizer.state_dict()))
    [*run(optimizer, params, 3)]
    for p, value in zip(params, held[0], strict=True):
        p.data.copy_(value)
    optimizer.load_state_dict(held[1])
    compare(run(optimizer, params, 8), TOLD[4:])


def test_the_way_is_that_of_the_transcription_with_walk_too():
    params, optimizer = made()
    compare(walk(optimizer, params, loss_of, 12), TOLD)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, {"previous_gradient"}),
        ({"weight_decay": 0.1}, {"previous_gradient", "previous_parameter"}),
        ({"stochastic": True, "initial_step": 0.2}, {"previous_parameter"}),
        ({"accelerated": True}, {"previous_gradient", "previous_parameter", "descended"}),
    ],
)
def test_a_step_that_lays_out_the_state_is_none(options, names):
    """torch.distributed.checkpoint takes one, with zeros as gradients and a rate of 0."""
    found = []
    for laid in (True, False):
        params, optimizer = made(**options)
        if laid:
            for p in params:
                p.grad = torch.zeros_like(p)
            optimizer.param_groups[0]["lr"] = 0.0
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 1.0
            assert {*optimizer.state[params[0]]} == names
            assert optimizer.sizes_of(params[0]) is None
        courses = []
        for _ in range(8):

            def closure(params=params, optimizer=optimizer):
                optimizer.zero_grad()
                loss = loss_apart(params)
                loss.backward()
                return loss

            optimizer.step(closure)
            courses.append((optimizer.sizes_of(params[0]), *(p.detach().clone() for p in params)))
        found.append(courses)
    for one, other in zip(*found, strict=True):
        assert one[0] == other[0]
        assert all(map(torch.equal, one[1:], other[1:]))


def test_only_own_parameters_have_a_step_size():
    params, optimizer = made()
    [*run(optimizer, params, 1)]
    assert optimizer.sizes_of(torch.zeros(3)) is None
