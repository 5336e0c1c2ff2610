"""What a scheduler says about how it is driven: once, with cause and cure; where it is quiet."""

import copy
import itertools
import warnings

import pytest
import torch
from torch import nn

from stepsize import Constant, Cosine, Exponential, Horizon, Linear, MultiStep, Warmup, one_cycle
from stepsize.feedback import Plateau, PlateauCooldown, SpikeGuard
from stepsize.torch import Scheduler, StepsizeWarning, guards


def sgd(*lrs, **fields):
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in lrs or (0.1,)]
    return torch.optim.SGD(groups, **{"lr": 0.1, "momentum": 0.9, **fields})


def train(optimizer, scheduler, steps, *, calls=1, every=1):
    """Step the optimizer; after every so many steps call the scheduler so many times."""
    for step in range(1, steps + 1):
        optimizer.step()
        if step % every == 0:
            for _ in range(calls):
                scheduler.step()


def said(run):
    """Everything that a run's guards say."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    others = [w for w in caught if not issubclass(w.category, StepsizeWarning)]
    assert not others, others[0].message
    return [str(w.message) for w in caught]


def the_only(texts, *parts):
    (text,) = texts
    for part in parts:
        assert part in text
    return text


def test_a_guard_warns_as_a_user_warning():
    assert issubclass(StepsizeWarning, UserWarning)
    optimizer = sgd()
    with pytest.warns(StepsizeWarning, match="^Scheduler: the schedule was over"):
        train(optimizer, Scheduler(optimizer, lr=Cosine(10)), 30)


# Past the end -------------------------------------------------------------------------------------


def test_past_the_end_in_plain_numbers_epochs_are_suspected():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(90, stop=0.1))
    the_only(
        said(lambda: train(optimizer, scheduler, 500)),
        "the schedule was over at step 90 and training is at step 100",
        "the rate staying at 0.01",  # the fact
        "epochs",  # the likely cause
        "90ep",  # and its cure
        "Constant",  # the other cure
    )


def test_past_the_end_of_many_steps_epochs_are_not_suspected():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(2000))
    text = the_only(
        said(lambda: train(optimizer, scheduler, 3000)),
        "the schedule was over at step 2000 and training is at step 2105",
        "Constant",
    )
    assert "ep'" not in text


def test_past_the_end_with_a_horizon_its_numbers_are_doubted():
    optimizer = sgd(0.1, 0.2)
    horizon = Horizon("2ep", batches_per_epoch=100)
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(stop=0.5), horizon=horizon)
    the_only(
        said(lambda: train(optimizer, scheduler, 500)),
        "was over at step 200 and training is at step 215",
        "the rate staying at 0.05, 0.1",
        "planned for Horizon('2ep', batches_per_epoch=100)",
        "accumulate=",
        "replicas=",
        "extend(total)",
    )


def test_past_the_end_of_a_horizon_in_tokens_the_step_is_told():
    optimizer = sgd()
    horizon = Horizon("1e5 tok", batch_size=10, tokens_per_sample=100)
    scheduler = Scheduler(optimizer, lr=Linear("1e5 tok"), horizon=horizon)
    the_only(said(lambda: train(optimizer, scheduler, 300)), "was over at step 100 ", "Horizon")


def test_after_a_cooldown_training_can_stop():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Constant(), horizon=Horizon(1000))

    def run():
        train(optimizer, scheduler, 200)
        scheduler.cool_down(100)
        train(optimizer, scheduler, 300)

    text = the_only(said(run), "cooldown was over at step 300", "can stop", "scheduler.finished")
    assert "horizon" not in text
    assert scheduler.finished


@pytest.mark.parametrize("follow", [False, True])
def test_past_the_end_is_said_once_however_long_training_goes_on(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(50), follow=follow)
    the_only(said(lambda: train(optimizer, scheduler, 1000, calls=0 if follow else 3)))


def test_an_extended_run_that_is_too_short_again_is_said_again():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=Horizon(100))

    def run():
        train(optimizer, scheduler, 90)
        scheduler.extend(200)
        train(optimizer, scheduler, 110)
        assert scheduler.at(199)["lr"] != [0.0]
        train(optimizer, scheduler, 100)

    the_only(said(run), "was over at step 200")


# Never driven -------------------------------------------------------------------------------------


def test_nobody_calls_step():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(200))
    the_only(
        said(lambda: train(optimizer, scheduler, 1000, calls=0)),
        "the optimizer has made 101 steps and scheduler.step() was never called",
        "so the lr is still 0.1",
        "call it after optimizer.step()",
        "follow=True",
    )


def test_nobody_calls_step_and_the_rate_stays_at_the_warmups_first():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=1e-3)
    horizon = Horizon("3ep", batches_per_epoch=1000)
    scheduler = Scheduler(optimizer, lr=Warmup("10%") >> Cosine(), horizon=horizon)
    the_only(
        said(lambda: train(optimizer, scheduler, 3000, calls=0)),
        "never called, so the lr is still 3.32226e-06",
    )


def test_nobody_calls_step_and_only_a_momentum_is_scheduled():
    optimizer = sgd()
    momentum = Linear(100, start=0.95, stop=0.5).absolute()
    scheduler = Scheduler(optimizer, lr=Constant(150) >> Linear(50), momentum=momentum)
    the_only(said(lambda: train(optimizer, scheduler, 200, calls=0)), "the momentum is still 0.95")


def test_nobody_calls_step_and_the_schedule_has_no_end(monkeypatch):
    monkeypatch.setattr(guards, "_ENDLESS", 50.0)  # else 100,000 steps
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Warmup(10) >> Exponential(0.99))
    the_only(
        said(lambda: train(optimizer, scheduler, 100, calls=0)), "51 steps", "was never called"
    )


# Controllers that see nothing ---------------------------------------------------------------------


def test_a_controller_of_a_metric_without_metrics():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(200), feedback=Plateau())
    the_only(
        said(lambda: train(optimizer, scheduler, 200)),
        "Plateau has seen no metric in 100 steps, so it does nothing yet",
        "call scheduler.step(metric) after every evaluation",
        "Lightning: monitor=",
        "transformers: eval_strategy= and metric_for_best_model=",
    )


def test_a_controller_of_the_loss_without_losses():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(200), feedback=SpikeGuard())
    the_only(
        said(lambda: train(optimizer, scheduler, 200)),
        "SpikeGuard has seen no loss in 100 steps, so it does nothing yet",
        "call scheduler.observe(loss) after every step",
    )


def test_two_controllers_of_which_one_sees_nothing():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(200), feedback=[SpikeGuard(), Plateau()])

    def run():
        for _ in range(200):
            optimizer.step()
            scheduler.observe(1.0)
            scheduler.step()

    text = the_only(said(run), "has seen no metric")
    assert "SpikeGuard" not in text


def test_two_controllers_of_a_metric_are_one_warning():
    optimizer = sgd()
    feedback = [Plateau(), PlateauCooldown()]
    scheduler = Scheduler(optimizer, lr=Linear(200), feedback=feedback)
    the_only(said(lambda: train(optimizer, scheduler, 200)), "Plateau and PlateauCooldown ha")


# Counting calls -----------------------------------------------------------------------------------


def test_calls_are_counted_and_there_are_several_for_a_step():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(1000), counts="calls")
    the_only(
        said(lambda: train(optimizer, scheduler, 100, calls=4)),
        "step() was called 20 times for 5 optimizer steps",
        'counts="calls"',
        "the schedule runs ahead",
        "accumulated batches",
        "once per process",
        'remove counts="calls": optimizer steps are then counted',
    )


def test_calls_are_counted_per_batch_though_batches_are_accumulated():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(1000), counts="calls")

    def run():
        for batch in range(1, 101):
            if batch % 4 == 0:
                optimizer.step()
            scheduler.step()

    the_only(said(run), "step() was called 20 times for 5 optimizer steps", "accumulated batches")


def test_calls_are_counted_once_per_epoch_though_the_horizon_is_in_steps():
    optimizer = sgd()
    horizon = Horizon("90ep", batches_per_epoch=50)
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=horizon, counts="calls")
    the_only(
        said(lambda: train(optimizer, scheduler, 90 * 50, every=50)),
        "times for ",
        "the schedule of 4500 steps will not come to its end",
        "once per epoch",
        'remove counts="calls"',
    )


def test_it_is_said_too_where_a_run_has_few_epochs():
    optimizer = sgd()
    horizon = Horizon("5ep", batches_per_epoch=50)
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=horizon, counts="calls")
    the_only(
        said(lambda: train(optimizer, scheduler, 250, every=50)),
        "the schedule of 250 steps will not come to its end",
    )


def test_what_was_said_is_not_said_again_after_a_change_of_plan():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=Horizon(4000), counts="calls")

    def run():
        train(optimizer, scheduler, 100, calls=4)
        scheduler.extend(5000)
        train(optimizer, scheduler, 100, calls=4)

    the_only(said(run), "step() was called 20 times")

    optimizer = sgd()
    followed = Scheduler(optimizer, lr=Linear("rest"), horizon=Horizon(100), feedback=Plateau())

    def unseen():
        train(optimizer, followed, 70)
        followed.extend(400)
        train(optimizer, followed, 320)

    the_only(said(unseen), "Plateau has seen no metric")


# Where nothing is wrong ---------------------------------------------------------------------------


def quiet(run):
    assert said(run) == []


def test_a_gan_with_two_optimizers_and_two_schedulers():
    """The discriminator makes five steps for each of the generator's."""
    generator, discriminator = sgd(), sgd()
    one = Scheduler(generator, lr=Linear(200))
    two = Scheduler(discriminator, lr=Linear(1000))

    def run():
        for _ in range(200):
            train(discriminator, two, 5)
            train(generator, one, 1)

    quiet(run)
    assert one.finished
    assert two.finished


