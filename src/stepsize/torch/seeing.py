"""What a scheduler sees: losses and metrics, shown to its controllers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from stepsize.edits.kinds import CoolDown, Edit
from stepsize.errors import FieldError, StepsizeError
from stepsize.feedback import Seen
from stepsize.torch import guards, ranks
from stepsize.torch.cell import FIRED, STEPS
from stepsize.torch.controlled import Reaction
from stepsize.torch.edited import Edited


class Seeing(Edited):
    """A scheduler that can be shown what was measured."""

    def observe(
        self,
        loss: Any = None,
        *,
        metric: Any = None,
        grad_norm: Any = None,
        reduce: bool = True,
    ) -> None:
        """Show the controllers what was seen, and write what they make of it.

        Under torch.distributed every rank must call it: what was seen is averaged over all of them
        first, so that all decide the same. It never moves time.

        Args:
            loss: the training loss of this step, a number or a tensor.
            metric: what an evaluation gave; `step(metric)` is the same. The same one repeated at
                one time counts once.
            grad_norm: the norm of the whole gradient.
            reduce: False for values that are equal on all ranks already.
        """
        self._ready()
        given = {"loss": loss, "metric": metric, "grad_norm": grad_norm}

        def read() -> dict[str, float]:
            return {name: _number(name, x) for name, x in given.items() if x is not None}

        seen = ranks.means(read, tuple(given)) if reduce else read()
        self._shown |= set(seen)
        t = self._cell[STEPS]
        if "metric" in seen and self._repeated(t, seen["metric"]):
            del seen["metric"]
        if seen:
            bound = self._binding  # its shift: moments are the horizon's, in another world too
            there = Seen(t + bound.shift, **seen)
            self._react(bound.controlled.see(there, t, self._clock.seconds))

    def _repeated(self, t: float, metric: float) -> bool:
        """Tell whether a metric comes again at the same time; in a dry loop time stands still."""
        last, self._last_metric = self._last_metric, (t, metric)
        return bool(self._cell[FIRED]) and repr(last) == repr((t, metric))

    def _react(self, reactions: list[Reaction]) -> None:
        if not reactions:
            return
        self._binding.pull()
        self._renew()
        for controller, update in reactions:
            if update.edit is not None:
                self._carry_out(update.edit, f"{controller.kind}: {update.note}")

    def _carry_out(self, edit: Edit, why: str) -> None:
        """Make a controller's edit, as far as there is room; training goes on whatever it asks."""
        ways = [edit]
        if isinstance(edit, CoolDown):
            ways.append(dataclasses.replace(edit, over="rest"))
        for way in ways:
            try:
                self._apply(way, why)
            except StepsizeError as error:
                failed = error
            else:
                return
        guards.once(self, why, f"{why}; but that could not be done: {failed}")

    def _given_metric(self, metrics: Any, epoch: Any) -> None:
        number = isinstance(metrics, str | Tensor | Mapping | Sequence) or hasattr(
            metrics, "__float__"
        )
        if metrics is not None and not number:
            self._advance()  # what calls handlers of events passes itself, as ignite's engine does
            return
        if metrics is None or not self._binding.controlled.sees("metric"):
            cure = "set scheduler.last_epoch to go somewhere, or give feedback=Plateau(...)"
            rule = "called without a number: no controller sees a metric, and time is counted"
            raise FieldError.of("step()", rule, epoch if metrics is None else metrics, cure)
        self.observe(metric=metrics)


def _number(name: str, value: Any) -> float:
    try:
        return ranks.scalar(value)
    except (TypeError, ValueError, RuntimeError) as error:
        cure = "give one number, or a tensor of one element"
        raise FieldError.of(f"observe: {name}", f"a number ({error})", value, cure) from None
