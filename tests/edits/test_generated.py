"""Laws of the edits over generated schedules of every family, in every unit of time."""

import dataclasses
import json
import math

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from tests.laws.examples import COMBINATIONS, FAMILIES, LEAVES, RAMPS, halved, numbers, values

import stepsize
from stepsize import (
    Custom,
    FieldError,
    Held,
    Horizon,
    Piecewise,
    Plan,
    StepsizeError,
    UnitError,
    check,
    describe,
    driving_unit,
    from_dict,
    parse,
    preview,
    resolve,
    stepwise,
    to_dict,
)
from stepsize.edits.carry import carried
from stepsize.edits.kinds import CoolDown, Extend, Replan, edit_data, edit_from
from stepsize.edits.moment import Moment
from stepsize.schedules.fields import (
    Bounds,
    FlagRule,
    FunctionRule,
    LengthRule,
    MomentsRule,
    NodeRule,
    NodesRule,
    TableRule,
)
from stepsize.schedules.walk import nodes, units_of
from stepsize.units import REST, Time

MANY = [pytest.param(cls, 60, marks=pytest.mark.slow, id=cls.kind) for cls in FAMILIES]
every_family = pytest.mark.parametrize(
    ("cls", "number"), [pytest.param(None, 40, id="some of all"), *MANY]
)
NAMESPACE = {name: getattr(stepsize, name) for name in stepsize.__all__} | {"halved": halved}
RAMP = Piecewise({0: 8, 50: 16, 120: 32}).absolute()

# 200 steps each but the last, and the units that lengths are written in beside shares
HORIZONS = {
    "steps": (Horizon(200), ("st",)),
    "epochs": (Horizon("20ep", batches_per_epoch=10), ("st", "ep")),
    "samples": (Horizon("12800samples", batch_size=64), ("samples",)),
    "tokens": (Horizon("204800tok", batch_size=16, tokens_per_sample=64), ("tok",)),
    "ramped batches": (Horizon("4080samples", batch_size=RAMP), ("samples",)),
    "a thousand million": (Horizon(1e9), ("st",)),
}


# Generators -------------------------------------------------------------------------------------


def lengths_in(horizon, units):
    """Shares of the run that are whole steps, and lengths in its units."""

    def written(pair):
        unit, share = pair
        total = horizon.position(horizon.steps, unit)
        return float(round(total * share)) if unit == "st" else Time(total * share, unit)

    shares = st.integers(1, 60).map(lambda number: Time(float(number), "%"))
    parts = st.sampled_from([0.005, 0.05, 0.1, 0.25, 0.5])
    return st.one_of(shares, st.tuples(st.sampled_from(units), parts).map(written))


def field(draw, cls, name, depth, lengths):
    """Draw a value for one field, by its rule."""
    rule, optional = cls._rules.get(name, (None, False))
    if optional and draw(st.booleans()):
        return None
    if rule is None:
        return draw(st.sampled_from(RAMPS))
    tree, several = trees(lengths, depth - 1), st.lists(lengths, min_size=1, max_size=4)
    kinds = {
        LengthRule: lambda: draw(lengths if rule.signed else st.one_of(lengths, st.just(REST))),
        Bounds: lambda: draw(numbers(rule)),
        NodeRule: lambda: draw(tree),
        NodesRule: lambda: tuple(draw(tree) for _ in range(draw(st.integers(2, 3)))),
        MomentsRule: lambda: tuple(draw(several)),
        TableRule: lambda: tuple((moment, draw(values)) for moment in draw(several)),
        FlagRule: lambda: draw(st.booleans()),
        FunctionRule: lambda: halved,
    }
    return kinds[type(rule)]()


@st.composite
def of_family(draw, cls, lengths, depth=2):
    """Instances of one family over nested parts, in units."""
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    for _ in range(20):
        given_fields = {name: field(draw, cls, name, depth, lengths) for name in names}
        try:
            return cls(**given_fields)
        except StepsizeError:
            continue
    return reject()


@st.composite
def trees(draw, lengths, depth=2):
    """Schedules of every family, nested, in units."""
    deep = depth > 0 and draw(st.booleans())
    return draw(of_family(draw(st.sampled_from(COMBINATIONS if deep else LEAVES)), lengths, depth))


