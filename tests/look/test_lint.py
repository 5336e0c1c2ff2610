"""Every rule of the lint: what it must find, the near miss it must not, and the cure it gives."""

import dataclasses
import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import trees

from stepsize import (
    Constant,
    Cosine,
    Exponential,
    FieldError,
    Finding,
    Horizon,
    Linear,
    MultiStep,
    Piecewise,
    Plan,
    Polynomial,
    PowerLaw,
    Resumed,
    Step,
    UnitError,
    Warmup,
    check,
    cyclic,
    eight_one_one,
    half_life,
    infinite,
    inverse_sqrt,
    inverse_time,
    noam,
    one_cycle,
    parse,
    sgdr,
    slanted_triangular,
    trapezoid,
    untuned_warmup,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    warmup_step,
    wsd,
    wsd_s,
)
from stepsize.lint.check import RULES
from stepsize.look.entries import Entry

RUN = Horizon("90ep", batches_per_epoch=391)
GPT3 = Horizon("300e9tok", batch_size=1536, tokens_per_sample=2048)

# rule: what it must find (schedule, horizon, words of the finding), near misses it must not
CASES = {
    "epochs-as-steps": (
        [
            (Warmup(5) >> Cosine(85), RUN, "as many as there are epochs"),
            (Cosine(90), RUN, "write Cosine('90ep')"),
            (Warmup("5ep") * MultiStep((30, 60, 80)), RUN, "Warmup('5ep') * MultiStep(('30ep',"),
            (MultiStep((30, 60, 80)), RUN, "write MultiStep(('30ep', '60ep', '80ep'))"),
            (Step(30), RUN, "write Step('30ep')"),
            (Piecewise({0: 1.0, 30: 0.1}), RUN, "write Piecewise((('0ep', 1), ('30ep', 0.1)))"),
            (Warmup("5%") >> Cosine(), Horizon(90, batches_per_epoch=391), 'write "90ep"'),
            (Warmup("5ep") >> Cosine(), Horizon(90, batches_per_epoch=391), 'write "90ep"'),
        ],
        [
            (Warmup("5ep") >> Cosine("85ep"), RUN),
            (Warmup(500) >> Cosine(34_690), RUN),
            (Cosine(90), Horizon(90)),  # nothing is said about epochs
            (Warmup(90) >> Cosine(), RUN),  # only the warmup is in steps
            (untuned_warmup(0.95) * Cosine(), RUN),
            (sgdr(50), RUN),  # short cycles in steps are somebody's choice
            (PowerLaw(0.5, 90), RUN),  # a timescale is no length
            (noam(512, 4000), Horizon("5000ep", batches_per_epoch=10)),
            (Warmup(500) >> Constant(), Horizon("1000ep", batches_per_epoch=10)),
            (Warmup("5%") >> Cosine(), Horizon(100_000, batches_per_epoch=5_000_000)),  # pretraining
        ],
    ),
    "under-a-step": (
        [
            (Warmup(0.05) >> Cosine(), RUN, "if it is a share of the run, write Warmup('5%')"),
            (Warmup("5%") >> Linear(0.2) >> Constant(), RUN, "write Linear('20%')"),
        ],
        [(Warmup(1) >> Cosine(), RUN)],
    ),
    "factor-is-rate": (
        [
            (3e-4 * (Warmup("5%") >> Cosine()), RUN, "write (Warmup('5%') >> Cosine()).absolute(0.0003)"),
            (0.001 * Cosine(), RUN, "write Cosine().absolute(0.001)"),
            (Linear(start=1e-3), RUN, "multiplies the optimizer's own rate"),
            (Constant(value=500.0), RUN, "peak is 500"),
        ],
        [
            ((Warmup("5%") >> Cosine()).absolute(3e-4), RUN),
            (0.1 * Cosine(), RUN),
            (noam(512, 4000), RUN),
            (Plan(noise=2.0 * Cosine()), RUN),
        ],
    ),
    "zero-start": (
        [
            (Warmup("5%", start=0) >> Cosine(), RUN, "write Warmup('5%'), which starts one step up"),
            (Linear("10%", start=0.0, stop=1.0) >> Linear(), RUN, "start above 0"),
        ],
        [(Warmup("5%") >> Cosine(), RUN), (Constant(value=0.0), RUN)],
    ),
    "long-warmup": (
        [
            (Warmup(1000) >> Cosine(9000), Horizon(500), "lasts 1,000 steps, the run 500 steps"),
            (Warmup("95ep") >> Cosine(10), RUN, 'Warmup("5%")'),
            (Warmup("60%") >> Cosine(), RUN, "takes 60 % of the run"),
            (Warmup(1000) * inverse_sqrt(100), Horizon(500), "the warmup lasts"),
            (noam(512, 4000), Horizon(2000), "the warmup lasts 3,999 steps"),
        ],
        [
            (Plan(lr=Cosine(), kl=Warmup("100%").absolute()), RUN),  # not a rate
            (one_cycle(), RUN),(Warmup("45%") >> Cosine(), RUN), (Warmup(499) >> Cosine(501), Horizon(1000))],
    ),
    "cut-off": (
        [
            (Warmup("5%") >> Cosine("120ep"), RUN, "cut off after 72.3 % of it, at 0.1905 instead of 0"),
            (MultiStep(("30ep", "60ep", "95ep")), RUN, "comes after the end of the run"),
            (Constant(100) >> Piecewise({0: 1.0, 950: 0.1}), Horizon(1000), "change at 1,050 steps"),
        ],
        [
            (Piecewise({0: 1, "50%": 0.5, "100%": 0}, linear=True), RUN),
            (Warmup("5%") >> Cosine(), RUN),
            (Cosine(101), Horizon(100)),  # so that the last step is at 0.0002 rather than 0
            (Warmup(10) >> Constant(10_000), Horizon(1000)),  # nothing is lost of a constant
            (MultiStep(("30ep", "60ep", "80ep")), RUN),
        ],
    ),
    "ends-early": (
        [
            (Warmup("5%") >> Cosine("60ep"), RUN, "the last 9,970 steps of the run (28.3 %) train at 0"),
            (Linear(700, stop=0.1), Horizon(1000), "train at 0.1"),
            (Cosine("90%") >> Constant("rest", 0.0), RUN, "train at 0"),
            (Cosine(980), Horizon(1000), "the last 20 steps"),
        ],
        [
            (Cosine(999), Horizon(1000)),
            (Linear(800, stop=0.1), Horizon(1000)),
            (Warmup("375e6tok") >> Cosine("260e9tok", stop=0.1), GPT3),
            (Warmup("10%"), RUN),
            (infinite("5ep", "45ep", anneal="10ep"), RUN),
        ],
    ),
    "jump": (
        [
            (Warmup("5ep") >> Linear(start=0.5), RUN, "from 1 to 0.5; let Linear begin at 1: start=1"),
            (Linear("50%", stop=0.1) >> Cosine(), RUN, "from 0.1 to 1"),
            (Step("30ep").cut("60ep") >> Linear(), RUN, "begin at 0.1: start=0.1"),
            (Warmup("5%") >> Constant("rest", 0.5) >> Linear("20%"), RUN, "from 0.5 to 1"),
            (Cosine("295ep", stop=0.01) >> Constant("10ep"), Horizon("305ep", batches_per_epoch=9), "value=0.01"),
            (Linear("50%", stop=0.1) >> Cosine().between(0.01), RUN, "0.1 * Between(Cosine(17595), 0.01)"),
        ],
        [
            (Constant(500, 0.1) >> Cosine(), RUN),  # a constant warmup
            (Constant("50%") >> Constant("30%", 0.1) >> Constant(value=0.01), RUN),  # a staircase
            (Warmup("5%") >> Step("30ep"), RUN),
            (Warmup("5%") >> Linear(start=0.97), RUN),
            (Warmup("5%") >> sgdr("28.5ep", factor=0.5), RUN),
            ((Warmup("5ep") >> Cosine()).held("1ep"), RUN),
            (Warmup("5ep").held("1ep") >> Cosine(), RUN),
            (Cosine("50%") >> Cosine(), RUN),  # a restart, written out
        ],
    ),
    "late-restart": (
        [
            (sgdr("10ep", growth=2), Horizon("72ep", batches_per_epoch=391), "in the last 2.78 %"),
            (cyclic("4.5ep"), Horizon("85.5ep", batches_per_epoch=391), "in the last 5.2"),
            (wsd_s("5ep", "25ep", "5ep"), RUN, "rises again"),
            (Cosine(9800) >> Cosine(200), Horizon(10_000), "restarts for the last 2 % of the run"),
            (Cosine(half_waves=2), Horizon(10_000), "step 5,000 (50 %)"),
            (sgdr("10ep"), Horizon("90.5ep", batches_per_epoch=391), "end the run after 35,190 steps"),
        ],
        [
            (sgdr("10ep", growth=2), Horizon("70ep", batches_per_epoch=391)),
            (cyclic("4.5ep"), RUN),
            (sgdr("30ep"), RUN),
        ],
    ),
    "freezes": (
        [
            (Exponential(0.9, every="1ep"), RUN, "the other 51.5 % of the run hardly move anything"),
            (Step("10ep"), RUN, "keep a floor"),
            (Polynomial(power=9), RUN, "99 % of the travel is done"),
        ],
        [
            (Exponential(0.95, every="1ep"), RUN),
            (Step("30ep"), RUN),
            (Polynomial(power=2), RUN),
            (Exponential(0.9, every="1ep").between(0.1), RUN),
        ],
    ),
    "never-falls": (
        [
            (Constant(), RUN, "ends at 100 % of its peak"),
            (Warmup("5%"), RUN, "end with a cooldown"),
            (Linear(stop=0.95), RUN, "ends at 95 % of its peak"),
        ],
        [(Linear(stop=0.5), RUN), (inverse_sqrt("5ep"), RUN), (Cosine(), Horizon(1))],
    ),
    "momentum": (
        [
            (Plan(momentum=Constant(value=1.0).absolute()), RUN, "momentum reaches 1; keep it below 1"),
            (Plan(momentum=Linear(start=0.85, stop=0.95)), RUN, "multiplies the optimizer's own momentum"),
        ],
        [
            (Plan(momentum=Constant(value=0.99).absolute()), RUN),
            (Plan(beta1=Constant()), RUN),
        ],
    ),
}  # fmt: skip