def test_a_gan_with_one_scheduler_for_both():
    generator, discriminator = sgd(), sgd()
    scheduler = Scheduler([generator, discriminator], lr=Linear(200))

    def run():
        for step in range(1000):
            discriminator.step()
            if step % 5 == 4:
                generator.step()
            scheduler.step()

    quiet(run)
    assert scheduler.finished


def test_a_gan_whose_discriminator_starts_late():
    generator, discriminator = sgd(), sgd()
    one, two = Scheduler(generator, lr=Linear(300)), Scheduler(discriminator, lr=Linear(100))

    def run():
        train(generator, one, 200)
        for _ in range(100):
            train(generator, one, 1)
            train(discriminator, two, 1)

    quiet(run)


def test_a_closure_optimizer():
    p = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.LBFGS([p], lr=0.1, max_iter=20)
    scheduler = Scheduler(optimizer, lr=Linear(60))

    def closure():
        optimizer.zero_grad()
        loss = (p**4).sum()
        loss.backward()
        return loss

    def run():
        for _ in range(60):
            optimizer.step(closure)
            scheduler.step()

    quiet(run)


@pytest.mark.parametrize("counts", ["steps", "calls"])
def test_episodes_of_variable_length(counts):
    """Reinforcement learning: some steps per episode, one call per episode or per step."""
    lengths = itertools.cycle([3, 17, 1, 40, 9])
    optimizer = sgd()
    over = 1000 if counts == "steps" else 70
    scheduler = Scheduler(optimizer, lr=Linear(over), counts=counts)

    def run():
        for _ in range(70):
            for _ in range(next(lengths)):
                optimizer.step()
            scheduler.step()

    quiet(run)
    assert scheduler.last_epoch == (980 if counts == "steps" else 70)


