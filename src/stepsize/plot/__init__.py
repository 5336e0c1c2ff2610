"""Pictures with matplotlib: PNG, SVG, PDF, or axes in a figure of your own."""

from stepsize.plot.files import save
from stepsize.plot.panels import draw, plot
from stepsize.plot.rates import range_test
from stepsize.plot.sizes import step_sizes
from stepsize.plot.stable import stability

__all__ = ["draw", "plot", "range_test", "save", "stability", "step_sizes"]