def test_every_rule_has_its_cases():
    assert list(CASES) == list(RULES)


class Bound:
    """Stands for a bound scheduler: what a look at one asks."""

    horizon = RUN

    def __init__(self, key, schedule, zeros):
        self.entry = Entry(key, "", schedule, 1.0, zeros=zeros)

    def tracks(self):
        return [self.entry]


DECAY = Linear(start=0.04, stop=0.4).absolute()
CASES["decays-all"] = (
    [
        (
            Bound("weight_decay", DECAY, ("norm",)),
            None,
            "overwrites the weight decay 0 of norm; to keep",
        )
    ],
    [
        (Bound("weight_decay", DECAY, ()), None),
        (Bound("lr", Cosine().absolute(), ("norm",)), None),
        (Bound("weight_decay", Constant(value=0.0).absolute(), ("norm",)), None),
    ],
)


def flat(kind):
    return [(rule, *case) for rule, pair in CASES.items() for case in pair[kind]]


@pytest.mark.parametrize(("rule", "schedule", "horizon", "words"), flat(0))
def test_a_rule_finds_what_it_is_for(rule, schedule, horizon, words):
    found = {finding.rule: str(finding) for finding in check(schedule, horizon)}
    assert rule in found
    assert words in found[rule]
    assert rule not in {f.rule for f in check(schedule, horizon, ignore=[rule])}


