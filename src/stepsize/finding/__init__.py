"""Reading a rate off the curve of a range test: pure functions of rates and losses.

`suggest` is our own rule, with a spread and a reason. `RULES` has those of fastai, `smith` is what
the first paper did by eye, and `read_curve` reads curves that were recorded elsewhere.
"""

from stepsize.finding.bounds import Smith, smith
from stepsize.finding.curve import RangeCurve
from stepsize.finding.divergence import Divergence
from stepsize.finding.reading import read_curve, write_curve
from stepsize.finding.report import RangeTest
from stepsize.finding.rules import RULES, averaged, minimum, slide, steepest, valley
from stepsize.finding.stability import Moment, StabilityCourse, stable_rate
from stepsize.finding.studies import WarmupStudy
from stepsize.finding.suggestion import Suggestion, suggest
from stepsize.finding.warmup import WarmupAdvice, recommend_warmup

__all__ = [
    "RULES",
    "Divergence",
    "Moment",
    "RangeCurve",
    "RangeTest",
    "Smith",
    "StabilityCourse",
    "Suggestion",
    "WarmupAdvice",
    "WarmupStudy",
    "averaged",
    "minimum",
    "read_curve",
    "recommend_warmup",
    "slide",
    "smith",
    "stable_rate",
    "steepest",
    "suggest",
    "valley",
    "write_curve",
]