@pytest.mark.parametrize("counts", ["steps", "calls"])
@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("steps", [10, 20])
def test_a_dry_run_before_training_is_resumed(steps, calls, counts):
    """A profile of some steps, with or without the scheduler; then a checkpoint is loaded."""

    def made():
        optimizer = sgd()
        fields = {"horizon": Horizon(400), "counts": counts}
        return optimizer, Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), **fields)

    optimizer, scheduler = made()
    train(optimizer, scheduler, 100)
    states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, resumed = made()

    def run():
        train(optimizer, resumed, steps, calls=calls)
        optimizer.load_state_dict(states[0])
        resumed.load_state_dict(states[1])
        train(optimizer, resumed, 300)

    quiet(run)
    assert resumed.last_epoch == 400


def test_a_dry_run_of_a_short_schedule():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(10))
    quiet(lambda: train(optimizer, scheduler, 10, calls=0))


@pytest.mark.parametrize("epochs", [2, 3, 90])
def test_one_call_per_epoch(epochs):
    optimizer = sgd()
    horizon = Horizon(f"{epochs}ep", batches_per_epoch=50)
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=horizon)
    quiet(lambda: train(optimizer, scheduler, 50 * epochs, every=50))
    assert scheduler.finished


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_loop_as_lightning_makes_it(accumulate):
    """Accumulation, metrics at the end of epochs, a state saved each time."""
    optimizer = sgd()
    horizon = Horizon("10ep", batches_per_epoch=23, accumulate=accumulate)
    feedback = Plateau(patience=100, after="5%")
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=horizon,
                          feedback=feedback)  # fmt: skip

    def run():
        for _ in range(10):
            for batch in range(1, 24):
                if batch % accumulate == 0 or batch == 23:
                    optimizer.step()
                    scheduler.step()
            scheduler.step(torch.tensor(1.0))
            scheduler.state_dict()

    quiet(run)
    assert scheduler.finished


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(50, stop=0.1) >> Constant(value=0.1),
        Warmup(10) >> Constant(),
        Warmup(10) >> Exponential(0.999),
        MultiStep((30, 60)),
        Constant(),
    ],
    ids=str,
)
@pytest.mark.parametrize("calls", [1, 3])
def test_a_schedule_without_an_end(schedule, calls):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=schedule)
    quiet(lambda: train(optimizer, scheduler, 2000, calls=calls))