@pytest.mark.parametrize(("rule", "schedule", "horizon"), flat(1))
def test_a_rule_keeps_quiet_where_it_cannot_be_sure(rule, schedule, horizon):
    assert rule not in {finding.rule for finding in check(schedule, horizon)}


@pytest.mark.parametrize(
    "schedule",
    [
        inverse_sqrt("1ep"),
        inverse_time("10ep"),
        half_life("15ep"),
        warmup_cosine("5%"),
        warmup_linear("5%"),
        warmup_step("5ep"),
        warmup_inverse_sqrt("5ep"),
        noam(512, 4000),
        untuned_warmup() * Cosine(),
        one_cycle(),
        one_cycle(form="paper"),
        one_cycle(form="fastai"),
        one_cycle(35_190),
        cyclic("7.5ep"),
        cyclic("5ep", mode="triangular2"),
        slanted_triangular(35_190),
        wsd(),
        trapezoid(),
        wsd_s("5ep", "65ep", "20ep"),
        infinite("5ep", "45ep", anneal="10ep"),
        eight_one_one(),
        sgdr("12.857142857ep", growth=2),
        Polynomial(),
        Plan(lr=Cosine(), weight_decay=Linear(start=0.04, stop=0.4).absolute()),
        Plan(lr=Cosine(), ema=Linear("10%", start=0.9, stop=0.999).absolute()),
    ],
    ids=repr,
)
def test_the_recipes_over_a_fitting_run_have_no_finding(schedule):
    assert check(schedule, RUN) == ()