@dataclasses.dataclass
class Run:
    """A schedule over a horizon at a moment."""

    schedule: stepsize.Schedule
    horizon: Horizon
    units: tuple[str, ...]
    step: int
    lengths: st.SearchStrategy

    def __post_init__(self):
        self.value = stepwise(self.schedule, self.horizon)
        self.moment = Moment(self.step, self.horizon)

    def edited(self, edit):
        """Give the schedule after an edit and its horizon; refused edits are drawn again."""
        try:
            made, horizon = carried(edit, {"lr": self.schedule}, self.moment)
            resolve(made["lr"], horizon)
        except (FieldError, UnitError) as error:
            text = str(error)
            assert text, edit
            assert "\n" not in text
            return reject()
        return made["lr"], horizon

    def used(self):
        """The steps at which values were used; some of them where there are very many."""
        if self.step <= 1000:
            return range(self.step)
        return sorted({round(self.step * i / 50) for i in range(50)} | {1, 2, self.step - 1})


@st.composite
def runs(draw, cls, names=tuple(HORIZONS)):
    """A schedule of a family, somewhere in a run; boundaries and both ends among the moments."""
    horizon, units = HORIZONS[draw(st.sampled_from(names))]
    lengths = lengths_in(horizon, units)
    schedule = draw(of_family(cls or draw(st.sampled_from(FAMILIES)), lengths))
    steps = horizon.steps
    marks = st.sampled_from([0, 1, steps // 20, steps // 10, steps // 2, steps - 1])
    step = draw(st.one_of(st.integers(0, steps - 1), marks))
    try:
        return Run(schedule, horizon, units, step, lengths)
    except StepsizeError:
        return reject()


@st.composite
def extensions(draw, run):
    """Longer and shorter totals, in the unit of the horizon."""
    share, total = draw(st.sampled_from([0.5, 0.8, 1.0, 1.5, 2.0, 3.0])), run.horizon.total
    return Extend(
        Time(total.amount * share, total.unit) if isinstance(total, Time) else total * share
    )


@st.composite
def cool_downs(draw, run):
    """Along every ramp, up and down."""
    over = draw(st.one_of(run.lengths, st.just(REST)))
    ramp, to = draw(st.sampled_from(RAMPS)), draw(st.sampled_from([0.0, 0.1, 1.0, 2.0]))
    positive = ramp.__name__ in {"Geometric", "Harmonic"}
    return CoolDown(over, to=0.01 if positive and not to else to, along=ramp)


@st.composite
def replans(draw, run, since):
    """Another schedule of any family, absolute if the present one is."""
    then = draw(trees(run.lengths))
    assume(not customs(then))  # a journal could not hold it
    if run.schedule.is_absolute != then.is_absolute:
        assume(run.schedule.is_absolute)
        then = then.absolute()
    try:
        stepwise(then, run.horizon)
    except StepsizeError:
        return reject()
    over = draw(st.one_of(st.sampled_from([None, 0.0, 5.0]), run.lengths))
    return Replan(Plan(lr=then), over=over, since=since)


def same(a, b, rel=1e-12):
    return math.isclose(a, b, rel_tol=rel, abs_tol=1e-21)


def in_shares(node):
    """Whether every length of a node is a share of the run; a mixture is cut off elsewhere."""
    lengths = [
        getattr(node, n) for n, (rule, _) in node._rules.items() if isinstance(rule, LengthRule)
    ]
    return all(isinstance(x, Time) and x.unit in ("%", "rest") for x in lengths if x is not None)


def ends_with_the_run(run):
    """Whether the last value comes at the end of the run, and belongs to no user's function."""
    if not all(map(in_shares, nodes(run.schedule))):
        return False
    tree, total = run.moment.tree(run.schedule), run.horizon.steps
    unit = driving_unit(run.schedule, run.horizon)
    odd = any(isinstance(n, Custom | Held) or n.duration == math.inf for n in nodes(tree))
    return not odd and same(tree.duration, run.horizon.position(total, unit))


# The laws ---------------------------------------------------------------------------------------


@every_family
def test_extend_changes_nothing_that_was_used_and_ends_as_told(cls, number):
    @settings(max_examples=number)
    @given(data=st.data())
    def holds(data):
        run = data.draw(runs(cls))
        edit = data.draw(extensions(run))
        made, horizon = run.edited(edit)
        value = stepwise(made, horizon)
        for step in run.used():
            assert same(value(step), run.value(step)), (step, made)
        if ends_with_the_run(run):
            assert same(value(horizon.steps), run.value(run.horizon.steps), 1e-9), made
        here = Moment(run.step, horizon)
        if not here.ended(made):  # as a shortened part may have just now
            assert carried(edit, {"lr": made}, here)[0]["lr"] == made

    holds()


@every_family
def test_cool_down_starts_where_it_is_and_ends_where_it_was_asked_to(cls, number):
    @settings(max_examples=number)
    @given(data=st.data())
    def holds(data):
        run = data.draw(runs(cls))
        edit = data.draw(cool_downs(run))
        made, horizon = run.edited(edit)
        value, now = stepwise(made, horizon), run.value(run.step)
        if now == 0.0:  # and it stays there
            assert made == run.schedule
            return
        for step in run.used():
            assert same(value(step), run.value(step)), (step, made)
        assert same(value(run.step), now)
        unit = driving_unit(run.schedule, horizon)
        length = run.moment.length(edit.over, run.schedule, "over")
        end = horizon.step_at(run.moment.at(run.schedule) + length, unit)
        assert same(end, round(end), 1e-9)
        for step in (end, end + 1, 2 * end + 1000):
            assert same(value(step), edit.to * now, 1e-9), (step, made)
        inside = [value(run.step + (end - run.step) * i / 16) for i in range(17)]
        low, high = sorted((now, edit.to * now))
        assert all(low * (1 - 1e-9) <= x <= high * (1 + 1e-9) for x in inside)

    holds()


@every_family
@pytest.mark.parametrize("since", ["now", "start"])
def test_replan_is_a_straight_line_and_then_the_other_schedule(cls, number, since):
    @settings(max_examples=number)
    @given(data=st.data())
    def holds(data):
        run = data.draw(runs(cls, tuple(set(HORIZONS) - {"ramped batches"})))
        edit = data.draw(replans(run, since))
        made, horizon = run.edited(edit)
        then, value, k = edit.plan["lr"], stepwise(made, horizon), run.step
        unit = driving_unit(made, horizon)
        at = lambda step: horizon.position(step, unit)
        assume(unit == driving_unit(run.schedule, horizon) or not customs(run.schedule))
        for step in run.used():
            assert same(value(step), run.value(step)), (step, made)
        over = round(horizon.step_at(join(edit, made, run), unit))
        line = [value(k + i) for i in (0, over // 2, over)]
        if over:
            assert same(line[0], run.value(k))
            between = line[0] + (line[2] - line[0]) * (over // 2) / over
            assert same(line[1], between, 1e-9)
        if since == "now" and units_of(then) & {"%", "rest"}:
            return  # its "rest" is what is left of the run
        assume(driving_unit(then, horizon) == unit)
        tree, begin = resolve(then, horizon), at(k) if since == "now" else 0.0
        later = {k + over, k + over + 1, horizon.steps - 1, horizon.steps}
        fits = begin + tree.duration <= at(horizon.steps)  # the run's end cuts off what does not
        later |= {3 * horizon.steps} if fits else set()
        for step in sorted(step for step in later if step >= k + over):
            assert same(value(step), tree(at(step) - begin), 1e-9), (step, made)

    holds()


def customs(tree):
    return any(isinstance(node, Custom) for node in nodes(tree))


def join(edit, made, run):
    """The length of the straight line in the unit that drives the new schedule."""
    if edit.over == 0.0:
        return 0.0
    if edit.over is not None:
        return run.moment.length(edit.over, made, "over")
    near = run.step > 0.99 * run.horizon.steps
    return run.moment.length(REST if near else Time(1.0, "%"), made, "over")


@every_family
def test_what_an_edit_makes_is_a_schedule_like_any_other(cls, number):
    @settings(max_examples=number)
    @given(data=st.data())
    def holds(data):
        run = data.draw(runs(cls))
        edit = data.draw(
            st.one_of(extensions(run), cool_downs(run), replans(run, "now"), replans(run, "start"))
        )
        try:
            made, horizon = run.edited(edit)
        except FieldError as error:  # a tree that is nonsense as soon as its shares are numbers
            assume("Resumed.after must be before the end" not in str(error))
            raise
        assert from_dict(json.loads(json.dumps(to_dict(made))), trust=("tests",)) == made
        assert eval(repr(made), NAMESPACE) == made  # noqa: S307 (our own text)
        if not customs(made):
            assert parse(repr(made)) == made
        if made.is_absolute or made.range[1] < math.inf:
            assert str(describe(made, horizon=horizon))
        assert preview(made, horizon=horizon).text()
        assert isinstance(check(made, horizon=horizon), list | tuple)
        assert edit_from(json.loads(json.dumps(edit_data(edit)))) == edit

    holds()