def test_a_run_whose_end_is_not_announced_yet():
    optimizer = sgd()
    tree = Warmup(10) >> Constant("rest") >> Linear("20%")
    scheduler = Scheduler(optimizer, lr=tree, horizon=Horizon(open_end=True))

    def run():
        train(optimizer, scheduler, 500)
        scheduler.extend(600)
        train(optimizer, scheduler, 100)

    quiet(run)
    assert scheduler.finished


@pytest.mark.parametrize("left", [1, 5, 20])
@pytest.mark.parametrize("counts", ["steps", "calls"])
def test_a_run_that_is_resumed_near_its_end(left, counts):
    def made():
        optimizer = sgd()
        return optimizer, Scheduler(optimizer, lr=Linear(200), counts=counts)

    optimizer, scheduler = made()
    train(optimizer, scheduler, 200 - left)
    state = scheduler.state_dict()
    optimizer, resumed = made()

    def run():
        resumed.load_state_dict(state)
        train(optimizer, resumed, left)

    quiet(run)
    assert resumed.finished


def test_a_run_that_is_resumed_at_its_end_to_be_evaluated():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(100))
    train(optimizer, scheduler, 100)
    other = sgd()
    resumed = Scheduler(other, lr=Linear(100))

    def run():
        resumed.load_state_dict(scheduler.state_dict())
        resumed.step()

    quiet(run)


def test_a_few_steps_more_than_planned():
    """A partial batch more per epoch is nobody's mistake."""
    optimizer = sgd()
    horizon = Horizon("10ep", batches_per_epoch=50)
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=horizon)
    quiet(lambda: train(optimizer, scheduler, 510))


@pytest.mark.parametrize("horizon", [None, Horizon(90)])
def test_calls_are_counted_once_per_epoch_and_the_schedule_is_in_epochs(horizon):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(90), counts="calls", horizon=horizon)
    quiet(lambda: train(optimizer, scheduler, 90 * 50, every=50))
    assert scheduler.finished


def test_calls_are_counted_and_there_is_one_for_each_step():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(), counts="calls", horizon=Horizon(200))
    quiet(lambda: train(optimizer, scheduler, 200))


def test_calls_are_counted_in_a_dry_loop():
    scheduler = Scheduler(sgd(), lr=Cosine(200), counts="calls")
    quiet(lambda: [scheduler.step() for _ in range(200)])


def test_many_calls_per_step_are_harmless():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, one_cycle(100))
    quiet(lambda: train(optimizer, scheduler, 100, calls=8))


def test_following_nobody_has_to_call_step():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(200), follow=True)
    quiet(lambda: train(optimizer, scheduler, 200, calls=0))
    assert optimizer.param_groups[0]["lr"] == 0.0


def evaluated(first, **fields):
    """Train 200 steps; evaluate every 20 steps from `first` on."""
    optimizer = sgd()
    plateau = Plateau(patience=100, **fields)
    scheduler = Scheduler(optimizer, lr=Linear("rest"), horizon=Horizon(200), feedback=plateau)
    for step in range(1, 201):
        optimizer.step()
        scheduler.step()
        if step >= first and step % 20 == 0:
            scheduler.step(1.0)


def test_evaluation_late_in_the_run():
    quiet(lambda: evaluated(first=80))


def test_evaluation_as_late_as_a_controller_looks():
    quiet(lambda: evaluated(first=140, after="70%"))


def test_a_schedule_that_stands_still_for_long():
    """Nobody calls step(), and nothing would have changed yet."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Constant(150) >> Linear(50))
    quiet(lambda: train(optimizer, scheduler, 150, calls=0))


def test_a_schedule_over_wall_clock_time():
    now = [0.0]
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear("1h"), horizon=Horizon("1h"), clock=lambda: now[0])

    def run():
        for _ in range(500):
            now[0] += 30.0
            train(optimizer, scheduler, 1)

    quiet(run)