def test_wall_clock_is_checked_too():
    assert check(Warmup("1h") >> Cosine(), Horizon("12h")) == ()
    (found,) = check(Warmup("1h") >> Cosine("5h"), Horizon("12h"))
    assert (found.rule, found.where) == ("ends-early", "hour 6 (50 %)")


# LinearLR over 1000 steps, then CosineAnnealingLR over `total_epochs - 1000`, milestones=[1000].
@pytest.mark.parametrize("total_epochs", [1100, 2000, 5000])
def test_a_snippet_that_subtracts_steps_from_epochs_is_caught(total_epochs):
    snippet = Warmup(1000, start=0.01) >> Cosine(total_epochs - 1000)
    run = Horizon(f"{total_epochs}ep", batches_per_epoch=391)
    (found,) = check(snippet, run)
    assert (found.rule, found.level) == ("epochs-as-steps", "error")
    corrected = found.cure.rpartition("write ")[2]
    assert corrected == "Warmup(1000, start=0.01) >> Cosine()"
    assert check(parse(corrected), run) == ()


def test_that_snippet_with_fewer_epochs_than_warmup_steps_is_no_schedule():
    with pytest.raises(FieldError, match='a length > 0, got -910; write "rest"'):
        Warmup(1000, start=0.01) >> Cosine(90 - 1000)


def test_a_schedule_that_does_not_fit_at_all_is_a_finding():
    (found,) = check(Warmup(100) >> Cosine(), Horizon(90))
    assert (found.rule, found.level) == ("no-room", "error")
    assert "leave nothing over" in found.what


def test_one_fault_is_told_once():
    found = check(Plan(lr=Cosine(90), momentum=Cosine(90).absolute(0.9)), RUN)
    assert [(f.rule, f.title) for f in found] == [
        ("epochs-as-steps", "lr"),
        ("epochs-as-steps", "momentum"),
    ]
    (short,) = check(one_cycle(), Horizon(90, batches_per_epoch=391))
    assert (short.rule, short.level) == ("epochs-as-steps", "warning")
    groups = {f"group {i}": Constant() for i in range(60)}
    (same,) = check(groups, RUN)
    assert same.title == "group 0, group 1 and 58 more"


def test_what_is_asked_wrongly():
    with pytest.raises(FieldError, match="ignore must be of epochs-as-steps, .* got 'zero'"):
        check(Cosine(10), ignore=["zero"])
    with pytest.raises(UnitError, match="need a horizon"):
        check(Cosine())


def test_a_finding_is_a_value_and_reads_as_a_line():
    (found,) = check(Constant(), Horizon(10))
    assert dataclasses.asdict(found).keys() == {
        "rule", "level", "title", "where", "what", "cure", "at", "unit",
    }  # fmt: skip
    assert (found.at, found.unit) == (9.0, "steps")
    assert isinstance(found, Finding)
    assert str(found).startswith("warning [never-falls] step 9 (90 %): the rate never falls")
    assert "\n" not in str(found)


def test_every_rule_says_what_it_finds():
    for name, rule in RULES.items():
        assert inspect.getdoc(rule), name


@settings(max_examples=80)
@given(tree=trees(), total=st.sampled_from([1, 2, 50, 3000, 10_000_000]))
def test_no_schedule_breaks_the_lint(tree, total):
    for finding in check(tree, Horizon(total, batches_per_epoch=7)):
        assert finding.what
        assert finding.cure
        assert "\n" not in str(finding)


def test_a_resumed_part_that_only_its_hold_keeps_alive_is_checked():
    held = Constant(over=1, value=0.5).held(10)
    assert isinstance(check(Resumed(of=held, after=1, over=20), horizon=Horizon(20)), list | tuple)
