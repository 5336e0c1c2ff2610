"""An optimizer around another one: one state, one list of groups, and `lr` multiplied meanwhile."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from stepsize.errors import FieldError
from stepsize.optim.base import NOT_NEGATIVE, Rate
from stepsize.torch.groups import Group

_FIELDS: Mapping[str, Any] = {"lr": Rate(), "weight_decay": NOT_NEGATIVE}


class Wrapper(Optimizer):
    """An optimizer that steps by another one, whose state and groups it shares.

    So nothing can fall apart: whoever edits, saves or loads either of them does it to both. What a
    wrapper remembers stands there, too; its settings are attributes without an underscore.
    """

    optimizer: Optimizer

    def __init__(self, optimizer: Optimizer, **settings: Any) -> None:
        rule = "a torch optimizer that is no wrapper itself and whose step needs no closure"
        closing = isinstance(optimizer, LBFGS) or getattr(optimizer, "needs_closure", False)
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, Wrapper) or closing:
            raise FieldError.of("optimizer", rule, type(optimizer).__name__)
        for group in optimizer.param_groups:
            _check(group)
        self.__setstate__({"optimizer": optimizer, **settings})
        self._complete()

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The state of the optimizer inside, with what is remembered here."""
        return self.optimizer.state

    @state.setter
    def state(self, value: defaultdict[Tensor, Any]) -> None:
        self.optimizer.state = value

    @property
    def param_groups(self) -> list[Group]:
        """The groups of the optimizer inside, with the numbers of this one."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, value: list[Group]) -> None:
        self.optimizer.param_groups = value

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the optimizer inside."""
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, value: dict[str, Any]) -> None:
        self.optimizer.defaults = value

    def _complete(self) -> None:
        """Give its numbers to groups that have none: new ones, or those of a state without."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group to the optimizer inside."""
        self.optimizer.add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except FieldError:
            self.param_groups.pop()
            raise
        self._complete()

    def state_dict(self) -> dict[str, Any]:
        """Give the state of the optimizer inside, with what is remembered here."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        found: dict[str, Any] = self.optimizer.state_dict()
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, found)
            found = found if changed is None else changed
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; one of the optimizer inside alone, too: then this one begins anew."""
        given = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, given)
            given = given if changed is None else changed
        self.optimizer.load_state_dict(given)
        self._complete()
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


@contextmanager
def multiplied(groups: Sequence[Group], by: str) -> Iterator[None]:
    """Let each `lr` be multiplied meanwhile, by a number of its group; put it back exactly.

    A tensor is replaced, not filled: a scheduler that follows the optimizer inside fills the user's
    own before this ends. A number that it has written stays, too.
    """
    lent = [(group, group["lr"], group["lr"] * group[by]) for group in groups if group[by] != 1.0]
    try:
        for group, _, scaled in lent:
            group["lr"] = scaled
        yield
    finally:
        for group, lr, scaled in lent:
            if group["lr"] is scaled:
                group["lr"] = lr


def _check(group: Group) -> None:
    """Check what torch does not in a group."""
    if "lr" not in group:
        raise FieldError.of("optimizer", "one whose groups have lr, to multiply", sorted(group))
    for name, rule in _FIELDS.items():
        if name in group:
            rule.admit(name, group[name])
